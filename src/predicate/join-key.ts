// The key of a semi-join as text, the same from the outer row's side and the inner row's, also when their types differ.
import type { SemiJoin } from './algebra.ts'
import { type Comparison, comparisonOf, withLength } from './compare.ts'

const known = new WeakMap<SemiJoin, readonly Comparison[]>()

/** How each pair of keys compares: `left` is the inner column's side. @throws FILTER_UNSUPPORTED */
export function keyComparisonsOf(join: SemiJoin): readonly Comparison[] {
  let comparisons = known.get(join)
  if (comparisons === undefined) {
    comparisons = join.keys.map(({ inner, outer }) => comparisonOf('=', inner, outer))
    known.set(join, comparisons)
  }
  return comparisons
}

/** One part stands for itself, so that it equals the column's own key; several carry their lengths. */
export const joinText = (parts: readonly string[]): string =>
  parts.length === 1 ? parts[0]! : parts.map(withLength).join('')
