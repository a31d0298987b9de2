import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Few } from '../../../src/server/authorize/few.ts'

test('it holds what a Set would hold, in the same order', () => {
  const items = ['a', 'b', 'c'].map(name => ({ name }))
  const step = fc.record({ adds: fc.boolean(), item: fc.constantFrom(...items) })
  fc.assert(
    fc.property(fc.array(step, { maxLength: 12 }), steps => {
      const few = new Few<object>()
      const set = new Set<object>()
      for (const { adds, item } of steps) {
        if (adds) {
          few.add(item)
          set.add(item)
        } else expect(few.delete(item)).toBe(set.delete(item))
        expect([...few]).toEqual([...set])
        expect(few.size).toBe(set.size)
        for (const each of items) expect(few.has(each)).toBe(set.has(each))
      }
    }),
  )
})

test('whoever leaves while all are told does not disturb the others', () => {
  const items = [{ name: 'a' }, { name: 'b' }, { name: 'c' }]
  for (const count of [1, 2, 3]) {
    const few = new Few<object>()
    for (const item of items.slice(0, count)) few.add(item)
    const told: object[] = []
    for (const item of few) {
      few.delete(item)
      told.push(item)
    }
    expect(told).toEqual(items.slice(0, count))
    expect(few.size).toBe(0)
  }
})
