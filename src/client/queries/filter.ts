// Conditions on rows, and how they are written in PostgREST's grammar: `room_id=eq.42` beside others, `room_id.eq."42"` in a group.
import type { Json } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'

const operators = {
  '=': 'eq',
  '!=': 'neq',
  '<': 'lt',
  '<=': 'lte',
  '>': 'gt',
  '>=': 'gte',
  in: 'in',
  like: 'like',
  ilike: 'ilike',
  is: 'is',
  'is distinct from': 'isdistinct',
  'not in': 'not.in',
  'not like': 'not.like',
  'not ilike': 'not.ilike',
  'is not': 'not.is',
  'is not distinct from': 'not.isdistinct',
} as const

/** SQL's spelling of the operators a filter may use. */
export type Operator = keyof typeof operators

export type FilterValue = Json | bigint | Date | Uint8Array | readonly FilterValue[]

/** One condition, or several joined. Made by `condition`, `and`, `or` and `not`. */
export type Filter =
  | { readonly kind: 'condition'; readonly negated: boolean; readonly column: string; readonly words: Words }
  | { readonly kind: 'and' | 'or'; readonly negated: boolean; readonly items: readonly Filter[] }

interface Words {
  readonly operator: string
  /** A list has its brackets, and its items their quotes. */
  readonly operand: string
}

/** @throws FILTER_INVALID when the value does not fit the operator */
export function condition(column: string, operator: Operator, value: FilterValue): Filter {
  const word = Object.hasOwn(operators, operator) ? operators[operator] : undefined
  if (word === undefined) {
    throw new TidegateError('FILTER_INVALID', `"${operator}" is no operator; use ${Object.keys(operators).join(', ')}`)
  }
  const negated = word.startsWith('not.')
  const words = { operator: negated ? word.slice(4) : word, operand: operand(column, operator, value) }
  return { kind: 'condition', negated, column, words }
}

/** @throws FILTER_INVALID when there are none: nobody could tell whether that is every row or no row */
export function group(kind: 'and' | 'or', items: readonly Filter[]): Filter {
  if (items.length === 0) throw new TidegateError('FILTER_INVALID', `${kind}([]) names no condition`)
  return { kind, negated: false, items }
}

export const not = (filter: Filter): Filter => ({ ...filter, negated: !filter.negated })

/** Words of a URL that are no columns: a column so named is written `c.order`. */
const reserved = /^(select|order|limit|and|or|not\.and|not\.or|after|wait|ticket|q|events|c\..*)$/

/** @returns a pair of a URL's query, percent-encoded
 *  @example pairOf(condition('room_id', '=', 42)) // 'room_id=eq.42' */
export function pairOf(filter: Filter): string {
  const [name, words] =
    filter.kind === 'condition'
      ? [
          reserved.test(filter.column) ? `c.${filter.column}` : filter.column,
          negatable(filter, plainWords(filter.words)),
        ]
      : [negatable(filter, filter.kind), itemsOf(filter.items)]
  return `${encodeURIComponent(name)}=${encodeURIComponent(words)}`
}

function itemOf(filter: Filter): string {
  if (filter.kind !== 'condition') return negatable(filter, filter.kind) + itemsOf(filter.items)
  const { column, words } = filter
  return `${nameOf(column)}.${negatable(filter, quotedWords(words))}`
}

const itemsOf = (items: readonly Filter[]): string => `(${items.map(itemOf).join(',')})`

const negatable = ({ negated }: Filter, text: string): string => (negated ? `not.${text}` : text)

const plainWords = ({ operator, operand }: Words): string => `${operator}.${operand}`

/** Inside a group a comma or bracket would end the value. */
const quotedWords = ({ operator, operand }: Words): string =>
  `${operator}.${operator === 'in' ? operand : quoted(operand)}`

/** A column's name inside a group, in quotes where it could be taken for more than that. */
const nameOf = (column: string): string => (/^\w+$/.test(column) ? column : quoted(column))

const quoted = (text: string): string => `"${text.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`

const wordsOfIs = new Map<unknown, string>([
  [null, 'null'],
  [true, 'true'],
  [false, 'false'],
  ['unknown', 'unknown'],
  ['not null', 'not_null'],
])

function operand(column: string, operator: Operator, value: FilterValue): string {
  if (operator === 'in' || operator === 'not in') {
    if (!Array.isArray(value)) throw invalid(column, operator, 'takes an array')
    // Quoted always: a comma, bracket or quote inside an item would end it.
    return `(${value.map(item => quoted(textOf(column, operator, item))).join(',')})`
  }
  if (operator === 'is' || operator === 'is not') {
    const word = wordsOfIs.get(value)
    if (word === undefined) throw invalid(column, operator, "takes null, 'not null', true, false or 'unknown'")
    return word
  }
  return textOf(column, operator, value)
}

/** As Postgres reads it. */
function textOf(column: string, operator: Operator, value: FilterValue): string {
  // SQL's `= NULL` is never true: whoever writes it means IS NULL, and would wait for rows that cannot come.
  if (value === null) throw invalid(column, operator, 'compares with null, which is never true; use "is"')
  if (Array.isArray(value)) {
    const items = value.map(item => (item === null ? 'NULL' : itemText(column, operator, item)))
    return `{${items.join(',')}}`
  }
  if (value instanceof Date) {
    if (Number.isNaN(value.getTime())) throw invalid(column, operator, 'takes a date, and this one is invalid')
    return timeText(value)
  }
  if (value instanceof Uint8Array) return `\\x${[...value].map(byte => byte.toString(16).padStart(2, '0')).join('')}`
  if (!['string', 'number', 'bigint', 'boolean'].includes(typeof value))
    throw invalid(column, operator, 'takes one value')
  return String(value)
}

function itemText(column: string, operator: Operator, item: FilterValue): string {
  const text = textOf(column, operator, item)
  return Array.isArray(item) ? text : quoted(text)
}

/** JavaScript writes `+012026-` and `-000043-` where Postgres reads `12026-` and `0044- ... BC`. */
function timeText(date: Date): string {
  const text = date.toISOString()
  const year = date.getUTCFullYear()
  if (year > 9999) return text.replace(/^\+0*/, '')
  return year > 0 ? text : `${String(1 - year).padStart(4, '0')}${text.replace(/^-?\d+/, '')} BC`
}

const invalid = (column: string, operator: string, problem: string): TidegateError =>
  new TidegateError('FILTER_INVALID', `where('${column}', '${operator}', ...) ${problem}`)
