// What `readValue` and the casts take, Postgres takes too, and prints as the same text.
import { afterAll, expect, test } from 'vitest'
import type { Expr, SqlType } from '../../src/predicate/algebra.ts'
import { castFunction } from '../../src/predicate/cast.ts'
import { valuingOf } from '../../src/predicate/evaluate.ts'
import { readValue } from '../../src/predicate/read-value.ts'
import { renderExpr } from '../../src/predicate/render.ts'
import { castNameOf, sqlTypes } from '../../src/predicate/sql-types.ts'
import { pinnedSettings } from '../../src/server/postgres/database.ts'
import { plainMemberships } from '../support/plain-memberships.ts'
import { TestDatabase } from '../support/postgres.ts'
import { compiler, selectText } from './samples.ts'

const database = await TestDatabase.create()
afterAll(() => database[Symbol.asyncDispose]())
for (const [name, value] of Object.entries(pinnedSettings))
  await database.query('SELECT set_config($1, $2, false)', [name, value])

/** What Postgres prints, or null when it refuses. */
async function ask(sql: string, values: readonly unknown[] = []): Promise<string | null | 'refused'> {
  try {
    return (await selectText(database, sql, values))[0]![0]!
  } catch {
    return 'refused'
  }
}

const attempt = <T>(read: () => T): T | 'refused' => {
  try {
    return read()
  } catch {
    return 'refused'
  }
}

const integers = [
  '0',
  '-0',
  '+7',
  ' 42 ',
  '\t1\n',
  '007',
  '1.0',
  '1e3',
  '',
  ' ',
  '-',
  '--1',
  '32768',
  '2147483648',
  '9223372036854775807',
  '9223372036854775808',
  '-9223372036854775808',
  '１',
]
const decimals = [
  ...integers,
  '1.50',
  '.5',
  '5.',
  '.',
  '1e5',
  '1.50e1',
  '1.5E-3',
  '-0.00',
  '00012.3400',
  'NaN',
  'nan',
  'inf',
  '-Infinity',
  '+inf',
  '-nan',
  '1e',
  'e5',
  '1,5',
  '0x10',
]
const dates = [
  '202020-02-02-3030',
  '2020-02-02+15:59',
  '2020-02-02 Z',
  '2020-02-29',
  '2021-02-29',
  '2020-13-01',
  '0000-01-01',
  '0044-03-15 BC',
  '12345-01-01',
  'infinity',
  '-Infinity',
  '2020-1-1',
  '20-01-01',
  '2020-02-30',
  '1900-02-29',
]
const clocks = [
  '2020-01-01',
  '2020-01-01 10:11',
  '2020-01-01T10:11:12',
  '2020-01-01 10:11:12.5',
  '2020-01-01T10:11:12.123456',
  '2020-01-01T10:11:12.120Z',
  '2020-01-01 10:11:12+02',
  '2020-01-01 00:30:00+05:30',
  '2020-01-01 00:30:00-0800',
  '2020-01-01 25:00:00',
  '2020-01-01 10:60:00',
  '0001-01-01 00:00:00+02',
  '0044-03-15 12:00:00 BC',
  '12345-06-07 08:09:10+00',
  '2020-01-01 10:11:12+16',
  '2020-01-01 00:00:00+00 BC',
]

