// What happens at the bounds: who is past one is told so by a code, and its neighbours notice nothing.
import pg from 'pg'
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { asSet, LiveSse, person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader } from '../support/readers.ts'
import { Stalled, until } from '../support/stalled.ts'
import { expectWithin } from '../support/within.ts'

let server: LocalPostgres
let database: TestDatabase
let node: TestNode
const [ada, ben] = [person(), person()]
let adaToken: string
let benToken: string

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query('SET synchronous_commit = local')
  adaToken = await tokenFor(ada)
  benToken = await tokenFor(ben)
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

beforeEach(async () => {
  await database.query('TRUNCATE public.rooms, public.members, public.messages')
  await database.query(`INSERT INTO rooms VALUES (1, 'one'), (2, 'two')`)
  await database.query(`INSERT INTO members VALUES (1, '${ada}'), (2, '${ben}')`)
  await database.query(`INSERT INTO messages VALUES (1, 1, 'ada', 'hello'), (2, 2, 'ben', 'hi')`)
})

afterEach(async () => {
  await node?.[Symbol.asyncDispose]()
})

async function start(settings: Record<string, string>): Promise<void> {
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '0', ...settings })
}

const messages = (token: string, query = ''): Promise<LiveSse> => LiveSse.open(node, `/v1/live/messages${query}`, token)

async function equals(live: LiveSse, sub: string, where = 'true'): Promise<void> {
  const expected = asSet(await selectAs(database, sub, `SELECT * FROM messages WHERE ${where}`))
  await live.stream
    .waitFor(() => asSet(live.rows.list()).join() === expected.join() || live.failure !== null)
    .catch(() => {})
  expect(live.failure).toBe(null)
  expect(asSet(live.rows.list())).toEqual(expected)
}

/** Holds a table as a migration does. */
async function lock(table: string): Promise<{ release(): Promise<void>; [Symbol.asyncDispose](): Promise<void> }> {
  const client = new pg.Client({ connectionString: database.url })
  client.on('error', () => {})
  await client.connect()
  await client.query(`BEGIN; LOCK TABLE ${table}`)
  const release = async (): Promise<void> => void (await client.query('ROLLBACK'))
  return { release, [Symbol.asyncDispose]: () => client.end() }
}

async function insertedFor(live: LiveSse, id: number, room: number): Promise<void> {
  await database.query(`INSERT INTO messages VALUES (${id}, ${room}, 'w', 'later')`)
  await live.stream.waitFor(() => live.rows.rows.has(`[${id}]`))
}

test('[P7] a reader with more memberships than MEMBERSHIP_MAX_ROWS is refused by a code, and ended by it when they grow', async () => {
  await start({ MEMBERSHIP_MAX_ROWS: '20' })
  await database.query(`INSERT INTO members SELECT i, '${ada}' FROM generate_series(3, 40) i`)
  using his = await (await messages(benToken)).exact()
  const hers = await messages(adaToken)
  expect(hers.stream.errorBody.code).toBe('MEMBERSHIP_TOO_LARGE')

  await database.query(`DELETE FROM members WHERE room_id > 10`)
  using fewer = await (await messages(adaToken)).exact()
  await equals(fewer, ada)
  await database.query(`INSERT INTO members SELECT i, '${ada}' FROM generate_series(11, 40) i`)
  const error = await fewer.stream.until(({ event }) => event === 'error')
  expect(error.data).toMatchObject({ code: 'MEMBERSHIP_TOO_LARGE' })
  await database.query(`INSERT INTO messages VALUES (3, 1, 'w', 'nobody may judge this'), (4, 40, 'w', 'nor this')`)
  await insertedFor(his, 5, 2)
  await equals(his, ben)
  expect(JSON.stringify(fewer.stream.events)).not.toContain('nobody may judge this')
  expect(JSON.stringify(his.stream.events)).not.toContain('nobody may judge this')
})

test('[P7] a grant that moves more rows than SNAPSHOT_MAX_ROWS is one resync of that query alone', async () => {
  await start({ SNAPSHOT_MAX_ROWS: '100' })
  await database.query(
    `INSERT INTO messages SELECT 100 + i, 3, 'w', CASE WHEN i % 50 = 0 THEN 'rare' ELSE 'common' END FROM generate_series(1, 500) i`,
  )
  using rare = await (await messages(adaToken, '?body=eq.rare')).exact()
  using unconcerned = await (await messages(adaToken, '?room_id=eq.1')).exact()
  using his = await (await messages(benToken)).exact()
  await database.query(`INSERT INTO members VALUES (3, '${ada}')`)
  await equals(rare, ada, `body = 'rare'`)
  expect(rare.rows.rows.size).toBe(10)
  expect(rare.rows.resyncs).toEqual(['INPUTS_CHANGED'])
  await insertedFor(unconcerned, 50, 1)
  await insertedFor(his, 51, 2)
  for (const other of [unconcerned, his]) expect(other.rows.resyncs).toEqual([])
})

