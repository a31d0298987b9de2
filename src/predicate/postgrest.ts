// Client filters in PostgREST's grammar, checked against the table's columns at the door: what comes out compares values
// that fit, in ways that can be judged exactly.
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { CompareOp, Expr, Predicate, SqlType } from './algebra.ts'
import { and, not, or } from './build.ts'
import { assertComparable } from './compare.ts'
import { likeMatcherOf } from './evaluate.ts'
import { foldsAsciiAsC } from './like.ts'
import { FilterBudget, type FilterLimits, type FilterNode, parseCondition, parseGroup } from './postgrest-syntax.ts'
import { readValue } from './read-value.ts'
import { isShortRegex, maxShort } from './regex.ts'
import { baseOf, sqlTypes } from './sql-types.ts'
import { ValueError } from './value-error.ts'

export type { FilterLimits } from './postgrest-syntax.ts'

export interface FilterColumn {
  readonly name: string
  readonly type: SqlType
}

/** Names that mean something else in a URL: a column so named is written `c.<name>`. */
export const reservedNames: ReadonlySet<string> = new Set([
  'select',
  'order',
  'limit',
  'and',
  'or',
  'not.and',
  'not.or',
  'after',
  'wait',
  'ticket',
])

/** Longer LIKE patterns are refused: matching costs pattern length times value length. */
const maxPatternLength = 256

/** Operators of PostgREST that are known and not taken. */
const untakenOperators =
  /^(cs|cd|ov|sl|sr|nxr|nxl|adj|fts|plfts|phfts|wfts|(eq|gte?|lte?|like|ilike|match|imatch)\((any|all)\)|\w*fts\(.*\))$/

/** @param pairs as in a URL's query, decoded: `['room_id', 'eq.42']`, `['or', '(a.eq.1,b.is.null)']`; AND-ed
 *  @param columns in WAL order; only those the reader may SELECT, the others with an empty name
 *  @returns a predicate that needs no binding
 *  @throws FILTER_INVALID, FILTER_TOO_COMPLEX, FILTER_UNSUPPORTED, COLUMN_UNKNOWN */
export function parseFilter(
  pairs: readonly (readonly [name: string, value: string])[],
  columns: readonly FilterColumn[],
  limits: FilterLimits,
): Predicate {
  const budget = new FilterBudget(limits)
  for (const [name, value] of pairs) budget.takeLength(name.length + value.length)
  const positions = new Map(columns.map(({ name }, position) => [name, position]))
  const parts = pairs.map(([name, value]) => predicateOf(parsePair(name, value, budget), columns, positions))
  return and(...parts)
}

function parsePair(name: string, value: string, budget: FilterBudget): FilterNode {
  const group = /^(not\.)?(and|or)$/.exec(name)
  if (group !== null) return parseGroup(group[2] as 'and' | 'or', group[1] !== undefined, value, budget)
  if (reservedNames.has(name))
    throw new TidegateError('FILTER_INVALID', `"${name}" is no filter; a column so named is written c.${name}=`)
  return parseCondition(name.startsWith('c.') ? name.slice(2) : name, value, budget)
}

function predicateOf(
  node: FilterNode,
  columns: readonly FilterColumn[],
  positions: ReadonlyMap<string, number>,
): Predicate {
  if (node.kind === 'group') {
    const items = node.items.map(item => predicateOf(item, columns, positions))
    const predicate = node.op === 'and' ? and(...items) : or(...items)
    return node.negated ? not(predicate) : predicate
  }
  const position = node.column === '' ? undefined : positions.get(node.column)
  if (position === undefined)
    throw new TidegateError(
      'COLUMN_UNKNOWN',
      `the filter names ${JSON.stringify(shown(node.column))}, which is no readable column`,
    )
  const { name, type } = columns[position]!
  const predicate = conditionOf({ kind: 'column', column: position, name, type }, node.operator, node.value)
  return node.negated ? not(predicate) : predicate
}

type ColumnExpr = Extract<Expr, { kind: 'column' }>

const compareOps: Readonly<Record<string, CompareOp>> = { eq: '=', neq: '<>', lt: '<', lte: '<=', gt: '>', gte: '>=' }

function conditionOf(column: ColumnExpr, operator: string, value: string | readonly string[]): Predicate {
  if (typeof value !== 'string') {
    const items = value.map(item => constant(column, item))
    for (const item of items) assertComparable('in', column, item)
    return { kind: 'in', left: column, items }
  }
  const op = Object.hasOwn(compareOps, operator) ? compareOps[operator] : undefined
  if (op !== undefined || operator === 'isdistinct') {
    assertComparable(op ?? 'distinct', column, column)
    const right = constant(column, value)
    return op === undefined ? { kind: 'isDistinct', left: column, right } : { kind: 'compare', op, left: column, right }
  }
  if (operator === 'is') return isPredicate(column, value.toLowerCase())
  if (operator === 'like' || operator === 'ilike') return likePredicate(column, operator === 'ilike', value)
  if (operator === 'match' || operator === 'imatch') return matchPredicate(column, operator, value)
  if (untakenOperators.test(operator))
    throw new TidegateError('FILTER_UNSUPPORTED', `the operator ${operator} cannot be judged in the stream; ${taken}`)
  throw new TidegateError('FILTER_INVALID', `there is no operator ${shown(operator)}; ${taken}`)
}

