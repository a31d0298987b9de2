import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { channelKey } from '../../../../src/server/channels/message.ts'
import type { PresenceDiff } from '../../../../src/server/channels/presence/presence.ts'
import { encodePresence } from '../../../../src/server/channels/relay/redis-envelope.ts'
import { ChannelNames } from '../../../../src/server/channels/relay/redis-keys.ts'
import { FaultyLink } from '../../../support/faulty-link.ts'
import { lastingPort, RedisProcess, startRedis, until } from '../../../support/redis-process.ts'
import { expectWithin } from '../../../support/within.ts'
import { relaySuite } from './relay-suite.ts'
import { bare, draftOf, Ear, kept, keyOf, listen, RelayNode, readAll, underKey } from './relay-world.ts'

/** Where no fault is to be noticed, a busy machine is not one. */
const commandTimeoutMs = 10_000

let shared: RedisProcess
let worlds = 0
beforeAll(async () => {
  shared = await startRedis()
})
afterAll(() => shared[Symbol.asyncDispose]())

relaySuite('over Redis', async () => {
  worlds += 1
  const name = `tide${worlds}`
  const nodes = ['n1', 'n2'].map(id => new RelayNode(shared.url, id, { name, commandTimeoutMs }))
  await Promise.all(nodes.map(hears))
  return {
    a: nodes[0]!.relay,
    b: nodes[1]!.relay,
    [Symbol.asyncDispose]: async () => {
      for (const node of nodes) await node[Symbol.asyncDispose]()
    },
  }
})

const hears = ({ relay }: RelayNode): Promise<void> => until(async () => relay.isHearing, 'it hears')

const subscriptions = async (redis: RedisProcess): Promise<string[]> =>
  ((await redis.ask('PUBSUB', 'SHARDCHANNELS')) as string[]).filter(name => !name.includes(':probe:')).sort()

test('[P7] 10,000 channels listened to at once are subscribed to in a few commands, and heard again after a cut', async () => {
  await using redis = await startRedis()
  await using link = await FaultyLink.to(redis.url)
  await using node = new RelayNode(redis.url, 'n1', { subscriberUrl: link.url, commandTimeoutMs })
  await hears(node)
  const topics = Array.from({ length: 10_000 }, (_, n) => `room:${n}`)
  await redis.ask('CONFIG', 'RESETSTAT')
  const ears = topics.map(() => new Ear())
  const beganMs = performance.now()
  await Promise.all(topics.map((topic, n) => node.relay.listen(keyOf(topic), ears[n]!).ready))
  expectWithin(performance.now() - beganMs, 3000)
  const stats = String(await redis.ask('INFO', 'commandstats'))
  expect(Number(/cmdstat_ssubscribe:calls=(\d+)/.exec(stats)![1])).toBeLessThanOrEqual(25)
  expect((await subscriptions(redis)).length).toBe(10_000)
  link.cut()
  await expect.poll(() => ears.every(({ interruptions }) => interruptions === 1)).toBe(true)
  await Promise.all(topics.slice(0, 200).map(topic => node.relay.publish(draftOf(topic), bare)))
  await expect.poll(() => ears.filter(({ messages }) => messages.length === 1).length).toBe(200)
})

// From here on side by side, each over a Redis of its own: they wait for the most part.
test.concurrent('[P7] a node subscribes only to channels that it has listeners for, and stays for a grace', async ({
  expect,
}) => {
  await using redis = await startRedis()
  await using node = new RelayNode(redis.url, 'n1', { graceMs: 2000 })
  await hears(node)
  expect(await subscriptions(redis)).toEqual([])
  const ears = [new Ear(), new Ear()].map(ear => node.relay.listen(keyOf('room:1'), ear))
  await Promise.all(ears.map(({ ready }) => ready))
  const live = '{tide/private%2Froom%3A1}:live'
  expect(new ChannelNames('tide', node.client).live(keyOf('room:1'))).toBe(live)
  expect(await subscriptions(redis)).toEqual([live])
  for (const { close } of ears) close()
  await sleep(200)
  expect(await subscriptions(redis)).toEqual([live])
  // Who comes within the grace waits for nothing, and it is not ended under them.
  const again = node.relay.listen(keyOf('room:1'), new Ear())
  await again.ready
  await sleep(2300)
  expect(await subscriptions(redis)).toEqual([live])
  again.close()
  await expect.poll(() => subscriptions(redis)).toEqual([])
  expect(node.relay.subscribed).toBe(0)
})

