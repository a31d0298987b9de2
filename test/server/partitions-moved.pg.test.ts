// Rows that come and go with their partition: no WAL message tells of them.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor, trackTables } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const schema = `
  CREATE TABLE public.events (id int, day int, note text, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
  CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM (0) TO (10);
  CREATE TABLE public.events_2 PARTITION OF public.events FOR VALUES FROM (10) TO (20);
  CREATE TABLE public.apart (id int NOT NULL, day int NOT NULL, note text, PRIMARY KEY (day, id));
  CREATE TABLE public.ticks (id int, day int, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
  CREATE TABLE public.ticks_1 PARTITION OF public.ticks FOR VALUES FROM (0) TO (10);
  CREATE TABLE public.ticks_2 PARTITION OF public.ticks FOR VALUES FROM (10) TO (20);
  INSERT INTO public.ticks VALUES (1, 1), (2, 2), (3, 11);
  GRANT SELECT ON public.ticks TO authenticated;
  ALTER TABLE public.events ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON public.events FOR SELECT TO authenticated USING (note <> 'hidden' COLLATE "C");
  GRANT SELECT ON public.events TO authenticated;
  INSERT INTO public.events VALUES (1, 1, 'a'), (2, 1, 'hidden'), (3, 11, 'b');
  INSERT INTO public.apart VALUES (4, 21, 'c'), (5, 21, 'hidden');
`

let database: TestDatabase
let node: TestNode
let token: string
const reader = person()

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['events', 'ticks'])
  node = await TestNode.start(database.url)
  token = await tokenFor(reader)
})

afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

/** Follows as a client does that comes back when it is told to, until its rows are those of the SELECT. */
async function equals(first: LiveSse, table = 'events'): Promise<LiveSse> {
  const expected = asSet(await selectAs(database, reader, `SELECT * FROM ${table}`)).join()
  for (let live = first; ; live = await LiveSse.open(node, `/v1/live/${table}`, token, live)) {
    await live.stream.waitFor(
      () => (live.rows.exact && asSet(live.rows.list()).join() === expected) || live.stream.ended,
    )
    if (!live.stream.ended) return live
  }
}

test.each([
  ['a table is attached', 'ALTER TABLE events ATTACH PARTITION apart FOR VALUES FROM (20) TO (30)'],
  ['a partition is detached', 'ALTER TABLE events DETACH PARTITION events_2'],
  ['a partition is dropped', 'DROP TABLE apart'],
])('[P1] %s: its rows come and go for who follows', async (_, statement) => {
  const live = await (await LiveSse.open(node, '/v1/live/events', token)).exact()
  await database.query(statement)
  const now = await equals(live)
  expect(now.failure).toBe(null)
  expect(JSON.stringify(now.stream.events)).not.toContain('hidden')
  now.stream.close()
})

test('[P1] a partition truncated under its own name: its rows go for who follows and for who is away', async () => {
  const away = await (await LiveSse.open(node, '/v1/live/ticks', token)).exact()
  away.stream.close()
  const live = await (await LiveSse.open(node, '/v1/live/ticks', token)).exact()
  await database.query('TRUNCATE ticks_1')
  const now = await equals(live, 'ticks')
  expect(now.rows.rows.size).toBe(1)
  expect(now.rows.resyncs).toEqual(['POLICY_CHANGED'])
  const back = await equals(await LiveSse.open(node, '/v1/live/ticks', token, away), 'ticks')
  expect(back.failure).toBe(null)
  expect(back.rows.resyncs).toEqual(['POLICY_CHANGED'])
  now.stream.close()
  back.stream.close()
})

test('[P4] the parent truncated is told by the stream: nobody starts over', async () => {
  await database.query('INSERT INTO ticks VALUES (7, 7), (17, 17)')
  const live = await equals(await (await LiveSse.open(node, '/v1/live/ticks', token)).exact(), 'ticks')
  await database.query('TRUNCATE ticks')
  await live.stream.waitFor(() => live.rows.rows.size === 0)
  // The catalog's next look comes no later than the one that sees this, and ends the query.
  await database.query('REVOKE SELECT ON ticks FROM authenticated')
  await live.stream.waitFor(() => live.stream.ended)
  expect(live.rows.resyncs).toEqual([])
})

test('[P3] a partition of memberships truncated under its own name revokes what it held', async () => {
  await database.query(`
    CREATE TABLE staff (team int, user_id uuid, PRIMARY KEY (team, user_id)) PARTITION BY RANGE (team);
    CREATE TABLE staff_1 PARTITION OF staff FOR VALUES FROM (0) TO (10);
    CREATE TABLE staff_2 PARTITION OF staff FOR VALUES FROM (10) TO (20);
    CREATE TABLE notes (id int PRIMARY KEY, team int, note text);
    ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON notes FOR SELECT TO authenticated USING (
      EXISTS (SELECT 1 FROM staff s WHERE s.team = notes.team AND s.user_id = (SELECT auth.uid())));
    GRANT SELECT ON notes, staff TO authenticated;
    INSERT INTO staff VALUES (1, '${reader}'), (11, '${reader}');
    INSERT INTO notes VALUES (1, 1, 'first team'), (2, 11, 'second team')`)
  await trackTables(database, ['staff', 'notes'])
  let live = await (await LiveSse.open(node, '/v1/live/notes', token)).exact()
  expect(live.rows.rows.size).toBe(2)
  await database.query('TRUNCATE staff_1')
  const expected = asSet(await selectAs(database, reader, 'SELECT * FROM notes')).join()
  const isEqual = (): boolean => live.rows.exact && asSet(live.rows.list()).join() === expected
  while (!isEqual()) {
    await live.stream.waitFor(() => isEqual() || live.stream.ended)
    if (live.stream.ended) live = await LiveSse.open(node, '/v1/live/notes', token, live)
  }
  expect(live.rows.rows.size).toBe(1)
  live.stream.close()
})
