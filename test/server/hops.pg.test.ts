// Chains: comments are read by those whose team has the project that the task is in. What changes in the middle of a chain
// moves rows that nobody touched, for those who reach it and nobody else.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader } from '../support/readers.ts'

const schema = `
  CREATE TABLE team_members (team_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (team_id, user_id));
  CREATE TABLE projects (id int PRIMARY KEY, team_id int, is_public boolean NOT NULL DEFAULT false);
  CREATE TABLE tasks (id int PRIMARY KEY, project_id int);
  CREATE TABLE mutes (task_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (task_id, user_id));
  CREATE TABLE comments (id int PRIMARY KEY, task_id int, body text);
  CREATE FUNCTION my_teams() RETURNS SETOF int LANGUAGE sql STABLE SECURITY DEFINER SET search_path = '' AS $$
    SELECT team_id FROM public.team_members WHERE user_id = auth.uid() $$;
  ALTER TABLE projects ENABLE ROW LEVEL SECURITY;
  ALTER TABLE tasks ENABLE ROW LEVEL SECURITY;
  ALTER TABLE comments ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON projects USING (is_public OR team_id IN (SELECT my_teams()));
  CREATE POLICY p ON tasks USING (project_id IN (SELECT id FROM projects));
  CREATE POLICY p ON comments USING (EXISTS (SELECT FROM tasks t WHERE t.id = task_id)
    AND NOT EXISTS (SELECT FROM mutes m JOIN tasks t ON t.id = m.task_id WHERE t.id = comments.task_id AND m.user_id = auth.uid()));
  GRANT SELECT ON team_members, projects, tasks, mutes, comments TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;`
const tables = ['team_members', 'projects', 'tasks', 'mutes', 'comments']
const [ada, ben] = [person(), person()]

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, tables)
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '50', MAX_HELD_MS: '10000', HEARTBEAT_MS: '300' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query(`
    INSERT INTO team_members VALUES (1, '${ada}'), (2, '${ben}');
    INSERT INTO projects SELECT i, i % 4 FROM generate_series(1, 12) i;
    INSERT INTO tasks SELECT i, 1 + i % 12 FROM generate_series(1, 36) i;
    INSERT INTO comments SELECT i, 1 + i % 36, 'old' FROM generate_series(1, 72) i`)
})

const open: LiveSse[] = []
afterEach(async () => {
  for (const live of open.splice(0)) live[Symbol.dispose]()
  await database.query(
    `DELETE FROM comments; DELETE FROM tasks; DELETE FROM projects; DELETE FROM mutes; DELETE FROM team_members`,
  )
})

async function follow(user: string, query = ''): Promise<LiveSse> {
  const live = await (await LiveSse.open(node, `/v1/live/comments${query}`, await tokenFor(user))).exact()
  open.push(live)
  return live
}

async function assertExact(live: LiveSse, user: string, where = 'true'): Promise<void> {
  const expected = asSet(await selectAs(database, user, `SELECT * FROM comments WHERE ${where}`)).join('\n')
  const isSame = (): boolean => asSet(live.rows.list()).join('\n') === expected
  await live.stream.waitFor(() => isSame() || live.failure !== null).catch(() => {})
  expect(live.failure).toBe(null)
  expect(asSet(live.rows.list()).join('\n')).toBe(expected)
}

test('[P1] what changes at any place of a chain moves the rows at its end, for each as its SELECT says', async () => {
  const [first, second, filtered] = [await follow(ada), await follow(ben), await follow(ada, '?task_id=in.(1,2,13)')]
  const steps = [
    `INSERT INTO team_members VALUES (3, '${ada}')`,
    `INSERT INTO comments VALUES (100, 2, 'new'), (101, 3, 'new'), (102, 4, 'new')`,
    `UPDATE projects SET team_id = 1 WHERE id = 4`,
    `UPDATE projects SET team_id = 2 WHERE id IN (4, 5)`,
    `UPDATE tasks SET project_id = 2 WHERE project_id = 1`,
    `INSERT INTO mutes VALUES (2, '${ada}'), (13, '${ben}')`,
    `UPDATE projects SET is_public = true WHERE id = 7`,
    `DELETE FROM team_members WHERE user_id = '${ada}' AND team_id = 1`,
    `INSERT INTO team_members VALUES (0, '${ada}'); INSERT INTO projects VALUES (50, 0); INSERT INTO tasks VALUES (50, 50);
     INSERT INTO comments VALUES (150, 50, 'whole chain')`,
    `UPDATE team_members SET team_id = 2 WHERE user_id = '${ada}' AND team_id = 0; UPDATE comments SET body = 'moved' WHERE id < 40`,
    `DELETE FROM tasks WHERE id % 3 = 0`,
    `DELETE FROM projects WHERE id % 5 = 0; DELETE FROM mutes`,
    `UPDATE team_members SET user_id = '${ben}' WHERE user_id = '${ada}' AND team_id = 3`,
    `TRUNCATE tasks`,
  ]
  for (const step of steps) {
    await database.query(`BEGIN; ${step}; COMMIT`)
    await assertExact(first, ada)
    await assertExact(second, ben)
    await assertExact(filtered, ada, 'task_id IN (1, 2, 13)')
  }
})

