// One server that stays up: what a session gives, acknowledges and refuses.
import { randomBytes } from 'node:crypto'
import { expect, test } from 'vitest'
import { createLog } from '../../../src/server/log/log.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { formatLsn } from '../../../src/server/wal/lsn.ts'
import { Replication } from '../../../src/server/wal/replication.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { confirmedFlush, Reader, schema } from './reader.ts'

async function prepared(): Promise<TestDatabase> {
  const database = await TestDatabase.create()
  await database.query(schema)
  return database
}

test('[P4] commits come in order; what was acknowledged does not come again, the rest does', async () => {
  await using database = await prepared()
  let acknowledged = 0n
  {
    await using reader = new Reader({ databaseUrl: database.url })
    await reader.until(() => reader.lives.length === 1)
    expect(reader.life.slot).toMatchObject({ created: true, epoch: expect.stringMatching(/^[0-9a-f]{8}$/) })
    for (const body of ['one', 'two', 'three']) await database.query('INSERT INTO notes VALUES ($1)', [body])
    await reader.until(() => reader.rows.length === 3)
    expect(reader.rows).toEqual(['one', 'two', 'three'])
    acknowledged = reader.commits[0]!.endLsn
    reader.life.stream.acknowledge(acknowledged)
    await reader.until(async () => (await confirmedFlush(database.url)) === formatLsn(acknowledged))
    expect(() => reader.life.stream.acknowledge(acknowledged - 1n)).toThrow(
      expect.objectContaining({ code: 'LSN_WENT_BACKWARDS' }),
    )
  }
  await using reader = new Reader({ databaseUrl: database.url })
  await reader.until(() => reader.rows.length === 2)
  expect(reader.rows).toEqual(['two', 'three'])
  expect(reader.life.slot).toMatchObject({ created: false, confirmedFlushLsn: acknowledged })
})

test('a keepalive is never acknowledged: an idle stream leaves the slot where it is', async () => {
  await using database = await prepared()
  await using reader = new Reader({ databaseUrl: database.url, statusIntervalMs: 100 })
  await reader.until(() => reader.lives.length === 1)
  const before = await confirmedFlush(database.url)
  await database.query('CREATE TABLE other (id int); INSERT INTO other SELECT generate_series(1, 1000)')
  const [{ lsn } = { lsn: '' }] = await database.query<{ lsn: string }>('SELECT pg_current_wal_lsn()::text AS lsn')
  // write_lsn moves with the keepalives, so several status updates have been understood by then.
  await reader.until(
    async () =>
      (
        await database.query(
          `SELECT FROM pg_stat_replication WHERE application_name = 'tidegate wal' AND write_lsn >= '${lsn}'
              AND pid = (SELECT active_pid FROM pg_replication_slots WHERE slot_name = '${reader.life.slot.slotName}')`,
        )
      ).length === 1,
  )
  expect(await confirmedFlush(database.url)).toBe(before)
})

test('a message that waits keeps its bytes, however many follow', async () => {
  await using database = await prepared()
  await using reader = new Reader({ databaseUrl: database.url, maxPendingBytes: 4_000_000 })
  await reader.until(() => reader.lives.length === 1)
  const open = Promise.withResolvers<void>()
  reader.gate = open.promise
  await database.query(
    `INSERT INTO notes SELECT n || ':' || repeat(chr(97 + n % 26), n * 37 % 3000) FROM generate_series(1, 4000) AS n`,
  )
  const stream = reader.life.stream as unknown as { isStalled: boolean }
  await reader.until(() => stream.isStalled, 'many reads wait')
  reader.gate = null
  open.resolve()
  await reader.until(() => reader.rows.length === 4000)
  reader.rows.forEach((row, index) => {
    const n = index + 1
    expect(row).toBe(`${n}:${String.fromCharCode(97 + (n % 26)).repeat((n * 37) % 3000)}`)
  })
})

test('a value larger than the read buffer comes whole', async () => {
  await using database = await prepared()
  await using reader = new Reader({ databaseUrl: database.url })
  await reader.until(() => reader.lives.length === 1)
  const body = randomBytes(1_500_000).toString('hex')
  await database.query('INSERT INTO notes VALUES ($1)', [body])
  await reader.until(() => reader.rows.length === 1)
  expect(reader.rows[0] === body).toBe(true)
})

