// What a predicate reads: columns of the row it judges, semi-joins, and columns of their inner tables.
import type { Expr, Predicate, SemiJoin } from './algebra.ts'

type ColumnExpr = Extract<Expr, { kind: 'column' }>

/** Positions of the outer row's columns: the replica identity must have them. Not the inner tables' columns. */
export const columnsOf = (predicate: Predicate): ReadonlySet<number> =>
  new Set(columnNamesOf(predicate).map(({ column }) => column))

/** The same with names, each once, in the order they appear. */
export function columnNamesOf(predicate: Predicate): readonly ColumnExpr[] {
  const found = new Map<number, ColumnExpr>()
  for (const part of partsOf(predicate)) if (part.kind === 'column') found.set(part.column, part)
  return [...found.values()]
}

/** Semi-joins that are asked while judging the row itself, each once. Those inside another's `where` are not among them: see
 *  `allSemiJoinsOf`. */
export function semiJoinsOf(predicate: Predicate): readonly SemiJoin[] {
  const found = new Set<SemiJoin>()
  for (const part of partsOf(predicate)) if (part.kind === 'semiJoin') found.add(part)
  return [...found]
}

/** Semi-joins at every depth, each once, a hop's own before the hop. */
export function allSemiJoinsOf(predicate: Predicate): readonly SemiJoin[] {
  const found = new Set<SemiJoin>()
  for (const join of semiJoinsOf(predicate)) {
    for (const inner of allSemiJoinsOf(join.where)) found.add(inner)
    found.add(join)
  }
  return [...found]
}

/** Positions of the inner table's columns that a semi-join reads: its keys and its condition. */
export const innerColumnsOf = (join: SemiJoin): ReadonlySet<number> =>
  new Set([...join.keys.map(({ inner }) => inner.column), ...columnsOf(join.where)])

/** Names of the settings that a predicate reads, inside semi-joins too: the claims that matter to it. */
export function settingsOf(predicate: Predicate): ReadonlySet<string> {
  const names = new Set<string>()
  for (const part of partsOf(predicate)) {
    if (part.kind === 'setting') names.add(part.name)
    if (part.kind === 'semiJoin') for (const name of settingsOf(part.where)) names.add(name)
  }
  return names
}

/** Every node on the outer row's side, the predicate itself first. */
export function* partsOf(node: Predicate | Expr): Generator<Predicate | Expr> {
  yield node
  for (const child of childrenOf(node)) yield* partsOf(child)
}

function childrenOf(node: Predicate | Expr): readonly (Predicate | Expr)[] {
  switch (node.kind) {
    case 'true':
    case 'false':
    case 'unknown':
    case 'column':
    case 'const':
    case 'setting':
    case 'now':
      return []
    case 'and':
    case 'or':
    case 'coalesce':
    case 'call':
      return node.args
    case 'case':
      return [...node.whens, ...node.values, node.otherwise]
    case 'not':
    case 'isNull':
    case 'boolean':
    case 'cast':
      return [node.arg]
    case 'compare':
    case 'isDistinct':
    case 'nullif':
      return [node.left, node.right]
    case 'in':
      return [node.left, ...node.items]
    case 'any':
      return [node.left, node.array]
    case 'like':
      return [node.arg, node.pattern]
    case 'jsonGet':
      return [node.arg, node.key]
    case 'array':
      return node.items
    case 'predicate':
      return [node.predicate]
    case 'semiJoin':
      return node.keys.map(({ outer }) => outer)
  }
}
