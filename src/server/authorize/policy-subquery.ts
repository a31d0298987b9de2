// Compiles subqueries that are asked whether they hold a row: EXISTS, IN and = ANY.
import type { Node, SelectStmt } from 'libpg-query'
import type { Predicate } from '../../predicate/algebra.ts'
import { and, not, or } from '../../predicate/build.ts'
import { baseOf } from '../../predicate/sql-types.ts'
import { mayBeNull, openCall } from './inline-function.ts'
import { existenceOf, isTrue, loneSemiJoin, withCondition } from './policy-join.ts'
import { compared } from './policy-operators.ts'
import {
  type Condition,
  type Context,
  type Join,
  nameOf,
  partsOf,
  refused,
  type Scope,
  sqlNameOf,
  unionOf,
  unsupported,
  type Value,
} from './policy-scope.ts'
import { columnsOfSelect, type OpenSelect, openSelect, targetsOf, wholeSetCall, withNamed } from './policy-select.ts'
import { castTo } from './policy-types.ts'
import { quoted } from './sql-name.ts'

export function exists(select: SelectStmt, scope: Scope, positive: boolean): Condition {
  return eachBranch(select, scope, 'exists', (branch, within) => {
    const set = setOf(branch, within)
    if (set !== null) return guarded(exists(set.select, set.scope, positive), set.guard, scope.context)
    const open = openSelect(branch, within, 'some')
    for (const target of targetsOf(branch)) assertGivesRow(target, open)
    return existenceOf(open.join, scope.context, positive)
  })
}

/** What EXISTS selects does not matter, unless it makes rows of its own (an aggregate, a function that returns a set) or
 *  may not be selected. */
function assertGivesRow(target: Node, { scope }: OpenSelect): void {
  if ('A_Const' in target) return
  if (!('ColumnRef' in target) || !partsOf(target.ColumnRef.fields).includes('*')) {
    scope.context.compiler.value(target, scope)
    return
  }
  for (const source of scope.sources) {
    if (!('relation' in source)) continue
    const { relation, privileges } = source
    const names = [...relation.table.columns.map(({ name }) => name), ...relation.unpublishedColumns]
    const hidden = names.find(name => privileges?.columns.has(name) === false)
    if (hidden !== undefined)
      refused(
        scope.context,
        `reads ${nameOf(relation)}.${hidden}, which role ${scope.viewer.name} may not SELECT`,
        `select a constant instead of *, or GRANT SELECT ON ${sqlNameOf(relation)} TO ${quoted(scope.viewer.name)}`,
      )
  }
}

/** `tested IN (SELECT ...)`, also for a row of several values. */
export function inSubquery(tested: Node, select: SelectStmt, scope: Scope, positive: boolean): Condition {
  const nodes = 'RowExpr' in tested ? (tested.RowExpr.args ?? []) : [tested]
  const left = nodes.map(node => scope.context.compiler.value(node, scope))
  return new In(left, scope.context, positive).of(select, scope)
}

/** Whether the values are a row of those selected. */
export const amongRows = (
  left: readonly Value[],
  rows: { readonly select: SelectStmt; readonly scope: Scope },
  context: Context,
  positive: boolean,
): Condition => new In(left, context, positive).of(rows.select, rows.scope)

class In {
  readonly #left: readonly Value[]
  readonly #context: Context
  readonly #positive: boolean
  #families: readonly string[] | null = null

  constructor(left: readonly Value[], context: Context, positive: boolean) {
    this.#left = left
    this.#context = context
    this.#positive = positive
  }

  of(select: SelectStmt, scope: Scope): Condition {
    return eachBranch(select, scope, this.#positive ? 'in' : 'not in', (branch, within) => this.#branch(branch, within))
  }

  #branch(select: SelectStmt, scope: Scope): Condition {
    if (select.valuesLists !== undefined) return this.#values(select.valuesLists, scope)
    const set = setOf(select, scope)
    if (set !== null) return guarded(this.#cast(set), set.guard, this.#context)
    const open = openSelect(select, scope, 'all')
    const right = columnsOfSelect(open).map(({ value }) => value)
    return this.#among(right, open.join)
  }

  /** The rows of a function, as the type that it returns. */
  #cast({ select, scope, type }: SetCall): Condition {
    return eachBranch(select, scope, this.#positive ? 'in' : 'not in', (branch, within) => {
      const inner = setOf(branch, within)
      if (inner !== null) return guarded(this.#cast(inner), inner.guard, this.#context)
      const open = openSelect(branch, within, 'all')
      const right = columnsOfSelect(open).map(({ value }) => castTo(value, baseOf(type), this.#context))
      return this.#among(right, open.join)
    })
  }

  #values(rows: readonly Node[], scope: Scope): Condition {
    const conditions = rows.map(row => {
      const items = 'List' in row ? (row.List.items ?? []) : []
      return this.#equal(items.map(item => scope.context.compiler.value(item, scope)))
    })
    return {
      predicate: or(...conditions.map(({ predicate }) => predicate)),
      reads: unionOf(conditions.map(c => c.reads)),
    }
  }

  #equal(right: readonly Value[]): Condition {
    const parts = this.#equalities(right)
    return { predicate: and(...parts.map(part => part.predicate)), reads: unionOf(parts.map(part => part.reads)) }
  }

