// Where in the stream does a snapshot stand? Postgres shows commits in another order than it wrote them: for a moment, or
// while one waits for a standby, a later commit is visible and an earlier one is not. No position says what such a snapshot
// shows, and it may show a row that the hidden commit has already hidden: nothing is asked under it.
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Snapshot } from '../wal/visibility.ts'

/** What a snapshot shows is the database at every position from `lsn` to `limit`. */
export interface Standing {
  /** The newest served commit that it sees. */
  readonly lsn: bigint
  /** Just before the first commit that it does not see. */
  readonly limit: bigint
}

/** @param fence a position that the stream has passed and before which all that the snapshot sees has committed
 *  @returns null when the snapshot sees a commit without one before it. Commits that touch nothing followed do not count */
export function standingOf(
  relay: Pick<MemoryRelay, 'unseen' | 'between' | 'floorLsn'>,
  snapshot: Snapshot,
  { headLsn, fence }: { readonly headLsn: bigint; readonly fence: bigint },
): Standing | null {
  const first = relay.unseen(snapshot, headLsn).find(commit => commit.relations.size > 0)
  if (first === undefined) return { lsn: headLsn, limit: fence > headLsn ? fence - 1n : headLsn }
  // What lies behind it has left the window: nobody knows whether the snapshot sees it.
  if (first.commitLsn <= relay.floorLsn) return null
  const later = relay.between(first.commitLsn, headLsn)
  if (later.some(commit => commit.relations.size > 0 && snapshot.sees(commit.xid))) return null
  return { lsn: first.commitLsn - 1n, limit: first.commitLsn - 1n }
}
