import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { CommitTrace } from '../../../src/server/figures/commit-trace.ts'
import { CommitsRecord } from '../../../src/server/inspect/commits-seen.ts'

const trace = (xid: number): CommitTrace => ({
  xid,
  lsn: '0/0',
  committedAtMs: 0,
  bytes: 0,
  changes: 0,
  tables: [],
  audiences: 0,
  deliveries: 0,
  spans: [],
})

test('the newest 25 are told, and the others counted', () => {
  let commits = 10
  const record = new CommitsRecord(() => commits)
  for (let xid = 1; xid <= 40; xid += 1) record.take(trace(xid))
  commits += 40
  const seen = record.look()!
  expect(seen.traces.map(({ xid }) => xid)).toEqual(Array.from({ length: 25 }, (_, place) => place + 16))
  expect(seen.skipped).toBe(15)
  expect(record.look()).toBeNull()
})

test('a commit that was counted before it was traced is told once', () => {
  let commits = 0
  const record = new CommitsRecord(() => commits)
  commits = 1
  expect(record.look()).toBeNull()
  record.take(trace(7))
  expect(record.look()).toEqual({ traces: [trace(7)], skipped: 0 })
  expect(record.look()).toBeNull()
})

test('what is not traced by the next look is skipped', () => {
  let commits = 0
  const record = new CommitsRecord(() => commits)
  commits = 500
  record.take(trace(1))
  expect(record.look()).toEqual({ traces: [trace(1)], skipped: 0 })
  expect(record.look()).toEqual({ traces: [], skipped: 499 })
  expect(record.look()).toBeNull()
})

test('in the end every commit was shown or counted, whatever came first and however often somebody looked', () => {
  const step = fc.constantFrom('look', 'skipped', 'traced', 'traced late', 'traced early' as const)
  fc.assert(
    fc.property(fc.array(step, { maxLength: 300 }), steps => {
      let commits = 0
      let shown = 0
      let skipped = 0
      const record = new CommitsRecord(() => commits)
      const look = (): void => {
        const seen = record.look()
        expect(seen?.traces.length ?? 0).toBeLessThanOrEqual(25)
        expect(seen?.skipped ?? 0).toBeGreaterThanOrEqual(0)
        shown += seen?.traces.length ?? 0
        skipped += seen?.skipped ?? 0
      }
      for (const each of steps) {
        if (each === 'traced early') record.take(trace(0))
        if (each === 'look' || each === 'traced early') look()
        if (each !== 'look') commits += 1
        if (each === 'traced late') look()
        if (each === 'traced' || each === 'traced late') record.take(trace(0))
      }
      look()
      look()
      expect(shown + skipped).toBe(commits)
    }),
  )
})
