// Holds every function and operator that is computed here against Postgres's own, over values worth meeting: the same text,
// NULL where it gives NULL, an error where it raises.
import { afterAll, expect, test } from 'vitest'
import type { CallName, Expr, SqlType } from '../../src/predicate/algebra.ts'
import type { Call } from '../../src/predicate/call.ts'
import { valuingOf } from '../../src/predicate/evaluate.ts'
import { arithmeticType } from '../../src/predicate/number-calls.ts'
import { readValue } from '../../src/predicate/read-value.ts'
import { renderExpr } from '../../src/predicate/render.ts'
import { sqlTypes } from '../../src/predicate/sql-types.ts'
import { ValueError } from '../../src/predicate/value-error.ts'
import { pinnedSettings } from '../../src/server/postgres/database.ts'
import { plainMemberships } from '../support/plain-memberships.ts'
import { TestDatabase } from '../support/postgres.ts'
import { compiler, selectText } from './samples.ts'

const database = await TestDatabase.create(undefined, `TEMPLATE template0 LOCALE 'C' ENCODING 'UTF8'`)
for (const [name, value] of Object.entries(pinnedSettings))
  await database.query('SELECT set_config($1, $2, false)', [name, value])
afterAll(() => database[Symbol.asyncDispose]())

const text: SqlType = { ...sqlTypes.text, collation: 'c' }
const { bool, date, int2, int4, int8, json, jsonb, numeric, timestamp, timestamptz, uuid } = sqlTypes
const arrayOf = (element: SqlType, oid: number): SqlType => ({
  oid,
  name: `${element.name}[]`,
  family: 'array',
  element,
})
const texts = arrayOf(text, 1009)
const ints = arrayOf(int4, 1007)

const words = ['', 'a', 'room:42:x', ':a::b', 'Ärger 😀!', '😀😀a', '  a b ', 'aaXaa', '/folder/file.png', 'NULL']
const parts = ['', ':', 'a', '😀', '::', ' ', 'aa', '/', 'zz']
const counts = ['0', '1', '2', '-1', '-2', '3', '100', '-100', '2147483647', '-2147483648']
const lists = [
  '{}',
  '{a}',
  '{a,b,c}',
  '{NULL,a}',
  '{"","a b","c,d","\\\\"}',
  '{"NULL",NULL}',
  '{{a,b},{c,d}}',
  '[0:1]={a,b}',
]
const documents = [
  '{}',
  '[]',
  'null',
  '1.50',
  '"a"',
  'true',
  '{"a": 1, "b": {"c": [1, 2.0, "z"]}, "1": "one"}',
  '["a", "b", 1, null, {"a": 1}]',
  '[1, 1.0, [2, [3]], {"a": {"b": 2}}]',
  '{"a": [{"b": 1}, {"b": 2}], "n": null, "a b": "\\u00e4\\n\\"q\\""}',
  '["a b", "", "{x}", "NULL", "\\\\"]',
]
const paths = [
  '{}',
  '{a}',
  '{b,c,1}',
  '{b,c,-1}',
  '{0}',
  '{1}',
  '{-1}',
  '{" 1"}',
  '{"1 "}',
  '{NULL}',
  '{a,0,b}',
  '{99999999999}',
  '{+1}',
]
const moments = [
  '2024-02-29 12:00:00.5+00',
  '2023-12-31 23:59:59.999999+00',
  '1969-12-31 00:00:00+00',
  'infinity',
  '-infinity',
]
const numbers = [
  '0',
  '0.00',
  '1',
  '-1.50',
  '2.5',
  '-0.005',
  '0.015',
  '99.995',
  '12345678901234567890.5',
  'NaN',
  'Infinity',
  '-Infinity',
]
const integers = ['0', '1', '-1', '7', '-7', '32767', '-32768']
const wide = [...integers, '2147483647', '-2147483648']
const widest = [...wide, '9223372036854775807', '-9223372036854775808']

