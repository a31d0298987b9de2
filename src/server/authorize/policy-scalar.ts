// Scalar subqueries with FROM: `(SELECT role FROM profiles WHERE id = auth.uid()) = 'admin'`.
//
// The algebra has no value that is looked up. But a subquery of at most one row has a value exactly where that row is, so
// the condition around it becomes a question about the row: there is one, and of it the condition is true. While such a
// condition is compiled, each subquery in it leaves its tables in `Scalars` and stands for the column that it selects. Where
// there is no row, its value is NULL, and what the condition says of NULL is found by compiling it once more.
import type { SelectStmt } from 'libpg-query'
import type { Predicate } from '../../predicate/algebra.ts'
import { and, not, or } from '../../predicate/build.ts'
import { sqlTypes } from '../../predicate/sql-types.ts'
import { isUnknown } from './null-rejection.ts'
import { describe } from './policy-construct.ts'
import { emptyJoin, existenceOf, isSingleRow, joined, withCondition } from './policy-join.ts'
import {
  type Condition,
  type Context,
  type Join,
  nameOf,
  type Scalars,
  type Scope,
  unsupported,
  type Value,
} from './policy-scope.ts'
import { openSelect, targetsOf } from './policy-select.ts'
import { coerced, constant } from './policy-types.ts'

/** The value of a SELECT with FROM.
 *  @param guard for a function's body: that a STRICT one is called without NULL; null for a subquery
 *  @throws POLICY_UNSUPPORTED where it may give several rows: Postgres raises, or takes the first it meets */
export function compileScalar(select: SelectStmt, scope: Scope, guard: Condition | null): Value {
  const { scalars } = scope.context
  const [target, ...more] = targetsOf(select)
  if (target === undefined || more.length > 0)
    return unsupported(scope.context, describe({ SubLink: { subLinkType: 'EXPR_SUBLINK' } }))
  const open = openSelect(select, scope, 'some')
  // First, so that an aggregate is refused as what it is.
  const value = scope.context.compiler.value(target, { ...open.scope, context: { ...open.scope.context, scalars } })
  if (scalars === null) return unsupported(scope.context, describe({ SubLink: { subLinkType: 'EXPR_SUBLINK' } }))
  // Of a function, and under LIMIT 1, any row will do where all give the same.
  const isAny = value.expr.kind === 'const' && (guard !== null || select.limitCount !== undefined)
  if (!isAny && !isSingleRow(open.join)) {
    const [source] = open.scope.sources
    const name = source !== undefined && 'relation' in source ? nameOf(source.relation) : (source?.alias ?? 'this')
    return unsupported(scope.context, `a scalar subquery that may give several rows of ${name}`)
  }
  const place = scalars.joins.length
  scalars.joins.push(guard === null ? open.join : withCondition(open.join, guard))
  const typed = value.literal ? coerced(value, sqlTypes.text) : value
  return place === scalars.nullAt ? constant(null, typed.expr.type) : typed
}

/** Compiles a boolean expression that may hold scalar subqueries.
 *  @param compile given the scope to compile in, and whether NULL may stand for false */
export function withScalars(
  scope: Scope,
  positive: boolean,
  compile: (scope: Scope, positive: boolean) => Condition,
): Condition {
  const attempt = (nullAt: number, isPositive: boolean): [Condition, Scalars] => {
    const scalars: Scalars = { nullAt, joins: [] }
    return [compile({ ...scope, context: { ...scope.context, scalars } }, isPositive), scalars]
  }
  const [found, { joins }] = attempt(-1, positive)
  if (joins.length === 0) return found
  const { context } = scope
  const join = joins.reduce(joined, emptyJoin)
  const isStrict = joins.every((_, i) => isUnknown(attempt(i, false)[0].predicate))
  if (!isStrict && joins.length > 1)
    return unsupported(context, 'several scalar subqueries of which one may be NULL here')
  const some = (condition: Condition): Condition => someOf(join, condition, context, positive)
  if (positive && isStrict) return some(found)
  const there = existenceOf(join, context, false)
  const missing = isStrict ? null : attempt(0, positive)[0]
  const reads = new Set([...there.reads, ...some(found).reads, ...(missing?.reads ?? [])])
  const without: Predicate = missing === null ? { kind: 'false' } : and(not(there.predicate), missing.predicate)
  if (positive) return { predicate: or(some(found).predicate, without), reads }
  const isFalse = some({ predicate: not(found.predicate), reads: found.reads }).predicate
  const doubt = isStrict ? not(isFalse) : and(there.predicate, not(isFalse))
  return { predicate: or(some(found).predicate, without, and({ kind: 'unknown' }, doubt)), reads }
}

/** That the one row of a join satisfies a condition. That a value of it differs from the outer row's is no key to look it up
 *  by; but of one row that is there it is the opposite of being equal, which is one. */
function someOf(join: Join, condition: Condition, context: Context, positive: boolean): Condition {
  const { predicate } = condition
  const exists = (part: Predicate, isPositive: boolean): Condition =>
    existenceOf(withCondition(join, { predicate: part, reads: condition.reads }), context, isPositive)
  if (predicate.kind === 'compare' && predicate.op === '<>') {
    const { left, right } = predicate
    const comparable = exists(and(...[left, right].map(arg => not({ kind: 'isNull', arg }))), positive)
    const equal = exists({ ...predicate, op: '=' }, false)
    return { predicate: and(comparable.predicate, not(equal.predicate)), reads: equal.reads }
  }
  if (predicate.kind === 'isDistinct') {
    const there = existenceOf(join, context, positive)
    const same = exists(not(predicate), false)
    return { predicate: and(there.predicate, not(same.predicate)), reads: same.reads }
  }
  return existenceOf(withCondition(join, condition), context, positive)
}
