// What the server must have, broken on purpose on one of its own, found, and mended by what the doctor says.
import pg from 'pg'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { LocalPostgres } from '../../../src/cli/local-postgres.ts'
import { eventually } from '../../support/eventually.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { Standby } from '../../support/standby.ts'
import { expectMended, Patient } from './database-break.ts'

let server: LocalPostgres
let database: TestDatabase
let patient: Patient
let now = (): number => Date.now()

const admin = (sql: string): Promise<unknown> => database.query(sql)

async function restart(): Promise<void> {
  await server.halt('fast')
  await server.start()
  database = await TestDatabase.connect(database)
}

beforeAll(async () => {
  server = await LocalPostgres.create({
    settings: { fsync: 'off' },
  })
  // As they are where nobody has set them; so ALTER SYSTEM can.
  for (const name of ['wal_level', 'max_wal_senders', 'max_replication_slots', 'max_connections']) server.leave(name)
  await server.start()
  database = await TestDatabase.create(server.url)
  patient = new Patient(
    { databaseUrl: database.url, adminUrl: database.url },
    { DATABASE_POOL: '8' },
    { now: () => now(), patience: { transactionMs: 0, idleSlotMs: 0 } },
  )
  await patient.migrate()
})

afterAll(async () => {
  await database.client.end()
  await server.stop()
})

async function walsender(): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: database.url, replication: 'database' } as pg.ClientConfig)
  client.on('error', () => {})
  await client.connect()
  return client
}

describe('what takes a restart', () => {
  test('[P8] wal_level, slots, walsenders and connections, found together, and mended one after the other', async () => {
    const settings = ['max_replication_slots = 1', 'max_wal_senders = 1', 'max_connections = 10']
    for (const setting of [...settings, 'max_prepared_transactions = 5']) await admin(`ALTER SYSTEM SET ${setting}`)
    await restart()
    await admin(`SELECT pg_create_physical_replication_slot('of_others')`)
    const other = await walsender()
    const found = await patient.findings()
    const expected = [
      {
        check: 'wal-level',
        code: 'WAL_LEVEL',
        reason: 'wal_level is replica',
        text: 'ALTER SYSTEM SET wal_level = logical;',
      },
      {
        check: 'replication-slots',
        code: 'SLOT_BLOCKED',
        reason: '1 of max_replication_slots = 1 are used, 0 left: Tidegate needs one, and one beside it for a moment',
        text: 'ALTER SYSTEM SET max_replication_slots = 3;',
      },
      {
        check: 'wal-senders',
        code: null,
        reason: '1 of max_wal_senders = 1 are used, 0 left: Tidegate needs one, and one beside it for a moment',
        text: 'ALTER SYSTEM SET max_wal_senders = 3;',
      },
      {
        check: 'connections',
        code: null,
        reason: expect.stringMatching(
          /^max_connections is 10, 3 of it reserved, \d in use: too few for DATABASE_POOL=8$/,
        ),
        text: expect.stringMatching(/^ALTER SYSTEM SET max_connections = 1\d;$/),
      },
    ]
    for (const { check, code, reason, text } of expected) {
      const finding = found.find(each => each.check === check)
      expect(finding).toMatchObject({ verdict: 'failure', reason, code, remedy: { text } })
      expect(finding!.remedy!.then).toBe('restart Postgres')
      await patient.run(finding!.remedy!)
    }
    expect(found.find(({ check }) => check === 'replication-connection')).toMatchObject({ verdict: 'failure' })
    await other.end()
    await restart()
    const again = await walsender()
    const after = await patient.findings()
    await again.end()
    const checks = [...expected.map(({ check }) => check), 'replication-connection']
    expect(after.filter(({ check, verdict }) => checks.includes(check) && verdict !== 'ok')).toEqual([])
    await admin(`SELECT pg_drop_replication_slot('of_others')`)
  })
})

