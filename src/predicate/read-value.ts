// Reads a value as somebody wrote it, as Postgres's input functions do, into the text Postgres prints for it.
// Takes less than Postgres where its grammar is wide (dates in words, hexadecimal integers), never more.
import type { SqlType } from './algebra.ts'
import { parseArray, printArray } from './array-text.ts'
import { readDatetime, readTime } from './datetime.ts'
import { toJsonb } from './json-text.ts'
import { readNumeric } from './numeric-text.ts'
import { baseOf } from './sql-types.ts'
import { trimSpace } from './trim-space.ts'
import { ValueError } from './value-error.ts'

const intRanges: Readonly<Record<number, readonly [bigint, bigint]>> = {
  20: [-(2n ** 63n), 2n ** 63n - 1n],
  21: [-32768n, 32767n],
  23: [-(2n ** 31n), 2n ** 31n - 1n],
  26: [0n, 2n ** 32n - 1n],
}

/** @returns the text Postgres prints for the value; real numbers in JavaScript's shortest form
 *  @throws ValueError when the text is no value of the type, or not one this reader takes */
export function readValue(sqlType: SqlType, text: string): string {
  const type = baseOf(sqlType)
  if (text.includes('\0') || !text.isWellFormed()) throw new ValueError(`a value is not a ${type.name}`)
  switch (type.family) {
    case 'bool':
      return readBool(text)
    case 'int':
      return readInt(type, text)
    case 'float':
      return readFloat(type, text)
    case 'numeric':
      return readNumeric(trimSpace(text))
    case 'uuid':
      return readUuid(text)
    case 'date':
    case 'timestamp':
    case 'timestamptz':
      return readDatetime(type.family, type.name, trimSpace(text))
    case 'time':
      return readTime(type.name, trimSpace(text))
    case 'bytea':
      if (!text.includes('\\')) return `\\x${Buffer.from(text).toString('hex')}`
      if (!/^\\x([0-9a-fA-F]{2})*$/.test(text)) throw new ValueError('a value is not a bytea in the form \\x0af9')
      return text.toLowerCase()
    case 'enum':
      if (type.labels?.includes(text) !== true) throw new ValueError(`a value is not a label of ${type.name}`)
      return text
    case 'json':
      try {
        JSON.parse(text)
      } catch {
        throw new ValueError('a value is not json')
      }
      return text
    case 'jsonb':
      return toJsonb(text)
    case 'array':
      return readArray(type, text)
    default:
      return text
  }
}

function readBool(text: string): string {
  const word = trimSpace(text).toLowerCase()
  if (word === '1' || word === 'on' || (word !== '' && ('true'.startsWith(word) || 'yes'.startsWith(word)))) return 't'
  if (word === '0' || word === 'of' || word === 'off') return 'f'
  if (word !== '' && ('false'.startsWith(word) || 'no'.startsWith(word))) return 'f'
  throw new ValueError('a value is not a boolean')
}

function readInt(type: SqlType, text: string): string {
  const range = intRanges[type.oid]
  // Forty digits: none of these types has more, and BigInt of a long text is slow.
  if (range === undefined || text.length > 40 || !/^[+-]?\d+$/.test(trimSpace(text)))
    throw new ValueError(`a value is not a ${type.name}`)
  const value = BigInt(trimSpace(text).replace('+', ''))
  if (value < range[0] || value > range[1]) throw new ValueError(`a value is out of range for ${type.name}`)
  return value.toString()
}

function readFloat(type: SqlType, text: string): string {
  const word = trimSpace(text)
  const special = /^([+-]?)(inf|infinity|nan)$/i.exec(word)
  if (special !== null) {
    if (special[2]!.toLowerCase() !== 'nan') return special[1] === '-' ? '-Infinity' : 'Infinity'
    if (special[1] === '') return 'NaN'
  }
  if (!/^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(word)) throw new ValueError(`a value is not a ${type.name}`)
  const value = type.oid === 700 ? Math.fround(Number(word)) : Number(word)
  // Postgres raises on overflow, and on underflow to zero.
  if (!Number.isFinite(value) || (value === 0 && /[1-9]/.test(word.replace(/e.*$/i, ''))))
    throw new ValueError(`a value is out of range for ${type.name}`)
  return Object.is(value, -0) ? '-0' : String(value)
}

function readUuid(text: string): string {
  // Postgres takes braces, capitals, and a hyphen after any group of four digits.
  const inner = text.startsWith('{') && text.endsWith('}') ? text.slice(1, -1) : text
  if (!/^[0-9a-f]{4}(-?[0-9a-f]{4}){7}$/i.test(inner)) throw new ValueError('a value is not a uuid')
  const digits = inner.replaceAll('-', '').toLowerCase()
  return [digits.slice(0, 8), digits.slice(8, 12), digits.slice(12, 16), digits.slice(16, 20), digits.slice(20)].join(
    '-',
  )
}

const arrayPattern = /^\{(?: *(?:"(?:[^"\\]|\\.)*"|[^ \t\n\v\f\r{},"\\]+) *(?:,(?! *\})|(?=\})))*\}$/s
/** Spaces outside quotes. */
const betweenItems = /("(?:[^"\\]|\\.)*")|([^" ]+)| +/gs

function readArray(type: SqlType, text: string): string {
  const element = type.element
  if (element === undefined) throw new ValueError(`a value is not a ${type.name}`)
  // Nested arrays, stated bounds and spaces in bare items: Postgres takes them, filters and claims do not need them.
  if (!arrayPattern.test(text)) throw new ValueError(`a value is not a one-dimensional ${type.name}`)
  const { items } = parseArray(text.replace(betweenItems, '$1$2'))
  return printArray(items.map(item => (item === null ? null : readValue(element, item))))
}
