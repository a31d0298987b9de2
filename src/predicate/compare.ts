// When two values are equal, and which comes first, as Postgres says: by operator, implicit cast and collation.
// Equality is decided by canonical text (`keyOf`), so the evaluator, the router and the membership index agree on it.
import type { Code } from '../protocol/codes.ts'
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { CompareOp, Expr, SqlType } from './algebra.ts'
import { parseArray } from './array-text.ts'
import { type DatetimeFamily, isDatetimeFamily } from './calendar.ts'
import { orderDatetimes } from './datetime.ts'
import { numericKey, orderNumerics } from './numeric-text.ts'
import { rememberLong } from './remember-long.ts'
import { baseOf, sqlTypes } from './sql-types.ts'
import { ValueError } from './value-error.ts'

type ToKey = (text: string) => string
type Order = (left: string, right: string) => number

/** How two types compare: both sides' texts become keys; equal keys are SQL-equal values. */
export interface Comparison {
  readonly left: ToKey
  readonly right: ToKey
  /** Orders two keys; null when only equality is exact here. */
  readonly order: Order | null
}

type Operation = CompareOp | 'distinct' | 'in'

/** The canonical text of a value: two values of the type have the same exactly when SQL `=` holds. `1.0` and `1.00`,
 *  `0` and `-0`, `'a'::bpchar` and `'a  '::bpchar` are the same.
 *  @param text as Postgres prints it, or as `readValue` gives it
 *  @throws FILTER_UNSUPPORTED for types without exact equality here (json, jsonb, interval, citext ...) */
export const keyOf = (type: SqlType, text: string): string => keyFunctionOf(type)(text)

/** Orders two values of one type as ORDER BY does. @throws FILTER_UNSUPPORTED where order is not exact here */
export function compareText(type: SqlType, a: string, b: string): number {
  const comparison = comparisonOf('<', type, type)
  return comparison.order!(comparison.left(a), comparison.right(b))
}

/** Refuses a comparison that only Postgres could decide. For expressions, so that a cast does not hide a column's
 *  collation: the operation sees the collations of all columns beneath.
 *  @throws TidegateError with `code`, naming the operator, the type and what is missing */
export function assertComparable(
  op: Operation,
  left: Expr | SqlType,
  right: Expr | SqlType,
  code: Code = 'FILTER_UNSUPPORTED',
): void {
  const leftType = 'kind' in left ? left.type : left
  const rightType = 'kind' in right ? right.type : right
  const comparison = spaceOf(leftType, rightType)
  if (comparison === null) {
    const types = leftType.name === rightType.name ? leftType.name : `${leftType.name} with ${rightType.name}`
    throw new TidegateError(code, `${sqlName(op)} cannot compare ${types} exactly; cast to a type it can`)
  }
  const collations = [...collationsOf(left), ...collationsOf(right)]
  if (comparison.collated && collations.includes('nondeterministic'))
    throw new TidegateError(code, `${sqlName(op)} on ${leftType.name} under a nondeterministic collation is Postgres's`)
  if (op === '=' || op === '<>' || op === 'distinct' || op === 'in') return
  if (comparison.order === null)
    throw new TidegateError(code, `${sqlName(op)} has no exact order for ${leftType.name} here; compare for equality`)
  if (comparison.collated && (collations.length === 0 || collations.some(collation => collation !== 'c'))) {
    const remedy = 'compare for equality, or give the column COLLATE "C"'
    throw new TidegateError(code, `${sqlName(op)} on ${leftType.name} needs the C collation; ${remedy}`)
  }
}

/** @throws FILTER_UNSUPPORTED, as `assertComparable` */
export function comparisonOf(op: Operation, left: Expr | SqlType, right: Expr | SqlType): Comparison {
  assertComparable(op, left, right)
  return spaceOf('kind' in left ? left.type : left, 'kind' in right ? right.type : right)!
}

/** The function behind `keyOf`. The same function for types that share a canonical text, so that `===` tells whether a
 *  key of one is a key of the other. */
export function keyFunctionOf(sqlType: SqlType): ToKey {
  const space = spaceOf(sqlType, sqlType)
  if (space === null) throw new TidegateError('FILTER_UNSUPPORTED', `${sqlType.name} has no exact equality here`)
  return space.left
}

interface Space extends Comparison {
  readonly collated: boolean
}

