// A value's JSON text from Postgres's own text, as to_jsonb gives it, without making a JavaScript value in between.
//
// Different from to_jsonb on purpose: int8 and numeric that a double cannot hold are strings, because JSON.parse would
// change them; json and jsonb come as they were stored (to_jsonb sorts the keys of json); composite types and types with
// a cast to json of their own (hstore) are strings in their text form, because a column's type does not say their fields.
import type { SqlType } from '../../predicate/algebra.ts'

/** @param text Postgres's text form under the pinned session settings (src/server/postgres/database.ts)
 *  @returns JSON text without line breaks
 *  @example jsonOf(timestamptz, '2026-01-31 12:00:00.5+00') // '"2026-01-31T12:00:00.5+00:00"' */
export function jsonOf(type: SqlType, text: string): string {
  switch (type.family) {
    case 'int':
      return intJson(type, text)
    case 'bool':
      return text.charCodeAt(0) === 0x74 ? 'true' : 'false' // t, and `true` after a cast to text
    case 'numeric':
      return numericJson(text)
    case 'float':
      return floatJson(text)
    case 'uuid':
    case 'date':
    case 'time':
      return `"${text}"`
    case 'timestamp':
      return `"${text.replace(' ', 'T')}"`
    case 'timestamptz':
      return timestamptzJson(text)
    case 'bytea':
      return `"\\${text}"` // \x6869: one backslash, the first character
    case 'json':
    case 'jsonb':
      return storedJson(text)
    case 'array':
      return arrayJson(type, text)
    default:
      return textLiteral(text)
  }
}

/** A JSON string. U+2028 and U+2029 are escaped too: some readers of lines take them for line breaks.
 *  A plain value of 29 characters costs 40 ns this way, 57 by JSON.stringify alone. */
export function textLiteral(text: string): string {
  if (!needsEscape.test(text)) return `"${text}"`
  return escapeSeparators(JSON.stringify(text))
}

// biome-ignore lint/suspicious/noControlCharactersInRegex: they are what JSON must escape
const needsEscape = /["\\\u0000-\u001f\u2028\u2029]/

const escapeSeparators = (json: string): string =>
  separators.test(json) ? json.replaceAll('\u2028', '\\u2028').replaceAll('\u2029', '\\u2029') : json
const separators = /[\u2028\u2029]/

const oidOfOid = 26

function intJson(type: SqlType, text: string): string {
  // oid is an integer to compare, but to_jsonb prints it as a string.
  if ((type.base ?? type).oid === oidOfOid) return `"${text}"`
  return text.length <= 15 || isExactInteger(text) ? text : `"${text}"`
}

/** Any 15 significant digits survive a double and back; more have to be tried. */
function numericJson(text: string): string {
  if (text.length <= 15) return isDigit(text.charCodeAt(text.length - 1)) ? text : `"${text}"` // NaN, Infinity
  if (!isDigit(text.charCodeAt(text.length - 1))) return `"${text}"`
  const point = text.indexOf('.')
  if (point < 0) return isExactInteger(text) ? text : `"${text}"`
  const significant = withoutTrailingZeros(text)
  if (!significant.includes('.')) return isExactInteger(significant) ? text : `"${text}"`
  return plainDecimal(String(Number(text))) === significant ? text : `"${text}"`
}

function isExactInteger(text: string): boolean {
  const double = Number(text)
  return Number.isFinite(double) && BigInt(double) === BigInt(text)
}

/** Always a number of double precision, but to_jsonb writes 1e+20 as 100000000000000000000. */
function floatJson(text: string): string {
  if (!isDigit(text.charCodeAt(text.length - 1))) return `"${text}"` // NaN, Infinity, -Infinity
  if (text === '-0') return '0' // numeric, which to_jsonb goes through, has no negative zero
  return text.includes('e') ? plainDecimal(text) : text
}

const isDigit = (code: number): boolean => code >= 0x30 && code <= 0x39

const withoutTrailingZeros = (text: string): string => text.replace(/\.?0+$/, '')

/** `1.5e-7` as `0.00000015`. */
function plainDecimal(text: string): string {
  const match = /^(-?)(\d+)(?:\.(\d+))?e([+-]?\d+)$/.exec(text)
  if (match === null) return text
  const [, sign, whole = '', fraction = '', exponent] = match
  const digits = whole + fraction
  const point = whole.length + Number(exponent)
  if (point <= 0) return `${sign}0.${'0'.repeat(-point)}${digits}`
  if (point >= digits.length) return sign + digits + '0'.repeat(point - digits.length)
  return `${sign}${digits.slice(0, point)}.${digits.slice(point)}`
}

/** The session's TimeZone is UTC, so the offset is always +00; to_jsonb writes +00:00. It stands before ` BC`. */
function timestamptzJson(text: string): string {
  const offset = text.indexOf('+00')
  if (offset < 0) return `"${text}"` // infinity
  return `"${text.slice(0, offset).replace(' ', 'T')}+00:00${text.slice(offset + 3)}"`
}

/** A json or jsonb, verbatim. A line break or tab can only stand between tokens: inside a string Postgres takes none unescaped. */
export function storedJson(text: string): string {
  const line = /[\n\r\t]/.test(text) ? text.replace(/[\n\r\t]+/g, '') : text
  return escapeSeparators(line)
}

const oidOfBox = 603

/** `{1,NULL,"a \"quoted\" one"}`, nested by braces, with bounds (`[2:3]={1,2}`) where they do not begin at 1.
 *  Source: PostgreSQL manual, Array Input and Output Syntax. */
function arrayJson(type: SqlType, text: string): string {
  const element = type.element
  const start = text.charCodeAt(0) === 0x5b ? text.indexOf('={') + 1 : 0
  if (element === undefined || text.charCodeAt(start) !== 0x7b) return textLiteral(text)
  const separator = (element.base ?? element).oid === oidOfBox ? 0x3b : 0x2c // box alone has ';'
  let json = ''
  let at = start
  while (at < text.length) {
    const code = text.charCodeAt(at)
    if (code === 0x7b || code === 0x7d || code === separator) {
      json += code === 0x7b ? '[' : code === 0x7d ? ']' : ','
      at++
    } else if (code === 0x22) {
      const end = endOfQuoted(text, at + 1)
      const quoted = text.slice(at + 1, end)
      json += jsonOf(element, quoted.includes('\\') ? quoted.replace(/\\(.)/gs, '$1') : quoted)
      at = end + 1
    } else {
      const end = endOfPlain(text, at, separator)
      const plain = text.slice(at, end)
      json += plain === 'NULL' ? 'null' : jsonOf(element, plain)
      at = end
    }
  }
  return json
}

function endOfQuoted(text: string, from: number): number {
  let at = from
  while (at < text.length && text.charCodeAt(at) !== 0x22) at += text.charCodeAt(at) === 0x5c ? 2 : 1
  return at
}

function endOfPlain(text: string, from: number, separator: number): number {
  let at = from
  while (at < text.length && text.charCodeAt(at) !== separator && text.charCodeAt(at) !== 0x7d) at++
  return at
}
