import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Json, OrderTerm } from '../../src/protocol/messages.ts'
import { compareNumbers, compareRows, compareText, compareTimes, compareValues } from '../../src/protocol/order.ts'

const term = (column: string, rest: Partial<OrderTerm> = {}): OrderTerm => ({
  column,
  direction: 'asc',
  nulls: 'last',
  compare: 'number',
  ...rest,
})

test('later terms decide where earlier ones do not', () => {
  const compare = compareRows([term('a', { direction: 'desc', nulls: 'first' }), term('id')])
  const rows = [
    { a: 1, id: 2 },
    { a: null, id: 1 },
    { a: 2, id: 3 },
    { a: 1, id: 1 },
  ]
  expect(rows.sort(compare).map(row => [row.a, row.id])).toEqual([
    [null, 1],
    [2, 3],
    [1, 1],
    [1, 2],
  ])
})

test('an order that the server alone knows is refused, not guessed', () => {
  expect(() => compareRows([term('a', { compare: 'server' })])).toThrow(
    expect.objectContaining({ code: 'ORDER_UNSUPPORTED' }),
  )
})

test.each<[Json, Json]>([
  [1, '9007199254740993'],
  [9007199254740992, '9007199254740993'],
  ['9007199254740993', 9007199254740994],
  ['0.10000000000000000001', '0.1000000000000000001'],
  [0.1, '0.10000000000000000001'],
  [-0.1, '-0.09999999999999999999999'],
  ['-Infinity', `-1${'0'.repeat(400)}`],
  [`1${'0'.repeat(400)}`, 'Infinity'],
  ['Infinity', 'NaN'],
  [1e-7, '0.00000010000000000000000001'],
  [`0.${'0'.repeat(400)}1`, 5e-324],
  [0, `0.${'0'.repeat(400)}1`],
])('the number %s is less than %s', (less, more) => {
  expect(compareNumbers(less as number, more as number)).toBeLessThan(0)
  expect(compareNumbers(more as number, less as number)).toBeGreaterThan(0)
  expect(compareNumbers(less as number, less as number)).toBe(0)
})

test.each([
  ['-infinity', '4713-01-01 BC'],
  ['0002-01-01 BC', '0001-12-31 BC'],
  ['0001-12-31 BC', '0001-01-01'],
  ['9999-12-31', '10000-01-01'],
  ['5874897-12-31', 'infinity'],
  ['2026-01-01T00:00:00', '2026-01-01T00:00:00.5'],
  ['2026-01-01T00:00:00.09', '2026-01-01T00:00:00.1'],
  ['2026-01-01T00:00:00.1', '2026-01-01T00:00:00.1000000001'],
  ['2026-01-01T12:00:00+05:30', '2026-01-01T07:00:00+00:00'],
  ['2026-01-01T00:00:00+00:00', '2026-01-01T00:00:00-00:01'],
  ['2026-01-01T00:00:00-01', '2026-01-01T01:00:00.1+00:00'],
  ['1969-12-31T23:59:59.9+00:00', '1970-01-01T05:53:28+05:53:28'],
])('the time %s is before %s', (before, after) => {
  expect(compareTimes(before, after)).toBeLessThan(0)
  expect(compareTimes(after, before)).toBeGreaterThan(0)
})

test('a fraction that ends in zeros is the same time', () => {
  expect(compareTimes('10000-01-01T00:00:00.50+00:00', '10000-01-01T01:00:00.5+01:00')).toBe(0)
  expect(compareTimes('10000-01-01T00:00:00.000', '10000-01-01T00:00:00')).toBe(0)
})

test('texts are ordered by code points, as their UTF-8 is by bytes', () => {
  const text = fc.string({ unit: fc.constantFrom('a', '\ud7ff', '\ue000', '\uffff', '😀', '\u{10ffff}') })
  fc.assert(
    fc.property(text, text, (a, b) => {
      expect(Math.sign(compareText(a, b))).toBe(Buffer.compare(Buffer.from(a), Buffer.from(b)))
    }),
  )
})

test('a label that is not known yet stands after those that are', () => {
  const compare = compareValues(term('mood', { compare: 'labels', labels: ['sad', 'glad'] }))
  expect(['new', 'glad', null, 'sad'].sort(compare)).toEqual(['sad', 'glad', 'new', null])
})

test('10,000 rows are sorted within a moment', () => {
  const compare = compareRows([term('at', { compare: 'time', direction: 'desc' }), term('id')])
  const rows = Array.from({ length: 10_000 }, (_, id) => ({
    at: new Date(1.7e12 + ((id * 7919) % 5000) * 60_000).toISOString().replace('Z', '+00:00'),
    id,
  }))
  const begun = performance.now()
  rows.sort(compare)
  const tookMs = performance.now() - begun
  expect(tookMs).toBeLessThan(1000)
  expect(rows[0]!.at > rows[9999]!.at).toBe(true)
})
