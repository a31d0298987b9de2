// What happens around the read of rows that a grant reaches in the middle of a chain: it is slow, it fails, what it was for
// goes away meanwhile. Whoever reaches them waits and is exact in the end; neighbours get their deltas meanwhile.
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader } from '../support/readers.ts'
import { Stalled, until } from '../support/stalled.ts'

const schema = `
  CREATE TABLE team_members (team_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (team_id, user_id));
  CREATE TABLE projects (id int PRIMARY KEY, team_id int);
  CREATE TABLE notes (id int PRIMARY KEY, project_id int, body text);
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON notes USING (EXISTS (SELECT FROM projects p JOIN team_members m ON m.team_id = p.team_id
    WHERE p.id = project_id AND m.user_id = auth.uid()));
  CREATE TABLE tasks (id int PRIMARY KEY, project_id int);
  CREATE TABLE steps (id int PRIMARY KEY, task_id int, body text);
  ALTER TABLE steps ENABLE ROW LEVEL SECURITY;
  CREATE POLICY p ON steps USING (EXISTS (SELECT FROM tasks t JOIN projects p ON p.id = t.project_id
    JOIN team_members m ON m.team_id = p.team_id WHERE t.id = task_id AND m.user_id = auth.uid()));
  GRANT SELECT ON team_members, projects, notes, tasks, steps TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;`
const [ada, ben] = [person(), person()]
let [adaToken, benToken] = ['', '']

let server: LocalPostgres
let database: TestDatabase
let node: TestNode
const open: { close(): void | Promise<void> }[] = []

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, schema, ['team_members', 'projects', 'notes', 'tasks', 'steps'])
  await database.query('SET synchronous_commit = local')
  adaToken = await tokenFor(ada)
  benToken = await tokenFor(ben)
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

/** Teams 1 (hers), 2 (his) and 3 (nobody's) with four projects each, and three notes in each project. */
beforeEach(async () => {
  await database.query('TRUNCATE team_members, projects, notes, tasks, steps')
  await database.query(`
    INSERT INTO team_members VALUES (1, '${ada}'), (2, '${ben}');
    INSERT INTO projects SELECT i, 1 + i % 3 FROM generate_series(1, 12) i;
    INSERT INTO notes SELECT i, 1 + i % 12, 'old' FROM generate_series(1, 36) i;
    INSERT INTO tasks SELECT i, i FROM generate_series(1, 12) i; INSERT INTO steps SELECT i, i, 'old' FROM generate_series(1, 12) i`)
})

afterEach(async () => {
  for (const each of open.splice(0)) await each.close()
  await node?.[Symbol.asyncDispose]()
})

async function start(settings: Record<string, string> = {}): Promise<void> {
  node = await TestNode.start(database.url, {
    AUDIENCE_GRACE_MS: '50',
    MAX_HELD_MS: '30000',
    HEARTBEAT_MS: '300',
    ...settings,
  })
}

async function follow(token: string, table = 'notes'): Promise<LiveSse> {
  const live = await (await LiveSse.open(node, `/v1/live/${table}`, token)).exact()
  open.push(live.stream)
  return live
}

async function followChanges(token: string): Promise<Reader> {
  const reader = new Reader('sse', 'changes', 'notes', token)
  await reader.come(node)
  await reader.until(() => reader.position !== null)
  open.push({ close: () => reader.leave() })
  return reader
}

async function equals(live: LiveSse, sub: string, table = 'notes'): Promise<void> {
  const expected = asSet(await selectAs(database, sub, `SELECT * FROM ${table}`)).join('\n')
  const isSame = (): boolean => asSet(live.rows.list()).join('\n') === expected
  await live.stream.waitFor(() => isSame() || live.failure !== null || live.stream.ended).catch(() => {})
  expect(live.failure).toBe(null)
  expect(asSet(live.rows.list()).join('\n')).toBe(expected)
}

/** Holds a table as a migration does, and perhaps does something to it. */
async function lock(
  table: string,
): Promise<{ release(statement?: string): Promise<void>; [Symbol.asyncDispose](): Promise<void> }> {
  const client = new pg.Client({ connectionString: database.url })
  client.on('error', () => {})
  await client.connect()
  await client.query(`SET synchronous_commit = local; BEGIN; LOCK TABLE ${table} IN ACCESS EXCLUSIVE MODE`)
  return {
    release: async statement => {
      if (statement !== undefined) await client.query(statement)
      await client.query('COMMIT')
    },
    [Symbol.asyncDispose]: () => client.end(),
  }
}

/** A read of a node waits for the table. */
const isWaitedFor = async (table: string): Promise<boolean> =>
  (await database.query(`SELECT FROM pg_locks WHERE NOT granted AND relation = '${table}'::regclass`)).length > 0

const told = (live: LiveSse): number => live.stream.events.filter(({ event }) => event === 'delta').length

