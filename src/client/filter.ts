// Writes one condition as a pair of a URL's query in PostgREST's grammar: `room_id=eq.42`.
import type { Json } from '../protocol/messages.ts'
import { TidegateError } from '../protocol/tidegate-error.ts'

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

export type FilterValue = Json | bigint | Date

/** Words of the URL that are no columns: a column so named is written `c.order`. */
const reserved = new Set(['select', 'order', 'limit', 'and', 'or', 'not', 'after', 'wait', 'ticket', 'q'])

/** @throws FILTER_INVALID when the value does not fit the operator
 *  @example condition('room_id', 'in', [1, 2]) // "room_id=in.(1,2)", percent-encoded */
export function condition(column: string, operator: Operator, value: FilterValue): string {
  const word = Object.hasOwn(operators, operator) ? operators[operator] : undefined
  if (word === undefined) {
    throw new TidegateError('FILTER_INVALID', `"${operator}" is no operator; use ${Object.keys(operators).join(', ')}`)
  }
  const name = reserved.has(column) || column.startsWith('c.') ? `c.${column}` : column
  return `${encodeURIComponent(name)}=${encodeURIComponent(`${word}.${operand(column, operator, value)}`)}`
}

function operand(column: string, operator: Operator, value: FilterValue): string {
  if (operator === 'in' || operator === 'not in') {
    if (!Array.isArray(value)) throw invalid(column, operator, 'takes an array')
    return `(${value.map(item => quoted(text(column, operator, item))).join(',')})`
  }
  if (operator === 'is' || operator === 'is not') {
    if (value !== null && typeof value !== 'boolean') throw invalid(column, operator, 'takes null, true or false')
    return String(value)
  }
  return text(column, operator, value)
}

function text(column: string, operator: Operator, value: FilterValue): string {
  // SQL's `= NULL` is never true: whoever writes it means IS NULL, and would wait for rows that cannot come.
  if (value === null) throw invalid(column, operator, `compares with null, which is never true; use "is"`)
  if (value instanceof Date) return value.toISOString()
  if (typeof value === 'object') throw invalid(column, operator, 'takes one value')
  return String(value)
}

/** List items are quoted always: a comma, bracket or quote inside one would end it. */
const quoted = (item: string): string => `"${item.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`

const invalid = (column: string, operator: string, problem: string): TidegateError =>
  new TidegateError('FILTER_INVALID', `where('${column}', '${operator}', ...) ${problem}`)
