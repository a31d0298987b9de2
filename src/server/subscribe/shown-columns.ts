// What a row of a query shows, column by column.
import type { Query } from '../route/query.ts'
import type { ShownColumn } from './subscription.ts'

const byQuery = new WeakMap<Query, readonly ShownColumn[]>()

/** One list for all who share the query. */
export function shownColumns(query: Query): readonly ShownColumn[] {
  let columns = byQuery.get(query)
  if (columns === undefined) {
    columns = query.columns.map(position => {
      const { name, type, typname } = query.table.columns[position]!
      return { name, type: typname ?? type.name, sqlType: type }
    })
    byQuery.set(query, columns)
  }
  return columns
}
