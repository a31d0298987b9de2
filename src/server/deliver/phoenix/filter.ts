// Reads the `filter` of a binding, and writes it in the grammar of our own frames. Pure.
//   filter    := condition { ',' condition }                all of them
//   condition := column '=' [ 'not.' ] operator '.' value
// A comma within parentheses or quotes belongs to the value. Quotes begin behind '.', '(' or ','; what is within stands for
// itself, but for \" and \\. A list is the inside of an array's literal: spaces around an item are not the item's, and NULL
// is null.
// Source: PostgREST, Operators; RealtimePostgresFilterBuilder of @supabase/realtime-js.
import { TidegateError } from '../../../protocol/tidegate-error.ts'

export interface FilterCondition {
  readonly column: string
  readonly isNegated: boolean
  readonly operator: string
  /** A list for `in`; its nulls are left out of `items`, and equal nothing. */
  readonly value: string | { readonly items: readonly string[]; readonly hasNull: boolean }
}

/** As many as they take. */
const maxListed = 100

const operators: ReadonlySet<string> = new Set([
  'eq',
  'neq',
  'lt',
  'lte',
  'gt',
  'gte',
  'in',
  'like',
  'ilike',
  'is',
  'match',
  'imatch',
  'isdistinct',
])

/** @returns none where it is empty. @throws FILTER_INVALID, FILTER_TOO_COMPLEX */
export function parseFilter(filter: string): FilterCondition[] {
  if (filter.trim() === '') return []
  return splitAtCommas(filter).map(part => conditionOf(part.trim(), filter))
}

function conditionOf(text: string, filter: string): FilterCondition {
  if (text === '') throw invalid(filter, 'has an empty condition; take the comma too many out')
  const equals = text.indexOf('=')
  const column = equals === -1 ? '' : text.slice(0, equals)
  if (column === '') throw invalid(filter, `has a condition ${shown(text)} that is not column=operator.value`)
  let rest = text.slice(equals + 1)
  const isNegated = rest.startsWith('not.')
  if (isNegated) rest = rest.slice(4)
  const point = rest.indexOf('.')
  const operator = rest.slice(0, Math.max(point, 0))
  if (!operators.has(operator)) {
    throw invalid(filter, `has no operator in ${shown(text)}; they are ${[...operators].join(', ')}`)
  }
  const value = rest.slice(point + 1)
  return { column, isNegated, operator, value: operator === 'in' ? listOf(value, filter) : unquoted(value) }
}

/** Its conditions, at the commas outside parentheses and quotes. */
function splitAtCommas(filter: string): string[] {
  const parts: string[] = []
  let from = 0
  let depth = 0
  let isQuoted = false
  for (let at = 0; at < filter.length; at++) {
    const char = filter[at]
    if (isQuoted) {
      if (char === '\\') at++
      else if (char === '"') isQuoted = false
    } else if (char === '"') isQuoted = at > from && '.(,'.includes(filter[at - 1]!)
    else if (char === '(') depth++
    else if (char === ')') depth = Math.max(0, depth - 1)
    else if (char === ',' && depth === 0) {
      parts.push(filter.slice(from, at))
      from = at + 1
    }
  }
  return [...parts, filter.slice(from)]
}

/** Without the quotes that enclose the whole of it; else as it stands. */
function unquoted(value: string): string {
  const quoted = /^"((?:[^"\\]|\\.)*)"$/s.exec(value)
  return quoted === null ? value : quoted[1]!.replace(/\\(.)/gs, '$1')
}

// Each branch begins with another character, so there is one way to read a list.
const listItem = /^(?:"((?:[^"\\]|\\.)*)"|((?:[^"\\,{}]|\\.)*))$/s

