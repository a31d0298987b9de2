// Windows are read while the stream is ahead of SQL: commits that no SELECT can see yet are laid over what was read.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { OrderedSse } from '../support/ordered-rows.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Stalled } from '../support/stalled.ts'

const schema = `
  CREATE TABLE members (room_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TABLE notes (id int PRIMARY KEY, room_id int NOT NULL DEFAULT 1, rank int, title text COLLATE "und-x-icu");
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY by_membership ON notes FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM members m WHERE m.room_id = notes.room_id AND m.user_id = (SELECT auth.uid())));
  GRANT SELECT ON members, notes TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`

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
  await database.query('SET synchronous_commit = local')
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '0', SLOT_MAX_BYTES: '268435456' })
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
  await database.query(`INSERT INTO notes SELECT i, 1, i * 10, chr(96 + i % 26) || i FROM generate_series(1, 60) i`)
  await database.query(`INSERT INTO notes SELECT 100 + i, 2, i * 10 + 5, 'A' || i FROM generate_series(1, 60) i`)
})

afterEach(async () => {
  await stalled?.[Symbol.asyncDispose]()
  stalled = null
})

const idOf = (row: Record<string, unknown>): string => String(row.id)
const open = (parameters: string): Promise<OrderedSse> =>
  OrderedSse.open(node, `/v1/live/notes?${parameters}&select=id`, token)
const holds = (live: OrderedSse, ...ids: readonly number[]): Promise<void> => live.settle(ids.map(String), idOf)

test('[P1] rows that SELECT still shows are gone, and those that it does not show yet are there', async () => {
  stalled = await Stalled.begin(database.url)
  await stalled.commit('DELETE FROM notes WHERE id = 1', 'INSERT INTO notes VALUES (300, 1, 15)')
  await stalled.commit('UPDATE notes SET rank = 1000 WHERE id = 2')
  using live = await open('order=rank&limit=3')
  await holds(live, 300, 3, 4)
})

test('[P1] a window that ran dry is read past the rows that are gone and that SELECT still shows', async () => {
  using live = await open('order=rank&limit=3')
  await holds(live, 1, 2, 3)
  stalled = await Stalled.begin(database.url)
  await stalled.commit('DELETE FROM notes WHERE id BETWEEN 1 AND 40')
  await holds(live, 41, 42, 43)
  await stalled.commit('INSERT INTO notes VALUES (300, 1, 1), (301, 1, 425), (302, 2, 0)')
  await holds(live, 300, 41, 42)
  expect(live.rows.resyncs).toEqual([])
})

test('[P1] [P3] a grant and a revocation that SELECT does not show yet', async () => {
  using live = await open('order=rank&limit=4')
  await holds(live, 1, 2, 3, 4)
  stalled = await Stalled.begin(database.url)
  await stalled.commit(`INSERT INTO members VALUES (2, '${ada}')`)
  await holds(live, 1, 101, 2, 102)
  await stalled.commit('DELETE FROM notes WHERE id IN (101, 2)')
  await holds(live, 1, 102, 3, 103)
  await stalled.commit(`DELETE FROM members WHERE room_id = 1`)
  await holds(live, 102, 103, 104, 105)
  expect(live.rows.resyncs).toEqual([])
})

test('[P1] values of a collation that Postgres alone has, of rows that SELECT does not show yet', async () => {
  await database.query('DELETE FROM notes WHERE id > 3')
  await database.query(`UPDATE notes SET title = (ARRAY['b', 'd', 'f'])[id]`)
  using live = await open('order=title&limit=4')
  await holds(live, 1, 2, 3)
  stalled = await Stalled.begin(database.url)
  await stalled.commit(`INSERT INTO notes VALUES (10, 1, 1, 'Ä'), (11, 1, 1, 'É')`)
  await holds(live, 10, 1, 2, 11)
  await stalled.commit(`INSERT INTO notes VALUES (12, 1, 1, 'a'), (13, 1, 1, 'z')`)
  await holds(live, 12, 10, 1, 2)
  await stalled.commit(`UPDATE notes SET title = 'C' WHERE id = 3`)
  await holds(live, 12, 10, 1, 3)
  expect(live.rows.resyncs).toEqual([])
})

test('[P1] a table that was truncated, as far as the stream knows', async () => {
  using live = await open('order=rank.desc&limit=2')
  await holds(live, 60, 59)
  stalled = await Stalled.begin(database.url)
  await stalled.commit('TRUNCATE notes', 'INSERT INTO notes VALUES (1, 1, 7), (500, 1, 3)')
  await holds(live, 1, 500)
})
