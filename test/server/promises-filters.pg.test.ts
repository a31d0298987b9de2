// Every operator of the filter grammar over every type it takes, as live queries while writers change rows: at each quiet
// point the rows are those of the SELECT with the same condition written in SQL.
import { randomInt } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

/** A column, and values as both SQL and the grammar write them. */
interface Column {
  readonly name: string
  readonly type: string
  readonly values: readonly string[]
  /** Patterns for like and ilike. */
  readonly patterns?: readonly string[]
}

const uuids = [
  '10000000-0000-4000-8000-000000000001',
  'a0000000-0000-4000-8000-00000000000f',
  'F0000000-0000-4000-8000-000000000000',
]

const columns: readonly Column[] = [
  { name: 'i2', type: 'int2', values: ['-32768', '0', '7', '32767'] },
  { name: 'i4', type: 'int4', values: ['-5', '0', '10', '9'] },
  { name: 'i8', type: 'int8', values: ['9007199254740993', '9007199254740992', '-1', '12'] },
  { name: 'n', type: 'numeric', values: ['1', '1.0', '1.00000000000000000001', '-3', 'NaN', '1e3'] },
  { name: 'f4', type: 'float4', values: ['0.1', '1', '-2.5', 'NaN'] },
  { name: 'f8', type: 'float8', values: ['0.1', '1e10', '-0', '0', 'Infinity'] },
  { name: 'b', type: 'bool', values: ['true', 'false'] },
  {
    name: 't',
    type: 'text COLLATE "C"',
    values: ['', 'a', 'B', 'ab', 'ä', 'a%b', 'a_b', '😀', 'null'],
    patterns: ['a*', '*b', 'a_b', '_', '*', 'A*', 'a\\%b'],
  },
  { name: 'v', type: 'varchar(8) COLLATE "C"', values: ['x', 'X', 'xy', 'z,(1)', 'q"t'], patterns: ['x*', '*'] },
  { name: 'c', type: 'char(4) COLLATE "C"', values: ['a', 'ab', 'abcd'], patterns: ['a*'] },
  { name: 'u', type: 'uuid', values: uuids },
  { name: 'd', type: 'date', values: ['2024-02-29', '2023-12-31', 'infinity', '0044-03-15 BC'] },
  { name: 'ts', type: 'timestamp', values: ['2024-01-01 00:00:00', '2024-01-01 00:00:00.000001', '-infinity'] },
  {
    name: 'tz',
    type: 'timestamptz',
    values: ['2024-01-01 00:00:00+00', '2024-01-01 01:00:00+01', '2024-06-01 12:00:00.5Z'],
  },
  { name: 'tm', type: 'time', values: ['00:00:00', '12:30:00.5', '23:59:59'] },
  { name: 'e', type: 'mood', values: ['sad', 'ok', 'happy'] },
  { name: 'dom', type: 'small', values: ['1', '2', '3'] },
  { name: 'y', type: 'bytea', values: ['\\x00', '\\xff', '\\x'] },
  { name: '"c.odd"', type: 'int4', values: ['1', '2', '3'] },
  { name: '"order"', type: 'int4', values: ['1', '2', '3'] },
]

const schema = `
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
  CREATE DOMAIN small AS int CHECK (VALUE < 100);
  CREATE TABLE things (id int PRIMARY KEY, ${columns.map(({ name, type }) => `${name} ${type}`).join(', ')});
  ALTER TABLE things ENABLE ROW LEVEL SECURITY;
  CREATE POLICY everybody ON things FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON things TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;`

let database: TestDatabase
let node: TestNode
let token: string
const ada = person()
const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
let state = seed
const below = (n: number): number => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0
  return Math.floor((state / 2 ** 32) * n)
}
const pick = <T>(items: readonly T[]): T => items[below(items.length)]!

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['things'])
  node = await TestNode.start(database.url)
  token = await tokenFor(ada)
  console.log(`filters: seed ${seed}`)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

