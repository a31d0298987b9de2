// Chains `task -> project -> team -> user`: each hop is explained, and the answer is Postgres's.
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Expr, Predicate } from '../../src/predicate/algebra.ts'
import { and, not } from '../../src/predicate/build.ts'
import { loadGrammar } from '../../src/server/authorize/parse-sql.ts'
import { type AccessExplained, explainAccess } from '../../src/server/authorize/policies.ts'
import { createCatalog } from '../../src/server/authorize/policy-catalog.ts'
import { settingsList } from '../../src/server/authorize/settings.ts'
import type { PostgresCatalog } from '../../src/server/catalog/catalog.ts'
import type { Table } from '../../src/server/catalog/table.ts'
import { createPool } from '../../src/server/database.ts'
import { explainRow } from '../../src/server/explain/row.ts'
import { createLog } from '../../src/server/log.ts'
import { prepareDatabase } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const bob = '00000000-0000-4000-8000-00000000000b'

const schema = `
  CREATE TABLE projects (id int PRIMARY KEY, team_id int, archived boolean);
  CREATE TABLE team_members (team_id int, user_id uuid, PRIMARY KEY (team_id, user_id));
  CREATE TABLE tasks (id int PRIMARY KEY, project_id int);
  ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
  CREATE POLICY in_team ON tasks TO authenticated USING (EXISTS (
    SELECT FROM projects p WHERE p.id = tasks.project_id AND NOT p.archived AND EXISTS (
      SELECT FROM team_members m WHERE m.team_id = p.team_id AND m.user_id = auth.uid())));
  CREATE POLICY not_frozen ON tasks AS RESTRICTIVE TO authenticated USING (project_id NOT IN (
    SELECT p.id FROM projects p WHERE p.team_id NOT IN (SELECT m.team_id FROM team_members m)));
  GRANT SELECT ON projects, team_members, tasks TO authenticated;
  INSERT INTO projects VALUES (1, 10, false), (2, 20, false), (3, 10, true), (4, NULL, false), (5, 30, false);
  INSERT INTO team_members VALUES (10, '${ada}'), (20, '${bob}'), (10, '${bob}');
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

function columnOf(table: Table, name: string): Extract<Expr, { kind: 'column' }> {
  const column = table.columns.findIndex(each => each.name === name)
  return { kind: 'column', column, name, type: table.columns[column]!.type }
}

const joined = (table: Table, inner: string, outer: Expr, where: Predicate, nullAware = false): Predicate => ({
  kind: 'semiJoin',
  table,
  keys: [{ inner: columnOf(table, inner), outer }],
  where,
  nullAware,
})

/** The two policies above in the algebra, whatever the compiler takes. */
async function access(sub: string): Promise<AccessExplained> {
  const [tasks, projects, members] = await Promise.all(
    ['tasks', 'projects', 'team_members'].map(name => catalog.table('public', name)),
  )
  const isReader: Predicate = {
    ...{ kind: 'compare', op: '=', left: columnOf(members!, 'user_id') },
    right: { kind: 'const', value: sub, type: columnOf(members!, 'user_id').type },
  }
  const team = columnOf(projects!, 'team_id')
  const project = columnOf(tasks!, 'project_id')
  const open = not({ kind: 'boolean', arg: columnOf(projects!, 'archived') })
  const inTeam = joined(projects!, 'id', project, and(open, joined(members!, 'team_id', team, isReader)))
  const teamless = not(joined(members!, 'team_id', team, { kind: 'true' }, true))
  const notFrozen = not(joined(projects!, 'id', project, teamless, true))
  const compiled = await catalog.compiled(tasks!, 'authenticated', explainAccess)
  const predicates: Record<string, Predicate> = { in_team: inTeam, not_frozen: notFrozen }
  const policies = compiled.policies.map(alone => ({
    ...{ ...alone, predicate: predicates[alone.policy.name]!, refusal: null },
    memberships: [projects!, members!],
  }))
  return { ...compiled, policies }
}

async function row(id: number, sub: string) {
  const reader = {
    role: 'authenticated',
    settings: settingsList({ role: 'authenticated', claims: { sub } }, { claimSettings: [] }),
  }
  return explainRow({ pool, access: await access(sub), reader, key: [String(id)], maxRows: 100, timeoutMs: 5000 })
}

test('[P1] every task is judged as Postgres does, for both readers', async () => {
  const visible: string[] = []
  for (const sub of [ada, bob])
    for (const id of [1, 2, 3, 4, 5, 6, 7]) {
      const found = await row(id, sub)
      expect({ id, sub, agrees: found.agrees }).toEqual({ id, sub, agrees: true })
      if (found.visible === true) visible.push(`${sub.at(-1)}${id}`)
    }
  expect(visible).toEqual(['a1', 'b1', 'b2'])
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
