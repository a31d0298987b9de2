// `now()` and what is a constant interval away from it, in microseconds since 1970 and as Postgres prints it under
// TimeZone UTC.
import type { Shift } from './algebra.ts'

const microsOfDay = 86_400_000_000n

/** A timestamptz plus an interval, as Postgres adds it: months by the calendar, the day clamped to the month's last, then
 *  days, then the rest. Days are 24 hours, the session's zone being UTC. */
export function shiftMicros(micros: bigint, { months, days, micros: rest }: Shift): bigint {
  let result = micros
  if (months !== 0) {
    const ofDay = floorMod(result, microsOfDay)
    const date = new Date(Number((result - ofDay) / 1000n))
    const day = date.getUTCDate()
    date.setUTCDate(1)
    date.setUTCMonth(date.getUTCMonth() + months)
    const last = new Date(date)
    last.setUTCMonth(last.getUTCMonth() + 1)
    last.setUTCDate(0)
    date.setUTCDate(Math.min(day, last.getUTCDate()))
    result = BigInt(date.getTime()) * 1000n + ofDay
  }
  return result + BigInt(days) * microsOfDay + BigInt(rest)
}

/** @returns a timestamptz as Postgres prints it: `2026-01-31 12:00:00.25+00`, for years 1 to 9999 */
export function timestamptzText(micros: bigint): string {
  const fraction = floorMod(micros, 1_000_000n)
  const iso = new Date(Number((micros - fraction) / 1000n)).toISOString()
  const digits = fraction === 0n ? '' : `.${String(fraction).padStart(6, '0').replace(/0+$/, '')}`
  return `${iso.slice(0, 10)} ${iso.slice(11, 19)}${digits}+00`
}

const floorMod = (value: bigint, by: bigint): bigint => ((value % by) + by) % by
