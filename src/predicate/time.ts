// Where answers change by time alone. A comparison with `now()` turns at a moment that the row's column tells, so whoever
// keeps rows up to date reads those whose column lies near the time that passes; nothing is judged again and again.
//
// `now()` stands only in an order with a column (`assertTimeIsOrdered`): of anything else, such as `extract(hour FROM now())
// < 17`, the moments could not be found.
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { CompareOp, Expr, Predicate, Shift, SqlType } from './algebra.ts'
import {
  type DatetimeFamily,
  datetimeMicros,
  isDatetimeFamily,
  printDatetime,
  shiftMicros,
  startOfDay,
} from './calendar.ts'
import { partsOf } from './columns.ts'
import { baseOf } from './sql-types.ts'

type Column = Extract<Expr, { kind: 'column' }>

/** `column op now() + shift`. */
export interface TimeBound {
  readonly column: Column
  readonly op: CompareOp
  readonly shift: Shift
  /** Compared with the day alone: `CURRENT_DATE`. */
  readonly byDay: boolean
}

/** The comparisons with the time on the outer row, not those inside a semi-join's `where`. Each column, shift and operator once. */
export function timeBoundsOf(predicate: Predicate): readonly TimeBound[] {
  const found = new Map<string, TimeBound>()
  for (const part of partsOf(predicate)) {
    if (part.kind !== 'compare') continue
    const bound = boundOf(part)
    if (bound === null) continue
    const { column, op, shift, byDay } = bound
    found.set([column.column, op, shift.months, shift.days, shift.micros, byDay].join(' '), bound)
  }
  return [...found.values()]
}

/** Whether an answer may change by time, at any depth of semi-joins. */
export function readsTime(predicate: Predicate | Expr): boolean {
  for (const part of partsOf(predicate)) {
    if (part.kind === 'now' || (part.kind === 'semiJoin' && readsTime(part.where))) return true
  }
  return false
}

/** Values between which a column lies if the bound's answer for its row may differ between the two moments, both included. It
 *  may take in rows that do not change; it leaves out none that does. As text of the column's type.
 *  @param fromMicros, toMicros `now()` before and after, microseconds since 1970 */
export function flippingRange(bound: TimeBound, fromMicros: bigint, toMicros: bigint): { low: string; high: string } {
  const family = familyOf(bound.column.type)
  const slack = slackOf(bound)
  return {
    low: printDatetime(family, boundMicros(bound, fromMicros) - slack),
    high: printDatetime(family, boundMicros(bound, toMicros) + slack),
  }
}

/** The first moment after `nowMicros` at which the answer for a row is another, microseconds since 1970.
 *  @param text of the bound's column in that row
 *  @returns null when it stays as it is for ever: NULL, infinity, or what has passed already */
export function nextFlipMicros(bound: TimeBound, text: string | null, nowMicros: bigint): bigint | null {
  const value = text === null ? null : datetimeMicros(text)
  if (value === null) return null
  const holds = (at: bigint): boolean => ordered(bound.op, value, boundMicros(bound, at))
  const before = holds(nowMicros)
  // Within a day the bound moves with the time; only a midnight may make it jump, and of `(now() + '1 hour')::date` the moment
  // that is an hour before.
  const { months, days, micros } = bound.shift
  const near = shiftMicros(value, { months: -months, days: -days, micros: -micros })
  const first = startOfDay(near) - 5n * microsOfDay
  const start = nowMicros > first ? startOfDay(nowMicros) : first
  for (let day = start; day <= near + 5n * microsOfDay; day += microsOfDay) {
    const meeting = day + (value - boundMicros(bound, day))
    const candidates = [day]
    if (bound.byDay) candidates.push(day + (((-BigInt(micros) % microsOfDay) + microsOfDay) % microsOfDay))
    else if (meeting >= day && meeting < day + microsOfDay) candidates.push(meeting, meeting + 1n)
    const found = candidates.find(at => at > nowMicros && holds(at) !== before)
    if (found !== undefined) return found
  }
  return null
}

const microsOfDay = 86_400_000_000n

/** What the column is compared with at a moment. */
export function boundMicros({ shift, byDay }: TimeBound, nowMicros: bigint): bigint {
  const shifted = shiftMicros(nowMicros, shift)
  return byDay ? startOfDay(shifted) : shifted
}

/** The last days of a long month are clamped to those of a short one, so that a bound may step back by up to three. */
const slackOf = ({ shift }: TimeBound): bigint => (shift.months === 0 ? 0n : 4n * microsOfDay)

function ordered(op: CompareOp, a: bigint, b: bigint): boolean {
  if (op === '<') return a < b
  if (op === '<=') return a <= b
  return op === '>' ? a > b : a >= b
}

const mirrored = { '<': '>', '<=': '>=', '>': '<', '>=': '<=' } as const

function boundOf({ op, left, right }: Extract<Predicate, { kind: 'compare' }>): TimeBound | null {
  if (op === '=' || op === '<>') return null
  const [column, time, oriented] = left.kind === 'column' ? [left, right, op] : [right, left, mirrored[op]]
  if (column.kind !== 'column' || !isDatetimeFamily(baseOf(column.type).family)) return null
  // CURRENT_DATE as a timestamp: its midnight.
  const now = time.kind === 'cast' ? time.arg : time
  if (now.kind !== 'now' || (time.kind === 'cast' && now.type.family !== 'date')) return null
  return { column, op: oriented, shift: now.shift, byDay: now.type.family === 'date' }
}

function familyOf(type: SqlType): DatetimeFamily {
  const { family } = baseOf(type)
  if (!isDatetimeFamily(family)) throw new Error(`${type.name} is compared with the time`)
  return family
}

/** @throws POLICY_UNSUPPORTED where the time stands elsewhere than in an order with a column */
export function assertTimeIsOrdered(predicate: Predicate): void {
  let [times, bounds] = [0, 0]
  for (const part of partsOf(predicate)) {
    if (part.kind === 'now') times++
    if (part.kind === 'compare' && boundOf(part) !== null) bounds++
  }
  if (times === bounds) return
  throw new TidegateError('POLICY_UNSUPPORTED', 'the time may only be compared with a column, by <, <=, > or >=')
}
