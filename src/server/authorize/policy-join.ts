// "Some row of these tables satisfies these conditions together", as nested semi-joins.
//
// A semi-join reads one table, by keys that its outer row gives. A join of several becomes a tree of them: at its root the
// outer row, and each table beneath the one whose columns are its keys. Subqueries within subqueries are taken into the
// join around them first, so that the tree is chosen once, over all tables: `a.id = b.id AND b.id = row.id` hangs both
// beneath the row. The steps:
//
//   1. conditions are sorted by whose columns they read: nobody's of the join (they move out of it), one table's (its
//      `where`), an equality of two (an edge), and the rest, which is mixed;
//   2. a mixed condition may read the same in equal columns of one table; else an OR becomes several joins, and a semi-join
//      a table more. Any other one has no key to be looked up by, and is refused;
//   3. join-tree.ts finds the tree.
import type { Expr, Predicate, SemiJoin } from '../../predicate/algebra.ts'
import { and, not, or } from '../../predicate/build.ts'
import { partsOf, semiJoinsOf } from '../../predicate/columns.ts'
import { sqlTypes } from '../../predicate/sql-types.ts'
import { type Equality, edgeOf, equalityOf, JoinColumns, nodeOf, nodesOf } from './join-columns.ts'
import { joinTree } from './join-tree.ts'
import { rejectsNulls } from './null-rejection.ts'
import {
  type Condition,
  type Context,
  columnsPerSource,
  type Join,
  type JoinedTable,
  nothingRead,
  unionOf,
  unsupported,
} from './policy-scope.ts'

export const emptyJoin: Join = { tables: [], conditions: [], optional: [], reads: nothingRead }

export const joined = (a: Join, b: Join): Join => ({
  tables: [...a.tables, ...b.tables],
  conditions: [...a.conditions, ...b.conditions],
  optional: [...a.optional, ...b.optional],
  reads: unionOf([a.reads, b.reads]),
})

/** The join with one condition more. */
export function withCondition(join: Join, condition: Condition): Join {
  if (condition.join !== undefined) return joined(join, asked(condition.join))
  return {
    ...join,
    conditions: [...join.conditions, condition.predicate],
    reads: unionOf([join.reads, condition.reads]),
  }
}

const asked = (join: Join): Join => ({
  ...join,
  tables: join.tables.map(table => ({ ...table, isAsked: true })),
  optional: join.optional.map(asked),
})

/** At how many branches an OR between tables is left to Postgres. */
const maxBranches = 16

/** "Some row of the join", as true or false.
 *  @param positive true where NULL may stand for false */
export function existenceOf(join: Join, context: Context, positive: boolean): Condition {
  let predicate: Predicate | undefined
  const own = new Set(tablesIn(join).map(({ base }) => base))
  return {
    reads: new Set([...join.reads].filter(source => !own.has(source.base))),
    join,
    get predicate() {
      predicate ??= new Existence(context, positive).of(join)
      return predicate
    },
  }
}

/** The join as a single semi-join of which nothing else is asked, by the one key that ties it; null when it is more. */
export function loneSemiJoin(join: Join, context: Context): SemiJoin | null {
  const { tables, conditions } = withoutOptional(join, context)
  const sorted = sortConditions(tables, conditions.flatMap(partsOfAnd))
  if (sorted.mixed.length > 0 || sorted.outside.length > 0) return null
  const { semiJoins, outside } = joinTree({ tables, ...sorted }, context)
  const [only, ...more] = semiJoins
  const isLone = more.length === 0 && outside.length === 0 && only?.kind === 'semiJoin' && only.keys.length === 1
  return isLone ? only : null
}

const tablesIn = (join: Join): JoinedTable[] => [...join.tables, ...join.optional.flatMap(tablesIn)]

/** True exactly when the predicate is: NULL becomes false. */
export function isTrue(predicate: Predicate): Predicate {
  if (isNeverUnknown(predicate)) return predicate
  const right: Expr = { kind: 'const', value: 't', type: sqlTypes.bool }
  return not({ kind: 'isDistinct', left: { kind: 'predicate', predicate, type: sqlTypes.bool }, right })
}

function isNeverUnknown(predicate: Predicate): boolean {
  switch (predicate.kind) {
    case 'true':
    case 'false':
    case 'isNull':
    case 'isDistinct':
      return true
    case 'and':
    case 'or':
      return predicate.args.every(isNeverUnknown)
    case 'not':
      return isNeverUnknown(predicate.arg)
    case 'semiJoin':
      return !predicate.nullAware
    default:
      return false
  }
}

/** Whether the join has at most one row for each outer row: every table has a unique key that is fixed by the outer row,
 *  a constant, or tables that are themselves fixed. */
