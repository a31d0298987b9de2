// The snapshot joins the stream when the two disagree: commits that are in the stream and that no SELECT can see yet.
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import type { JsonRow } from '../../src/protocol/messages.ts'
import { parseQueryPositions } from '../../src/protocol/position.ts'
import { asSet, LiveSse, person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader } from '../support/readers.ts'
import { Stalled, until } from '../support/stalled.ts'

let server: LocalPostgres
let database: TestDatabase
let node: TestNode
let stalled: Stalled | null = null
const [ada, ben] = [person(), person()]
let token: string
const settings = { SNAPSHOT_CHUNK_ROWS: '3', AUDIENCE_GRACE_MS: '0', SLOT_MAX_BYTES: '268435456' }

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { max_prepared_transactions: '10', fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query('SET synchronous_commit = local')
  node = await TestNode.start(database.url, settings)
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

beforeEach(async () => {
  await database.query('TRUNCATE public.rooms, public.members, public.messages')
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}'), (3, '${ada}'), (2, '${ben}')`)
  await database.query(`INSERT INTO messages SELECT i, 1 + i % 4, 'w', 'row ' || i FROM generate_series(1, 24) i`)
})

afterEach(async () => {
  await stalled?.[Symbol.asyncDispose]()
  stalled = null
})

const messages = (query = ''): Promise<LiveSse> => LiveSse.open(node, `/v1/live/messages${query}`, token)
const truth = (where = 'true'): Promise<JsonRow[]> => selectAs(database, ada, `SELECT * FROM messages WHERE ${where}`)

async function equals(live: LiveSse, where = 'true'): Promise<void> {
  const expected = asSet(await truth(where))
  await live.stream
    .waitFor(() => asSet(live.rows.list()).join() === expected.join() || live.failure !== null)
    .catch(() => {})
  expect(live.failure).toBe(null)
  expect(asSet(live.rows.list())).toEqual(expected)
}

/** Nothing but what this later commit does may come any more. */
async function onlyLaterCommitsFollow(live: LiveSse, where = 'true'): Promise<void> {
  const before = live.stream.events.length
  await database.query(`INSERT INTO messages VALUES (900, 3, 'later', 'row later')`)
  await equals(live, where)
  const deltas = live.stream.events.slice(before).filter(({ event }) => event !== 'heartbeat')
  expect(deltas.map(({ event }) => event)).toEqual(['delta'])
}

const grant = `INSERT INTO members (room_id, user_id) VALUES (2, '${ada}')`
const revocation = `DELETE FROM members WHERE room_id = 1 AND user_id = '${ada}'`

/** Each inner list is one transaction whose commit stalls; it keeps its locks, so two of them never touch one row. */
const histories: [string, string[][]][] = [
  [
    'inserts',
    [[`INSERT INTO messages VALUES (30, 1, 'w', 'new')`], [`INSERT INTO messages VALUES (31, 2, 'w', 'hidden')`]],
  ],
  [
    'updates',
    [[`UPDATE messages SET body = 'changed' WHERE id = 4`], [`UPDATE messages SET body = 'changed' WHERE id = 1`]],
  ],
  ['deletes', [['DELETE FROM messages WHERE id = 4'], ['DELETE FROM messages WHERE id > 20']]],
  [
    'changed keys',
    [['UPDATE messages SET id = 104 WHERE id = 4'], ['UPDATE messages SET id = id + 200 WHERE id > 20']],
  ],
  [
    'moves between rooms',
    [['UPDATE messages SET room_id = 2 WHERE id = 4'], ['UPDATE messages SET room_id = 1 WHERE id = 5']],
  ],
  ['a grant', [[grant]]],
  ['a revocation', [[revocation]]],
  ['a grant, then a row under it', [[grant], [`INSERT INTO messages VALUES (30, 2, 'w', 'granted')`]]],
  ['a row, then the grant of its room', [[`INSERT INTO messages VALUES (30, 2, 'w', 'granted')`], [grant]]],
  ['a revocation, then the message it hides', [[revocation], [`INSERT INTO messages VALUES (30, 1, 'w', 'secret')`]]],
  ['a grant and a revocation', [[grant], [revocation], ['UPDATE messages SET room_id = 1 WHERE room_id = 2']]],
  [
    'a membership that moves',
    [[`UPDATE members SET room_id = 4 WHERE room_id = 1`], [`UPDATE messages SET room_id = 4 WHERE id = 4`]],
  ],
  [
    'a delete of what another inserted under the key',
    [['DELETE FROM messages WHERE id = 4', `INSERT INTO messages VALUES (4, 2, 'w', 'x'), (32, 3, 'w', 'y')`]],
  ],
  [
    'savepoints',
    [
      [
        `SAVEPOINT a; INSERT INTO messages VALUES (30, 1, 'w', 'kept'); SAVEPOINT b; DELETE FROM messages WHERE id = 4; ROLLBACK TO b; UPDATE messages SET body = 'sub' WHERE id = 8; RELEASE a`,
      ],
    ],
  ],
]

