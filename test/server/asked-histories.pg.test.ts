// Policies that do not compile, of many kinds, under random writes of several sessions: at every quiet point the rows of each
// reader are those of its SELECT, each position tells the truth, and no stranger's row was told.
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { askedSchema } from '../support/asked.ts'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let node: TestNode
const users = Array.from({ length: 4 }, person)

/** Policies on a table of the same columns each. */
const policies: Record<string, string> = {
  in_plpgsql: 'public.is_crew(room_id)',
  in_untracked: 'public.is_guest(room_id)',
  by_count: '(SELECT count(*) FROM public.crew c WHERE c.room_id = by_count.room_id AND c.user_id = auth.uid()) > 0',
  by_regex: `body ~ '^row [0-9]*[02468]$' AND public.is_crew(room_id)`,
  by_chance: 'random() < 2 AND room_id < 3',
  by_volatile: 'public.is_crew_volatile(room_id)',
  by_itself: `(SELECT max(o.id) FROM public.by_itself_rows o) - id < 20 AND room_id <> 2`,
}
const tables = Object.keys(policies)

const schema = `${askedSchema}
  CREATE TABLE public.guests (room_id int, user_id uuid, PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.by_itself_rows (id int PRIMARY KEY);
  CREATE FUNCTION public.is_guest(room int) RETURNS bool LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' AS $$
    BEGIN RETURN EXISTS (SELECT 1 FROM public.guests g WHERE g.room_id = room AND g.user_id = auth.uid()); END $$;
  CREATE FUNCTION public.is_crew_volatile(room int) RETURNS bool LANGUAGE plpgsql VOLATILE AS $$
    BEGIN
      IF coalesce(current_setting('app.seen', true), '') NOT IN ('', auth.uid()::text) THEN RAISE 'left behind'; END IF;
      PERFORM set_config('app.seen', auth.uid()::text, false);
      RETURN public.is_crew(room);
    END $$;
  ${tables
    .map(
      table => `CREATE TABLE public.${table} (id int PRIMARY KEY, room_id int NOT NULL, body text, at timestamptz);
    ALTER TABLE public.${table} ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON public.${table} USING (${policies[table]});`,
    )
    .join('\n')}
  GRANT SELECT ON ALL TABLES IN SCHEMA public TO authenticated;
`

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['crew', 'by_itself_rows', ...tables])
  node = await TestNode.start(database.url, { RECHECK_MS: '500', ASKED_CONCURRENCY: '6' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const pick = (count: number): number => Math.floor(Math.random() * count)

function statement(): string {
  const user = users[pick(users.length)]
  const room = 1 + pick(4)
  const list = pick(2) === 0 ? 'crew' : 'guests'
  const table = tables[pick(tables.length)]
  const id = 1 + pick(40)
  const statements = [
    `INSERT INTO ${list} VALUES (${room}, '${user}') ON CONFLICT DO NOTHING`,
    `DELETE FROM ${list} WHERE user_id = '${user}' AND room_id = ${room}`,
    `INSERT INTO by_itself_rows VALUES (${id}) ON CONFLICT DO NOTHING`,
    `DELETE FROM by_itself_rows WHERE id = ${id}`,
    `INSERT INTO ${table} VALUES (${id}, ${room}, 'row ${pick(100)}', '2026-01-01 12:00:00+00') ON CONFLICT (id) DO UPDATE SET body = excluded.body`,
    `INSERT INTO ${table} VALUES (${id}, ${room}, 'row ${pick(100)}') ON CONFLICT (id) DO UPDATE SET room_id = excluded.room_id`,
    `UPDATE ${table} SET body = 'row ${pick(100)}' WHERE id = ${id}`,
    `DELETE FROM ${table} WHERE id = ${id}`,
  ]
  return statements[pick(statements.length)]!
}

async function write(commits: number): Promise<void> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  for (let i = 0; i < commits; i++) {
    const statements = Array.from({ length: 1 + pick(4) }, statement)
    // Two of them may wait for each other: one gives way.
    await client.query(`BEGIN; ${statements.join('; ')}; COMMIT`).catch(() => client.query('ROLLBACK'))
  }
  await client.end()
}

test('[P1] [P2] rows equal the SELECT at quiet points, whatever the policy', { timeout: 60_000 }, async () => {
  const lives: { live: LiveSse; user: string; table: string }[] = []
  for (const user of users)
    for (const table of tables)
      lives.push({ live: await LiveSse.open(node, `/v1/live/${table}`, await tokenFor(user)), user, table })
  for (const { live } of lives) await live.exact()
  for (let round = 0; round < 4; round++) {
    await Promise.all([write(60), write(60), write(60)])
    for (const { live, user, table } of lives) {
      const expected = asSet(await selectAs(database, user, `SELECT * FROM ${table}`))
      await live.stream
        .waitFor(() => live.failure !== null || asSet(live.rows.list()).join() === expected.join(), 8_000)
        .catch(() => {})
      expect(live.failure, live.rows.history.slice(-8).join('\n')).toBe(null)
      expect(asSet(live.rows.list()), `${table} ${live.rows.history.slice(-8).join('\n')}`).toEqual(expected)
    }
  }
  for (const { live } of lives) {
    expect(live.rows.resyncs).toEqual([])
    live.stream.close()
  }
})
