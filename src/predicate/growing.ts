// Whether rows that come can only make a predicate true, never false.
import type { Predicate } from './algebra.ts'
import { partsOf } from './columns.ts'
import { isHop } from './hops.ts'

/** Of a predicate that is judged while some rows of its hops are not there yet: whether it says at most too little. False
 *  where a hop is negated, or stands in an expression. */
export function growsWithHops(predicate: Predicate): boolean {
  if (predicate.kind === 'and' || predicate.kind === 'or') return predicate.args.every(growsWithHops)
  if (predicate.kind === 'semiJoin') return growsWithHops(predicate.where)
  for (const part of partsOf(predicate)) if (part.kind === 'semiJoin' && isHop(part)) return false
  return true
}
