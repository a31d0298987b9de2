// How rows of a live query compare: as Postgres's ORDER BY does under the C collation, on the values as the wire writes them.
import type { Json, JsonRow, OrderTerm } from './messages.ts'
import { TidegateError } from './tidegate-error.ts'

type Compare = (a: string | number | boolean, b: string | number | boolean) => number

/** @param terms of a `subscribed` frame; those of the primary key at the end make the order total
 *  @returns negative when `a` stands before `b`, 0 when no term tells them apart
 *  @throws ORDER_UNSUPPORTED for a term that the server alone can compare */
export function compareRows(terms: readonly OrderTerm[]): (a: JsonRow, b: JsonRow) => number {
  const compares = terms.map(term => [term.column, compareValues(term)] as const)
  return (a, b) => {
    for (const [column, compare] of compares) {
      const sign = compare(a[column], b[column])
      if (sign !== 0) return sign
    }
    return 0
  }
}

/** Two values of the term's column, NULL among them. */
export function compareValues(term: OrderTerm): (a: Json | undefined, b: Json | undefined) => number {
  const compare = compareOf(term)
  const sign = term.direction === 'desc' ? -1 : 1
  const ofNull = term.nulls === 'first' ? -1 : 1
  return (a, b) => {
    if (a === b) return 0
    if (a == null) return b == null ? 0 : ofNull
    if (b == null) return -ofNull
    return sign * compare(a as string, b as string)
  }
}

function compareOf(term: OrderTerm): Compare {
  switch (term.compare) {
    case 'number':
      return (a, b) =>
        typeof a === 'number' && typeof b === 'number' ? a - b : compareNumbers(a as string, b as string)
    case 'text':
      return (a, b) => compareText(a as string, b as string)
    case 'time':
      return (a, b) => compareTimes(a as string, b as string)
    case 'boolean':
      return (a, b) => Number(a) - Number(b)
    case 'labels': {
      const places = new Map(term.labels?.map((label, place) => [label, place]))
      // A label that was added since is told anew by the server; until then it stands last.
      const placeOf = (label: unknown): number => places.get(label as string) ?? places.size
      return (a, b) => placeOf(a) - placeOf(b)
    }
    default:
      throw new TidegateError('ORDER_UNSUPPORTED', `the server alone can order by "${term.column}"`)
  }
}

/** By code points, which on UTF-8 is the C collation: JavaScript's `<` takes U+FF5E for more than U+1F600, which it writes by a
 *  pair of units from 0xD800 on. */
export function compareText(a: string, b: string): number {
  const length = Math.min(a.length, b.length)
  for (let at = 0; at < length; at++) {
    const left = a.charCodeAt(at)
    const right = b.charCodeAt(at)
    if (left !== right) return rankOfUnit(left) - rankOfUnit(right)
  }
  return a.length - b.length
}

const rankOfUnit = (unit: number): number => (unit >= 0xd800 && unit <= 0xdfff ? unit + 0x1_0000 : unit)

/** Numbers, or texts of numbers that no double holds. Doubles decide where they differ, because rounding keeps the order; else all digits
 *  do. NaN is the greatest, as in Postgres. */
export function compareNumbers(a: number | string, b: number | string): number {
  const left = Number(a)
  const right = Number(b)
  if (left < right) return -1
  if (left > right) return 1
  if (left !== right) return Number(Number.isNaN(left)) - Number(Number.isNaN(right))
  return compareDecimals(a, b)
}

/** Of one double, or both too large or too small for one. */
function compareDecimals(a: number | string, b: number | string): number {
  if (a === b) return 0
  // Of numeric alone: past every number, however long.
  if (isInfinity(a)) return String(a).startsWith('-') ? -1 : 1
  if (isInfinity(b)) return String(b).startsWith('-') ? 1 : -1
  const [left, right] = [digitsOf(a), digitsOf(b)]
  if (left.sign !== right.sign) return left.sign - right.sign
  const size = left.whole.length - right.whole.length || compareText(left.whole, right.whole)
  return left.sign * (size || compareText(left.fraction, right.fraction))
}

