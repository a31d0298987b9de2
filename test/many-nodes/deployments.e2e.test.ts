// Two deployments over one database and one Redis, each of two nodes: whatever becomes of the first, the second does not notice.
import { Redis } from 'ioredis'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { remove } from '../../src/cli/commands/remove.ts'
import { track } from '../../src/cli/commands/track.ts'
import { asSet, LiveSse, person, roomsSchema, SseStream, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/stalled.ts'

/** `members` is tracked by both: it decides in both who may see what. */
const tablesOf = { alpha: ['rooms', 'members', 'messages'], beta: ['members', 'notes'] } as const
type Name = keyof typeof tablesOf

const ada = person()
const silent = { write: () => true }
let database: TestDatabase
let redis: TestRedis
let direct: Redis
let token: string
const nodes: Record<Name, TestNode[]> = { alpha: [], beta: [] }
/** Readers of beta at both of its nodes, there from the beginning to its end. */
const witnesses: LiveSse[] = []
const feeds: SseStream[] = []
let asItWas: unknown
let before: unknown
let lastId = 0

const optionsOf = (name: Name) => ({ databaseUrl: database.url, adminUrl: database.url, name })

async function start(name: Name): Promise<void> {
  // The deployment's own publication, slots and keys go by its name.
  nodes[name].push(await TestNode.start(database.url, { REDIS_URL: redis.url, TIDEGATE_NAME: name }))
}

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  direct = new Redis(redis.url)
  token = await tokenFor(ada)
  await database.query(`CREATE ROLE authenticated NOLOGIN`).catch(() => {})
  await database.query(`CREATE ROLE anon NOLOGIN`).catch(() => {})
  before = await footprint()
  const how = { conventions: true, print: false, dryRun: false }
  for (const name of ['alpha', 'beta'] as const) {
    await migrate({ ...optionsOf(name), ...how }, silent)
    if (name === 'alpha')
      await database.query(`${roomsSchema}
        CREATE TABLE notes (id bigint PRIMARY KEY, room_id int NOT NULL, body text);
        ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
        CREATE POLICY by_membership ON notes FOR SELECT TO authenticated USING (
          EXISTS (SELECT 1 FROM members m WHERE m.room_id = notes.room_id AND m.user_id = auth.uid()));
        GRANT SELECT ON notes TO authenticated;
        INSERT INTO members VALUES (1, '${ada}');
        INSERT INTO notes SELECT i, 1 + i % 2, 'note' FROM generate_series(-10, 0) i`)
    await track({ ...optionsOf(name), tables: [...tablesOf[name]], print: false, dryRun: false }, silent)
  }
  for (const name of ['alpha', 'alpha', 'beta', 'beta'] as const) await start(name)
  for (const node of nodes.beta) {
    for (const table of ['notes', 'members'])
      witnesses.push(await (await LiveSse.open(node, `/v1/live/${table}`, token)).exact())
    feeds.push(await SseStream.open(node, '/v1/changes/notes?room_id=eq.1', token))
  }
  asItWas = await stateOfBeta()
}, 120_000)

