import { expect, test } from 'vitest'
import { waitMsOf } from '../../../../src/server/inspect/page/follow.js'
import { barOf, bytes, clock, count, duration, plural, rate } from '../../../../src/server/inspect/page/format.js'

test.each([
  [count(0), '0'],
  [count(1234), '1,234'],
  [count(99_999), '99,999'],
  [count(123_456), '123 k'],
  [count(12_345_678), '12 M'],
  [rate(0), '0'],
  [rate(0.25), '0.3'],
  [rate(9.96), '10.0'],
  [rate(1234.4), '1,234'],
  [bytes(0), '0 B'],
  [bytes(999), '999 B'],
  [bytes(1000), '1.0 kB'],
  [bytes(12_345), '12 kB'],
  [bytes(2_500_000_000), '2.5 GB'],
  [bytes(5e15), '5000 TB'],
  [duration(null), '–'],
  [duration(0.0421), '42 µs'],
  [duration(0.9994), '999 µs'],
  [duration(0.9996), '1.0 ms'],
  [duration(9.96), '10 ms'],
  [duration(420), '420 ms'],
  [duration(999.6), '1.0 s'],
  [duration(61_000), '61 s'],
  [plural(1, 'row'), '1 row'],
  [plural(2, 'batch', 'batches'), '2 batches'],
])('%s is %s', (shown, expected) => {
  expect(shown).toBe(expected)
})

test('the clock has milliseconds', () => {
  expect(clock(new Date(2026, 0, 2, 3, 4, 5, 67).getTime())).toBe('03:04:05.067')
})

test('a bar grows with its time, between a sliver and its whole height', () => {
  const heights = [0, 0.002, 0.01, 0.1, 1, 10, 100, 10_000].map(barOf)
  expect(heights).toEqual(heights.toSorted((a, b) => a - b))
  expect([heights[0], heights.at(-1)]).toEqual([0.06, 1])
})

test('[P8] the next attempt is later each time, at most 20 s, and never before the node asks for it', () => {
  const waits = [1, 2, 3, 4, 5, 6, 7, 8, 9, 50].map(failures => waitMsOf(failures, null, 1))
  expect(waits.slice(0, 4)).toEqual([800, 1600, 3200, 6400])
  expect(waits.at(-1)).toBe(20_000)
  expect(waitMsOf(50, null, 0)).toBe(10_000)
  expect(waitMsOf(1, 5000, 0.5)).toBe(5000)
})
