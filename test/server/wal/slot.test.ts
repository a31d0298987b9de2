import { expect, test } from 'vitest'
import { backoffMs } from '../../../src/server/wal/backoff.ts'
import { assertReady, type DatabaseFacts, keepSizeWarning, standbyWarning } from '../../../src/server/wal/preflight.ts'
import { assertDeploymentName, decideSlot, epochOf, type SlotRow } from '../../../src/server/wal/slot.ts'
import { startReplication } from '../../../src/server/wal/wal-plugin.ts'

const healthy: SlotRow = {
  slotName: 'tidegate_0a1b2c3d',
  activePid: null,
  confirmedFlushLsn: 1000n,
  restartLsn: 900n,
  walStatus: 'reserved',
  invalidationReason: null,
  failover: null,
  retainedBytes: 100n,
}

const decide = (rows: readonly SlotRow[], expected: string | null = null, relayHead: bigint | null = null) =>
  decideSlot({
    rows,
    slotMaxBytes: 1_000_000,
    expected,
    relayHead: () => relayHead,
    toldLsn: () => relayHead,
    walEndLsn: 2000n,
  })

test('no slot: one is created, quietly the first time, loudly when it was there before', () => {
  expect(decide([])).toEqual({ action: 'create', drop: [], cause: null })
  expect(decide([], 'tidegate_0a1b2c3d')).toMatchObject({ action: 'create', cause: { code: 'SLOT_LOST' } })
})

test('a healthy slot is read, whether the relay holds nothing or everything acknowledged', () => {
  expect(decide([healthy])).toEqual({ action: 'stream', slot: healthy })
  expect(decide([healthy], healthy.slotName, 1000n)).toEqual({ action: 'stream', slot: healthy })
})

test('a slot in use is waited for', () => {
  const busy = { ...healthy, activePid: 4711 }
  expect(decide([busy])).toEqual({ action: 'wait', slot: busy, pid: 4711 })
})

test.each<[change: Partial<SlotRow>, code: string]>([
  [{ walStatus: 'lost' }, 'SLOT_LOST'],
  [{ restartLsn: null }, 'SLOT_LOST'],
  [{ invalidationReason: 'idle_timeout' }, 'SLOT_LOST'],
  [{ retainedBytes: 1_000_001n }, 'SLOT_OVER_LIMIT'],
  [{ confirmedFlushLsn: 1001n }, 'SLOT_AHEAD'],
])('[P4] [P6] a slot with %o ends its epoch with %s', (change, code) => {
  const slot = { ...healthy, ...change }
  expect(decide([slot], slot.slotName, 1000n)).toMatchObject({ action: 'create', drop: [slot], cause: { code } })
})

test('[P4] a database that was set back before what had been told ends the epoch: new commits would be skipped as old', () => {
  expect(decide([healthy], healthy.slotName, 2000n)).toEqual({ action: 'stream', slot: healthy })
  expect(decide([healthy], healthy.slotName, 2001n)).toMatchObject({
    action: 'create',
    drop: [healthy],
    cause: { code: 'HISTORY_DIVERGED' },
  })
})

test('of several slots the one in use counts, then a usable one', () => {
  const lost = { ...healthy, slotName: 'tidegate_00000000', walStatus: 'lost', confirmedFlushLsn: 9000n }
  const busy = { ...healthy, slotName: 'tidegate_11111111', activePid: 1, confirmedFlushLsn: 1n }
  expect(decide([lost, healthy])).toMatchObject({ action: 'stream', slot: healthy })
  expect(decide([lost, healthy, busy])).toMatchObject({ action: 'wait', slot: busy })
})

test('the epoch is another for another slot, timeline or system', () => {
  const epochs = [
    epochOf({ systemId: '7', timeline: '1' }, 'tidegate_0a1b2c3d'),
    epochOf({ systemId: '7', timeline: '1' }, 'tidegate_0a1b2c3e'),
    epochOf({ systemId: '7', timeline: '2' }, 'tidegate_0a1b2c3d'),
    epochOf({ systemId: '8', timeline: '1' }, 'tidegate_0a1b2c3d'),
  ]
  expect(new Set(epochs).size).toBe(4)
  for (const epoch of epochs) expect(epoch).toMatch(/^[0-9a-f]{8}$/)
  expect(epochOf({ systemId: '7', timeline: '1' }, 'tidegate_0a1b2c3d')).toBe(epochs[0])
})

test.each(['', 'Tide', 'a-b', 'a.b', 'ü', 'x'.repeat(55)])('the deployment name %j is refused', name => {
  expect(() => assertDeploymentName(name)).toThrow(expect.objectContaining({ code: 'CONFIG_INVALID' }))
})

test('names of slots and publications are quoted', () => {
  expect(startReplication('tidegate_0a1b2c3d', '0/0', `It's "A", \\b`)).toBe(
    `START_REPLICATION SLOT "tidegate_0a1b2c3d" LOGICAL 0/0 (proto_version '1', publication_names '"It''s ""A"", \\b"', messages 'true')`,
  )
})

const facts: DatabaseFacts = {
  versionNumber: 140000,
  walLevel: 'logical',
  user: 'Tide',
  mayReplicate: true,
  hasPublication: true,
  maxSlotWalKeepSize: '-1',
  synchronousStandbyNames: '',
}

test.each<[change: Partial<DatabaseFacts>, code: string, statement: string]>([
  [{ versionNumber: 130012 }, 'VERSION_UNSUPPORTED', 'upgrade'],
  [{ walLevel: 'replica' }, 'WAL_LEVEL', 'ALTER SYSTEM SET wal_level = logical'],
  [{ mayReplicate: false }, 'NOT_REPLICATION', 'ALTER ROLE "Tide" REPLICATION;'],
  [{ hasPublication: false }, 'PUBLICATION_MISSING', 'tidegate migrate'],
])('[P8] a database with %o is refused with %s and what to type', (change, code, statement) => {
  const check = () => assertReady({ ...facts, ...change }, 'tidegate')
  expect(check).toThrow(expect.objectContaining({ code, message: expect.stringContaining(statement) }))
  expect(() => assertReady(facts, 'tidegate')).not.toThrow()
})

test('[P6] a database whose disk a stopped consumer would fill is warned about, with the statement', () => {
  const statement = "ALTER SYSTEM SET max_slot_wal_keep_size = '2048MB'; SELECT pg_reload_conf();"
  expect(keepSizeWarning(facts, 2 ** 30)).toContain(statement)
  expect(keepSizeWarning({ ...facts, maxSlotWalKeepSize: '10GB' }, 2 ** 30)).toBeNull()
})

test.each([
  ['*', true],
  ['"*"', true],
  ['ANY 1 (a, *)', true],
  ['FIRST 1 (*)', true],
  ['', false],
  ['ANY 1 (a, b)', false],
])('[P6] synchronous_standby_names = %j is warned about: %s', (synchronousStandbyNames, warned) => {
  expect(standbyWarning({ ...facts, synchronousStandbyNames }) !== null).toBe(warned)
})

test('the backoff doubles up to its limit, anywhere below it', () => {
  const backoff = { firstMs: 250, maxMs: 10_000 }
  expect([0, 1, 2, 5, 6, 1000].map(attempt => backoffMs(attempt, 1, backoff))).toEqual([
    250, 500, 1000, 8000, 10_000, 10_000,
  ])
  expect(backoffMs(5, 0, backoff)).toBe(0)
})