const taken = 'use eq, neq, lt, lte, gt, gte, in, like, ilike, match, imatch, is or isdistinct'

function isPredicate(column: ColumnExpr, word: string): Predicate {
  const isNull: Predicate = { kind: 'isNull', arg: column }
  if (word === 'null') return isNull
  if (word === 'not_null') return not(isNull)
  if (word !== 'true' && word !== 'false' && word !== 'unknown')
    throw new TidegateError('FILTER_INVALID', `is.${shown(word)}: use null, not_null, true, false or unknown`)
  if (baseOf(column.type).family !== 'bool')
    throw new TidegateError('FILTER_INVALID', `is.${word} needs a boolean; "${column.name}" is ${column.type.name}`)
  if (word === 'unknown') return isNull
  const right: Expr = { kind: 'const', value: word === 'true' ? 't' : 'f', type: baseOf(column.type) }
  return not({ kind: 'isDistinct', left: column, right })
}

function likePredicate(column: ColumnExpr, insensitive: boolean, value: string): Predicate {
  const family = baseOf(column.type).family
  if (family !== 'text' && family !== 'bpchar')
    throw new TidegateError('FILTER_INVALID', `like needs text; "${column.name}" is ${column.type.name}`)
  if (value.length > maxPatternLength)
    throw new TidegateError('FILTER_TOO_COMPLEX', `a like pattern is longer than ${maxPatternLength} characters`)
  const text = readConstant(column, sqlTypes.text, value.replaceAll('*', '%'))
  const predicate = {
    kind: 'like',
    arg: column,
    pattern: { kind: 'const', value: text, type: sqlTypes.text },
    insensitive,
  } as const
  try {
    likeMatcherOf(predicate)(text)
  } catch (error) {
    if (!(error instanceof ValueError)) throw error
    throw new TidegateError('FILTER_INVALID', `the like pattern ${JSON.stringify(shown(value))}: ${error.message}`)
  }
  return predicate
}

/** A regular expression, as far as it is matched here exactly, and in a time that no text stretches. */
function matchPredicate(column: ColumnExpr, operator: 'match' | 'imatch', value: string): Predicate {
  const refused = (why: string): TidegateError =>
    new TidegateError('FILTER_UNSUPPORTED', `${operator} with the pattern ${JSON.stringify(shown(value))}: ${why}`)
  const type = baseOf(column.type)
  // Of padded text Postgres matches the padding too.
  if (type.family !== 'text')
    throw new TidegateError('FILTER_INVALID', `${operator} needs text; "${column.name}" is ${column.type.name}`)
  assertComparable('=', column, column)
  if (operator === 'imatch' && !foldsAsciiAsC(type))
    throw refused(`the cases of ${column.type.name} under this collation are known to Postgres alone; use match`)
  if (value.length > maxPatternLength)
    throw new TidegateError('FILTER_TOO_COMPLEX', `a ${operator} pattern is longer than ${maxPatternLength} characters`)
  const text = readConstant(column, sqlTypes.text, value)
  const isShort = isShortRegex(text, operator === 'imatch' ? 'either' : 'exact')
  if (isShort === null)
    throw refused(
      operator === 'imatch'
        ? 'ASCII characters, ., brackets, groups, |, ^, $ and repetition are taken'
        : 'characters, ., brackets, groups, |, ^, $ and repetition are taken',
    )
  if (!isShort)
    throw new TidegateError(
      'FILTER_TOO_COMPLEX',
      `a ${operator} pattern has more than ${maxShort} characters, repetitions counted out`,
    )
  const pattern = { kind: 'const', value: text, type: sqlTypes.text } as const
  const name = operator === 'imatch' ? '~*' : '~'
  return { kind: 'boolean', arg: { kind: 'call', name, args: [column, pattern], type: sqlTypes.bool } }
}

/** The value as Postgres would read it for this column: a bare literal takes the column's type, beneath its domain. */
function constant(column: ColumnExpr, text: string): Expr {
  assertComparable('=', column, column)
  const type = baseOf(column.type)
  return { kind: 'const', value: readConstant(column, type, text), type }
}

function readConstant(column: ColumnExpr, type: SqlType, text: string): string {
  try {
    return readValue(type, text)
  } catch (error) {
    if (!(error instanceof ValueError)) throw error
    throw new TidegateError(
      'FILTER_INVALID',
      `${JSON.stringify(shown(text))} does not fit "${column.name}" of type ${column.type.name}: ${error.message}`,
    )
  }
}

/** What a peer sent, short enough for a message. */
const shown = (text: string): string => (text.length > 64 ? `${text.slice(0, 64)}...` : text)
