import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Arrivals } from '../../../src/server/figures/arrivals.ts'
import { Counts } from '../../../src/server/figures/figures.ts'
import { Timing, timingBounds } from '../../../src/server/figures/timing.ts'
import { WalAges } from '../../../src/server/figures/wal-ages.ts'
import { wallNow } from '../../../src/server/figures/wall-clock.ts'

test('[P7] labels are bounded: what comes past them is counted together', () => {
  const counts = new Counts()
  for (let i = 0; i < 1000; i++) counts.add(`LABEL_${i}`)
  counts.add('LABEL_3', 4)
  expect([...counts.entries()].length).toBeLessThanOrEqual(201)
  expect(counts.of('LABEL_3')).toBe(5)
  expect([...counts.entries()].reduce((sum, [, count]) => sum + count, 0)).toBe(1004)
})

test('each duration is in the first bucket that holds it', () => {
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.constantFrom(...timingBounds), fc.double({ min: 0, max: 60, noNaN: true }))),
      all => {
        const timing = new Timing()
        for (const seconds of all) timing.observe(seconds)
        expect(timing.count).toBe(all.length)
        for (const [place, bound] of timingBounds.entries()) {
          const below = timing.counts.slice(0, place + 1).reduce((sum, count) => sum + count, 0)
          expect(below).toBe(all.filter(seconds => seconds <= bound).length)
        }
      },
    ),
  )
})

test('when a commit came is known by the first note behind it, as far back as notes reach', () => {
  const gulps = fc.array(fc.bigInt({ min: 1n, max: 5n }), { minLength: 1, maxLength: 3000 })
  fc.assert(
    fc.property(gulps, fc.bigInt({ min: 0n, max: 16_000n }), (steps, lsn) => {
      const arrivals = new Arrivals()
      const notes: bigint[] = []
      let at = 0n
      for (const step of steps) {
        at += step
        notes.push(at)
        arrivals.note(at, notes.length)
      }
      const place = notes.findIndex(noted => noted >= lsn)
      const isForgotten = notes.length > 1024 && place <= notes.length - 1024
      expect(arrivals.of(lsn)).toBe(place < 0 || isForgotten ? null : place + 1)
      arrivals.clear()
      expect(arrivals.of(lsn)).toBeNull()
    }),
    { numRuns: 200 },
  )
})

test('WAL is as old as the moment at which it was first seen', () => {
  const ages = new WalAges()
  expect(ages.secondsBehind(0n, 0)).toBe(0)
  for (let second = 1; second <= 100; second++) ages.saw(BigInt(second * 10), second * 1000)
  expect(ages.secondsBehind(1000n, 100_000)).toBe(0)
  expect(ages.secondsBehind(995n, 100_500)).toBe(0.5)
  expect(ages.secondsBehind(500n, 100_000)).toBe(49)
  ages.forget(500n, 700n)
  expect(ages.secondsBehind(500n, 100_000)).toBe(49)
  // Postgres was replaced by one that is behind.
  ages.saw(5n, 101_000)
  expect(ages.secondsBehind(1n, 103_000)).toBe(2)
})

test('[P7] the age of WAL takes little memory however old it is, and is told within a tenth', () => {
  const ages = new WalAges()
  const hours = 48 * 3600
  for (let second = 1; second <= hours; second++) ages.saw(BigInt(second), second * 1000)
  for (const behind of [hours / 2, hours / 4, 3600]) {
    const told = ages.secondsBehind(BigInt(hours - behind), hours * 1000)
    expect(Math.abs(told - behind) / behind).toBeLessThan(0.1)
  }
})

test('an idle server does not make its WAL look old', () => {
  const ages = new WalAges()
  for (let second = 1; second <= 100; second++) ages.saw(7n, second * 1000)
  expect(ages.secondsBehind(7n, 100_000)).toBe(0)
  expect(ages.secondsBehind(6n, 100_000)).toBe(99)
})

test('the wall clock has fractions and goes with the machine', () => {
  const before = Date.now()
  const now = wallNow()
  expect(now).toBeGreaterThan(before - 6)
  expect(now).toBeLessThan(Date.now() + 6)
})
