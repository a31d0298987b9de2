import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { createLog } from '../../../src/server/log/log.ts'
import type { LivingNode, MoveOrder, NodeState } from '../../../src/server/nodes/node-state.ts'
import { askToRebalance, endRebalancing, isOver, sharesOf } from '../../../src/server/nodes/rebalance.ts'
import { livingNodes, NodeRegistry, type NodeRegistryOptions } from '../../../src/server/nodes/registry.ts'
import { openRedis, type RedisClient } from '../../../src/server/redis/redis.ts'
import { eventually } from '../../support/eventually.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { findRedis, type TestRedis } from '../../support/redis.ts'
import { expectWithin } from '../../support/within.ts'

let server: TestRedis
/** Asks Redis what stands there. */
let redis: Redis
const clients: { disconnect(): void }[] = []
let deployments = 0

beforeAll(async () => {
  server = await findRedis()
  redis = new Redis(server.url)
  clients.push(redis)
})
afterAll(async () => {
  for (const client of clients) client.disconnect()
  await server[Symbol.asyncDispose]()
})

async function connect(url = server.url): Promise<RedisClient> {
  const client = openRedis(url, { connectionName: 'test', commandTimeoutMs: 2000 })
  clients.push(client)
  if (client.status !== 'ready') await new Promise(resolve => client.once('ready', resolve))
  return client
}

const own: NodeState = { address: 'here:4000', release: '1.2.3', leads: false, connections: 5, lagMs: 7, moving: null }

class Node implements AsyncDisposable {
  readonly registry: NodeRegistry
  readonly orders: MoveOrder[] = []
  state = own
  readonly #dying = new AbortController()
  readonly #running: Promise<void>

  constructor(options: Pick<NodeRegistryOptions, 'redis' | 'name'> & Partial<NodeRegistryOptions>) {
    this.registry = new NodeRegistry({
      id: randomUUID(),
      state: () => this.state,
      onAsked: order => this.orders.push(order),
      log: createLog('silent'),
      ...options,
    })
    this.#running = this.registry.run(this.#dying.signal)
  }

  /** As kill -9: it says nothing more. */
  async die(): Promise<void> {
    this.#dying.abort()
    await this.#running
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.die()
  }
}

const newName = (): string => `nodes_${++deployments}`
const byId = (nodes: readonly LivingNode[]): string[] => nodes.map(({ id }) => id).sort()

test('nodes see each other with what they say of themselves, within a deployment', async () => {
  const client = await connect()
  const name = newName()
  await using a = new Node({ redis: client, name })
  await using b = new Node({ redis: await connect(), name })
  await using stranger = new Node({ redis: client, name: newName() })
  b.state = { ...own, address: 'there:4000', leads: true, connections: 9 }
  const both = [a.registry.id, b.registry.id].sort()
  await eventually(() => expect(byId(a.registry.nodes)).toEqual(both))
  await eventually(async () => {
    const nodes = await livingNodes(client, name)
    expect(nodes.find(({ id }) => id === b.registry.id)).toEqual({ ...b.state, id: b.registry.id })
    expect(nodes.find(({ id }) => id === a.registry.id)).toEqual({ ...own, id: a.registry.id })
    expect(nodes).toHaveLength(2)
  })
  expect(byId(await livingNodes(client, name))).not.toContain(stranger.registry.id)
  expect((await redis.keys(`{${name}}:*`)).length).toBe(1)
})

test('a node that stops is gone at once; one that dies, five seconds later, and leaves nothing', async () => {
  const client = await connect()
  const name = newName()
  await using stays = new Node({ redis: client, name })
  await using stops = new Node({ redis: client, name })
  await using dies = new Node({ redis: client, name })
  await eventually(async () => expect(await livingNodes(client, name)).toHaveLength(3))
  await stops.registry.leave()
  expect(byId(await livingNodes(client, name))).toEqual([stays.registry.id, dies.registry.id].sort())
  await dies.die()
  const began = performance.now()
  await eventually(async () => expect(byId(await livingNodes(client, name))).toEqual([stays.registry.id]))
  expect(performance.now() - began).toBeGreaterThan(3500)
  expectWithin(performance.now() - began, 6000)
  expect(await redis.hlen(`{${name}}:nodes`)).toBe(1)
})

test("the nodes' clocks decide nothing, and when Redis's own jumps the living are back within a second", async () => {
  const client = await connect()
  const name = newName()
  await using node = new Node({ redis: client, name })
  await eventually(async () => expect(await livingNodes(client, name)).toHaveLength(1))
  const [seconds] = await redis.time()
  const state = JSON.stringify(own)
  // As they stand there after the clock has stepped back by an hour, and of one that died long ago.
  await redis.hset(`{${name}}:nodes`, 'future', `${(Number(seconds) + 3600) * 1000} ${state}`)
  await redis.hset(`{${name}}:nodes`, 'past', `${(Number(seconds) - 3600) * 1000} ${state}`)
  await redis.hset(`{${name}}:nodes`, node.registry.id, `${(Number(seconds) + 3600) * 1000} ${state}`)
  expect(await livingNodes(client, name)).toEqual([])
  const jumpedAt = performance.now()
  vi.useFakeTimers({ toFake: ['Date'], now: Date.now() + 7_200_000 })
  try {
    await eventually(async () => expect(byId(await livingNodes(client, name))).toEqual([node.registry.id]))
    expectWithin(performance.now() - jumpedAt, 2500)
  } finally {
    vi.useRealTimers()
  }
})

