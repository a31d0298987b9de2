// What holds for stands wherever they are kept.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  earliest,
  type Stand,
  type StandLimits,
  type Stands,
  standLimits,
} from '../../../../src/server/deliver/phoenix/stands.ts'

export interface StandPlace {
  readonly keeping: Stands
  readonly taking: Stands
  /** Until everything that was kept stands there. */
  settled(): Promise<void>
}

/** Of one epoch, and one query. */
export const at = (lsn: number, epoch = 'aaaaaaaa'): string => `${epoch}-${lsn.toString(16)}.tag`

export const stand = (lastRef: number, lsn: number, rest: Partial<Stand> = {}): Stand => ({
  owner: 'alice',
  lastRef,
  positions: { channel: at(lsn) },
  ...rest,
})

interface Case {
  readonly name: string
  /** In the order in which they are kept: last ref, LSN, and how long they were silent. */
  readonly kept: readonly (readonly [lastRef: number, lsn: number, silentMs?: number])[]
  readonly refs: readonly (string | null)[]
  readonly taken: readonly (number | null)[]
}

const long = 100_000

const cases: readonly Case[] = [
  { name: 'the one that it left', kept: [[7, 0x30]], refs: ['8'], taken: [0x30] },
  { name: 'at most once', kept: [[7, 0x30]], refs: ['8', '9'], taken: [0x30, null] },
  { name: 'none for a fresh page', kept: [[7, 0x30]], refs: ['1', '6', '7', '8'], taken: [null, null, null, 0x30] },
  {
    name: 'none without a number',
    kept: [[7, 0x30]],
    refs: [null, '', 'x', '-9', '9.5', '1e3', '0x99', ' 9', '99999999999999', 'Infinity', '9999999999999'],
    taken: [null, null, null, null, null, null, null, null, null, null, 0x30],
  },
  { name: 'a number however it is written', kept: [[7, 0x30]], refs: ['0008'], taken: [0x30] },
  {
    name: 'of tabs cut off at other times, each its own',
    kept: [
      [10, 0x10, 2 * long],
      [20, 0x20, long],
      [30, 0x30],
    ],
    refs: ['21', '31', '11'],
    taken: [0x20, 0x30, 0x10],
  },
  {
    name: 'of tabs cut off at other times, the greatest below the ref',
    kept: [
      [20, 0x20, long],
      [10, 0x10],
    ],
    refs: ['999', '11'],
    taken: [0x20, 0x10],
  },
  {
    name: 'of tabs cut off together, the earliest for each',
    kept: [
      [20, 0x20],
      [10, 0x11],
      [15, 0x1f],
    ],
    refs: ['21', '16', '11', '11'],
    taken: [0x11, 0x11, 0x11, null],
  },
  {
    name: 'the earliest also where that one is taken first',
    kept: [
      [20, 0x10],
      [12, 0x20],
    ],
    refs: ['21', '13'],
    taken: [0x10, 0x10],
  },
  {
    name: 'none above the ref, though cut off together',
    kept: [
      [20, 0x10],
      [12, 0x20],
    ],
    refs: ['13', '21'],
    taken: [0x20, 0x10],
  },
  {
    name: 'of equal refs the earliest, whenever they were cut off',
    kept: [
      [20, 0x20, long],
      [20, 0x10],
    ],
    refs: ['21', '21', '21'],
    taken: [0x10, 0x10, null],
  },
]

