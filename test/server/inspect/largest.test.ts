import fc from 'fast-check'
import { expect, test } from 'vitest'
import { inSlices } from '../../../src/server/inspect/in-slices.ts'
import { Largest } from '../../../src/server/inspect/largest.ts'

test('the largest are those that sorting would put first', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 20 })), fc.integer({ min: 1, max: 10 }), (sizes, most) => {
      const largest = new Largest<{ size: number; place: number }>(most, ({ size }) => size)
      const items = sizes.map((size, place) => ({ size, place }))
      for (const item of items) largest.add(item)
      expect(largest.items).toEqual(items.toSorted((a, b) => b.size - a.size).slice(0, most))
      expect(largest.more).toBe(Math.max(0, sizes.length - most))
    }),
  )
})

test('a long walk leaves others their turn', async () => {
  /** Of a tenth of a second, in steps of 20 µs. */
  function* walk(): Generator<void, string> {
    for (let step = 0; step < 5000; step += 1) {
      for (const endMs = performance.now() + 0.02; performance.now() < endMs; );
      yield
    }
    return 'done'
  }
  let turns = 0
  const timer = setInterval(() => {
    turns += 1
  }, 1)
  expect(await inSlices(walk())).toBe('done')
  clearInterval(timer)
  expect(turns).toBeGreaterThanOrEqual(10)
})
