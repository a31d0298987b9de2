// What the doctor makes of facts that no test server has: other releases, other providers, other roles.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { databaseChecks } from '../../../src/server/doctor/database-checks.ts'
import type { ServerFacts } from '../../../src/server/doctor/database-facts.ts'
import { poolerFinding } from '../../../src/server/doctor/database-pooler.ts'
import {
  clockFinding,
  connectionFindings,
  idleSlotFinding,
  roleFindings,
  roomFindings,
  standbyFinding,
} from '../../../src/server/doctor/database-server.ts'
import { type OwnSlot, slotFindings, transactionFindings } from '../../../src/server/doctor/database-slots.ts'
import { releaseFindings } from '../../../src/server/doctor/postgres-releases.ts'

describe('releases', () => {
  test.each([
    [130_018, '13.18', 'failure', 'VERSION_UNSUPPORTED'],
    [190_000, '19.0', 'warning', null],
    [140_003, '14.3', 'failure', /built concurrently.*CVE-2023-2455.*CVE-2024-10976.*upgrade to 14\.\d+$/],
    [150_008, '15.8 (Debian 15.8-0+deb12u1)', 'failure', /CVE-2024-10976/],
    [160_005, '16.5', 'warning', /lost; changes of definitions/],
    [170_005, '17.5', 'warning', /stop the decoding/],
    [
      170_006,
      '17.6',
      'ok',
      /no fault of 17\.6 is known to concern Tidegate; the newest known to this release is 17\.\d+$/,
    ],
    [180_000, '18.0', 'ok', /no fault/],
  ] as const)('%d', (number, version, verdict, expected) => {
    const found = releaseFindings(number, version).at(-1)!
    expect(found.verdict).toBe(verdict)
    if (expected === null || typeof expected === 'string') expect(found.code).toBe(expected)
    else expect(found.reason).toMatch(expected)
  })

  test('on Debian the packages are named', () => {
    const found = releaseFindings(150_008, '15.8 (Debian 15.8-0+deb12u1)').at(-1)!
    expect(found.remedy?.text).toBe('sudo apt-get update\nsudo apt-get install --only-upgrade postgresql-15')
  })

  test('a newer minor has no fault that an older one has not', () => {
    fc.assert(
      fc.property(fc.integer({ min: 14, max: 18 }), fc.integer({ min: 0, max: 40 }), (major, minor) => {
        const rank = (each: number): number =>
          ['ok', 'warning', 'failure'].indexOf(releaseFindings(major * 10_000 + each, `${major}.${each}`)[1]!.verdict)
        expect(rank(minor + 1)).toBeLessThanOrEqual(rank(minor))
      }),
    )
  })
})

const facts: ServerFacts = {
  versionNumber: 150_014,
  version: '15.14',
  inRecovery: false,
  login: 'tidegate',
  database: 'app',
  maxReplicationSlots: 10,
  slots: 0,
  maxWalSenders: 10,
  walSenders: 0,
  walSenderTimeoutMs: 60_000,
  maxSlotWalKeepSizeMb: 2048,
  idleSlotTimeoutS: null,
  maxConnections: 100,
  reservedConnections: 3,
  sessions: 10,
  ownSessions: 1,
  loginConnectionLimit: null,
  databaseConnectionLimit: null,
  synchronousStandbyNames: '',
  standbys: [],
  awaitedSlots: [],
  seesAll: true,
  roles: [],
}

