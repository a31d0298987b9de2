// Hops: the middle of a chain `row -> project -> team -> user`.
//
// What a reader is a member of is counted for that reader alone: "teams where user_id is this user". The tables between it
// and the guarded row are the same for everybody, so their rows are held once for all, and what each reader sees of them is
// found by a few lookups when a row is judged. So a semi-join's condition is split: the local part decides which inner rows are
// held; the rest (semi-joins of its own, comparisons with the time) is judged on those under the key, with the memberships
// of the position judged at. Nothing derived is stored, so nothing derived must be counted up and down, or undone.
import { alwaysTrue, type Predicate, type SemiJoin } from './algebra.ts'
import { and } from './build.ts'
import { partsOf } from './columns.ts'

export interface SplitWhere {
  /** Reads the inner row, constants and claims. */
  readonly local: Predicate
  /** Reads further memberships, or the time; `true` when the semi-join is no hop. */
  readonly rest: Predicate
}

const known = new WeakMap<SemiJoin, SplitWhere>()

/** The parts of the condition; their conjunction is `join.where`. */
export function splitWhere(join: SemiJoin): SplitWhere {
  let split = known.get(join)
  if (split === undefined) {
    const conjuncts = join.where.kind === 'and' ? join.where.args : [join.where]
    const rest = conjuncts.filter(readsBeyond)
    split =
      rest.length === 0
        ? { local: join.where, rest: alwaysTrue }
        : { local: and(...conjuncts.filter(conjunct => !rest.includes(conjunct))), rest: and(...rest) }
    known.set(join, split)
  }
  return split
}

/** Whether the inner rows of a semi-join must be judged by more than they hold. */
export const isHop = (join: SemiJoin): boolean => splitWhere(join).rest !== alwaysTrue

/** Whether more than the row itself decides. */
function readsBeyond(predicate: Predicate): boolean {
  for (const part of partsOf(predicate)) if (part.kind === 'semiJoin' || part.kind === 'now') return true
  return false
}

/** Whether the time decides, at any depth. */
export function readsTime(predicate: Predicate): boolean {
  for (const part of partsOf(predicate)) {
    if (part.kind === 'now' || (part.kind === 'semiJoin' && readsTime(part.where))) return true
  }
  return false
}