function spaceOf(leftType: SqlType, rightType: SqlType): Space | null {
  const left = baseOf(leftType)
  const right = baseOf(rightType)
  if (isNumber(left) && isNumber(right)) return numberSpace(left, right)
  if (isText(left) && isText(right)) return textSpace(left, right)
  if (isDatetimeFamily(left.family) && isDatetimeFamily(right.family)) return datetimeSpace(left.family, right.family)
  if (left.family !== right.family) return null
  switch (left.family) {
    case 'bool':
    case 'uuid':
    case 'bytea':
    case 'time':
      if (left.oid !== right.oid) return null
      return { left: same, right: same, order: byUnits, collated: false }
    case 'enum':
      return left.oid === right.oid ? { left: same, right: same, order: orderOfLabels(left), collated: false } : null
    case 'array':
      return arraySpace(left, right)
    default:
      return null
  }
}

const isNumber = (type: SqlType): boolean =>
  type.family === 'int' || type.family === 'numeric' || (type.family === 'float' && type.domain !== true)

/** Postgres casts implicitly towards float8: int to numeric, int and numeric to float8, float4 to float8. */
function numberSpace(left: SqlType, right: SqlType): Space | null {
  // An oid beside an int is cast to it modulo 2^32, or the other way round, by rules of its own.
  if ((left.oid === 26) !== (right.oid === 26)) return null
  if (left.family === 'float' || right.family === 'float')
    return { left: floatKeyOf(left), right: floatKeyOf(right), order: orderFloats, collated: false }
  if (left.family === 'int' && right.family === 'int')
    return { left: same, right: same, order: orderInts, collated: false }
  return { left: decimalKeyOf(left), right: decimalKeyOf(right), order: orderNumerics, collated: false }
}

/** Of unlike types, a date is its midnight, and a timestamp has the zone UTC: that of every session of ours. Out of the range
 *  of the other type, Postgres compares as here and does not raise. */
function datetimeSpace(left: DatetimeFamily, right: DatetimeFamily): Space {
  if (left === right) return { left: same, right: same, order: orderDatetimes, collated: false }
  return { left: momentKey, right: momentKey, order: orderDatetimes, collated: false }
}

/** A date or timestamp as a timestamptz is printed. */
function momentKey(text: string): string {
  if (text.endsWith('y')) return text
  const end = text.endsWith('C') ? ' BC' : ''
  const plain = end === '' ? text : text.slice(0, -3)
  return `${plain}${plain.includes(':') ? '' : ' 00:00:00'}${plain.endsWith('+00') ? '' : '+00'}${end}`
}

const floatKeyOf = (type: SqlType): ToKey =>
  type.oid === sqlTypes.float4.oid ? float4Key : type.family === 'float' ? float8Key : toFloat8Key

const decimalKeyOf = (type: SqlType): ToKey => (type.family === 'int' ? same : numericKey)

/** `0` for `-0`: SQL holds them equal. */
const float8Key = (text: string): string => String(Number(text) + 0)

/** A real's exact value: beside a double precision, `0.1::real` is 0.10000000149011612. */
const float4Key = (text: string): string => String(Math.fround(Number(text)) + 0)

/** An int or numeric cast to double precision. Postgres raises where it does not fit. */
function toFloat8Key(text: string): string {
  const value = Number(text)
  const overflows = !Number.isFinite(value) && !text.endsWith('y') && text !== 'NaN'
  if (overflows || (value === 0 && /[1-9]/.test(text)))
    throw new ValueError('a numeric is out of range for double precision')
  return String(value + 0)
}

const isText = (type: SqlType): boolean => type.family === 'text' || type.family === 'bpchar'

/** bpchar against bpchar or varchar ignores trailing spaces on both sides; against text it is cast, which strips only
 *  its own. So says Postgres's choice of operator. */
function textSpace(left: SqlType, right: SqlType): Space | null {
  const hasBpchar = left.family === 'bpchar' || right.family === 'bpchar'
  if (hasBpchar && (left.oid === sqlTypes.name.oid || right.oid === sqlTypes.name.oid)) return null
  const strips = (type: SqlType): boolean =>
    type.family === 'bpchar' || (hasBpchar && type.oid === sqlTypes.varchar.oid)
  const keyOfSide = (type: SqlType): ToKey => (strips(type) ? stripSpaces : same)
  return { left: keyOfSide(left), right: keyOfSide(right), order: byCodePoints, collated: true }
}