test.concurrent('a connection that was cut is made again, all is subscribed to, and every listener is told, once', async ({
  expect,
}) => {
  await using redis = await startRedis()
  await using link = await FaultyLink.to(redis.url)
  await using a = new RelayNode(redis.url, 'n1')
  await using b = new RelayNode(redis.url, 'n2', { subscriberUrl: link.url })
  const ears = [await listen(b.relay, 'room:1'), await listen(b.relay, 'room:2'), await listen(b.relay, 'room:1')]
  const onA = await listen(a.relay, 'room:1')
  link.isolate()
  link.cut()
  await expect.poll(() => b.relay.isHearing).toBe(false)
  const late = b.relay.listen(keyOf('room:3'), new Ear())
  await a.relay.publish(draftOf('room:1', 'missed'), kept)
  link.thaw()
  await late.ready
  await expect.poll(() => ears.map(({ interruptions }) => interruptions)).toEqual([1, 1, 1])
  await a.relay.publish(draftOf('room:1', 'heard'), kept)
  await expect.poll(() => ears[0]!.payloads).toEqual(['heard'])
  expect(onA.payloads).toEqual(['missed', 'heard'])
  expect(onA.interruptions).toBe(0)
  await hears(b)
})

test.concurrent('[P4] a connection that stands and delivers nothing is noticed by the probe and made anew within about three seconds', async ({
  expect,
}) => {
  await using redis = await startRedis()
  await using link = await FaultyLink.to(redis.url)
  await using a = new RelayNode(redis.url, 'n1')
  await using b = new RelayNode(redis.url, 'n2', { subscriberUrl: link.url })
  const ear = await listen(b.relay, 'room:1')
  await hears(b)
  link.freeze(['down'])
  const frozenMs = performance.now()
  await a.relay.publish(draftOf('room:1', 'lost'), kept)
  await expect.poll(() => b.relay.isHearing, { interval: 20 }).toBe(false)
  await expect.poll(() => ear.interruptions, { interval: 20 }).toBe(1)
  expectWithin(performance.now() - frozenMs, 4000)
  await a.relay.publish(draftOf('room:1', 'heard'), kept)
  await expect.poll(() => ear.payloads).toEqual(['heard'])
  expect(b.relay.isHearing).toBe(true)
  expect((await readAll(b.relay, 'room:1')).map(({ payload }) => payload)).toEqual(['lost', 'heard'])
  expect(link.accepted).toBe(2)
})

test.concurrent('[P8] while Redis is away whoever asks is refused with UNAVAILABLE and when to come back; then all goes on by itself', async ({
  expect,
}) => {
  await using redis = await startRedis({ appendonly: true })
  await using node = new RelayNode(redis.url, 'n1', { readyMs: 500 })
  const ear = await listen(node.relay, 'room:1')
  await node.relay.publish(draftOf('room:1', '1'), kept)
  await expect.poll(() => ear.payloads).toEqual(['1'])
  await redis.kill()
  await expect.poll(() => node.relay.isHearing).toBe(false)
  const refusal = { code: 'UNAVAILABLE', retryAfterMs: expect.any(Number) }
  const late = new Ear()
  const listening = node.relay.listen(keyOf('room:2'), late)
  const asked = [
    node.relay.publish(draftOf('room:1', 'x'), kept),
    node.relay.publishAll([draftOf('room:1', 'y', { walIndex: 0 })], () => kept),
    node.relay.standing(keyOf('room:1')),
    node.relay.read(keyOf('room:1'), { after: 0n, limit: 1 }),
    listening.ready,
  ]
  for (const outcome of await Promise.allSettled(asked))
    expect(outcome).toMatchObject({ status: 'rejected', reason: refusal })
  await redis.start()
  await expect.poll(() => [ear.interruptions, late.interruptions]).toEqual([1, 1])
  await expect.poll(() => node.relay.publish(draftOf('room:1', '2'), kept).catch(() => null)).not.toBeNull()
  await expect.poll(() => ear.payloads).toEqual(['1', '2'])
})

test.concurrent('[P8] a Redis that hangs is given up in its time, and what was sent to it is done at most once', async ({
  expect,
}) => {
  await using redis = await startRedis()
  await using node = new RelayNode(redis.url, 'n1')
  const ear = await listen(node.relay, 'room:1')
  redis.pause()
  const askedMs = performance.now()
  await expect(node.relay.publish(draftOf('room:1', '1'), underKey('k'))).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  expectWithin(performance.now() - askedMs, 1500)
  redis.resume()
  await expect.poll(() => node.relay.publish(draftOf('room:1', '1'), underKey('k')).catch(() => null)).not.toBeNull()
  expect((await readAll(node.relay, 'room:1')).length).toBe(1)
  expect(ear.messages.length).toBeLessThanOrEqual(1)
})

