// What of the middle of a chain may be held: whoever reaches past a bound is told so by its code, neighbours notice nothing.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, SseStream, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { until } from '../support/stalled.ts'

const schema = `
  CREATE TABLE team_members (team_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (team_id, user_id));
  CREATE TABLE projects (id int PRIMARY KEY, team_id int, rank text NOT NULL DEFAULT '1');
  CREATE TABLE notes (id int PRIMARY KEY, project_id int, body text);
  CREATE TABLE ranked (id int PRIMARY KEY, project_id int, body text);
  CREATE TABLE tasks (id int PRIMARY KEY, project_id int);
  CREATE TABLE steps (id int PRIMARY KEY, task_id int, body text);
  ALTER TABLE steps ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON steps USING (EXISTS (SELECT FROM tasks t JOIN projects p ON p.id = t.project_id
    JOIN team_members m ON m.team_id = p.team_id WHERE t.id = task_id AND m.user_id = auth.uid()));
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  ALTER TABLE ranked ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON notes USING (EXISTS (SELECT FROM projects p JOIN team_members m ON m.team_id = p.team_id
    WHERE p.id = project_id AND m.user_id = auth.uid()));
  CREATE POLICY p ON ranked USING (EXISTS (SELECT FROM projects p JOIN team_members m ON m.team_id = p.team_id
    WHERE p.id = project_id AND m.user_id = auth.uid() AND p.rank::int > 0));
  GRANT SELECT ON team_members, projects, notes, ranked, tasks, steps TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;`
const [ada, ben] = [person(), person()]
let [adaToken, benToken] = ['', '']

let database: TestDatabase
let node: TestNode
const open: { stream: SseStream }[] = []

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['team_members', 'projects', 'notes', 'ranked', 'tasks', 'steps'])
  adaToken = await tokenFor(ada)
  benToken = await tokenFor(ben)
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
})

/** Teams 1 and 2 with two projects each; team 3 has thirty, and nobody in it. */
beforeEach(async () => {
  await database.query('TRUNCATE team_members, projects, notes, ranked, tasks, steps')
  await database.query(`
    INSERT INTO team_members VALUES (1, '${ada}'), (2, '${ben}');
    INSERT INTO projects VALUES (1, 1), (2, 1), (3, 2), (4, 2);
    INSERT INTO projects SELECT 100 + i, 3 FROM generate_series(1, 30) i;
    INSERT INTO notes SELECT i, i, 'old' FROM generate_series(1, 4) i;
    INSERT INTO notes SELECT 100 + i, 100 + i, 'old' FROM generate_series(1, 30) i;
    INSERT INTO ranked SELECT * FROM notes`)
})

afterEach(async () => {
  for (const { stream } of open.splice(0)) stream.close()
  await node?.[Symbol.asyncDispose]()
})

async function start(settings: Record<string, string>): Promise<void> {
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '50', MAX_HELD_MS: '20000', ...settings })
}

async function follow(token: string, table = 'notes'): Promise<LiveSse> {
  const live = await LiveSse.open(node, `/v1/live/${table}`, token)
  open.push(live)
  await live.stream.waitFor(() => live.rows.exact || live.stream.ended || codeOf(live) !== undefined)
  return live
}

/** What it was refused or ended with. */
function codeOf({ stream }: { stream: SseStream }): string | undefined {
  const error = stream.events.find(({ event }) => event === 'error')
  return stream.errorBody.code ?? (error?.data as { code: string } | undefined)?.code
}

async function ended(live: { stream: SseStream }): Promise<string | undefined> {
  await live.stream.waitFor(() => codeOf(live) !== undefined)
  return codeOf(live)
}

async function equals(live: LiveSse, sub: string, table = 'notes'): Promise<void> {
  const expected = asSet(await selectAs(database, sub, `SELECT * FROM ${table}`)).join('\n')
  const isSame = (): boolean => asSet(live.rows.list()).join('\n') === expected
  await live.stream.waitFor(() => isSame() || live.failure !== null || live.stream.ended).catch(() => {})
  expect([live.failure, codeOf(live)]).toEqual([null, undefined])
  expect(asSet(live.rows.list()).join('\n')).toBe(expected)
}

/** Asks until it is let in, as a client does. */
async function letIn(token: string): Promise<LiveSse> {
  let live = await follow(token)
  await until(async () => {
    if (codeOf(live) === undefined) return true
    live = await follow(token)
    return false
  })
  return live
}

