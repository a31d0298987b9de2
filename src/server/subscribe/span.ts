// The commits between two positions, as one audience needs them: its table's rows folded, its memberships undone.

import { type MembershipSet, type MembershipsBefore, type NetChange, netChange, undo } from '../authorize/membership.ts'
import type { Table } from '../catalog/table.ts'
import type { Change, Commit } from '../decode/change.ts'
import { type FoldedRows, RowFold } from '../decode/fold.ts'
import type { Audience } from '../route/audience.ts'
import { sameColumns } from '../route/router.ts'
import { keptChanges } from './spooled-memberships.ts'

/** Why a span cannot be judged: the client then starts over. */
export class SpanError extends Error {
  readonly code: 'WINDOW_PASSED' | 'INPUTS_CHANGED' | 'POLICY_CHANGED'

  constructor(code: 'WINDOW_PASSED' | 'INPUTS_CHANGED' | 'POLICY_CHANGED') {
    super(code)
    this.code = code
  }
}

/** @param vanished takes the keys of rows that came and went within the commits
 *  @throws SpanError for a commit too large to fold in memory, or of a table whose columns changed since */
export function foldTable(commits: readonly Commit[], table: Table, vanished: Set<string> | null = null): FoldedRows {
  const fold = new RowFold(table.primaryKey, table.oid, vanished)
  for (const change of changesOf(commits, table)) fold.add(change)
  if (fold.unkeyed > 0) throw new SpanError('POLICY_CHANGED')
  return fold
}

/** The audience's memberships as they were before these commits.
 *  @throws SpanError when a truncation hides what they were */
export function membershipsBefore(audience: Audience, commits: readonly Commit[]): MembershipsBefore {
  const sets = new Set(audience.sets.values())
  const before = undo(sets, (set: MembershipSet) => changesOf(commits, set.table))
  if (before === null) throw new SpanError('INPUTS_CHANGED')
  return before
}

/** What one commit does to the audience's memberships. */
export function membershipsStep(audience: Audience, commit: Commit): Map<MembershipSet, NetChange> {
  const step = new Map<MembershipSet, NetChange>()
  for (const set of new Set(audience.sets.values())) {
    if (!commit.relations.has(set.table.oid)) continue
    const net = netChange(set, changesOf([commit], set.table))
    if (net === null) throw new SpanError('INPUTS_CHANGED')
    step.set(set, net)
  }
  return step
}

function* changesOf(commits: readonly Commit[], table: Table): Iterable<Change> {
  for (const commit of commits) {
    if (!commit.relations.has(table.oid)) continue
    const changes = commit.spooled ? keptChanges(commit, table.oid) : commit.changes()
    if (changes === null) throw new SpanError('WINDOW_PASSED')
    for (const change of changes) {
      if (change.relation.oid !== table.oid) continue
      if (!sameColumns(change.relation, table)) throw new SpanError('POLICY_CHANGED')
      yield change
    }
  }
}
