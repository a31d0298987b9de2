// Values to JSON, compared with to_jsonb of Postgres itself on generated values.
import fc from 'fast-check'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { SqlType, TypeFamily } from '../../../src/predicate/algebra.ts'
import { jsonOf } from '../../../src/server/decode/values.ts'
import { createPool, queryText } from '../../../src/server/postgres/database.ts'
import { TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let pool: pg.Pool

beforeAll(async () => {
  database = await TestDatabase.create()
  pool = createPool(database.url, { maxConnections: 1 })
  await database.query(`CREATE TYPE mood AS ENUM ('sad', 'so, so', '"glad"', 'NULL');
    CREATE DOMAIN positive AS int8 CHECK (VALUE > 0); CREATE DOMAIN words AS text[]; CREATE DOMAIN price AS numeric(30, 4)`)
})

afterAll(async () => {
  await pool.end()
  await database[Symbol.asyncDispose]()
})

const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 12 }).map(value => value.replaceAll('\0', '')),
  fc.string({
    unit: fc.constantFrom('"', '\\', '\n', '\r', '\t', ',', '{', '}', ' ', 'a', '\u2028', '\u0001', '/'),
    maxLength: 8,
  }),
  fc.constantFrom('', 'NULL', 'null', 'true', '\u2029'),
)
const integer = (bits: number) =>
  fc
    .oneof(
      fc.bigInt({ min: -(2n ** BigInt(bits - 1)), max: 2n ** BigInt(bits - 1) - 1n }),
      fc.bigInt({ min: -9n, max: 9n }),
    )
    .map(String)
const digits = (min: number, max: number) =>
  fc.string({ unit: fc.constantFrom(...'0123456789'), minLength: min, maxLength: max })
const numeric = fc
  .tuple(fc.constantFrom('', '-'), digits(1, 20), digits(0, 24))
  .map(([sign, whole, fraction]) => sign + whole + (fraction === '' ? '' : `.${fraction}`))
const float = fc.double({ noDefaultInfinity: true }).map(value => (Object.is(value, -0) ? '-0' : String(value)))
const pad = (value: number, width = 2) => String(value).padStart(width, '0')
const year = fc.oneof(fc.integer({ min: 1900, max: 2100 }), fc.integer({ min: 1, max: 20_000 }))
const date = fc
  .tuple(year, fc.integer({ min: 1, max: 12 }), fc.integer({ min: 1, max: 28 }), fc.boolean())
  .map(([y, m, d, bc]) => ({ day: `${pad(y, 4)}-${pad(m)}-${pad(d)}`, era: bc && y < 4000 ? ' BC' : '' }))
const time = fc
  .tuple(fc.nat(23), fc.nat(59), fc.nat(59), fc.oneof(fc.constant(0), fc.nat(999_999)))
  .map(([h, m, s, us]) => `${pad(h)}:${pad(m)}:${pad(s)}${us === 0 ? '' : `.${pad(us, 6)}`}`)
const zone = fc.integer({ min: -12, max: 12 }).map(hours => `${hours < 0 ? '-' : '+'}${pad(Math.abs(hours))}:30`)
const orInfinity = (values: fc.Arbitrary<string>) =>
  fc.oneof({ weight: 9, arbitrary: values }, { weight: 1, arbitrary: fc.constantFrom('infinity', '-infinity') })
const jsonText = fc
  .tuple(fc.jsonValue({ maxDepth: 2, noUnicodeString: false }), fc.constantFrom(undefined, 1, '\t', '\r\n'))
  .map(([value, indent]) => JSON.stringify(value, null, indent).replaceAll('\\u0000', ''))

type Case = [sqlType: string, family: TypeFamily, values: fc.Arbitrary<string>, more?: Partial<SqlType>]

const cases: Case[] = [
  ['boolean', 'bool', fc.constantFrom('true', 'false')],
  ['int2', 'int', integer(16)],
  ['int4', 'int', integer(32)],
  ['int8', 'int', integer(64)],
  ['oid', 'int', fc.nat(0xffff_ffff).map(String), { oid: 26 }],
  ['numeric', 'numeric', fc.oneof(numeric, fc.constantFrom('NaN', 'Infinity', '-Infinity'))],
  ['numeric(14,3)', 'numeric', fc.integer().map(value => `${value}.5`)],
  ['float8', 'float', fc.oneof(float, fc.constantFrom('NaN', 'Infinity', '-Infinity'))],
  ['float4', 'float', fc.float({ noDefaultInfinity: true }).map(String)],
  ['text', 'text', text],
  ['varchar(20)', 'text', text],
  ['char(6)', 'bpchar', fc.string({ unit: fc.constantFrom('a', ' ', '"', 'é'), maxLength: 6 })],
  ['name', 'text', fc.string({ unit: 'grapheme-ascii', maxLength: 20 })],
  ['uuid', 'uuid', fc.uuid()],
  ['date', 'date', orInfinity(date.map(({ day, era }) => day + era))],
  ['time', 'time', time],
  ['timetz', 'other', fc.tuple(time, zone).map(parts => parts.join(''))],
  ['timestamp', 'timestamp', orInfinity(fc.tuple(date, time).map(([{ day, era }, at]) => `${day} ${at}${era}`))],
  [
    'timestamptz',
    'timestamptz',
    orInfinity(fc.tuple(date, time, zone).map(([{ day, era }, at, offset]) => `${day} ${at}${offset}${era}`)),
  ],
  [
    'interval',
    'other',
    fc.tuple(fc.integer({ min: -99, max: 99 }), fc.nat(40), time).map(([m, d, t]) => `${m} mons ${d} days ${t}`),
  ],
  ['bytea', 'bytea', fc.uint8Array({ maxLength: 9 }).map(bytes => `\\x${Buffer.from(bytes).toString('hex')}`)],
  ['json', 'json', jsonText],
  ['jsonb', 'jsonb', jsonText],
  ['mood', 'enum', fc.constantFrom('sad', 'so, so', '"glad"', 'NULL')],
  ['positive', 'int', fc.bigInt({ min: 1n, max: 2n ** 63n - 1n }).map(String), { domain: true }],
  ['price', 'numeric', fc.integer().map(String), { domain: true }],
  ['int4range', 'other', fc.tuple(fc.nat(9), fc.nat(9)).map(([from, size]) => `[${from},${from + size})`)],
  ['int8multirange', 'other', fc.nat(9).map(from => `{[${from},${from + 2}),[20,)}`)],
  ['tsrange', 'other', time.map(at => `["2026-01-01 ${at}",)`)],
  ['inet', 'other', fc.ipV4()],
  ['varbit', 'other', fc.string({ unit: fc.constantFrom('0', '1') })],
  ['point', 'other', fc.tuple(fc.integer(), fc.integer()).map(([x, y]) => `(${x},${y})`)],
  ['box', 'other', fc.tuple(fc.nat(9), fc.nat(9)).map(([x, y]) => `((${x},${y}),(0,0))`), { oid: 603 }],
  ['money', 'other', fc.integer().map(String)],
  ['pg_lsn', 'other', fc.nat(0xffff).map(value => `0/${value.toString(16)}`)],
]