afterAll(async () => {
  for (const live of witnesses) live[Symbol.dispose]()
  for (const feed of feeds) feed.close()
  for (const node of [...nodes.alpha, ...nodes.beta]) await node[Symbol.asyncDispose]()
  direct?.disconnect()
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** What of the schema, beyond the application's own, there is. */
const footprint = () =>
  database.query(
    `SELECT 'schema ' || nspname AS what FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('public', 'information_schema')
     UNION ALL SELECT 'publication ' || pubname FROM pg_publication
     UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger
     UNION ALL SELECT 'index ' || indexname FROM pg_indexes WHERE indexname LIKE 'tidegate%'
     UNION ALL SELECT 'identity of ' || relname || ' ' || relreplident::text FROM pg_class
       WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relreplident <> 'd'
     UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots WHERE database = current_database() ORDER BY 1`,
  )

/** All that beta has in the database and in Redis: none of it may change while alpha lives and dies. */
async function stateOfBeta() {
  const [slot] = await database.query(
    `SELECT slot_name, active_pid FROM pg_replication_slots WHERE slot_name ~ '^beta_' AND database = current_database()`,
  )
  const tables = await database.query(
    `SELECT c.relname, c.relreplident, t.read_function, to_regprocedure(format('tidegate.%I(text[],text[],jsonb,jsonb,integer)', t.read_function))::oid AS reads
     FROM tidegate.tracked t JOIN pg_class c ON c.oid = t.relation WHERE t.publication = 'beta' ORDER BY 1`,
  )
  const published = await database.query(
    `SELECT tablename FROM pg_publication_tables WHERE pubname = 'beta' ORDER BY 1`,
  )
  const triggers = await database.query(`SELECT evtname, evtenabled FROM pg_event_trigger ORDER BY 1`)
  const keys = (await keysOf('beta')).filter(key => !/leader|node|moves/.test(key))
  return { slot, tables, published, triggers, keys, epoch: await direct.hget('{beta}:epoch', 'epoch') }
}

/** By SCAN, as whoever shares this Redis would look. */
async function keysOf(name: Name | null): Promise<string[]> {
  const found = new Set<string>()
  for await (const keys of direct.scanStream({ count: 100 })) for (const key of keys as string[]) found.add(key)
  return [...found].filter(key => name === null || key.startsWith(`{${name}}:`)).sort()
}

async function equals(live: LiveSse, table: string): Promise<void> {
  const expected = asSet(await selectAs(database, ada, `SELECT * FROM ${table}`))
  await live.stream.waitFor(() => asSet(live.rows.list()).join() === expected.join()).catch(() => {})
  expect([live.failure, asSet(live.rows.list())]).toEqual([null, expected])
}

/** Writes, grants and revokes; beta's readers follow, and none was ever told anything but that. */
async function betaNoticesNothing(): Promise<void> {
  const first = lastId + 1
  for (let i = 0; i < 10; i++) await database.query(`INSERT INTO notes VALUES (${++lastId}, 1, 'again')`)
  await database.query(`INSERT INTO members VALUES (2, '${ada}')`)
  for (const [i, live] of witnesses.entries()) await equals(live, i % 2 === 0 ? 'notes' : 'members')
  await database.query(`DELETE FROM members WHERE room_id = 2`)
  for (const [i, live] of witnesses.entries()) await equals(live, i % 2 === 0 ? 'notes' : 'members')
  for (const { stream, rows } of witnesses) {
    expect([rows.resyncs, stream.ended]).toEqual([[], false])
    expect(
      stream.events.filter(({ event, data }) => event === 'heartbeat' && (data as { stale: boolean }).stale),
    ).toEqual([])
  }
  for (const feed of feeds) {
    const ids = (): number[] =>
      feed.events
        .filter(({ event }) => event === 'change')
        .map(({ data }) => Number((data as { key: { id: number } }).key.id))
    await feed.waitFor(() => ids().at(-1) === lastId)
    expect(ids().slice(first - 1)).toEqual(Array.from({ length: lastId - first + 1 }, (_, i) => first + i))
    expect([ids().length, feed.ended]).toEqual([lastId, false])
  }
  expect(await stateOfBeta()).toEqual(asItWas)
}

const slotOf = (name: Name) =>
  database.query<{ slot_name: string; active_pid: number }>(
    `SELECT slot_name, active_pid FROM pg_replication_slots WHERE slot_name ~ '^${name}_' AND database = current_database()`,
  )

async function leads(node: TestNode): Promise<boolean> {
  return ((await (await fetch(`${node.url}/ready`)).json()) as { leader: boolean }).leader
}

afterEach(async () => {
  for (const key of await keysOf(null)) expect(key).toMatch(/^\{(alpha|beta)\}:/)
})

test('[P1] [P3] each follows its own tables, and a membership that both follow counts in both', async () => {
  const lives = await Promise.all(nodes.alpha.map(node => LiveSse.open(node, '/v1/live/messages', token)))
  for (const live of lives) await live.exact()
  await database.query(`INSERT INTO messages VALUES (1, 1, 'a', 'b'), (2, 2, 'a', 'b')`)
  await betaNoticesNothing()
  for (const live of lives) {
    await equals(live, 'messages')
    expect(live.rows.resyncs).toEqual([])
    live[Symbol.dispose]()
  }
  const refused = await SseStream.open(nodes.beta[0]!, '/v1/live/messages', token)
  expect([refused.status, refused.errorBody.code]).toEqual([404, 'TABLE_UNKNOWN'])
  expect([(await slotOf('alpha')).length, (await slotOf('beta')).length]).toEqual([1, 1])
})

test('[P2] a ticket of the one is none of the other', async () => {
  const headers = { authorization: `Bearer ${token}` }
  const asked = await fetch(`${nodes.alpha[0]!.url}/v1/tickets`, { method: 'POST', headers })
  const { ticket } = (await asked.json()) as { ticket: string }
  const elsewhere = await SseStream.open(nodes.beta[0]!, `/v1/live/notes?ticket=${encodeURIComponent(ticket)}`, null)
  expect(elsewhere.errorBody.code).toBe('TICKET_INVALID')
  const own = await SseStream.open(nodes.alpha[1]!, `/v1/live/messages?ticket=${encodeURIComponent(ticket)}`, null)
  expect(own.status).toBe(200)
  own.close()
})

test('[P4] a node of the one leaves, its leader too', async () => {
  for (let i = 0; i < 2; i++) {
    const [first] = nodes.alpha
    const going = (await leads(first!)) ? 0 : 1
    await nodes.alpha.splice(going, 1)[0]![Symbol.asyncDispose]()
    await until(async () => leads(nodes.alpha[0]!))
    await betaNoticesNothing()
    await start('alpha')
  }
})

test('[P4] the slot of the one is dropped: its clients start over, and nobody else', async () => {
  using live = await (await LiveSse.open(nodes.alpha[0]!, '/v1/live/messages', token)).exact()
  const [slot] = await slotOf('alpha')
  const isGone = async (): Promise<boolean> => (await slotOf('alpha'))[0]?.slot_name !== slot!.slot_name
  await until(async () => {
    await database
      .query(
        `SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE slot_name = '${slot!.slot_name}'`,
      )
      .then(() => database.query(`SELECT pg_drop_replication_slot('${slot!.slot_name}')`))
      .catch(() => {})
    return isGone()
  })
  await live.stream.until(({ event }) => event === 'error')
  using again = await LiveSse.open(nodes.alpha[0]!, '/v1/live/messages', token, live)
  await equals(again, 'messages')
  expect(again.rows.resyncs).toEqual(['EPOCH_CHANGED'])
  await betaNoticesNothing()
})

test('[P6] remove takes the one out of the database, and nothing of what the other needs', async () => {
  for (const node of nodes.alpha.splice(0)) await node[Symbol.asyncDispose]()
  await remove(optionsOf('alpha'), silent)
  expect(await slotOf('alpha')).toEqual([])
  await betaNoticesNothing()
  const kept = await database.query<{ relname: string }>(
    `SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relreplident = 'f' ORDER BY 1`,
  )
  expect(kept.map(({ relname }) => relname)).toEqual(['members', 'notes'])
  // What it still needs of the triggers works: a policy holds at the commit that makes it.
  using live = await (await LiveSse.open(nodes.beta[0]!, '/v1/live/notes?id=gt.0', token)).exact()
  await database.query(
    `BEGIN; ALTER POLICY by_membership ON notes USING (false); INSERT INTO notes VALUES (1000, 1, 'x'); COMMIT`,
  )
  await live.stream.waitFor(() => live.rows.exact && live.rows.resyncs.length > 0 && live.rows.list().length === 0)
  expect(JSON.stringify(live.stream.events)).not.toContain('1000')
})

test('[P6] and the last to go leaves the database as it was', async () => {
  for (const node of nodes.beta.splice(0)) await node[Symbol.asyncDispose]()
  await database.query(
    'DROP POLICY by_membership ON notes; DROP TABLE messages; DROP POLICY own ON members; DROP TABLE rooms',
  )
  await remove(optionsOf('beta'), silent)
  expect(await footprint()).toEqual(before)
})
