// Answers that change by time alone: `expires_at > now()`. No commit touches the row, the reader or the grant.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import type { DeltaEvent } from '../../src/protocol/messages.ts'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader } from '../support/readers.ts'

const schema = `
  CREATE TABLE passes (id serial PRIMARY KEY, room_id int NOT NULL, user_id uuid NOT NULL,
    starts_at timestamptz NOT NULL DEFAULT '-infinity', expires_at timestamptz);
  CREATE TABLE rooms (id int PRIMARY KEY, open_until timestamptz);
  CREATE TABLE notes (id int PRIMARY KEY, room_id int, body text, expires_at timestamptz, publish_at timestamptz);
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON notes USING (
    (expires_at IS NULL OR expires_at > now()) AND (publish_at IS NULL OR publish_at <= now()) AND (
      EXISTS (SELECT FROM passes s WHERE s.room_id = notes.room_id AND s.user_id = auth.uid()
        AND s.starts_at <= now() AND coalesce(s.expires_at > now(), true))
      OR EXISTS (SELECT FROM rooms r WHERE r.id = notes.room_id AND r.open_until > now())));
  GRANT SELECT ON passes, rooms, notes TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;`
const [ada, ben] = [person(), person()]

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['passes', 'rooms', 'notes'])
  // Nothing moves the stream by itself within a test.
  node = await TestNode.start(database.url, { BEACON_MS: '600000', MAX_HELD_MS: '10000', HEARTBEAT_MS: '300' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query(`INSERT INTO rooms VALUES (1, NULL), (2, NULL), (3, NULL);
    INSERT INTO passes (room_id, user_id) VALUES (1, '${ada}');
    INSERT INTO notes SELECT i, 1 + i % 3, 'old' FROM generate_series(1, 9) i`)
})

const open: LiveSse[] = []
afterEach(async () => {
  for (const live of open.splice(0)) live[Symbol.dispose]()
  await database.query('DELETE FROM notes; DELETE FROM passes; DELETE FROM rooms')
})

async function follow(user: string, query = ''): Promise<LiveSse> {
  const live = await (await LiveSse.open(node, `/v1/live/notes${query}`, await tokenFor(user))).exact()
  open.push(live)
  return live
}

const ids = (live: LiveSse): number[] =>
  live.rows
    .list()
    .map(row => row.id as number)
    .sort((a, b) => a - b)

/** Equal to the SELECT, also when it is asked again and again while time passes. */
async function assertFollows(live: LiveSse, user: string, wanted: readonly number[]): Promise<void> {
  await live.stream.waitFor(() => ids(live).join() === wanted.join() || live.failure !== null, 5000).catch(() => {})
  expect(live.failure).toBe(null)
  expect(ids(live)).toEqual(wanted)
  expect(asSet(live.rows.list())).toEqual(asSet(await selectAs(database, user, 'SELECT * FROM notes')))
}

test('[P1] rows come into view and leave it at their moment, though nothing is written', async () => {
  const live = await follow(ada)
  await assertFollows(live, ada, [3, 6, 9])
  await database.query(`UPDATE notes SET expires_at = now() + interval '0.7 s' WHERE id = 3;
    UPDATE notes SET publish_at = now() + interval '0.5 s' WHERE id = 6;
    INSERT INTO notes VALUES (12, 1, 'short', now() + interval '0.6 s', now() + interval '0.3 s')`)
  await live.stream.waitFor(() => told(live).length === 6, 20_000)
  expect(told(live).slice(0, 2).sort()).toEqual(['delete 6', 'update 3'])
  // Moments that lie close together may be passed by one commit.
  expect(told(live).slice(2).sort()).toEqual(['delete 12', 'delete 3', 'insert 12', 'insert 6'])
  expect(told(live).indexOf('insert 12')).toBeLessThan(told(live).indexOf('delete 12'))
  await assertFollows(live, ada, [6, 9])
  expect(live.rows.resyncs).toEqual([])
})

