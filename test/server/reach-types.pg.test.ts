// Chains whose keys have another type at each place: what is equal for Postgres is found, read and moved as equal.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor, trackTables } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

/** Types of a team's key in the memberships, in the projects and of a project's in the notes, and how a number is written. */
const cases: readonly (readonly [members: string, projects: string, notes: string, literal: (n: number) => string])[] =
  [
    ['bigint', 'int', 'smallint', n => `${n}`],
    ['numeric', 'int', 'numeric(10,2)', n => `${n}.00`],
    ['int', 'numeric(10,2)', 'numeric', n => `${n}.0`],
    ['char(6)', 'text', 'varchar(9)', n => `'k${n}'`],
    ['text', 'char(6)', 'char(8)', n => `'k${n}'`],
    ['varchar', 'text', 'text', n => `'k${n}'`],
    ['int', 'numeric(10,2)', 'int', n => `${n}`],
    ['int', 'float8', 'int', n => `${n}`],
    ['float8', 'bigint', 'float8', n => `${9007199254740992n + 2n * BigInt(n)}`],
    ['uuid', 'uuid', 'uuid', n => `'00000000-0000-4000-8000-00000000000${n}'`],
    ['float8', 'int', 'float8', n => `${n}`],
    ['date', 'timestamp', 'date', n => `'2024-01-0${n}'`],
    ['timestamp', 'date', 'timestamp', n => `'2024-01-0${n}'`],
  ]

const schema = cases
  .map(
    ([members, projects, notes], i) => `
  CREATE TABLE members_${i} (team ${members} NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (team, user_id));
  CREATE TABLE projects_${i} (id ${projects} PRIMARY KEY, team ${projects});
  CREATE TABLE notes_${i} (id int PRIMARY KEY, project ${notes}, body text);
  ALTER TABLE notes_${i} ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON notes_${i} USING (EXISTS (SELECT FROM projects_${i} p JOIN members_${i} m ON m.team = p.team
    WHERE p.id = project AND m.user_id = auth.uid()));
  GRANT SELECT ON members_${i}, projects_${i}, notes_${i} TO authenticated;`,
  )
  .join('')

let database: TestDatabase
let node: TestNode
const ada = person()

beforeAll(async () => {
  database = await TestDatabase.create()
  const tables = cases.flatMap((_, i) => [`members_${i}`, `projects_${i}`, `notes_${i}`])
  await prepareDatabase(database, `${schema} GRANT USAGE ON SCHEMA public TO authenticated;`, tables)
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '50' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

test.each(cases.map((each, i) => [each.slice(0, 3).join(' = '), i] as const))(
  '[P1] a chain joined by %s is followed at each place',
  async (_, i) => {
    const literal = cases[i]![3]
    const [k1, k2, k3, k4] = [1, 2, 3, 4].map(literal)
    await database.query(`
      INSERT INTO members_${i} VALUES (${k1}, '${ada}');
      INSERT INTO projects_${i} VALUES (${k1}, ${k1}), (${k2}, ${k2}), (${k3}, ${k2});
      INSERT INTO notes_${i} VALUES (1, ${k1}, 'a'), (2, ${k2}, 'b'), (3, ${k3}, 'c'), (4, ${k4}, 'd')`)
    using live = await (await LiveSse.open(node, `/v1/live/notes_${i}`, await tokenFor(ada))).exact()
    const only = k2!.replaceAll("'", '')
    using one = await (
      await LiveSse.open(node, `/v1/live/notes_${i}?project=eq.${encodeURIComponent(only)}`, await tokenFor(ada))
    ).exact()
    const equal = async (query: LiveSse, where: string): Promise<void> => {
      const expected = asSet(await selectAs(database, ada, `SELECT * FROM notes_${i} WHERE ${where}`)).join('\n')
      await query.stream
        .waitFor(() => asSet(query.rows.list()).join('\n') === expected || query.failure !== null)
        .catch(() => {})
      expect([query.failure, asSet(query.rows.list()).join('\n')]).toEqual([null, expected])
    }
    const equals = async (): Promise<void> => {
      await equal(live, 'true')
      await equal(one, `project = ${k2}`)
    }
    await equals()
    for (const statement of [
      `INSERT INTO members_${i} VALUES (${k2}, '${ada}')`,
      `INSERT INTO notes_${i} VALUES (5, ${k2}, 'e'), (6, ${k3}, 'f')`,
      `INSERT INTO projects_${i} VALUES (${k4}, ${k1})`,
      `UPDATE projects_${i} SET team = ${k3} WHERE id = ${k1}`,
      `UPDATE notes_${i} SET project = ${k4} WHERE id = 1`,
      `DELETE FROM members_${i} WHERE team = ${k2}`,
      `UPDATE members_${i} SET team = ${k3}`,
    ]) {
      await database.query(statement)
      await equals()
    }
    expect(live.rows.resyncs).toEqual([])
  },
)

test('[P1] tables whose keys have other types are followed by the same memberships, each by its own', async () => {
  await database.query(`
    CREATE TABLE days (day date NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (day, user_id));
    CREATE TABLE by_day (id int PRIMARY KEY, day date);
    CREATE TABLE by_moment (id int PRIMARY KEY, day timestamp);
    ALTER TABLE by_day ENABLE ROW LEVEL SECURITY;
    ALTER TABLE by_moment ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON by_day USING (EXISTS (SELECT FROM days d WHERE d.day = by_day.day AND d.user_id = auth.uid()));
    CREATE POLICY p ON by_moment USING (EXISTS (SELECT FROM days d WHERE d.day = by_moment.day AND d.user_id = auth.uid()));
    GRANT SELECT ON days, by_day, by_moment TO authenticated;
    INSERT INTO days VALUES ('2024-01-01', '${ada}')`)
  await trackTables(database, ['days', 'by_day', 'by_moment'])
  const token = await tokenFor(ada)
  using first = await (await LiveSse.open(node, '/v1/live/by_day', token)).exact()
  using second = await (await LiveSse.open(node, '/v1/live/by_moment', token)).exact()
  for (const [id, day] of ['2024-01-01', '2024-01-02'].entries()) {
    await database.query(`INSERT INTO by_day VALUES (${id}, '${day}'); INSERT INTO by_moment VALUES (${id}, '${day}')`)
    await database.query(`INSERT INTO days VALUES ('${day}', '${ada}') ON CONFLICT DO NOTHING`)
    for (const live of [first, second]) await live.stream.waitFor(() => live.rows.rows.has(`[${id}]`))
  }
  await database.query(`DELETE FROM days WHERE day = '2024-01-01'`)
  for (const live of [first, second]) await live.stream.waitFor(() => !live.rows.rows.has('[0]'))
  expect([...first.rows.resyncs, ...second.rows.resyncs, first.failure, second.failure]).toEqual([null, null])
})