test('[P7] a query with more rows than SNAPSHOT_MAX_ROWS is refused by a code', async () => {
  await start({ SNAPSHOT_MAX_ROWS: '100', SNAPSHOT_CHUNK_ROWS: '30' })
  await database.query(`INSERT INTO messages SELECT 100 + i, 1, 'w', 'x' FROM generate_series(1, 500) i`)
  using live = await messages(adaToken)
  const error = await live.stream.until(({ event }) => event === 'error')
  expect(error.data).toMatchObject({ code: 'SNAPSHOT_TOO_LARGE' })
})

test('[P7] a hold longer than MAX_HELD_MS is a resync of that audience, and its neighbours get their deltas meanwhile', async () => {
  await start({ MAX_HELD_MS: '500', SNAPSHOT_CONCURRENCY: '1' })
  using hers = await (await messages(adaToken)).exact()
  using his = await (await LiveSse.open(node, '/v1/live/rooms', benToken)).exact()
  using alsoHers = await (await LiveSse.open(node, '/v1/live/rooms?id=eq.1', adaToken)).exact()
  const renamed = async (live: LiveSse, room: number, name: string): Promise<void> => {
    await database.query(`UPDATE rooms SET name = '${name}' WHERE id = ${room}`)
    await live.stream.waitFor(() => live.rows.rows.get(`[${room}]`)?.name === name)
  }
  // What the grant moves cannot be read.
  await using locker = await lock('messages')
  await database.query(`INSERT INTO members VALUES (2, '${ada}')`)
  for (let i = 0; i < 10; i++) await renamed(his, 2, `before ${i}`)
  await renamed(alsoHers, 1, 'hers')
  await hers.stream.waitFor(() => hers.rows.resyncs.length > 0)
  expect(hers.rows.resyncs).toEqual(['INPUTS_CHANGED'])
  for (let i = 0; i < 10; i++) await renamed(his, 2, `after ${i}`)
  expect(hers.rows.exact).toBe(false)

  await locker.release()
  await equals(hers, ada)
  expect(hers.rows.resyncs).toHaveLength(1)
  for (const other of [his, alsoHers]) expect([other.failure, other.rows.resyncs]).toEqual([null, []])
})

test('[P7] a table that is locked for long keeps only its own readers waiting', async () => {
  await start({ BEACON_MS: '300' })
  using his = await (await messages(benToken)).exact()
  await using locker = await lock('rooms')
  const opening = Array.from({ length: 12 }, (_, i) =>
    LiveSse.open(node, `/v1/live/rooms?id=gt.${-i}`, i % 2 === 0 ? adaToken : benToken),
  )
  await until(async () => (await database.query(`SELECT 1 FROM pg_locks WHERE NOT granted`)).length > 0)
  const begun = performance.now()
  for (let id = 10; id < 20; id++) {
    await insertedFor(his, id, 2)
    using another = await (await messages(benToken, `?id=lt.${id + 1}`)).exact()
    await equals(another, ben, `id <= ${id}`)
  }
  expectWithin(performance.now() - begun, 5000)
  await locker.release()
  for (const live of await Promise.all(opening)) (await live.exact()).stream.close()
})

test('[P7] past RING_MAX_BYTES new snapshots are refused for a while, the stream goes on, and it recovers', async () => {
  await start({ WINDOW_MAX_AGE_MS: '0', RING_MAX_BYTES: '20000' })
  using his = await (await messages(benToken)).exact()
  const stalled = await Stalled.begin(database.url)
  await stalled.commit(`INSERT INTO messages SELECT i, 1, 'w', repeat('x', 1000) FROM generate_series(1000, 1030) i`)
  let refused: LiveSse | null = null
  await until(async () => {
    const live = await (await messages(adaToken)).exact()
    const error = live.stream.events.find(({ event }) => event === 'error')
    live.stream.close()
    if (error === undefined) return false
    refused = live
    return true
  })
  const error = refused!.stream.events.find(({ event }) => event === 'error')!
  expect(error.data).toMatchObject({ code: 'BUSY', retry: true })
  for (let id = 10; id < 15; id++) await insertedFor(his, id, 2)
  await stalled[Symbol.asyncDispose]()
  let again = await messages(adaToken)
  await until(async () => {
    await again.exact()
    if (again.rows.exact) return true
    again.stream.close()
    again = await messages(adaToken)
    return false
  })
  await equals(again, ada)
  await equals(his, ben)
  again.stream.close()
})