test.each(histories)(
  '[P1] [P3] a live query that begins while %s stall is the stream, exactly once',
  async (_, transactions) => {
    stalled = await Stalled.begin(database.url)
    for (const statements of transactions) await stalled.commit(...statements)
    using live = await (await messages()).exact()
    const atFirst = asSet(live.rows.list())
    await stalled.release()
    expect(atFirst).toEqual(asSet(await truth()))
    await onlyLaterCommitsFollow(live)
    expect(live.rows.resyncs).toEqual([])
  },
)

test.each(histories)(
  '[P1] [P3] a live query that stands follows %s before any SELECT can see them',
  async (_, transactions) => {
    using live = await (await messages()).exact()
    stalled = await Stalled.begin(database.url)
    for (const statements of transactions) await stalled.commit(...statements)
    // A mark of our own, behind them in the stream.
    await database.query(`INSERT INTO messages VALUES (800, 3, 'mark', 'mark')`)
    await live.stream.waitFor(() => live.rows.rows.has('[800]'))
    const during = asSet(live.rows.list())
    await stalled.release()
    expect(during).toEqual(asSet(await truth()))
    await onlyLaterCommitsFollow(live)
    expect(live.rows.resyncs).toEqual([])
  },
)

test.each(histories)('[P4] a client that comes back while %s stall gets the difference', async (_, transactions) => {
  let live = await (await messages()).exact()
  live.stream.close()
  stalled = await Stalled.begin(database.url)
  for (const statements of transactions) await stalled.commit(...statements)
  await database.query(`INSERT INTO messages VALUES (800, 3, 'mark', 'mark')`)
  live = await LiveSse.open(node, '/v1/live/messages', token, live)
  await live.stream.waitFor(() => live.rows.rows.has('[800]'))
  const during = asSet(live.rows.list())
  await stalled.release()
  expect(during).toEqual(asSet(await truth()))
  await onlyLaterCommitsFollow(live)
  expect(live.rows.resyncs).toEqual([])
  live.stream.close()
})

