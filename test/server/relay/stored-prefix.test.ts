import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Commit } from '../../../src/server/decode/change.ts'
import { StoredPrefix } from '../../../src/server/relay/stored-prefix.ts'
import { parseSnapshot } from '../../../src/server/wal/visibility.ts'

const commit = (n: number, bytes = 100) =>
  ({ xid: n, commitLsn: BigInt(n * 100), endLsn: BigInt(n * 100 + 50), bytes }) as Commit
/** Sees all below `xmax` but these. */
const snapshot = (xmax: number, ...running: number[]) =>
  parseSnapshot(`${Math.min(xmax, ...running)}:${xmax}:${running.join()}`)

function prefixOf({ holdMs = 0, holdBytes = 1e9 } = {}) {
  const clock = { now: 1000 }
  return { clock, prefix: new StoredPrefix({ settledLsn: 7n, holdMs, holdBytes, now: () => clock.now }) }
}

test('[P4] [P6] nothing is acknowledged past a commit that is not stored, or not visible', () => {
  const { prefix } = prefixOf()
  for (const n of [1, 2, 3, 4]) {
    prefix.came(commit(n))
    prefix.sampled(snapshot(0))
  }
  expect(prefix.acknowledgeable).toBe(null)
  expect(prefix.settledLsn).toBe(7n)
  prefix.sampled(snapshot(9, 3))
  expect(prefix.acknowledgeable).toBe(null)
  expect(prefix.settledLsn).toBe(200n)
  prefix.stored(100n)
  prefix.sampled(snapshot(9, 3))
  expect(prefix.acknowledgeable).toBe(150n)
  prefix.stored(400n)
  prefix.sampled(snapshot(9, 3))
  expect(prefix.acknowledgeable).toBe(250n)
  prefix.sampled(snapshot(9))
  expect(prefix.acknowledgeable).toBe(450n)
  expect(prefix.settledLsn).toBe(400n)
})

test('[P4] what came a moment ago is held back, so that the slot can refill a journal that lost it', () => {
  const { prefix, clock } = prefixOf({ holdMs: 5000, holdBytes: 1000 })
  prefix.came(commit(1))
  prefix.stored(100n)
  prefix.sampled(snapshot(9))
  expect(prefix.acknowledgeable).toBe(null)
  clock.now += 5000
  prefix.sampled(snapshot(9))
  expect(prefix.acknowledgeable).toBe(150n)
  // But not when much came after it.
  prefix.came(commit(2))
  prefix.sampled(snapshot(9))
  prefix.came(commit(3, 2000))
  prefix.stored(300n)
  prefix.sampled(snapshot(9))
  expect(prefix.acknowledgeable).toBe(250n)
})

test('[P4] whatever comes, is stored, and is seen in whatever order: never past the first commit that is not both', () => {
  const step = fc.oneof(
    fc.record({ do: fc.constant('come' as const), count: fc.integer({ min: 1, max: 2500 }) }),
    fc.record({ do: fc.constant('store' as const), part: fc.double({ min: 0, max: 1, noNaN: true }) }),
    fc.record({ do: fc.constant('sample' as const), invisible: fc.array(fc.nat(4000), { maxLength: 4 }) }),
    fc.record({ do: fc.constant('wait' as const) }),
  )
  fc.assert(
    fc.property(fc.array(step, { maxLength: 30 }), steps => {
      const { prefix, clock } = prefixOf({ holdMs: 10 })
      let came = 0
      let stored = 0
      const seen = new Set<number>()
      for (const each of steps) {
        if (each.do === 'come') for (let i = 0; i < each.count; i++) prefix.came(commit(++came))
        else if (each.do === 'store') {
          stored = Math.max(stored, Math.floor(came * each.part))
          prefix.stored(BigInt(stored * 100))
        } else if (each.do === 'wait') clock.now += 11
        else {
          const invisible = new Set(each.invisible.filter(n => n > 0 && n <= came && !seen.has(n)))
          for (let n = 1; n <= came; n++) if (!invisible.has(n)) seen.add(n)
          prefix.sampled(snapshot(came + 1, ...invisible))
        }
        let exact = 0
        while (exact < stored && seen.has(exact + 1)) exact += 1
        const acknowledged = prefix.acknowledgeable
        expect(acknowledged === null || acknowledged <= BigInt(exact * 100 + 50)).toBe(true)
      }
      // And in the end, everything.
      prefix.stored(BigInt(came * 100))
      clock.now += 11
      prefix.sampled(snapshot(came + 1))
      prefix.sampled(snapshot(came + 1))
      expect(prefix.acknowledgeable).toBe(came === 0 ? null : BigInt(came * 100 + 50))
    }),
    { numRuns: 200 },
  )
})
