// A commit that is much work for its readers' filters, though it fits into memory: nobody waits for the whole of it.
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const schema = `
  CREATE TABLE public.notes (id int PRIMARY KEY, body text NOT NULL);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY everybody ON public.notes FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON public.notes TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`
const rows = 5000
const filters = 100

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['notes'])
  node = await TestNode.start(database.url)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

test('[P7] 100 filters without a key and a commit of 5,000 rows: half a million decisions in slices, exact for all', {
  timeout: 60_000,
}, async () => {
  const token = await tokenFor(person())
  const open = (query: string): Promise<LiveSse> => LiveSse.open(node, `/v1/live/notes?${query}`, token)
  // Each looks at every row; each finds one.
  const readers = await Promise.all(
    Array.from({ length: filters }, async (_, i) => {
      const live = await open(`body=ilike.*a%20*long%20*way%20*to%20row%20${i}%20only*`)
      return live.exact()
    }),
  )
  const delay = monitorEventLoopDelay({ resolution: 1 })
  await database.query('INSERT INTO notes VALUES (-1, $1)', ['before'])
  delay.enable()
  const begun = performance.now()
  await database.query(
    `INSERT INTO notes SELECT i, repeat('some text before ', 20) || 'a long way to row ' || i || ' only' FROM generate_series(0, $1 - 1) i`,
    [rows],
  )
  await Promise.all(readers.map(({ stream, rows }) => stream.waitFor(() => rows.list().length > 0)))
  const tookMs = performance.now() - begun
  delay.disable()
  for (const [i, { rows: held, failure }] of readers.entries()) {
    expect(failure).toBe(null)
    const expected = await database.query<{ id: number; body: string }>('SELECT * FROM notes WHERE id = $1', [i])
    expect(asSet(held.list())).toEqual(asSet(expected))
  }
  const longestMs = delay.max / 1e6
  process.stdout.write(
    `${filters * rows} decisions in ${tookMs.toFixed(0)} ms, longest turn ${longestMs.toFixed(0)} ms\n`,
  )
  // In one turn it would be nearly all of the time.
  expect(longestMs).toBeLessThan(tookMs / 3)
})
