// Operators over compiled values: each gives the condition Postgres would, or refuses.
import type { CompareOp, Predicate } from '../../predicate/algebra.ts'
import { not, or } from '../../predicate/build.ts'
import { assertComparable } from '../../predicate/compare.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type Condition, type Context, type Scope, unionOf, unsupported, type Value } from './policy-scope.ts'
import {
  coerced,
  commonCollation,
  commonType,
  constant,
  isNullLiteral,
  itemsOf,
  underCollation,
} from './policy-types.ts'

const compareOps: ReadonlySet<string> = new Set(['=', '<>', '<', '<=', '>', '>='])

/** The built-in operator of this name. @throws POLICY_UNSUPPORTED for one of another schema, or that another may hide */
export function operatorName(parts: readonly string[], scope: Scope): string {
  const name = parts.at(-1)!
  const schema = parts.length > 1 ? parts[0]! : 'pg_catalog'
  if (schema !== 'pg_catalog') return unsupported(scope.context, `operator ${schema}.${name}`)
  for (const searched of scope.searchPath ?? []) {
    if (searched === 'pg_catalog' || parts.length > 1 || searched.startsWith('pg_temp')) continue
    if (scope.context.facts.operators(searched).has(name))
      return unsupported(scope.context, `operator ${name}, which schema ${searched} redefines`)
  }
  return name === '!=' ? '<>' : name
}

/** `left op right` for comparisons and LIKE in its operator forms. */
export function applied(name: string, left: Value, right: Value, context: Context): Condition {
  if (compareOps.has(name)) return compared(name as CompareOp, left, right, context)
  switch (name) {
    case '~~':
      return liked(left, right, false, context)
    case '~~*':
      return liked(left, right, true, context)
    case '!~~':
      return negated(liked(left, right, false, context))
    case '!~~*':
      return negated(liked(left, right, true, context))
    default:
      return unsupported(context, `operator ${name}`)
  }
}

export const negated = ({ predicate, reads }: Condition): Condition => ({ predicate: not(predicate), reads })

export function compared(op: CompareOp, left: Value, right: Value, context: Context): Condition {
  const [a, b] = matched(op, left, right, context)
  const predicate: Predicate = { kind: 'compare', op, left: a.expr, right: b.expr }
  return { predicate, reads: unionOf([a.reads, b.reads]) }
}

export function isDistinct(left: Value, right: Value, context: Context): Condition {
  const [a, b] = matched('=', left, right, context)
  const predicate: Predicate = isNullLiteral(b)
    ? not({ kind: 'isNull', arg: a.expr })
    : { kind: 'isDistinct', left: a.expr, right: b.expr }
  return { predicate, reads: unionOf([a.reads, b.reads]) }
}

export function inList(left: Value, items: readonly Value[], context: Context): Condition {
  const type = left.literal ? commonType(items) : left.expr.type
  const typed = coerced(left, type)
  const matches = items.map(item => matched('=', typed, item, context))
  const first = matches[0]
  if (first === undefined) return { predicate: { kind: 'false' }, reads: left.reads }
  return {
    predicate: { kind: 'in', left: first[0].expr, items: matches.map(([, item]) => item.expr) },
    reads: unionOf([left.reads, ...items.map(item => item.reads)]),
  }
}

/** `left op ANY (array)`. */
export function anyOf(name: string, left: Value, array: Value, context: Context): Condition {
  const typed = typedArray(left, array)
  if (isNullLiteral(typed)) return { predicate: { kind: 'unknown' }, reads: left.reads }
  const items = itemsOf(typed)
  if (items !== null) {
    if (name === '=') return inList(left, items, context)
    const conditions = items.map(item => applied(name, left, item, context))
    return {
      predicate: or(...conditions.map(condition => condition.predicate)),
      reads: unionOf([left.reads, typed.reads]),
    }
  }
  const { element } = typed.expr.type
  if (name !== '=' || element === undefined) return unsupported(context, `operator ${name} ANY over an array`)
  const [a] = matched('=', left, { ...constant('', element), reads: typed.reads, collation: typed.collation }, context)
  const collation = commonCollation(left, typed, context)
  return {
    predicate: { kind: 'any', left: a.expr, array: underCollation(typed.expr, collation) },
    reads: unionOf([left.reads, typed.reads]),
  }
}

function typedArray(left: Value, array: Value): Value {
  if (!array.literal || array.expr.kind !== 'const') return array
  const element = baseOf(left.expr.type)
  return constant(array.expr.value, { oid: 0, name: `${element.name}[]`, family: 'array', element })
}

export function liked(left: Value, pattern: Value, insensitive: boolean, context: Context): Condition {
  const [a, b] = [coerced(left, sqlTypes.text), coerced(pattern, sqlTypes.text)]
  for (const { expr } of [a, b]) {
    if (expr.type.family !== 'text') return unsupported(context, `LIKE over ${expr.type.name}`)
  }
  const collation = commonCollation(a, b, context)
  if (collation?.behaviour === 'nondeterministic')
    return unsupported(context, 'LIKE under a nondeterministic collation')
  const arg = underCollation(a.expr, collation)
  if (insensitive && arg.type.lower === undefined && arg.type.collation !== 'c')
    return unsupported(context, 'ILIKE under a collation whose lower() only Postgres knows')
  const predicate: Predicate = { kind: 'like', arg, pattern: underCollation(b.expr, collation), insensitive }
  return { predicate, reads: unionOf([a.reads, b.reads]) }
}

/** Both sides with one type and collation. @throws POLICY_UNSUPPORTED when only Postgres could compare them */
function matched(op: CompareOp, left: Value, right: Value, context: Context): [Value, Value] {
  const type = commonType([left, right])
  const [a, b] = [coerced(left, type), coerced(right, type)]
  const collation = commonCollation(a, b, context)
  const result: [Value, Value] = [
    { ...a, expr: underCollation(a.expr, collation) },
    { ...b, expr: underCollation(b.expr, collation) },
  ]
  try {
    assertComparable(op, result[0].expr, result[1].expr)
  } catch (error) {
    if (!(error instanceof TidegateError)) throw error
    return unsupported(context, `a comparison that is Postgres's own (${error.message})`, error)
  }
  return result
}
