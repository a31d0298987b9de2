// Constant intervals, as they are written in policies.
import type { Shift } from '../../predicate/algebra.ts'

const microsOfSecond = 1_000_000

/** What one of a unit is; those below a day may be fractions. */
const units: readonly (readonly [names: string, part: keyof Shift, size: number])[] = [
  ['microsecond microseconds us usec usecs', 'micros', 1],
  ['millisecond milliseconds ms msec msecs', 'micros', 1000],
  ['second seconds sec secs s', 'micros', microsOfSecond],
  ['minute minutes min mins m', 'micros', 60 * microsOfSecond],
  ['hour hours hr hrs h', 'micros', 3600 * microsOfSecond],
  ['day days d', 'days', 1],
  ['week weeks w', 'days', 7],
  ['month months mon mons', 'months', 1],
  ['year years yr yrs y', 'months', 12],
  ['decade decades', 'months', 120],
  ['century centuries', 'months', 1200],
]

const unitOf = new Map(
  units.flatMap(([names, part, size]) => names.split(' ').map(name => [name, { part, size }] as const)),
)

/** Within this, sums stay exact and dates within the range of a timestamp. */
const maxYears = 100_000

/** Reads `1 year 2 mons -3 days 04:05:06.5`, `24 hours`, `1h`. Takes less than Postgres (no ISO 8601, no fractions of days).
 *  @returns null for what it does not read */
export function readInterval(text: string): Shift | null {
  const shift = { months: 0, days: 0, micros: 0 }
  const token = /\s*(?:([+-]?)(\d+):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?|([+-]?\d+(?:\.\d+)?)\s*([a-z]+))\s*/iy
  let at = 0
  const source = text.replace(/^\s*@/, '').trim()
  const isAgo = /\sago$/i.test(source)
  const parts = isAgo ? source.slice(0, -3).trim() : source
  if (parts === '') return null
  while (at < parts.length) {
    token.lastIndex = at
    const match = token.exec(parts)
    if (match === null) return null
    at = token.lastIndex
    const [, sign, hour, minute, second = '0', fraction = '', count, name] = match
    if (hour !== undefined) {
      if (Number(minute) > 59 || Number(second) > 59) return null
      const seconds = Number(hour) * 3600 + Number(minute) * 60 + Number(second)
      shift.micros += (sign === '-' ? -1 : 1) * (seconds * microsOfSecond + Number(fraction.padEnd(6, '0')))
      continue
    }
    const unit = unitOf.get(name!.toLowerCase())
    if (unit === undefined) return null
    const amount = Number(count) * unit.size
    if (!Number.isInteger(amount) || (unit.part !== 'micros' && count!.includes('.'))) return null
    shift[unit.part] += amount
  }
  return isAgo ? scaled(shift, -1) : within(shift)
}

/** @returns null where it is too long to count with */
export const scaled = (shift: Shift, by: number): Shift | null =>
  within({ months: shift.months * by, days: shift.days * by, micros: shift.micros * by })

export const sum = (a: Shift, b: Shift): Shift | null =>
  within({ months: a.months + b.months, days: a.days + b.days, micros: a.micros + b.micros })

/** Without the -0 of a negation. */
function within({ months, days, micros }: Shift): Shift | null {
  const fits = Math.abs(months) <= maxYears * 12 && Math.abs(days) <= maxYears * 366 && Number.isSafeInteger(micros)
  return fits ? { months: months + 0, days: days + 0, micros: micros + 0 } : null
}
