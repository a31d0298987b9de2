// Operators over compiled values: each gives the condition Postgres would, or refuses.
import type { Node } from 'libpg-query'
import type { CallName, CompareOp, Predicate } from '../../predicate/algebra.ts'
import { not, or } from '../../predicate/build.ts'
import { assertComparable } from '../../predicate/compare.ts'
import { regexMatcher } from '../../predicate/regex.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { asText, called, textArray } from './policy-call.ts'
import { type Condition, type Context, type Scope, unionOf, unsupported, type Value } from './policy-scope.ts'
import { comparedWithTime } from './policy-time.ts'
import {
  castTo,
  coerced,
  commonCollation,
  commonType,
  constant,
  isNullLiteral,
  itemsOf,
  underCollation,
  withoutCollation,
} from './policy-types.ts'

/** Operators that give a value, not a condition: policy-value.ts compiles them. */
export const valueOperators: ReadonlySet<string> = new Set('-> ->> #> #>> || + - * / %'.split(' '))

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
    case '^@':
      return isCalled(
        'starts_with',
        [left, right].map(value => asText(value, context)),
        name,
        context,
      )
    case '~':
      return patterned(left, right, context)
    case '!~':
      return negated(patterned(left, right, context))
    case '<@':
      return contained('@>', right, left, context)
    case '@>':
    case '&&':
      return contained(name, left, right, context)
    case '?':
      return isCalled(name, [asJsonb(left), asText(right, context)], name, context)
    case '?|':
    case '?&':
      return isCalled(name, [asJsonb(left), asTexts(right)], name, context)
    default:
      return unsupported(context, `operator ${name}`)
  }
}

/** A call that gives a boolean; null stands for an argument of a type that it is not exact for. */
function isCalled(name: CallName, args: readonly (Value | null)[], operator: string, context: Context): Condition {
  const known = args.filter(arg => arg !== null)
  if (known.length < args.length) return unsupported(context, `operator ${operator} over these types`)
  const { expr, reads } = called(name, known, sqlTypes.bool, context)
  return { predicate: { kind: 'boolean', arg: expr }, reads }
}

/** A regular expression that stands in the policy. */
function patterned(left: Value, right: Value, context: Context): Condition {
  const pattern = coerced(right, sqlTypes.text).expr
  const isKnown = pattern.kind === 'const' && pattern.value !== null && regexMatcher(pattern.value) !== null
  // Of padded text Postgres matches the padding too.
  if (!isKnown || baseOf(left.expr.type).family !== 'text') return unsupported(context, 'operator ~ with this pattern')
  return isCalled(
    '~',
    [left, right].map(value => asText(value, context)),
    '~',
    context,
  )
}

/** Containment and overlap of arrays of one type, containment of jsonb. */
function contained(name: '@>' | '&&', left: Value, right: Value, context: Context): Condition {
  const of = left.literal ? right.expr.type : left.expr.type
  const [a, b] = [coerced(left, of), coerced(right, of)].map(value =>
    of.family === 'array' && !isNullLiteral(value) ? castTo(value, withoutCollation(baseOf(of)), context) : value,
  )
  if (a === undefined || b === undefined || baseOf(a.expr.type).family !== baseOf(b.expr.type).family)
    return unsupported(context, `operator ${name} over these types`)
  return isCalled(name, [a, b], name, context)
}

const asJsonb = (value: Value): Value | null => {
  const typed = coerced(value, sqlTypes.jsonb)
  return baseOf(typed.expr.type).family === 'jsonb' ? typed : null
}

const asTexts = (value: Value): Value | null => {
  const typed = coerced(value, textArray)
  const { element } = baseOf(typed.expr.type)
  return element !== undefined && baseOf(element).family === 'text' ? typed : null
}

export const negated = ({ predicate, reads }: Condition): Condition => ({ predicate: not(predicate), reads })

export function compared(op: CompareOp, left: Value, right: Value, context: Context): Condition {
  const timed = comparedWithTime(op, left, right, context)
  if (timed !== null) return timed
  const [a, b] = matched(op, left, right, context)
  const predicate: Predicate = { kind: 'compare', op, left: a.expr, right: b.expr }
  return { predicate, reads: unionOf([a.reads, b.reads]) }
}

export function isDistinct(left: Value, right: Value, context: Context): Condition {
  if (isNullLiteral(left)) return isDistinctFromNull(right)
  if (isNullLiteral(right)) return isDistinctFromNull(left)
  const [a, b] = matched('=', left, right, context)
  return { predicate: { kind: 'isDistinct', left: a.expr, right: b.expr }, reads: unionOf([a.reads, b.reads]) }
}

const isDistinctFromNull = ({ expr, reads }: Value): Condition => ({
  predicate: not({ kind: 'isNull', arg: expr }),
  reads,
})

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

/** The condition of a branch; of `CASE x WHEN y` that they are equal. */
export function caseWhen(arg: Node | undefined, when: Node, scope: Scope): Condition {
  const { compiler } = scope.context
  if (arg === undefined) return compiler.condition(when, scope, false)
  return compared('=', compiler.value(arg, scope), compiler.value(when, scope), scope.context)
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
