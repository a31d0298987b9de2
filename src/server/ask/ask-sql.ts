// The SELECTs by which Postgres is asked: how many rows and what hash they have together, each row's key and hash, and rows.
import {
  DummyDriver,
  Kysely,
  PostgresAdapter,
  PostgresIntrospector,
  PostgresQueryCompiler,
  type RawBuilder,
  sql,
} from 'kysely'
import { renderPredicate } from '../../predicate/render.ts'
import { castNameOf } from '../../predicate/sql-types.ts'
import { orderSql } from '../route/order-sql.ts'
import type { Query } from '../route/query.ts'

/** Compiles only. */
const compiler = new Kysely<unknown>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: database => new PostgresIntrospector(database),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  },
})

export interface Statement {
  readonly sql: string
  readonly values: readonly unknown[]
}

/** One row of three texts: how many rows, up to `limit`; the hashes of all, joined by XOR; and their length together. */
export function digestSql(query: Query, seed: bigint, limit: number): Statement {
  const row = sql`ROW(${shown(query)})::text`
  const hash = sql`pg_catalog.hashtextextended(r.text COLLATE "C", ${String(seed)}::int8)`
  return compiled(sql`SELECT pg_catalog.count(*), coalesce(pg_catalog.bit_xor(${hash}), 0), coalesce(pg_catalog.sum(pg_catalog.length(r.text)), 0)
    FROM (SELECT ${row} AS text FROM ${from(query)} WHERE ${renderPredicate(query.filter, { alias: 't' })} LIMIT ${limit}) AS r`)
}

/** The same of a query with a limit, where the hash is that of the rows in their order. */
export function sequenceSql(query: Query, seed: bigint): Statement {
  const text = sql`string_agg(pg_catalog.hashtextextended(r.text COLLATE "C", ${String(seed)}::int8)::text, ',' ORDER BY r.place)`
  return compiled(sql`SELECT pg_catalog.count(*), coalesce(pg_catalog.hashtextextended(${text}, ${String(seed)}::int8), 0), coalesce(pg_catalog.sum(pg_catalog.length(r.text)), 0)
    FROM (SELECT ROW(${shown(query)})::text AS text, pg_catalog.row_number() OVER (ORDER BY ${order(query)}) AS place
      FROM ${from(query)} WHERE ${renderPredicate(query.filter, { alias: 't' })} ORDER BY ${order(query)} LIMIT ${query.ordering!.limit}) AS r`)
}

/** Each row's key columns and, last, its hash. */
export function hashesSql(query: Query, seed: bigint, limit: number): Statement {
  return compiled(sql`SELECT ${key(query)}, ${hash(query, seed)} FROM ${from(query)}
    WHERE ${renderPredicate(query.filter, { alias: 't' })} ${first(query, limit)}`)
}

/** Rows in the order of their key, or of a query with a limit in its own: the query's columns as their types print them, and last the hash.
 *  @param keys one list of texts for each column of the key; null: every row */
export function rowsSql(
  query: Query,
  seed: bigint,
  keys: readonly (readonly string[])[] | null,
  limit: number,
): Statement {
  const condition = keys === null ? sql`true` : isOneOf(query, keys)
  return compiled(sql`SELECT ${shown(query)}, ${hash(query, seed)} FROM ${from(query)}
    WHERE (${renderPredicate(query.filter, { alias: 't' })}) AND ${condition} ${query.ordering?.limit == null ? sql`ORDER BY ${key(query)} LIMIT ${limit}` : first(query, limit)}`)
}

const order = ({ table, ordering }: Query) => orderSql(table, ordering!)
const first = (query: Query, limit: number) =>
  query.ordering?.limit == null
    ? sql`LIMIT ${limit}`
    : sql`ORDER BY ${order(query)} LIMIT ${Math.min(limit, query.ordering.limit)}`
const column = ({ table }: Query, position: number) => sql.id('t', table.columns[position]!.name)
const shown = (query: Query) => sql.join(query.columns.map(position => column(query, position)))
const key = (query: Query) => sql.join(query.table.primaryKey.map(position => column(query, position)))
const from = ({ table }: Query) => sql`${sql.id(table.schema, table.name)} AS t`

/** Seeded, so that nobody can write a row that hides a change of it. Never of more than is sent. */
const hash = (query: Query, seed: bigint) =>
  sql`pg_catalog.hashtextextended(ROW(${shown(query)})::text COLLATE "C", ${String(seed)}::int8)`

function isOneOf(query: Query, keys: readonly (readonly string[])[]): RawBuilder<unknown> {
  const { table } = query
  const arrays = table.primaryKey.map(
    (position, i) => sql`${[...keys[i]!]}::${sql.raw(`${castNameOf(table.columns[position]!.type)}[]`)}`,
  )
  // The form for which a primary key's index is used whatever the policy.
  if (arrays.length === 1) return sql`${key(query)} = ANY (${arrays[0]})`
  return sql`(${key(query)}) IN (SELECT * FROM ROWS FROM (${sql.join(arrays.map(array => sql`pg_catalog.unnest(${array})`))}))`
}

function compiled(text: RawBuilder<unknown>): Statement {
  const { sql, parameters } = text.compile(compiler)
  return { sql, values: parameters }
}
