// The journal: the one ordered log of whole commits that all nodes of a deployment share. One node, the leader, holds the
// slot and appends; the others follow. Types only: redis-journal.ts is the one there is; without it a single node feeds its
// window straight from the slot.
import type { Commit } from '../decode/change.ts'
import type { SlotState } from '../wal/wal-source.ts'

/** The window of a node, as its feed sees it. */
export interface Feed {
  /** Commit LSN of the newest commit in the window, or its floor. */
  readonly headLsn: bigint
  readonly epoch: string
  /** The window begins anew: everything after `floorLsn` will come, nothing before it is known. */
  begin(epoch: string, floorLsn: bigint): void
  /** One at or below the head came before and is dropped. */
  append(commit: Commit): void
  /** Everything that commits before `lsn` has been appended. */
  passed(lsn: bigint): void
  /** Resolves when there is room: the backpressure. */
  room(): Promise<void>
}

/** What the leader appends to, for one life of the replication session. */
export interface Inlet {
  /** In commit order, as the slot gives them. Stored in the background; `room` says when there is too much. */
  append(commit: Commit): void
  /** What was appended so far goes out now. Call after each gulp. */
  flush(): void
  passed(lsn: bigint): void
  /** Resolves when there is room. @throws RELAY_UNREACHABLE, RELAY_MOVED: what was appended and is not stored is lost here,
   *  and comes again from the slot in the next life */
  room(): Promise<void>
  /** End of the longest prefix of what was appended that is stored; null before the first. */
  close(): Promise<void>
}

export interface Journal {
  /** Follows until the signal aborts, whenever this node does not lead. */
  run(feed: Feed, signal: AbortSignal): Promise<void>
  /** Whether this node could lead now: Redis answers, and what others stored has been read. */
  mayLead(): Promise<boolean>
  /** This node holds the slot. @throws when the journal cannot be written */
  lead(slot: SlotState, feed: Feed): Promise<Inlet>
  /** Milliseconds since Redis, which answers us now, last showed a living leader; null when that is not known. */
  leaderSilentMs(): number | null
}