const cases: readonly (readonly [SqlType, readonly string[], must: readonly string[]])[] = [
  [
    sqlTypes.bool,
    [
      't',
      'TRUE',
      'tr',
      'yes',
      'y',
      'on',
      '1',
      'o',
      'of',
      'off',
      'n',
      'f',
      'false',
      '0',
      ' true ',
      '',
      'maybe',
      'truee',
    ],
    ['true', 'false', 't', 'f'],
  ],
  [sqlTypes.int2, integers, ['0', '-0', ' 42 ']],
  [sqlTypes.int4, integers, ['0', '32768']],
  [sqlTypes.int8, integers, ['9223372036854775807', '-9223372036854775808']],
  [sqlTypes.numeric, decimals, ['1.50', '.5', '1e5', 'NaN', '-Infinity']],
  [
    sqlTypes.uuid,
    [
      'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11',
      '{a0eebc99-9c0b4ef8-bb6d6bb9-bd380a11}',
      'a0eebc999c0b4ef8bb6d6bb9bd380a11',
      'a0eebc99',
      '',
      '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
      'auth0|12345',
      'a0ee-bc99-9c0b-4ef8-bb6d-6bb9-bd38-0a11',
    ],
    ['A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'],
  ],
  [sqlTypes.date, dates, ['2020-02-29', '0044-03-15 BC', 'infinity']],
  [sqlTypes.timestamp, clocks, ['2020-01-01T10:11:12', '2020-01-01T10:11:12.120Z']],
  [sqlTypes.timestamptz, clocks, ['2020-01-01T10:11:12.120Z', '2020-01-01 00:30:00+05:30', '0001-01-01 00:00:00+02']],
  [
    sqlTypes.time,
    ['10:11', '10:11:12', '23:59:59.999999', '24:00:00', '10:60', '1:2', ''],
    ['10:11', '23:59:59.999999'],
  ],
  [sqlTypes.bytea, ['\\x', '\\xAbCd', '\\xabc', '\\xzz', '\\X', '\\XAbCd', 'plain'], ['\\xAbCd']],
  [sqlTypes.text, ['', 'a', ' 😀 ', 'a\\b'], ['', ' 😀 ']],
  [
    sqlTypes.jsonb,
    [
      '1',
      '-0',
      '1.50',
      '1e2',
      '1E-2',
      '"a"',
      '"\\u00e4\\n"',
      '"\\u0000"',
      '"\\ud800"',
      'null',
      '[1, 2 ,{"b":1,"a":2,"a":3,"cc":[],"ä":{}}]',
      '{"b": "\\"q\\"", "aa": true}',
      '{',
      '',
      '01',
      '{"a":1,}',
      '"\u007f"',
    ],
    ['1', '{"b": "\\"q\\"", "aa": true}', '[1, 2 ,{"b":1,"a":2,"a":3,"cc":[],"ä":{}}]', '1.50', '1e2'],
  ],
  [
    { oid: 1009, name: 'text[]', family: 'array', element: sqlTypes.text },
    [
      '{}',
      '{a,b}',
      '{ a , "b c" }',
      '{NULL,"NULL",null}',
      '{"a\\"b","c\\\\d",""}',
      '{a',
      'a',
      '{a\\,b}',
      '{{a},{b}}',
      '{a}x',
    ],
    ['{}', '{a,b}', '{"a\\"b","c\\\\d",""}'],
  ],
  [
    { oid: 1007, name: 'integer[]', family: 'array', element: sqlTypes.int4 },
    ['{1,2}', '{1,x}', '{ 1 , NULL }'],
    ['{1,2}'],
  ],
]

test.each(cases)('$name: what is read is what Postgres reads', async (type, texts, must) => {
  for (const text of texts) {
    const mine = attempt(() => readValue(type, text))
    if (must.includes(text)) expect(mine, JSON.stringify(text)).not.toBe('refused')
    // Reading less than Postgres is allowed, reading otherwise is not.
    if (mine !== 'refused') expect(mine, JSON.stringify(text)).toBe(await ask(`SELECT $1::${castNameOf(type)}`, [text]))
  }
})

test('real numbers are read to the same value', async () => {
  for (const type of [sqlTypes.float4, sqlTypes.float8]) {
    for (const text of [...decimals, '1e400', '1e-400', '3.5e38', '1e-46', '0.1', '16777217', '-0']) {
      const mine = attempt(() => readValue(type, text))
      if (mine === 'refused') continue
      const printed = await ask(`SELECT $1::${type.name}::text`, [text])
      expect(printed, text).not.toBe('refused')
      expect(
        Object.is(Number(printed), type === sqlTypes.float4 ? Number(String(mine)) : Number(mine)) ||
          Math.fround(Number(printed)) === Number(mine),
        `${text}: ${printed}`,
      ).toBe(true)
    }
  }
})

