// The ORDER BY of a live query.
import { type RawBuilder, sql } from 'kysely'
import { baseOf } from '../../predicate/sql-types.ts'
import type { Table } from '../catalog/table.ts'
import { type OrderColumn, type Ordering, typeOfTail } from './ordering.ts'

/** Terms for ORDER BY, without the words; the table's alias is `t`. */
export const orderSql = (table: Table, { columns }: Ordering): RawBuilder<unknown> =>
  sql.join(columns.map(column => termSql(table, column)))

function termSql(table: Table, { column, direction, nulls, byCodePoints }: OrderColumn): RawBuilder<unknown> {
  const { name, type } = table.columns[column]!
  const value = byCodePoints ? tailSql(name, type) : sql`${sql.id('t', name)}`
  return sql`${value} ${sql.raw(direction === 'desc' ? 'DESC' : 'ASC')} ${sql.raw(nulls === 'first' ? 'NULLS FIRST' : 'NULLS LAST')}`
}

function tailSql(name: string, type: Table['columns'][number]['type']): RawBuilder<unknown> {
  const as = typeOfTail(type)
  if (as === type) return sql`${sql.id('t', name)}`
  const { family } = baseOf(type)
  const isText = family === 'text' || family === 'bpchar'
  return isText ? sql`${sql.id('t', name)} COLLATE "C"` : sql`${sql.id('t', name)}::text COLLATE "C"`
}