test('[P7] a consumer that takes nothing costs bounded memory and is not disconnected by wal_sender_timeout', async () => {
  await using database = await prepared()
  const maxPendingBytes = 2 ** 20
  await using reader = new Reader({ databaseUrl: database.url, walSenderTimeoutMs: 1000, maxPendingBytes })
  await reader.until(() => reader.lives.length === 1)
  const open = Promise.withResolvers<void>()
  reader.gate = open.promise
  await database.query("INSERT INTO notes SELECT n || repeat('x', 1000) FROM generate_series(1, 15000) AS n")
  const stream = reader.life.stream as unknown as { pendingBytes: number; isStalled: boolean }
  await reader.until(() => stream.isStalled, 'the socket is not read')
  // Postgres would have ended the session after one second without a word from us.
  const stalledSince = performance.now()
  let most = 0
  await reader.until(() => {
    most = Math.max(most, stream.pendingBytes)
    return performance.now() - stalledSince > 2500
  })
  expect(most).toBeLessThan(maxPendingBytes + 512 * 1024)
  expect(reader.ends).toEqual([])
  reader.gate = null
  open.resolve()
  await reader.until(() => reader.rows.length === 15_000)
  expect(reader.lives.length).toBe(1)
})

test('wal_sender_timeout = 0 streams, too', async () => {
  await using database = await prepared()
  await using reader = new Reader({ databaseUrl: database.url, walSenderTimeoutMs: 0, statusIntervalMs: 100 })
  await reader.until(() => reader.lives.length === 1)
  await database.query("INSERT INTO notes VALUES ('one')")
  await reader.until(() => reader.rows.length === 1)
})

test('[P4] a dropped slot begins a new epoch, loudly', async () => {
  await using database = await prepared()
  await using reader = new Reader({ databaseUrl: database.url })
  await reader.until(() => reader.lives.length === 1)
  const { slotName, epoch } = reader.life.slot
  // Until it is gone: the session takes it again as soon as its process is dead.
  await reader.until(async () => {
    await database.query(
      'SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots WHERE slot_name = $1',
      [slotName],
    )
    return database.query('SELECT pg_drop_replication_slot($1)', [slotName]).then(
      () => true,
      () => false,
    )
  })
  await reader.until(() => reader.life.slot.slotName !== slotName)
  expect(reader.life.slot.created).toBe(true)
  expect(reader.life.slot.epoch).not.toBe(epoch)
  expect(reader.logged).toContainEqual(expect.objectContaining({ level: 'error', code: 'SLOT_LOST' }))
  expect(reader.troubles.of('SLOT_LOST')).toBe(1)
})

test('[P6] a slot that keeps more WAL than its limit is dropped while it streams, and a new epoch starts', async () => {
  await using database = await prepared()
  await using reader = new Reader({ databaseUrl: database.url, slotMaxBytes: 4_000_000, slotCheckMs: 100 })
  await reader.until(() => reader.lives.length === 1)
  const { slotName, epoch } = reader.life.slot
  await database.query("INSERT INTO notes SELECT repeat('x', 1000) FROM generate_series(1, 10000)")
  await reader.until(() => reader.lives.length >= 2 && reader.life.slot.slotName !== slotName)
  expect(reader.ends[0]).toBe('SLOT_OVER_LIMIT')
  expect(reader.life.slot.created).toBe(true)
  expect(reader.life.slot.epoch).not.toBe(epoch)
  expect(reader.logged).toContainEqual(expect.objectContaining({ level: 'error', code: 'SLOT_OVER_LIMIT' }))
  expect(reader.troubles.of('SLOT_OVER_LIMIT')).toBeGreaterThan(0)
  expect(await database.query('SELECT FROM pg_replication_slots WHERE slot_name = $1', [slotName])).toEqual([])
})

test('[P4] a slot acknowledged past what the relay holds begins a new epoch instead of leaving a gap', async () => {
  await using database = await prepared()
  let slotName = ''
  {
    await using reader = new Reader({ databaseUrl: database.url })
    await reader.until(() => reader.lives.length === 1)
    slotName = reader.life.slot.slotName
  }
  await using reader = new Reader({ databaseUrl: database.url, resumeFrom: name => (name === slotName ? 1n : null) })
  await reader.until(() => reader.lives.length === 1)
  expect(reader.life.slot.slotName).not.toBe(slotName)
  expect(reader.logged).toContainEqual(expect.objectContaining({ level: 'error', code: 'SLOT_AHEAD' }))
})

test('a second session waits until the first lets go, without an error in the server', async () => {
  await using database = await prepared()
  await using first = new Reader({ databaseUrl: database.url })
  await first.until(() => first.lives.length === 1)
  await using second = new Reader({ databaseUrl: database.url })
  await second.until(() => second.logged.some(line => line.code === 'SLOT_BUSY'))
  await second.until(() => second.troubles.of('SLOT_BUSY') > 1)
  await database.query("INSERT INTO notes VALUES ('one')")
  await first.until(() => first.rows.length === 1)
  expect(second.lives.length).toBe(0)
  await first.stop()
  await second.until(() => second.rows.length === 1)
  expect(second.life.slot).toMatchObject({ slotName: first.life.slot.slotName, created: false })
})