describe('room for slots and walsenders', () => {
  test.each([
    ['none of ours, none left', 10, 0, false, 'failure', 'failure', 12],
    ['none of ours, one left', 9, 0, false, 'warning', 'warning', 11],
    ['none of ours, two left', 8, 0, false, 'ok', 'ok', null],
    ['ours is read, none left', 10, 1, true, 'warning', 'warning', 11],
    ['ours is read, one left', 9, 1, true, 'ok', 'ok', null],
    ['ours rests, one left', 9, 1, false, 'ok', 'warning', null],
  ] as const)('%s', (_, used, slots, isRead, slotVerdict, senderVerdict, most) => {
    const [slot, sender] = roomFindings({ ...facts, slots: used, walSenders: used }, { slots, isRead })
    expect([slot!.verdict, sender!.verdict]).toEqual([slotVerdict, senderVerdict])
    if (most !== null) expect(slot!.remedy!.text).toBe(`ALTER SYSTEM SET max_replication_slots = ${most};`)
  })

  test('what is said to be set is enough', () => {
    const amount = fc.integer({ min: 0, max: 50 })
    fc.assert(
      fc.property(amount, amount, fc.boolean(), (most, used, isRead) => {
        const own = { slots: isRead ? 1 : 0, isRead }
        const here = { ...facts, maxReplicationSlots: most, slots: used, maxWalSenders: most, walSenders: used }
        const set = (text: string | undefined, otherwise: number): number =>
          text === undefined ? otherwise : Number(/= (\d+);$/.exec(text)![1])
        const [slot, sender] = roomFindings(here, own)
        const after = roomFindings(
          {
            ...here,
            maxReplicationSlots: set(slot!.remedy?.text, most),
            maxWalSenders: set(sender!.remedy?.text, most),
          },
          own,
        )
        expect(after.map(({ verdict }) => verdict)).toEqual(['ok', 'ok'])
      }),
    )
  })
})

test('what max_connections is said to be is enough', () => {
  const few = fc.integer({ min: 0, max: 300 })
  fc.assert(
    fc.property(
      fc.integer({ min: 4, max: 100 }),
      fc.integer({ min: 4, max: 300 }),
      few,
      few,
      (pool, most, sessions, own) => {
        const here = { ...facts, maxConnections: most, sessions: sessions + own, ownSessions: own }
        const [found] = connectionFindings(here, pool)
        if (found!.verdict === 'ok') return
        const maxConnections = Number(/= (\d+);$/.exec(found!.remedy!.text)![1])
        expect(connectionFindings({ ...here, maxConnections }, pool)[0]!.verdict).toBe('ok')
      },
    ),
  )
})

describe('synchronous_standby_names', () => {
  test.each([
    ['', [], null],
    ['FIRST 1 (a, b)', ['a'], null],
    ['*', ['a', 'b'], `'"a", "b"'`],
    ['ANY 1 (*)', ['a', 'tidegate wal'], `'ANY 1 ("a")'`],
    ['FIRST 1 ("*")', [], `''`],
    ['FIRST 1 ("tidegate wal", "a")', ['a', 'tidegate wal'], `'FIRST 1 ("a")'`],
  ] as const)('%s with %j connected', (synchronousStandbyNames, standbys, value) => {
    const found = standbyFinding({ synchronousStandbyNames, standbys }, 'tidegate wal')
    expect(found.verdict).toBe(value === null ? 'ok' : 'failure')
    if (value === null) return
    expect(found.remedy!.text).toBe(`ALTER SYSTEM SET synchronous_standby_names = ${value};\nSELECT pg_reload_conf();`)
    const names = value.slice(1, -1)
    expect(standbyFinding({ synchronousStandbyNames: names, standbys }, 'tidegate wal').verdict).toBe('ok')
  })
})

test.each([
  [0, 1, 'ok'],
  [1_400, 1_000, 'ok'],
  [-1_600, 1_000, 'warning'],
  [29_000, 10, 'warning'],
  [-31_000, 10, 'failure'],
] as const)('a clock %d ms off, read within %d ms: %s', (skewMs, roundTripMs, verdict) => {
  expect(clockFinding({ skewMs, roundTripMs }).verdict).toBe(verdict)
})

test.each([
  [null, 'ok'],
  [0, 'ok'],
  [600, 'warning'],
  [3_600, 'ok'],
] as const)('idle_replication_slot_timeout of %j s: %s', (idleSlotTimeoutS, verdict) => {
  expect(idleSlotFinding({ idleSlotTimeoutS }).verdict).toBe(verdict)
})

