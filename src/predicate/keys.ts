// Where to look a row up: the keys that every row satisfying a predicate must have, so that a change finds the predicates
// it could satisfy without asking each. The guarantee: if the predicate is true of a row, one of its anchors matches the
// row. The other way round it may be wrong; the predicate is judged afterwards.
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { Anchor, Expr, Memberships, OfReader, Predicate, Row, SemiJoin } from './algebra.ts'
import { comparisonOf, keyFunctionOf } from './compare.ts'
import { outerKeyingOf } from './evaluate.ts'
import { joinText, keyComparisonsOf } from './join-key.ts'
import { readValue } from './read-value.ts'

type ConstAnchor = Extract<Anchor, { kind: 'const' }>

/** @param predicate bound
 *  @returns anchors, empty when no row satisfies the predicate; null when there are none and every row must be looked at.
 *    A const anchor's keys are `keyOf(column type, value)`; a semi-join's are those of `semiJoinKey` and `innerKey`, and
 *    equal `keyOf(column type, value)` too, of each column where there are several. NULL is never a key. */
export const cover = (predicate: Predicate): Anchor[] | null => coverBy(predicate, weightInIndex)

/** The ways in which a row may be looked up, each as `cover` gives it, the likeliest best first; which is best shows when it is
 *  known how many others are found by the same keys. */
export function covers(predicate: Predicate): Anchor[][] {
  const parts = predicate.kind === 'and' ? predicate.args : [predicate]
  const found = parts.map(cover).filter(anchors => anchors !== null)
  return found.sort((a, b) => sum(a, weightInIndex) - sum(b, weightInIndex))
}

/** What to read of a table of which only rows are wanted that satisfy a predicate, as `cover`: the reader's own before what a
 *  membership names, with what many ask for (a channel's topic) in between, and that before what a literal of the policy does
 *  (`status = 'open'`), which may be half the table. */
export const coverToRead = (predicate: Predicate): Anchor[] | null => coverBy(predicate, weightToRead)

type Weigh = (anchor: Anchor) => number

const weightInIndex: Weigh = anchor => (anchor.kind === 'const' ? anchor.keys.length : 100)

const weightToRead: Weigh = anchor =>
  anchor.kind === 'semiJoin'
    ? 100
    : anchor.keys.length * (anchor.ofReader === true ? 1 : anchor.ofReader === 'shared' ? 10 : 1000)

const sum = (anchors: readonly Anchor[], weigh: Weigh): number =>
  anchors.reduce((total, anchor) => total + weigh(anchor), 0)

function coverBy(predicate: Predicate, weigh: Weigh): Anchor[] | null {
  switch (predicate.kind) {
    case 'false':
    case 'unknown':
      return []
    case 'and':
      return best(
        predicate.args.map(arg => coverBy(arg, weigh)),
        weigh,
      )
    case 'or': {
      const anchors: Anchor[] = []
      for (const part of predicate.args.map(arg => coverBy(arg, weigh))) {
        if (part === null) return null
        anchors.push(...part)
      }
      return merged(anchors)
    }
    case 'compare':
      if (predicate.op !== '=') return null
      return constAnchor(predicate.left, [predicate.right]) ?? constAnchor(predicate.right, [predicate.left])
    case 'in':
      return constAnchor(predicate.left, predicate.items)
    case 'boolean':
      if (predicate.arg.kind !== 'column') return null
      return [{ kind: 'const', column: predicate.arg.column, keys: ['t'], ofReader: false }]
    case 'semiJoin':
      return semiJoinAnchor(predicate)
    default:
      return null
  }
}

/** A predicate's keys, the fewest first; a membership is taken for a hundred of them. */
function best(choices: readonly (Anchor[] | null)[], weigh: Weigh): Anchor[] | null {
  const found = choices.filter(choice => choice !== null)
  return found.reduce<Anchor[] | null>((a, b) => (a === null || sum(b, weigh) < sum(a, weigh) ? b : a), null)
}

/** One anchor per column, its keys each once; semi-joins each once. */
function merged(anchors: readonly Anchor[]): Anchor[] {
  const columns = new Map<number, Set<string>>()
  const ofReader = new Map<number, OfReader>()
  for (const anchor of anchors) {
    if (anchor.kind !== 'const') continue
    if (anchor.ofReader !== false) ofReader.set(anchor.column, either(ofReader.get(anchor.column), anchor.ofReader))
    const keys = columns.get(anchor.column) ?? new Set()
    for (const key of anchor.keys) keys.add(key)
    columns.set(anchor.column, keys)
  }
  const consts = [...columns].map(
    ([column, keys]): ConstAnchor => ({
      kind: 'const',
      column,
      keys: [...keys],
      ofReader: ofReader.get(column) ?? false,
    }),
  )
  const joins = anchors.filter((anchor, i) => anchor.kind === 'semiJoin' && anchors.indexOf(anchor) === i)
  return [...consts, ...joins]
}