const named: readonly SqlType[] = Object.values(sqlTypes)
const values: Readonly<Record<string, readonly string[]>> = {
  bool: ['t', 'f'],
  int: ['0', '-5', '32768', '2147483648'],
  float: ['0.5', '1'],
  numeric: ['1.50', '-3', 'NaN', '9007199254740993', '-0.4', '-0.5', '2.499', '32767.5', '-1.51', 'Infinity'],
  text: ['', 'a ', '42', 'true', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '2020-01-01', '{"a": 1.0}', '1.50'],
  bpchar: ['', 'a  '],
  uuid: ['a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'],
  json: ['{"a":1,"a":2}', '1.0', 'null'],
  jsonb: ['{"a": 2}', '1.0', '-0.5', '99999999999', 'true', 'false', '"1"', '[]'],
  date: ['2020-01-01', '0044-03-15 BC', '12345-06-07', 'infinity', '-infinity', '200000-01-01'],
  time: ['10:00:00'],
  timestamp: ['2020-01-01 00:00:00', '1969-12-31 23:59:59.25', '0044-03-15 12:00:00 BC', 'infinity'],
  timestamptz: ['2020-01-01 00:00:00+00', '2020-02-29 23:59:59.999999+00', '0044-03-15 12:00:00+00 BC', '-infinity'],
  bytea: ['\\x00ff'],
}

test('every cast that is taken gives what Postgres gives, and fails where it fails', async () => {
  let taken = 0
  for (const from of named) {
    for (const to of named) {
      const cast = attempt(() => castFunction(from, to))
      if (cast === 'refused') continue
      for (const text of values[from.family]!) {
        const input = attempt(() => readValue(from, text))
        if (input === 'refused') continue
        taken++
        const mine = attempt(() => cast(input))
        const theirs = await ask(`SELECT $1::${castNameOf(from)}::${castNameOf(to)}`, [input])
        const name = `${from.name} ${JSON.stringify(text)} to ${to.name}`
        if (to.family === 'float' && theirs !== 'refused') expect(Number(mine), name).toBe(Number(theirs))
        else expect(mine, name).toBe(theirs)
      }
    }
  }
  expect(taken).toBeGreaterThan(100)
})

test('-> and ->> find what Postgres finds', async () => {
  const documents = [
    '{"a": "x", "b": {"c": [1, 2.50, "z"]}, "a\\"q": null, "n": 9007199254740993, "e": ""}',
    '[1, "two", null, {"k": true}, [5]]',
    '"scalar"',
    '17',
    'null',
    '{}',
    '[]',
    '{"a":1,"a":2}',
    ' {"a" : { "x" : 1 } , "b" : [ 1 , 2 ] } ',
  ]
  const keys: readonly (readonly [string, SqlType])[] = [
    ['a', sqlTypes.text],
    ['b', sqlTypes.text],
    ['a"q', sqlTypes.text],
    ['n', sqlTypes.text],
    ['e', sqlTypes.text],
    ['', sqlTypes.text],
    ['0', sqlTypes.text],
    ['0', sqlTypes.int4],
    ['1', sqlTypes.int4],
    ['-1', sqlTypes.int4],
    ['-9', sqlTypes.int4],
    ['3', sqlTypes.int4],
  ]
  for (const type of [sqlTypes.json, sqlTypes.jsonb]) {
    for (const document of documents) {
      for (const [key, keyType] of keys) {
        for (const asText of [true, false]) {
          const expr: Expr = {
            kind: 'jsonGet',
            arg: { kind: 'const', value: document, type },
            key: { kind: 'const', value: key, type: keyType },
            asText,
            type: asText ? sqlTypes.text : type,
          }
          const query = renderExpr(expr).compile(compiler)
          const mine = valuingOf(expr)({ text: () => null }, plainMemberships(new Map()))
          expect(mine, `${type.name} ${document} ${key} ${asText}`).toBe(
            await ask(`SELECT ${query.sql}`, query.parameters),
          )
        }
      }
    }
  }
})
