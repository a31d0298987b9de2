// Several nodes over one database and one Redis: whoever reads where, sees the same.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/stalled.ts'

let database: TestDatabase
let redis: TestRedis
let nodes: TestNode[] = []
const ada = person()
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  token = await tokenFor(ada)
  for (let i = 0; i < 3; i++) nodes.push(await start())
})

afterAll(async () => {
  for (const node of nodes) await node[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query('TRUNCATE public.rooms, public.members, public.messages')
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`)
})

const start = (settings: Record<string, string> = {}): Promise<TestNode> =>
  TestNode.start(database.url, { REDIS_URL: redis.url, ...settings })

const messages = (node: TestNode): Promise<LiveSse> => LiveSse.open(node, '/v1/live/messages', token)

async function equals(live: LiveSse): Promise<void> {
  const expected = await selectAs(database, ada, 'SELECT * FROM messages ORDER BY id')
  const wanted = asSet(expected).join()
  try {
    await live.stream.waitFor(() => asSet(live.rows.list()).join() === wanted || live.failure !== null)
  } catch {
    // The comparison below shows what is missing.
  }
  expect(live.failure).toBe(null)
  expect(asSet(live.rows.list())).toEqual(asSet(expected))
}

test('[P1] [P3] every node tells its readers the same, grants and revocations too', async () => {
  const lives = await Promise.all(nodes.map(messages))
  for (let i = 1; i <= 50; i++)
    await database.query(`INSERT INTO messages VALUES (${i}, ${1 + (i % 2)}, 'a', 'text ${i}')`)
  for (const live of lives) await equals(live)
  await database.query(`INSERT INTO members VALUES (2, '${ada}'); DELETE FROM members WHERE room_id = 1`)
  for (const live of lives) await equals(live)
  for (const live of lives) live[Symbol.dispose]()
})

test('[P1] [P4] a node that joins fills its window, and a client of another resumes there', async () => {
  const [first] = nodes
  const live = await messages(first!)
  await database.query(`INSERT INTO messages SELECT i, 1, 'a', 'b' FROM generate_series(1, 20) i`)
  await equals(live)
  live[Symbol.dispose]()
  await database.query(`DELETE FROM messages WHERE id < 10; INSERT INTO messages VALUES (100, 1, 'a', 'late')`)
  await using joined = await start()
  using resumed = await LiveSse.open(joined, '/v1/live/messages', token, live)
  await resumed.stream.waitFor(() => resumed.stream.events.some(event => event.event === 'delta'))
  expect(resumed.stream.events.filter(event => ['resync', 'snapshot'].includes(event.event))).toEqual([])
  const changes = resumed.stream.events.flatMap(event => (event.data as { changes?: unknown[] }).changes ?? [])
  expect(changes).toHaveLength(10)
})

test('[P1] [P4] the leader goes, another takes over, and nothing is missing', async () => {
  const lives = await Promise.all(nodes.map(messages))
  const leader = await leaderOf()
  expect(leader).not.toBe(-1)
  const writing = (async () => {
    for (let i = 1; i <= 300; i++) await database.query(`INSERT INTO messages VALUES (${i}, 1, 'a', 'b')`)
  })()
  await nodes[leader]![Symbol.asyncDispose]()
  await writing
  for (const [i, live] of lives.entries()) if (i !== leader) await equals(live)
  nodes = nodes.filter((_, i) => i !== leader)
  await until(async () => (await leaderOf()) !== -1)
  for (const live of lives) live[Symbol.dispose]()
  nodes.push(await start())
})

test('[P1] a commit too large for one block comes whole', { timeout: 60_000 }, async () => {
  const lives = await Promise.all(nodes.map(messages))
  for (const live of lives) await equals(live)
  await database.query(`INSERT INTO messages SELECT i, 1, 'a', repeat('x', 100) FROM generate_series(1, 20000) i`)
  for (const live of lives)
    await live.stream.waitFor(() => live.rows.list().length === 20_000 || live.failure !== null, 30_000)
  for (const live of lives) await equals(live)
  for (const live of lives) live[Symbol.dispose]()
})

async function leaderOf(): Promise<number> {
  const rows = await database.query<{ active: boolean }>(
    `SELECT active FROM pg_replication_slots WHERE database = current_database()`,
  )
  if (!rows.some(row => row.active)) return -1
  for (const [i, node] of nodes.entries()) if (await leads(node)) return i
  return -1
}

async function leads(node: TestNode): Promise<boolean> {
  const response = await fetch(`${node.url}/ready`)
  return ((await response.json()) as { leader?: boolean }).leader === true
}