test('before Postgres 16 a member may always take the role, and no option is named', () => {
  const role = { role: 'we"ird', exists: true, isMember: false, isSuperuser: false, bypassesRowSecurity: false }
  const [found] = roleFindings({ ...facts, roles: [role] }, ['we"ird'])
  expect(found).toMatchObject({ check: 'roles', verdict: 'failure', code: 'ROLE_REFUSED' })
  expect(found!.remedy!.text).toBe('GRANT "we""ird" TO "tidegate";')
})

test('a superuser among the roles is told as one', () => {
  const role = { role: 'boss', exists: true, isMember: true, isSuperuser: true, bypassesRowSecurity: true }
  const found = roleFindings({ ...facts, roles: [role] }, ['anon', 'boss'])
  expect(found.find(({ check }) => check === 'role-powers')).toMatchObject({
    verdict: 'warning',
    reason: expect.stringContaining('boss is a superuser'),
    remedy: { text: 'JWT_ROLES=anon' },
  })
})

describe('transactions of others', () => {
  const hidden = { pid: 7, role: null, application: null, state: null, ageMs: null }
  test.each([
    [100, 'ok'],
    [200_000, 'warning'],
  ] as const)('one that cannot be seen, %d transactions old: %s', (ageXids, verdict) => {
    const [found] = transactionFindings([{ ...hidden, ageXids }], { seesAll: false, transactionMs: 300_000 })
    expect(found!.verdict).toBe(verdict)
    if (verdict === 'warning') expect(found!.reason).toContain('of another role has run for 200000 transactions')
    else expect(found!.reason).toContain('as far as this login sees')
  })
})

describe('the slot', () => {
  const slot: OwnSlot = {
    slotName: 'tidegate_00000000',
    activePid: 12,
    confirmedFlushLsn: 5n,
    restartLsn: 4n,
    walStatus: 'reserved',
    invalidationReason: null,
    failover: null,
    retainedBytes: 10n,
    idleMs: null,
  }
  const limits = { slotMaxBytes: 1000, idleSlotMs: 300_000 }
  const verdicts = (change: Partial<OwnSlot>) =>
    slotFindings([{ ...slot, ...change }], limits).map(({ check, verdict }) => `${check} ${verdict}`)
  test.each([
    ['read', {}, ['slot ok', 'slot-wal ok']],
    ['at rest', { activePid: null }, ['slot ok', 'slot-wal ok']],
    ['at rest for less than long', { activePid: null, idleMs: 299_000 }, ['slot ok', 'slot-wal ok']],
    ['at rest for long', { activePid: null, idleMs: 301_000 }, ['slot warning', 'slot-wal ok']],
    ['with half of the limit', { retainedBytes: 501n }, ['slot ok', 'slot-wal warning']],
    ['past the limit', { retainedBytes: 1001n }, ['slot ok', 'slot-wal failure']],
    ['whose WAL is gone', { activePid: null, walStatus: 'lost' }, ['slot failure']],
    ['that rested too long', { activePid: null, invalidationReason: 'idle_timeout' }, ['slot failure']],
  ] as const)('one %s', (_, change, expected) => {
    expect(verdicts(change)).toEqual(expected)
  })

  test('a lost one beside one that is read is dropped', () => {
    const lost = { ...slot, slotName: 'tidegate_11111111', activePid: null, walStatus: 'lost' }
    const found = slotFindings([lost, slot], limits).filter(({ check }) => check === 'slot')
    expect(found.map(({ about, verdict }) => [about, verdict])).toEqual([
      ['tidegate_11111111', 'failure'],
      ['tidegate_00000000', 'ok'],
    ])
  })
})

test('a pooler that keeps sessions shows by the process it names', () => {
  const look = { refusal: null, isOwn: true, isDirect: false, login: 'app', database: 'app', host: null, port: 5432 }
  expect(poolerFinding(look, false)).toMatchObject({
    verdict: 'warning',
    remedy: { text: 'DATABASE_REPLICATION_URL=postgres://app:<password>@<host of Postgres>:5432/app' },
  })
  expect(poolerFinding({ ...look, isDirect: true }, false)).toMatchObject({ verdict: 'ok' })
})

test('every check asks a question', () => {
  for (const { asks } of Object.values(databaseChecks)) expect(asks).toMatch(/^[A-Z].*\?/)
})
