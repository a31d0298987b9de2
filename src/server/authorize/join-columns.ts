// The columns of a join that its equalities make the same value.
import type { Expr, Predicate } from '../../predicate/algebra.ts'
import { partsOf } from '../../predicate/columns.ts'
import { comparisonOf, keyFunctionOf } from '../../predicate/compare.ts'
import { type ColumnExpr, mapColumns } from '../../predicate/map-columns.ts'
import { columnsPerSource, type JoinedTable } from './policy-scope.ts'

/** A table of the join, or null for all that is outside it. */
export type Node = JoinedTable | null

export interface Equality {
  readonly left: Expr
  readonly right: Expr
}

export function nodeOf(column: number, tables: readonly JoinedTable[]): Node {
  return tables.find(({ base }) => column >= base && column < base + columnsPerSource) ?? null
}

/** Whose columns a condition reads; none for constants and claims. */
export function nodesOf(part: Predicate | Expr, tables: readonly JoinedTable[]): ReadonlySet<Node> {
  const nodes = new Set<Node>()
  for (const each of partsOf(part)) if (each.kind === 'column') nodes.add(nodeOf(each.column, tables))
  return nodes
}

export const equalityOf = (part: Predicate): Equality | null =>
  part.kind === 'compare' && part.op === '=' ? { left: part.left, right: part.right } : null

/** An equality that ties two nodes: one side is a column of a table, the other reads one node alone. */
export function edgeOf(part: Predicate, tables: readonly JoinedTable[]): Equality | null {
  const equality = equalityOf(part)
  if (equality === null) return null
  const sides = [equality.left, equality.right]
  const isTie = sides.every(side => nodesOf(side, tables).size === 1)
  const isKey = sides.some(side => side.kind === 'column' && nodeOf(side.column, tables) !== null)
  return isTie && isKey ? equality : null
}

/** One value: the expressions that must be equal, by the node they are of. */
export interface Shared {
  readonly members: ReadonlyMap<Node, readonly Expr[]>
  /** The constants or claims that some member is compared with. */
  readonly constants: readonly Expr[]
}

export class JoinColumns {
  readonly #tables: readonly JoinedTable[]
  /** Classes of columns whose canonical keys are equal, so that each may stand for each in a comparison. */
  readonly #classes = new Map<number, Set<ColumnExpr>>()
  readonly #constants = new Map<number, Expr[]>()
  readonly #pairs: Shared[] = []

  constructor(
    tables: readonly JoinedTable[],
    equalities: readonly Equality[],
    local: ReadonlyMap<JoinedTable, readonly Predicate[]>,
  ) {
    this.#tables = tables
    for (const equality of equalities) {
      const { left, right } = equality
      if (left.kind === 'column' && right.kind === 'column' && haveOneKey(left, right)) this.#unite(left, right)
      else this.#pairs.push({ members: this.#byNode([left, right]), constants: [] })
    }
    for (const parts of local.values()) for (const part of parts) this.#learn(part)
  }

  /** What is shared by two nodes or more. */
  shared(): Shared[] {
    const classes = [...new Set(this.#classes.values())].map(members => ({
      members: this.#byNode([...members]),
      constants: [...members].flatMap(({ column }) => this.#constants.get(column) ?? []),
    }))
    return [...classes, ...this.#pairs].filter(({ members }) => members.size > 1)
  }

  /** The same condition over the columns of one node; null where it reads more than those are equal to. Only values of
   *  types that are the same text when they are equal may stand for each other. */
  over(part: Predicate, node: Node): Predicate | null {
    let found = true
    const moved = mapColumns(part, column => {
      if (nodeOf(column.column, this.#tables) === node) return column
      const other = [...(this.#classes.get(column.column) ?? [])].find(
        each => nodeOf(each.column, this.#tables) === node && isSameType(each, column),
      )
      found &&= other !== undefined
      return { ...column, column: other?.column ?? 0, name: other?.name ?? '' }
    })
    return found ? moved : null
  }

  /** A table's own conditions: `a = b` and `a = constant`. */
  #learn(part: Predicate): void {
    const equality = equalityOf(part)
    if (equality === null) return
    const { left, right } = equality
    if (left.kind === 'column' && right.kind === 'column') {
      if (haveOneKey(left, right)) this.#unite(left, right)
      return
    }
    for (const [column, other] of [[left, right] as const, [right, left] as const]) {
      if (column.kind !== 'column' || nodesOf(other, this.#tables).size > 0) continue
      this.#constants.set(column.column, [...(this.#constants.get(column.column) ?? []), other])
    }
  }

  #unite(left: ColumnExpr, right: ColumnExpr): void {
    const united = new Map<number, ColumnExpr>()
    for (const each of [left, right])
      for (const member of [...(this.#classes.get(each.column) ?? []), each]) united.set(member.column, member)
    const members = new Set(united.values())
    for (const { column } of members) this.#classes.set(column, members)
  }

  #byNode(exprs: readonly Expr[]): Map<Node, Expr[]> {
    const byNode = new Map<Node, Expr[]>()
    for (const expr of exprs) {
      const [node = null] = nodesOf(expr, this.#tables)
      byNode.set(node, [...(byNode.get(node) ?? []), expr])
    }
    return byNode
  }
}

/** Whether two columns are equal exactly when their own canonical keys are: then equality is transitive. */
function haveOneKey(left: ColumnExpr, right: ColumnExpr): boolean {
  const comparison = comparisonOf('=', left, right)
  const [own, other] = [keyFunctionOf(left.type), keyFunctionOf(right.type)]
  return own === other && comparison.left === own && comparison.right === own
}

/** 1.0 and 1.00 are equal, yet not the same text: what is cast from them is not. */
const sameWhenEqual: ReadonlySet<string> = new Set([
  'int',
  'uuid',
  'bool',
  'text',
  'enum',
  'date',
  'timestamp',
  'timestamptz',
])

const isSameType = (a: ColumnExpr, b: ColumnExpr): boolean =>
  a.type.oid === b.type.oid && a.type.collation === b.type.collation && sameWhenEqual.has(a.type.family)
