// Large values that an update leaves out of the WAL are read from the table, where Postgres may not show the row yet under the key that the
// stream has told: the commit waits, for a standby or for its turn on a busy machine.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { OrderedSse } from '../support/ordered-rows.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Stalled } from '../support/stalled.ts'

const schema = `
  CREATE TABLE members (room int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room, user_id));
  CREATE TABLE notes (id int NOT NULL, room int NOT NULL, title text, body text, PRIMARY KEY (room, id));
  ALTER TABLE notes ALTER body SET STORAGE EXTERNAL;
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY by_membership ON notes FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM members m WHERE m.room = notes.room AND m.user_id = (SELECT auth.uid())));
  GRANT SELECT ON members, notes TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`

/** How long a commit waits: many times what a read takes. */
const stallMs = 1000

let server: LocalPostgres
let database: TestDatabase
let node: TestNode
let stalled: Stalled | null = null
const ada = person()
let token: string

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, schema, ['members', 'notes'])
  // As the key serves it: an old row has nothing else.
  await database.query('ALTER TABLE notes REPLICA IDENTITY DEFAULT')
  await database.query('SET synchronous_commit = local')
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '0' })
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

beforeEach(async () => {
  await database.query('TRUNCATE members, notes')
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  await database.query(`INSERT INTO notes VALUES (1, 1, 'a', 'mine'), (2, 2, 'b', repeat('x', 9000))`)
})

afterEach(async () => {
  await stalled?.[Symbol.asyncDispose]()
  stalled = null
})

const wait = (): Promise<void> => new Promise(resolve => setTimeout(resolve, stallMs))

async function letGo(): Promise<void> {
  await stalled![Symbol.asyncDispose]()
  stalled = null
}

const whole = (): Promise<Record<string, unknown>[]> => selectAs(database, ada, 'SELECT * FROM notes ORDER BY id')

test('[P1] [P4] a row that comes into view under another key is waited for, and nobody reads anew', async () => {
  using live = await (await LiveSse.open(node, '/v1/live/notes', token)).exact()
  stalled = await Stalled.begin(database.url)
  await stalled.commit('UPDATE notes SET room = 1 WHERE id = 2')
  await wait()
  expect(live.rows.rows.size).toBe(1)
  await letGo()
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  expect([live.failure, live.rows.resyncs, live.rows.list()]).toEqual([null, [], await whole()])
})

test('[P1] [P4] the same with the grant by which it comes into view', async () => {
  using live = await (await LiveSse.open(node, '/v1/live/notes', token)).exact()
  stalled = await Stalled.begin(database.url)
  await stalled.commit('UPDATE notes SET room = 3 WHERE id = 2', `INSERT INTO members VALUES (3, '${ada}')`)
  await wait()
  await letGo()
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  expect([live.failure, live.rows.resyncs]).toEqual([null, []])
  expect(live.rows.list().sort((a, b) => Number(a.id) - Number(b.id))).toEqual(await whole())
})

test('[P1] [P4] the same for whoever begins meanwhile, and for a window', async () => {
  using window = await OrderedSse.open(node, '/v1/live/notes?order=title&limit=5', token)
  await window.stream.waitFor(() => window.rows.exact)
  stalled = await Stalled.begin(database.url)
  await stalled.commit('UPDATE notes SET room = 1 WHERE id = 2')
  using live = await LiveSse.open(node, '/v1/live/notes', token)
  await wait()
  await letGo()
  await live.exact()
  await live.stream.waitFor(() => live.rows.rows.size === 2)
  await window.stream.waitFor(() => window.rows.rows.length === 2)
  expect([live.failure, live.rows.resyncs, window.failure, window.rows.resyncs]).toEqual([null, [], null, []])
  expect([live.rows.list(), window.rows.rows]).toEqual([await whole(), await whole()])
})
