import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  condition,
  type Filter,
  type FilterValue,
  group,
  not,
  type Operator,
  pairOf,
} from '../../../src/client/queries/filter.ts'
import { FilterBudget, type FilterNode, parseCondition, parseGroup } from '../../../src/predicate/postgrest-syntax.ts'

const cases: [string, Operator, FilterValue, string][] = [
  ['room_id', '=', 42, 'room_id=eq.42'],
  ['room_id', '!=', 42n, 'room_id=neq.42'],
  ['at', '>=', new Date('2026-01-02T03:04:05Z'), 'at=gte.2026-01-02T03:04:05.000Z'],
  ['room_id', 'in', [1, 2], 'room_id=in.("1","2")'],
  ['name', 'in', ['a,b', 'c"d\\e', ')'], 'name=in.("a,b","c\\"d\\\\e",")")'],
  ['name', 'not like', 'a%', 'name=not.like.a%'],
  ['name', 'is', null, 'name=is.null'],
  ['done', 'is not', true, 'done=not.is.true'],
  ['done', 'is', 'unknown', 'done=is.unknown'],
  ['name', 'is', 'not null', 'name=is.not_null'],
  ['tags', '=', ['a', 'b "c"', null], 'tags=eq.{"a","b \\"c\\"",NULL}'],
  ['tags', 'in', [[1, 2], [3]], 'tags=in.("{\\"1\\",\\"2\\"}","{\\"3\\"}")'],
  ['hash', '=', new Uint8Array([0, 255]), 'hash=eq.\\x00ff'],
  ['at', '<', new Date(Date.UTC(12026, 0, 2)), 'at=lt.12026-01-02T00:00:00.000Z'],
  ['at', '<', new Date('-000043-03-15T00:00:00Z'), 'at=lt.0044-03-15T00:00:00.000Z BC'],
  ['name', 'is distinct from', 'x', 'name=isdistinct.x'],
  ['order', '=', 1, 'c.order=eq.1'],
  ['name', '=', 'a&b=c (d)', 'name=eq.a&b=c (d)'],
]

test.each(cases)('where(%s, %s, %o) is %s in a URL', (column, operator, value, text) => {
  const [[name, words] = ['', '']] = new URLSearchParams(pairOf(condition(column, operator, value)))
  expect(`${name}=${words}`).toBe(text)
})

test('a percent sign and an ampersand in a value stay inside it', () => {
  expect(pairOf(condition('a', '=', '100%&b=1'))).toBe('a=eq.100%25%26b%3D1')
})

test.each<[Operator, FilterValue]>([
  ['=', null],
  ['in', 1],
  ['is', 1],
  ['=', { a: 1 }],
  ['=', undefined as unknown as FilterValue],
  ['=', new Date(Number.NaN)],
  ['is', 'nothing'],
  ['in', [null]],
  ['toString' as Operator, 1],
])('where(column, %s, %o) is refused before it is sent', (operator, value) => {
  expect(() => condition('a', operator, value)).toThrow(expect.objectContaining({ code: 'FILTER_INVALID' }))
})

test('conditions nest, and a value keeps its commas and brackets', () => {
  const both = group('and', [condition('b', '>', 2), not(condition('c d', '=', 'x,y)'))])
  const filter = group('or', [condition('a', '=', 1), both, not(condition('e', 'not in', [3])), not(both)])
  expect(decodeURIComponent(pairOf(filter))).toBe(
    'or=(a.eq."1",and(b.gt."2","c d".not.eq."x,y)"),e.in.("3"),not.and(b.gt."2","c d".not.eq."x,y)"))',
  )
  expect(decodeURIComponent(pairOf(not(filter)))).toMatch(/^not\.or=\(a/)
})

test('a group of nothing is refused: it could mean every row or none', () => {
  expect(() => group('or', [])).toThrow(expect.objectContaining({ code: 'FILTER_INVALID' }))
})

const name = fc.oneof(
  fc.constantFrom(
    'a',
    'order',
    'and',
    'or',
    'not',
    'not.and',
    'c.x',
    'q',
    'ticket',
    'events',
    'a.b',
    'a b',
    'ü"',
    'a,b',
    '(',
    '\\',
    '1',
  ),
  fc.string({ unit: 'binary', minLength: 1, maxLength: 5 }),
)
const word = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 6 }),
  fc.constantFrom('', '"', '",', ')', '{a,b}', 'not.', 'null', '\\'),
)
const leaf = fc.oneof(
  fc
    .record({
      column: name,
      operator: fc.constantFrom<Operator>('=', '!=', '<', '<=', '>', '>=', 'like', 'is distinct from', 'not ilike'),
      value: word,
    })
    .map(({ column, operator, value }) => condition(column, operator, value)),
  fc
    .record({
      column: name,
      operator: fc.constantFrom<Operator>('in', 'not in'),
      value: fc.array(word, { maxLength: 3 }),
    })
    .map(({ column, operator, value }) => condition(column, operator, value)),
  name.map(column => condition(column, 'is', 'not null')),
)
const { tree } = fc.letrec<{ tree: Filter }>(self => ({
  tree: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    leaf,
    self('tree').map(not),
    fc
      .record({
        kind: fc.constantFrom('and' as const, 'or' as const),
        items: fc.array(self('tree'), { minLength: 1, maxLength: 3 }),
      })
      .map(({ kind, items }) => group(kind, items)),
  ),
}))

/** What the server reads, in the client's own words. */
function read(filter: Filter): FilterNode {
  const budget = new FilterBudget({ maxLength: 10_000, maxDepth: 20, maxTerms: 1000 })
  const [[column, words] = ['', '']] = new URLSearchParams(pairOf(filter))
  const joined = /^(not\.)?(and|or)$/.exec(column)
  if (joined !== null) return parseGroup(joined[2] as 'and' | 'or', joined[1] !== undefined, words, budget)
  return parseCondition(column.startsWith('c.') ? column.slice(2) : column, words, budget)
}

test('the server reads every filter as it was meant', () => {
  const shapeOf = (filter: Filter): unknown =>
    filter.kind === 'condition'
      ? { column: filter.column, negated: filter.negated, operator: filter.words.operator }
      : { op: filter.kind, negated: filter.negated, items: filter.items.map(shapeOf) }
  const shapeRead = (node: FilterNode): unknown =>
    node.kind === 'condition'
      ? { column: node.column, negated: node.negated, operator: node.operator }
      : { op: node.op, negated: node.negated, items: node.items.map(shapeRead) }
  fc.assert(
    fc.property(tree, filter => {
      expect(shapeRead(read(filter))).toEqual(shapeOf(filter))
    }),
  )
})

test('the server reads every value as it was written, alone and in a group', () => {
  const operandOf = (node: FilterNode): unknown => (node.kind === 'condition' ? node.value : operandOf(node.items[0]!))
  fc.assert(
    fc.property(word, fc.array(word, { maxLength: 4 }), (value, list) => {
      expect(operandOf(read(condition('a', '=', value)))).toBe(value)
      expect(operandOf(read(group('or', [condition('a', '=', value)])))).toBe(value)
      expect(operandOf(read(condition('a', 'in', list)))).toEqual(list)
      expect(operandOf(read(group('or', [condition('a', 'in', list)])))).toEqual(list)
    }),
  )
})