interface Filter {
  /** As a URL's query: name and value. */
  readonly name: string
  readonly value: string
  readonly sql: string
}

const literal = (text: string): string => pg.escapeLiteral(text)
const operators = { eq: '=', neq: '<>', lt: '<', lte: '<=', gt: '>', gte: '>=' } as const

/** Every condition on one column, as `operator.value` and SQL. */
function conditionsOf({ name, values, patterns }: Column): { value: string; sql: string }[] {
  const conditions: { value: string; sql: string }[] = []
  for (const value of values) {
    for (const [word, operator] of Object.entries(operators))
      conditions.push({ value: `${word}.${value}`, sql: `${name} ${operator} ${literal(value)}` })
    conditions.push({ value: `isdistinct.${value}`, sql: `${name} IS DISTINCT FROM ${literal(value)}` })
  }
  const some = values.filter((_, i) => i % 2 === 0)
  const list = some.map(value =>
    /[,()"\\]/.test(value) || value === '' ? `"${value.replace(/["\\]/g, '\\$&')}"` : value,
  )
  conditions.push({ value: `in.(${list.join(',')})`, sql: `${name} IN (${some.map(literal).join(', ')})` })
  conditions.push({ value: 'is.null', sql: `${name} IS NULL` }, { value: 'is.not_null', sql: `${name} IS NOT NULL` })
  if (name === 'b')
    conditions.push(
      { value: 'is.true', sql: 'b IS TRUE' },
      { value: 'is.false', sql: 'b IS FALSE' },
      { value: 'is.unknown', sql: 'b IS UNKNOWN' },
    )
  for (const pattern of patterns ?? []) {
    const like = literal(pattern.replaceAll('*', '%'))
    conditions.push({ value: `like.${pattern}`, sql: `${name} LIKE ${like}` })
    conditions.push({ value: `ilike.${pattern}`, sql: `${name} ILIKE ${like}` })
  }
  return [...conditions, ...conditions.map(({ value, sql }) => ({ value: `not.${value}`, sql: `NOT (${sql})` }))]
}

const plainName = (name: string): string => name.replaceAll('"', '')

const singles = (column: Column): Filter[] =>
  conditionsOf(column).map(({ value, sql }) => ({
    name: column.name.startsWith('"') ? `c.${plainName(column.name)}` : column.name,
    value,
    sql,
  }))

/** A condition inside a group: names with dots and values with commas, dots at the ends or quotes are quoted. */
function item(depth: number): { text: string; sql: string } {
  if (depth > 0 && below(3) === 0) {
    const op = pick(['and', 'or'] as const)
    const items = Array.from({ length: 1 + below(3) }, () => item(depth - 1))
    const isNegated = below(3) === 0
    const sql = `(${items.map(part => `(${part.sql})`).join(` ${op.toUpperCase()} `)})`
    return {
      text: `${isNegated ? 'not.' : ''}${op}(${items.map(({ text }) => text).join(',')})`,
      sql: isNegated ? `NOT ${sql}` : sql,
    }
  }
  const column = pick(columns)
  const { value, sql } = pick(conditionsOf(column))
  const match = /^((?:not\.)?(?:in|is|[a-z]+)\.)([\s\S]*)$/.exec(value)!
  const operand = match[2]!
  const isPlain =
    match[1]!.endsWith('in.') || match[1]!.endsWith('is.') || (operand !== '' && !/[,()"\\{}]/.test(operand))
  const quoted = isPlain ? operand : `"${operand.replace(/["\\]/g, '\\$&')}"`
  return { text: `${column.name}.${match[1]}${quoted}`, sql }
}

function nested(): Filter {
  const op = pick(['and', 'or'] as const)
  const items = Array.from({ length: 1 + below(4) }, () => item(3))
  const sql = `(${items.map(part => `(${part.sql})`).join(` ${op.toUpperCase()} `)})`
  const isNegated = below(3) === 0
  return {
    name: isNegated ? `not.${op}` : op,
    value: `(${items.map(({ text }) => text).join(',')})`,
    sql: isNegated ? `NOT ${sql}` : sql,
  }
}

const rowSql = (id: number): string => {
  const values = columns.map(({ values }) => (below(5) === 0 ? 'NULL' : literal(pick(values))))
  return `(${id}, ${values.join(', ')})`
}

const ids = 60

function statement(): string {
  const id = below(ids)
  const column = pick(columns)
  const value = below(4) === 0 ? 'NULL' : literal(pick(column.values))
  return pick([
    () => `INSERT INTO things VALUES ${rowSql(id)} ON CONFLICT DO NOTHING`,
    () => `DELETE FROM things WHERE id = ${id}`,
    () => `UPDATE things SET ${column.name} = ${value} WHERE id = ${id}`,
    () => `UPDATE things SET ${column.name} = ${value} WHERE id % 7 = ${below(7)}`,
    () =>
      `UPDATE things SET id = ${ids} + ${below(ids)} WHERE id = ${id} AND NOT EXISTS (SELECT FROM things WHERE id >= ${ids})`,
    () => `DELETE FROM things WHERE id >= ${ids}`,
  ])()
}

/** Follows all filters, several to a stream, while rows change; compares at each quiet point. */
async function follow(filters: readonly Filter[], rounds: number): Promise<void> {
  await database.query(
    `TRUNCATE things; INSERT INTO things VALUES ${Array.from({ length: ids / 2 }, (_, i) => rowSql(i * 2)).join(', ')}`,
  )
  const lives = await Promise.all(
    filters.map(async filter => {
      const query = new URLSearchParams([
        [filter.name, filter.value],
        ['select', 'id,i4'],
      ])
      const live = await LiveSse.open(node, `/v1/live/things?${query}`, token)
      expect(live.stream.errorBody, `${filter.name}=${filter.value}`).toEqual({})
      return { filter, live: await live.exact() }
    }),
  )
  try {
    for (let round = 0; round < rounds; round++) {
      for (let i = 0; i < 30; i++) {
        try {
          await database.query(Array.from({ length: 1 + below(3) }, statement).join('; '))
        } catch (error) {
          if ((error as { code?: string }).code !== '23505') throw error
        }
      }
      for (const { filter, live } of lives) {
        const expected = asSet(await selectAs(database, ada, `SELECT id, i4 FROM things WHERE ${filter.sql}`))
        const same = (): boolean => asSet(live.rows.list()).join() === expected.join()
        await live.stream.waitFor(() => same() || live.failure !== null).catch(() => {})
        expect(live.failure, `${filter.name}=${filter.value}`).toBe(null)
        expect(asSet(live.rows.list()), `${filter.name}=${filter.value} as ${filter.sql}, seed ${seed}`).toEqual(
          expected,
        )
        expect(live.rows.resyncs).toEqual([])
      }
    }
  } finally {
    for (const { live } of lives) live.stream.close()
  }
}

test.each(columns)('[P1] every operator on $type', async column => {
  await follow(singles(column), 3)
})

test('[P1] and, or and not, nested', async () => {
  await follow(Array.from({ length: 120 }, nested), 5)
})

test('[P1] several conditions of one URL hold together, and also on columns that are not shown', async () => {
  await database.query(`TRUNCATE things; INSERT INTO things (id, i4, t) VALUES (1, 1, 'a'), (2, 5, 'a'), (3, 5, 'b')`)
  const live = await (await LiveSse.open(node, '/v1/live/things?i4=gt.2&i4=lt.9&t=eq.a&select=id', token)).exact()
  expect(live.rows.list()).toEqual([{ id: 2 }])
  await database.query(
    `UPDATE things SET t = 'a' WHERE id = 3; UPDATE things SET i4 = 9 WHERE id = 2; UPDATE things SET i4 = 3 WHERE id = 1`,
  )
  await live.stream.waitFor(() => asSet(live.rows.list()).join() === asSet([{ id: 1 }, { id: 3 }]).join())
  live.stream.close()
})
