import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseSnapshot, widen } from '../../../src/server/wal/visibility.ts'

const epoch1 = 2n ** 32n

test.each<[snapshot: string, xid: number, sees: boolean, why: string]>([
  ['100:110:', 99, true, 'before xmin'],
  ['100:110:', 105, true, 'between xmin and xmax, not in progress'],
  ['100:110:105', 105, false, 'in progress'],
  ['100:110:103,105', 104, true, 'between two that are in progress'],
  ['100:110:', 110, false, 'xmax itself has not begun'],
  ['100:110:', 111, false, 'begun later'],
  ['847:849:847', 848, true, 'committed above an idle writer that pins xmin'],
  ['847:849:847', 847, false, 'the idle writer'],
  [`${epoch1 + 5n}:${epoch1 + 9n}:${epoch1 + 6n}`, 6, false, 'in progress in epoch 1'],
  [`${epoch1 + 5n}:${epoch1 + 9n}:${epoch1 + 6n}`, 7, true, 'committed in epoch 1'],
  [`${epoch1 + 5n}:${epoch1 + 9n}:`, 9, false, 'begun later in epoch 1'],
  [`${epoch1 + 5n}:${epoch1 + 9n}:`, 4294967295, true, 'the last of epoch 0, seen from epoch 1'],
  [`${epoch1 - 3n}:${epoch1 + 9n}:${epoch1 - 2n}`, 4294967294, false, 'in progress since before the wrap'],
  [`${epoch1 - 3n}:${epoch1 + 9n}:${epoch1 - 2n}`, 4294967295, true, 'committed before the wrap'],
  [`${epoch1 - 3n}:${epoch1 - 1n}:`, 3, false, 'the first of epoch 1, seen from epoch 0'],
  [`${3n * epoch1 + 5n}:${3n * epoch1 + 9n}:`, 4294967290, true, 'epoch 2, seen from epoch 3'],
])('%s sees %i: %s (%s)', (text, xid, sees) => {
  expect(parseSnapshot(text).sees(xid)).toBe(sees)
})

test('in 32 bits it decides as Postgres does in 64', () => {
  const cases = fc.record({
    xmax: fc.bigInt(2n ** 33n, 2n ** 40n),
    distance: fc.bigInt(-(2n ** 31n) + 1n, 2n ** 31n - 1n),
    inProgress: fc.uniqueArray(fc.bigInt(1n, 1000n), { maxLength: 20 }),
    nearWrap: fc.boolean(),
  })
  fc.assert(
    fc.property(cases, ({ xmax, distance, inProgress, nearWrap }) => {
      const max = nearWrap ? (xmax & ~0xffffffffn) + 500n : xmax
      const running = inProgress.map(back => max - back)
      const xid = max + distance
      const sees = xid < max && !running.includes(xid)
      const snapshot = parseSnapshot(`${max - 1000n}:${max}:${running.join(',')}`)
      return snapshot.sees(Number(xid & 0xffffffffn)) === sees && widen(Number(xid & 0xffffffffn), max) === xid
    }),
    { numRuns: 2000 },
  )
})

test.each(['', '1:2', '1:2:3,', '1:2:a', 'x:2:', '1:2:3:4'])('%j is refused', text => {
  expect(() => parseSnapshot(text)).toThrow(RangeError)
})
