// Our own messages on their way through a real WAL.
import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { expect, test } from 'vitest'
import { LocalPostgres } from '../../../src/cli/local-postgres.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { steadyNow } from '../../../src/server/steady-clock.ts'
import { Beacon } from '../../../src/server/wal/heartbeat.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { query, Reader, schema } from './reader.ts'

const prefix = 'tidegate'

async function setUp() {
  const database = await TestDatabase.create()
  await database.query(schema)
  const pool = createPool(database.url, { maxConnections: 4 })
  const secret = randomBytes(32)
  const beacon = new Beacon({ pool, prefix, secret })
  const reader = new Reader({ databaseUrl: database.url })
  await reader.until(() => reader.lives.length === 1)
  return {
    database,
    pool,
    secret,
    beacon,
    reader,
    ours: () =>
      reader.commits.flatMap(commit =>
        commit.messages.map(message => beacon.read(commit.xid, message)).filter(message => message !== null),
      ),
    async [Symbol.asyncDispose]() {
      await reader.stop()
      await pool.end()
      await database[Symbol.asyncDispose]()
    },
  }
}

test('a heartbeat comes back through the stream with its id and time', async () => {
  await using it = await setUp()
  const before = steadyNow()
  const { id } = await it.beacon.emit('heartbeat')
  await it.reader.until(() => it.ours().length === 1)
  expect(it.ours()).toEqual([{ kind: 'heartbeat', id, sentAtMs: expect.any(Number) }])
  expect(it.ours()[0]!.sentAtMs).toBeGreaterThanOrEqual(before)
})

test('fences asked for at once share one message; one asked for later has its own', async () => {
  await using it = await setUp()
  const ids = await Promise.all(Array.from({ length: 20 }, () => it.beacon.emit('fence')))
  expect(new Set(ids.map(({ id }) => id)).size).toBe(1)
  const later = await it.beacon.emit('fence')
  expect(later.id).not.toBe(ids[0]!.id)
  await it.reader.until(() => it.ours().length === 2)
})

test('a fence lies after every position that its caller knew, however many ask meanwhile', async () => {
  await using it = await setUp()
  const asked: { id: string; known: string }[] = []
  const writers = createPool(it.database.url, { maxConnections: 4 })
  let writing = true
  const written = Promise.all(
    Array.from({ length: 4 }, async () => {
      while (writing) await writers.query("INSERT INTO notes VALUES ('moves the WAL')")
    }),
  )
  await Promise.all(
    Array.from({ length: 16 }, async () => {
      for (let n = 0; n < 50; n++) {
        const [row] = (await it.pool.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')).rows
        asked.push({ ...(await it.beacon.emit('fence')), known: row!.lsn })
      }
    }),
  )
  writing = false
  await written
  await writers.end()
  const ids = new Set(asked.map(({ id }) => id))
  expect(ids.size).toBeLessThan(asked.length)
  await it.reader.until(() => it.ours().length === ids.size)
  const endOf = new Map(
    it.reader.commits.flatMap(commit => {
      const message = commit.messages[0] && it.beacon.read(commit.xid, commit.messages[0])
      return message ? [[message.id, commit.endLsn] as const] : []
    }),
  )
  for (const { id, known } of asked) {
    const [high, low] = known.split('/').map(half => BigInt(`0x${half}`))
    expect(endOf.get(id)! > (high! << 32n) + low!).toBe(true)
  }
})

test('[P8] messages that are not ours are ignored: another prefix, another secret, forged, or copied to another transaction', async () => {
  await using it = await setUp()
  const foreign = new Beacon({ pool: it.pool, prefix, secret: randomBytes(32) })
  await foreign.emit('heartbeat')
  await it.beacon.emit('heartbeat')
  await it.reader.until(() => it.ours().length === 1)
  const genuine = it.reader.commits.at(-1)!.messages[0]!.content.toString()
  const emit = (name: string, content: string) =>
    it.database.query('SELECT pg_logical_emit_message(true, $1, $2)', [name, content])
  await emit(prefix, genuine)
  await emit('other', genuine)
  await emit(prefix, `fence 0123456789abcdef ${Date.now()} ${'0'.repeat(64)}`)
  await emit(prefix, 'fence')
  await emit(prefix, '')
  await emit(prefix, 'x'.repeat(1_000_000))
  await it.reader.until(() => it.reader.commits.length === 8)
  expect(it.ours()).toHaveLength(1)
  // The hash covers the transaction: the very bytes of ours count in their own only.
  const { xid, messages } = it.reader.commits[1]!
  expect(it.beacon.read(xid, messages[0]!)).not.toBeNull()
  expect(it.beacon.read(xid + 1, messages[0]!)).toBeNull()
})

test('[P6] a heartbeat does not wait for a synchronous standby that is missing', async () => {
  await using server = await LocalPostgres.create({ settings: { fsync: 'off', synchronous_standby_names: 'nobody' } })
  await server.start()
  const pool = createPool(server.url, { maxConnections: 2 })
  const plain = new pg.Client({ connectionString: server.url })
  plain.on('error', () => {})
  await plain.connect()
  try {
    await query(server.url, `SET synchronous_commit = local; ${schema}`)
    const beacon = new Beacon({ pool, prefix, secret: randomBytes(32), timeoutMs: 20_000 })
    await using reader = new Reader({ databaseUrl: server.url })
    await reader.until(() => reader.lives.length === 1)
    const waiting = plain.query("SELECT pg_logical_emit_message(true, 'plain', '')").catch(() => {})
    await reader.until(
      async () => (await query(server.url, "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'")).length === 1,
      'an ordinary message waits',
    )
    const { id } = await beacon.emit('heartbeat')
    const found = () =>
      reader.commits.some(commit => commit.messages.some(message => beacon.read(commit.xid, message)?.id === id))
    await reader.until(found)
    await query(server.url, "ALTER SYSTEM SET synchronous_standby_names = ''")
    await query(server.url, 'SELECT pg_reload_conf()').catch(() => {})
    void waiting
  } finally {
    await plain.end()
    await pool.end()
  }
})

test('a database that does not answer fails the heartbeat instead of keeping it', async () => {
  await using database = await TestDatabase.create()
  await using proxy = await FaultyLink.to(database.url)
  const pool = createPool(proxy.url, { maxConnections: 1 })
  try {
    const beacon = new Beacon({ pool, prefix, secret: randomBytes(32), timeoutMs: 200 })
    await beacon.emit('heartbeat')
    proxy.freeze()
    await expect(beacon.emit('heartbeat')).rejects.toThrow('timeout')
    // The dead connection is not used again.
    await beacon.emit('fence')
  } finally {
    await pool.end()
  }
})
