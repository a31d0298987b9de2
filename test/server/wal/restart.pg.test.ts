// A server of its own that is stopped, killed and misconfigured while a session streams from it.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chown, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { LocalPostgres } from '../../../src/cli/local-postgres.ts'
import { formatLsn } from '../../../src/server/wal/lsn.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { expectWithin } from '../../support/within.ts'
import { certificate, privateKey } from './certificate.ts'
import { confirmedFlush, query, Reader, schema } from './reader.ts'

let server: LocalPostgres

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  await query(server.url, schema)
})

afterAll(() => server.stop())

/** Writers that never stop: each remembers what it was told is committed. */
class Writers {
  readonly committed: string[] = []
  readonly #running: Promise<void>[]
  #stopped = false

  constructor(count: number) {
    this.#running = Array.from({ length: count }, (_, writer) => this.#write(writer))
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await Promise.all(this.#running)
  }

  async #write(writer: number): Promise<void> {
    for (let n = 0; !this.#stopped; ) {
      const client = new pg.Client({ connectionString: server.url, connectionTimeoutMillis: 2000 })
      client.on('error', () => {})
      try {
        await client.connect()
        for (; !this.#stopped; n++) {
          const body = `${writer}:${n}`
          await client.query('INSERT INTO notes VALUES ($1)', [body])
          this.committed.push(body)
        }
      } catch {
        // Whether this one committed is unknown; the next number is another row.
        n += 1
        await new Promise(resolve => setTimeout(resolve, 50))
      } finally {
        client.end().catch(() => {})
      }
    }
  }
}

/** After kill -9 the server's children still hold its memory for a moment. */
async function startAgain(): Promise<void> {
  for (let attempt = 0; ; attempt++) {
    try {
      return await server.start()
    } catch (error) {
      if (attempt === 50) throw error
      await new Promise(resolve => setTimeout(resolve, 100))
    }
  }
}

/** A walsender lets go of its slot a moment after its client has gone. */
async function dropSlots(): Promise<void> {
  const sql = `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name LIKE 'tidegate%'`
  for (let attempt = 0; ; attempt++) {
    try {
      await query(server.url, sql)
      return
    } catch (error) {
      if (attempt === 100) throw error
      await new Promise(resolve => setTimeout(resolve, 50))
    }
  }
}

test.each(['fast', 'immediate', 'kill'] as const)(
  '[P4] every commit comes through a restart (%s) while writers go on, and the slot stays where it was acknowledged',
  async mode => {
    {
      await using reader = new Reader({ databaseUrl: server.url })
      await reader.until(() => reader.lives.length === 1)
      const { epoch, confirmedFlushLsn } = reader.life.slot
      const writers = new Writers(3)
      await reader.until(() => reader.commits.length > 100)
      await server.halt(mode)
      await startAgain()
      await reader.until(() => reader.lives.length === 2)
      const afterRestart = writers.committed.length
      await reader.until(() => writers.committed.length > afterRestart + 100, 'writers go on')
      await writers.stop()
      expect(reader.life.slot).toMatchObject({ epoch, confirmedFlushLsn, created: false })
      // Nothing was acknowledged, so the second life has all of it.
      const missing = () => {
        const seen = new Set(reader.commits.filter(commit => commit.life === 2).flatMap(commit => commit.rows))
        return writers.committed.filter(body => !seen.has(body))
      }
      await reader.until(() => missing().length === 0, 'every commit is seen')
      const ends = reader.commits.filter(commit => commit.life === 2).map(commit => commit.endLsn)
      expect(ends).toEqual(ends.toSorted((a, b) => (a < b ? -1 : 1)))
    }
    await dropSlots()
  },
)

