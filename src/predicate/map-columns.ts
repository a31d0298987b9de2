// Replaces the columns of the row that a predicate judges.
import type { Expr, Predicate } from './algebra.ts'

export type ColumnExpr = Extract<Expr, { kind: 'column' }>

/** The same predicate or expression over other columns. Those of inner tables, inside a semi-join's `where`, stay.
 *  @param map gives what stands for a column */
export function mapColumns<T extends Predicate | Expr>(node: T, map: (column: ColumnExpr) => Expr): T {
  // What stands for a column is an expression wherever a column may stand.
  if (node.kind === 'column') return map(node) as T
  if (node.kind === 'semiJoin') {
    const keys = node.keys.map(({ inner, outer }) => ({ inner, outer: mapColumns(outer, map) }))
    return { ...node, keys }
  }
  const parts = Object.entries(node).map(([name, value]) => [name, mapPart(value, map)])
  return Object.fromEntries(parts) as T
}

function mapPart(value: unknown, map: (column: ColumnExpr) => Expr): unknown {
  if (Array.isArray(value)) return value.map(item => mapPart(item, map))
  return typeof value === 'object' && value !== null && 'kind' in value ? mapColumns(value as Expr, map) : value
}
