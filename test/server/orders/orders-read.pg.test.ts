// How a node comes to know what is in force: from the table, over a gap in its stream, and in a commit of any size.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createLog } from '../../../src/server/log/log.ts'
import { Orders } from '../../../src/server/orders/orders.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { Head } from '../../../src/server/relay/head.ts'
import { MemoryRelay } from '../../../src/server/relay/memory-relay.ts'
import { steadyNow } from '../../../src/server/steady-clock.ts'
import { person, prepareDatabase, roomsSchema, TestNode } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { codeOf, endOf, olderToken, openSocket, poll } from './guests.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
})

/** A stream that has passed everything and brings nothing: what the table has is all there is. */
function silentStream() {
  const relay = new MemoryRelay({ maxBytes: 1e6, maxAgeMs: 1e6, maxWalBytes: 1e9, now: steadyNow })
  const head = new Head()
  const begin = (): void => {
    relay.begin('epoch', 2n ** 62n)
    head.begin(2n ** 62n)
  }
  return { relay, head, begin }
}

test('[P4] what was ordered in a gap of the stream is carried out when it is noticed, once; doors wait until it is known', async () => {
  await using pool = disposable(createPool(database.url, { maxConnections: 2 }))
  const stopping = new AbortController()
  const kicked: string[] = []
  const { relay, head, begin } = silentStream()
  const orders = new Orders({
    relay,
    head,
    reader: { passed: async () => {} },
    reads: pool,
    upkeep: pool,
    publication: 'tidegate',
    targets: () => ({
      connections: { ofUser: () => [], named: () => [], all: () => [] },
      channels: { kick: ({ topic }) => void kicked.push(topic) },
    }),
    leads: () => false,
    log: createLog('silent'),
    now: steadyNow,
  })
  const running = orders.run(stopping.signal)
  const principalOf = (sub: string) => ({ role: 'authenticated', claims: { sub, iat: 1 }, expiresAt: null })
  const verdict = (sub: string) =>
    orders.admit(principalOf(sub)).then(
      () => 'open',
      (error: { code: string }) => error.code,
    )
  const [ada, bob] = [person(), person()]
  await database.query(`SELECT tidegate.revoke('${ada}'), tidegate.kick(topic => 'before')`)
  const early = verdict(ada)
  begin()
  expect(await early).toBe('TOKEN_REVOKED')
  expect(await verdict(bob)).toBe('open')
  expect(kicked).toEqual(['before'])

  await database.query(`SELECT tidegate.revoke('${bob}'), tidegate.kick(topic => 'meanwhile')`)
  await database.query(`DELETE FROM tidegate.orders WHERE sub = '${ada}'`)
  expect(await verdict(ada)).toBe('TOKEN_REVOKED')
  begin()
  orders.begin()
  expect(await Promise.all([verdict(ada), verdict(bob)])).toEqual(['open', 'TOKEN_REVOKED'])
  expect(kicked).toEqual(['before', 'meanwhile'])
  stopping.abort()
  await running
})

test('a node over a database that was not migrated for orders lets people in, and carries them out once it is', async () => {
  await using other = await TestDatabase.create()
  await prepareDatabase(other, roomsSchema, ['rooms', 'members', 'messages'])
  await other.query('ALTER TABLE tidegate.orders RENAME TO orders_elsewhere')
  await using node = await TestNode.start(other.url)
  const ada = person()
  const token = await olderToken(ada)
  const socket = await openSocket(node, token)
  await other.query('ALTER TABLE tidegate.orders_elsewhere RENAME TO orders')
  await other.query(`SELECT tidegate.revoke('${ada}')`)
  expect((await endOf(socket)).code).toBe('TOKEN_REVOKED')
  expect(await poll(node, token).then(codeOf)).toBe('TOKEN_REVOKED')
})

test('[P3] orders in a commit too large for memory are carried out before its rows', async () => {
  await using node = await TestNode.start(database.url, { SPOOL_BYTES: '20000' })
  const ada = person()
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`)
  const socket = await openSocket(node, await olderToken(ada))
  await socket.subscribe(1, 'messages')
  await socket.frame('snapshot')
  await database.query('BEGIN')
  await database.query(`INSERT INTO messages SELECT i, 1, 'a', repeat('b', 50) FROM generate_series(1, 5000) i`)
  await database.query(`SELECT tidegate.revoke('${ada}'), tidegate.revoke('${person()}')`)
  await database.query('COMMIT')
  expect((await endOf(socket)).code).toBe('TOKEN_REVOKED')
  expect(socket.of('delta')).toEqual([])
})

test('TRUNCATE takes all orders back', async () => {
  await using node = await TestNode.start(database.url)
  const ada = person()
  const token = await olderToken(ada)
  await database.query(`SELECT tidegate.revoke('${ada}')`)
  await expect.poll(() => poll(node, token).then(codeOf)).toBe('TOKEN_REVOKED')
  await database.query('TRUNCATE tidegate.orders')
  await expect.poll(() => poll(node, token).then(codeOf)).toBe('200')
})

const disposable = (pool: ReturnType<typeof createPool>) =>
  Object.assign(pool, { [Symbol.asyncDispose]: () => pool.end() })