/** The value of a bpchar as text: without trailing spaces (of no other kind). */
export function stripSpaces(text: string): string {
  let end = text.length
  while (end > 0 && text.charCodeAt(end - 1) === 32) end--
  return end === text.length ? text : text.slice(0, end)
}

function arraySpace(left: SqlType, right: SqlType): Space | null {
  if (left.element === undefined || right.element === undefined) return null
  if (baseOf(left.element).oid !== baseOf(right.element).oid) return null
  const items = spaceOf(left.element, right.element)
  if (items === null) return null
  const toKey = arrayKeyOf(items.left)
  return { left: toKey, right: toKey, order: null, collated: items.collated }
}

/** In array equality, NULL items are equal to each other. */
const arrayKeys = new WeakMap<ToKey, ToKey>()
function arrayKeyOf(itemKey: ToKey): ToKey {
  const known = arrayKeys.get(itemKey)
  if (known !== undefined) return known
  const toKey = rememberLong(text => {
    const { shape, items } = parseArray(text)
    return shape + items.map(item => (item === null ? 'n' : withLength(itemKey(item)))).join('')
  })
  arrayKeys.set(itemKey, toKey)
  return toKey
}

/** A text that cannot run into its neighbour. */
export const withLength = (text: string): string => `${text.length}:${text}`

const same: ToKey = text => text

const byUnits: Order = (a, b) => (a < b ? -1 : a > b ? 1 : 0)

/** The order of UTF-8 bytes. JavaScript's differs: it puts surrogate pairs before U+E000 to U+FFFF. */
function byCodePoints(a: string, b: string): number {
  const shorter = Math.min(a.length, b.length)
  for (let i = 0; i < shorter; i++) {
    const unitA = a.charCodeAt(i)
    const unitB = b.charCodeAt(i)
    if (unitA === unitB) continue
    const surrogateA = unitA >= 0xd800 && unitA <= 0xdfff
    const surrogateB = unitB >= 0xd800 && unitB <= 0xdfff
    if (surrogateA !== surrogateB) return surrogateA ? 1 : -1
    return unitA - unitB
  }
  return a.length - b.length
}

function orderInts(a: string, b: string): number {
  // Fifteen digits are exact as doubles.
  if (a.length <= 15 && b.length <= 15) return Number(a) - Number(b)
  return orderNumerics(a, b)
}

/** Postgres puts NaN last, equal to itself. */
function orderFloats(a: string, b: string): number {
  if (a === b) return 0
  if (a === 'NaN') return 1
  if (b === 'NaN') return -1
  return Number(a) < Number(b) ? -1 : 1
}

function orderOfLabels(type: SqlType): Order | null {
  if (type.labels === undefined) return null
  const places = new Map(type.labels.map((label, place) => [label, place]))
  return (a, b) => {
    const placeA = places.get(a)
    const placeB = places.get(b)
    // A label added after the catalog was read.
    if (placeA === undefined || placeB === undefined) throw new ValueError(`a value is not a known ${type.name}`)
    return placeA - placeB
  }
}

type Collation = NonNullable<SqlType['collation']>

/** The collations stated beneath an operand. Postgres lets a column's win over a default; all of them have to agree
 *  here, which refuses a few comparisons that Postgres would resolve and accepts none that it would decide otherwise. */
function collationsOf(operand: Expr | SqlType): Collation[] {
  if (!('kind' in operand)) return stated(operand)
  switch (operand.kind) {
    case 'cast':
      return [...stated(operand.type), ...collationsOf(operand.arg)]
    case 'coalesce':
      return [...stated(operand.type), ...operand.args.flatMap(collationsOf)]
    case 'array':
      return [...stated(operand.type), ...operand.items.flatMap(collationsOf)]
    case 'nullif':
      return [...stated(operand.type), ...collationsOf(operand.left)]
    case 'call':
      return [...stated(operand.type), ...operand.args.flatMap(collationsOf)]
    case 'case':
      return [...stated(operand.type), ...[...operand.values, operand.otherwise].flatMap(collationsOf)]
    default:
      return stated(operand.type)
  }
}

function stated(type: SqlType): Collation[] {
  const found: Collation[] = []
  for (let at: SqlType | undefined = type; at !== undefined; at = at.element ?? at.base)
    if (at.collation !== undefined) found.push(at.collation)
  return found
}

const sqlName = (op: Operation): string =>
  op === 'distinct' ? 'IS DISTINCT FROM' : op === 'in' ? 'IN' : `operator ${op}`
