// What a balancer is told of two nodes while the network between one of them, or both, and Postgres or Redis swallows packets.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import type { ReadinessBody } from '../../src/server/upkeep/readiness.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { LiveSse, person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/stalled.ts'
import { expectWithin } from '../support/within.ts'

/** A node whose ways to Postgres and to Redis can be hurt. */
interface Linked {
  readonly node: TestNode
  readonly toPostgres: FaultyLink
  readonly toRedis: FaultyLink
}

const beaconMs = 1000
const tickMs = 1000
/** A balancer asks more seldom. */
const askEveryMs = 50

const ada = person()
let database: TestDatabase
let redis: TestRedis
/** Holds the slot: it was there first. */
let first: Linked
let second: Linked
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  token = await tokenFor(ada)
  first = await start()
  second = await start()
}, 120_000)

afterAll(async () => {
  for (const { node, toPostgres, toRedis } of [first, second]) {
    await node?.[Symbol.asyncDispose]()
    await toPostgres?.[Symbol.asyncDispose]()
    await toRedis?.[Symbol.asyncDispose]()
  }
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

afterEach(async () => {
  for (const { toPostgres, toRedis } of [first, second]) {
    toPostgres.thaw()
    toRedis.thaw()
  }
  await until(allIsWell, 60_000)
})

async function start(): Promise<Linked> {
  const toPostgres = await FaultyLink.to(database.url)
  const toRedis = await FaultyLink.to(redis.url)
  const node = await TestNode.start(toPostgres.url, {
    REDIS_URL: toRedis.url,
    BEACON_MS: String(beaconMs),
    // What is acknowledged shows to a node that it alone is cut off.
    RELAY_HOLD_MS: '500',
    DRAIN_DELAY_MS: '0',
  })
  return { node, toPostgres, toRedis }
}

/** What `/ready` says, `?scope=node` if so, and nothing else: its status must fit. */
async function ready({ node }: Linked, scope: '' | '?scope=node' = ''): Promise<ReadinessBody> {
  const response = await fetch(`${node.url}/ready${scope}`)
  const body = (await response.json()) as ReadinessBody
  expect(response.status).toBe(body.ready ? 200 : 503)
  return body
}

const whyOf = async (linked: Linked): Promise<(string | null)[]> => [
  (await ready(linked)).why,
  (await ready(linked, '?scope=node')).why,
]

const isWhy = async (linked: Linked, service: string | null, node: string | null): Promise<boolean> =>
  (await whyOf(linked)).join() === [service, node].join()

const allIsWell = async (): Promise<boolean> => (await isWhy(first, null, null)) && (await isWhy(second, null, null))

/** Looks, for as long as the condition does not hold, that a node is never red for itself. */
async function greenUntil(nodes: readonly Linked[], condition: () => Promise<boolean>): Promise<void> {
  await until(async () => {
    for (const linked of nodes) expect((await ready(linked, '?scope=node')).why).toBe(null)
    if (await condition()) return true
    await sleep(askEveryMs)
    return false
  })
}

test('both are ready, say how far they are behind, and one of them that it holds the slot', async () => {
  expect(await allIsWell()).toBe(true)
  const bodies = [await ready(first), await ready(second)]
  expect(bodies.map(({ leader }) => leader)).toEqual([true, false])
  for (const body of bodies) {
    expect(body).toMatchObject({ draining: false, started: true, stale: false, since: null })
    expectWithin(body.lagMs!, 5000)
    expect(body.lagBytes).toBeGreaterThanOrEqual(0)
  }
})

test('[P8] a node that alone gets nothing of the stream is red for itself, and its neighbour green', async () => {
  second.toRedis.isolate(['down'])
  await greenUntil([first], () => isWhy(second, 'no stream', 'no stream'))
  expect(await whyOf(first)).toEqual([null, null])
  expect((await ready(second)).lagBytes).toBeGreaterThan(0)
})

test('[P8] a node to which alone Postgres does not answer is red for itself, though it goes on serving commits', async () => {
  using live = await (await LiveSse.open(second.node, '/v1/live/messages', token)).exact()
  second.toPostgres.isolate()
  await greenUntil([first], () => isWhy(second, 'no database', 'no database'))
  expect(await whyOf(first)).toEqual([null, null])
  await database.query(`INSERT INTO messages VALUES (1, 1, 'a', 'while one of two is cut off')`)
  await live.stream.waitFor(() => live.rows.list().length === 1)
  expect([live.failure, live.stream.ended]).toEqual([null, false])
})

test('[P8] a Redis that accepts and does not deliver: stale within an interval on all nodes, and none is red for itself', async () => {
  const beganAt = performance.now()
  for (const { toRedis } of [first, second]) toRedis.isolate(['down'])
  await greenUntil([first, second], async () => (await isWhy(first, 'stale', null)) && isWhy(second, 'stale', null))
  // Until the next heartbeat is sent, then for as long as it may be on its way; and a tick of the clock for each.
  expectWithin(performance.now() - beganAt, 2 * (beaconMs + tickMs) + 2000)
  for (const linked of [first, second]) {
    const { since, lagMs } = await ready(linked)
    expect(Date.parse(since!)).toBeLessThan(Date.now() - beaconMs)
    expect(lagMs).toBeGreaterThan(beaconMs)
  }
  // Nobody holds the slot for longer than it takes to notice; what is shared stays what it is.
  await greenUntil([first, second], async () => !(await ready(first)).leader)
  expect((await fetch(`${first.node.url}/health`)).status).toBe(200)
})

test('[P8] Postgres away for all: stale, and no node is red for itself', async () => {
  using live = await (await LiveSse.open(second.node, '/v1/live/messages', token)).exact()
  for (const { toPostgres } of [first, second]) toPostgres.isolate()
  await greenUntil([first, second], async () => (await isWhy(first, 'stale', null)) && isWhy(second, 'stale', null))
  await live.stream.until(({ event, data }) => event === 'heartbeat' && (data as { stale: boolean }).stale)
  const goneAt = performance.now()
  await greenUntil([first, second], async () => performance.now() - goneAt > 3 * (beaconMs + tickMs))
  for (const { toPostgres } of [first, second]) toPostgres.thaw()
  await until(allIsWell, 60_000)
  const lastBeat = () => live.stream.events.findLast(({ event }) => event === 'heartbeat')?.data
  await live.stream.waitFor(() => (lastBeat() as { stale: boolean }).stale === false)
  await database.query(`INSERT INTO messages VALUES (2, 1, 'a', 'afterwards')`)
  await live.stream.waitFor(() => live.rows.rows.has('[2]'))
  expect([live.failure, live.rows.resyncs, live.stream.ended]).toEqual([null, [], false])
})