test('two sessions that start at once make one slot', async () => {
  await using database = await prepared()
  await using first = new Reader({ databaseUrl: database.url })
  await using second = new Reader({ databaseUrl: database.url })
  await first.until(() => first.lives.length + second.lives.length === 1)
  const waiting = first.lives.length === 1 ? second : first
  await waiting.until(() => waiting.logged.some(line => line.code === 'SLOT_BUSY'))
  expect(await database.query('SELECT FROM pg_replication_slots WHERE database = current_database()')).toHaveLength(1)
})

test('[P6] a login with REPLICATION and nothing else is enough', async () => {
  await using database = await prepared()
  const role = `reader_${randomBytes(4).toString('hex')}`
  await database.query(`CREATE ROLE ${role} LOGIN REPLICATION PASSWORD 'secret'`)
  try {
    await using reader = new Reader({ databaseUrl: database.urlFor(role, 'secret') })
    await reader.until(() => reader.lives.length === 1)
    await database.query("INSERT INTO notes VALUES ('one')")
    await reader.until(() => reader.rows.length === 1)
    reader.life.stream.acknowledge(reader.commits[0]!.endLsn)
    const lsn = formatLsn(reader.commits[0]!.endLsn)
    await reader.until(async () => (await confirmedFlush(database.url)) === lsn)
  } finally {
    await database.query(`DROP ROLE ${role}`)
  }
})

test('the session pins the settings that shape values, whatever the connection string and the role say', async () => {
  await using database = await prepared()
  await database.query(`CREATE TABLE moments (at timestamptz); ALTER PUBLICATION tidegate ADD TABLE moments`)
  const url = new URL(database.url)
  url.searchParams.set('options', '-c TimeZone=Asia/Tokyo -c DateStyle=German')
  await using reader = new Reader({ databaseUrl: url.href })
  await reader.until(() => reader.lives.length === 1)
  await database.query("INSERT INTO moments VALUES ('2026-05-01 12:00:00+00')")
  await reader.until(() => reader.rows.length === 1)
  expect(reader.rows).toEqual(['2026-05-01 12:00:00+00'])
})

test('a publication with an awkward name is found', async () => {
  await using database = await prepared()
  const publication = `It's "A", b`
  await database.query(`CREATE PUBLICATION "It's ""A"", b" FOR TABLE notes`)
  await using reader = new Reader({ databaseUrl: database.url, publication })
  await reader.until(() => reader.lives.length === 1)
  await database.query("INSERT INTO notes VALUES ('one')")
  await reader.until(() => reader.rows.length === 1)
})

test('[P8] a start is refused with a code: no publication, no REPLICATION, no database', async () => {
  await using database = await prepared()
  const role = `plain_${randomBytes(4).toString('hex')}`
  await database.query(`CREATE ROLE ${role} LOGIN PASSWORD 'secret'`)
  const start = async (options: { databaseUrl: string; publication?: string }) => {
    const pool = createPool(options.databaseUrl, { maxConnections: 2 })
    const replication = new Replication({
      pool,
      name: 'tidegate',
      publication: 'tidegate',
      slotMaxBytes: 1e9,
      resumeFrom: () => null,
      log: createLog('silent'),
      ...options,
    })
    try {
      for await (const _ of replication.lives(new AbortController().signal)) return
    } finally {
      await pool.end()
    }
  }
  try {
    await expect(start({ databaseUrl: database.url, publication: 'none' })).rejects.toMatchObject({
      code: 'PUBLICATION_MISSING',
    })
    await expect(start({ databaseUrl: database.urlFor(role, 'secret') })).rejects.toMatchObject({
      code: 'NOT_REPLICATION',
      message: expect.stringContaining(`ALTER ROLE "${role}" REPLICATION;`),
    })
    const unreachable = start({ databaseUrl: 'postgres://someone:hidden@127.0.0.1:1/nothing' })
    await expect(unreachable).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' })
    await expect(unreachable).rejects.not.toThrow('hidden')
    await expect(start({ databaseUrl: database.urlFor(role, 'wrong') })).rejects.toMatchObject({
      code: 'DATABASE_UNREACHABLE',
    })
  } finally {
    await database.query(`DROP ROLE ${role}`)
  }
})

test('[P8] a slot that long transactions hold up is refused, naming their processes', async () => {
  await using database = await prepared()
  const [{ pid } = { pid: 0 }] = await database.query<{ pid: number }>(
    'BEGIN; SELECT pg_current_xact_id(); SELECT pg_backend_pid() AS pid',
  )
  try {
    await using reader = new Reader({ databaseUrl: database.url, createTimeoutMs: 500 })
    await expect(reader.until(() => false)).rejects.toMatchObject({
      code: 'SLOT_BLOCKED',
      message: expect.stringContaining(String(pid)),
    })
  } finally {
    await database.query('ROLLBACK')
  }
  expect(await database.query('SELECT FROM pg_replication_slots WHERE database = current_database()')).toEqual([])
})
