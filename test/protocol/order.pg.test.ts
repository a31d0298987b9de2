// Rows sorted here, compared with ORDER BY of Postgres itself on generated values in the words of the wire.
import fc from 'fast-check'
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { SqlType, TypeFamily } from '../../src/predicate/algebra.ts'
import type { JsonRow, OrderTerm } from '../../src/protocol/messages.ts'
import { compareRows } from '../../src/protocol/order.ts'
import { jsonOf } from '../../src/server/decode/values.ts'
import { createPool, queryText } from '../../src/server/postgres/database.ts'
import { TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let pool: pg.Pool
const labels = ['sad', 'ok', 'Glad', '10', '9']

beforeAll(async () => {
  database = await TestDatabase.create()
  pool = createPool(database.url, { maxConnections: 1 })
  await database.query(`CREATE TYPE mood AS ENUM (${labels.map(label => `'${label}'`).join(', ')})`)
})

afterAll(async () => {
  await pool.end()
  await database[Symbol.asyncDispose]()
})

const digits = (min: number, max: number) =>
  fc.string({ unit: fc.constantFrom('0', '0', '1', '9'), minLength: min, maxLength: max })
const sign = fc.constantFrom('', '-')
const numeric = fc.oneof(
  fc
    .tuple(sign, digits(1, 20), digits(0, 24))
    .map(([minus, whole, fraction]) => `${minus}${whole}${fraction === '' ? '' : `.${fraction}`}`),
  // Neighbours that one double stands for, and numbers that none does.
  fc.tuple(sign, fc.nat(30)).map(([minus, more]) => `${minus}${2n ** 60n + BigInt(more)}`),
  fc.tuple(sign, fc.nat(30)).map(([minus, more]) => `${minus}0.1000000000000000055511151231${more}`),
  fc.tuple(sign, digits(1, 3)).map(([minus, more]) => `${minus}1${'0'.repeat(320)}${more}`),
  fc.tuple(sign, digits(1, 3)).map(([minus, more]) => `${minus}0.${'0'.repeat(340)}${more}`),
  fc.constantFrom('NaN', 'Infinity', '-Infinity', '0', '0.00', '-0', '1', '1.0', '0.1', '0.10', '0.0000001'),
)
const bigint = fc.oneof(
  fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }),
  fc.nat(20).map(more => 2n ** 53n - 10n + BigInt(more)),
  fc.nat(9).map(more => 2n ** 63n - 1n - BigInt(more)),
  fc.bigInt({ min: -9n, max: 9n }),
)
const double = fc.oneof(fc.double().map(String), fc.constantFrom('0', '-0', '1e300', '5e-324', '123456789012345680000'))
const text = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 6 }).map(value => value.replaceAll('\0', '')),
  // Around the surrogates, where UTF-16 and code points differ.
  fc.string({
    unit: fc.constantFrom(
      'a',
      'B',
      'é',
      '\ud7ff',
      '\ue000',
      '\uff5e',
      '\uffff',
      '😀',
      '\u{10000}',
      '\u{10ffff}',
      '\n',
      ' ',
    ),
    maxLength: 4,
  }),
)
const pad = (value: number, width = 2) => String(value).padStart(width, '0')
const day = fc
  .tuple(
    fc.oneof(
      fc.integer({ min: 1969, max: 1971 }),
      fc.integer({ min: 1, max: 12_000 }),
      fc.integer({ min: 9998, max: 10_001 }),
    ),
    fc.integer({ min: 1, max: 12 }),
    fc.integer({ min: 1, max: 28 }),
    fc.boolean(),
  )
  .map(([year, month, date, bc]) => ({
    date: `${pad(year, 4)}-${pad(month)}-${pad(date)}`,
    era: bc && year < 4700 ? ' BC' : '',
  }))
const clock = fc
  .tuple(fc.nat(23), fc.nat(59), fc.nat(59), fc.oneof(fc.constantFrom(0, 500_000, 10), fc.nat(999_999)))
  .map(([h, m, s, us]) => `${pad(h)}:${pad(m)}:${pad(s)}${us === 0 ? '' : `.${pad(us, 6)}`}`)
const moment = (zone: string) =>
  fc.oneof(
    fc.tuple(day, clock).map(([{ date, era }, at]) => `${date} ${at}${zone}${era}`),
    fc.constantFrom(
      'infinity',
      '-infinity',
      '0001-01-01 00:00:00 BC',
      '0001-01-01 00:00:00',
      '294276-12-31 23:59:59.999999',
    ),
  )
const hex = fc.uint8Array({ maxLength: 4 }).map(bytes => `\\x${Buffer.from(bytes).toString('hex')}`)

type Case = [sqlType: string, family: TypeFamily, compare: OrderTerm['compare'], values: fc.Arbitrary<string>]

const cases: Case[] = [
  ['int4', 'int', 'number', fc.integer().map(String)],
  ['int8', 'int', 'number', bigint.map(String)],
  ['oid', 'int', 'number', fc.nat(0xffff_ffff).map(String)],
  ['numeric', 'numeric', 'number', numeric],
  ['float8', 'float', 'number', double],
  ['float4', 'float', 'number', fc.float().map(String)],
  ['text COLLATE "C"', 'text', 'text', text],
  ['uuid', 'uuid', 'text', fc.uuid()],
  ['bytea', 'bytea', 'text', hex],
  ['time', 'time', 'text', clock],
  ['boolean', 'bool', 'boolean', fc.constantFrom('true', 'false')],
  [
    'date',
    'date',
    'time',
    fc.oneof(
      day.map(({ date, era }) => date + era),
      fc.constantFrom('infinity', '-infinity', '5874897-12-31'),
    ),
  ],
  ['timestamp', 'timestamp', 'time', moment('')],
  ['timestamptz', 'timestamptz', 'time', moment('+05:30')],
  ['mood', 'enum', 'labels', fc.constantFrom(...labels)],
]
const ways = [
  ['asc', 'first'],
  ['asc', 'last'],
  ['desc', 'first'],
  ['desc', 'last'],
] as const

test.each(cases)('[P1] %s is ordered as Postgres orders it', async (name, family, compare, values) => {
  const type: SqlType = { oid: name === 'oid' ? 26 : 0, name, family }
  // The same in every run, so that a failure comes again.
  const corpus = fc.sample(values, { numRuns: 400, seed: 7 })
  const asked = corpus.map((value, index) => (index % 23 === 0 ? null : value))
  for (const [direction, nulls] of ways) {
    const sql = `SELECT v::${name}, i FROM unnest($1::text[]) WITH ORDINALITY AS u(v, i)
      ORDER BY v::${name} ${direction} NULLS ${nulls}, i`
    const rows = (await queryText(pool, sql, [asked])).map(
      ([value, id]): JsonRow => ({ v: value === null ? null : JSON.parse(jsonOf(type, value!)), id: Number(id) }),
    )
    expect(rows).toHaveLength(corpus.length)
    const terms: OrderTerm[] = [
      { column: 'v', direction, nulls, compare, ...(compare === 'labels' ? { labels } : {}) },
      { column: 'id', direction: 'asc', nulls: 'last', compare: 'number' },
    ]
    const shuffled = [...rows].sort((a, b) => (((a.id as number) * 7919) % 401) - (((b.id as number) * 7919) % 401))
    expect(shuffled.sort(compareRows(terms))).toEqual(rows)
  }
})
