// The relay of channels over a Cluster, and over a master that Sentinels watch.
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { goesOn, type Published } from '../../../../src/server/channels/message.ts'
import { startRedisCluster } from '../../../support/redis-cluster.ts'
import type { ReplicatedRedis } from '../../../support/redis-failover.ts'
import { startSentinels } from '../../../support/redis-sentinels.ts'
import { draftOf, type Ear, kept, keyOf, listen, RelayNode, readAll, underKey } from './relay-world.ts'

/** Of its keys. */
const tagOf = (topic: string): string => `{tide/${encodeURIComponent(keyOf(topic))}}`

/** Tries until Redis is back; after a failover it may be away once more. */
async function answered<T>(ask: () => Promise<T>): Promise<T> {
  for (;;)
    try {
      return await ask()
    } catch (error) {
      expect(error).toMatchObject({ code: 'UNAVAILABLE' })
      await sleep(20)
    }
}

const publish = ({ relay }: RelayNode, topic: string, payload: string): Promise<Published> =>
  answered(() => relay.publish(draftOf(topic, payload), underKey(payload)))

const start = (url: string): RelayNode[] => ['n1', 'n2'].map(id => new RelayNode(url, id, { readyMs: 10_000 }))

const hear = ({ relay }: RelayNode): Promise<void> => expect.poll(() => relay.isHearing, { timeout: 30_000 }).toBe(true)

/** The replicas have all that was published so far. */
const isKept = async (redis: ReplicatedRedis, replicas: number): Promise<void> => {
  const master = await redis.master()
  await expect.poll(() => master.isConfirmedBy(replicas), { timeout: 20_000 }).toBe(true)
}

/** All is heard again: whoever was cut off was told. */
async function isHeard(
  nodes: readonly RelayNode[],
  ears: readonly (readonly [topic: string, ear: Ear])[],
): Promise<void> {
  await Promise.all(nodes.map(hear))
  await Promise.all(
    ears.map(async ([topic, ear]) => {
      const payloads: string[] = []
      // One that was sent before the loss was noticed is one that `interrupted` tells of.
      const sendsAndHears = async (): Promise<boolean> => {
        const payload = `${topic} ${ear.messages.length} ${Math.random()}`
        payloads.push(payload)
        await publish(nodes[0]!, topic, payload)
        return ear.payloads.some(heard => payloads.includes(String(heard)))
      }
      await expect.poll(sendsAndHears, { timeout: 20_000, interval: 200 }).toBe(true)
    }),
  )
}

test('over a Cluster: channels are spread over its servers, and heard from each', async () => {
  await using redis = await startRedisCluster()
  const [a, b] = start(redis.url)
  await using _a = a!
  await using _b = b!
  const topics = Array.from({ length: 60 }, (_, n) => `room:${n}`)
  const ears = await Promise.all(topics.map(topic => listen(b!.relay, topic)))
  for (const payload of ['1', '2']) await Promise.all(topics.map(topic => publish(a!, topic, payload)))
  await expect.poll(() => ears.map(({ payloads }) => payloads)).toEqual(topics.map(() => ['1', '2']))
  await hear(b!)
  const counts = await Promise.all(
    redis.servers.map(async server => {
      const names = (await server.ask('PUBSUB', 'SHARDCHANNELS')) as string[]
      return names.filter(name => !name.includes(':probe:')).length
    }),
  )
  expect(counts.filter(count => count > 5).length).toBe(3)
  expect(counts.reduce((sum, count) => sum + count, 0)).toBe(60)
  expect((await readAll(b!.relay, 'room:7')).map(({ payload }) => payload)).toEqual(['1', '2'])
  expect(ears.map(({ interruptions }) => interruptions)).toEqual(ears.map(() => 0))
})

