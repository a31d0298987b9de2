// The SELECTs of a query with order and limit: its first rows, and how values compare that only the database can order.
import { type RawBuilder, sql } from 'kysely'
import { renderPredicate } from '../../predicate/render.ts'
import { castNameOf } from '../../predicate/sql-types.ts'
import { orderSql } from '../route/order-sql.ts'
import type { Query } from '../route/query.ts'
import { compiler } from './snapshot-sql.ts'

interface Statement {
  readonly sql: string
  readonly values: readonly unknown[]
}

/** Columns read of each row: those shown, and those of the order that are not. */
export const windowColumns = ({ columns, ordering }: Query): readonly number[] => [
  ...new Set([...columns, ...ordering!.columns.map(({ column }) => column)]),
]

/** The first rows, in order, as their types print them. */
export function windowSql(query: Query, limit: number): Statement {
  const { table } = query
  const columns = sql.join(windowColumns(query).map(column => sql.id('t', table.columns[column]!.name)))
  return compiled(sql`SELECT ${columns} FROM ${sql.id(table.schema, table.name)} AS t
    WHERE ${renderPredicate(query.filter, { alias: 't' })} ORDER BY ${orderSql(table, query.ordering!)} LIMIT ${limit}`)
}

/** Each value's rank under the collation of a column, which a UNION takes over from the column's side. A function of the values
 *  alone: no row is read. */
export function ranksSql({ table }: Query, column: number, values: readonly string[]): Statement {
  const { name, type } = table.columns[column]!
  const own = sql`SELECT ${sql.id('t', name)} AS own, NULL::text AS value FROM ${sql.id(table.schema, table.name)} AS t WHERE false`
  const given = sql`SELECT u::${sql.raw(castNameOf(type))}, u FROM pg_catalog.unnest(${[...values]}::text[]) AS u`
  return compiled(sql`SELECT value, dense_rank() OVER (ORDER BY own) FROM (${own} UNION ALL ${given}) AS r`)
}

function compiled(text: RawBuilder<unknown>): Statement {
  const { sql: statement, parameters } = text.compile(compiler)
  return { sql: statement, values: parameters }
}
