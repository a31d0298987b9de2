// Hangs the tables of a join beneath the outer row, so that each is looked up by what its parent gives.
//
// A tree is right if for every shared value the nodes that have it are next to each other: then comparing each table with
// its parent compares all. Such a tree exists exactly when a spanning tree of greatest weight is one, where an edge weighs
// the values its ends share (Bernstein and Goodman 1981; Maier 1983). Of several, the one nearest to the outer row is
// taken: a table that hangs there holds no other, and is no hop.
import type { Expr, Predicate, SemiJoin } from '../../predicate/algebra.ts'
import { absorbed, and, asCondition } from '../../predicate/build.ts'
import { type ColumnExpr, mapColumns } from '../../predicate/map-columns.ts'
import { type Equality, equalityOf, JoinColumns, type Node, nodesOf, type Shared } from './join-columns.ts'
import { type Context, type JoinedTable, unsupported } from './policy-scope.ts'

interface Conditions {
  readonly tables: readonly JoinedTable[]
  readonly equalities: readonly Equality[]
  readonly local: ReadonlyMap<JoinedTable, readonly Predicate[]>
}

interface Tree {
  /** Those of the tables beneath the outer row; `false` where one is empty for this reader. */
  readonly semiJoins: readonly Predicate[]
  /** Equalities of the outer row's own columns that follow. */
  readonly outside: readonly Predicate[]
}

/** @throws POLICY_UNSUPPORTED when the equalities run in a circle */
export function joinTree(conditions: Conditions, context: Context): Tree {
  const { tables } = conditions
  const shared = new JoinColumns(tables, conditions.equalities, conditions.local).shared()
  for (const whole of [shared, shared.filter(({ constants }) => constants.length === 0)]) {
    const parents = spanningTree(tables, whole, conditions.local)
    if (!whole.every(each => isConnected(each, parents))) continue
    // A value that is a constant everywhere ties nothing: each of its columns is compared with the constant instead.
    const fixed = shared.filter(each => !whole.includes(each))
    return new TreeMaker(conditions, whole, fixed, parents, context).make()
  }
  const names = tables.map(({ table }) => `${table.schema}.${table.name}`).join(', ')
  return unsupported(context, `a join of ${names} with the outer row whose equalities run in a circle`)
}

/** Prim's algorithm from the outer row. @returns each table's parent, those nearer to the root first */
function spanningTree(
  tables: readonly JoinedTable[],
  shared: readonly Shared[],
  local: Conditions['local'],
): ReadonlyMap<JoinedTable, Node> {
  const weight = (a: Node, b: Node): number => shared.filter(({ members }) => members.has(a) && members.has(b)).length
  const parents = new Map<JoinedTable, Node>()
  // Of tables that the outer row says nothing about, the one that the reader or a constant narrows most is the root.
  const narrowed = (table: JoinedTable): number => (local.get(table) ?? []).filter(part => isNarrow(part)).length
  while (parents.size < tables.length) {
    let best: { table: JoinedTable; parent: Node; weight: number } | null = null
    for (const table of tables) {
      if (parents.has(table)) continue
      for (const parent of [null, ...parents.keys()]) {
        const found = { table, parent, weight: weight(parent, table) }
        const isBetter =
          best === null ||
          found.weight > best.weight ||
          (found.weight === 0 && best.weight === 0 && parent === null && narrowed(table) > narrowed(best.table))
        if (isBetter) best = found
      }
    }
    parents.set(best!.table, best!.parent)
  }
  return parents
}

function isNarrow(part: Predicate): boolean {
  const equality = equalityOf(part)
  return equality !== null && (nodesOf(equality.left, []).size === 0 || nodesOf(equality.right, []).size === 0)
}

/** Whether the nodes that share a value are joined by edges among themselves. */
function isConnected({ members }: Shared, parents: ReadonlyMap<JoinedTable, Node>): boolean {
  let edges = 0
  for (const node of members.keys()) if (node !== null && members.has(parents.get(node)!)) edges++
  return edges === members.size - 1
}

class TreeMaker {
  readonly #conditions: Conditions
  readonly #shared: readonly Shared[]
  readonly #fixed: readonly Shared[]
  readonly #parents: ReadonlyMap<JoinedTable, Node>
  readonly #context: Context

  constructor(
    conditions: Conditions,
    shared: readonly Shared[],
    fixed: readonly Shared[],
    parents: ReadonlyMap<JoinedTable, Node>,
    context: Context,
  ) {
    this.#conditions = conditions
    this.#shared = shared
    this.#fixed = fixed
    this.#parents = parents
    this.#context = context
  }

  make(): Tree {
    return { semiJoins: this.#childrenOf(null), outside: this.#equalitiesIn(null) }
  }

  #childrenOf(parent: Node): Predicate[] {
    return this.#conditions.tables
      .filter(table => this.#parents.get(table) === parent)
      .map(table => this.#semiJoin(table, parent))
  }

  #semiJoin(table: JoinedTable, parent: Node): Predicate {
    const keys = this.#shared.flatMap(({ members }): SemiJoin['keys'] => {
      const [inner, outer] = [members.get(table)?.[0], members.get(parent)?.[0]]
      if (inner === undefined || outer === undefined) return []
      if (inner.kind !== 'column') return this.#refuse(table)
      return [{ inner: inPositions(inner, table) as ColumnExpr, outer }]
    })
    const own = [...(this.#conditions.local.get(table) ?? []), ...this.#equalitiesIn(table), ...this.#childrenOf(table)]
    const where = absorbed(asCondition(and(...own.map(part => inPositions(part, table)), table.visible)))
    if (where.kind === 'false') return { kind: 'false' }
    const { oid, schema, name } = table.table
    return { kind: 'semiJoin', table: { oid, schema, name }, keys, where, nullAware: false }
  }

  /** Equalities between several columns of one node that share a value, and with the constant it is. */
  #equalitiesIn(node: Node): Predicate[] {
    const found: Predicate[] = []
    const equal = (left: Expr, right: Expr): void => void found.push({ kind: 'compare', op: '=', left, right })
    for (const { members } of [...this.#shared, ...this.#fixed]) {
      const [first, ...more] = members.get(node) ?? []
      for (const other of more) equal(first!, other)
    }
    for (const { members, constants } of this.#fixed) {
      const [first] = members.get(node) ?? []
      if (first !== undefined) for (const constant of constants) equal(first, constant)
    }
    return found
  }

  #refuse({ table }: JoinedTable): never {
    return unsupported(this.#context, `an expression over ${table.schema}.${table.name} in place of a key`)
  }
}

const inPositions = <T extends Predicate | Expr>(part: T, { base }: JoinedTable): T =>
  mapColumns(part, column => ({ ...column, column: column.column - base }))