/** He gets what is written, she nothing. */
async function onlyHeGoesOn(his: LiveSse, hers: LiveSse): Promise<void> {
  const before = told(hers)
  for (let id = 1000; id < 1005; id++) {
    // Project 1 is of team 2, project 3 of team 1.
    await database.query(`INSERT INTO notes VALUES (${id}, 1, 'meanwhile'), (${id + 100}, 3, 'meanwhile')`)
    await his.stream.waitFor(() => his.rows.rows.has(`[${id}]`))
  }
  expect(told(hers)).toBe(before)
}

test('[P7] while rows that a grant reaches cannot be read, only who reaches them waits, and is exact when they can', async () => {
  await start()
  const [hers, his, events] = [await follow(adaToken), await follow(benToken), await followChanges(adaToken)]
  await using locker = await lock('projects')
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
  await until(() => isWaitedFor('projects'))
  await onlyHeGoesOn(his, hers)
  // Project 2 is of team 3: granted, and its events are owed from the grant on.
  await database.query(`INSERT INTO notes VALUES (2000, 2, 'granted')`)
  expect(events.changes).toEqual([])
  await locker.release()
  await equals(hers, ada)
  await equals(his, ben)
  await events.until(() => events.changes.length === 6)
  expect(events.changes.map(({ key }) => key?.id)).toEqual([1100, 1101, 1102, 1103, 1104, 2000])
  for (const live of [hers, his]) expect(live.rows.resyncs).toEqual([])
})

test('[P7] over several hops too, only those wait whose own chain leads to what cannot be read', async () => {
  await start()
  const [hers, his] = [await follow(adaToken, 'steps'), await follow(benToken, 'steps')]
  await using locker = await lock('tasks')
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
  await until(() => isWaitedFor('tasks'))
  // He is granted a team without projects: there is nothing to wait for.
  await database.query(`INSERT INTO team_members VALUES (9, '${ben}')`)
  // Task 1 is of team 2, task 3 of team 1, task 2 of team 3.
  for (let id = 1000; id < 1005; id++) {
    await database.query(
      `INSERT INTO steps VALUES (${id}, 1, 'his'), (${id + 100}, 3, 'hers'), (${id + 200}, 2, 'granted')`,
    )
    await his.stream.waitFor(() => his.rows.rows.has(`[${id}]`))
  }
  expect(told(hers)).toBe(0)
  await locker.release()
  await equals(hers, ada, 'steps')
  await equals(his, ben, 'steps')
  for (const live of [hers, his]) expect(live.rows.resyncs).toEqual([])
})

test('[P7] past MAX_HELD_MS who reaches what cannot be read starts over, and waits for it', async () => {
  await start({ MAX_HELD_MS: '300' })
  const [hers, his] = [await follow(adaToken), await follow(benToken)]
  await using locker = await lock('projects')
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
  await hers.stream.waitFor(() => hers.rows.resyncs.length === 1)
  await database.query(`INSERT INTO notes VALUES (1000, 1, 'meanwhile'), (2000, 2, 'granted')`)
  await his.stream.waitFor(() => his.rows.rows.has('[1000]'))
  await locker.release()
  await hers.exact()
  await equals(hers, ada)
  await equals(his, ben)
  expect([hers.rows.resyncs, his.rows.resyncs]).toEqual([['INPUTS_CHANGED'], []])
})

test('[P4] the sessions that read what a grant reaches are cut off again and again: it recovers exactly', async () => {
  await start()
  const [hers, his] = [await follow(adaToken), await follow(benToken)]
  await using locker = await lock('projects')
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
  for (let i = 0; i < 3; i++) {
    await until(() => isWaitedFor('projects'))
    await database.query(
      `SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted AND relation = 'projects'::regclass`,
    )
  }
  await onlyHeGoesOn(his, hers)
  await locker.release()
  await equals(hers, ada)
  await equals(his, ben)
  for (const live of [hers, his]) expect(live.rows.resyncs).toEqual([])
})

test('[P3] a grant that is revoked while what it reaches is read shows nothing', async () => {
  await start()
  const [hers, his, events] = [await follow(adaToken), await follow(benToken), await followChanges(adaToken)]
  await using locker = await lock('projects')
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
  await until(() => isWaitedFor('projects'))
  await database.query(`INSERT INTO notes VALUES (2000, 2, 'hidden')`)
  await database.query(
    `BEGIN; DELETE FROM team_members WHERE team_id = 3; INSERT INTO notes VALUES (2001, 2, 'hidden'); COMMIT`,
  )
  // Rows that nobody is granted any more are not waited for; what happened between is not judged without them.
  await database.query(`INSERT INTO notes VALUES (1000, 1, 'his'), (1100, 3, 'hers')`)
  await his.stream.waitFor(() => his.rows.rows.has('[1000]'))
  await hers.stream.waitFor(() => hers.rows.rows.has('[1100]'))
  await locker.release()
  await events.until(() => events.changes.some(({ key }) => key?.id === 1100))
  await equals(hers, ada)
  await equals(his, ben)
  await database.query(`INSERT INTO notes VALUES (3000, 3, 'hers'), (3001, 2, 'hidden')`)
  await hers.stream.waitFor(() => hers.rows.rows.has('[3000]'))
  await events.until(() => events.changes.some(({ key }) => key?.id === 3000))
  expect(JSON.stringify([hers.stream.events, events.events])).not.toContain('hidden')
  expect(hers.rows.resyncs).toEqual([])
})

