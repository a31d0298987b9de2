// `now()` in policies: where it may stand, and how what people write comes to `column op now() + shift`, by which the moments
// are known at which answers change.
//
// Postgres adds months first, then days, then the rest, so what is added to the column without months may be taken from the
// other side: `created_at + '7 days' > now()` is `created_at > now() - '7 days'`.
import type { CompareOp, Expr, Predicate, Shift, SqlType } from '../../predicate/algebra.ts'
import { and, not, or } from '../../predicate/build.ts'
import { isDatetimeFamily } from '../../predicate/calendar.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import { readsTime } from '../../predicate/time.ts'
import { readInterval, scaled, sum } from './policy-interval.ts'
import { type Condition, type Context, unionOf, unsupported, type Value } from './policy-scope.ts'
import { asDatetime, coerced, constant } from './policy-types.ts'

const none: Shift = { months: 0, days: 0, micros: 0 }

export const interval: SqlType = { oid: 1186, name: 'interval', family: 'other' }

const timeFunctions: ReadonlySet<string> = new Set([
  'now',
  'transaction_timestamp',
  // Later than now() within a transaction; at a position there is only one time.
  'statement_timestamp',
  'clock_timestamp',
])

export const isTimeFunction = (name: string): boolean => timeFunctions.has(name)

export const now = (type: SqlType = sqlTypes.timestamptz): Value => expression({ kind: 'now', shift: none, type })

/** CURRENT_TIMESTAMP and its kin; null for others, and for those that round. */
export function timeKeyword(op: string): Value | null {
  if (op === 'SVFOP_CURRENT_TIMESTAMP') return now()
  if (op === 'SVFOP_LOCALTIMESTAMP') return now(sqlTypes.timestamp)
  return op === 'SVFOP_CURRENT_DATE' ? now(sqlTypes.date) : null
}

const expression = (expr: Expr): Value => ({ ...constant(null, expr.type), expr })

const familyOf = (value: Value): string => baseOf(value.expr.type).family

export const isInterval = (value: Value): boolean => value.expr.type.oid === interval.oid

/** `x AT TIME ZONE 'utc'`. */
export function timezone([zone, value]: readonly Value[], context: Context): Value {
  const name = zone?.expr.kind === 'const' ? (zone.expr.value ?? '') : ''
  if (value === undefined || !/^(utc|gmt|z|zulu|etc\/utc|etc\/gmt)$/i.test(name))
    return unsupported(context, 'AT TIME ZONE of another zone than UTC')
  const target = familyOf(value) === 'timestamptz' ? sqlTypes.timestamp : sqlTypes.timestamptz
  return (
    (familyOf(value) === 'date' ? null : asDatetime(value, target)) ?? unsupported(context, 'AT TIME ZONE over this')
  )
}

/** `date_trunc('day', now())`. */
export function dateTrunc([unit, value]: readonly Value[], context: Context): Value {
  const isDay = unit?.expr.kind === 'const' && unit.expr.value?.toLowerCase() === 'day'
  const day = value === undefined || !isDay ? null : asDatetime(value, sqlTypes.date)
  if (day === null || value === undefined || familyOf(value) === 'date')
    return unsupported(context, 'date_trunc() of another unit than a day')
  return asDatetime(day, baseOf(value.expr.type))!
}