test('[P6] a fast shutdown does not wait for commits that were not acknowledged', async () => {
  {
    // No timer helps: what the walsender knows it knows from the acknowledgement and from the answer to its question.
    await using reader = new Reader({ databaseUrl: server.url, statusIntervalMs: 60_000, walSenderTimeoutMs: 0 })
    await reader.until(() => reader.lives.length === 1)
    await query(server.url, "INSERT INTO notes VALUES ('one'), ('two')")
    await query(server.url, "INSERT INTO notes VALUES ('three')")
    await reader.until(() => reader.rows.length === 3)
    // An acknowledgement of a part must not make it wait for the rest.
    const lsn = reader.commits[0]!.endLsn
    reader.life.stream.acknowledge(lsn)
    await reader.until(async () => (await confirmedFlush(server.url)) === formatLsn(lsn))
    // WAL that brings us no message: only the walsender's question at the end tells us how far it has read.
    await query(server.url, 'CREATE TABLE untracked AS SELECT generate_series(1, 1000) AS id')
    const haltedAt = performance.now()
    await server.halt('fast')
    expectWithin(performance.now() - haltedAt, 5000)
    expect(server.log.join('\n')).not.toContain('terminating walsender process due to replication timeout')
    await server.start()
    await reader.until(() => reader.commits.some(commit => commit.life === 2 && commit.rows.includes('three')))
    // Before Postgres 17 a slot may step back over a clean restart: what was acknowledged may come again, too.
    expect(['three', 'one,two,three']).toContain(
      reader.commits
        .filter(commit => commit.life === 2)
        .flatMap(commit => commit.rows)
        .join(),
    )
  }
  await dropSlots()
})