test('a Redis that was emptied, or cut off and silent, has the node again once it answers; that is told once', async () => {
  await using link = await FaultyLink.to(server.url)
  const client = await connect(link.url)
  const name = newName()
  const said: string[] = []
  const say = (level: string) => (_about: unknown, text?: string) => void said.push(`${level} ${text ?? _about}`)
  const log = { ...createLog('silent'), warn: say('warn'), info: say('info') } as unknown as NodeRegistryOptions['log']
  await using node = new Node({ redis: client, name, log })
  const there = async (): Promise<void> => expect(byId(await livingNodes(redis, name))).toEqual([node.registry.id])
  await eventually(there)
  await redis.del(`{${name}}:nodes`)
  await eventually(there)
  link.isolate()
  await eventually(async () => expect(await livingNodes(redis, name)).toEqual([]))
  link.thaw()
  await eventually(there)
  await eventually(() => expect(said).toHaveLength(2))
  expect(said[0]).toMatch(/^warn could not tell Redis/)
  expect(said[1]).toMatch(/^info other nodes see/)
})

test('a node takes one round trip a second, with what it is asked in it', async () => {
  const name = newName()
  const client = await connect()
  await using node = new Node({ redis: client, name })
  await eventually(() => expect(node.registry.nodes).toHaveLength(1))
  const callsOf = async (): Promise<number> => {
    const stats = await redis.info('commandstats')
    return Number(/cmdstat_evalsha:calls=(\d+)/.exec(stats)?.[1] ?? 0)
  }
  const before = await callsOf()
  const countedAt = performance.now()
  const shares = new Map([[node.registry.id, 3]])
  const { id } = await askToRebalance(redis, name, { shares, nodeCount: 4, overMs: 30_000 })
  await eventually(() => expect(node.orders).toHaveLength(1))
  expect(node.orders[0]).toMatchObject({ rebalancing: id, keep: 3, overMs: 30_000, nodes: 4 })
  expect(node.orders[0]!.ageMs).toBeGreaterThanOrEqual(0)
  expectWithin(node.orders[0]!.ageMs, 2500)
  const [first] = await redis.time()
  await eventually(async () => expect(Number((await redis.time())[0])).toBeGreaterThanOrEqual(Number(first) + 3))
  // Asked once, and taken with the asking.
  expect(node.orders).toHaveLength(1)
  // One a second, the last of them begun, and the asking itself, which Redis may not know by its hash yet.
  const calls = (await callsOf()) - before
  expect(calls).toBeLessThanOrEqual((performance.now() - countedAt) / 1000 + 3)
})

test('who asks while a rebalancing runs is given that one: nothing adds up', async () => {
  const name = newName()
  const shares = new Map([
    ['a', 20],
    ['b', 20],
  ])
  const asking = Array.from({ length: 10 }, () => askToRebalance(redis, name, { shares, nodeCount: 3, overMs: 30_000 }))
  const all = await Promise.all(asking)
  expect(new Set(all.map(({ id }) => id)).size).toBe(1)
  expect(all.filter(({ isJoined }) => !isJoined)).toHaveLength(1)
  expect(all.every(({ asked }) => asked.join() === 'a,b')).toBe(true)
  const other = { shares: new Map([['c', 1]]), nodeCount: 2, overMs: 1000 }
  expect(await askToRebalance(redis, name, other)).toMatchObject({ isJoined: true, asked: ['a', 'b'], overMs: 30_000 })
  expect(await redis.pttl(`{${name}}:rebalance`)).toBeGreaterThan(0)
  // Only the one that runs can be ended.
  await endRebalancing(redis, name, 'another')
  expect(await askToRebalance(redis, name, other)).toMatchObject({ isJoined: true })
  await endRebalancing(redis, name, all[0]!.id)
  expect(await askToRebalance(redis, name, other)).toMatchObject({ isJoined: false, asked: ['c'] })
})

test.each([
  [[60, 0, 0], { n0: 20 }],
  [[30, 30, 0], { n0: 20, n1: 20 }],
  [[10, 10, 10], {}],
  [[21, 20, 20], {}],
  [[0, 0], {}],
  [[1, 0], {}],
  [[3, 0], { n0: 2 }],
])('of %j connections each node over its share keeps that', (counts, expected) => {
  const shares = sharesOf(counts.map((connections, place) => ({ id: `n${place}`, connections })))
  expect(Object.fromEntries(shares)).toEqual(expected)
})

test('a rebalancing is over when those that were asked say so, or live no more', () => {
  const nodes = (isDone: boolean, rebalancing = 'r'): LivingNode[] => [
    { ...own, id: 'a', moving: { rebalancing, moved: 1, isOver: isDone } },
    { ...own, id: 'b' },
  ]
  const running = { id: 'r', asked: ['a', 'died'] }
  expect(isOver(running, nodes(true))).toBe(true)
  expect(isOver(running, nodes(false))).toBe(false)
  expect(isOver(running, nodes(true, 'an earlier one'))).toBe(false)
  expect(isOver({ id: 'r', asked: ['b'] }, nodes(true))).toBe(false)
})
