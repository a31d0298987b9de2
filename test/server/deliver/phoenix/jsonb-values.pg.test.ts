// Composite values, hstores and their arrays, of whatever they hold, as to_jsonb gives them.
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { SqlType } from '../../../../src/predicate/algebra.ts'
import { sqlTypes } from '../../../../src/predicate/sql-types.ts'
import { jsonOf } from '../../../../src/server/decode/values.ts'
import { translationOf } from '../../../../src/server/deliver/phoenix/jsonb-values.ts'
import { TestDatabase } from '../../../support/postgres.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await TestDatabase.create()
  await database.query(`CREATE EXTENSION hstore; CREATE TYPE inside AS (word text, far int8);
    CREATE TYPE outside AS (n numeric, "a ""b""" inside, many inside[], words text[], tags hstore)`)
})

afterAll(() => database[Symbol.asyncDispose]())

const arrayOf = (oid: number, element: SqlType): SqlType => ({
  oid,
  name: `${element.name}[]`,
  family: 'array',
  element,
})
const hstore: SqlType = { oid: 100_001, name: 'public.hstore', family: 'other' }
const inside: SqlType = {
  oid: 100_002,
  name: 'public.inside',
  family: 'other',
  fields: [
    { name: 'word', type: sqlTypes.text },
    { name: 'far', type: sqlTypes.int8 },
  ],
}
const outside: SqlType = {
  oid: 100_003,
  name: 'public.outside',
  family: 'other',
  fields: [
    { name: 'n', type: sqlTypes.numeric },
    { name: 'a "b"', type: inside },
    { name: 'many', type: arrayOf(100_004, inside) },
    { name: 'words', type: arrayOf(1009, sqlTypes.text) },
    { name: 'tags', type: hstore },
  ],
}

const word = fc.oneof(
  fc.string({
    unit: fc.constantFrom('"', '\\', ',', '(', ')', '{', '}', ' ', '\n', 'a', '=', '>', '\u2028'),
    maxLength: 6,
  }),
  fc.string({ unit: 'binary', maxLength: 6 }).map(text => text.replaceAll('\0', '')),
  fc.constantFrom('', 'NULL', 'null'),
)
const far = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(String)
const maybe = <T>(arbitrary: fc.Arbitrary<T>) => fc.option(arbitrary, { freq: 4 })
const insides = fc.tuple(maybe(word), maybe(far))

test('whatever stands in them', async () => {
  const value = fc.record({
    n: maybe(far.map(digits => `${digits}.50`)),
    inner: maybe(insides),
    many: fc.array(insides, { maxLength: 3 }),
    words: fc.array(maybe(word), { maxLength: 3 }),
    tags: fc.uniqueArray(fc.tuple(word, maybe(word)), { maxLength: 3, selector: ([key]) => key }),
  })
  await fc.assert(
    fc.asyncProperty(value, async ({ n, inner, many, words, tags }) => {
      const [row] = await database.query<{ text: string; theirs: string }>(
        `WITH value AS (SELECT ROW($1::numeric, CASE WHEN $2 THEN ROW($3::text, $4::int8)::inside END,
           ARRAY(SELECT ROW(w, f)::inside FROM unnest($5::text[], $6::int8[]) AS u (w, f)), $7::text[],
           hstore($8::text[], $9::text[]))::outside AS v)
         SELECT v::text AS text, to_jsonb(v)::text AS theirs FROM value`,
        [
          n,
          inner !== null,
          inner?.[0],
          inner?.[1],
          many.map(([text]) => text),
          many.map(([, digits]) => digits),
          words,
          tags.map(([key]) => key),
          tags.map(([, text]) => text),
        ],
      )
      const ours = translationOf(outside)!(jsonOf(outside, row!.text))
      const [normal] = await database.query<{ ours: string }>('SELECT $1::jsonb::text AS ours', [ours])
      expect(normal!.ours).toBe(row!.theirs)
    }),
    { numRuns: 500 },
  )
})

test('what is no such text, or of another number of fields, stays a text', () => {
  const ours = (type: SqlType, text: string) => translationOf(type)!(jsonOf(type, text))
  expect(ours(inside, '(a)')).toBe('"(a)"')
  expect(ours(inside, '(a,1,2)')).toBe('"(a,1,2)"')
  expect(ours(inside, 'a')).toBe('"a"')
  expect(ours(hstore, 'a=>b')).toBe('"a=>b"')
})