test.each(['killed', 'paused'] as const)(
  '[P4] over a Cluster: when a master is %s without its newest messages, its channels are heard from the replica in another epoch, the others go on',
  async old => {
    await using redis = await startRedisCluster({ key: tagOf('room:0') })
    const nodes = start(redis.url)
    await using _a = nodes[0]!
    await using _b = nodes[1]!
    const topics = Array.from({ length: 30 }, (_, n) => `room:${n}`)
    const ears = await Promise.all(topics.map(async topic => [topic, await listen(nodes[1]!.relay, topic)] as const))
    await Promise.all(topics.map(topic => publish(nodes[0]!, topic, '1')))
    const before = await answered(() => nodes[0]!.relay.standing(keyOf('room:0')))
    await isKept(redis, 1)
    let lost: Published | null = null
    await redis.failover({
      old,
      losing: async () => {
        lost = await publish(nodes[0]!, 'room:0', 'lost')
      },
    })
    await isHeard(nodes, ears)
    expect(ears[0]![1].interruptions).toBeGreaterThan(0)
    const now = await answered(() => nodes[0]!.relay.standing(keyOf('room:0')))
    expect(goesOn(before, now)).toBe(true)
    expect(goesOn(lost!, now)).toBe(false)
    const untouched = ears.filter(([, { interruptions }]) => interruptions === 0)
    expect(untouched.length).toBeGreaterThan(5)
    for (const [, { messages }] of untouched) expect(new Set(messages.map(({ epoch }) => epoch)).size).toBe(1)
  },
)

test('[P4] over a Cluster: a slot that moves to another server takes its channels along', async () => {
  const tag = tagOf('room:0')
  await using redis = await startRedisCluster({ key: tag })
  const nodes = start(redis.url)
  await using _a = nodes[0]!
  await using _b = nodes[1]!
  const ear = await listen(nodes[1]!.relay, 'room:0')
  const first = await publish(nodes[0]!, 'room:0', '1')
  const from = await redis.master()
  const masters = []
  for (const server of redis.servers) if ((await server.replication()).get('role') === 'master') masters.push(server)
  const to = masters.find(server => server !== from)!
  const idOf = async (server: typeof from): Promise<string> => String(await server.ask('CLUSTER', 'MYID'))
  const slot = String(await from.ask('CLUSTER', 'KEYSLOT', tag))
  await to.ask('CLUSTER', 'SETSLOT', slot, 'IMPORTING', await idOf(from))
  await from.ask('CLUSTER', 'SETSLOT', slot, 'MIGRATING', await idOf(to))
  const keys = (await from.ask('CLUSTER', 'GETKEYSINSLOT', slot, '100')) as string[]
  await from.ask('MIGRATE', '127.0.0.1', String(to.port), '', '0', '5000', 'KEYS', ...keys)
  for (const server of [to, from, ...masters.filter(each => each !== to && each !== from)])
    await server.ask('CLUSTER', 'SETSLOT', slot, 'NODE', await idOf(to))
  await expect.poll(() => ear.interruptions, { timeout: 30_000 }).toBe(1)
  await isHeard(nodes, [['room:0', ear]])
  const now = await answered(() => nodes[0]!.relay.standing(keyOf('room:0')))
  expect(goesOn(first, now)).toBe(true)
  expect((await answered(() => readAll(nodes[1]!.relay, 'room:0')))[0]).toMatchObject({ payload: '1', seq: 1n })
})

test.each(['killed', 'paused'] as const)(
  '[P4] behind Sentinels: when the master is %s without its newest messages, its replica is heard, in another epoch',
  async old => {
    await using redis: ReplicatedRedis = await startSentinels()
    const nodes = start(redis.url)
    await using _a = nodes[0]!
    await using _b = nodes[1]!
    const ear = await listen(nodes[1]!.relay, 'room:0')
    const before = await publish(nodes[0]!, 'room:0', '1')
    await isKept(redis, 2)
    let lost: Published | null = null
    await redis.failover({
      old,
      losing: async () => {
        lost = await nodes[0]!.relay.publish(draftOf('room:0', 'lost'), kept)
      },
    })
    await isHeard(nodes, [['room:0', ear]])
    const now = await answered(() => nodes[0]!.relay.standing(keyOf('room:0')))
    expect(goesOn(before, now)).toBe(true)
    expect(goesOn(lost!, now)).toBe(false)
    expect(ear.interruptions).toBeGreaterThan(0)
    const payloads = (await answered(() => readAll(nodes[1]!.relay, 'room:0'))).map(({ payload }) => payload)
    expect(payloads[0]).toBe('1')
    expect(payloads).not.toContain('lost')
  },
)