export function isSingleRow(join: Join): boolean {
  const tables = tablesIn(join)
  const equalities = [...conditionsIn(join)].flatMap(partsOfAnd).flatMap(part => {
    const equality = equalityOf(part)
    return equality === null ? [] : [equality, { left: equality.right, right: equality.left }]
  })
  const fixed = new Set<number>()
  const fixedTables = new Set<JoinedTable>()
  const isFixed = (column: number): boolean => {
    const node = nodeOf(column, tables)
    return node === null || fixedTables.has(node) || fixed.has(column)
  }
  for (let before = -1; before !== fixed.size + fixedTables.size; ) {
    before = fixed.size + fixedTables.size
    for (const { left, right } of equalities)
      if (left.kind === 'column' && nodeOf(left.column, tables) !== null && columnsIn(right).every(isFixed))
        fixed.add(left.column)
    for (const table of tables)
      if (table.uniqueKeys.some(key => key.every(column => fixed.has(table.base + column)))) fixedTables.add(table)
  }
  return tables.every(table => table.isAsked === true || fixedTables.has(table))
}

function* conditionsIn(join: Join): Generator<Predicate> {
  yield* join.conditions
  for (const each of join.optional) yield* conditionsIn(each)
}

const columnsIn = (expr: Expr): number[] =>
  [...partsOf(expr)].flatMap(part => (part.kind === 'column' ? [part.column] : []))

/** The conditions that must all be true for this one to be: NOT is moved inwards, which Kleene's logic allows. */
export function partsOfAnd(predicate: Predicate): Predicate[] {
  if (predicate.kind === 'and') return predicate.args.flatMap(partsOfAnd)
  if (predicate.kind === 'boolean' && predicate.arg.kind === 'predicate') return partsOfAnd(predicate.arg.predicate)
  if (predicate.kind === 'true') return []
  if (predicate.kind !== 'not') return [predicate]
  const { arg } = predicate
  if (arg.kind === 'or') return arg.args.flatMap(part => partsOfAnd(not(part)))
  if (arg.kind === 'and') return [or(...arg.args.map(part => and(...partsOfAnd(not(part)))))]
  if (arg.kind === 'isDistinct' && arg.left.kind === 'predicate' && isConstantTrue(arg.right))
    return partsOfAnd(arg.left.predicate)
  return [predicate]
}

const isConstantTrue = (expr: Expr): boolean => expr.kind === 'const' && expr.value === 't'

class Existence {
  readonly #context: Context
  readonly #positive: boolean
  #branches = 1

  constructor(context: Context, positive: boolean) {
    this.#context = context
    this.#positive = positive
  }