test.concurrent('[P8] a Redis without memory refuses messages, keeps what it has, and takes them again', async ({
  expect,
}) => {
  await using redis = await startRedis({ settings: { maxmemory: '0', 'maxmemory-policy': 'noeviction' } })
  await using node = new RelayNode(redis.url, 'n1')
  const ear = await listen(node.relay, 'room:1')
  await node.relay.publish(draftOf('room:1', '1'), kept)
  await redis.ask('CONFIG', 'SET', 'maxmemory', '1')
  await expect(node.relay.publish(draftOf('room:1', 'x'), kept)).rejects.toMatchObject({
    code: 'UNAVAILABLE',
    message: expect.stringContaining('out of memory'),
  })
  expect((await node.relay.standing(keyOf('room:1'))).seq).toBe(1n)
  await redis.ask('CONFIG', 'SET', 'maxmemory', '0')
  expect((await node.relay.publish(draftOf('room:1', '2'), kept)).seq).toBe(2n)
  await expect.poll(() => ear.payloads).toEqual(['1', '2'])
})

test.concurrent('what this release cannot read is left out, and presence is handed on', async ({ expect }) => {
  await using redis = await startRedis()
  await using node = new RelayNode(redis.url, 'n1')
  const ear = await listen(node.relay, 'room:1')
  const name = new ChannelNames('tide', node.client).live(keyOf('room:1'))
  const entry = { ref: 'r', key: 'ü', user: null, connection: 'c', meta: '{"a":1}', sinceMs: 5 }
  const diff: PresenceDiff = { epoch: 'p', seq: 3n, joined: [entry], updated: [], left: [entry], count: 12 }
  for (const text of [
    'm9 future',
    'q1 ',
    '',
    'm1 ',
    'm1 abcdefab 1 -',
    'm1 abcdefab 1 -\nnot json\n{}',
    'p1 e 1',
    encodePresence(diff),
  ])
    await redis.ask('SPUBLISH', name, text)
  await node.relay.publish(draftOf('room:1', '1'), bare)
  await expect.poll(() => ear.payloads).toEqual(['1'])
  expect(ear.diffs).toEqual([diff])
})

test.concurrent('a Redis without sharded publishing is published to and listened to without', async ({ expect }) => {
  const words = ['SPUBLISH', 'SSUBSCRIBE', 'SUNSUBSCRIBE']
  const line = ['--bind', '127.0.0.1', '--save', '', ...words.flatMap(word => ['--rename-command', word, ''])]
  const port = await lastingPort()
  await using redis = await RedisProcess.prepare({}, { port, line: ['--port', String(port), ...line] })
  await redis.start()
  await using a = new RelayNode(redis.url, 'n1')
  await using b = new RelayNode(redis.url, 'n2', { graceMs: 300 })
  const ear = new Ear()
  const listening = b.relay.listen(keyOf('room:1'), ear)
  await listening.ready
  await a.relay.publish(draftOf('room:1', '1'), kept)
  await expect.poll(() => ear.payloads).toEqual(['1'])
  await redis.ask('CLIENT', 'KILL', 'TYPE', 'pubsub')
  await expect.poll(() => ear.interruptions).toBe(1)
  await a.relay.publish(draftOf('room:1', '2'), kept)
  await expect.poll(() => ear.payloads).toEqual(['1', '2'])
  await sleep(1500)
  await hears(b)
  listening.close()
  await expect
    .poll(() => redis.ask('PUBSUB', 'NUMSUB', '{tide/private%2Froom%3A1}:live'))
    .toEqual(['{tide/private%2Froom%3A1}:live', 0])
})

test.concurrent.each([
  ['private', { counterMs: 2000, publicCounterMs: 60_000 }],
  ['public', { counterMs: 60_000, publicCounterMs: 2000 }],
])(
  'counters of %s channels that are listened to go on, others end a while after their last message',
  async (kind, lives) => {
    await using redis = await startRedis()
    await using node = new RelayNode(redis.url, 'n1', lives)
    const isPrivate = kind === 'private'
    await node.relay.listen(channelKey({ topic: 'heard', isPrivate }), new Ear()).ready
    const publish = () =>
      Promise.all(
        ['heard', 'alone'].map(topic => node.relay.publish(draftOf('', '{}', { channel: { topic, isPrivate } }), bare)),
      )
    const first = await publish()
    await sleep(4000)
    const then = await publish()
    expect(then[0]).toMatchObject({ epoch: first[0]!.epoch, seq: first[0]!.seq + 1n })
    expect(then[1]!.epoch).not.toBe(first[1]!.epoch)
  },
)