  #equalities(right: readonly Value[]): Condition[] {
    if (this.#left.length !== right.length || right.length === 0)
      return unsupported(this.#context, `IN (SELECT ...) of ${right.length} columns with ${this.#left.length} values`)
    const families = right.map(value => value.expr.type.family)
    // A UNION's columns take a common type first; within a family that changes no comparison.
    if (this.#families?.some((family, i) => family !== families[i]) === true)
      return unsupported(this.#context, 'a UNION of columns of different types')
    this.#families = families
    return right.map((value, i) => compared('=', value, this.#left[i]!, this.#context))
  }

  #among(right: readonly Value[], join: Join): Condition {
    const equalities = this.#equalities(right)
    if (this.#positive) return existenceOf(equalities.reduce(withCondition, join), this.#context, true)
    if (join.tables.length === 0) {
      const parts = join.conditions.map(isTrue)
      const equal = this.#equal(right)
      return { predicate: and(...parts, equal.predicate), reads: unionOf([join.reads, equal.reads]) }
    }
    return this.#exactly(right, join, equalities)
  }

  /** With NULLs kept apart: true if a row matches; else unknown if one might have; else false. */
  #exactly(right: readonly Value[], join: Join, equalities: readonly Condition[]): Condition {
    const found = existenceOf(equalities.reduce(withCondition, join), this.#context, false)
    const reads = unionOf([found.reads, ...this.#left.map(value => value.reads)])
    // What the outer row says of the join beyond the value itself would be in the keys, and NULLs matter in one alone.
    const isAlone = existenceOf(join, this.#context, false).reads.size === 0 && join.optional.length === 0
    const lone =
      isAlone && equalities.length === 1 ? loneSemiJoin(equalities.reduce(withCondition, join), this.#context) : null
    if (lone !== null) return { predicate: { ...lone, nullAware: true }, reads }
    const matching = found.predicate
    const doubts = right.map((value, i) => {
      const nullable = [value, this.#left[i]!].filter(mayBeNull)
      const predicate = or(
        equalities[i]!.predicate,
        ...nullable.map(({ expr }): Predicate => ({ kind: 'isNull', arg: expr })),
      )
      return { doubtful: nullable.length > 0, predicate, reads: equalities[i]!.reads }
    })
    if (!doubts.some(({ doubtful }) => doubtful)) return { predicate: matching, reads }
    const possible = existenceOf(doubts.reduce<Join>(withCondition, join), this.#context, false).predicate
    return { predicate: or(matching, and({ kind: 'unknown' }, possible)), reads }
  }
}

interface SetCall {
  readonly select: SelectStmt
  readonly scope: Scope
  readonly guard: Condition
  readonly type: Value['expr']['type']
}

/** `SELECT f(x)` and `SELECT y FROM f(x) AS y`: the function's own SELECT. */
function setOf(select: SelectStmt, scope: Scope): SetCall | null {
  const call = wholeSetCall(select)
  const open = call === null ? null : openCall(call, scope)
  if (open === null || !open.function.returnsSet) return null
  const { columns, returnType } = open.function
  if (columns !== null && columns.length !== 1) return null
  const type = columns?.[0]?.type ?? returnType
  return type.family === 'other' ? null : { select: open.select, scope: open.scope, guard: open.notNull, type }
}

/** Rows that are none where the guard is not true. */
export function guarded(found: Condition, guard: Condition, context: Context): Condition {
  if (guard.predicate.kind === 'true') return found
  if (found.join !== undefined) return existenceOf(withCondition(found.join, guard), context, false)
  return { predicate: and(guard.predicate, found.predicate), reads: unionOf([guard.reads, found.reads]) }
}

/** Of the SELECTs of a UNION, one or another is asked; of INTERSECT both, of EXCEPT the first and not the second.
 *  @param question of NULLs, INTERSECT and EXCEPT have their own idea: they are only followed where NULL means false */
function eachBranch(
  select: SelectStmt,
  around: Scope,
  question: 'exists' | 'in' | 'not in',
  visit: (select: SelectStmt, scope: Scope) => Condition,
): Condition {
  const { op, all, larg, rarg } = select
  if (op === undefined || op === 'SETOP_NONE' || larg === undefined || rarg === undefined) return visit(select, around)
  if (select.limitCount !== undefined || select.limitOffset !== undefined || select.lockingClause !== undefined)
    return unsupported(around.context, 'LIMIT, OFFSET or FOR UPDATE of a UNION, INTERSECT or EXCEPT')
  const scope = withNamed(select, around)
  const [left, right] = [larg, rarg].map(branch => eachBranch(branch, scope, question, visit))
  const reads = unionOf([left!.reads, right!.reads])
  if (op === 'SETOP_UNION') return { predicate: or(left!.predicate, right!.predicate), reads }
  const name = op === 'SETOP_INTERSECT' ? 'INTERSECT' : 'EXCEPT'
  if (question !== 'in' || all === true) return unsupported(around.context, `${name} here`)
  const second = isTrue(right!.predicate)
  return { predicate: and(left!.predicate, name === 'INTERSECT' ? second : not(second)), reads }
}
