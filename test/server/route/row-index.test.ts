import fc from 'fast-check'
import { expect, test } from 'vitest'
import { sqlTypes } from '../../../src/predicate/sql-types.ts'
import { RowIndex } from '../../../src/server/route/row-index.ts'

const types = [sqlTypes.int4, sqlTypes.text]
const row = (values: readonly (string | null | undefined)[]) => ({ text: (column: number) => values[column] })

type Anchors = readonly {
  readonly kind: 'const'
  readonly column: number
  readonly keys: readonly string[]
  readonly ofReader: boolean
}[]

const values = fc.constantFrom('1', '2', '3', null, undefined)
const anchorLists: fc.Arbitrary<Anchors | null> = fc.option(
  fc.array(
    fc.record({
      kind: fc.constant('const' as const),
      column: fc.constantFrom(0, 1),
      ofReader: fc.boolean(),
      keys: fc.uniqueArray(fc.constantFrom('1', '2', '3'), { minLength: 1, maxLength: 3 }),
    }),
    { maxLength: 3 },
  ),
)

/** Whether a row could concern an item: by definition, one by one. */
const couldConcern = (anchors: Anchors | null, cells: readonly (string | null | undefined)[]): boolean =>
  anchors === null ||
  anchors.some(({ column, keys }) => cells[column] === undefined || keys.some(key => key === cells[column]))

test('finds exactly the items whose anchors a row could meet, whatever came and went', () => {
  fc.assert(
    fc.property(
      fc.array(anchorLists, { maxLength: 20 }),
      fc.array(fc.nat(19)),
      fc.tuple(values, values),
      (lists, gone, cells) => {
        const index = new RowIndex<number>(types)
        lists.forEach((anchors, item) => {
          index.add(item, anchors)
        })
        const removed = new Set(gone.filter(item => item < lists.length))
        for (const item of removed) index.remove(item, lists[item]!)
        const found = new Set<number>()
        index.collect(row(cells), found)
        const expected = lists.flatMap((anchors, item) =>
          !removed.has(item) && couldConcern(anchors, cells) ? [item] : [],
        )
        expect([...found].sort((a, b) => a - b)).toEqual(expected)
        expect(index.size).toBe(lists.length - removed.size)
      },
    ),
  )
})

test('an item that no row can concern is found by none, and by a truncation', () => {
  const index = new RowIndex<string>(types)
  index.add('never', [])
  const found = new Set<string>()
  index.collect(row(['1', '1']), found)
  expect(found.size).toBe(0)
  index.all(found)
  expect(found).toEqual(new Set(['never']))
})
