// Who may see it? One row's change becomes what it is for one audience: an insert when the row comes into view, a delete
// when it leaves, an update when it stays. The old version is judged with the memberships before, the new with those after.
import type { Memberships, Row, Truth } from '../../predicate/algebra.ts'

export type Op = 'insert' | 'update' | 'delete'

export type Judge = (row: Row, memberships: Memberships) => Truth

/** @param old null when there was no such row
 *  @param next null when there is no such row any more
 *  @returns null when the audience is not concerned */
export function judge(
  visible: Judge,
  old: Row | null,
  next: Row | null,
  before: Memberships,
  after: Memberships,
): Op | null {
  const was = old !== null && visible(old, before) === true
  const is = next !== null && visible(next, after) === true
  if (was) return is ? 'update' : 'delete'
  return is ? 'insert' : null
}

/** For predicates that read no memberships and no time. */
export const noMemberships: Memberships = {
  count: () => 0,
  total: () => 0,
  nulls: () => 0,
  rows: () => [],
  nowMicros: 0n,
}
