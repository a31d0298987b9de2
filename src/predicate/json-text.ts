// `->` and `->>` on JSON as text, and the text Postgres prints for a jsonb. Number tokens stay as written: a parsed
// double would turn a tenant's number 9007199254740993 into its neighbour.
import { readNumeric } from './numeric-text.ts'
import { ValueError } from './value-error.ts'

/** Nesting that is read; Postgres stops at its stack depth. */
const maxDepth = 500

/** A member of an object or an element of an array.
 *  @param text valid JSON; for jsonb as Postgres prints it
 *  @param key text for a member, number for an element (from the end when negative)
 *  @returns JSON text, or for `asText` the string's content; null for SQL NULL */
export function jsonGet(
  text: string,
  key: string | number,
  options: { asText: boolean; binary: boolean },
): string | null {
  const raw = typeof key === 'string' ? member(text, key) : element(text, key, options.binary)
  return raw === undefined || !options.asText ? (raw ?? null) : jsonContent(raw)
}

/** A value as text: the content of a string, anything else as it is written, null for a null. */
export function jsonContent(raw: string): string | null {
  if (raw === 'null') return null
  return raw.startsWith('"') ? unquote(raw) : raw
}

/** A value at a path: each step is a member's name in an object and an index in an array. Null for SQL NULL. */
export function jsonAt(text: string, path: readonly (string | null)[], options: { asText: boolean }): string | null {
  let raw = text
  for (const step of path) {
    if (step === null) return null
    const kind = jsonKind(raw)
    // As strtol reads it: spaces before the number, none behind.
    const index = kind === 'array' && /^[ \t\n\v\f\r]*[+-]?\d{1,10}$/.test(step) ? Number(step) : null
    if (kind !== 'object' && index === null) return null
    const found = index === null ? member(raw, step) : elementsOf(raw).at(index)
    if (found === undefined) return null
    raw = found
  }
  return options.asText ? jsonContent(raw.trim()) : raw.trim()
}

/** What `jsonb_typeof` says. */
export function jsonKind(text: string): 'object' | 'array' | 'string' | 'number' | 'boolean' | 'null' {
  const first = text[skipSpace(text, 0)]
  if (first === '{') return 'object'
  if (first === '[') return 'array'
  if (first === '"') return 'string'
  if (first === 'n') return 'null'
  return first === 't' || first === 'f' ? 'boolean' : 'number'
}

/** The elements of an array as they are written. */
export const jsonElements = (array: string): string[] => elementsOf(array)

/** The members of an object in the order they are written, their names read. */
export const jsonMembers = (object: string): [name: string, value: string][] =>
  Array.from(membersOf(object), ([name, value]) => [unquote(name), value])

/** Reads JSON into the text Postgres prints for it as jsonb. @throws ValueError */
export function toJsonb(text: string): string {
  try {
    JSON.parse(text)
  } catch {
    throw new ValueError('a value is not jsonb')
  }
  return printJsonb(text.trim(), 0)
}

function printJsonb(text: string, depth: number): string {
  if (depth > maxDepth) throw new ValueError(`a jsonb value is nested deeper than ${maxDepth}`)
  const first = text[0]
  if (first === '{') {
    const members = new Map<string, string>()
    for (const [key, value] of membersOf(text)) members.set(unquote(key), printJsonb(value, depth + 1))
    // jsonb keeps the last of equal keys, and sorts them by length in bytes, then by bytes.
    const sorted = [...members].map(([key, value]) => ({ key, bytes: Buffer.from(key), value }))
    sorted.sort((a, b) => a.bytes.length - b.bytes.length || Buffer.compare(a.bytes, b.bytes))
    return `{${sorted.map(({ key, value }) => `${JSON.stringify(key)}: ${value}`).join(', ')}}`
  }
  if (first === '[')
    return `[${elementsOf(text)
      .map(item => printJsonb(item, depth + 1))
      .join(', ')}]`
  if (first === '"') return JSON.stringify(unquote(text))
  return first === 't' || first === 'f' || first === 'n' ? text : readNumeric(text)
}

function member(text: string, key: string): string | undefined {
  if (text[skipSpace(text, 0)] !== '{') return undefined
  let found: string | undefined
  for (const [name, value] of membersOf(text)) if (JSON.parse(name) === key) found = value
  return found
}

function element(text: string, index: number, binary: boolean): string | undefined {
  const start = skipSpace(text, 0)
  // A jsonb scalar is stored as an array of one, and answers to 0 and -1 as one.
  if (text[start] !== '[') {
    return binary && text[start] !== '{' && (index === 0 || index === -1) ? text.trim() : undefined
  }
  return elementsOf(text).at(index)
}

function* membersOf(text: string): Generator<[name: string, value: string]> {
  let at = skipSpace(text, skipSpace(text, 0) + 1)
  while (text[at] !== '}') {
    const nameEnd = skipValue(text, at)
    const valueStart = skipSpace(text, skipSpace(text, nameEnd) + 1)
    const valueEnd = skipValue(text, valueStart)
    yield [text.slice(at, nameEnd), text.slice(valueStart, valueEnd)]
    at = skipSpace(text, valueEnd)
    if (text[at] === ',') at = skipSpace(text, at + 1)
  }
}

function elementsOf(text: string): string[] {
  const items: string[] = []
  let at = skipSpace(text, skipSpace(text, 0) + 1)
  while (text[at] !== ']') {
    const end = skipValue(text, at)
    items.push(text.slice(at, end))
    at = skipSpace(text, end)
    if (text[at] === ',') at = skipSpace(text, at + 1)
  }
  return items
}

function skipSpace(text: string, from: number): number {
  let at = from
  while (at < text.length && text.charCodeAt(at) <= 32) at++
  return at
}

/** The end of the value that begins at `from`. Only for JSON already known to be valid: it counts brackets. */
function skipValue(text: string, from: number): number {
  let depth = 0
  for (let at = from; at < text.length; ) {
    const char = text[at]
    if (char === '"') {
      for (at++; text[at] !== '"'; at++) {
        if (text[at] === '\\') at++
        if (at >= text.length) throw new ValueError('a value is not json')
      }
      at++
    } else if (char === '{' || char === '[') {
      depth++
      at++
    } else if (char === '}' || char === ']') {
      depth--
      at++
    } else if (depth > 0) {
      at++
      continue
    } else {
      while (at < text.length && !/[\s,\]}:]/.test(text[at]!)) at++
    }
    if (depth === 0) return at
  }
  throw new ValueError('a value is not json')
}

function unquote(raw: string): string {
  const value: unknown = JSON.parse(raw)
  if (typeof value !== 'string' || value.includes('\0') || !value.isWellFormed())
    throw new ValueError('a json string holds what a text cannot')
  return value
}