test('[P7] a reader who leaves while what it reaches is read leaves nothing behind', async () => {
  await start()
  const his = await follow(benToken)
  const holdings = node.server.holdings()
  for (const isGranted of [true, false]) {
    const hers = isGranted ? await follow(adaToken) : null
    await using locker = await lock('projects')
    if (isGranted) await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
    const opening = isGranted ? null : LiveSse.open(node, '/v1/live/notes', await tokenFor(ada))
    await until(() => isWaitedFor('projects'))
    hers?.stream.close()
    void opening?.then(live => live.stream.close())
    await database.query(`INSERT INTO notes VALUES (${isGranted ? 1000 : 1001}, 1, 'meanwhile')`)
    await his.stream.waitFor(() => his.rows.rows.has(isGranted ? '[1000]' : '[1001]'))
    await locker.release()
    await until(() => JSON.stringify(node.server.holdings()) === JSON.stringify(holdings)).catch(() => {})
    expect(node.server.holdings()).toEqual(holdings)
  }
  await equals(his, ben)
})

test('[P1] [P3] a commit in the middle that no SELECT sees yet, while what a grant reaches is read, counts all the same', async () => {
  await start()
  const [hers, his] = [await follow(adaToken), await follow(benToken)]
  {
    await using stalled = await Stalled.begin(database.url)
    // Away from team 3, into it, and from hers into his, before she is granted the team.
    await stalled.commit(
      `UPDATE projects SET team_id = 2 WHERE id = 2; UPDATE projects SET team_id = 3 WHERE id = 1;
       UPDATE projects SET team_id = 2 WHERE id = 3; DELETE FROM projects WHERE id = 5; INSERT INTO projects VALUES (50, 3);
       INSERT INTO notes VALUES (500, 50, 'new')`,
    )
    await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
    await database.query(
      `INSERT INTO notes VALUES (1000, 1, 'now hers'), (1001, 2, 'now his'), (1002, 5, 'nobody is told')`,
    )
    await hers.stream.waitFor(() => hers.rows.rows.has('[1000]'))
    await his.stream.waitFor(() => his.rows.rows.has('[1001]'))
  }
  await equals(hers, ada)
  await equals(his, ben)
  expect(JSON.stringify([hers.stream.events, his.stream.events])).not.toContain('nobody is told')
  for (const live of [hers, his]) expect(live.rows.resyncs).toEqual([])
})

test('[P1] what a reader reached before is forgotten while a hold still looks back to it: it is read again', async () => {
  await start({ AUDIENCE_GRACE_MS: '0' })
  const [hers, his] = [await follow(adaToken), await follow(benToken)]
  await using locker = await lock('notes')
  await database.query(`UPDATE team_members SET team_id = 3 WHERE user_id = '${ada}'`)
  await until(() => isWaitedFor('notes'))
  // Held or not: what changes there meanwhile is undone where the hold begins.
  await database.query(`UPDATE projects SET team_id = 3 WHERE id = 3; UPDATE projects SET team_id = 1 WHERE id = 2`)
  await database.query(`INSERT INTO team_members VALUES (9, '${person()}')`)
  await locker.release()
  await equals(hers, ada)
  await equals(his, ben)
  for (const live of [hers, his]) expect(live.rows.resyncs).toEqual([])
})

test('[P1] [P8] a table in the middle that gets a column while it is read: who follows is told to come back, and is exact', async () => {
  await start()
  const [hers, his] = [await follow(adaToken), await follow(benToken)]
  await using locker = await lock('projects')
  await database.query(`INSERT INTO team_members VALUES (3, '${ada}')`)
  await until(() => isWaitedFor('projects'))
  await locker.release(
    `ALTER TABLE projects ADD COLUMN name text; UPDATE projects SET name = 'x', team_id = 3 WHERE id = 1`,
  )
  for (const [live, user, token] of [
    [hers, ada, adaToken],
    [his, ben, benToken],
  ] as const) {
    let now = live
    await until(async () => {
      if (now.stream.ended) now = await LiveSse.open(node, '/v1/live/notes', token, now)
      const expected = asSet(await selectAs(database, user, 'SELECT * FROM notes')).join()
      return now.rows.exact && asSet(now.rows.list()).join() === expected
    })
    open.push(now.stream)
    expect(now.failure).toBe(null)
    await database.query(
      `UPDATE projects SET team_id = team_id WHERE id = 2; UPDATE projects SET team_id = 1 + team_id % 3 WHERE id > 6`,
    )
    await equals(now, user)
  }
  await database.query('ALTER TABLE projects DROP COLUMN name')
})