const either = (a: OfReader | undefined, b: OfReader): OfReader => (a === true ? true : b)

function constAnchor(column: Expr, items: readonly Expr[]): Anchor[] | null {
  if (column.kind !== 'column') return null
  const own = keyFunctionOf(column.type)
  const keys = new Set<string>()
  for (const item of items) {
    if (item.kind !== 'const') return null
    const comparison = comparisonOf('=', column, item)
    // An int column compared as double precision: several of its own keys are equal to the constant.
    if (comparison.left !== own) return null
    if (item.value !== null) keys.add(comparison.right(readValue(item.type, item.value)))
  }
  let ofReader: OfReader | false = false
  for (const item of items)
    if (item.kind === 'const' && item.ofReader !== undefined) ofReader = either(ofReader || undefined, item.ofReader)
  return keys.size === 0 ? [] : [{ kind: 'const', column: column.column, keys: [...keys], ofReader }]
}

function semiJoinAnchor(join: SemiJoin): Anchor[] | null {
  const columns = keyedColumns(join)
  return columns === null ? null : [{ kind: 'semiJoin', join, columns }]
}

const knownKeyed = new WeakMap<SemiJoin, readonly number[] | null>()

/** The outer columns of a semi-join whose keys are those of the columns themselves, so that rows may be found by them; null
 *  where they are not: a date that is compared with timestamps has a timestamp's key. */
export function keyedColumns(join: SemiJoin): readonly number[] | null {
  let columns = knownKeyed.get(join)
  if (columns === undefined) {
    const comparisons = keyComparisonsOf(join)
    const found = join.keys.flatMap(({ outer }, i) =>
      outer.kind === 'column' && comparisons[i]!.right === keyFunctionOf(outer.type) ? [outer.column] : [],
    )
    columns = found.length === 0 || found.length < join.keys.length ? null : found
    knownKeyed.set(join, columns)
  }
  return columns
}

export interface JoinKey {
  /** Canonical text, the same for the outer and the inner row when SQL `=` holds for every pair. Empty when NULL. */
  readonly key: string
  /** A part is NULL: it equals nothing. */
  readonly isNull: boolean
}

const outerKeyings = new WeakMap<SemiJoin, ReturnType<typeof outerKeyingOf>>()

/** The key of a bound semi-join on the outer row. @throws IDENTITY_INSUFFICIENT when the row version lacks a key column;
 *  FILTER_UNSUPPORTED when the two sides do not compare exactly */
export function semiJoinKey(join: SemiJoin, row: Row): JoinKey {
  let keying = outerKeyings.get(join)
  if (keying === undefined) {
    keying = outerKeyingOf(join)
    outerKeyings.set(join, keying)
  }
  const key = keying(row, noMemberships)
  if (key === undefined) throw lacking(join, 'the row version')
  return key === null ? nullKey : { key, isNull: false }
}

/** The key of a semi-join on a row of its inner table. @throws as `semiJoinKey` */
export function innerKey(join: SemiJoin, innerRow: Row): JoinKey {
  const parts: string[] = []
  const comparisons = keyComparisonsOf(join)
  for (let i = 0; i < comparisons.length; i++) {
    const text = innerRow.text(join.keys[i]!.inner.column)
    if (text === undefined) throw lacking(join, 'the membership row')
    if (text === null) return nullKey
    parts.push(comparisons[i]!.left(text))
  }
  return { key: joinText(parts), isNull: false }
}

const nullKey: JoinKey = { key: '', isNull: true }

const noMemberships: Memberships = {
  count: (): number => neverAsked(),
  total: (): number => neverAsked(),
  nulls: (): number => neverAsked(),
  rows: (): never => neverAsked(),
  get nowMicros(): never {
    return neverAsked()
  },
}

function neverAsked(): never {
  throw new TidegateError(
    'POLICY_UNSUPPORTED',
    'a semi-join is compared with the answer of another semi-join, or with the time',
  )
}

const lacking = (join: SemiJoin, what: string): TidegateError =>
  new TidegateError(
    'IDENTITY_INSUFFICIENT',
    `${what} lacks a column that joins ${join.table.schema}.${join.table.name}; set REPLICA IDENTITY FULL`,
  )
