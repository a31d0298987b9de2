// Our JSON of a value as to_jsonb gives it, where the two differ (see decode/values.ts): int8 and numeric are numbers with
// every digit, a composite value is an object, and so is an hstore. Pure.
import type { SqlType } from '../../../predicate/algebra.ts'
import { baseOf } from '../../../predicate/sql-types.ts'
import { jsonOf, textLiteral } from '../../decode/values.ts'

/** From JSON text to JSON text. */
export type Translate = (json: string) => string

/** @returns null where our JSON is to_jsonb's already */
export function translationOf(type: SqlType): Translate | null {
  const base = baseOf(type)
  if (base.oid === oidOfInt8 || base.family === 'numeric') return unquotedNumber
  if (base.family === 'array') {
    const element = base.element === undefined ? null : translationOf(base.element)
    return element === null ? null : json => translateArray(json, element)
  }
  if (base.fields !== undefined) return ofText(compositeOf(base.fields))
  return hstoreName.test(base.name) ? ofText(hstoreObject) : null
}

const oidOfInt8 = 20
const hstoreName = /(^|\.)hstore$/

/** Of a value that we give as text. */
const ofText =
  (translate: (text: string) => string): Translate =>
  json =>
    json.startsWith('"') ? translate(JSON.parse(json)) : json

/** `"12345678901234567890"`, which no double holds; `"NaN"` and `"Infinity"` stay. */
function unquotedNumber(json: string): string {
  const digit = json.charCodeAt(json.length - 2)
  return json.charCodeAt(0) === quote && digit >= 0x30 && digit <= 0x39 ? json.slice(1, -1) : json
}

/** @param json of an array, of arrays of any depth, whose elements are numbers, strings, booleans and null */
function translateArray(json: string, element: Translate): string {
  let out = ''
  for (let at = 0; at < json.length; ) {
    const code = json.charCodeAt(at)
    if (code === openBracket || code === closeBracket || code === comma) {
      out += json[at]
      at += 1
    } else {
      const end = endOfScalar(json, at)
      out += element(json.slice(at, end))
      at = end
    }
  }
  return out
}

const [quote, comma, openBracket, closeBracket, backslash] = [0x22, 0x2c, 0x5b, 0x5d, 0x5c]

function endOfScalar(json: string, from: number): number {
  if (json.charCodeAt(from) === quote) return endOfString(json, from)
  let at = from
  while (at < json.length && json.charCodeAt(at) !== comma && json.charCodeAt(at) !== closeBracket) at += 1
  return at
}

/** Behind the quote that ends the string which begins at `from`. */
export function endOfString(json: string, from: number): number {
  for (let at = json.indexOf('"', from + 1); ; at = json.indexOf('"', at + 1)) {
    let escapes = 0
    while (json.charCodeAt(at - 1 - escapes) === backslash) escapes += 1
    if (escapes % 2 === 0) return at + 1
  }
}

/** `(1,"a ""b""",)`: a field left empty is NULL, one in quotes doubles quotes and backslashes.
 *  Source: PostgreSQL manual, Composite Type Input and Output Syntax. */
function compositeOf(fields: NonNullable<SqlType['fields']>): (text: string) => string {
  const labels = fields.map(({ name }) => `${textLiteral(name)}:`)
  const translations = fields.map(({ type }) => translationOf(type))
  return text => {
    const values = rowFields(text)
    // Its type has changed since: what the fields are is not known.
    if (values === null || values.length !== fields.length) return textLiteral(text)
    const members = values.map((value, i) => {
      const json = value === null ? 'null' : jsonOf(fields[i]!.type, value)
      return `${labels[i]!}${translations[i] == null ? json : translations[i](json)}`
    })
    return `{${members.join(',')}}`
  }
}

/** @returns null where it is no row's text */
function rowFields(text: string): (string | null)[] | null {
  if (!text.startsWith('(') || !text.endsWith(')')) return null
  if (text === '()') return []
  const fields: (string | null)[] = []
  let value: string | null = null
  let isQuoted = false
  const end = text.length - 1
  for (let at = 1; at < end; at++) {
    const char = text[at]!
    if (char === '"' && isQuoted && text[at + 1] === '"') {
      value += char
      at += 1
    } else if (char === '"') {
      isQuoted = !isQuoted
      value ??= ''
    } else if (char === '\\') {
      at += 1
      value = `${value ?? ''}${text[at]}`
    } else if (char === ',' && !isQuoted) {
      fields.push(value)
      value = null
    } else value = `${value ?? ''}${char}`
  }
  return [...fields, value]
}

const hstorePair = /"((?:[^"\\]|\\.)*)"=>(?:NULL|"((?:[^"\\]|\\.)*)")(?:, )?/gsy

/** `"a"=>"1", "b"=>NULL`; its values are text. Source: PostgreSQL manual, hstore. */
function hstoreObject(text: string): string {
  const members: string[] = []
  let at = 0
  for (const [pair, key, value] of text.matchAll(hstorePair)) {
    members.push(`${textLiteral(unescaped(key!))}:${value === undefined ? 'null' : textLiteral(unescaped(value))}`)
    at += pair.length
  }
  return at === text.length ? `{${members.join(',')}}` : textLiteral(text)
}

const unescaped = (text: string): string => text.replace(/\\(.)/gs, '$1')
