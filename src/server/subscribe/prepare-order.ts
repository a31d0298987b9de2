// From the order and limit that a client asks for to those that can be kept exact.
import { baseOf } from '../../predicate/sql-types.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Table, TableAccess } from '../catalog/table.ts'
import { compareOf, type OrderColumn, type Ordering } from '../route/ordering.ts'
import type { SubscribeRequest } from './subscription.ts'

/** @param shown columns that the query shows
 *  @returns null where neither was asked for
 *  @throws ORDER_UNSUPPORTED, COLUMN_UNKNOWN, FILTER_INVALID for a limit above the bound */
export function orderingOf(
  { table, role, readable }: Pick<TableAccess, 'table' | 'role' | 'readable'>,
  { kind, order = null, limit = null }: Pick<SubscribeRequest, 'kind' | 'order' | 'limit'>,
  shown: readonly number[],
  maxLimit: number,
): Ordering | null {
  if (order === null && limit === null) return null
  if (kind === 'changes')
    throw new TidegateError(
      'ORDER_UNSUPPORTED',
      'changes come in the order of their commits; leave order and limit out',
    )
  if (limit !== null && (limit < 1 || limit > maxLimit))
    throw new TidegateError('FILTER_INVALID', `limit=${limit} is not between 1 and ${maxLimit}`)
  const columns: OrderColumn[] = []
  for (const { column: name, direction, nulls } of order ?? []) {
    const column = table.columns.findIndex((candidate, i) => candidate.name === name && readable.has(i))
    if (column < 0)
      throw new TidegateError(
        'COLUMN_UNKNOWN',
        `${nameOf(table)} has no column ${JSON.stringify(name)} that role ${role} may read`,
      )
    // A column that stands in the order already decides nothing more.
    if (columns.some(known => known.column === column)) continue
    columns.push({ ...termOf(table, column, limit), direction, nulls, byCodePoints: false })
    if (limit === null && !shown.includes(column))
      throw new TidegateError(
        'ORDER_UNSUPPORTED',
        `without a limit the client orders by ${JSON.stringify(name)}, which select leaves out: add it to select, or add a limit`,
      )
  }
  const isByKey = columns.length === 0
  for (const column of table.primaryKey) {
    if (columns.some(known => known.column === column)) continue
    const { type } = table.columns[column]!
    const own = compareOf(type)
    const isText = ['text', 'bpchar'].includes(baseOf(type).family)
    const byCodePoints = own === null || (isText && !isByKey)
    const compare = byCodePoints || (own === 'server' && limit === null) ? 'text' : own
    columns.push({ column, direction: 'asc', nulls: 'last', compare, byCodePoints })
  }
  return { columns, limit }
}

function termOf(table: Table, column: number, limit: number | null): Pick<OrderColumn, 'column' | 'compare'> {
  const { name, type } = table.columns[column]!
  const compare = compareOf(type)
  if (compare === null)
    throw new TidegateError(
      'ORDER_UNSUPPORTED',
      `${JSON.stringify(name)} is of type ${type.name}, whose order is not known here; order by a number, a text, a time, a boolean, an enum or a UUID`,
    )
  if (compare === 'server' && limit === null)
    throw new TidegateError(
      'ORDER_UNSUPPORTED',
      `only Postgres can order by ${JSON.stringify(name)}, of type ${type.name} and its collation: add a limit, or order by a column with COLLATE "C"`,
    )
  return { column, compare }
}

const nameOf = (table: Table): string => `${table.schema}.${table.name}`