  of(join: Join): Predicate {
    const whole = withoutOptional(join, this.#context)
    return this.#exists(whole.tables, whole.conditions.flatMap(partsOfAnd))
  }

  #exists(tables: readonly JoinedTable[], conditions: readonly Predicate[]): Predicate {
    const sorted = sortConditions(tables, conditions)
    const { mixed } = sorted
    const first = mixed.find(part => part.kind === 'semiJoin') ?? mixed[0]
    if (first === undefined) return this.#tree(tables, sorted)
    const others = conditions.filter(part => part !== first)
    if (first.kind === 'semiJoin') {
      const { table, keys } = this.#opened(first)
      return this.#exists([...tables, table], [...others, ...keys])
    }
    const alternatives = alternativesOf(first)
    if (alternatives === null) return refuse(first, tables, this.#context)
    this.#branches += alternatives.length - 1
    if (this.#branches > maxBranches)
      return unsupported(this.#context, `an OR of more than ${maxBranches} branches between tables of a subquery`)
    return or(...alternatives.map(part => this.#exists(tables, [...others, ...partsOfAnd(part)])))
  }

  #tree(tables: readonly JoinedTable[], { local, outside, equalities }: Sorted): Predicate {
    const tree = joinTree({ tables, equalities, local }, this.#context)
    const around = [...outside, ...tree.outside].map(part => (this.#positive ? part : isTrue(part)))
    return and(...around, ...tree.semiJoins)
  }

  /** A semi-join as one table more of the join it stands in. */
  #opened(join: SemiJoin): { table: JoinedTable; keys: Predicate[] } {
    const base = newBase(this.#context)
    const keys = join.keys.map(
      ({ inner, outer }): Predicate => ({
        kind: 'compare',
        op: '=',
        left: { ...inner, column: base + inner.column },
        right: outer,
      }),
    )
    return { table: { table: join.table, base, visible: join.where, uniqueKeys: [] }, keys }
  }
}

export function newBase({ bases }: Context): number {
  bases.last += columnsPerSource
  return bases.last
}

interface Sorted {
  readonly local: ReadonlyMap<JoinedTable, Predicate[]>
  readonly outside: readonly Predicate[]
  readonly equalities: readonly Equality[]
  readonly mixed: readonly Predicate[]
}

function sortConditions(tables: readonly JoinedTable[], conditions: readonly Predicate[]): Sorted {
  const local = new Map(tables.map((table): [JoinedTable, Predicate[]] => [table, []]))
  const outside: Predicate[] = []
  const equalities: Equality[] = []
  const unplaced: Predicate[] = []
  for (const part of conditions) {
    const [node = null, ...more] = nodesOf(part, tables)
    const equality = more.length > 0 ? edgeOf(part, tables) : null
    if (equality !== null) equalities.push(equality)
    else if (more.length > 0) unplaced.push(part)
    else if (node === null) outside.push(part)
    else local.get(node)!.push(part)
  }
  const columns = new JoinColumns(tables, equalities, local)
  // What holds further semi-joins is cheapest outside: there it makes no hop of the table it would be about.
  for (const [table, parts] of local) {
    const moved = parts.map(part => (semiJoinsOf(part).length > 0 ? columns.over(part, null) : null))
    outside.push(...moved.filter(part => part !== null))
    local.set(
      table,
      parts.filter((_, i) => moved[i] === null),
    )
  }
  const mixed = unplaced.filter(part => {
    for (const node of [null, ...tables]) {
      const moved = columns.over(part, node)
      if (moved === null) continue
      if (node === null) outside.push(moved)
      else local.get(node)!.push(moved)
      return false
    }
    return true
  })
  return { local, outside, equalities, mixed }
}

/** The OR that a condition is. */
function alternativesOf(part: Predicate): readonly Predicate[] | null {
  if (part.kind === 'or') return part.args
  const equal = (left: Expr, right: Expr): Predicate => ({ kind: 'compare', op: '=', left, right })
  if (part.kind === 'in') return part.items.map(item => equal(part.left, item))
  if (part.kind !== 'not' || part.arg.kind !== 'isDistinct') return null
  const { left, right } = part.arg
  return [equal(left, right), and({ kind: 'isNull', arg: left }, { kind: 'isNull', arg: right })]
}

function refuse(part: Predicate, tables: readonly JoinedTable[], context: Context): never {
  const names = [...nodesOf(part, tables)]
    .map(node => (node === null ? 'the outer row' : `${node.table.schema}.${node.table.name}`))
    .sort((a, b) => Number(a === 'the outer row') - Number(b === 'the outer row'))
  return unsupported(context, `a condition on ${names.join(' and ')} that is no equality of columns`)
}

/** LEFT JOINs replaced: by nothing where nothing reads their right side, by an inner join where a condition needs a row of
 *  it, by NOT EXISTS where one asks that there be none. @throws POLICY_UNSUPPORTED for any other */
function withoutOptional(join: Join, context: Context): Join {
  const { optional } = join
  const last = optional.at(-1)
  if (last === undefined) return join
  const rest = { ...join, optional: optional.slice(0, -1) }
  const tables = tablesIn(last)
  const readsLast = (part: Predicate): boolean => [...nodesOf(part, tables)].some(node => node !== null)
  const conditions = rest.conditions.flatMap(partsOfAnd)
  const reading = conditions.filter(readsLast)
  const readElsewhere = [...rest.optional.flatMap(each => [...conditionsIn(each)])].some(readsLast)
  if (reading.length === 0 && !readElsewhere) return withoutOptional(rest, context)
  if (reading.some(part => rejectsNulls(part, tables))) return withoutOptional(joined(rest, last), context)
  const [only, ...more] = reading
  if (only !== undefined && more.length === 0 && !readElsewhere && asksForNone(only, last)) {
    const none = not(new Existence(context, false).of(last))
    return withoutOptional({ ...rest, conditions: [...conditions.filter(part => part !== only), none] }, context)
  }
  const [first] = tables
  return unsupported(context, `a LEFT JOIN of ${first?.table.schema}.${first?.table.name} whose NULLs matter`)
}

/** `column IS NULL` of a column that is never NULL where the right side has a row, because its ON compares it. */
function asksForNone(part: Predicate, side: Join): boolean {
  if (part.kind !== 'isNull' || part.arg.kind !== 'column') return false
  const { column } = part.arg
  return side.conditions
    .flatMap(partsOfAnd)
    .some(
      on => on.kind === 'compare' && [on.left, on.right].some(each => each.kind === 'column' && each.column === column),
    )
}
