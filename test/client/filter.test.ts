import { expect, test } from 'vitest'
import { condition, type FilterValue, type Operator } from '../../src/client/filter.ts'

const cases: [string, Operator, FilterValue, string][] = [
  ['room_id', '=', 42, 'room_id=eq.42'],
  ['room_id', '!=', 42n, 'room_id=neq.42'],
  ['at', '>=', new Date('2026-01-02T03:04:05Z'), 'at=gte.2026-01-02T03:04:05.000Z'],
  ['room_id', 'in', [1, 2], 'room_id=in.("1","2")'],
  ['name', 'in', ['a,b', 'c"d\\e', ')'], 'name=in.("a,b","c\\"d\\\\e",")")'],
  ['name', 'not like', 'a%', 'name=not.like.a%'],
  ['name', 'is', null, 'name=is.null'],
  ['done', 'is not', true, 'done=not.is.true'],
  ['name', 'is distinct from', 'x', 'name=isdistinct.x'],
  ['order', '=', 1, 'c.order=eq.1'],
  ['name', '=', 'a&b=c (d)', 'name=eq.a&b=c (d)'],
]

test.each(cases)('where(%s, %s, %o) is %s in a URL', (column, operator, value, text) => {
  const [[name, words] = ['', '']] = new URLSearchParams(condition(column, operator, value))
  expect(`${name}=${words}`).toBe(text)
})

test('a percent sign and an ampersand in a value stay inside it', () => {
  expect(condition('a', '=', '100%&b=1')).toBe('a=eq.100%25%26b%3D1')
})

test.each<[Operator, FilterValue]>([
  ['=', null],
  ['in', 1],
  ['is', 1],
  ['=', [1]],
  ['in', [null]],
  ['toString' as Operator, 1],
])('where(column, %s, %o) is refused before it is sent', (operator, value) => {
  expect(() => condition('a', operator, value)).toThrow(expect.objectContaining({ code: 'FILTER_INVALID' }))
})