test.each([
  [
    'TRUNCATE of the rows',
    ['TRUNCATE messages', `INSERT INTO messages VALUES (4, 1, 'w', 'after'), (5, 1, 'w', 'after')`],
  ],
  ['TRUNCATE of the memberships', ['TRUNCATE members', `INSERT INTO members VALUES (2, '${ada}'), (3, '${ada}')`]],
])('[P1] a live query that begins behind a stalled %s is exact once it can be read', async (_, statements) => {
  stalled = await Stalled.begin(database.url)
  await stalled.commit(...statements)
  const opening = messages()
  // The reader's SELECT, or the load of its memberships, waits for the lock under a snapshot from before.
  await until(
    async () => (await database.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'`)).length > 0,
  )
  await stalled.release()
  using live = await (await opening).exact()
  await equals(live)
  await onlyLaterCommitsFollow(live)
})

test('[P1] rows read behind the lock of a TRUNCATE, empty whatever their snapshot sees, are not stamped before it', async () => {
  const writer = new pg.Client({ connectionString: database.url })
  await writer.connect()
  await writer.query(`BEGIN; TRUNCATE messages; INSERT INTO messages VALUES (5, 1, 'w', 'after')`)
  const opening = messages()
  await until(
    async () => (await database.query(`SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'`)).length > 0,
  )
  await writer.query('COMMIT')
  await writer.end()
  using live = await (await opening).exact()
  expect(asSet(live.rows.list())).toEqual(asSet(await truth()))
  await onlyLaterCommitsFollow(live)
})

test('[P4] changes subscribers are told of invisible commits once, and of none again after they are seen', async () => {
  const changes = new Reader('websocket', 'changes', 'messages', token)
  await changes.come(node)
  // It is told of what commits after it stands: once it hears of one mark, it hears of the next.
  for (let id = 700; changes.changes.length === 0; id++)
    await database.query(`INSERT INTO messages VALUES (${id}, 1, 'mark', 'mark')`)
  await database.query(`INSERT INTO messages VALUES (600, 1, 'mark', 'mark')`)
  await changes.until(() => changes.changes.some(({ key }) => key!.id === 600))
  const from = changes.changes.length
  stalled = await Stalled.begin(database.url)
  await stalled.commit(`INSERT INTO messages VALUES (40, 1, 'w', 'one')`)
  await stalled.commit(`INSERT INTO messages VALUES (41, 2, 'w', 'not hers')`)
  await stalled.commit(`UPDATE messages SET body = 'two' WHERE id = 4`)
  await changes.until(() => changes.changes.length >= from + 2)
  const second = new Reader('sse', 'changes', 'messages', token)
  second.position = changes.position
  await second.come(node)
  await stalled.release()
  await database.query(`DELETE FROM messages WHERE id = 8`)
  await second.until(() => second.changes.length > 0)
  await changes.until(() => changes.changes.length >= from + 3)
  expect(changes.changes.slice(from).map(({ op, key }) => `${op} ${key!.id}`)).toEqual([
    'insert 40',
    'update 4',
    'delete 8',
  ])
  expect(second.changes.map(({ op, key }) => `${op} ${key!.id}`)).toEqual(['delete 8'])
  for (const reader of [changes, second]) await reader.leave()
})

test('[P1] memberships loaded while their rows are stalled decide as the stream does', async () => {
  stalled = await Stalled.begin(database.url)
  await stalled.commit(grant)
  await stalled.commit(revocation)
  // Nobody has read as ada since the grace of her last audience ended: the set is loaded now.
  using live = await (await messages('?body=like.row*')).exact()
  await database.query(`INSERT INTO messages VALUES (50, 2, 'w', 'row of room 2'), (51, 1, 'w', 'row of room 1')`)
  await live.stream.waitFor(() => live.rows.rows.has('[50]'))
  const during = asSet(live.rows.list())
  await stalled.release()
  expect(during).toEqual(asSet(await truth(`body LIKE 'row%'`)))
  expect(live.rows.rows.has('[51]')).toBe(false)
})

test('[P1] rows prepared by two-phase commit appear with COMMIT PREPARED and not before', async () => {
  await database.query(
    `BEGIN; INSERT INTO messages VALUES (60, 1, 'w', 'prepared'); DELETE FROM messages WHERE id = 4; PREPARE TRANSACTION 'one'`,
  )
  using early = await (await messages()).exact()
  expect(early.rows.rows.has('[60]')).toBe(false)
  expect(early.rows.rows.has('[4]')).toBe(true)
  const later = [early]
  const committed = database.query(`COMMIT PREPARED 'one'`)
  for (let i = 0; i < 5; i++) later.push(await (await messages()).exact())
  await committed
  for (const live of later) {
    await equals(live)
    live.stream.close()
  }
})

test('[P6] one idle writer holds back neither the ring nor the acknowledgement, which never passes an invisible commit', {
  timeout: 60_000,
}, async () => {
  await node[Symbol.asyncDispose]()
  // A window of nothing: whatever is visible is acknowledged at once.
  node = await TestNode.start(database.url, {
    ...settings,
    WINDOW_MAX_AGE_MS: '0',
    RING_MAX_BYTES: '4096',
    BEACON_MS: '200',
  })
  const idle = new pg.Client({ connectionString: database.url })
  await idle.connect()
  await idle.query(`BEGIN; INSERT INTO messages VALUES (70, 2, 'idle', 'idle')`)
  const confirmed = async (): Promise<bigint> => {
    const [row] = await database.query<{ at: string }>(
      `SELECT confirmed_flush_lsn - '0/0' AS at FROM pg_replication_slots WHERE database = current_database()`,
    )
    return BigInt(row!.at)
  }
  const written = async (): Promise<bigint> =>
    BigInt((await database.query<{ at: string }>(`SELECT pg_current_wal_insert_lsn() - '0/0' AS at`))[0]!.at)
  await database.query(`INSERT INTO messages SELECT i, 1, 'bulk', repeat('x', 200) FROM generate_series(1000, 1200) i`)
  const first = await written()
  await until(async () => (await confirmed()) >= first)
  // The commits above exceed the ring's bound: a snapshot is taken all the same, because they have left it.
  using live = await (await messages('?id=lt.1000')).exact()
  expect(live.stream.errorBody).toEqual({})

  stalled = await Stalled.begin(database.url)
  await stalled.commit(`INSERT INTO messages VALUES (71, 1, 'w', 'stalled')`)
  await live.stream.waitFor(() => live.rows.rows.has('[71]'))
  const stalledAt = parseQueryPositions(live.stream.lastEventId)![0]!.lsn
  await database.query(`INSERT INTO messages VALUES (72, 1, 'w', 'visible')`)
  await live.stream.waitFor(() => live.rows.rows.has('[72]'))
  // Heartbeats go on, the window is empty, and still the slot stays before the commit that no SELECT sees.
  for (let i = 0; i < 30; i++) {
    await database.query(`INSERT INTO messages VALUES (${2000 + i}, 1, 'w', 'visible')`)
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  expect(await confirmed()).toBeLessThanOrEqual(stalledAt)

  await node[Symbol.asyncDispose]()
  node = await TestNode.start(database.url, settings)
  using again = await (await messages('?id=lt.1000')).exact()
  const during = asSet(again.rows.list())
  await idle.query('ROLLBACK')
  await idle.end()
  await stalled.release()
  expect(during).toEqual(asSet(await truth('id < 1000')))
})
