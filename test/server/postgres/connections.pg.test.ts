// A node with as few connections as it takes: nobody waits for somebody else's lock, and nothing that the stream goes on by is
// ever without a connection.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { Connections, fewestConnections } from '../../../src/server/postgres/connections.ts'
import type { Lane } from '../../../src/server/postgres/database.ts'
import { askedSchema, askedTables } from '../../support/asked.ts'
import {
  asSet,
  LiveSse,
  person,
  prepareDatabase,
  roomsSchema,
  selectAs,
  TestNode,
  tokenFor,
} from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { until } from '../../support/stalled.ts'

let database: TestDatabase
let migration: TestDatabase
let node: TestNode
const [ada, ben] = [person(), person()]
const tokens: Record<string, string> = {}

const schema = `${roomsSchema} ${askedSchema}
  CREATE TABLE public.notes (id int PRIMARY KEY, body text);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY all_of_them ON public.notes FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON public.notes TO authenticated;`

beforeAll(async () => {
  database = await TestDatabase.create()
  migration = await TestDatabase.connect(database)
  await prepareDatabase(database, schema, ['rooms', 'members', 'messages', 'notes', ...askedTables])
  node = await TestNode.start(database.url, {
    DATABASE_POOL: String(fewestConnections),
    BEACON_MS: '300',
    RECHECK_MS: '300',
  })
  for (const who of [ada, ben]) tokens[who] = await tokenFor(who)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await migration?.client.end()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query('TRUNCATE rooms, members, messages, notes, crew, papers')
  await database.query(`INSERT INTO members VALUES (1, '${ada}'), (2, '${ben}');
    INSERT INTO crew VALUES (1, '${ada}'), (2, '${ben}');
    INSERT INTO messages SELECT i, 1 + i % 2, 'w', 'x' FROM generate_series(1, 20) i;
    INSERT INTO papers SELECT i, 1 + i % 2, 'w', 'x' FROM generate_series(1, 20) i;
    INSERT INTO notes SELECT i, 'x' FROM generate_series(1, 5) i`)
})

afterEach(() => migration.query('ROLLBACK').catch(() => {}))

const open = (path: string, who: string): Promise<LiveSse> => LiveSse.open(node, `/v1/live/${path}`, tokens[who]!)

async function equals(live: LiveSse, who: string, sql: string): Promise<void> {
  await until(async () => asSet(live.rows.list()).join() === asSet(await selectAs(database, who, sql)).join())
  expect(live.failure).toBe(null)
}

async function isPast(): Promise<void> {
  const { lagMs, stale } = node.server.subscriptions.head()
  expect([stale, lagMs < 1000]).toEqual([false, true])
}

const errorOf = (live: LiveSse): unknown => live.stream.events.find(({ event }) => event === 'error')?.data

test('[P7] while everything waits for locked tables, other tables are read, policies change and heartbeats return', {
  timeout: 60_000,
}, async () => {
  using papers = await (await open('papers', ada)).exact()
  using messages = await (await open('messages', ben)).exact()
  using notes = await (await open('notes', ada)).exact()
  await migration.query('BEGIN; LOCK TABLE messages, papers IN ACCESS EXCLUSIVE MODE')
  // First snapshots, questions, reads of what a grant moves: more of each than there are connections.
  const opening: Promise<LiveSse>[] = []
  for (let i = 0; i < 12; i++) {
    opening.push(open(`messages?id=gt.${-i}`, i % 2 === 0 ? ada : ben))
    opening.push(open(`papers?id=gt.${-i}`, i % 2 === 0 ? ada : ben))
  }
  await database.query(`INSERT INTO members VALUES (1, '${ben}'); INSERT INTO crew VALUES (1, '${ben}')`)
  const locked = `SELECT FROM pg_locks WHERE NOT granted AND relation = ANY ('{messages,papers}'::regclass[])`
  for (let id = 10; id < 20; id++) {
    await until(async () => (await database.query(locked)).length > 0)
    await database.query(`INSERT INTO notes VALUES (${id}, 'meanwhile')`)
    await notes.stream.waitFor(() => notes.rows.rows.has(`[${id}]`), 2000)
    using another = await open(`notes?id=lte.${id}`, ben)
    await another.stream.waitFor(() => another.rows.exact, 2000)
    await isPast()
  }
  // What is known of all tables is forgotten: reads of the catalog stand before the locks, too.
  await database.query(`ALTER POLICY all_of_them ON notes USING (id > 10)`)
  await notes.stream.waitFor(() => !notes.rows.rows.has('[10]'), 5000)
  for (let id = 20; id < 25; id++) {
    await until(async () => (await database.query(locked)).length > 0)
    await database.query(`INSERT INTO notes VALUES (${id}, 'after')`)
    await notes.stream.waitFor(() => notes.rows.rows.has(`[${id}]`), 2000)
    using another = await open(`notes?id=lte.${id}`, ben)
    await another.stream.waitFor(() => another.rows.exact, 2000)
    await isPast()
  }
  expect([notes.failure, notes.stream.ended, errorOf(notes)]).toEqual([null, false, undefined])
  await migration.query('ROLLBACK')
  for (const live of await Promise.all(opening)) live.stream.close()
  await equals(papers, ada, 'SELECT * FROM papers')
  // Its policies could not be read for so long that it ended.
  expect(errorOf(messages)).toMatchObject({ code: 'UNAVAILABLE' })
  using back = await open('messages', ben)
  await equals(back, ben, 'SELECT * FROM messages')
})