/** `+` and `-` with dates, timestamps and intervals, `*` of an interval; null where neither side is one. */
export function timeArithmetic(name: string, left: Value, right: Value, context: Context): Value | null {
  const families = [familyOf(left), familyOf(right)]
  if (!families.some(isDatetimeFamily) && !isInterval(left) && !isInterval(right)) return null
  const refuse = (): never =>
    unsupported(context, `operator ${name} over ${left.expr.type.name} and ${right.expr.type.name}`)
  if (name === '*' && isInterval(right) && !isInterval(left)) return timeArithmetic(name, right, left, context)
  if (isInterval(left) && !isDatetimeFamily(families[1]!)) return intervalOf(combined(name, left, right)) ?? refuse()
  if (name === '+' && !isDatetimeFamily(families[0]!)) return timeArithmetic(name, right, left, context)
  if (name !== '+' && name !== '-') return refuse()
  if (isDatetimeFamily(families[1]!)) {
    // Only an order of it with an interval has a place; see `comparedWithTime`.
    if (name === '+' || !families.every(family => family === 'timestamptz' || family === 'timestamp')) return refuse()
    const reads = unionOf([left.reads, right.reads])
    return { ...expression({ kind: 'call', name: '-', args: [left.expr, right.expr], type: interval }), reads }
  }
  const amount = shiftOf(right, families[0] === 'date')
  const shift = amount === null ? null : scaled(amount, name === '-' ? -1 : 1)
  return shift === null ? refuse() : (shifted(left, shift, isInterval(coerced(right, interval))) ?? refuse())
}

/** An interval's parts; days, for a whole number beside a date. */
function shiftOf(value: Value, besideDate: boolean): Shift | null {
  const { expr } = value
  if (expr.kind !== 'const' || expr.value === null) return null
  if (isInterval(value) || value.literal) return readInterval(expr.value)
  return besideDate && expr.type.family === 'int' ? { ...none, days: Number(expr.value) } : null
}

/** A sum of constant intervals, or several of one. */
function combined(name: string, left: Value, right: Value): Shift | null {
  const a = shiftOf(left, false)
  if (a === null) return null
  if (name === '*') {
    const factor = right.expr.kind === 'cast' ? right.expr.arg : right.expr
    const by = factor.kind === 'const' ? Number(factor.value) : Number.NaN
    return Number.isSafeInteger(by) ? scaled(a, by) : null
  }
  const b = shiftOf(right, false)
  const signed = b === null || (name !== '+' && name !== '-') ? null : scaled(b, name === '-' ? -1 : 1)
  return signed === null ? null : sum(a, signed)
}

const intervalOf = (shift: Shift | null): Value | null =>
  shift === null ? null : constant(`${shift.months} mons ${shift.days} days ${shift.micros} microseconds`, interval)

/** A date plus an interval is a timestamp, a date plus a number a date. */
function shifted(value: Value, shift: Shift, byInterval: boolean): Value | null {
  const { expr } = value
  const isDate = familyOf(value) === 'date'
  if (expr.kind === 'now') {
    const total = sum(expr.shift, shift)
    // Postgres would count the months from the time as it was moved before.
    const isPlain = expr.shift.months === 0 && expr.shift.days === 0 && expr.shift.micros === 0
    if (total === null || (shift.months !== 0 && !isPlain)) return null
    if (isDate && byInterval && shift.micros !== 0) return null
    const moved: Value = { ...value, expr: { ...expr, shift: total } }
    return isDate && byInterval ? asDatetime(moved, sqlTypes.timestamp) : moved
  }
  const parts = [shift.months, shift.days].map(part => constant(String(part), sqlTypes.int4).expr)
  const args = [expr, ...parts, constant(String(shift.micros), sqlTypes.int8).expr]
  const type = isDate && byInterval ? sqlTypes.timestamp : baseOf(expr.type)
  return { ...value, expr: { kind: 'call', name: 'shifted', args, type }, collation: null }
}

const mirrored: Readonly<Record<CompareOp, CompareOp>> = {
  '=': '=',
  '<>': '<>',
  '<': '>',
  '<=': '>=',
  '>': '<',
  '>=': '<=',
}

/** An order of something with the time. Null when neither side reads the time, or for what is refused in the end. */
export function comparedWithTime(op: CompareOp, left: Value, right: Value, context: Context): Condition | null {
  if (readsTime(left.expr) === readsTime(right.expr) || op === '=' || op === '<>') return null
  if (readsTime(left.expr)) return comparedWithTime(mirrored[op], right, left, context)
  const reads = unionOf([left.reads, right.reads])
  const predicate = isInterval(right) ? byAge(op, left, right.expr) : ordered(op, left.expr, right.expr)
  return predicate === null ? null : { predicate, reads }
}

