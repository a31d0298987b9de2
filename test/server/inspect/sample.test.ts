import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Figures } from '../../../src/server/figures/figures.ts'
import { stages } from '../../../src/server/figures/stage.ts'
import { Timing, timingBounds } from '../../../src/server/figures/timing.ts'
import { mostFrequent, perSecond, quantileMs, sampleOf, stageFigures } from '../../../src/server/inspect/sample.ts'

const timed = (...seconds: number[]): Float64Array => {
  const timing = new Timing()
  for (const each of seconds) timing.observe(each)
  return timing.counts
}

describe('quantiles', () => {
  test.each([
    ['of nothing', [], 0.5, null],
    ['in the first bucket', [0.000005], 1, 0.01],
    ['of one value, at its bucket’s end', [0.002], 1, 2.5],
    ['half way through a bucket', [0.002, 0.002], 0.5, 1.75],
    ['past the last bound', [31], 0.99, 30_000],
    ['where most are short', [...Array(99).fill(0.00002), 5], 0.5, 0.0176],
  ] as const)('%s', (_, seconds, quantile, expected) => {
    expect(quantileMs(timed(...seconds), quantile)).toBe(expected)
  })

  test('lie in the bucket of the value that stands at that place', () => {
    const seconds = fc.array(fc.double({ min: 0, max: 29, noNaN: true }), { minLength: 1, maxLength: 60 })
    fc.assert(
      fc.property(seconds, fc.double({ min: 0.01, max: 1, noNaN: true }), (values, quantile) => {
        const sorted = values.toSorted((a, b) => a - b)
        const value = sorted[Math.ceil(quantile * values.length) - 1]!
        const place = timingBounds.findIndex(bound => value <= bound)
        const found = quantileMs(timed(...values), quantile)! / 1000
        // Three digits are told.
        expect(found).toBeGreaterThanOrEqual((timingBounds[place - 1] ?? 0) * 0.994)
        expect(found).toBeLessThanOrEqual(timingBounds[place]! * 1.006)
      }),
    )
  })
})

describe('rates', () => {
  test('are what was counted between two samples, by the second', () => {
    const figures = new Figures()
    figures.commits = 100
    const before = sampleOf(figures, 1000)
    figures.commits = 1300
    figures.deliveries = 3
    const after = sampleOf(figures, 3000)
    expect(perSecond('commits', before, after)).toBe(600)
    expect(perSecond('deliveries', before, after)).toBe(1.5)
    expect(perSecond('changes', before, after)).toBe(0)
    expect(perSecond('commits', after, after)).toBe(0)
  })

  test('of a stage are those of its share of the timed commits', () => {
    const figures = new Figures()
    const before = sampleOf(figures, 0)
    figures.commits = 1000
    for (let timedOnes = 0; timedOnes < 20; timedOnes += 1) figures.timings.relay.observe(0.001)
    for (let timedOnes = 0; timedOnes < 5; timedOnes += 1) figures.timings.deliver.observe(0.002)
    const told = stageFigures(before, before, sampleOf(figures, 1000))
    expect(told.map(({ stage }) => stage)).toEqual(stages)
    const of = (stage: string) => told.find(each => each.stage === stage)
    expect(of('relay')).toMatchObject({ perSecond: 1000, p99Ms: expect.closeTo(1, 1) })
    expect(of('deliver')).toMatchObject({ perSecond: 250, p50Ms: 1.75 })
    expect(of('wal')).toEqual({ stage: 'wal', perSecond: 0, p50Ms: null, p99Ms: null })
  })
})

test('a sample stays what it is while the node goes on counting', () => {
  const figures = new Figures()
  figures.refusals.add('BUSY')
  const sample = sampleOf(figures, 0)
  figures.refusals.add('BUSY')
  figures.timings.route.observe(0.1)
  expect(sample.refusals.get('BUSY')).toBe(1)
  expect(sample.timings.route.every(count => count === 0)).toBe(true)
})

test('the most frequent codes of a minute come first, and those that did not occur not at all', () => {
  const before = new Map([
    ['OLD', 5],
    ['MORE', 1],
  ])
  const after = new Map([
    ['OLD', 5],
    ['MORE', 4],
    ['NEW', 1],
    ['ALSO', 1],
  ])
  expect(mostFrequent(before, after, 2)).toEqual([
    { code: 'MORE', count: 3 },
    { code: 'ALSO', count: 1 },
  ])
})
