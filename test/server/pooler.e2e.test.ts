// A node whose DATABASE_URL leads through PgBouncer in transaction mode: what others leave in its sessions, its restart, its exhaustion.
import pg from 'pg'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import { createPool } from '../../src/server/postgres/database.ts'
import { hasOwnSession } from '../../src/server/wal/own-session.ts'
import { askedSchema, askedTables, equals } from '../support/asked.ts'
import { LiveSse, person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { PgBouncer } from '../support/pgbouncer.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis } from '../support/redis.ts'

const schema = `${roomsSchema} ${askedSchema}
  CREATE TABLE public.moments (id int PRIMARY KEY, at timestamptz, day date, span interval, exact float8, bytes bytea, note text);
  ALTER TABLE public.moments ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.moments FOR SELECT TO authenticated USING (note = current_setting('app.tenant', true));
  CREATE POLICY all_asked ON public.moments FOR SELECT TO anon USING (random() >= 0);
  GRANT SELECT ON public.moments TO authenticated, anon;`

const moment = `'2026-03-04 05:06:07.5+00', '2026-03-04', '1 year 2 mons 3 days 04:05:06', 0.1::float8 + 0.2::float8, '\\xdeadbeef'`

let database: TestDatabase
let pooler: PgBouncer
let node: TestNode
let loginUrl: string
const ada = person()
let token: string

const settings = { CLAIM_SETTINGS: 'app.tenant=tenant', RECHECK_MS: '300', DATABASE_POOL: '6' }

beforeAll(async () => {
  database = await TestDatabase.create()
  const tables = ['rooms', 'members', 'messages', 'moments', ...askedTables]
  await prepareDatabase(database, schema, tables)
  // No superuser: what is undone in the sessions may be undone by anybody.
  const login = `login_${database.name}`
  await database.query(`CREATE ROLE ${login} LOGIN REPLICATION PASSWORD 'login'`)
  loginUrl = database.urlFor(login, 'login')
  const given = { databaseUrl: loginUrl, adminUrl: database.url, name: 'tidegate', print: false, dryRun: false }
  await migrate({ ...given, conventions: true }, { write: () => true })
  await track({ ...given, tables }, { write: () => true })
  pooler = await PgBouncer.start(loginUrl)
  node = await TestNode.start(pooler.url, { ...settings, DATABASE_REPLICATION_URL: loginUrl })
  token = await tokenFor(ada, { tenant: 'hers' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await pooler?.[Symbol.asyncDispose]()
  await database?.query(`DROP OWNED BY login_${database.name}; DROP ROLE login_${database.name}`)
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query('TRUNCATE rooms, members, messages, moments, crew, papers')
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO crew VALUES (1, '${ada}');
    INSERT INTO messages VALUES (1, 1, 'a', 'one'), (2, 2, 'b', 'two'); INSERT INTO papers VALUES (1, 1, 'a', 'one'), (2, 2, 'b', 'two')`)
})

/** Others of the same pooler, one on each of its connections. */
async function others(count: number): Promise<pg.Client[]> {
  const clients = Array.from({ length: count }, () => new pg.Client({ connectionString: pooler.url }))
  for (const client of clients) {
    client.on('error', () => {})
    await client.connect()
  }
  return clients
}

/** Leaves nothing in the sessions. */
async function leave(clients: readonly pg.Client[]): Promise<void> {
  await Promise.all(clients.map(client => client.query('ROLLBACK; BEGIN')))
  await Promise.all(clients.map(client => client.query('COMMIT; SET SESSION AUTHORIZATION DEFAULT; RESET ALL')))
  for (const client of clients) await client.end()
}

test('[P1] values are printed as always, whatever another client of the pooler left in the sessions', async () => {
  const clients = await others(2)
  // At once, so that each has a connection of its own to leave something in.
  await Promise.all(clients.map(client => client.query('BEGIN')))
  await Promise.all(
    clients.map(client =>
      client.query(
        `COMMIT; SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Tokyo'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'escape';
         SET extra_float_digits = -10; SET statement_timeout = 1; SET app.tenant = 'of others'; SET request.jwt.claims = '{"sub":"x"}';
         SET search_path = 'nowhere'; SET ROLE anon`,
      ),
    ),
  )
  const left = await clients[0]!.query('SHOW bytea_output')
  expect(left.rows).toEqual([{ bytea_output: 'escape' }])
  await database.query(`INSERT INTO moments VALUES (1, ${moment}, 'hers'), (2, ${moment}, 'of others')`)
  using live = await (await LiveSse.open(node, '/v1/live/moments', token)).exact()
  const first = live.rows.list()
  expect(
    first.map(row => row.id),
    JSON.stringify([live.stream.errorBody, live.rows.history]),
  ).toEqual([1])
  await database.query(`INSERT INTO moments VALUES (3, ${moment}, 'hers')`)
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  // Read by SELECT through the pooler, and from the WAL.
  const [read, streamed] = live.rows.list().map(({ id: _, ...row }) => row)
  expect(read).toEqual(streamed)
  expect(read).toMatchObject({ day: '2026-03-04', bytes: '\\xdeadbeef', exact: 0.30000000000000004 })
  using asked = await (await LiveSse.open(node, '/v1/live/moments', await tokenFor(ada, { role: 'anon' }))).exact()
  expect(asked.rows.list().map(({ id: _, note: __, ...row }) => row)).toEqual(
    Array(3).fill(Object.fromEntries(Object.entries(read!).filter(([name]) => name !== 'note'))),
  )
  await leave(clients)
})

test('[P7] a timeout that another client left is not met by what has to be undone in the session', async () => {
  const clients = await others(2)
  await Promise.all(clients.map(client => client.query('BEGIN')))
  // Thousands of settings to reset take longer than the millisecond that is given.
  const many = `SELECT count(set_config('left.s' || i, 'x', false)) FROM generate_series(1, 100000) AS i`
  await Promise.all(clients.map(client => client.query(`COMMIT; ${many}; SET statement_timeout = 1`)))
  await database.query(`INSERT INTO moments VALUES (1, ${moment}, 'hers')`)
  using live = await (await LiveSse.open(node, '/v1/live/moments?limit=10', token)).exact()
  expect([live.stream.status, live.rows.list().length]).toEqual([200, 1])
  await leave(clients)
})

test('[P2] nothing of a reader is left in the sessions for other clients of the pooler', async () => {
  using live = await (await LiveSse.open(node, '/v1/live/messages', token)).exact()
  using papers = await (await LiveSse.open(node, '/v1/live/papers', token)).exact()
  expect([live.rows.rows.size, papers.rows.rows.size]).toEqual([1, 1])
  const clients = await others(2)
  await Promise.all(clients.map(client => client.query('BEGIN')))
  for (const client of clients) {
    const { rows } = await client.query(
      `SELECT current_user = session_user AS own, coalesce(current_setting('request.jwt.claims', true), '') AS claims,
        current_setting('application_name') LIKE 'tidegate %' AS named`,
    )
    expect(rows).toEqual([{ own: true, claims: '', named: false }])
  }
  await leave(clients)
})

test('[P3] grants and revocations are exact while the pooler is gone, and rows are read again when it is back', async () => {
  using live = await (await LiveSse.open(node, '/v1/live/messages', token)).exact()
  await pooler.halt()
  await database.query(`INSERT INTO messages VALUES (3, 1, 'a', 'three')`)
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  await database.query(`DELETE FROM members WHERE room_id = 1; INSERT INTO messages VALUES (4, 1, 'a', 'secret')`)
  await live.stream.waitFor(() => live.rows.rows.size === 0)
  using refused = await SseStream.open(node, '/v1/live/messages?room_id=eq.7', token)
  const told = await refused.until(({ event }) => event === 'error')
  expect(told.data).toMatchObject({ code: 'UNAVAILABLE', retry: true })
  expect(await isReady()).toBe(200)
  await pooler.resume()
  await database.query(`INSERT INTO members VALUES (2, '${ada}')`)
  await equals(database, live, ada, 'SELECT * FROM messages')
  using papers = await (await LiveSse.open(node, '/v1/live/papers', token)).exact()
  await equals(database, papers, ada, 'SELECT * FROM papers')
  expect(live.failure).toBe(null)
})

const isReady = async (): Promise<number> => (await fetch(`${node.url}/ready`)).status

test('[P4] a new session for the WAL begins beside the pooler, and nothing is missing', async () => {
  using live = await (await LiveSse.open(node, '/v1/live/messages', token)).exact()
  await database.query(`SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE active_pid IS NOT NULL`)
  await database.query(`INSERT INTO messages VALUES (3, 1, 'a', 'three')`)
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  expect(live.rows.resyncs).toEqual([])
})

test('[P7] while others hold every connection of the pooler the stream goes on, and a revocation takes rows away', async () => {
  using live = await (await LiveSse.open(node, '/v1/live/messages', token)).exact()
  const clients = await others(2)
  await Promise.all(clients.map(client => client.query('BEGIN')))
  const coming = LiveSse.open(node, '/v1/live/messages?room_id=eq.2', token)
  await database.query(`INSERT INTO messages VALUES (3, 1, 'a', 'three')`)
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  await database.query(`DELETE FROM members WHERE room_id = 1`)
  await live.stream.waitFor(() => live.rows.rows.size === 0)
  // The catalog is read beside the pooler.
  await database.query('ALTER TABLE messages ADD COLUMN extra int')
  await database.query(`INSERT INTO members VALUES (2, '${ada}')`)
  expect(await isReady()).toBe(200)
  await leave(clients)
  using late = await (await coming).exact()
  await equals(database, late, ada, 'SELECT * FROM messages WHERE room_id = 2')
  await equals(database, live, ada, 'SELECT * FROM messages')
})

test('[P4] of two nodes behind the pooler the other takes over when the one that leads leaves', async () => {
  await using own = await TestDatabase.create()
  await prepareDatabase(own, roomsSchema, ['rooms', 'members', 'messages'])
  await using redis = await findRedis()
  await using between = await PgBouncer.start(own.url)
  const shared = { REDIS_URL: redis.url, DATABASE_REPLICATION_URL: own.url }
  const first = await TestNode.start(between.url, shared)
  await using second = await TestNode.start(between.url, shared)
  await own.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'a', 'one')`)
  using live = await (await LiveSse.open(second, '/v1/live/messages', token)).exact()
  await first[Symbol.asyncDispose]()
  await own.query(`INSERT INTO messages VALUES (2, 1, 'a', 'two')`)
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  await own.query(`DELETE FROM members`)
  await live.stream.waitFor(() => live.rows.rows.size === 0)
  expect(live.rows.resyncs).toEqual([])
})

const refusals: readonly [string, Record<string, string>][] = [
  ['a pooler that refuses the settings of a session', {}],
  ['a pooler that ignores them', { ignore_startup_parameters: 'options,statement_timeout' }],
]

test.each(refusals)('[P8] %s is refused at the start, with the remedy', async (_, section) => {
  await using other = await PgBouncer.start(database.url, section)
  const refusal = { code: 'DATABASE_POOLED', message: expect.stringContaining('DATABASE_REPLICATION_URL') }
  await expect(TestNode.start(other.url)).rejects.toMatchObject(refusal)
  await expect(TestNode.start(other.url, { DATABASE_REPLICATION_URL: other.url })).rejects.toMatchObject(refusal)
})

test('[P8] a command that changes the database refuses a pooler, with the remedy', async () => {
  const options = {
    databaseUrl: pooler.url,
    adminUrl: null,
    name: 'tidegate',
    conventions: true,
    print: false,
    dryRun: false,
  }
  await expect(migrate(options, { write: () => true })).rejects.toMatchObject({ code: 'DATABASE_POOLED' })
})

test('[P8] two addresses that lead to two databases are refused at the start', async () => {
  await using second = await TestDatabase.create()
  await expect(
    TestNode.start(pooler.url, { DATABASE_REPLICATION_URL: second.urlFor(`login_${database.name}`, 'login') }),
  ).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    message: expect.stringContaining('the database'),
  })
})

test('a session of its own is told from a pooler that forgets', async () => {
  await using forgetful = await PgBouncer.start(database.url, { ignore_startup_parameters: 'options' })
  for (const [url, expected] of [
    [database.url, true],
    [forgetful.url, false],
  ] as const) {
    const pool = createPool(url, { maxConnections: 1 })
    expect(await hasOwnSession(pool)).toBe(expected)
    await pool.end()
  }
})