/** Nothing was told it but snapshots and deltas. */
const isUndisturbed = (live: LiveSse): boolean => live.rows.resyncs.length === 0 && codeOf(live) === undefined

test('[P7] past MEMBERSHIP_INDEX_MAX_ROWS new subscriptions are refused by a code, those that stand stay exact, and others come in when readers have left', async () => {
  await start({ MEMBERSHIP_INDEX_MAX_ROWS: '7' })
  const carl = person()
  await database.query(`INSERT INTO team_members VALUES (1, '${carl}')`)
  const carlToken = await tokenFor(carl)
  const hers = await follow(adaToken)
  const his = await follow(benToken)
  await equals(hers, ada)
  expect(codeOf(await follow(carlToken))).toBe('INDEX_FULL')
  // What the stream brings to those who stand is held all the same.
  await database.query(
    `INSERT INTO projects VALUES (5, 1), (6, 2); INSERT INTO notes VALUES (5, 5, 'new'), (6, 6, 'new')`,
  )
  await database.query(`UPDATE projects SET team_id = 3 - team_id WHERE id IN (1, 3)`)
  await equals(hers, ada)
  await equals(his, ben)
  expect([hers, his].map(isUndisturbed)).toEqual([true, true])
  hers.stream.close()
  his.stream.close()
  await equals(await letIn(carlToken), carl)
})

test('[P7] a grant that reaches more than the index has room for ends who was granted, and no neighbour', async () => {
  await start({ MEMBERSHIP_INDEX_MAX_ROWS: '20' })
  const hers = await follow(adaToken)
  const his = await follow(benToken)
  const events = await SseStream.open(node, '/v1/changes/notes', adaToken)
  open.push({ stream: events })
  // In one commit, so that what both reach is asked for together.
  await database.query(`INSERT INTO projects VALUES (50, 4); INSERT INTO notes VALUES (50, 50, 'his too')`)
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}'), (4, '${ben}')`)
  expect(await ended(hers)).toBe('INDEX_FULL')
  expect(await ended({ stream: events })).toBe('INDEX_FULL')
  await equals(his, ben)
  expect(isUndisturbed(his)).toBe(true)
})

test('[P8] who was ended because the index was full is let in again as soon as there is room, however often it asked meanwhile', async () => {
  await start({ MEMBERSHIP_INDEX_MAX_ROWS: '20', AUDIENCE_GRACE_MS: '2000' })
  const hers = await follow(adaToken)
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
  expect(await ended(hers)).toBe('INDEX_FULL')
  expect(codeOf(await follow(adaToken))).toBe('INDEX_FULL')
  await database.query(`DELETE FROM projects WHERE id > 105`)
  await equals(await letIn(adaToken), ada)
})

test('[P7] whoever reaches more rows than MEMBERSHIP_MAX_ROWS in the middle is refused, or ended by the grant, live and changes, and no neighbour', async () => {
  await start({ MEMBERSHIP_MAX_ROWS: '10' })
  const his = await follow(benToken)
  const hers = await follow(adaToken)
  const events = await SseStream.open(node, '/v1/changes/notes', adaToken)
  open.push({ stream: events })
  const carl = person()
  await database.query(`INSERT INTO projects VALUES (50, 4); INSERT INTO notes VALUES (50, 50, 'his too')`)
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}'), (3, '${carl}'), (4, '${ben}')`)
  expect(await ended(hers)).toBe('MEMBERSHIP_TOO_LARGE')
  expect(await ended({ stream: events })).toBe('MEMBERSHIP_TOO_LARGE')
  expect(codeOf(await follow(await tokenFor(carl)))).toBe('MEMBERSHIP_TOO_LARGE')
  await equals(his, ben)
  expect(isUndisturbed(his)).toBe(true)
  // Teams that grow past it while they are followed, too.
  await database.query(`INSERT INTO projects SELECT 200 + i, 4 FROM generate_series(1, 9) i`)
  await equals(his, ben)
  const other = person()
  await database.query(`INSERT INTO team_members VALUES (2, '${other}')`)
  const others = await follow(await tokenFor(other))
  await database.query(
    `BEGIN; INSERT INTO projects VALUES (210, 4); INSERT INTO notes VALUES (51, 50, 'too many'), (52, 3, 'his'); COMMIT`,
  )
  expect(await ended(his)).toBe('MEMBERSHIP_TOO_LARGE')
  await equals(others, other)
  expect(isUndisturbed(others)).toBe(true)
  expect(JSON.stringify(his.stream.events)).not.toContain('too many')
  // Within the bound again, it is read anew.
  await database.query(`DELETE FROM projects WHERE id > 200`)
  await database.query(`DELETE FROM projects WHERE id > 105`)
  await equals(await follow(await tokenFor(carl)), carl)
  await equals(await follow(adaToken), ada)
  await equals(await follow(benToken), ben)
})