/** `limit op age`, for an age of `now() - column` or what is left, `column - now()`. */
function byAge(op: CompareOp, limit: Value, age: Expr): Predicate | null {
  const span = shiftOf(coerced(limit, interval), false)
  if (span === null || age.kind !== 'call' || age.name !== '-') return null
  // As Postgres orders intervals: a month is 30 days, a day 24 hours.
  const micros = (span.months * 30 + span.days) * 86_400_000_000 + span.micros
  const [from, to] = age.args
  if (from === undefined || to === undefined) return null
  const isAge = readsTime(from)
  const time = movedBy(isAge ? from : to, { ...none, micros: isAge ? -micros : micros })
  if (time === null) return null
  return isAge ? ordered(op, to, time) : ordered(mirrored[op], from, time)
}

/** `value op time`; null where the moment of its turning is not that of a column. */
function ordered(op: CompareOp, value: Expr, time: Expr): Predicate | null {
  switch (value.kind) {
    case 'column':
      return isDatetimeFamily(baseOf(value.type).family) ? { kind: 'compare', op, left: value, right: time } : null
    case 'const':
      return foldedForEver(op, value.value)
    case 'cast':
      return baseOf(value.type).family === 'date' ? byDay(op, value.arg, time) : ordered(op, value.arg, time)
    case 'coalesce':
      return firstOf(op, value.args, time)
    case 'call': {
      const [of, ...parts] = value.args
      const [months, days, micros] = parts.map(part => (part.kind === 'const' ? Number(part.value) : Number.NaN))
      if (value.name !== 'shifted' || of === undefined || months !== 0) return null
      const back = movedBy(time, { months: 0, days: -days!, micros: -micros! })
      return back === null ? null : ordered(op, of, back)
    }
    default:
      return null
  }
}

/** The time further on by days and less; null where it is counted in days and the rest is not. */
function movedBy(time: Expr, shift: Shift): Expr | null {
  if (time.kind === 'cast') {
    const arg = movedBy(time.arg, shift)
    return arg === null ? null : { ...time, arg }
  }
  if (time.kind !== 'now' || (time.type.family === 'date' && shift.micros !== 0)) return null
  const total = sum(time.shift, shift)
  return total === null ? null : { ...time, shift: total }
}

function foldedForEver(op: CompareOp, value: string | null): Predicate | null {
  if (value === null) return { kind: 'unknown' }
  const word = /^([+-]?)infinity$/i.exec(value.trim())
  if (word === null) return null
  const isAfter = word[1] !== '-'
  return { kind: isAfter === (op === '>' || op === '>=') ? 'true' : 'false' }
}

/** `coalesce(a, b, 'infinity') op time`. */
function firstOf(op: CompareOp, [first, ...others]: readonly Expr[], time: Expr): Predicate | null {
  if (first === undefined) return { kind: 'unknown' }
  const one = ordered(op, first, time)
  if (first.kind === 'const' && first.value !== null) return one
  const rest = firstOf(op, others, time)
  if (one === null || rest === null) return null
  const isNull: Predicate = { kind: 'isNull', arg: first }
  return or(and(not(isNull), one), and(isNull, rest))
}

/** `column::date op CURRENT_DATE`: later than the day is from the next midnight on. */
function byDay(op: CompareOp, value: Expr, time: Expr): Predicate | null {
  const ofDay = time.kind === 'cast' ? time.arg : time
  if (ofDay.kind !== 'now' || ofDay.type.family !== 'date') return null
  if (op === '<' || op === '>=') return ordered(op, value, ofDay)
  const next = movedBy(ofDay, { ...none, days: 1 })
  return next === null ? null : ordered(op === '>' ? '>=' : '<', value, next)
}
