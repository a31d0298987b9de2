// Filters as Supabase's own client builds them: which rows they take, against Postgres judging as Supabase's server asks it.
import { postgresChangesFilter } from '@supabase/supabase-js'
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Row, SqlType } from '../../../../src/predicate/algebra.ts'
import { evaluate } from '../../../../src/predicate/evaluate.ts'
import { parseFilter } from '../../../../src/predicate/postgrest.ts'
import { sqlTypes } from '../../../../src/predicate/sql-types.ts'
import { subscribeFrameOf } from '../../../../src/server/deliver/phoenix/bindings.ts'
import { requestOfFrame } from '../../../../src/server/deliver/url.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { bindingOf } from './support/bound.ts'

type Operator =
  | 'eq'
  | 'neq'
  | 'lt'
  | 'lte'
  | 'gt'
  | 'gte'
  | 'like'
  | 'ilike'
  | 'match'
  | 'imatch'
  | 'isdistinct'
  | 'in'
  | 'is'
type Build = ReturnType<typeof postgresChangesFilter>

const text: SqlType = { ...sqlTypes.text, collation: 'c' }
const columns: readonly { readonly name: string; readonly type: SqlType; readonly pool: readonly string[] }[] = [
  { name: 'id', type: sqlTypes.int4, pool: ['0', '1', '42', '-7'] },
  {
    name: 'body',
    type: text,
    pool: ['', 'a', 'A b', 'a,b', '(a)', '"a"', 'a\\b', 'a*b', 'axb', ' a ', '100%', 'null', 'NULL', '*', 'é'],
  },
  { name: 'done', type: sqlTypes.bool, pool: ['t', 'f'] },
  {
    name: 'owner',
    type: sqlTypes.uuid,
    pool: ['00000000-0000-4000-8000-00000000000a', '00000000-0000-4000-8000-00000000000b'],
  },
  { name: 'price', type: sqlTypes.numeric, pool: ['1.50', '1.5', '-2', '12345678901234567890.1'] },
  { name: 'at', type: sqlTypes.timestamptz, pool: ['2026-01-31 12:00:00+00', '2026-02-01 00:00:00.5+00'] },
  // Names that mean something else in our own grammar.
  { name: 'select', type: text, pool: ['a', 'b'] },
  { name: 'or', type: sqlTypes.int4, pool: ['1', '2'] },
  { name: 'odd & name', type: text, pool: ['a', 'b'] },
]

const symbols: Readonly<Record<string, string>> = {
  eq: '=',
  neq: '!=',
  lt: '<',
  lte: '<=',
  gt: '>',
  gte: '>=',
  like: 'LIKE',
  ilike: 'ILIKE',
  match: '~',
  imatch: '~*',
}

interface Condition {
  readonly column: (typeof columns)[number]
  readonly operator: Operator
  readonly value: string | readonly string[] | null
  readonly isNegated: boolean
}

