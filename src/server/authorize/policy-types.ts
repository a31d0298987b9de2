// Which type and collation an expression of a policy gets, where Postgres's own analysis has not already said so.
import type { TypeName } from 'libpg-query'
import type { Expr, SqlType } from '../../predicate/algebra.ts'
import { parseArray } from '../../predicate/array-text.ts'
import { isDatetimeFamily } from '../../predicate/calendar.ts'
import { castFunction } from '../../predicate/cast.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { CollationFacts } from '../catalog/facts.ts'
import { type Context, nothingRead, partsOf, type Scope, schemasFor, unsupported, type Value } from './policy-scope.ts'

export const constant = (value: string | null, type: SqlType): Value => ({
  expr: { kind: 'const', value, type },
  literal: false,
  collation: null,
  explicitCollation: false,
  reads: nothingRead,
})

/** A literal without a type of its own: `'abc'`, NULL. */
export const literal = (value: string | null): Value => ({ ...constant(value, sqlTypes.text), literal: true })

export const isNullLiteral = (value: Value): boolean => value.expr.kind === 'const' && value.expr.value === null

/** Gives a bare literal the type of what it meets. */
export function coerced(value: Value, type: SqlType): Value {
  if (!value.literal || value.expr.kind !== 'const') return value
  return constant(value.expr.value, withoutCollation(baseOf(type)))
}

/** The type that several values of one list share: the widest number or time, else that of the first with a type, else text. */
export function commonType(values: readonly Value[]): SqlType {
  const types = values.filter(value => !value.literal).map(({ expr }) => expr.type)
  return (
    types.reduce<SqlType | null>((found, type) => (found === null || isWider(type, found) ? type : found), null) ??
    sqlTypes.text
  )
}

/** Each is cast by Postgres itself to those after it. */
const widening: readonly (readonly number[])[] = [
  [
    sqlTypes.int2.oid,
    sqlTypes.int4.oid,
    sqlTypes.int8.oid,
    sqlTypes.numeric.oid,
    sqlTypes.float4.oid,
    sqlTypes.float8.oid,
  ],
  [sqlTypes.date.oid, sqlTypes.timestamp.oid, sqlTypes.timestamptz.oid],
]

const isWider = (type: SqlType, than: SqlType): boolean =>
  widening.some(
    oids => oids.includes(baseOf(than).oid) && oids.indexOf(baseOf(type).oid) > oids.indexOf(baseOf(than).oid),
  )

export function withoutCollation(type: SqlType): SqlType {
  const { collation: _, lower: __, ...rest } = type
  return rest
}

/** Finds a type by the name written in a cast. @throws POLICY_UNSUPPORTED for lengths, `%TYPE` and unknown names */
export function namedType(typeName: TypeName, scope: Scope): SqlType {
  const parts = partsOf(typeName.names)
  const shown = parts.join('.')
  if (typeName.setof === true || typeName.pct_type === true) return unsupported(scope.context, `the type ${shown}`)
  // A length cuts or rounds the value, and the algebra's casts do neither: see `modifiersOf`.
  if (modifiersOf(typeName).length > 0) return unsupported(scope.context, `a cast to ${shown} with a length`)
  const array = (typeName.arrayBounds ?? []).length > 0
  const name = parts.at(-1)!
  for (const schema of schemasFor(parts, scope, 'type')) {
    const type = scope.context.facts.type(schema, name, array)
    if (type !== null) return withoutCollation(type)
  }
  return unsupported(scope.context, `the type ${shown}`)
}

/** The numbers in `varchar(20)` and `numeric(10, 2)`; NaN for what is no number. */
export const modifiersOf = ({ typmods = [] }: TypeName): number[] =>
  typmods.map(node =>
    'A_Const' in node && node.A_Const.ival !== undefined ? (node.A_Const.ival.ival ?? 0) : Number.NaN,
  )

/** Casts as `::` does. */
export function castTo(value: Value, type: SqlType, context: Context): Value {
  if (value.literal && value.expr.kind === 'const') {
    if (type.domain === true && value.expr.value !== null)
      return unsupported(context, `a cast to the domain ${type.name}`)
    return constant(value.expr.value, type)
  }
  const from = baseOf(value.expr.type)
  if (from.oid === type.oid) return value
  if (type.domain === true) return unsupported(context, `a cast to the domain ${type.name}`)
  if (keepsValue(from, type)) return value
  const moment = asDatetime(value, type)
  if (moment !== null) return moment
  if (!castable(from, type)) return unsupported(context, `a cast from ${value.expr.type.name} to ${type.name}`)
  if (value.expr.kind === 'const' && value.expr.value === null) return constant(null, type)
  const textual = type.family === 'text' || type.family === 'bpchar'
  const collation = textual ? value.collation : null
  const target = collation === null ? textType(type, value.reads.size > 0, context) : collated(type, collation)
  return { ...value, expr: { kind: 'cast', arg: value.expr, type: target }, collation }
}