test('[P7] DATABASE_POOL connections are used and not one more, also when some are cut or closed', async () => {
  const connections = new Connections(database.url, { connections: fewestConnections, snapshots: 8, asked: 8 })
  const names = ['upkeep', 'look', 'slot', 'catalog', 'reads', 'snapshots', 'asked', 'explain'] as const
  const lanes = names.map(name => connections.lane(name, { queryTimeoutMs: 10_000 }))
  const own = new Set<number>()
  const use = async (lane: Lane, turn: number): Promise<void> => {
    const client = await lane.connect()
    try {
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
      own.add(rows[0]!.pid)
      await client.query('SELECT pg_sleep(0.005)')
      if (turn % 7 === 0) await client.query('SELECT pg_terminate_backend(pg_backend_pid())')
    } catch {
      // The next one has another connection.
    } finally {
      client.release(turn % 3 === 0)
    }
  }
  let most = 0
  let isOver = false
  const watching = (async () => {
    while (!isOver) {
      const [row] = await migration.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE pid = ANY ($1)`,
        [[...own]],
      )
      most = Math.max(most, row!.n)
    }
  })()
  try {
    await Promise.all(lanes.flatMap(lane => Array.from({ length: 40 }, (_, turn) => use(lane, turn))))
  } finally {
    isOver = true
    await watching
    await connections.end()
  }
  expect(own.size).toBeGreaterThan(20)
  expect(most).toBe(fewestConnections)
})

test('[P2] what a policy sets for its session is not there for whoever has the connection next', async () => {
  await database.query(`
    CREATE TABLE public.sly (id int PRIMARY KEY); INSERT INTO sly VALUES (1); ALTER TABLE sly ENABLE ROW LEVEL SECURITY;
    CREATE FUNCTION public.poison() RETURNS bool LANGUAGE sql STABLE AS
      $$ SELECT set_config('search_path', 'poisoned', false) IS NOT NULL AND set_config('role', 'anon', false) IS NOT NULL $$;
    GRANT SELECT ON public.sly TO authenticated, anon; ALTER PUBLICATION tidegate ADD TABLE public.sly;
    ALTER TABLE public.sly REPLICA IDENTITY FULL;
    CREATE POLICY sly ON public.sly FOR SELECT USING (public.poison())`)
  await until(async () => {
    using live = await open('sly', ada)
    if (live.stream.status !== 200) return false
    await live.stream.waitFor(() => live.rows.exact || errorOf(live) !== undefined)
    return true
  })
  // All of them, one after the other and at once.
  for (let round = 0; round < 4; round++) {
    const lives = await Promise.all(
      Array.from({ length: 8 }, (_, i) => open(`messages?id=lt.${200 + 8 * round + i}`, ada)),
    )
    for (const live of lives) {
      await equals(live, ada, 'SELECT * FROM messages')
      live.stream.close()
    }
  }
  await isPast()
})

test('[P7] a connection that comes back with a query under way, or within a transaction, is not used again', async () => {
  const connections = new Connections(database.url, { connections: fewestConnections, snapshots: 1, asked: 2 })
  try {
    const lane = connections.lane('upkeep', { queryTimeoutMs: 200 })
    const pidOf = async (): Promise<number> => {
      const { rows } = await lane.query<{ pid: number }>('SELECT pg_backend_pid() AS pid')
      return rows[0]!.pid
    }
    const first = await pidOf()
    expect(await pidOf()).toBe(first)
    const client = await lane.connect()
    await client.query('BEGIN')
    client.release()
    const second = await pidOf()
    expect(second).not.toBe(first)
    const slow = await lane.connect()
    await expect(slow.query('SELECT pg_sleep(1)')).rejects.toThrow('Query read timeout')
    slow.release()
    expect(await pidOf()).not.toBe(second)
    // A lane's timeout is its own.
    const patient = connections.lane('catalog', { queryTimeoutMs: 5000 })
    await patient.query('SELECT pg_sleep(0.4)')
  } finally {
    await connections.end()
  }
})
