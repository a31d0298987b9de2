import { once } from 'node:events'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test as oneByOne } from 'vitest'
import { createLog } from '../../src/server/log/log.ts'
import type { MoveOrder, NodeState } from '../../src/server/nodes/node-state.ts'
import { NodeRegistry } from '../../src/server/nodes/registry.ts'
import { closeRedis, openRedis, type RedisClient } from '../../src/server/redis/redis.ts'
import { assertRedisReady } from '../../src/server/redis/redis-ready.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { runCli, startCli } from '../support/run-cli.ts'

/** Each of a deployment of its own, and mostly waiting. */
const test = oneByOne.concurrent

let server: TestRedis
let client: RedisClient
let deployments = 0

beforeAll(async () => {
  server = await findRedis()
  client = openRedis(server.url, { connectionName: 'test', commandTimeoutMs: 2000 })
  await new Promise(resolve => client.once('ready', resolve))
})
afterAll(async () => {
  client.disconnect()
  await server[Symbol.asyncDispose]()
})

/** A node that is only on the list, and says what the test wants. */
class Listed implements AsyncDisposable {
  state: NodeState
  readonly orders: MoveOrder[] = []
  readonly #end = new AbortController()
  readonly #registry: NodeRegistry

  constructor(name: string, id: string, connections: number, onAsked: (node: Listed) => void = () => {}) {
    this.state = { address: `${id}:4000`, release: '9.8.7', leads: id === 'a', connections, lagMs: 12, moving: null }
    this.#registry = new NodeRegistry({
      id,
      redis: client,
      name,
      state: () => this.state,
      onAsked: order => {
        this.orders.push(order)
        onAsked(this)
      },
      log: createLog('silent'),
    })
    void this.#registry.run(this.#end.signal)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort()
    await this.#registry.leave()
  }
}

/** Does at once what it is asked. */
function obey(node: Listed, others: readonly Listed[]): void {
  const { rebalancing, keep } = node.orders.at(-1)!
  const moved = node.state.connections - keep
  node.state = { ...node.state, connections: keep, moving: { rebalancing, moved, isOver: true } }
  for (const other of others)
    other.state = { ...other.state, connections: other.state.connections + moved / others.length }
}

const newName = (): string => `rebalance_${++deployments}`
const run = (name: string, ...args: string[]) =>
  runCli(['rebalance', ...args], { REDIS_URL: server.url, TIDEGATE_NAME: name })

/** On the list. */
async function seen(name: string, count: number): Promise<void> {
  const redis = new Redis(server.url)
  while ((await redis.hlen(`{${name}}:nodes`)) < count) await new Promise(resolve => setTimeout(resolve, 20))
  redis.disconnect()
}

test('it shows who holds how many, asks those past their share, and shows what became of it', async () => {
  const name = newName()
  await using b = new Listed(name, 'b', 0)
  await using c = new Listed(name, 'c', 0)
  await using a: Listed = new Listed(name, 'a', 60, () => obey(a, [b, c]))
  await seen(name, 3)
  const { code, out, err } = await run(name, '--over', '5s')
  expect([code, err]).toEqual([0, ''])
  expect(out.split('\n')).toEqual([
    'NODE  ADDRESS  RELEASE  CONNECTIONS  LAG',
    'a     a:4000   9.8.7    60           12 ms  leads, 40 past its share',
    'b     b:4000   9.8.7    0            12 ms',
    'c     c:4000   9.8.7    0            12 ms',
    '',
    'NODE  ADDRESS  RELEASE  CONNECTIONS  LAG',
    'a     a:4000   9.8.7    20           12 ms  leads',
    'b     b:4000   9.8.7    20           12 ms',
    'c     c:4000   9.8.7    20           12 ms',
    'Done: 40 connections were sent away, each once.',
    '',
  ])
  expect(a.orders).toMatchObject([{ keep: 20, overMs: 5000, nodes: 3 }])
  expect([...b.orders, ...c.orders]).toEqual([])
  // Nothing is left of it, and nothing to do.
  const again = await run(name)
  expect([again.code, again.out.split('\n').at(-2)]).toEqual([0, 'Every node holds its share already.'])
})

test('a Redis that is said to be ready takes commands', async () => {
  for (let i = 0; i < 20; i++) {
    const opened = openRedis(server.url, { connectionName: 'test', commandTimeoutMs: 2000 })
    // Asked in this moment, it answers what it is; anything else, not yet.
    await once(opened, 'connect')
    await assertRedisReady(opened)
    expect(await opened.get('nothing')).toBe(null)
    closeRedis(opened)
  }
})

test('--dry-run asks nothing', async () => {
  const name = newName()
  await using a = new Listed(name, 'a', 60)
  await using b = new Listed(name, 'b', 0)
  await seen(name, 2)
  const { code, out } = await run(name, '--dry-run')
  expect(code).toBe(0)
  expect(out).toContain('30 past its share')
  expect(out).toMatch(/Nothing was asked: --dry-run\.\n$/)
  const redis = new Redis(server.url)
  expect(await redis.exists(`{${name}}:rebalance`)).toBe(0)
  redis.disconnect()
  expect([...a.orders, ...b.orders]).toEqual([])
})

test('[P8] with fewer than two nodes, or no Redis, it says so and ends with 1', async () => {
  const name = newName()
  const none = await run(name)
  expect([none.code, none.out]).toEqual([1, ''])
  expect(none.err).toContain(
    `tidegate: NODES_TOO_FEW\n  no node lives under the name ${name} in this Redis\n  Remedy: `,
  )
  await using _ = new Listed(name, 'a', 60)
  await seen(name, 1)
  expect((await run(name)).err).toContain(`only a:4000 lives under the name ${name}`)
  const away = await runCli(['rebalance'], { REDIS_URL: 'redis://127.0.0.1:1' })
  expect(away.code).toBe(1)
  expect(away.err).toContain('tidegate: RELAY_UNREACHABLE')
})

test('a node that does not come to its end is waited for so long; Ctrl-C leaves the rest to the nodes', {
  timeout: 60_000,
}, async () => {
  const name = newName()
  await using a = new Listed(name, 'a', 60)
  await using b = new Listed(name, 'b', 0)
  await seen(name, 2)
  const { code, out } = await run(name, '--over', '1s')
  expect(code).toBe(1)
  expect(out).toMatch(/Not done: 0 connections were sent away, each once so far\. .*\n$/)
  expect(a.orders).toHaveLength(1)

  await using interrupted = startCli(['rebalance', '--over', '5m'], { REDIS_URL: server.url, TIDEGATE_NAME: name })
  await interrupted.until(() => a.orders.length === 2)
  interrupted.child.kill('SIGINT')
  expect((await interrupted.end()).code).toBe(1)
  expect(interrupted.out).toContain('Not done: ')
  // Whoever asks again meanwhile watches that one.
  await using joined = startCli(['rebalance'], { REDIS_URL: server.url, TIDEGATE_NAME: name })
  await joined.until(({ err }) => err.includes('a rebalancing is under way, begun '))
  obey(a, [b])
  expect((await joined.end()).code).toBe(0)
  expect(a.orders).toHaveLength(2)
})