type Arg = readonly [SqlType, readonly (string | null)[]]
type Case = readonly [name: CallName, result: SqlType, ...args: Arg[]]

const word: Arg = [text, [...words, null]]
const part: Arg = [text, [...parts, null]]
const count: Arg = [int4, [...counts, null]]
const list: Arg = [texts, [...lists, null]]
const document: Arg = [jsonb, [...documents, null]]

const cases: readonly Case[] = [
  ['||', text, word, part],
  ['lower', text, word],
  ['upper', text, word],
  ['length', int4, word],
  ['octet_length', int4, word],
  ['split_part', text, word, part, count],
  ['substr', text, word, count],
  ['substr', text, word, count, count],
  ['left', text, word, count],
  ['right', text, word, count],
  ['strpos', int4, word, part],
  ['starts_with', bool, word, part],
  ['~', bool, word, [text, ['^room:[0-9]+', 'a|Ä', null]]],
  ['replace', text, word, part, part],
  ['btrim', text, word],
  ['btrim', text, word, part],
  ['ltrim', text, word, part],
  ['rtrim', text, word],
  ['rtrim', text, word, part],
  [
    'concat',
    text,
    word,
    [bool, ['t', 'f', null]],
    [int4, ['5', null]],
    [uuid, ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11']],
  ],
  ['concat', text, [numeric, numbers], [timestamptz, moments]],
  ['concat_ws', text, part, word, [int4, ['5', null]]],
  ['string_to_array', texts, word, part],
  ['string_to_array', texts, word, part, part],
  ['array_to_string', text, list, part],
  ['array_to_string', text, list, part, part],
  ['array_to_string', text, [ints, ['{}', '{1,NULL,3}']], part],
  ['array_length', int4, list, [int4, ['0', '1', '2', '3', '-1', null]]],
  ['cardinality', int4, list],
  ['subscript', text, list, count],
  ['subscript', int4, [ints, ['{}', '{1,NULL,3}']], count],
  ['slice', texts, list, count, count],
  ['sliceFrom', texts, list, count],
  ['sliceTo', texts, list, count],
  ['@>', bool, list, list],
  ['&&', bool, list, list],
  ['&&', bool, [ints, ['{}', '{1,NULL,3}']], [ints, ['{}', '{NULL}', '{3,4}']]],
  ['@>', bool, document, document],
  [
    '@>',
    bool,
    document,
    [jsonb, ['1', '1.00', '[1]', '["a"]', '[["a"]]', '[[2]]', '{"a": {}}', '{"a": [{"b": 2}]}', '[{"a": {}}]']],
  ],
  ['?', bool, document, [text, ['a', 'b', '1', '', 'a b', null]]],
  ['?|', bool, document, list],
  ['?&', bool, document, list],
  ['#>', jsonb, document, [texts, paths]],
  ['#>>', text, document, [texts, paths]],
  ['#>', json, [json, documents], [texts, paths]],
  ['#>>', text, [json, [...documents, ' [ 1 , { "a" : "x" } ] ']], [texts, paths]],
  ['jsonb_array_length', int4, document],
  ['jsonb_array_length', int4, [json, documents]],
  ['jsonb_typeof', text, document],
  ['jsonb_typeof', text, [json, documents]],
  ['to_jsonb', jsonb, word],
  ['to_jsonb', jsonb, [numeric, [...numbers, null]]],
  ['to_jsonb', jsonb, [bool, ['t', 'f']]],
  ['to_jsonb', jsonb, [int8, widest]],
  ['jsonElements', arrayOf(jsonb, 3807), document],
  ['jsonTexts', texts, document],
  ['jsonKeys', texts, document],
  ['abs', int4, [int4, wide]],
  ['abs', numeric, [numeric, numbers]],
  ['-', int2, [int2, integers]],
  ['-', numeric, [numeric, numbers]],
  ['greatest', int4, [int4, ['1', '2', null]], [int4, ['0', '2', null]], [int4, ['-1', '5', null]]],
  ['least', numeric, [numeric, ['1.0', 'NaN', null]], [numeric, ['1.00', '-1', null]]],
  ['greatest', text, word, word],
  ['least', timestamptz, [timestamptz, moments], [timestamptz, moments]],
  ...[
    ['5', '2'],
    ['3', '0'],
    ['30', '3'],
    ['2', '1'],
  ].map(
    ([precision, scale]): Case => ['numericScale', numeric, [numeric, numbers], [int4, [precision!]], [int4, [scale!]]],
  ),
  ...(['+', '-', '*', '/', '%'] as const).flatMap(name =>
    [
      [[int2, integers] as Arg, [int2, integers] as Arg],
      [[int4, wide] as Arg, [int2, integers] as Arg],
      [[int4, wide] as Arg, [int4, wide] as Arg],
      [[int8, widest] as Arg, [int4, wide] as Arg],
      [[numeric, numbers] as Arg, [numeric, numbers] as Arg],
      [[int4, wide] as Arg, [numeric, numbers] as Arg],
    ].flatMap(([a, b]): Case[] => {
      const type = arithmeticType(name, a![0], b![0])
      return type === null ? [] : [[name, type, a!, b!]]
    }),
  ),
  ...[timestamptz, timestamp, date].map((of): Case => {
    const values =
      of === timestamptz
        ? moments
        : of === timestamp
          ? moments.map(at => at.replace('+00', ''))
          : moments.map(at => at.slice(0, 10))
    const result = of === date ? timestamp : of
    return [
      'shifted',
      result,
      [of, [...values, null]],
      [int4, ['0', '1', '-1', '12', '-25']],
      [int4, ['0', '-1', '30']],
      [int4, ['0', '1', '-3600000']],
    ]
  }),
]

async function ask(expr: Expr): Promise<string | null> {
  const query = renderExpr(expr).compile(compiler)
  try {
    return (await selectText(database, `SELECT ${query.sql}`, query.parameters))[0]![0]!
  } catch (error) {
    // 22: a datum that does not fit. Anything else is a fault of this test.
    if (!/^22/.test((error as { code?: string }).code ?? '')) throw error
    return 'raises'
  }
}

/** A row's jsonb is as Postgres prints it. */
const printed = ({ value, type }: Extract<Expr, { kind: 'const' }>): string | null =>
  value !== null && type.family === 'jsonb' ? readValue(type, value) : value

function* combinations(args: readonly Arg[]): Generator<Expr[]> {
  const [first, ...rest] = args
  if (first === undefined) {
    yield []
    return
  }
  for (const value of first[1])
    for (const others of combinations(rest)) yield [{ kind: 'const', value, type: first[0] }, ...others]
}

const named = cases.map(([name, type, ...args]) => ({ name, type, args, of: args.map(arg => arg[0].name).join(', ') }))

test.each(named)('[P1] $name of $of is what Postgres computes', async ({ name, type, args }) => {
  const seen = new Set<string | null>()
  for (const values of combinations(args)) {
    const expr: Call = { kind: 'call', name, args: values, type }
    // As columns, so that arrays of several dimensions can be read.
    const read: Expr = {
      ...expr,
      args: values.map((value, column) => ({ kind: 'column', column, name: 'c', type: value.type })),
    }
    const row = { text: (column: number) => printed(values[column] as Extract<Expr, { kind: 'const' }>) }
    let mine: string | null | undefined
    try {
      mine = valuingOf(read)(row, plainMemberships(new Map()))
    } catch (error) {
      if (!(error instanceof ValueError)) throw error
      mine = 'raises'
    }
    seen.add(mine ?? null)
    expect(mine, JSON.stringify(values.map(value => (value as { value?: unknown }).value))).toBe(await ask(expr))
  }
  expect(seen.size).toBeGreaterThan(1)
})