describe('what takes a reload', () => {
  test('[P6] the slot may fill the disk, or is given up before its limit', async () => {
    const remedy = `ALTER SYSTEM SET max_slot_wal_keep_size = '2048MB';\nSELECT pg_reload_conf();`
    await expectMended(patient, { check: 'slot-wal-limit', verdict: 'failure', reason: /is -1/, remedy })
    await admin(`ALTER SYSTEM SET max_slot_wal_keep_size = '100MB'`)
    await admin('SELECT pg_reload_conf()')
    await eventually(async () => expect((await patient.finding('slot-wal-limit')).verdict).toBe('warning'))
    await expectMended(patient, {
      check: 'slot-wal-limit',
      verdict: 'warning',
      reason: /is 100 MB, SLOT_MAX_BYTES 1024 MB/,
      remedy,
    })
  })

  test.each([
    ['wal-sender-timeout', 'wal_sender_timeout = 0', 'warning', /is 0: other readers/, `wal_sender_timeout = '60s'`],
    [
      'slot-idle-timeout',
      `idle_replication_slot_timeout = '10min'`,
      'warning',
      /is 10 min/,
      `idle_replication_slot_timeout = '1d'`,
    ],
    [
      'synchronous-standbys',
      `synchronous_standby_names = '*'`,
      'failure',
      /counts readers of the WAL/,
      `synchronous_standby_names = ''`,
    ],
  ] as const)('[P8] %s', async (check, broken, verdict, reason, mended) => {
    await admin(`ALTER SYSTEM SET ${broken}`)
    await admin('SELECT pg_reload_conf()')
    await eventually(async () => expect((await patient.finding(check)).verdict).toBe(verdict))
    await expectMended(patient, {
      check,
      verdict,
      reason,
      remedy: `ALTER SYSTEM SET ${mended};\nSELECT pg_reload_conf();`,
    })
  })

  test('[P8] a standby that the slot waits for is away', async () => {
    await admin(`SELECT pg_create_physical_replication_slot('away')`)
    await admin(`ALTER SYSTEM SET synchronized_standby_slots = 'away'`)
    await admin('SELECT pg_reload_conf()')
    await eventually(async () => expect((await patient.finding('awaited-standbys')).verdict).toBe('failure'))
    await expectMended(patient, {
      check: 'awaited-standbys',
      verdict: 'failure',
      reason: /no standby reads away: nothing is sent to anybody/,
      remedy: `ALTER SYSTEM SET synchronized_standby_slots = '';\nSELECT pg_reload_conf();`,
    })
    await admin(`SELECT pg_drop_replication_slot('away')`)
  })

  test('[P8] the login, or the database, may have too few connections', async () => {
    await admin(`ALTER DATABASE ${database.name} CONNECTION LIMIT 5`)
    await expectMended(patient, {
      check: 'connections',
      verdict: 'failure',
      reason: /may have 5 connections, and a node opens DATABASE_POOL=8/,
      remedy: `ALTER DATABASE "${database.name}" CONNECTION LIMIT -1;`,
    })
  })
})

describe('the slot', () => {
  const make = (suffix: string): Promise<unknown> =>
    admin(`SELECT pg_create_logical_replication_slot('tidegate_${suffix}', 'pgoutput')`)

  test('[P6] one that nobody reads, and one too many', async () => {
    await make('aaaaaaaa')
    await make('bbbbbbbb')
    const extra = (await patient.findings()).find(({ reason }) => reason.includes('one too many'))!
    await expectMended(patient, {
      check: 'slot',
      about: extra.about!,
      verdict: 'warning',
      reason: /it is one too many/,
      remedy: `SELECT pg_drop_replication_slot('${extra.about}');`,
    })
    const left = extra.about === 'tidegate_aaaaaaaa' ? 'tidegate_bbbbbbbb' : 'tidegate_aaaaaaaa'
    await expectMended(patient, {
      check: 'slot',
      about: left,
      verdict: 'warning',
      reason: /nobody has streamed from it for 0 min/,
      remedy: `SELECT pg_drop_replication_slot('${left}');`,
    })
  })

  test('[P6] one that holds back more than SLOT_MAX_BYTES', async () => {
    await make('cccccccc')
    await admin(`CREATE TABLE ballast AS SELECT repeat('x', 100) FROM generate_series(1, 1000)`)
    patient.config = { ...patient.config, slotMaxBytes: 1024 }
    await expectMended(patient, {
      check: 'slot-wal',
      about: 'tidegate_cccccccc',
      verdict: 'failure',
      reason: /more than SLOT_MAX_BYTES=1024: it is dropped at the next look; nobody reads it/,
      remedy: /^SLOT_MAX_BYTES=\d+$/,
    })
    patient.config = { ...patient.config, slotMaxBytes: 1024 ** 3 }
    await admin(`SELECT pg_drop_replication_slot('tidegate_cccccccc')`)
  })

  test('[P4] one that is lost', async () => {
    await make('dddddddd')
    await admin(`ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'`)
    await admin('SELECT pg_reload_conf()')
    await eventually(async () => {
      await admin(`SELECT pg_logical_emit_message(false, 'ballast', repeat('x', 1000))`)
      await admin('SELECT pg_switch_wal()')
      await admin('CHECKPOINT')
      expect((await patient.finding('slot', 'tidegate_dddddddd')).verdict).toBe('failure')
    })
    await expectMended(patient, {
      check: 'slot',
      about: 'tidegate_dddddddd',
      verdict: 'failure',
      reason: /the slot is lost: it kept more WAL than max_slot_wal_keep_size/,
      remedy: `SELECT pg_drop_replication_slot('tidegate_dddddddd');`,
    })
    await admin(`ALTER SYSTEM SET max_slot_wal_keep_size = '2GB'`)
    await admin('SELECT pg_reload_conf()')
  })
})

