// What does not compile is asked of Postgres: rows equal the SELECT a moment later, and nothing is sent that SELECT does not show.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { askedSchema, askedTables, equals } from '../support/asked.ts'
import { LiveSse, person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let node: TestNode
const [ada, ben] = [person(), person()]
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, askedSchema, askedTables)
  node = await TestNode.start(database.url)
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query('TRUNCATE public.crew, public.papers, public.answers, public.polls')
  await database.query(`INSERT INTO crew VALUES (1, '${ada}'), (3, '${ada}'), (2, '${ben}')`)
  await database.query(`INSERT INTO papers SELECT i, 1 + i % 4, 'w', 'row ' || i FROM generate_series(1, 24) i`)
})

const papers = (query = ''): Promise<LiveSse> => LiveSse.open(node, `/v1/live/papers${query}`, token)
const follows = (live: LiveSse): Promise<void> => equals(database, live, ada, 'SELECT * FROM papers')

/** Everything that a stream was told, as text. */
const told = (live: LiveSse): string => JSON.stringify(live.stream.events)

test('[P1] [P8] a policy in PL/pgSQL is asked, says so, and follows inserts, updates, moves and deletes', async () => {
  using live = await papers()
  await live.exact()
  const subscribed = live.stream.events.find(({ event }) => event === 'subscribed')!.data
  expect(subscribed).toMatchObject({ exact: false, warnings: [{ code: 'POLICY_ASKED' }] })
  expect(JSON.stringify(subscribed)).toMatch(/by_crew.*is_crew\(\) in language plpgsql/)
  await follows(live)
  await database.query(`INSERT INTO papers VALUES (30, 1, 'w', 'mine'), (31, 2, 'w', 'not mine')`)
  await follows(live)
  await database.query(`UPDATE papers SET body = 'changed' WHERE id IN (4, 5)`)
  await follows(live)
  await database.query(`UPDATE papers SET room_id = 2 WHERE id = 4; UPDATE papers SET id = 99 WHERE id = 8`)
  await follows(live)
  await database.query('DELETE FROM papers WHERE id = 12')
  await follows(live)
  await database.query('TRUNCATE papers')
  await follows(live)
  expect(live.rows.resyncs).toEqual([])
})

test('[P2] nothing of a row that SELECT does not show is told: no value, no key', async () => {
  await database.query(`UPDATE papers SET body = 'secret' WHERE room_id = 2`)
  using live = await papers()
  await live.exact()
  await database.query(`INSERT INTO papers VALUES (7001, 2, 'w', 'secret'), (7002, 1, 'w', 'open')`)
  await database.query(`UPDATE papers SET body = 'secret too' WHERE id = 7001; DELETE FROM papers WHERE id = 7001`)
  await database.query(`UPDATE papers SET room_id = 2, body = 'secret now' WHERE id = 7002`)
  await database.query(`INSERT INTO papers VALUES (7003, 3, 'w', 'last')`)
  await follows(live)
  await live.stream.until(event => JSON.stringify(event).includes('last'))
  expect(told(live)).not.toMatch(/secret|7001/)
})

test('[P3] a grant and a revocation in a table that a function reads are noticed at their commit', async () => {
  using live = await papers()
  await live.exact()
  await database.query(`INSERT INTO crew VALUES (2, '${ada}')`)
  await follows(live)
  expect(live.rows.rows.size).toBe(18)
  await database.query(`DELETE FROM crew WHERE room_id = 1 AND user_id = '${ada}'`)
  await follows(live)
  await database.query(`DELETE FROM crew WHERE user_id = '${ada}'`)
  await follows(live)
  expect(live.rows.rows.size).toBe(0)
})

test('[P1] an aggregate over another table shows all rows or none; the key has two columns', async () => {
  await database.query(`INSERT INTO polls VALUES (1, 'a:1', 'x'), (1, 'b', 'y'), (2, '3:c', 'z')`)
  using live = await LiveSse.open(node, '/v1/live/polls', token)
  await live.exact()
  expect(live.rows.rows.size).toBe(0)
  await database.query(`INSERT INTO answers SELECT i, '${ada}', i FROM generate_series(1, 3) i`)
  await equals(database, live, ada, 'SELECT * FROM polls')
  expect(live.rows.rows.size).toBe(3)
  await database.query(`UPDATE polls SET body = 'changed' WHERE id = 1; DELETE FROM polls WHERE id = 2`)
  await equals(database, live, ada, 'SELECT * FROM polls')
  await database.query('DELETE FROM answers WHERE id = 2')
  await equals(database, live, ada, 'SELECT * FROM polls')
  expect(live.rows.rows.size).toBe(0)
})

