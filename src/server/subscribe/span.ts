// The commits between two positions, as one audience needs them: its table's rows folded, its memberships undone.

import type { InnerSet } from '../authorize/inner-set.ts'
import { type MembershipsBefore, type NetChange, netChange, undo } from '../authorize/membership-history.ts'
import type { Table } from '../catalog/table.ts'
import type { Change, Commit } from '../decode/change.ts'
import { type FoldedRows, RowFold } from '../decode/fold.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
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

/** `now()` at a position, for an audience that reads it.
 *  @throws SpanError where nothing that committed up to it is remembered, as may be after a restart */
export function nowAt(relay: MemoryRelay, audience: Audience, lsn: bigint): bigint {
  if (!audience.readsTime) return 0n
  const nowMicros = relay.nowMicrosAt(lsn)
  if (nowMicros === 0n) throw new SpanError('INPUTS_CHANGED')
  return nowMicros
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
 *  @param nowMicros `now()` then
 *  @throws SpanError when a truncation hides what they were */
export function membershipsBefore(
  audience: Audience,
  commits: readonly Commit[],
  nowMicros: bigint,
): MembershipsBefore {
  const sets = new Set(audience.sets.values())
  const before = undo(sets, (set: InnerSet) => changesOf(commits, set.table), nowMicros)
  if (before === null) throw new SpanError('INPUTS_CHANGED')
  return before
}

/** What one commit does to the audience's memberships. */
export function membershipsStep(audience: Audience, commit: Commit): Map<InnerSet, NetChange> {
  const step = new Map<InnerSet, NetChange>()
  for (const set of new Set(audience.sets.values())) {
    if (!commit.relations.has(set.table.oid)) continue
    const net = netChange(set, changesOf([commit], set.table))
    if (net === null) throw new SpanError('INPUTS_CHANGED')
    step.set(set, net)
  }
  return step
}

/** @throws SpanError for a commit too large to be kept, or of a table whose columns changed since */
export function* changesOf(commits: readonly Commit[], table: Table): Iterable<Change> {
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
