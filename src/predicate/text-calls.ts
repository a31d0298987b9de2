// Functions over text, in characters: a character beyond U+FFFF is two units in JavaScript and one in Postgres.
import { printArray } from './array-text.ts'
import { type Calls, type Compute, type ComputeWithNulls, isInt, isText, type Maker, printBool } from './call.ts'
import { foldOf, foldsAsciiAsC } from './like.ts'
import { type CaseOf, regexMatcher } from './regex.ts'
import { ValueError } from './value-error.ts'

/** For arguments that are all text but the last few, which are integers. */
const over =
  (texts: number, ints: number, compute: Compute): Maker<Compute> =>
  types => {
    const fits = types.length === texts + ints && types.every((type, i) => (i < texts ? isText(type) : isInt(type)))
    return fits ? compute : null
  }

const either =
  (...makers: readonly Maker<Compute>[]): Maker<Compute> =>
  (types, type) => {
    for (const maker of makers) {
      const made = maker(types, type)
      if (made !== null) return made
    }
    return null
  }

export const textCalls: Calls<Compute> = {
  '||': over(2, 0, (a, b) => a + b),
  lower: types => (types.length === 1 && isText(types[0]) ? foldOf(types[0]!) : null),
  // Only what lower() changes is known of other collations.
  upper: ([type]) =>
    isText(type) && type?.collation === 'c' && type.lower === undefined
      ? text => text.replace(/[a-z]+/g, letters => letters.toUpperCase())
      : null,
  length: over(1, 0, text => String(countChars(text))),
  octet_length: over(1, 0, text => String(Buffer.byteLength(text))),
  split_part: over(2, 1, splitPart),
  substr: either(
    over(1, 1, (text, from) => substring(text, Number(from), null)),
    over(1, 2, (text, from, count) => substring(text, Number(from), Number(count))),
  ),
  left: over(1, 1, (text, count) => sliceChars(text, 0, Number(count))),
  right: over(1, 1, (text, count) => right(text, Number(count))),
  strpos: over(2, 0, (text, sought) => {
    const at = text.indexOf(sought)
    return String(at < 0 ? 0 : countChars(text.slice(0, at)) + 1)
  }),
  '~': types => (types.length === 2 && types.every(isText) ? matching('exact') : null),
  '~*': types => (types.length === 2 && types.every(isText) && foldsAsciiAsC(types[0]!) ? matching('either') : null),
  starts_with: over(2, 0, (text, start) => printBool(text.startsWith(start))),
  replace: over(3, 0, (text, from, to) => (from === '' ? text : text.replaceAll(from, () => to))),
  btrim: trims(true, true),
  ltrim: trims(true, false),
  rtrim: trims(false, true),
}

/** Printed by type output, where `||` casts: a boolean is `t`. Not padded text, whose constants are not padded here. */
const printed: ReadonlySet<string> = new Set(
  'bool int numeric text uuid enum json jsonb date timestamp timestamptz time'.split(' '),
)

export const textCallsWithNulls: Calls<ComputeWithNulls> = {
  concat: types =>
    types.every(({ family }) => printed.has(family)) ? (...values) => values.map(value => value ?? '').join('') : null,
  concat_ws: types =>
    isText(types[0]) && types.every(({ family }) => printed.has(family))
      ? (separator, ...values) => (separator == null ? null : values.filter(value => value !== null).join(separator))
      : null,
  string_to_array: types =>
    types.length >= 2 && types.length <= 3 && types.every(isText)
      ? (text, separator, nullText) => stringToArray(text!, separator!, nullText ?? null)
      : null,
}

/** The pattern is a constant. */
function matching(caseOf: CaseOf): Compute {
  let last: string | null = null
  let matches: ReturnType<typeof regexMatcher> = null
  return (text, pattern) => {
    if (pattern !== last) {
      matches = regexMatcher(pattern, caseOf)
      last = pattern
    }
    if (matches === null) throw new ValueError('a pattern that only Postgres knows')
    return printBool(matches(text))
  }
}

const surrogate = /[\ud800-\udbff]/

const countChars = (text: string): number => (surrogate.test(text) ? Array.from(text).length : text.length)

/** As `slice` of an array of characters: negative places count from the end. */
function sliceChars(text: string, from: number, to: number): string {
  return surrogate.test(text) ? Array.from(text).slice(from, to).join('') : text.slice(from, to)
}

const maxInt = 2147483647

function right(text: string, count: number): string {
  if (count === 0) return ''
  // Postgres negates it to itself.
  if (count === -maxInt - 1) return text
  return sliceChars(text, -count, Number.MAX_SAFE_INTEGER)
}

/** From a place that counts from 1 and may lie before the text; the count then covers what is not there too. */
function substring(text: string, from: number, count: number | null): string {
  const start = Math.max(from, 1) - 1
  if (count === null || from + count > maxInt) return sliceChars(text, start, Number.MAX_SAFE_INTEGER)
  if (count < 0) throw new ValueError('a substring has a negative length')
  return sliceChars(text, start, Math.max(from + count - 1, 0))
}

function splitPart(text: string, separator: string, place: string): string {
  const field = Number(place)
  if (field === 0) throw new ValueError('split_part() is asked for field 0')
  if (text === '') return ''
  const fields = separator === '' ? [text] : text.split(separator)
  return fields.at(field > 0 ? field - 1 : field) ?? ''
}

function trims(atStart: boolean, atEnd: boolean): Maker<Compute> {
  const trim = (text: string, unwanted = ' '): string => {
    const set = new Set(unwanted)
    const chars = Array.from(text)
    let start = 0
    let end = chars.length
    if (atStart) while (start < end && set.has(chars[start]!)) start++
    if (atEnd) while (end > start && set.has(chars[end - 1]!)) end--
    return start === 0 && end === chars.length ? text : chars.slice(start, end).join('')
  }
  return either(
    over(1, 0, text => trim(text)),
    over(2, 0, (text, unwanted) => trim(text, unwanted)),
  )
}

/** A NULL separator splits into characters, an empty one not at all. */
function stringToArray(text: string | null, separator: string | null, nullText: string | null): string | null {
  if (text === null) return null
  if (text === '') return '{}'
  const items = separator === null ? Array.from(text) : separator === '' ? [text] : text.split(separator)
  return printArray(items.map(item => (item === nullText ? null : item)))
}