test('[P6] a fast shutdown ends, too, while the consumer takes nothing', async () => {
  {
    await using reader = new Reader({ databaseUrl: server.url, maxPendingBytes: 2 ** 20, slotCheckMs: 300 })
    await reader.until(() => reader.lives.length === 1)
    const open = Promise.withResolvers<void>()
    reader.gate = open.promise
    await query(server.url, "INSERT INTO notes SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
    await reader.until(() => (reader.life.stream as unknown as { isStalled: boolean }).isStalled)
    await server.halt('fast')
    await server.start()
    reader.gate = null
    open.resolve()
    await reader.until(() => reader.lives.length >= 2)
  }
  await dropSlots()
})

test('[P6] the session never becomes a synchronous standby, and reads commits that wait for one', async () => {
  const standbys = async (names: string) => {
    await query(server.url, `ALTER SYSTEM SET synchronous_standby_names = '${names}'`)
    await query(server.url, 'SELECT pg_reload_conf()')
  }
  const session = async () =>
    (
      await query<{ sync_state: string; flush_lsn: string | null }>(
        server.url,
        "SELECT sync_state, flush_lsn::text FROM pg_stat_replication WHERE application_name = 'tidegate wal'",
      )
    )[0]!
  const writer = new pg.Client({ connectionString: server.url })
  writer.on('error', () => {})
  await writer.connect()
  try {
    await using reader = new Reader({ databaseUrl: server.url, statusIntervalMs: 100 })
    await reader.until(() => reader.lives.length === 1)
    await query(server.url, "INSERT INTO notes VALUES ('before')")
    await standbys('*')
    // Repeated, because the server takes the setting a moment later.
    let released = false
    const write = async () => {
      while (!released) await writer.query("INSERT INTO notes VALUES ('waits for a standby')")
    }
    const waiting = write().catch(() => {})
    const isWaiting = async () =>
      (await query(server.url, "SELECT FROM pg_stat_activity WHERE wait_event = 'SyncRep'")).length === 1
    await reader.until(isWaiting)
    await reader.until(() => reader.rows.includes('waits for a standby'))
    const { endLsn } = reader.commits.find(commit => commit.rows.includes('before'))!
    reader.life.stream.acknowledge(endLsn)
    await reader.until(async () => (await confirmedFlush(server.url)) === formatLsn(endLsn))
    expect(await session()).toMatchObject({ sync_state: 'async', flush_lsn: null })
    expect(await isWaiting()).toBe(true)
    released = true
    await standbys('')
    await waiting
  } finally {
    await standbys('')
    await writer.end()
  }
  await dropSlots()
})

test('[P6] a frozen holder loses the slot after wal_sender_timeout, and the next takes over', async () => {
  const holder = spawn(process.execPath, [fileURLToPath(new URL('./holder.ts', import.meta.url)), server.url, '3000'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  try {
    await once(holder.stdout, 'data')
    await query(server.url, "INSERT INTO notes VALUES ('held')")
    holder.kill('SIGSTOP')
    await using reader = new Reader({ databaseUrl: server.url })
    await reader.until(() => reader.logged.some(line => line.code === 'SLOT_BUSY'))
    const waitingSince = performance.now()
    await reader.until(() => reader.rows.includes('held'))
    expectWithin(performance.now() - waitingSince, 5000)
    expect(reader.life.slot.created).toBe(false)
    // Awake again, it waits for its turn and takes nothing away.
    holder.kill('SIGCONT')
    await query(server.url, "INSERT INTO notes VALUES ('after')")
    await reader.until(() => reader.rows.includes('after'))
    expect(reader.lives.length).toBe(1)
  } finally {
    holder.kill('SIGKILL')
    await once(holder, 'exit')
  }
  await dropSlots()
})

test('[P4] [P6] a slot that Postgres invalidated begins a new epoch, loudly', async () => {
  let epoch = ''
  let slotName = ''
  {
    await using reader = new Reader({ databaseUrl: server.url })
    await reader.until(() => reader.lives.length === 1)
    epoch = reader.life.slot.epoch
    slotName = reader.life.slot.slotName
  }
  await query(server.url, "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
  try {
    await query(server.url, 'SELECT pg_reload_conf()')
    await using reader = new Reader({ databaseUrl: server.url })
    await reader.until(() => reader.lives.length === 1)
    expect(reader.life.slot.epoch).toBe(epoch)
    // While it streams: Postgres ends the session to free its WAL.
    await reader.until(async () => {
      await query(server.url, "INSERT INTO notes SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
      await query(server.url, 'SELECT pg_switch_wal()')
      await query(server.url, 'CHECKPOINT')
      return reader.lives.length > 1 && reader.life.slot.slotName !== slotName
    })
    expect(reader.life.slot.created).toBe(true)
    expect(reader.life.slot.epoch).not.toBe(epoch)
    expect(reader.logged).toContainEqual(expect.objectContaining({ level: 'error', code: 'SLOT_LOST' }))
  } finally {
    await query(server.url, 'ALTER SYSTEM RESET max_slot_wal_keep_size')
    await query(server.url, 'SELECT pg_reload_conf()')
  }
  await dropSlots()
})

test('over TLS it streams, waits for a slow consumer and comes back', async () => {
  const owner = await stat(server.dataDir)
  for (const [name, text] of Object.entries({ 'server.crt': certificate, 'server.key': privateKey })) {
    await writeFile(join(server.dataDir, name), text, { mode: 0o600 })
    await chown(join(server.dataDir, name), owner.uid, owner.gid)
  }
  await server.halt('fast')
  server.set('ssl', 'on')
  await server.start()
  {
    await using reader = new Reader({
      databaseUrl: `${server.url}?sslmode=no-verify`,
      walSenderTimeoutMs: 1000,
      maxPendingBytes: 2 ** 20,
    })
    await reader.until(() => reader.lives.length === 1)
    const [tls] = await query<{ ssl: boolean }>(
      server.url,
      "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE application_name = 'tidegate wal'",
    )
    expect(tls).toEqual({ ssl: true })
    const open = Promise.withResolvers<void>()
    reader.gate = open.promise
    await query(server.url, "INSERT INTO notes SELECT n || repeat('x', 1000) FROM generate_series(1, 15000) AS n")
    await reader.until(() => (reader.life.stream as unknown as { isStalled: boolean }).isStalled)
    reader.gate = null
    open.resolve()
    await reader.until(() => reader.rows.length === 15_000)
    expect(reader.rows.every((row, index) => row.startsWith(`${index + 1}x`))).toBe(true)
    expect(reader.lives.length).toBe(1)
    await server.halt('fast')
    await server.start()
    await reader.until(() => reader.lives.length === 2)
  }
  await server.halt('fast')
  server.set('ssl', 'off')
  await server.start()
  await dropSlots()
})

test('a connection that is open but silent is given up, and another made', async () => {
  {
    await using proxy = await FaultyLink.to(server.url)
    await using reader = new Reader({ databaseUrl: proxy.url, walSenderTimeoutMs: 500 })
    await reader.until(() => reader.lives.length === 1)
    await query(server.url, "INSERT INTO notes VALUES ('one')")
    await reader.until(() => reader.rows.length === 1)
    proxy.freeze()
    await reader.until(() => reader.lives.length === 2)
    expect(reader.ends).toEqual(['DATABASE_UNREACHABLE'])
    await query(server.url, "INSERT INTO notes VALUES ('two')")
    await reader.until(() => reader.rows.includes('two'))
  }
  await dropSlots()
})

test('[P8] a server whose WAL is not logical is refused with the statement to type', async () => {
  await server.halt('fast')
  server.set('wal_level', 'replica')
  await server.start()
  try {
    await using reader = new Reader({ databaseUrl: server.url })
    await expect(reader.until(() => false)).rejects.toMatchObject({
      code: 'WAL_LEVEL',
      message: expect.stringContaining('ALTER SYSTEM SET wal_level = logical'),
    })
  } finally {
    await server.halt('fast')
    server.set('wal_level', 'logical')
    await server.start()
  }
})