test('[P7] a thousand clients at once are let in a few at a time, all are exact, and when they have gone nothing is held', {
  timeout: 120_000,
}, async () => {
  await start({
    SNAPSHOT_CONCURRENCY: '3',
    SNAPSHOT_CHUNK_ROWS: '60',
    MAX_CONNECTIONS: '2000',
    AUDIENCE_GRACE_MS: '300',
  })
  await database.query(`INSERT INTO messages SELECT 100 + i, 1 + i % 2, 'w', 'row' FROM generate_series(1, 100) i`)
  const people = [
    { sub: ada, token: adaToken },
    { sub: ben, token: benToken },
  ]
  const readers = Array.from(
    { length: 1000 },
    (_, i) => new Reader('websocket', 'live', 'messages', people[i % 2]!.token),
  )
  let writing = true
  let most = 0
  const writer = (async () => {
    for (let i = 0; writing; i++) {
      await database.query(`UPDATE messages SET room_id = 3 - room_id, body = 'v${i}' WHERE id = ${101 + (i % 100)}`)
      const [row] = await database.query<{ n: number }>(
        `SELECT count(*)::int AS n FROM pg_stat_activity WHERE application_name = 'tidegate snapshot'`,
      )
      most = Math.max(most, row!.n)
      // Each of these reaches five hundred sockets of this very process.
      await new Promise(resolve => setTimeout(resolve, 5))
    }
  })()
  await Promise.all(readers.map(reader => reader.come(node)))
  for (const reader of readers) await reader.until(() => reader.rows.exact, 60_000)
  writing = false
  await writer
  expect(most).toBeGreaterThan(0)
  expect(most).toBeLessThanOrEqual(3)
  for (const { sub, token } of people) {
    const expected = asSet(await selectAs(database, sub, 'SELECT * FROM messages')).join()
    for (const reader of readers) {
      if (reader.token === token) await reader.until(() => asSet(reader.rows.list()).join() === expected)
    }
  }
  expect(readers.flatMap(reader => reader.resyncs)).toEqual([])
  expect(node.server.holdings()).toMatchObject({ audiences: 2, queries: 1, memberships: 2, routes: 2, splices: 0 })
  for (const reader of readers) await reader.leave()
  await until(() => Object.values(node.server.holdings()).every(count => count === 0)).catch(() => {})
  expect(Object.entries(node.server.holdings()).filter(([, count]) => count > 0)).toEqual([])
})

test('[P7] readers who come and go in every way leave nothing behind', { timeout: 60_000 }, async () => {
  await start({ MEMBERSHIP_MAX_ROWS: '5', SNAPSHOT_MAX_ROWS: '50', AUDIENCE_GRACE_MS: '10' })
  await database.query(`INSERT INTO messages SELECT 100 + i, 2, 'w', 'row' FROM generate_series(1, 100) i`)
  await database.query(`INSERT INTO members SELECT i, '${person()}' FROM generate_series(3, 12) i`)
  const crowded = person()
  await database.query(`INSERT INTO members SELECT i, '${crowded}' FROM generate_series(3, 12) i`)
  const tokens = [adaToken, benToken, await tokenFor(crowded), await tokenFor(person())]
  const paths = [
    '/v1/live/messages',
    '/v1/changes/messages',
    '/v1/live/messages?id=lt.50',
    '/v1/live/rooms',
    '/v1/live/members?room_id=eq.1',
  ]
  for (let round = 0; round < 4; round++) {
    const opened = await Promise.all(tokens.flatMap(token => paths.map(path => LiveSse.open(node, path, token))))
    // Some go at once, some during a grant, some are ended.
    for (const [i, live] of opened.entries()) if (i % 3 === 0) live.stream.close()
    await database.query(`INSERT INTO members VALUES (${50 + round}, '${ada}'); UPDATE messages SET body = '${round}'`)
    for (const [i, live] of opened.entries()) if (i % 3 === 1) live.stream.close()
    await database.query(`DELETE FROM members WHERE room_id = ${50 + round}`)
    for (const live of opened) live.stream.close()
  }
  await until(() => Object.values(node.server.holdings()).every(count => count === 0)).catch(() => {})
  expect(Object.entries(node.server.holdings()).filter(([, count]) => count > 0)).toEqual([])
})