test('a filter and a projection are pushed down: what they leave out is not told', async () => {
  using live = await papers('?room_id=eq.1&select=id,body')
  await live.exact()
  const rows = 'SELECT id, body FROM papers WHERE room_id = 1'
  await equals(database, live, ada, rows)
  await database.query(`UPDATE papers SET author = 'somebody'`)
  await database.query(`INSERT INTO papers VALUES (40, 3, 'w', 'elsewhere'), (41, 1, 'w', 'here')`)
  await equals(database, live, ada, rows)
  expect(live.stream.events.filter(({ event }) => event === 'delta')).toHaveLength(1)
  expect(told(live)).not.toMatch(/"author"|elsewhere/)
})

test('where policies compile for one role they are judged exactly, and only the other is asked', async () => {
  using all = await LiveSse.open(node, '/v1/live/papers', await tokenFor(ben, { role: 'anon' }))
  await all.exact()
  expect(all.stream.events[0]!.data).not.toHaveProperty('exact')
  expect(all.stream.events[0]!.data).not.toHaveProperty('warnings')
  using asked = await papers()
  await asked.exact()
  await database.query(`INSERT INTO papers VALUES (50, 2, 'all', 'to anon'), (51, 1, 'all', 'to both')`)
  await all.stream.waitFor(() => all.rows.rows.size === 2)
  await follows(asked)
  expect(told(asked)).not.toMatch(/to anon/)
})

/** Resolves when the last answer says so. */
const becomes = (live: LiveSse, isExact: boolean): Promise<void> =>
  live.stream.waitFor(() => {
    const last = live.stream.events.findLast(({ event }) => event === 'subscribed')!.data as { exact?: false }
    return (last.exact === undefined) === isExact && live.rows.exact
  })

test('[P1] a policy that is rewritten so that it compiles, and back, takes its open queries along', async () => {
  using live = await papers()
  await live.exact()
  await database.query(`ALTER POLICY by_crew ON papers USING (
    EXISTS (SELECT 1 FROM crew c WHERE c.room_id = papers.room_id AND c.user_id = auth.uid()))`)
  // The function reads as its owner did; now the role itself reads.
  await database.query('GRANT SELECT ON crew TO authenticated')
  await becomes(live, true)
  await database.query(`INSERT INTO papers VALUES (60, 1, 'w', 'judged here')`)
  await follows(live)
  await database.query('ALTER POLICY by_crew ON papers USING (public.is_crew(room_id) AND random() < 2)')
  await becomes(live, false)
  await database.query(`INSERT INTO papers VALUES (61, 1, 'w', 'asked')`)
  await follows(live)
  await database.query('ALTER POLICY by_crew ON papers USING (public.is_crew(room_id))')
  await follows(live)
  expect(live.failure).toBe(null)
})

test('[P1] a function whose body is replaced is noticed within RECHECK_MS, though the catalog says nothing', async () => {
  using live = await papers()
  await live.exact()
  const body = (
    condition: string,
  ): string => `CREATE OR REPLACE FUNCTION public.is_crew(room int) RETURNS bool LANGUAGE plpgsql
    STABLE SECURITY DEFINER SET search_path = '' AS $$ BEGIN RETURN ${condition}; END $$`
  await database.query(body('room = 2'))
  await follows(live)
  expect(live.rows.rows.size).toBe(6)
  await database.query(body('EXISTS (SELECT 1 FROM public.crew c WHERE c.room_id = room AND c.user_id = auth.uid())'))
  await follows(live)
})

test('[P2] a column that is no longer granted, or is of another type, is not told under the old rules', async () => {
  const told: string[] = []
  /** Comes back as a client does, until the rows are those of this SELECT. */
  const comesTo = async (sql: string): Promise<void> => {
    const deadline = Date.now() + 10_000
    for (let isSo = false; !isSo; ) {
      expect(Date.now()).toBeLessThan(deadline)
      using live = await papers()
      await live.stream.waitFor(() => live.rows.exact || live.stream.ended)
      isSo = await equals(database, live, ada, sql, 500).then(
        () => true,
        () => false,
      )
      told.push(JSON.stringify(live.stream.events))
    }
  }
  await comesTo('SELECT * FROM papers')
  using open = await (await papers()).exact()
  await database.query(`BEGIN; REVOKE SELECT ON papers FROM authenticated;
    GRANT SELECT (id, room_id, author) ON papers TO authenticated; UPDATE papers SET body = 'secret'; COMMIT`)
  await comesTo('SELECT id, room_id, author FROM papers')
  await open.stream.waitFor(() => open.stream.ended || open.stream.events.length > 2)
  expect(JSON.stringify([told, open.stream.events])).not.toMatch(/secret/)
  await database.query(
    `ALTER TABLE papers ALTER COLUMN body TYPE int USING id; GRANT SELECT ON papers TO authenticated`,
  )
  await comesTo('SELECT * FROM papers')
  using numbers = await (await papers()).exact()
  expect(typeof [...numbers.rows.rows.values()][0]!.body).toBe('number')
  await database.query(
    `ALTER TABLE papers ALTER COLUMN body TYPE text USING 'text ' || body; UPDATE papers SET id = id + 100`,
  )
  await comesTo('SELECT * FROM papers')
})
