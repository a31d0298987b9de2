// What a relay promises, whatever it is made of.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { type Draft, goesOn, noEpoch } from '../../../../src/server/channels/message.ts'
import type { ChannelRelay } from '../../../../src/server/channels/relay/channel-relay.ts'
import { bare, draftOf, Ear, kept, keyOf, listen, readAll, underKey } from './relay-world.ts'

/** Two nodes, which may be one. */
export interface RelayWorld extends AsyncDisposable {
  readonly a: ChannelRelay
  readonly b: ChannelRelay
}

export function relaySuite(maker: string, open: () => Promise<RelayWorld>): void {
  test(`[P5] ${maker}: numbers of a channel count up by one, in the order in which messages are heard`, async () => {
    await using world = await open()
    const { a, b } = world
    const ears = [await listen(a, 'room:1'), await listen(b, 'room:1'), await listen(b, 'room:1')]
    const other = await listen(a, 'room:2')
    const published = await Promise.all(
      Array.from({ length: 40 }, (_, n) =>
        (n % 2 === 0 ? a : b).publish(draftOf('room:1', `${n}`), n < 20 ? bare : kept),
      ),
    )
    const first = ears[0]!
    await expect.poll(() => ears.map(({ messages }) => messages.length)).toEqual([40, 40, 40])
    expect(first.seqs).toEqual(first.seqs.map((_, n) => first.seqs[0]! + BigInt(n)))
    expect(new Set(first.messages.map(({ epoch }) => epoch)).size).toBe(1)
    for (const ear of ears) expect(ear.messages).toEqual(first.messages)
    const numberOf = new Map(first.messages.map(({ payload, seq }) => [payload, seq]))
    expect(published.map(({ seq }) => seq)).toEqual(published.map((_, n) => numberOf.get(`${n}`)))
    expect(published.every(({ isDuplicate }) => !isDuplicate)).toBe(true)
    // Each sender's in the order in which it sent.
    for (const parity of [0, 1]) {
      const own = first.payloads.map(Number).filter(n => n % 2 === parity)
      expect(own).toEqual([...own].sort((x, y) => x - y))
    }
    expect(other.messages).toEqual([])
  })

  test(`${maker}: a message arrives, and is read, as it was sent`, async () => {
    await using world = await open()
    const { a, b } = world
    const ear = await listen(b, 'Raum: {ä}/☃')
    const drafts: readonly Draft[] = [
      draftOf('Raum: {ä}/☃', '{"text":"\\n ü 🐟\\u0000","n":[1,null]}', { event: 'ereignis\n"1"' }),
      draftOf('Raum: {ä}/☃', '"AAEC"', { isBinary: true, sender: { user: null, connection: null } }),
      draftOf('Raum: {ä}/☃', '', { to: { user: 'ü' }, sender: { user: 'x', connection: null }, walIndex: 0 }),
      draftOf('Raum: {ä}/☃', 'null', {
        to: { connection: 'c9' },
        stamp: { epoch: 'f:2', lsn: 2n ** 63n },
        walIndex: 2 ** 31,
      }),
    ]
    for (const draft of drafts) await a.publish(draft, kept)
    await expect.poll(() => ear.messages.length).toBe(4)
    expect(ear.messages.map(({ epoch, seq, before, ...draft }) => draft)).toEqual(drafts)
    const page = await b.read(keyOf('Raum: {ä}/☃'), { after: 0n, limit: 10 })
    expect(page.messages.map(({ epoch, seq, before, ...draft }) => draft)).toEqual(drafts)
    expect(page.messages.map(({ seq }) => seq)).toEqual(ear.seqs)
  })

  test(`${maker}: what is published under one key is published once, and each time answered as the first time`, async () => {
    await using world = await open()
    const { a, b } = world
    const ear = await listen(b, 'room:1')
    const first = await a.publish(draftOf('room:1', '1'), underKey('k'))
    const again = await Promise.all([a, b, b].map(relay => relay.publish(draftOf('room:1', '2'), underKey('k'))))
    expect(again).toEqual(again.map(() => ({ ...first, isDuplicate: true })))
    // A key is of one channel.
    expect((await a.publish(draftOf('room:2'), underKey('k'))).isDuplicate).toBe(false)
    const both = await Promise.all(
      ['x', 'y'].map(payload => a.publish(draftOf('room:1', payload), underKey('at once', bare))),
    )
    expect(both.map(({ isDuplicate }) => isDuplicate)).toEqual([false, true])
    expect(both[1]).toEqual({ ...both[0], isDuplicate: true })
    const short = { ...kept, idempotency: { key: 'short', ms: 60 } }
    await a.publish(draftOf('room:1', '3'), short)
    await sleep(120)
    expect((await a.publish(draftOf('room:1', '4'), short)).isDuplicate).toBe(false)
    await expect.poll(() => ear.payloads).toEqual(['1', 'x', '3', '4'])
    expect(ear.seqs.map(seq => seq - first.seq)).toEqual([0n, 1n, 2n, 3n])
  })

  test(`[P4] ${maker}: a history keeps its length, and is read forward and backward in pages`, async () => {
    await using world = await open()
    const { a, b } = world
    const options = { ...kept, history: { length: 10, ageMs: 600_000 } }
    for (let n = 1; n <= 15; n += 1) await (n % 2 === 0 ? a : b).publish(draftOf('room:1', `${n}`), options)
    const key = keyOf('room:1')
    const page = await b.read(key, { after: 0n, limit: 4 })
    expect(page).toMatchObject({ seq: 15n, first: 6n })
    expect(page.messages.map(({ payload }) => payload)).toEqual(['6', '7', '8', '9'])
    const payloads = async (range: Parameters<ChannelRelay['read']>[1]): Promise<number[]> =>
      (await a.read(key, range)).messages.map(({ payload }) => Number(payload))
    expect(await payloads({ after: 13n, limit: 4 })).toEqual([14, 15])
    expect(await payloads({ after: 15n, limit: 4 })).toEqual([])
    expect(await payloads({ after: 2n ** 64n - 1n, limit: 4 })).toEqual([])
    expect(await payloads({ before: null, limit: 3 })).toEqual([13, 14, 15])
    expect(await payloads({ before: 13n, limit: 3 })).toEqual([10, 11, 12])
    expect(await payloads({ before: 8n, limit: 5 })).toEqual([6, 7])
    expect(await payloads({ before: 6n, limit: 5 })).toEqual([])
    expect(await payloads({ before: 0n, limit: 5 })).toEqual([])
    expect(await payloads({ before: null, limit: 0 })).toEqual([])
    expect((await readAll(b, 'room:1', 0n, 3)).map(({ seq }) => seq)).toEqual([
      6n,
      7n,
      8n,
      9n,
      10n,
      11n,
      12n,
      13n,
      14n,
      15n,
    ])
    expect(await a.standing(key)).toMatchObject({ epoch: page.epoch, seq: 15n })
  })

  test(`[P4] ${maker}: a history keeps nothing longer than its age, whether or not more is published`, async () => {
    await using world = await open()
    const { a, b } = world
    const options = { ...kept, history: { length: 100, ageMs: 300 } }
    for (const payload of ['1', '2']) await a.publish(draftOf('room:1', payload), options)
    await sleep(200)
    await b.publish(draftOf('room:1', '3'), options)
    expect((await readAll(a, 'room:1')).map(({ payload }) => payload)).toEqual(['1', '2', '3'])
    await sleep(150)
    const page = await b.read(keyOf('room:1'), { after: 0n, limit: 10 })
    expect(page).toMatchObject({ seq: 3n, first: 3n })
    expect(page.messages.map(({ payload }) => payload)).toEqual(['3'])
    await sleep(300)
    const empty = await b.read(keyOf('room:1'), { before: null, limit: 10 })
    expect(empty).toMatchObject({ epoch: page.epoch, seq: 3n, first: 4n, messages: [] })
    expect((await a.publish(draftOf('room:1'), options)).seq).toBe(4n)
  })

  test(`${maker}: a history without its rule is gone, and begins again where the numbers are`, async () => {
    await using world = await open()
    const { a } = world
    for (const options of [kept, kept, bare, kept, kept]) await a.publish(draftOf('room:1'), options)
    const page = await a.read(keyOf('room:1'), { after: 0n, limit: 10 })
    expect(page).toMatchObject({ seq: 5n, first: 4n })
    expect(page.messages.map(({ seq }) => seq)).toEqual([4n, 5n])
  })

  test(`${maker}: a channel stands nowhere until its counter begins: at 0 with a history, anywhere without`, async () => {
    await using world = await open()
    const { a, b } = world
    const nowhere = { epoch: noEpoch, seq: 0n }
    expect(await a.standing(keyOf('kept'))).toEqual(nowhere)
    expect(await a.read(keyOf('kept'), { after: 0n, limit: 1 })).toEqual({ ...nowhere, first: 1n, messages: [] })
    const begun = await a.standing(keyOf('kept'), { hasHistory: true })
    expect(begun).toMatchObject({ seq: 0n, epoch: expect.stringMatching(/^[0-9a-f]{8}$/) })
    expect(begun.epoch).not.toBe(noEpoch)
    expect(await b.standing(keyOf('kept'), { hasHistory: true })).toEqual(begun)
    expect(await b.publish(draftOf('kept'), kept)).toMatchObject({ epoch: begun.epoch, seq: 1n })
    const numbers = await Promise.all(
      Array.from({ length: 20 }, async (_, n) => (await a.publish(draftOf(`bare ${n}`), bare)).seq),
    )
    expect(new Set(numbers).size).toBeGreaterThan(10)
    expect(numbers.every(seq => seq >= 1n && seq <= 2n ** 32n)).toBe(true)
    expect(goesOn(begun, await b.standing(keyOf('kept')))).toBe(true)
    expect(goesOn(begun, await b.standing(keyOf('bare 1')))).toBe(false)
  })

  test(`[P4] ${maker}: what came through the WAL is appended once and in order, however often it is tried`, async () => {
    await using world = await open()
    const { a, b } = world
    const ear = await listen(b, 'room:1')
    const commit = (lsn: bigint, count: number, epoch = 'e1'): readonly Draft[] =>
      Array.from({ length: count }, (_, walIndex) =>
        draftOf('room:1', `${epoch} ${lsn} ${walIndex}`, { stamp: { epoch, lsn }, walIndex }),
      )
    const big = commit(9n, 1000)
    const published = await a.publishAll(big, () => kept)
    expect(published.map(({ seq }) => seq)).toEqual(big.map((_, n) => BigInt(n + 1)))
    const again = await b.publishAll(big, () => kept)
    expect(again.every(({ isDuplicate }) => isDuplicate)).toBe(true)
    // Ten is after nine, as numbers are and texts are not.
    expect((await b.publishAll(commit(10n, 2), () => kept)).map(({ isDuplicate }) => isDuplicate)).toEqual([
      false,
      false,
    ])
    expect((await a.publishAll(commit(10n, 3), () => kept)).map(({ isDuplicate }) => isDuplicate)).toEqual([
      true,
      true,
      false,
    ])
    expect((await a.publishAll(commit(9n, 1), () => kept))[0]).toMatchObject({ isDuplicate: true })
    // Another history of the database, in which this is no older commit.
    expect((await a.publishAll(commit(5n, 1, 'e2'), () => kept))[0]).toMatchObject({ isDuplicate: false })
    await a.publish(draftOf('room:1', 'from a client'), kept)
    const expected = [...big, ...commit(10n, 3), ...commit(5n, 1, 'e2')].map(({ payload }) => payload)
    await expect.poll(() => ear.messages.length).toBe(expected.length + 1)
    expect(ear.payloads).toEqual([...expected, 'from a client'])
    expect(ear.seqs).toEqual(ear.seqs.map((_, n) => BigInt(n + 1)))
  })

  test(`${maker}: several commits of several channels go in one call`, async () => {
    await using world = await open()
    const { a } = world
    const topics = ['x', 'y', 'z']
    const drafts = Array.from({ length: 30 }, (_, walIndex) =>
      draftOf(topics[walIndex % 3]!, `${walIndex}`, { walIndex, stamp: { epoch: 'e', lsn: 7n } }),
    )
    const published = await a.publishAll(drafts, () => kept)
    expect(published.map(({ id }) => id)).toEqual(drafts.map(({ id }) => id))
    expect(published.map(({ seq }) => seq)).toEqual(drafts.map((_, n) => BigInt(Math.floor(n / 3) + 1)))
  })

  test(`${maker}: who has left hears nothing more, others of the channel do`, async () => {
    await using world = await open()
    const { a, b } = world
    const gone = new Ear()
    const listening = b.listen(keyOf('room:1'), gone)
    await listening.ready
    const there = await listen(b, 'room:1')
    await a.publish(draftOf('room:1', '1'), bare)
    await expect.poll(() => there.payloads).toEqual(['1'])
    listening.close()
    listening.close()
    await a.publish(draftOf('room:1', '2'), bare)
    await expect.poll(() => there.payloads).toEqual(['1', '2'])
    expect(gone.payloads).toEqual(['1'])
    // And comes back.
    const back = await listen(b, 'room:1')
    await a.publish(draftOf('room:1', '3'), bare)
    await expect.poll(() => back.payloads).toEqual(['3'])
    expect(b.isHearing).toBe(true)
  })

  test(`${maker}: a listener that publishes is told of its own message after the one it was told of`, async () => {
    await using world = await open()
    const { a } = world
    const heard = new Map<string, string[]>([
      ['first', []],
      ['second', []],
    ])
    const say = (payload: string): void => void a.publish(draftOf('room:1', payload), bare).catch(() => {})
    for (const [name, payloads] of heard) {
      const listener = Object.assign(new Ear(), {
        message: ({ payload }: { payload: string }) => {
          payloads.push(payload)
          if (name === 'first' && payload === '1') say('2')
        },
      })
      await a.listen(keyOf('room:1'), listener).ready
    }
    say('1')
    await expect
      .poll(() => [...heard.values()])
      .toEqual([
        ['1', '2'],
        ['1', '2'],
      ])
  })
}
