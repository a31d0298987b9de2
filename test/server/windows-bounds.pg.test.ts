// What windows may take, and what is said beyond it.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { OrderedSse } from '../support/ordered-rows.ts'
import { TestDatabase } from '../support/postgres.ts'

const schema = `
  CREATE TABLE notes (id int PRIMARY KEY, room_id int, body text);
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY everybody ON notes FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON notes TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`

let database: TestDatabase
let node: TestNode
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['notes'])
  node = await TestNode.start(database.url, {
    LIMIT_MAX_ROWS: '20',
    WINDOWS_MAX_BYTES: '2000',
    AUDIENCE_GRACE_MS: '50',
  })
  token = await tokenFor(person())
  await database.query(`INSERT INTO notes SELECT i, i % 10, repeat('x', 100) FROM generate_series(1, 100) i`)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const open = (parameters: string): Promise<OrderedSse> => OrderedSse.open(node, `/v1/live/notes?${parameters}`, token)

test('[P7] [P8] the operator says how many rows a limit may be, and how many all windows may hold', async () => {
  await expect(open('limit=21')).rejects.toThrow(/FILTER_INVALID.*between 1 and 20/)
  const first = await open('limit=20')
  await first.stream.waitFor(() => first.rows.exact)
  expect(node.server.holdings().windowChars).toBeGreaterThan(2000)
  await expect(open('limit=10')).rejects.toThrow(/BUSY/)
  // The window that there is, is everybody's; a query without one takes nothing.
  using second = await open('limit=20')
  await second.stream.waitFor(() => second.rows.exact)
  using plain = await open('room_id=eq.3')
  await plain.stream.waitFor(() => plain.rows.exact)
  first.stream.close()
  second.stream.close()
  await expect.poll(() => node.server.holdings().windowChars).toBe(0)
  using third = await open('limit=10')
  await third.stream.waitFor(() => third.rows.exact)
})

test('[P7] [P8] first rows that are too large are refused, also when they become so', async () => {
  await expect.poll(() => node.server.holdings().windowChars).toBe(0)
  const live = await open('limit=18')
  await live.stream.waitFor(() => live.rows.exact)
  await database.query(`UPDATE notes SET body = repeat('y', 1000000) WHERE id <= 18`)
  const { data } = await live.stream.until(({ event }) => event === 'error', 60_000)
  expect(data).toMatchObject({ code: 'SNAPSHOT_TOO_LARGE' })
  const again = await open('limit=18')
  expect((await again.stream.until(({ event }) => event === 'error')).data).toMatchObject({
    code: 'SNAPSHOT_TOO_LARGE',
  })
})
