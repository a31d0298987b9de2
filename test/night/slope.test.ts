import fc from 'fast-check'
import { expect, test } from 'vitest'
import { growthOf, type Weight } from './slope.ts'

const whole = { part: 0.8, per: 100_000 }
const weights = (count: number, bytesAt: (commits: number) => number): Weight[] =>
  Array.from({ length: count + 1 }, (_, i) => {
    const commits = (i * 1_000_000) / count
    return { commits, bytes: bytesAt(commits) }
  })

test('what keeps its weight does not grow, whatever it took to begin', () => {
  const begun = weights(40, commits => (commits < 200_000 ? 10e6 + commits * 100 : 30e6))
  expect(growthOf(begun, whole)).toBeCloseTo(0, 6)
})

test('a hundred bytes for each commit are found, however they jump', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: -500_000, max: 500_000 }), { minLength: 41, maxLength: 41 }), noise => {
      const leaking = weights(40, commits => 40e6 + commits * 100 + noise[Math.round(commits / 25_000)]!)
      expect(growthOf(leaking, whole)).toBeGreaterThan(5)
    }),
  )
})

test('it is per cent of what is held, for so many commits', () => {
  expect(
    growthOf(
      weights(10, commits => 100e6 + (commits - 600_000) * 10),
      whole,
    ),
  ).toBeCloseTo(1, 6)
  expect(
    growthOf(
      weights(10, commits => 100e6 + (commits - 600_000) * 10),
      { ...whole, per: 1_000_000 },
    ),
  ).toBeCloseTo(10, 6)
  expect(growthOf([], whole)).toBe(0)
})
