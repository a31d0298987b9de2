// Arithmetic on integers and numerics, in decimal: a double would round what Postgres keeps.
import type { CallName, SqlType } from './algebra.ts'
import { type Calls, type Compute, type ComputeWithNulls, isInt, type Maker } from './call.ts'
import { comparisonOf } from './compare.ts'
import { readNumeric } from './numeric-text.ts'
import { readValue } from './read-value.ts'
import { sqlTypes } from './sql-types.ts'
import { ValueError } from './value-error.ts'

export const numberCalls: Calls<Compute> = {
  '+': arithmetic((a, b) => a + b, add),
  '-': (types, type) => (types.length === 1 ? negation(types, type) : subtraction(types, type)),
  '*': arithmetic((a, b) => a * b, multiply),
  '/': whole((a, b) => a / nonZero(b)),
  '%': whole((a, b) => a % nonZero(b)),
  abs: ([type], result) =>
    isExact(type) ? value => (value.startsWith('-') ? checked(value.slice(1), result) : value) : null,
  numericScale: ([type, precision, scale]) =>
    type?.family === 'numeric' && isInt(precision) && isInt(scale)
      ? (value, digits, places) => rounded(value, Number(digits), Number(places))
      : null,
}

export const numberCallsWithNulls: Calls<ComputeWithNulls> = {
  greatest: extreme(sign => sign < 0),
  least: extreme(sign => sign > 0),
}

const isExact = (type: SqlType | undefined): boolean => (isInt(type) && type?.oid !== 26) || type?.family === 'numeric'

/** Both sides integers, computed and checked as the wider; or one a numeric. */
function arithmetic(ints: (a: bigint, b: bigint) => bigint, numerics: Compute): Maker<Compute> {
  const overInts = whole(ints)
  return (types, type) => {
    if (types.length !== 2 || !types.every(isExact)) return null
    return type.family === 'numeric' ? numerics : overInts(types, type)
  }
}

function whole(compute: (a: bigint, b: bigint) => bigint): Maker<Compute> {
  return (types, type) =>
    types.length === 2 && types.every(each => isInt(each) && isExact(each))
      ? (a, b) => checked(String(compute(BigInt(a), BigInt(b))), type)
      : null
}

const subtraction = arithmetic(
  (a, b) => a - b,
  (a, b) => add(a, negated(b)),
)

const negation: Maker<Compute> = ([type], result) => (isExact(type) ? value => checked(negated(value), result) : null)

function nonZero(value: bigint): bigint {
  if (value === 0n) throw new ValueError('a division by zero')
  return value
}

/** @throws ValueError where an integer is out of range */
const checked = (text: string, type: SqlType): string => (type.family === 'int' ? readValue(type, text) : text)

function negated(value: string): string {
  if (value === 'NaN' || !/[1-9y]/.test(value)) return value
  return value.startsWith('-') ? value.slice(1) : `-${value}`
}

/** A numeric's digits without the point, and how many stand behind it. */
interface Scaled {
  readonly digits: bigint
  readonly scale: number
}

function scaledOf(text: string): Scaled {
  const point = text.indexOf('.')
  if (point < 0) return { digits: BigInt(text), scale: 0 }
  return { digits: BigInt(text.slice(0, point) + text.slice(point + 1)), scale: text.length - point - 1 }
}

const isSpecial = (text: string): boolean => text.endsWith('N') || text.endsWith('y')

function add(a: string, b: string): string {
  if (isSpecial(a) || isSpecial(b)) {
    if (a === 'NaN' || b === 'NaN' || (isSpecial(a) && isSpecial(b) && a !== b)) return 'NaN'
    return isSpecial(a) ? a : b
  }
  const [x, y] = [scaledOf(a), scaledOf(b)]
  const scale = Math.max(x.scale, y.scale)
  return print({ digits: raised(x, scale) + raised(y, scale), scale })
}

function multiply(a: string, b: string): string {
  if (isSpecial(a) || isSpecial(b)) {
    const zero = (text: string): boolean => !isSpecial(text) && !/[1-9]/.test(text)
    if (a === 'NaN' || b === 'NaN' || zero(a) || zero(b)) return 'NaN'
    return a.startsWith('-') === b.startsWith('-') ? 'Infinity' : '-Infinity'
  }
  const [x, y] = [scaledOf(a), scaledOf(b)]
  return print({ digits: x.digits * y.digits, scale: x.scale + y.scale })
}

const raised = ({ digits, scale }: Scaled, to: number): bigint => digits * 10n ** BigInt(to - scale)

function print({ digits, scale }: Scaled): string {
  const text = String(digits < 0n ? -digits : digits).padStart(scale + 1, '0')
  const point = text.length - scale
  const shown = scale === 0 ? text : `${text.slice(0, point)}.${text.slice(point)}`
  return readNumeric(digits < 0n ? `-${shown}` : shown)
}

/** A cast to `numeric(precision, scale)`: half rounds away from zero. */
function rounded(value: string, precision: number, scale: number): string {
  if (value === 'NaN') return value
  const { digits, scale: before } = isSpecial(value) ? overflown() : scaledOf(value)
  const kept =
    before <= scale ? raised({ digits, scale: before }, scale) : halfAway(digits, 10n ** BigInt(before - scale))
  if (kept >= 10n ** BigInt(precision) || kept <= -(10n ** BigInt(precision))) overflown()
  return print({ digits: kept, scale })
}

const halfAway = (digits: bigint, by: bigint): bigint => (digits + (digits < 0n ? -by : by) / 2n) / by

function overflown(): never {
  throw new ValueError('a value overflows the precision of a numeric')
}

/** NULLs are passed over; of equal ones the first is taken, as it is written. */
function extreme(replaces: (sign: number) => boolean): Maker<ComputeWithNulls> {
  return types => {
    const [first] = types
    const isOne = types.every(
      type => (type.oid === first?.oid && type.collation === first.collation) || areInts(type, first),
    )
    if (first === undefined || !isOne) return null
    const { left: keyOf, order } = comparisonOf('<', first, first)
    return (...values) => {
      let found: string | null = null
      let foundKey = ''
      for (const value of values) {
        if (value === null) continue
        const key = keyOf(value)
        if (found !== null && !replaces(order!(foundKey, key))) continue
        found = value
        foundKey = key
      }
      return found
    }
  }
}

const areInts = (a: SqlType, b: SqlType | undefined): boolean => isExact(a) && isExact(b) && isInt(a) && isInt(b)

/** The type of `a op b`: the wider integer, or numeric. Null where only Postgres computes it exactly. */
export function arithmeticType(name: CallName, left: SqlType, right: SqlType): SqlType | null {
  if (!isExact(left) || !isExact(right)) return null
  if (left.family === 'numeric' || right.family === 'numeric')
    return name === '/' || name === '%' ? null : sqlTypes.numeric
  const widths: readonly SqlType[] = [sqlTypes.int2, sqlTypes.int4, sqlTypes.int8]
  const place = (type: SqlType): number => widths.findIndex(({ oid }) => oid === type.oid)
  return widths[Math.max(place(left), place(right))] ?? null
}
