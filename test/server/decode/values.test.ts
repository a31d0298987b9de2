import { expect, test } from 'vitest'
import type { SqlType, TypeFamily } from '../../../src/predicate/algebra.ts'
import { jsonOf, textLiteral } from '../../../src/server/decode/values.ts'

const type = (family: TypeFamily, oid = 0): SqlType => ({ oid, name: family, family })
const arrayOf = (element: SqlType): SqlType => ({ oid: 0, name: `${element.name}[]`, family: 'array', element })

test.each([
  ['9007199254740991', '9007199254740991'],
  ['9007199254740992', '9007199254740992'],
  ['9007199254740993', '"9007199254740993"'],
  ['-9007199254740993', '"-9007199254740993"'],
  ['1000000000000000000', '1000000000000000000'],
  // The shortest text of 2^55 as a double ends in 970: it reads back to the same double, which holds 968.
  ['36028797018963968', '36028797018963968'],
  ['36028797018963970', '"36028797018963970"'],
  ['9223372036854775807', '"9223372036854775807"'],
  ['-9223372036854775808', '-9223372036854775808'],
  ['0', '0'],
])('int8 %s is %s: a string exactly when a double cannot hold it', (text, json) => {
  expect(jsonOf(type('int', 20), text)).toBe(json)
})

test.each([
  ['1.50', '1.50'],
  ['-0.00', '-0.00'],
  ['0.1', '0.1'],
  ['123456789012.345', '123456789012.345'],
  ['0.30000000000000004', '0.30000000000000004'],
  ['0.30000000000000001', '"0.30000000000000001"'],
  ['3.14159265358979323846', '"3.14159265358979323846"'],
  ['9007199254740993.00', '"9007199254740993.00"'],
  ['9007199254740992.00', '9007199254740992.00'],
  ['0.0000000000000000000000001', '0.0000000000000000000000001'],
  ['1.00000000000000000000000000', '1.00000000000000000000000000'],
  [`1${'0'.repeat(400)}`, `"1${'0'.repeat(400)}"`],
  [`0.${'0'.repeat(400)}1`, `"0.${'0'.repeat(400)}1"`],
  ['NaN', '"NaN"'],
  ['-Infinity', '"-Infinity"'],
])('numeric %s is %s', (text, json) => {
  expect(jsonOf(type('numeric'), text)).toBe(json)
})

test.each([
  ['1.5', '1.5'],
  ['1e+22', '10000000000000000000000'],
  ['-1.25e-07', '-0.000000125'],
  ['1.2345e+02', '123.45'],
  ['-0', '0'],
  ['NaN', '"NaN"'],
  ['Infinity', '"Infinity"'],
])('float %s is %s', (text, json) => {
  expect(jsonOf(type('float'), text)).toBe(json)
})

test('a JSON string never holds a raw line break, of any kind', () => {
  const text = 'a"b\\c\n\r\t\b\f\u0000\u001f\u007f\u2028\u2029é😀'
  const json = textLiteral(text)
  expect(JSON.parse(json)).toBe(text)
  expect(json).toBe('"a\\"b\\\\c\\n\\r\\t\\b\\f\\u0000\\u001f\u007f\\u2028\\u2029é😀"')
  expect(textLiteral('plain')).toBe('"plain"')
})

test('json and jsonb are what is stored, numbers untouched, on one line', () => {
  const stored = '{\n\t"b" : 1e2,\r\n "a": [12345678901234567890.10, -0.0],\n"b": "x\\n  y\u2028" }'
  const json = jsonOf(type('json'), stored)
  expect(json).toBe('{"b" : 1e2, "a": [12345678901234567890.10, -0.0],"b": "x\\n  y\\u2028" }')
  expect(jsonOf(type('jsonb'), '{"a": "\\u2028 \\n"}')).toBe('{"a": "\\u2028 \\n"}')
})

test.each<[string, SqlType, string, string]>([
  ['empty', arrayOf(type('int')), '{}', '[]'],
  ['of integers', arrayOf(type('int')), '{1,NULL,9007199254740993}', '[1,null,"9007199254740993"]'],
  ['nested', arrayOf(type('int')), '{{1,2},{3,NULL}}', '[[1,2],[3,null]]'],
  ['with bounds', arrayOf(type('int')), '[0:1][2:2]={{1},{2}}', '[[1],[2]]'],
  [
    'of text, quoted',
    arrayOf(type('text')),
    '{plain,"a,b","{}","q\\"\\\\","NULL",NULL,"","line\nbreak"}',
    '["plain","a,b","{}","q\\"\\\\","NULL",null,"","line\\nbreak"]',
  ],
  ['of json', arrayOf(type('json')), '{"{\\"a\\": [1,\n2]}",1,null}', '[{"a": [1,2]},1,null]'],
  ['of boolean', arrayOf(type('bool')), '{t,f}', '[true,false]'],
  ['of timestamps', arrayOf(type('timestamptz')), '{"2026-01-31 12:00:00+00"}', '["2026-01-31T12:00:00+00:00"]'],
  ['of bytea', arrayOf(type('bytea')), '{"\\\\x0aff"}', '["\\\\x0aff"]'],
  [
    'of box, which has its own separator',
    arrayOf(type('other', 603)),
    '{(1,1),(0,0);(2,2),(1,1)}',
    '["(1,1),(0,0)","(2,2),(1,1)"]',
  ],
])('an array %s', (_, arrayType, text, json) => {
  expect(jsonOf(arrayType, text)).toBe(json)
})

test('oid is a string, as to_jsonb has it, also through a domain', () => {
  expect(jsonOf(type('int', 26), '4294967295')).toBe('"4294967295"')
  expect(jsonOf({ ...type('int', 99_999), domain: true, base: type('int', 26) }, '7')).toBe('"7"')
})