/** Text made from a column compares under the default collation; text made from claims yields, as constants do. */
export function textType(type: SqlType, ofColumns: boolean, context: Context): SqlType {
  if (!ofColumns || type.family !== 'text') return type
  const { collation, lower } = context.facts.type('pg_catalog', 'text', false)!
  if (collation === undefined) return type
  return { ...type, collation, ...(lower === undefined ? {} : { lower }) }
}

/** A cast between dates and timestamps; null for other types. */
export function asDatetime(value: Value, type: SqlType): Value | null {
  const { expr } = value
  const target = baseOf(type)
  if (value.literal || !isDatetimeFamily(baseOf(expr.type).family) || !isDatetimeFamily(target.family)) return null
  if (baseOf(expr.type).oid === target.oid) return value
  // A day that becomes a timestamp is its midnight, no longer the time itself.
  if (expr.kind === 'now' && expr.type.family !== 'date') return { ...value, expr: { ...expr, type: target } }
  return { ...value, expr: { kind: 'cast', arg: expr, type: target }, collation: null }
}

/** The type of something made from values under a collation; null where no column gives one. */
export function collatedType(
  type: SqlType,
  collation: CollationFacts | null,
  ofColumns: boolean,
  context: Context,
): SqlType {
  if (type.element !== undefined) return { ...type, element: collatedType(type.element, collation, ofColumns, context) }
  return collation === null ? textType(type, ofColumns, context) : collated(type, collation)
}

/** A cast that changes neither a value's text nor how it compares: left out, so that an index key stays a plain column. */
function keepsValue(from: SqlType, to: SqlType): boolean {
  if (from.family === 'text' && to.family === 'text') return to.oid !== sqlTypes.name.oid
  const widths = [sqlTypes.int2.oid, sqlTypes.int4.oid, sqlTypes.int8.oid] as number[]
  if (from.family === 'int' && to.family === 'int')
    return widths.includes(from.oid) && widths.indexOf(from.oid) <= widths.indexOf(to.oid)
  return from.family === 'array' && to.family === 'array' && from.element !== undefined && to.element !== undefined
    ? baseOf(from.element).oid === to.element.oid || keepsValue(from.element, to.element)
    : false
}

/** Whether the evaluator casts exactly as Postgres does. */
function castable(from: SqlType, to: SqlType): boolean {
  try {
    castFunction(from, to)
    return true
  } catch (error) {
    if (error instanceof TidegateError) return false
    throw error
  }
}

/** The collation two values are compared under, as Postgres derives it: explicit before the column's before the default.
 *  @throws POLICY_UNSUPPORTED when Postgres could not tell either */
export function commonCollation(left: Value, right: Value, context: Context): CollationFacts | null {
  if (left.explicitCollation !== right.explicitCollation) return (left.explicitCollation ? left : right).collation
  const [a, b] = [left.collation, right.collation]
  if (a === null || b === null || a.oid === b.oid) return a ?? b
  if (!left.explicitCollation && a.oid === defaultCollation) return b
  if (!left.explicitCollation && b.oid === defaultCollation) return a
  return unsupported(context, 'a comparison of two columns with different collations')
}

const defaultCollation = 100

/** The same expression, comparing under this collation. */
export function underCollation(expr: Expr, collation: CollationFacts | null): Expr {
  if (collation === null) return expr
  if (expr.kind === 'array') return { ...expr, items: expr.items.map(item => underCollation(item, collation)) }
  if (expr.type.family === 'array' && expr.type.element !== undefined)
    return { ...expr, type: { ...expr.type, element: collated(expr.type.element, collation) } } as Expr
  return { ...expr, type: collated(expr.type, collation) }
}

function collated(type: SqlType, { behaviour, lower }: CollationFacts): SqlType {
  if (type.family !== 'text' && type.family !== 'bpchar') return type
  return { ...withoutCollation(type), collation: behaviour, ...(lower === undefined ? {} : { lower }) }
}

/** The items of a constant array: `'{a,b}'::text[]`. Null when the value is no constant array. */
export function itemsOf(array: Value): Value[] | null {
  const { expr } = array
  if (expr.kind === 'array') return expr.items.map(item => ({ ...array, expr: item }))
  if (expr.kind !== 'const' || expr.value === null || expr.type.family !== 'array' || expr.type.element === undefined)
    return null
  const { element } = expr.type
  const parsed = parseArray(expr.value)
  return parsed.items.map(item => constant(item, element))
}
