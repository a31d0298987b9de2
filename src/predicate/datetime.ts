// Dates, times and timestamps as ISO text: reads what people write into the form Postgres prints under TimeZone UTC, and
// orders that form without turning it into numbers.
import { ValueError } from './value-error.ts'

const pattern =
  /^(\d{4,6})-(\d\d)-(\d\d)(?:[ T](\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?)? ?(Z|[+-]\d\d(?::?\d\d(?::\d\d)?)?)?( BC)?$/
const timePattern = /^(\d\d):(\d\d)(?::(\d\d)(?:\.(\d{1,6}))?)?$/

/** Reads ISO 8601 with a space or T, at most six digits of a second, and an offset. Refuses what depends on the moment
 *  or on settings (`now`, `today`, `1/2/2020`), and 24:00 and second 60, which Postgres rewrites.
 *  Without an offset a timestamptz is UTC, as in every session of ours. A timestamp ignores the offset, as Postgres does.
 *  @returns as Postgres prints it; @throws ValueError */
export function readDatetime(family: 'date' | 'timestamp' | 'timestamptz', typeName: string, text: string): string {
  const lower = text.toLowerCase()
  if (lower === 'infinity' || lower === '-infinity') return lower
  const match = pattern.exec(text)
  if (match === null) throw invalid(typeName)
  const [, yearText, month, day, hour = '00', minute = '00', second = '00', fraction = '', offset, bc] = match
  const year = bc === undefined ? Number(yearText) : 1 - Number(yearText)
  // JavaScript's calendar ends in the year 275760, the one of Postgres later: refused rather than wrapped.
  if (Number(yearText) === 0 || Math.abs(year) > (bc === undefined ? 270_000 : 4_700)) throw invalid(typeName)
  if (family === 'date' && (match[4] !== undefined || offset !== undefined)) throw invalid(typeName)
  const moment = new Date(0)
  moment.setUTCFullYear(year, Number(month) - 1, Number(day))
  if (moment.getUTCMonth() !== Number(month) - 1 || moment.getUTCDate() !== Number(day)) throw invalid(typeName)
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) throw invalid(typeName)
  if (family === 'date') return `${dateText(moment)}${eraOf(moment)}`
  moment.setUTCHours(Number(hour), Number(minute), Number(second))
  const displacement = offset === undefined ? 0 : offsetSeconds(offset, typeName)
  if (family === 'timestamptz') moment.setTime(moment.getTime() - displacement * 1000)
  const clock = [moment.getUTCHours(), moment.getUTCMinutes(), moment.getUTCSeconds()].map(pad2).join(':')
  const zone = family === 'timestamptz' ? '+00' : ''
  return `${dateText(moment)} ${clock}${fractionText(fraction)}${zone}${eraOf(moment)}`
}

/** @returns `HH:MM:SS[.ffffff]`; @throws ValueError */
export function readTime(typeName: string, text: string): string {
  const match = timePattern.exec(text)
  if (match === null) throw invalid(typeName)
  const [, hour, minute, second = '00', fraction = ''] = match
  if (Number(hour) > 23 || Number(minute) > 59 || Number(second) > 59) throw invalid(typeName)
  return `${hour}:${minute}:${second}${fractionText(fraction)}`
}

/** Orders two dates or timestamps of one type, both as Postgres prints them. */
export function orderDatetimes(a: string, b: string): number {
  // Four-digit years after Christ: the text's own order, because '+' of the zone sorts before '.' of the fraction.
  if (isPlain(a) && isPlain(b)) return a < b ? -1 : a > b ? 1 : 0
  const yearA = yearOf(a)
  const yearB = yearOf(b)
  if (yearA !== yearB) return yearA < yearB ? -1 : 1
  const restA = a.slice(a.indexOf('-', 1))
  const restB = b.slice(b.indexOf('-', 1))
  return restA < restB ? -1 : restA > restB ? 1 : 0
}

const isPlain = (text: string): boolean => text.charCodeAt(4) === 45 && !text.endsWith('C')

function yearOf(text: string): number {
  if (text === 'infinity') return Number.POSITIVE_INFINITY
  if (text === '-infinity') return Number.NEGATIVE_INFINITY
  const year = Number(text.slice(0, text.indexOf('-')))
  return text.endsWith('BC') ? 1 - year : year
}

function dateText(moment: Date): string {
  const year = moment.getUTCFullYear()
  const shown = String(year > 0 ? year : 1 - year).padStart(4, '0')
  return `${shown}-${pad2(moment.getUTCMonth() + 1)}-${pad2(moment.getUTCDate())}`
}

const eraOf = (moment: Date): string => (moment.getUTCFullYear() > 0 ? '' : ' BC')

const pad2 = (value: number): string => String(value).padStart(2, '0')

function fractionText(fraction: string): string {
  const digits = fraction.replace(/0+$/, '')
  return digits === '' ? '' : `.${digits}`
}

function offsetSeconds(offset: string, typeName: string): number {
  if (offset === 'Z') return 0
  const digits = offset.slice(1).replaceAll(':', '')
  const hours = Number(digits.slice(0, 2))
  const minutes = Number(digits.slice(2, 4))
  const seconds = Number(digits.slice(4, 6))
  // Postgres takes displacements below 16 hours.
  if (hours > 15 || minutes > 59 || seconds > 59) throw invalid(typeName)
  return (offset.startsWith('-') ? -1 : 1) * (hours * 3600 + minutes * 60 + seconds)
}

const invalid = (typeName: string): ValueError => new ValueError(`a value is not a ${typeName} in ISO 8601`)
