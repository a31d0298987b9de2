// Which tables a binding means. Pure.
import type { TableName } from '../../subscribe/subscription.ts'
import type { Binding } from './wire.ts'

export type { TableName }

/** @param all what is tracked and the reader may read. A binding that names its table means it whether it is there or not
 *  @returns in the order of their names */
export function tablesOf(
  { schema, table }: Pick<Binding, 'schema' | 'table'>,
  all: readonly TableName[],
): readonly TableName[] {
  if (schema !== '*' && table !== '*') return [{ schema, table }]
  return all
    .filter(each => (schema === '*' || each.schema === schema) && (table === '*' || each.table === table))
    .toSorted((a, b) => compare(a.schema, b.schema) || compare(a.table, b.table))
}

const compare = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)
