// Dates and timestamps as numbers: microseconds since 1970, and the text that Postgres prints for them under TimeZone UTC.
// JavaScript's own calendar ends before that of Postgres, so days are counted here.
import type { Shift } from './algebra.ts'
import { ValueError } from './value-error.ts'

export type DatetimeFamily = 'date' | 'timestamp' | 'timestamptz'

const microsOfDay = 86_400_000_000n

export const isDatetimeFamily = (family: string): family is DatetimeFamily =>
  family === 'date' || family === 'timestamp' || family === 'timestamptz'

const pattern = /^(\d+)-(\d\d)-(\d\d)(?: (\d\d):(\d\d):(\d\d)(?:\.(\d+))?)?(?:\+00)?( BC)?$/

/** @param text a date or timestamp as Postgres prints it; a date is its midnight
 *  @returns microseconds since 1970; null for infinity and -infinity */
export function datetimeMicros(text: string): bigint | null {
  const match = pattern.exec(text)
  if (match === null) {
    if (text === 'infinity' || text === '-infinity') return null
    throw new ValueError('a value is no date or timestamp as Postgres prints it')
  }
  const [, year, month, day, hour = '0', minute = '0', second = '0', fraction = '', bc] = match
  const days = daysOf(bc === undefined ? Number(year) : 1 - Number(year), Number(month), Number(day))
  const seconds = Number(hour) * 3600 + Number(minute) * 60 + Number(second)
  return BigInt(days) * microsOfDay + BigInt(seconds) * 1_000_000n + BigInt(fraction.padEnd(6, '0'))
}

/** @returns as Postgres prints it; a date is the day that the moment is in
 *  @throws ValueError past the last of the type */
export function printDatetime(family: DatetimeFamily, micros: bigint): string {
  const ofDay = floorMod(micros, microsOfDay)
  const { year, month, day } = civilOf(Number((micros - ofDay) / microsOfDay))
  if (year < -4713 || year > (family === 'date' ? 5874897 : 294276)) throw new ValueError(`a ${family} is out of range`)
  const era = year > 0 ? '' : ' BC'
  const date = `${String(year > 0 ? year : 1 - year).padStart(4, '0')}-${pad2(month)}-${pad2(day)}`
  if (family === 'date') return `${date}${era}`
  const seconds = Number(ofDay / 1_000_000n)
  const clock = [Math.floor(seconds / 3600), Math.floor(seconds / 60) % 60, seconds % 60].map(pad2).join(':')
  const fraction = String(ofDay % 1_000_000n)
    .padStart(6, '0')
    .replace(/0+$/, '')
  return `${date} ${clock}${fraction === '' ? '' : `.${fraction}`}${family === 'timestamptz' ? '+00' : ''}${era}`
}

/** A timestamp plus an interval, as Postgres adds it: months by the calendar, the day clamped to the month's last, then
 *  days, then the rest. Days are 24 hours, the session's zone being UTC. */
export function shiftMicros(micros: bigint, { months, days, micros: rest }: Shift): bigint {
  let result = micros
  if (months !== 0) {
    const ofDay = floorMod(result, microsOfDay)
    const { year, month, day } = civilOf(Number((result - ofDay) / microsOfDay))
    const at = year * 12 + (month - 1) + months
    const [toYear, toMonth] = [Math.floor(at / 12), at - Math.floor(at / 12) * 12 + 1]
    result = BigInt(daysOf(toYear, toMonth, Math.min(day, lastDay(toYear, toMonth)))) * microsOfDay + ofDay
  }
  return result + BigInt(days) * microsOfDay + BigInt(rest)
}

/** The midnight before, or the moment itself. */
export const startOfDay = (micros: bigint): bigint => micros - floorMod(micros, microsOfDay)

const floorMod = (value: bigint, by: bigint): bigint => ((value % by) + by) % by

const pad2 = (value: number): string => String(value).padStart(2, '0')

const lastDay = (year: number, month: number): number =>
  month === 12 ? 31 : daysOf(year, month + 1, 1) - daysOf(year, month, 1)

// Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": years begin in March, so that a leap day is the last.

/** Days since 1970-01-01 in the Gregorian calendar; the year 0 is 1 BC. */
function daysOf(year: number, month: number, day: number): number {
  const shifted = month > 2 ? year : year - 1
  const era = Math.floor(shifted / 400)
  const ofEra = shifted - era * 400
  const ofYear = Math.floor((153 * (month + (month > 2 ? -3 : 9)) + 2) / 5) + day - 1
  return era * 146097 + ofEra * 365 + Math.floor(ofEra / 4) - Math.floor(ofEra / 100) + ofYear - 719468
}

function civilOf(days: number): { year: number; month: number; day: number } {
  const since = days + 719468
  const era = Math.floor(since / 146097)
  const ofEra = since - era * 146097
  const yearOfEra = Math.floor(
    (ofEra - Math.floor(ofEra / 1460) + Math.floor(ofEra / 36524) - Math.floor(ofEra / 146096)) / 365,
  )
  const ofYear = ofEra - (365 * yearOfEra + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100))
  const shifted = Math.floor((5 * ofYear + 2) / 153)
  const month = shifted < 10 ? shifted + 3 : shifted - 9
  const day = ofYear - Math.floor((153 * shifted + 2) / 5) + 1
  return { year: yearOfEra + era * 400 + (month <= 2 ? 1 : 0), month, day }
}