function listOf(value: string, filter: string): FilterCondition['value'] {
  if (!value.startsWith('(') || !value.endsWith(')') || value.length < 2)
    throw invalid(filter, `has a list that is not in parentheses; write in.(a,b)`)
  const inside = value.slice(1, -1)
  if (inside.trim() === '') return { items: [], hasNull: false }
  const items: string[] = []
  let hasNull = false
  for (const part of itemsOf(inside)) {
    const [, quoted, plain] = listItem.exec(trimmed(part)) ?? []
    const item = quoted ?? plain
    if (item === undefined || (quoted === undefined && item === ''))
      throw invalid(filter, `has the item ${shown(part)} in a list; put it in double quotes`)
    if (quoted === undefined && /^null$/i.test(item)) hasNull = true
    else items.push(item.replace(/\\(.)/gs, '$1'))
  }
  if (items.length > maxListed)
    throw new TidegateError('FILTER_TOO_COMPLEX', `a list of the filter has more than ${maxListed} values`)
  return { items, hasNull }
}

/** Without the spaces around it, unless the last is escaped. */
function trimmed(part: string): string {
  const item = part.trim()
  return endsInEscape(item) && item.length < part.trimStart().length ? part.trimStart().slice(0, item.length + 1) : item
}

/** The items of a list, at the commas outside quotes. */
function itemsOf(inside: string): string[] {
  const items: string[] = []
  let from = 0
  let isQuoted = false
  for (let at = 0; at < inside.length; at++) {
    const char = inside[at]
    if (char === '\\') at++
    else if (char === '"') isQuoted = !isQuoted
    else if (char === ',' && !isQuoted) {
      items.push(inside.slice(from, at))
      from = at + 1
    }
  }
  return [...items, inside.slice(from)]
}

/** The filter of our own frame.
 *  @example filterQueryOf('room=eq.42,state=in.(a,"b,c")') // 'c.room=eq.42&c.state=in.%28a%2C%22b%2Cc%22%29'
 *  @throws FILTER_INVALID, FILTER_TOO_COMPLEX */
export function filterQueryOf(filter: string): string {
  const query = new URLSearchParams()
  for (const { column, isNegated, operator, value } of parseFilter(filter)) {
    const text = typeof value === 'string' ? textOf(operator, value) : `in.(${value.items.map(itemText).join(',')})`
    query.append(`c.${column}`, `${isNegated ? 'not.' : ''}${text}`)
    // NOT IN a list with NULL is true of nothing.
    if (isNegated && typeof value !== 'string' && value.hasNull) query.append('and', `(${quote(column)}.in.())`)
  }
  return query.toString()
}

/** In PostgREST's grammar a `*` of a pattern is any text; here it is a star, and the pattern a regular expression. A pattern that ends
 *  in its escape is refused as one without a star is. */
function textOf(operator: string, value: string): string {
  if ((operator !== 'like' && operator !== 'ilike') || !value.includes('*') || endsInEscape(value))
    return `${operator}.${value}`
  return `${operator === 'like' ? 'match' : 'imatch'}.${regexOfLike(value)}`
}

function endsInEscape(pattern: string): boolean {
  let escapes = 0
  while (pattern[pattern.length - 1 - escapes] === '\\') escapes += 1
  return escapes % 2 === 1
}

/** A regular expression that takes what the LIKE pattern takes. */
function regexOfLike(pattern: string): string {
  const parts = pattern.match(/\\.|./gsu) ?? []
  const steps = parts.map(part => {
    if (part === '%') return '.*'
    if (part === '_') return '.'
    const char = part.length > 1 && part.startsWith('\\') ? part.slice(1) : part
    return /^[\\^$.|?*+()[\]{}]$/.test(char) ? `\\${char}` : char
  })
  return `^${steps.join('')}$`
}

/** Quotes count against MAX_FILTER_LENGTH. */
const itemText = (item: string): string => (item === '' || /^"|[,)]/.test(item) ? quote(item) : item)

const quote = (item: string): string => `"${item.replace(/[\\"]/g, '\\$&')}"`

const invalid = (filter: string, what: string): TidegateError =>
  new TidegateError('FILTER_INVALID', `the filter ${shown(filter)} ${what}`)

const shown = (text: string): string => JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}...` : text)