test('[P1] a reader who comes when nobody reached its rows, goes, and comes back after the grace, finds them', async () => {
  for (let round = 0; round < 3; round++) {
    const live = await follow(ada)
    await assertExact(live, ada)
    await database.query(`UPDATE projects SET team_id = (team_id + 1) % 4`)
    await assertExact(live, ada)
    live[Symbol.dispose]()
    await database.query(`UPDATE tasks SET project_id = 1 + project_id % 12`)
    await expect.poll(() => node.server.holdings().memberships).toBe(0)
  }
})

test('[P4] who was away while the chain changed at each place gets exactly the difference, live and changes', async () => {
  const witness = await follow(ben)
  for (const kind of ['live', 'changes'] as const) {
    const reader = new Reader('sse', kind, 'comments', await tokenFor(ada))
    await reader.come(node)
    if (kind === 'live') await reader.until(() => reader.rows.exact)
    await database.query(`UPDATE comments SET body = 'before' WHERE id = 4`)
    await database.query(`INSERT INTO comments VALUES (${kind === 'live' ? 201 : 301}, 36, 'x')`)
    await reader.until(() => reader.position !== null)
    await reader.leave()
    await database.query(`INSERT INTO team_members VALUES (3, '${ada}') ON CONFLICT DO NOTHING`)
    await database.query(`UPDATE comments SET body = '${kind} 1' WHERE id IN (1, 2, 3, 4, 5, 6)`)
    await database.query(`DELETE FROM team_members WHERE user_id = '${ada}'`)
    await database.query(`UPDATE comments SET body = '${kind} 2' WHERE id IN (1, 2, 3, 4, 5, 6)`)
    await database.query(
      `UPDATE projects SET team_id = (team_id + 1) % 4; INSERT INTO team_members VALUES (2, '${ada}')`,
    )
    await database.query(`UPDATE comments SET body = '${kind} 3' WHERE id IN (1, 2, 3, 4, 5, 6)`)
    await assertExact(witness, ben)
    await new Promise(resolve => setTimeout(resolve, 200))
    await reader.come(node)
    const now = await selectAs(database, ada, 'SELECT * FROM comments')
    if (kind === 'live') {
      await reader.until(() => asSet(reader.rows.list()).join() === asSet(now).join())
      expect(reader.resyncs).toEqual([])
    } else {
      const visible = now.filter(({ body }) => body === 'changes 3').map(({ id }) => id)
      await reader.until(
        () => reader.changes.filter(({ new: row }) => row?.body === 'changes 3').length === visible.length,
      )
      expect(reader.changes.some(({ new: row }) => row?.body === 'changes 2')).toBe(false)
    }
    expect(reader.failure).toBe(null)
    await reader.leave()
  }
})

test('[P3] [P5] a changes subscription is owed the events of rows that a grant reaches from the grant on', async () => {
  const reader = new Reader('sse', 'changes', 'comments', await tokenFor(ada))
  await reader.come(node)
  await reader.until(() => reader.position !== null)
  for (let n = 0; n < 20; n++) {
    await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
    await database.query(`INSERT INTO comments VALUES (${1000 + n}, 2, 'granted')`)
    await database.query(
      `BEGIN; DELETE FROM team_members WHERE team_id = 3; INSERT INTO comments VALUES (${2000 + n}, 2, 'revoked'); COMMIT`,
    )
    await database.query(`INSERT INTO comments VALUES (${3000 + n}, 2, 'revoked'), (${4000 + n}, 12, 'own')`)
  }
  const ids = (from: number): unknown[] =>
    reader.changes.map(({ new: row }) => row?.id as number).filter(id => id >= from && id < from + 1000)
  await reader.until(() => ids(4000).length === 20 || reader.failure !== null)
  expect(reader.failure).toBe(null)
  expect(ids(2000)).toEqual([])
  expect(ids(3000)).toEqual([])
  // Owed if they are seen at the commit and still may be when they are sent: the grant may be gone by then.
  expect(new Set(ids(1000)).size).toBe(ids(1000).length)
  await reader.leave()
})