export function standRules(where: string, make: (limits: StandLimits) => Promise<StandPlace>): void {
  test.each(cases)(`a client that comes back is given $name (${where})`, async ({ kept, refs, taken }) => {
    const { keeping, taking, settled } = await make(standLimits)
    for (const [lastRef, lsn, silentMs = 0] of kept) keeping.keep(stand(lastRef, lsn, { silentMs }))
    await settled()
    const found: (number | null)[] = []
    for (const ref of refs) {
      const positions = await taking.take('alice', ref)
      const text = positions?.channel
      found.push(text === undefined ? null : Number.parseInt(text.split('-')[1]!, 16))
    }
    expect(found).toEqual(taken)
  })

  test(`[P2] nobody is given another's (${where})`, async () => {
    const { keeping, taking, settled } = await make(standLimits)
    keeping.keep(stand(7, 0x30))
    await settled()
    expect(await taking.take('bob', '8')).toBeNull()
    expect(await taking.take('alice', '8')).toEqual({ channel: at(0x30) })
  })

  test(`of many who ask at once, one is given it (${where})`, async () => {
    const { keeping, taking, settled } = await make(standLimits)
    keeping.keep(stand(7, 0x30))
    await settled()
    const asked = Array.from({ length: 40 }, (_, number) => (number % 2 === 0 ? keeping : taking).take('alice', '8'))
    expect((await Promise.all(asked)).filter(positions => positions !== null)).toHaveLength(1)
  })

  test(`one that has just been kept is found (${where})`, async () => {
    const { keeping } = await make(standLimits)
    for (let ref = 1; ref <= 200; ref += 1) keeping.keep(stand(ref, ref, { owner: `owner ${ref}` }))
    expect(await keeping.take('owner 200', '201')).toEqual({ channel: at(200) })
    expect(await keeping.take('owner 1', '2')).toEqual({ channel: at(1) })
  })

  test(`[P7] what is too large, stands nowhere, or has no counter is not kept (${where})`, async () => {
    const { keeping, taking, settled } = await make({ ...standLimits, maxBytes: 100 })
    const many = Object.fromEntries(Array.from({ length: 10 }, (_, number) => [`table ${number}`, at(number)]))
    keeping.keep(stand(7, 0, { positions: many }))
    keeping.keep(stand(7, 0, { positions: {} }))
    keeping.keep(stand(7, 0, { positions: { channel: 'nowhere' } }))
    for (const lastRef of [-1, 0.5, Number.NaN, Number.POSITIVE_INFINITY, 1e15]) keeping.keep(stand(lastRef, 0))
    await settled()
    expect(await taking.take('alice', '8')).toBeNull()
  })

  test(`[P7] a crowd of one owner costs as much as a few, and each of it is given the earliest (${where})`, async () => {
    const { keeping, taking, settled } = await make(standLimits)
    for (let number = 0; number < 100; number += 1) keeping.keep(stand(10 + (number % 7), 0x100 - number))
    await settled()
    const found = new Set<string | undefined>()
    for (let number = 0; number < 100; number += 1) found.add((await taking.take('alice', '50'))?.channel)
    expect([...found]).toEqual([at(0x100 - 99)])
    expect(await taking.take('alice', '50')).toBeNull()
  })

  test(`[P7] past the bound the oldest of one owner is forgotten (${where})`, async () => {
    const { keeping, taking, settled } = await make({ ...standLimits, maxStands: 3 })
    for (const number of [1, 2, 3, 4]) keeping.keep(stand(number, number, { silentMs: (10 - number) * long }))
    await settled()
    expect(await taking.take('alice', '2')).toBeNull()
    for (const number of [2, 3, 4])
      expect(await taking.take('alice', String(number + 1))).toEqual({ channel: at(number) })
  })

  test(`[P7] past the bound the owner who broke off first is forgotten (${where})`, async () => {
    const { keeping, taking, settled } = await make({ ...standLimits, maxOwners: 3 })
    for (const owner of ['a', 'b', 'c', 'a', 'd']) {
      keeping.keep(stand(7, 0x30, { owner }))
      await settled()
      // Redis tells those of one millisecond apart by their names.
      await new Promise(resolve => setTimeout(resolve, 2))
    }
    const found: string[] = []
    for (const owner of ['a', 'b', 'c', 'd']) if ((await taking.take(owner, '8')) !== null) found.push(owner)
    expect(found).toEqual(['a', 'c', 'd'])
  })

  test(`each subscription is given its own earliest, whatever it is called (${where})`, async () => {
    const { keeping, taking, settled } = await make(standLimits)
    const names = ['channel', '1', '2', 'public.tücke "q"\n', '']
    keeping.keep(stand(7, 0, { positions: Object.fromEntries(names.map((name, place) => [name, at(0x50 + place)])) }))
    keeping.keep(stand(7, 0, { positions: { channel: at(0x10), '1': at(0x99), another: 'aaaaaaaa-30-f.other' } }))
    await settled()
    expect(await taking.take('alice', '8')).toEqual({
      channel: at(0x10),
      '1': at(0x51),
      '2': at(0x52),
      'public.tücke "q"\n': at(0x53),
      '': at(0x54),
      another: 'aaaaaaaa-30-f.other',
    })
  })

  const positions = fc.tuple(
    fc.constantFrom('aaaaaaaa', 'bbbbbbbb'),
    fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
    fc.option(fc.integer({ min: 0, max: 0xffff }), { nil: null }),
    fc.constantFrom('tag', 'a-b_c', '-', '0'),
  )
  const text = positions.map(
    ([epoch, lsn, index, tag]) =>
      `${epoch}-${lsn.toString(16)}${index === null ? '' : `-${index.toString(16)}`}.${tag}`,
  )

  test(`of any positions the earliest of each subscription holds (${where})`, async () => {
    const { keeping, taking, settled } = await make(standLimits)
    let owners = 0
    const kept = fc.array(fc.dictionary(fc.constantFrom('channel', 'a', 'b'), text, { minKeys: 1 }), {
      minLength: 1,
      maxLength: 8,
    })
    await fc.assert(
      fc.asyncProperty(kept, async all => {
        const owner = `owner ${++owners}`
        for (const one of all) keeping.keep({ owner, lastRef: 7, positions: one })
        await settled()
        expect(await taking.take(owner, '8')).toEqual(earliest(all))
      }),
      { numRuns: 200 },
    )
  })
}