const condition: fc.Arbitrary<Condition> = fc.constantFrom(...columns).chain(column => {
  const value = fc.constantFrom(...column.pool)
  const ofText: Operator[] = column.type.family === 'text' ? ['like', 'ilike', 'match', 'imatch'] : []
  const scalar = fc.constantFrom<Operator>('eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'isdistinct', ...ofText)
  const pattern = fc.constantFrom(
    'a%',
    '%b',
    '_',
    '%',
    'a*b',
    '*',
    '^a',
    'A',
    '[a-c]x?',
    'a\\%b',
    'a.b',
    '%,%',
    '(a|b)',
  )
  const any = fc.oneof(
    {
      weight: 4,
      arbitrary: scalar.chain(operator =>
        (ofText.includes(operator) ? fc.oneof(pattern, value) : value).map(value => ({ operator, value })),
      ),
    },
    {
      weight: 2,
      arbitrary: fc.uniqueArray(value, { minLength: 1 }).map(value => ({ operator: 'in' as const, value })),
    },
    { weight: 1, arbitrary: fc.constant({ operator: 'is' as const, value: null }) },
    ...(column.type.family === 'bool'
      ? [
          {
            weight: 3,
            arbitrary: fc.constantFrom('true', 'false', 'unknown').map(value => ({ operator: 'is' as const, value })),
          },
        ]
      : []),
  )
  return fc.tuple(any, fc.boolean()).map(([{ operator, value }, isNegated]) => ({ column, operator, value, isNegated }))
})

function built(conditions: readonly Condition[]): string {
  let build: Build = postgresChangesFilter()
  for (const { column, operator, value, isNegated } of conditions) {
    // biome-ignore lint/suspicious/noExplicitAny: its overloads take each operator with the value of its own
    const call = build as any
    const method = operator === 'isdistinct' ? 'isDistinct' : operator
    build = isNegated ? call.not(column.name, operator, value) : call[method](column.name, value)
  }
  return build.build()
}

/** As `check_equality_op` asks. */
function asked({ column, operator, value, isNegated }: Condition, parameters: unknown[]): string {
  const place = (value: unknown): string => `$${parameters.push(value)}`
  const name = `r."${column.name}"`
  const { name: type } = column.type
  if (operator === 'is') return `(${name} IS ${isNegated ? 'NOT ' : ''}${value ?? 'null'})`
  if (operator === 'isdistinct')
    return `(${name} IS ${isNegated ? 'NOT ' : ''}DISTINCT FROM ${place(value)}::text::${type})`
  const list = built([{ column, operator, value, isNegated }]).replace(/^.*?in\.\((.*)\)$/s, '{$1}')
  const right = operator === 'in' ? `ANY (${place(list)}::text::${type}[])` : `${place(value)}::text::${type}`
  const judged = `(${name} ${operator === 'in' ? '=' : symbols[operator]} ${right})`
  return isNegated ? `(NOT ${judged})` : judged
}

let database: TestDatabase
let rows: (string | null)[][]

beforeAll(async () => {
  database = await TestDatabase.create()
  await database.query(
    `CREATE TABLE rows (n int PRIMARY KEY, ${columns.map(({ name, type }) => `"${name}" ${type.name}${type === text ? ' COLLATE "C"' : ''}`).join(', ')})`,
  )
  rows = fc.sample(fc.tuple(...columns.map(({ pool }) => fc.constantFrom(null, ...pool))), 60)
  for (const [n, row] of rows.entries())
    await database.query(`INSERT INTO rows VALUES (${n}, ${row.map((_, i) => `$${i + 1}`).join(', ')})`, row)
})

afterAll(() => database[Symbol.asyncDispose]())

test('what the client builds takes the rows that Postgres takes', async () => {
  const limits = { maxLength: 100_000, maxDepth: 4, maxTerms: 1000 }
  let taken = 0
  let refused = 0
  await fc.assert(
    fc.asyncProperty(fc.array(condition, { minLength: 1, maxLength: 3 }), async conditions => {
      const filter = built(conditions)
      const parameters: unknown[] = []
      const where = conditions.map(each => asked(each, parameters)).join(' AND ')
      const theirs = await database
        .query<{ n: number }>(`SELECT n FROM rows r WHERE ${where} ORDER BY n`, parameters)
        .catch(() => null)
      let ours: number[] | null
      try {
        const frame = subscribeFrameOf(bindingOf({ table: 'rows', filter }), { schema: 'public', table: 'rows' }, 2)
        const predicate = parseFilter(requestOfFrame(frame).filters, columns, limits)
        const judged = (row: (string | null)[]): Row => ({ text: column => row[column] })
        ours = rows.flatMap((row, n) =>
          evaluate(predicate, judged(row), { count: () => 0 } as never) === true ? [n] : [],
        )
      } catch (error) {
        // What is refused is refused by code, and is a pattern, or nothing that Postgres takes.
        expect((error as { code?: string }).code).toMatch(/^FILTER_(INVALID|UNSUPPORTED)$/)
        expect(theirs === null || conditions.some(({ operator }) => /match|like/.test(operator))).toBe(true)
        ours = null
      }
      if (ours === null) refused += 1
      else {
        taken += 1
        expect([filter, ours]).toEqual([filter, theirs?.map(({ n }) => n)])
      }
    }),
    { numRuns: 3000 },
  )
  expect(taken).toBeGreaterThan(2000)
  expect(refused).toBeLessThan(taken / 5)
}, 120_000)