describe('what holds it back', () => {
  test('[P6] a transaction that has written and does not end', async () => {
    const client = new pg.Client({ connectionString: database.url, application_name: 'forgetful' })
    client.on('error', () => {})
    await client.connect()
    await client.query('BEGIN; SELECT pg_current_xact_id()')
    const { processID } = client as unknown as { processID: number }
    await expectMended(patient, {
      check: 'long-transactions',
      about: String(processID),
      verdict: 'warning',
      reason: /a transaction of postgres, forgetful has run for 0 s and is idle in transaction/,
      remedy: `SELECT pg_terminate_backend(${processID}, 5000);`,
    })
    await client.end().catch(() => {})
  })

  test('[P6] a prepared transaction that nobody ends', async () => {
    await admin(`BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'it''s forgotten'`)
    await expectMended(patient, {
      check: 'prepared-transactions',
      about: "it's forgotten",
      verdict: 'warning',
      reason: /postgres prepared it 0 s ago in the database tidegate_test_/,
      remedy: `ROLLBACK PREPARED 'it''s forgotten';`,
    })
  })
})

test('[P8] the clock of Postgres is not this machine’s', async () => {
  now = () => Date.now() + 5_000
  const behind = await patient.finding('clock')
  expect(behind).toMatchObject({ verdict: 'warning', remedy: { kind: 'shell', text: 'sudo timedatectl set-ntp true' } })
  expect(behind.reason).toMatch(/behind this machine's/)
  now = () => Date.now() - 60_000
  const ahead = await patient.finding('clock')
  expect(ahead).toMatchObject({ verdict: 'failure' })
  expect(ahead.reason).toMatch(/ahead of this machine's .*: tokens are taken that are over, or refused that are good/)
  now = () => Date.now()
  expect(await patient.finding('clock')).toMatchObject({ verdict: 'ok' })
})

test('[P8] a server that does not answer, or keeps the login out, is one failure with the reason', async () => {
  for (const [url, reason] of [
    ['postgres://nobody:secret@127.0.0.1:1/none', /no connection to nobody@127\.0\.0\.1:1\/none: .*ECONNREFUSED/],
    [database.url.replace('postgres:postgres', 'postgres:wrong'), /password authentication failed/],
  ] as const) {
    const stranger = new Patient({ databaseUrl: url, adminUrl: url })
    const found = await stranger.findings()
    expect(found).toEqual([
      expect.objectContaining({ check: 'postgres-reachable', verdict: 'failure', code: 'DATABASE_UNREACHABLE' }),
    ])
    expect(found[0]!.reason).toMatch(reason)
    expect(JSON.stringify(found)).not.toMatch(/secret|wrong/)
  }
})

test('[P8] a standby is told, and promoted', async () => {
  await using standby = await Standby.of(server, { slotName: 'standby' })
  const url = new URL(standby.server.url)
  url.pathname = `/${database.name}`
  const there = new Patient({ databaseUrl: url.href, adminUrl: url.href })
  await expectMended(there, {
    check: 'postgres-primary',
    verdict: 'failure',
    reason: /it is a standby/,
    remedy: 'SELECT pg_promote();',
  })
})