test('[P7] [P8] a row in the middle that cannot be judged ends those who reach it, and neighbours notice nothing', async () => {
  await start({})
  const his = await follow(benToken, 'ranked')
  await equals(his, ben, 'ranked')
  // Where it is read.
  await database.query(`UPDATE projects SET rank = 'first' WHERE id = 1`)
  expect(codeOf(await follow(adaToken, 'ranked'))).toBe('CLAIM_INVALID')
  await database.query(`INSERT INTO ranked VALUES (1000, 3, 'his')`)
  await his.stream.waitFor(() => his.rows.rows.has('[1000]'))
  // Where it comes by the stream: also one that nobody reaches.
  await database.query(`UPDATE projects SET rank = '1' WHERE id = 1`)
  const hers = await follow(adaToken, 'ranked')
  await equals(hers, ada, 'ranked')
  await database.query(`UPDATE projects SET rank = 'none' WHERE id = 101`)
  await database.query(`INSERT INTO ranked VALUES (1001, 3, 'his'), (1002, 1, 'hers')`)
  await his.stream.waitFor(() => his.rows.rows.has('[1001]'))
  await hers.stream.waitFor(() => hers.rows.rows.has('[1002]'))
  await database.query(
    `BEGIN; UPDATE projects SET rank = 'none' WHERE id = 2; INSERT INTO ranked VALUES (1003, 3, 'his'), (1004, 1, 'hers'); COMMIT`,
  )
  expect(await ended(hers)).toBe('CLAIM_INVALID')
  await his.stream.waitFor(() => his.rows.rows.has('[1003]'))
  expect(JSON.stringify(hers.stream.events)).not.toContain('1004')
  expect(isUndisturbed(his)).toBe(true)
  await database.query(`UPDATE projects SET rank = '1'`)
  await equals(await follow(adaToken, 'ranked'), ada, 'ranked')
  await equals(his, ben, 'ranked')
})

test('[P7] over several hops too, a bound ends only those whose own chain leads to it', async () => {
  await start({ MEMBERSHIP_MAX_ROWS: '10' })
  await database.query(`
    INSERT INTO tasks SELECT i, i FROM generate_series(1, 4) i;
    INSERT INTO tasks SELECT 100 + i, 105 FROM generate_series(1, 20) i;
    INSERT INTO steps SELECT id, id, 'old' FROM tasks; INSERT INTO projects VALUES (50, 4), (51, 5), (105, 5) ON CONFLICT DO NOTHING;
    UPDATE projects SET team_id = 5 WHERE id = 105; INSERT INTO tasks VALUES (50, 50); INSERT INTO steps VALUES (50, 50, 'his too')`)
  const carl = person()
  await database.query(`INSERT INTO team_members VALUES (1, '${carl}')`)
  const [hers, his, carls] = [
    await follow(adaToken, 'steps'),
    await follow(benToken, 'steps'),
    await follow(await tokenFor(carl), 'steps'),
  ]
  await database.query(`INSERT INTO team_members VALUES (5, '${ada}'), (4, '${ben}'), (9, '${carl}')`)
  expect(await ended(hers)).toBe('MEMBERSHIP_TOO_LARGE')
  await database.query(`INSERT INTO steps VALUES (1000, 1, 'next'), (1001, 3, 'next'), (1002, 50, 'next')`)
  await equals(his, ben, 'steps')
  await equals(carls, carl, 'steps')
  // Tasks of a project that is followed: past the bound they end those of its team.
  await database.query(
    `BEGIN; INSERT INTO tasks SELECT 200 + i, 50 FROM generate_series(1, 12) i; INSERT INTO steps VALUES (1003, 1, 'last'); COMMIT`,
  )
  expect(await ended(his)).toBe('MEMBERSHIP_TOO_LARGE')
  await equals(carls, carl, 'steps')
  expect(isUndisturbed(carls)).toBe(true)
})