const typeOf = ([name, family, , more]: Case): SqlType => ({ oid: 0, name, family, ...more })

/** A corpus that is the same in every run, so that a failure comes again. */
const corpusOf = (values: fc.Arbitrary<string>): string[] => fc.sample(values, { numRuns: 300, seed: 20 })

test.each(cases)('%s', async (...each) => {
  const values = corpusOf(each[2])
  const rows = await queryText(pool, `SELECT v::${each[0]}, to_jsonb(v::${each[0]})::text FROM unnest($1::text[]) v`, [
    values,
  ])
  expect(rows).toHaveLength(values.length)
  for (const [value, expected] of rows) compare(typeOf(each), value!, expected!)
})

test.each(cases)('arrays of %s, nested, with NULLs and bounds', async (...each) => {
  const values = corpusOf(each[2]).map((value, index) => (index % 7 === 3 ? null : value))
  const type: SqlType = { oid: 0, name: `${each[0]}[]`, family: 'array', element: typeOf(each) }
  const rows = await queryText(
    pool,
    `WITH lists AS (
       SELECT array_agg(v::${each[0]} ORDER BY i) AS list, (array_agg(v ORDER BY i))[1] AS first
       FROM unnest($1::text[]) WITH ORDINALITY AS u(v, i) GROUP BY i / 4)
     SELECT a, to_jsonb(a)::text FROM lists, LATERAL (VALUES (list), (ARRAY[list, list]), (list[9:]),
       (array_fill(first::${each[0]}, ARRAY[2, 1, 2], ARRAY[-1, 0, 3]))) AS forms(a)`,
    [values],
  )
  expect(rows.length).toBeGreaterThan(300)
  for (const [value, expected] of rows) compare(type, value!, expected!)
})

test('a domain over an array', async () => {
  const rows = await queryText(pool, `SELECT a, to_jsonb(a)::text FROM (VALUES ('{a,"b c",NULL}'::words)) t(a)`)
  const element: SqlType = { oid: 25, name: 'text', family: 'text' }
  compare({ oid: 0, name: 'words', family: 'array', domain: true, element }, rows[0]![0]!, rows[0]![1]!)
})

const tokenPattern = /"(?:[^"\\]|\\.)*"|[^\s",:[\]{}]+|[[\]{},:]/g

/** Token by token the same JSON text, except for what values.ts lists. */
function compare(type: SqlType, value: string, expected: string): void {
  const json = jsonOf(type, value)
  const context = `${type.name} ${JSON.stringify(value)} -> ${json}, Postgres: ${expected}`
  expect(/[\n\r\u2028\u2029]/.test(json), context).toBe(false)
  if ((type.element ?? type).family === 'json') {
    expect(JSON.parse(json), context).toEqual(JSON.parse(expected))
    return
  }
  const raw = json.replaceAll('\\u2028', '\u2028').replaceAll('\\u2029', '\u2029')
  const [tokens, expectedTokens] = [raw.match(tokenPattern)!, expected.match(tokenPattern)!]
  expect(tokens.length, context).toBe(expectedTokens.length)
  const exact = ['int', 'numeric'].includes((type.element ?? type).family)
  for (const [index, token] of tokens.entries()) {
    const wanted = expectedTokens[index]!
    if (exact && token === `"${wanted}"` && !wanted.startsWith('"')) {
      expect(valueOfDecimal(wanted) === decimalOf(Number(wanted)), `${context}: a double holds ${wanted}`).toBe(false)
      continue
    }
    expect(token, context).toBe(wanted)
    if (exact && /^-?\d/.test(token)) expect(decimalOf(JSON.parse(token)), context).toBe(valueOfDecimal(token))
  }
}

/** A decimal without its trailing zeros: `1.50` and `1.5` are one value. */
const valueOfDecimal = (decimal: string): string => {
  const value = decimal.includes('.') ? decimal.replace(/\.?0+$/, '') : decimal
  return /^-0?$/.test(value) ? '0' : value
}

/** What JSON.parse holds: integers to the last digit, fractions as they print. */
function decimalOf(double: number): string {
  if (Number.isInteger(double)) return BigInt(double).toString()
  const [mantissa = '', exponent = '0'] = String(double).split('e')
  return Number(exponent) === 0
    ? mantissa
    : double.toFixed(Math.min(100, mantissa.length - Number(exponent))).replace(/0+$/, '')
}
