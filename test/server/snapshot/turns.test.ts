import fc from 'fast-check'
import { expect, test } from 'vitest'
import { SlowHints } from '../../../src/server/snapshot/slow-hints.ts'
import { Turns, Wanted } from '../../../src/server/snapshot/turns.ts'

/** Reads by name, in the order in which they were begun. */
class Reads {
  readonly turns: Turns
  readonly begun: string[] = []
  readonly refused: string[] = []
  readonly #reading: Wanted[] = []
  readonly #names = new Map<Wanted, string>()

  constructor(places: number, maxWaiting = 1000) {
    this.turns = new Turns({ places, maxWaiting })
  }

  ask(name: string, share: string): Wanted {
    const wanted = new Wanted(share)
    this.#take(wanted, name)
    return wanted
  }

  /** The oldest read ends. @returns false where none is read */
  async end(): Promise<boolean> {
    await told()
    const wanted = this.#reading.shift()
    if (wanted === undefined) return false
    this.turns.free(wanted)
    await told()
    return true
  }

  /** The oldest read ends without rows, before a lock for instance, and asks anew. */
  async again(): Promise<void> {
    await told()
    const wanted = this.#reading.shift()
    if (wanted === undefined) return
    this.turns.free(wanted)
    const name = this.#names.get(wanted)!
    this.begun.splice(this.begun.indexOf(name), 1)
    this.#take(wanted, name)
    await told()
  }

  #take(wanted: Wanted, name: string): void {
    this.#names.set(wanted, name)
    this.turns.take(wanted).then(
      () => {
        this.begun.push(name)
        this.#reading.push(wanted)
      },
      (error: { code: string }) => this.refused.push(`${name} ${error.code}`),
    )
  }
}

const told = (): Promise<void> => new Promise(resolve => setImmediate(resolve))

test('[P7] whoever asks for a hundred snapshots makes nobody wait behind more than one of them', async () => {
  const reads = new Reads(1)
  for (let i = 0; i < 100; i++) reads.ask(`greedy ${i}`, 'greedy')
  reads.ask('a', 'alice')
  reads.ask('b', 'bob')
  for (let i = 0; i < 4; i++) await reads.end()
  expect(reads.begun).toEqual(['greedy 0', 'greedy 1', 'a', 'b', 'greedy 2'])
})

test('[P7] of several places one is always left to others', async () => {
  const reads = new Reads(3)
  for (let i = 0; i < 10; i++) reads.ask(`slow ${i}`, 'slow')
  await told()
  expect(reads.begun).toEqual(['slow 0', 'slow 1'])
  reads.ask('a', 'alice')
  await told()
  expect(reads.begun.at(-1)).toBe('a')
})

test('[P7] past the bound the longest line gives way to whoever asks for less, by its newest', async () => {
  const reads = new Reads(1, 4)
  for (const name of ['0', '1', '2', '3', '4']) reads.ask(`greedy ${name}`, 'greedy')
  reads.ask('greedy 5', 'greedy')
  await told()
  expect(reads.refused).toEqual(['greedy 5 BUSY'])
  reads.ask('a', 'alice')
  await told()
  expect(reads.refused.at(-1)).toBe('greedy 4 BUSY')
  expect(reads.turns.waiting).toBe(4)
  while (await reads.end());
  expect(reads.begun).toEqual(['greedy 0', 'greedy 1', 'a', 'greedy 2', 'greedy 3'])
})

test('who wants what another waits for takes it along in their own turn, and it is read once', async () => {
  const reads = new Reads(1)
  reads.ask('first', 'greedy')
  for (let i = 0; i < 10; i++) reads.ask(`greedy ${i}`, 'greedy')
  const last = reads.ask('common', 'greedy')
  reads.turns.join(last, 'alice')
  expect(reads.turns.waiting).toBe(12)
  await reads.end()
  await reads.end()
  expect(reads.begun).toEqual(['first', 'greedy 0', 'common'])
  while (await reads.end());
  expect(reads.begun.filter(name => name === 'common')).toHaveLength(1)
  expect([reads.turns.waiting, reads.turns.reading]).toEqual([0, 0])
})

const act = fc.oneof(
  fc.record({ do: fc.constant('ask' as const), share: fc.nat(4) }),
  fc.record({ do: fc.constant('join' as const), share: fc.nat(4), which: fc.nat(20) }),
  fc.record({ do: fc.constant('end' as const) }),
  fc.record({ do: fc.constant('again' as const) }),
)

test('[P7] however they come and go, each is read once or refused, the bounds hold, and no place is lost', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(act, { maxLength: 60 }),
      fc.integer({ min: 1, max: 3 }),
      fc.nat(8),
      async (acts, places, max) => {
        const reads = new Reads(places, max)
        const asked: Wanted[] = []
        for (const each of acts) {
          if (each.do === 'ask') asked.push(reads.ask(`${asked.length}`, `${each.share}`))
          else if (each.do === 'join' && asked[each.which] !== undefined)
            reads.turns.join(asked[each.which]!, `${each.share}`)
          else if (each.do === 'end') await reads.end()
          else if (each.do === 'again') await reads.again()
          expect(reads.turns.waiting).toBeLessThanOrEqual(max)
          expect(reads.turns.reading).toBeLessThanOrEqual(places)
          const mayGoOn = reads.turns.waiting > 0 && reads.turns.reading < places
          // One place stands empty only where a single share waits and has all others.
          if (mayGoOn) expect(reads.turns.reading).toBe(places - 1)
        }
        while (await reads.end());
        const names = asked.map((_, i) => `${i}`).sort()
        expect([...reads.begun, ...reads.refused.map(text => text.split(' ')[0]!)].sort()).toEqual(names)
        expect([reads.turns.waiting, reads.turns.reading]).toEqual([0, 0])
      },
    ),
    { numRuns: 500 },
  )
})

test('whoever is too slow again and again is told to stay away for longer, up to five minutes, until an answer comes in time', () => {
  const hints = new SlowHints()
  expect(Array.from({ length: 8 }, () => hints.slow('a'))).toEqual([
    5000, 10_000, 20_000, 40_000, 80_000, 160_000, 300_000, 300_000,
  ])
  expect(hints.slow('b')).toBe(5000)
  hints.quick('a')
  expect(hints.slow('a')).toBe(5000)
})

test('[P7] hints are remembered of a thousand at most: the one that was slow longest ago is forgotten', () => {
  const hints = new SlowHints()
  for (let i = 0; i < 1000; i++) hints.slow(`${i}`)
  expect(hints.slow('0')).toBe(10_000)
  hints.slow('another')
  expect(hints.size).toBe(1000)
  expect(hints.slow('0')).toBe(20_000)
  expect(hints.slow('1')).toBe(5000)
})
