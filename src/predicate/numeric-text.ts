// Decimal numbers as text: read, made canonical and ordered without ever becoming a binary number.
import { ValueError } from './value-error.ts'

const pattern = /^([+-]?)(\d*)(?:\.(\d*))?(?:e([+-]?\d{1,7}))?$/i
/** Digits a value may have on either side once its exponent is written out; Postgres takes 131072 before the point. */
const maxDigits = 4000

/** Reads a numeric as Postgres does, its scale kept: `1.50e1` is `15.0`. @throws ValueError */
export function readNumeric(text: string): string {
  const special = /^([+-]?)(inf|infinity|nan)$/i.exec(text)
  if (special !== null) {
    if (special[2]!.toLowerCase() !== 'nan') return special[1] === '-' ? '-Infinity' : 'Infinity'
    if (special[1] === '') return 'NaN'
  }
  const match = pattern.exec(text)
  if (match === null || (match[2] === '' && (match[3] ?? '') === '')) throw new ValueError('a value is not a numeric')
  const [, sign, whole = '', fraction = '', exponentText = '0'] = match
  const exponent = Number(exponentText)
  if (Math.abs(exponent) > maxDigits || whole.length > maxDigits || fraction.length > maxDigits)
    throw new ValueError('a value has more digits than a numeric is read with here')
  const digits = whole + fraction
  const point = whole.length + exponent
  const before = point <= 0 ? '' : digits.slice(0, point).padEnd(point, '0')
  const after = point <= 0 ? '0'.repeat(-point) + digits : digits.slice(point)
  const trimmed = before.replace(/^0+/, '')
  const shown = `${trimmed === '' ? '0' : trimmed}${after === '' ? '' : `.${after}`}`
  return sign === '-' && /[1-9]/.test(digits) ? `-${shown}` : shown
}

/** The text under which equal numerics are equal: `1.00` and `1` are `1`. Takes what Postgres prints. */
export function numericKey(text: string): string {
  if (!text.includes('.')) return text
  let end = text.length
  while (text.charCodeAt(end - 1) === 48) end--
  if (text.charCodeAt(end - 1) === 46) end--
  return text.slice(0, end)
}

/** The nearest whole number, half away from zero. NaN and infinities stay: no integer takes them. */
export function roundNumeric(text: string): string {
  const [whole = '', fraction = ''] = text.split('.')
  if (!/^[5-9]/.test(fraction)) return whole === '-0' ? '0' : whole
  const sign = whole.startsWith('-') ? '-' : ''
  return `${sign}${BigInt(whole.replace('-', '')) + 1n}`
}

/** Orders two canonical numerics (or integers): -Infinity first, Infinity and then NaN last. */
export function orderNumerics(a: string, b: string): number {
  if (a === b) return 0
  const rank = rankOf(a) - rankOf(b)
  if (rank !== 0) return rank
  if (rankOf(a) !== 0) return 0
  const negative = a.startsWith('-')
  if (negative !== b.startsWith('-')) return negative ? -1 : 1
  return negative ? orderMagnitudes(b.slice(1), a.slice(1)) : orderMagnitudes(a, b)
}

function rankOf(text: string): number {
  const last = text.charCodeAt(text.length - 1)
  if (last === 78) return 2 // NaN
  if (last === 121) return text.startsWith('-') ? -1 : 1 // Infinity
  return 0
}

function orderMagnitudes(a: string, b: string): number {
  const wholeA = a.indexOf('.') < 0 ? a.length : a.indexOf('.')
  const wholeB = b.indexOf('.') < 0 ? b.length : b.indexOf('.')
  if (wholeA !== wholeB) return wholeA - wholeB
  return a < b ? -1 : a > b ? 1 : 0
}
