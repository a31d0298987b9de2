// A failover of Postgres: a standby that synchronizes slots is promoted, and DATABASE_URL comes to lead there.
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { NodeProcess } from '../faults/node-process.ts'
import { firstEventId, LoyalReader } from '../faults/readers.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { asSet, person, prepareDatabase, roomsSchema, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'
import { until } from '../support/stalled.ts'
import { Standby } from '../support/standby.ts'

const ada = person()

// Two servers and up to two nodes each: on a busy machine that takes its time.
describe.each(['memory', 'redis'] as const)('%s', { timeout: 180_000 }, relay => {
  let primary: LocalPostgres
  let standby: Standby
  /** Between the two servers. */
  let shipping: FaultyLink
  /** What DATABASE_URL leads over. */
  let link: FaultyLink
  let database: TestDatabase
  let redis: TestRedis | null = null
  let nodes: NodeProcess[] = []
  let readers: LoyalReader[] = []
  let lastId = 0

  beforeEach(async () => {
    primary = await LocalPostgres.create({ settings: { fsync: 'off' } })
    await primary.start()
    database = await TestDatabase.create(primary.url)
    await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
    await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`)
    shipping = await FaultyLink.to(primary.url)
    link = await FaultyLink.to(database.url)
    if (relay === 'redis') redis = await findRedis()
    // A short window, so that the slot is acknowledged, and the standby can keep it, soon.
    const settings = redis === null ? { WINDOW_MAX_AGE_MS: '1000' } : { RELAY_HOLD_MS: '500', REDIS_URL: redis.url }
    const start = async (): Promise<void> => void nodes.push(await NodeProcess.start(link.url, settings))
    const starting = relay === 'redis' ? [start(), start()] : [start()]
    standby = await Standby.of(primary, { slotName: 'standby', primaryUrl: shipping.url })
    await Promise.all(starting)
    const token = await tokenFor(ada)
    for (const node of nodes)
      for (const kind of ['live', 'changes'] as const)
        readers.push(new LoyalReader({ transport: 'sse', kind, rows: 'all', url: node.url, token }).start())
    await until(areThere)
  })

  afterEach(async () => {
    for (const reader of readers) reader.stop()
    for (const node of nodes) await node.kill()
    await redis?.[Symbol.asyncDispose]()
    await link[Symbol.asyncDispose]()
    await shipping[Symbol.asyncDispose]()
    await database.client.end().catch(() => {})
    await standby[Symbol.asyncDispose]()
    await primary.stop()
    ;[nodes, readers, redis, lastId] = [[], [], null, 0]
  })

  const areThere = (): boolean => readers.every(reader => reader.isThere)

  const told = (reader: LoyalReader, id: number): boolean =>
    reader.kind === 'live' ? reader.rows.rows.has(JSON.stringify([id])) : reader.inserted.includes(firstEventId + id)

  /** Writes a row for those who follow rows and one for those who follow changes, and waits until they have them. */
  async function write(): Promise<void> {
    const id = ++lastId
    await database.query(
      `INSERT INTO messages VALUES (${id}, 1, 'ada', 'text'), (${firstEventId + id}, 1, 'ada', 'text')`,
    )
    await until(() => readers.every(reader => told(reader, id))).catch(error => {
      throw new Error(`${error}; ${readers.map(({ story }) => story)}; the log:\n${said(/./).join('\n')}`)
    })
  }

  const slotOnStandby = () =>
    standby.query<{ lsn: string }>(
      `SELECT confirmed_flush_lsn::text AS lsn FROM pg_replication_slots
        WHERE synced AND NOT temporary AND invalidation_reason IS NULL AND slot_name LIKE 'tidegate\\_%'`,
    )

  /** Rows are written until the standby keeps our slot. */
  async function synchronized(): Promise<void> {
    await database.query(`SELECT pg_create_logical_replication_slot('pace', 'pgoutput', false, false, true)`)
    await standby.keepSlots()
    const deadline = performance.now() + 40_000
    while ((await slotOnStandby()).length === 0) {
      if (performance.now() > deadline) throw new Error(`the standby keeps no slot:\n${standby.server.log.join('\n')}`)
      await write()
      // Only past such a record can the slot let go of the rows that the standby has cleaned up; else it comes every 15 s.
      await database.query('SELECT pg_log_standby_snapshot()')
      // While any slot moves, the standby asks five times a second; else ever more seldom, up to every 30 s.
      await database.query(`SELECT pg_replication_slot_advance('pace', pg_current_wal_lsn())`)
      await sleep(200)
    }
  }

  async function promoted(): Promise<void> {
    await standby.promote()
    const url = new URL(database.url)
    url.host = new URL(standby.server.url).host
    database = await TestDatabase.connect({ name: database.name, url: url.href })
  }

  const said = (pattern: RegExp): string[] => nodes.flatMap(node => node.saying.filter(line => pattern.test(line)))

  async function expectEqual(): Promise<void> {
    const expected = asSet(await selectAs(database, ada, 'SELECT * FROM messages WHERE id < 1000'))
    for (const reader of readers) {
      if (reader.kind === 'changes') continue
      await until(() => asSet(reader.rows.list()).join() === expected.join()).catch(() => {})
      expect(asSet(reader.rows.list())).toEqual(expected)
    }
  }

  test('[P4] a standby that had all that was told is promoted: the epoch goes on, nothing lost, nothing repeated', async () => {
    await database.query(`ALTER SYSTEM SET synchronized_standby_slots = 'standby'`)
    await database.query('SELECT pg_reload_conf()')
    await write()
    await synchronized()
    await write()
    const failedAt = performance.now()
    await database.client.end()
    await primary.halt('kill')
    // DATABASE_URL may well come to lead there first.
    const url = new URL(link.url)
    url.host = new URL(standby.server.url).host
    link.redirect(url.href)
    await until(() => said(/^warn DATABASE_STANDBY/).length === nodes.length)
    await promoted()
    await write()
    console.log(
      `${relay}: ${Math.round(performance.now() - failedAt)} ms from the primary's end to the first row of the new one`,
    )
    for (let i = 0; i < 5; i++) await write()
    await expectEqual()
    for (const reader of readers) {
      expect([reader.resyncs, reader.failure]).toEqual([[], null])
      if (reader.kind === 'changes')
        expect(reader.inserted).toEqual(Array.from({ length: lastId }, (_, index) => firstEventId + 1 + index))
    }
    expect(said(/^error/)).toEqual([])
    expect(said(/^warn DATABASE_STANDBY/)).toHaveLength(nodes.length)
  })

  test('[P4] [P8] a standby that lacked what was told is promoted: a new epoch, once, and the log says what would prevent it', async () => {
    await write()
    await synchronized()
    shipping.isolate()
    await write()
    await write()
    await database.client.end()
    await primary.halt('kill')
    await promoted()
    const kept = Number(
      (await database.query<{ n: string }>('SELECT max(id) AS n FROM messages WHERE id < 1000'))[0]!.n,
    )
    expect(kept).toBe(lastId - 2)
    const url = new URL(link.url)
    url.host = new URL(standby.server.url).host
    link.redirect(url.href)
    await until(() => areThere() && readers.every(reader => reader.resyncs.length > 0)).catch(() => {})
    await write()
    await expectEqual()
    for (const reader of readers) expect([reader.resyncs, reader.failure]).toEqual([['EPOCH_CHANGED'], null])
    expect(said(/^error/)).toEqual([expect.stringMatching(/^error HISTORY_DIVERGED: .*synchronized_standby_slots/)])
  })
})
