// Chains `task -> project -> team -> user`: each hop is explained, and the answer is Postgres's.
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { loadGrammar } from '../../src/server/authorize/parse-sql.ts'
import { type AccessExplained, explainAccess } from '../../src/server/authorize/policies.ts'
import { createCatalog } from '../../src/server/authorize/policy-catalog.ts'
import { settingsList } from '../../src/server/authorize/settings.ts'
import type { PostgresCatalog } from '../../src/server/catalog/catalog.ts'
import { explainPolicies } from '../../src/server/explain/reads.ts'
import { explainRow } from '../../src/server/explain/row.ts'
import { createLog } from '../../src/server/log/log.ts'
import { createPool } from '../../src/server/postgres/database.ts'
import { prepareDatabase } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const bob = '00000000-0000-4000-8000-00000000000b'

const schema = `
  CREATE TABLE projects (id int PRIMARY KEY, team_id int, archived boolean);
  CREATE TABLE team_members (team_id int, user_id uuid, until timestamptz, PRIMARY KEY (team_id, user_id));
  CREATE TABLE tasks (id int PRIMARY KEY, project_id int);
  ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
  CREATE POLICY in_team ON tasks TO authenticated USING (EXISTS (
    SELECT FROM projects p WHERE p.id = tasks.project_id AND NOT p.archived AND EXISTS (
      SELECT FROM team_members m WHERE m.team_id = p.team_id AND m.user_id = auth.uid() AND m.until > now())));
  CREATE POLICY not_frozen ON tasks AS RESTRICTIVE TO authenticated USING (project_id NOT IN (
    SELECT p.id FROM projects p WHERE p.team_id NOT IN (SELECT m.team_id FROM team_members m)));
  GRANT SELECT ON projects, team_members, tasks TO authenticated;
  INSERT INTO projects VALUES (1, 10, false), (2, 20, false), (3, 10, true), (4, NULL, false), (5, 30, false);
  INSERT INTO team_members VALUES (10, '${ada}', '2999-01-01'), (20, '${bob}', '2999-01-01'), (10, '${bob}', '2000-01-01');
  INSERT INTO tasks SELECT n, nullif(n, 7) FROM generate_series(1, 7) n;
`

let database: TestDatabase
let pool: pg.Pool
let catalog: PostgresCatalog

beforeAll(async () => {
  await loadGrammar()
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['projects', 'team_members', 'tasks'])
  pool = createPool(database.url, { maxConnections: 1 })
  catalog = createCatalog({ pool, publication: 'tidegate', log: createLog('silent') })
})

afterAll(async () => {
  await pool?.end()
  await database?.[Symbol.asyncDispose]()
})

async function access(): Promise<AccessExplained> {
  const compiled = await catalog.compiled(await catalog.table('public', 'tasks'), 'authenticated', explainAccess)
  expect(compiled.policies.map(({ refusal }) => refusal)).toEqual([null, null])
  return compiled
}

async function row(id: number, sub: string) {
  const reader = {
    role: 'authenticated',
    settings: settingsList({ role: 'authenticated', claims: { sub } }, { claimSettings: [] }),
  }
  return explainRow({ pool, access: await access(), reader, key: [String(id)], maxRows: 100, timeoutMs: 5000 })
}

test('[P1] every task is judged as Postgres does, for both readers', async () => {
  const visible: string[] = []
  for (const sub of [ada, bob])
    for (const id of [1, 2, 3, 4, 5, 6, 7]) {
      const found = await row(id, sub)
      expect({ id, sub, agrees: found.agrees }).toEqual({ id, sub, agrees: true })
      if (found.visible === true) visible.push(`${sub.at(-1)}${id}`)
    }
  expect(visible).toEqual(['a1', 'b2'])
})

test('[P8] all tables of a chain are told, with their columns, and that the time decides', async () => {
  const [inTeam, notFrozen] = explainPolicies(await access(), new Map())
  expect(inTeam!.reads).toMatchObject({ columns: ['project_id'], time: true })
  expect(inTeam!.reads.tables).toEqual(
    expect.arrayContaining([
      { table: 'public.projects', columns: ['id', 'team_id', 'archived'] },
      { table: 'public.team_members', columns: ['team_id', 'user_id', 'until'] },
    ]),
  )
  expect(notFrozen!.reads.time).toBe(false)
})

test('[P8] a membership that has run out is told apart from none', async () => {
  const [project] = (await row(1, bob)).policies.find(({ name }) => name === 'in_team')!.memberships
  expect(project).toMatchObject({ rows: 0, candidates: 1, through: [[{ rows: 0, candidates: 1 }]] })
})

test('[P8] each hop is told: where it leads, and where it ends', async () => {
  const shown = await row(1, ada)
  expect(shown.because).toBe(
    `visible by policy "in_team": public.projects (id=1) has 1 row, through public.team_members (team_id=10, user_id=${ada}) has 1 row`,
  )
  const hidden = await row(2, ada)
  expect(hidden.because).toContain(
    `public.projects (id=2) has 1 row, which leads nowhere, through public.team_members (team_id=20, user_id=${ada}) has none`,
  )
  // An archived project leads to the reader's team, and is not taken.
  const archived = await row(3, ada)
  expect(archived.because).toContain(
    'public.projects (id=3) has 1 row, which does not satisfy the rest of the subquery',
  )
  expect(archived.policies.find(({ name }) => name === 'in_team')!.memberships).toMatchObject([
    { rows: 0, candidates: 1, through: [[{ rows: 1 }]] },
  ])
})
