// Rows that come and go with their partition: no WAL message tells of them.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const schema = `
  CREATE TABLE public.events (id int, day int, note text, PRIMARY KEY (day, id)) PARTITION BY RANGE (day);
  CREATE TABLE public.events_1 PARTITION OF public.events FOR VALUES FROM (0) TO (10);
  CREATE TABLE public.events_2 PARTITION OF public.events FOR VALUES FROM (10) TO (20);
  CREATE TABLE public.apart (id int NOT NULL, day int NOT NULL, note text, PRIMARY KEY (day, id));
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
  await prepareDatabase(database, schema, ['events'])
  node = await TestNode.start(database.url)
  token = await tokenFor(reader)
})

afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

/** Follows as a client does that comes back when it is told to, until its rows are those of the SELECT. */
async function equals(first: LiveSse): Promise<LiveSse> {
  const expected = asSet(await selectAs(database, reader, 'SELECT * FROM events')).join()
  for (let live = first; ; live = await LiveSse.open(node, '/v1/live/events', token, live)) {
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
