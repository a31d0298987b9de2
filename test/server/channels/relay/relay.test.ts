import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { channelKey, noEpoch } from '../../../../src/server/channels/message.ts'
import { MemoryChannelRelay } from '../../../../src/server/channels/relay/memory-relay.ts'
import { MemoryChannelRelays } from '../../../../src/server/channels/relay/memory-relays.ts'
import { steadyNow } from '../../../../src/server/steady-clock.ts'
import { relaySuite } from './relay-suite.ts'
import { bare, draftOf, kept, keyOf, listen, readAll, underKey } from './relay-world.ts'

const open = (more: Partial<ConstructorParameters<typeof MemoryChannelRelay>[0]> = {}): MemoryChannelRelay =>
  new MemoryChannelRelay({ now: steadyNow, random: Math.random, ...more })

relaySuite('in memory, of one node', async () => {
  const relay = new MemoryChannelRelays({ now: steadyNow, random: Math.random })
  return { a: relay, b: relay, [Symbol.asyncDispose]: () => relay.close() }
})

test('[P7] in memory: whatever is said in public, under however many topics and keys, private channels keep what they have', async () => {
  const relay = new MemoryChannelRelays({
    ...{ now: steadyNow, random: Math.random },
    ...{ maxBytes: 20_000, maxChannels: 20, maxKeys: 20 },
  })
  const first = await relay.publish(draftOf('room:1', '"first"'), underKey('k'))
  const payload = JSON.stringify('x'.repeat(300))
  for (let n = 0; n < 200; n += 1)
    await relay.publish(
      draftOf('', payload, { channel: { topic: `spam:${n}`, isPrivate: false } }),
      underKey(`k${n}`, n % 2 === 0 ? kept : bare),
    )
  expect((await readAll(relay, 'room:1')).map(({ payload }) => payload)).toEqual(['"first"'])
  expect(await relay.publish(draftOf('room:1', '"first"'), underKey('k'))).toEqual({ ...first, isDuplicate: true })
  // Of the public ones, only as many as may be.
  const spam = await relay.standing(channelKey({ topic: 'spam:0', isPrivate: false }))
  expect(spam.epoch).toBe(noEpoch)
  await relay.close()
})

relaySuite('in memory', async () => {
  const relay = open()
  return { a: relay, b: relay, [Symbol.asyncDispose]: () => relay.close() }
})

test('[P7] in memory: histories hold so many bytes over all channels; past it the oldest message of all goes', async () => {
  const relay = open({ maxBytes: 20_000 })
  const payload = JSON.stringify('x'.repeat(300))
  for (let n = 0; n < 60; n += 1) await relay.publish(draftOf(`room:${n % 3}`, payload), kept)
  expect(relay.bytes).toBeLessThanOrEqual(20_000)
  expect(relay.bytes).toBeGreaterThan(18_000)
  const pages = await Promise.all([0, 1, 2].map(n => relay.read(keyOf(`room:${n}`), { after: 0n, limit: 100 })))
  for (const { seq, first, messages } of pages) {
    expect(seq).toBe(20n)
    expect(messages.map(message => message.seq)).toEqual(messages.map((_, n) => first + BigInt(n)))
    expect(messages.at(-1)!.seq).toBe(20n)
  }
  const lengths = pages.map(({ messages }) => messages.length)
  expect(Math.max(...lengths) - Math.min(...lengths)).toBeLessThanOrEqual(1)
  // One that never comes down to its bound is let go too, and what is gone counts no more.
  await relay.publish(draftOf('room:0', JSON.stringify('x'.repeat(20_000))), kept)
  expect(relay.bytes).toBe(0)
  await relay.publish(draftOf('room:0', payload), kept)
  expect((await readAll(relay, 'room:0')).map(({ seq }) => seq)).toEqual([22n])
  await relay.close()
})

test('[P7] in memory: what has left its history is forgotten, however long the oldest message of all stays', async () => {
  const relay = open()
  const age = 600_000
  await relay.publish(draftOf('old'), { history: { length: 1, ageMs: age }, idempotency: null })
  for (let n = 0; n < 5000; n++)
    await relay.publish(draftOf('busy', String(n)), { history: { length: 3, ageMs: age }, idempotency: null })
  expect(relay.places).toBeLessThan(1100)
  expect((await readAll(relay, 'busy')).map(({ payload }) => payload)).toEqual(['4997', '4998', '4999'])
  expect(await readAll(relay, 'old')).toHaveLength(1)
  await relay.close()
})

test('[P7] in memory: of more channels than are kept the longest unused begins anew, in another epoch, unless somebody listens', async () => {
  const relay = open({ maxChannels: 3 })
  const ear = await listen(relay, 'heard')
  const heard = await relay.publish(draftOf('heard'), kept)
  const first = await relay.publish(draftOf('room:0'), kept)
  for (let n = 1; n < 4; n += 1) await relay.publish(draftOf(`room:${n}`), kept)
  expect(await relay.publish(draftOf('heard'), kept)).toMatchObject({ epoch: heard.epoch, seq: 2n })
  expect(ear.seqs).toEqual([1n, 2n])
  const anew = await relay.publish(draftOf('room:0'), kept)
  expect(anew.seq).toBe(1n)
  expect(anew.epoch).not.toBe(first.epoch)
  await relay.close()
})

test('[P7] in memory: of more idempotency keys than are kept the oldest is forgotten', async () => {
  const relay = open({ maxKeys: 2 })
  for (const key of ['1', '2', '3']) await relay.publish(draftOf('room:1'), underKey(key, bare))
  const again = async (key: string): Promise<boolean> =>
    (await relay.publish(draftOf('room:1'), underKey(key, bare))).isDuplicate
  expect([await again('3'), await again('2'), await again('1')]).toEqual([true, true, false])
  await relay.close()
})

test('in memory: presence comes between the messages it came between', async () => {
  const relay = open({ epoch: '0badcafe' })
  const order: unknown[] = []
  relay.listen(keyOf('room:1'), {
    message: ({ payload, epoch }) => order.push([payload, epoch]),
    presence: ({ count }) => order.push(count),
    interrupted: () => {},
  })
  void relay.publish(draftOf('room:1', '1'), bare)
  relay.tellPresence(keyOf('room:1'), { epoch: 'x', seq: 1n, joined: [], updated: [], left: [], count: 7 })
  void relay.publish(draftOf('room:1', '2'), bare)
  await sleep(0)
  expect(order).toEqual([['1', '0badcafe'], 7, ['2', '0badcafe']])
  await relay.close()
})