const isInfinity = (value: number | string): boolean => String(value).endsWith('y')

/** Without leading and trailing zeros. */
function digitsOf(value: number | string): { sign: number; whole: string; fraction: string } {
  const text = typeof value === 'string' ? value : plainDecimal(value)
  const sign = text.startsWith('-') ? -1 : 1
  const [whole = '', fraction = ''] = text.replace(/^-?0*/, '').split('.')
  const end = fraction.replace(/0+$/, '')
  return { sign: whole === '' && end === '' ? 0 : sign, whole, fraction: end }
}

/** Of a double that stands for the number written: an integer is itself, digit for digit, a fraction its shortest text. */
function plainDecimal(value: number): string {
  if (Number.isInteger(value)) return String(BigInt(value))
  const [digits = '', exponent] = String(value).split('e-')
  if (exponent === undefined) return digits
  const significant = digits.replace(/[-.]/g, '')
  return `${value < 0 ? '-' : ''}0.${'0'.repeat(Number(exponent) - 1)}${significant}`
}

/** Years of four digits, at no offset but UTC's: `+` stands before `.` before digits, so the texts compare as the times do. */
const plainTime = /^\d{4}-\d\d-\d\d([T ][\d:.]+(\+00(:00)?)?)?$/

/** Dates, or timestamps with or without a zone, in the text of to_jsonb; of one column, so all of one kind. */
export function compareTimes(a: string, b: string): number {
  if (plainTime.test(a) && plainTime.test(b)) return a < b ? -1 : a > b ? 1 : 0
  const [left, right] = [momentOf(a), momentOf(b)]
  if (left.seconds !== right.seconds) return left.seconds < right.seconds ? -1 : 1
  return compareText(left.fraction, right.fraction)
}

const timeText =
  /^(\d+)-(\d\d)-(\d\d)(?:[T ](\d\d):(\d\d):(\d\d)(?:\.(\d+?)0*)?)?(?:([+-])(\d\d)(?::(\d\d))?(?::(\d\d))?)?( BC)?$/

/** Seconds since 1970, exact for every date of Postgres, and the digits of the fraction without trailing zeros. */
function momentOf(text: string): { seconds: number; fraction: string } {
  const match = timeText.exec(text)
  if (match === null) return { seconds: text.startsWith('-') ? -Infinity : Infinity, fraction: '' }
  const [, year, month, day, hour, minute, second, fraction = '', offsetSign, hours, minutes, seconds, bc] = match
  // 1 BC is year 0.
  const days = daysSince1970(bc === undefined ? Number(year) : 1 - Number(year), Number(month), Number(day))
  const clock = secondsOf(hour, minute, second)
  const offset = secondsOf(hours, minutes, seconds)
  const whole = days * 86_400 + clock - (offsetSign === '-' ? -offset : offset)
  return { seconds: whole, fraction: fraction === '0' ? '' : fraction }
}

const secondsOf = (hours = '0', minutes = '0', seconds = '0'): number =>
  Number(hours) * 3600 + Number(minutes) * 60 + Number(seconds)

/** In the proleptic Gregorian calendar; `Date` ends at the year 275760, a date of Postgres at 5874897.
 *  Source: days_from_civil, http://howardhinnant.github.io/date_algorithms.html */
function daysSince1970(year: number, month: number, day: number): number {
  const shifted = month <= 2 ? year - 1 : year
  const era = Math.floor(shifted / 400)
  const yearOfEra = shifted - era * 400
  const dayOfYear = Math.floor((153 * ((month + 9) % 12) + 2) / 5) + day - 1
  return era * 146_097 + yearOfEra * 365 + Math.floor(yearOfEra / 4) - Math.floor(yearOfEra / 100) + dayOfYear - 719_468
}