/** What the deltas said, in order. */
const told = (live: LiveSse): string[] =>
  live.stream.events
    .filter(({ event }) => event === 'delta')
    .flatMap(({ data }) => (data as DeltaEvent).changes)
    .map(change => (change.op === 'truncate' ? change.op : `${change.op} ${change.key.id}`))

test('[P1] [P3] a grant that ends in time takes its rows at its moment, and gives them at its beginning', async () => {
  const [live, other] = [await follow(ada), await follow(ben)]
  await database.query(`INSERT INTO passes (room_id, user_id, starts_at, expires_at) VALUES
    (2, '${ada}', now() + interval '0.4 s', now() + interval '0.9 s'), (3, '${ada}', '-infinity', now() + interval '0.6 s')`)
  await assertFollows(live, ada, [2, 3, 5, 6, 8, 9])
  await live.stream.waitFor(() => ids(live).includes(1))
  await assertFollows(live, ada, [3, 6, 9])
  await database.query(`UPDATE rooms SET open_until = now() + interval '0.5 s' WHERE id = 2`)
  await assertFollows(other, ben, [1, 4, 7])
  await assertFollows(other, ben, [])
  await assertFollows(live, ada, [3, 6, 9])
  expect([...live.rows.resyncs, ...other.rows.resyncs]).toEqual([])
})

test('[P2] what is written after the moment of a grant is never sent, however long nobody noticed', async () => {
  const live = await follow(ada)
  const changes = new Reader('sse', 'changes', 'notes', await tokenFor(ada))
  await changes.come(node)
  await changes.until(() => changes.position !== null)
  await database.query(`UPDATE passes SET expires_at = now() + interval '0.3 s' WHERE user_id = '${ada}'`)
  await database.query(`SELECT pg_sleep(0.3); UPDATE notes SET body = 'late' WHERE room_id = 1`)
  await assertFollows(live, ada, [])
  await database.query(
    `INSERT INTO passes (room_id, user_id) VALUES (2, '${ada}'); UPDATE notes SET body = 'seen' WHERE id = 1`,
  )
  await assertFollows(live, ada, [1, 4, 7])
  await changes.until(() => changes.changes.some(({ new: row }) => row?.body === 'seen'))
  expect(live.stream.events.some(({ data }) => JSON.stringify(data).includes('late'))).toBe(false)
  expect(changes.changes.some(({ new: row }) => row?.body === 'late')).toBe(false)
  await changes.leave()
})

test('[P4] who was away at the moment gets the difference and nothing else', async () => {
  await database.query(`UPDATE notes SET expires_at = now() + interval '0.6 s' WHERE id = 3;
    UPDATE passes SET expires_at = now() + interval '0.8 s'; INSERT INTO passes (room_id, user_id, starts_at)
    VALUES (2, '${ada}', now() + interval '0.7 s')`)
  const live = await follow(ada)
  expect(ids(live)).toEqual([3, 6, 9])
  await database.query(`UPDATE notes SET body = 'new' WHERE id = 6`)
  await live.stream.waitFor(() => live.rows.list().some(row => row.body === 'new'))
  live[Symbol.dispose]()
  await new Promise(resolve => setTimeout(resolve, 1000))
  const back = await LiveSse.open(node, '/v1/live/notes', await tokenFor(ada), live)
  open.push(back)
  await assertFollows(back, ada, [1, 4, 7])
  expect(back.rows.resyncs).toEqual([])
})

test('[P1] one who joins when the last commit is long past sees what SELECT shows at that time', async () => {
  await database.query(`UPDATE notes SET expires_at = now() + interval '0.2 s' WHERE id = 3;
    UPDATE passes SET expires_at = now() + interval '0.2 s'; INSERT INTO passes (room_id, user_id, starts_at)
    VALUES (2, '${ada}', now() + interval '0.2 s')`)
  await new Promise(resolve => setTimeout(resolve, 400))
  const live = await follow(ada, '?select=id')
  await live.stream.waitFor(() => ids(live).length === 3)
  expect(ids(live)).toEqual([1, 4, 7])
})
