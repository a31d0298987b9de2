// Postgres is asked while commits are in the stream that no SELECT shows yet: nothing is told that its order of commits would
// not show, and no position says more than was looked at.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { parsePosition, parseQueryPositions } from '../../src/protocol/position.ts'
import { askedSchema, askedTables, equals } from '../support/asked.ts'
import { LiveSse, person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Stalled, until } from '../support/stalled.ts'

let server: LocalPostgres
let database: TestDatabase
let node: TestNode
let stalled: Stalled | null = null
const [ada, ben] = [person(), person()]
let token: string

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, askedSchema, askedTables)
  await database.query('SET synchronous_commit = local')
  node = await TestNode.start(database.url, { RECHECK_MS: '200', AUDIENCE_GRACE_MS: '0' })
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

beforeEach(async () => {
  await database.query('TRUNCATE public.crew, public.papers')
  await database.query(`INSERT INTO crew VALUES (1, '${ada}'), (2, '${ben}')`)
  await database.query(`INSERT INTO papers SELECT i, 1 + i % 2, 'w', 'row ' || i FROM generate_series(1, 6) i`)
})

afterEach(async () => {
  await stalled?.[Symbol.asyncDispose]()
  stalled = null
})

const papers = (): Promise<LiveSse> => LiveSse.open(node, '/v1/live/papers', token)
const follows = (live: LiveSse): Promise<void> => equals(database, live, ada, 'SELECT * FROM papers')
const lsnsOf = (live: LiveSse): bigint[] =>
  live.stream.events.filter(({ id }) => id !== '').map(({ id }) => parseQueryPositions(id)![0]!.lsn)

/** Resolves when the stream has passed what has been committed until now, seen or not. */
async function streamHasPassed(): Promise<void> {
  const rows = await database.query<{ xid: string }>(
    `INSERT INTO answers VALUES (1, NULL, 1) ON CONFLICT (id) DO UPDATE SET room_id = 2 RETURNING pg_current_xact_id()::text AS xid`,
  )
  await positionOf(rows[0]!.xid)
}

async function positionOf(txid: string): Promise<bigint> {
  const response = await fetch(`${node.url}/v1/wait`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: JSON.stringify({ txid }),
  })
  const { position } = (await response.json()) as { position: string }
  return parsePosition(position)!.lsn
}

/** Resolves when Postgres has been asked for so many snapshots more. */
async function snapshotsTaken(count: number): Promise<void> {
  const begun = new Set<string>()
  await until(async () => {
    const rows = await database.query<{ at: string }>(
      `SELECT xact_start::text AS at FROM pg_stat_activity WHERE application_name = 'tidegate asked' AND xact_start IS NOT NULL`,
    )
    for (const { at } of rows) begun.add(at)
    return begun.size >= count
  })
}

test('[P1] a commit that is in the stream and not visible is told when it is, with its position and not before', async () => {
  using live = await papers()
  await live.exact()
  stalled = await Stalled.begin(database.url)
  await stalled.commit(`INSERT INTO papers VALUES (30, 1, 'w', pg_current_xact_id()::text)`)
  using late = await papers()
  await late.exact()
  expect([...late.rows.rows.keys()]).toEqual(['[2]', '[4]', '[6]'])
  const before = [...lsnsOf(live), ...lsnsOf(late)]
  await stalled.release()
  await follows(live)
  await follows(late)
  const [row] = await database.query<{ body: string }>('SELECT body FROM papers WHERE id = 30')
  const lsn = await positionOf(row!.body)
  for (const told of before) expect(told).toBeLessThan(lsn)
  for (const reader of [live, late]) expect(lsnsOf(reader).at(-1)).toBeGreaterThanOrEqual(lsn)
})

test('[P2] [P3] a revocation that no SELECT shows yet hides what commits after it', async () => {
  using live = await papers()
  await live.exact()
  stalled = await Stalled.begin(database.url)
  await stalled.commit(`DELETE FROM crew WHERE user_id = '${ada}'`)
  await database.query(`INSERT INTO papers VALUES (40, 1, 'w', 'not for her')`)
  await database.query(`UPDATE papers SET body = 'nor this' WHERE id = 2`)
  await streamHasPassed()
  // Several checks find that SQL shows the later commits and not the revocation.
  using late = await papers()
  await snapshotsTaken(8)
  await stalled.release()
  await follows(live)
  await late.exact()
  await follows(late)
  expect(live.rows.rows.size).toBe(0)
  expect(JSON.stringify([live.stream.events, late.stream.events])).not.toMatch(/not for her|nor this/)
})

test('[P2] what a stalled commit has deleted or moved away is not told again', async () => {
  using live = await papers()
  await live.exact()
  stalled = await Stalled.begin(database.url)
  await stalled.commit('DELETE FROM papers WHERE id = 2', 'UPDATE papers SET room_id = 2 WHERE id = 4')
  await streamHasPassed()
  expect(live.rows.rows.size).toBe(3)
  await stalled.release()
  await follows(live)
  expect(live.rows.rows.size).toBe(1)
  expect(live.stream.events.filter(({ event }) => event === 'delta')).toHaveLength(1)
})
