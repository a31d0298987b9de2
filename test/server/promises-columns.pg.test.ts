// Columns: what a role may not SELECT is nowhere, what a client did not ask for neither.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { ChangeEvent, DeltaEvent, RowChange } from '../../src/protocol/messages.ts'
import { type Position, parsePosition, parseQueryPositions } from '../../src/protocol/position.ts'
import { LiveSse, person, prepareDatabase, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

/** `clerk` may read names, `auditor` the salaries too; `stranger` not even the key. */
const schema = `
  CREATE TABLE people (id int PRIMARY KEY, name text, salary int, note text, team int NOT NULL);
  ALTER TABLE people ENABLE ROW LEVEL SECURITY;
  CREATE POLICY teams ON people FOR SELECT USING (team = (auth.jwt() ->> 'team')::int);
  GRANT USAGE ON SCHEMA public TO PUBLIC;`

let database: TestDatabase
let node: TestNode
/** Roles belong to the server, not to the database: other test files must not meet them. */
const suffix = person().slice(0, 8)
const [clerk, auditor, stranger] = [`clerk_${suffix}`, `auditor_${suffix}`, `stranger_${suffix}`]
const tokens: Record<string, string> = {}

beforeAll(async () => {
  database = await TestDatabase.create()
  for (const role of [clerk, auditor, stranger]) {
    await database.query(`CREATE ROLE ${role}; GRANT ${role} TO CURRENT_USER`)
    tokens[role] = await tokenFor(person(), { role, team: 1 })
  }
  await prepareDatabase(database, schema, ['people'])
  await database.query(
    `GRANT SELECT (id, name, team) ON people TO ${clerk}; GRANT SELECT (id, name, salary) ON people TO ${auditor}; GRANT SELECT (name) ON people TO ${stranger}`,
  )
  node = await TestNode.start(database.url, { JWT_ROLES: [clerk, auditor, stranger].join(','), HEARTBEAT_MS: '200' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  for (const role of [clerk, auditor, stranger]) await database?.query(`DROP OWNED BY ${role}; DROP ROLE ${role}`)
  await database?.[Symbol.asyncDispose]()
})

/** Waits until the stream has passed the transaction. @returns where it committed */
async function passed(txid: string): Promise<Position> {
  const response = await fetch(`${node.url}/v1/wait`, {
    method: 'POST',
    headers: { authorization: `Bearer ${tokens[auditor]}` },
    body: JSON.stringify({ txid }),
  })
  return parsePosition(((await response.json()) as { position: string }).position)!
}

beforeEach(async () => {
  await database.query(`DELETE FROM people`)
  const [row] = await database.query<{ txid: string }>(
    `INSERT INTO people VALUES (1, 'ann', 4711, 'secret', 1), (2, 'bob', 4712, 'secret', 2) RETURNING pg_current_xact_id()::text AS txid`,
  )
  // Changes begin where the stream stands, which may be before a commit that SELECT shows already.
  await passed(row!.txid)
})

const open = async (role: string, query = ''): Promise<LiveSse> =>
  (await LiveSse.open(node, `/v1/live/people${query}`, tokens[role]!)).exact()

const changes = async (role: string, query = ''): Promise<SseStream> => {
  const stream = await SseStream.open(node, `/v1/changes/people${query}`, tokens[role]!)
  await stream.until(({ event }) => event === 'subscribed')
  return stream
}

const deltas = (live: LiveSse): RowChange[] =>
  live.stream.events.filter(({ event }) => event === 'delta').flatMap(({ data }) => (data as DeltaEvent).changes)

/** All that was sent but positions and times, whose digits may be those of a salary. */
const valuesOf = (stream: SseStream): string =>
  JSON.stringify(stream.events.map(({ event, data }) => ({ event, data: { ...(data as object), committedAt: '' } })))

const told = (stream: SseStream): Partial<ChangeEvent>[] =>
  stream.events
    .filter(({ event }) => event === 'change')
    .map(({ data }) => {
      const { op, old, new: next } = data as ChangeEvent
      return { op, ...(old === undefined ? {} : { old }), ...(next === undefined ? {} : { new: next }) }
    })

const history = `
  UPDATE people SET name = 'anna', salary = 4713 WHERE id = 1;
  UPDATE people SET team = 1 WHERE id = 2;
  UPDATE people SET id = 3 WHERE id = 2;
  DELETE FROM people WHERE id = 1`

test('[P2] two roles read different columns of one table: rows, sets, inserts', async () => {
  using his = await open(clerk)
  using hers = await open(auditor)
  expect(his.rows.list()).toEqual([{ id: 1, name: 'ann', team: 1 }])
  expect(hers.rows.list()).toEqual([{ id: 1, name: 'ann', salary: 4711 }])
  for (const statement of history.split(';')) await database.query(statement)
  await database.query(`INSERT INTO people VALUES (9, 'last', 4799, 'secret', 1)`)
  for (const live of [his, hers]) await live.stream.waitFor(() => live.rows.rows.has('[9]'))
  expect(deltas(his)).toEqual([
    { op: 'update', key: { id: 1 }, set: { name: 'anna' } },
    { op: 'insert', key: { id: 2 }, row: { id: 2, name: 'bob', team: 1 } },
    { op: 'delete', key: { id: 2 } },
    { op: 'insert', key: { id: 3 }, row: { id: 3, name: 'bob', team: 1 } },
    { op: 'delete', key: { id: 1 } },
    { op: 'insert', key: { id: 9 }, row: { id: 9, name: 'last', team: 1 } },
  ])
  expect(
    deltas(hers).map(change =>
      'set' in change ? change.set : 'row' in change ? change.row : change.op === 'delete' ? change.key : null,
    ),
  ).toEqual([
    { name: 'anna', salary: 4713 },
    { id: 2, name: 'bob', salary: 4712 },
    { id: 2 },
    { id: 3, name: 'bob', salary: 4712 },
    { id: 1 },
    { id: 9, name: 'last', salary: 4799 },
  ])
  expect(valuesOf(his.stream)).not.toMatch(/47\d\d|secret|salary|note/)
  expect(valuesOf(hers.stream)).not.toMatch(/secret|note|team/)
})

test('[P2] changes carry old and new only as far as the role may SELECT', async () => {
  using his = await changes(clerk)
  using hers = await changes(auditor)
  for (const statement of history.split(';')) await database.query(statement)
  for (const stream of [his, hers]) await stream.until(({ data }) => (data as ChangeEvent).key?.id === 3)
  for (const stream of [his, hers])
    await stream.waitFor(() => told(stream).at(-1)?.op === 'delete' && told(stream).length === 5)
  expect(told(his)).toEqual([
    { op: 'update', old: { id: 1, name: 'ann', team: 1 }, new: { id: 1, name: 'anna', team: 1 } },
    { op: 'insert', new: { id: 2, name: 'bob', team: 1 } },
    { op: 'delete', old: { id: 2, name: 'bob', team: 1 } },
    { op: 'insert', new: { id: 3, name: 'bob', team: 1 } },
    { op: 'delete', old: { id: 1, name: 'anna', team: 1 } },
  ])
  expect(told(hers)[0]).toEqual({
    op: 'update',
    old: { id: 1, name: 'ann', salary: 4711 },
    new: { id: 1, name: 'anna', salary: 4713 },
  })
  expect(valuesOf(his)).not.toMatch(/47\d\d|secret|salary|note/)
  expect(valuesOf(hers)).not.toMatch(/secret|note|team/)
})

test('[P2] [P8] a column that the role may not SELECT is refused in select and in filters as one that does not exist', async () => {
  for (const query of ['?select=id,salary', '?salary=gt.0', '?or=(note.is.null,id.eq.1)', '?select=id,nothing']) {
    const stream = await SseStream.open(node, `/v1/live/people${query}`, tokens[clerk]!)
    expect([stream.status, stream.errorBody.code], query).toEqual([400, 'COLUMN_UNKNOWN'])
  }
  const stream = await SseStream.open(node, '/v1/live/people', tokens[stranger]!)
  expect(stream.errorBody.code).toBe('KEY_NOT_READABLE')
})

test('[P1] a projection shows what it names and the key; what it does not show sends nothing but moves the position', async () => {
  using live = await open(auditor, '?select=name')
  expect(live.rows.list()).toEqual([{ id: 1, name: 'ann' }])
  const [before] = parseQueryPositions(live.stream.lastEventId)!
  const count = live.stream.events.filter(({ event }) => event === 'delta').length
  await database.query(`UPDATE people SET salary = 1, note = 'other' WHERE id = 1`)
  const [row] = await database.query<{ txid: string }>(
    'UPDATE people SET name = name WHERE id = 1 RETURNING pg_current_xact_id()::text AS txid',
  )
  const written = await passed(row!.txid)
  expect(written.lsn).toBeGreaterThan(before!.lsn)
  await live.stream.waitFor(() => {
    const beat = live.stream.events.findLast(({ event }) => event === 'heartbeat')
    const position = beat === undefined ? null : parseQueryPositions(beat.id)
    return position !== null && position[0]!.lsn >= written.lsn
  })
  expect(live.stream.events.filter(({ event }) => event === 'delta').length).toBe(count)
  await database.query(`UPDATE people SET name = 'anna', salary = 2 WHERE id = 1`)
  await live.stream.waitFor(() => live.rows.rows.get('[1]')?.name === 'anna')
  expect(deltas(live)).toEqual([{ op: 'update', key: { id: 1 }, set: { name: 'anna' } }])
})

test('[P3] a column taken away is not sent any more: the subscription goes on without it', async () => {
  using live = await open(auditor)
  await database.query(`REVOKE SELECT (salary) ON people FROM ${auditor}`)
  await live.stream.waitFor(() => live.rows.resyncs.length > 0 && live.rows.exact)
  expect(live.rows.resyncs).toEqual(['POLICY_CHANGED'])
  expect(live.rows.list()).toEqual([{ id: 1, name: 'ann' }])
  await database.query(`GRANT SELECT (salary) ON people TO ${auditor}`)
})

test('[P2] [P5] two roles who read different columns are told the same rows of the same commits, each at its position', async () => {
  using his = await open(clerk)
  using hers = await open(auditor)
  using all = await open(auditor, '?salary=gt.0')
  await database.query(
    `INSERT INTO people SELECT i, 'p' || i, 4720 + i, 'secret', 1 + i % 2 FROM generate_series(10, 19) i`,
  )
  await database.query(`UPDATE people SET team = 3 - team, name = name || '!', salary = salary + 1 WHERE id > 12`)
  await database.query(`DELETE FROM people WHERE id < 15; INSERT INTO people VALUES (99, 'last', 4799, 'secret', 1)`)
  for (const live of [his, hers, all]) await live.stream.waitFor(() => live.rows.rows.has('[99]'))
  const keysOf = (live: LiveSse): string[] => [...live.rows.rows.keys()].sort()
  expect([keysOf(hers), keysOf(all)]).toEqual([keysOf(his), keysOf(his)])
  const commitsOf = (live: LiveSse): unknown[] =>
    live.stream.events
      .filter(({ event }) => event === 'delta')
      .map(({ id, data }) => [
        parseQueryPositions(id)!.map(({ lsn }) => String(lsn)),
        (data as DeltaEvent).changes.map(({ op, ...rest }) => [op, 'key' in rest ? rest.key : null]),
      ])
  expect(commitsOf(hers)).toEqual(commitsOf(his))
  expect(commitsOf(all)).toEqual(commitsOf(his))
  expect(valuesOf(his.stream)).not.toMatch(/47\d\d|secret|salary|note/)
})

test('[P2] [P3] a column taken from one role while both follow: not a value of it is sent after, and the other role notices nothing', async () => {
  using his = await open(clerk)
  using hers = await open(auditor)
  using filtered = await open(auditor, '?salary=gt.0')
  using events = await changes(auditor)
  await database.query(`REVOKE SELECT (salary) ON people FROM ${auditor}`)
  await database.query(`UPDATE people SET name = 'after', salary = 9999 WHERE id = 1`)
  for (const live of [his, hers]) await live.stream.waitFor(() => live.rows.rows.get('[1]')?.name === 'after')
  await filtered.stream.waitFor(() => filtered.stream.ended)
  expect(filtered.stream.events.at(-1)).toMatchObject({ event: 'error', data: { code: 'COLUMN_UNKNOWN' } })
  await database.query(`UPDATE people SET name = 'later', salary = 8888 WHERE id = 1`)
  for (const live of [his, hers]) await live.stream.waitFor(() => live.rows.rows.get('[1]')?.name === 'later')
  await events.waitFor(() => told(events).at(-1)?.new?.name === 'later')
  expect(told(events).at(-1)).toEqual({ op: 'update', old: { id: 1, name: 'after' }, new: { id: 1, name: 'later' } })
  for (const stream of [hers.stream, filtered.stream, events, his.stream])
    expect(valuesOf(stream)).not.toMatch(/9999|8888/)
  expect([his.rows.resyncs, hers.rows.resyncs]).toEqual([[], ['POLICY_CHANGED']])
  expect(hers.rows.list()).toEqual([{ id: 1, name: 'later' }])
  await database.query(`GRANT SELECT (salary) ON people TO ${auditor}`)
})
