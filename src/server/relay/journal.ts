// The journal: the one ordered log of whole commits that all nodes of a deployment share. One node, the leader, holds the
// slot and appends; the others follow. Types only: redis-journal.ts is the one there is; without it a single node feeds its
// window straight from the slot.
import type { Commit } from '../decode/change.ts'
import type { Snapshot } from '../wal/visibility.ts'
import type { Held, SlotState } from '../wal/wal-source.ts'

/** The window of a node, as those see it who fill it. */
export interface Feed {
  /** Commit LSN of the newest commit in the window, or its floor. */
  readonly headLsn: bigint
  /** '' before the first `begin`. */
  readonly epoch: string
  /** The window begins anew: everything after `floorLsn` will come, nothing before it is known.
   *  @param isSettled whether all up to the floor is known to be visible; else `settled` will say so */
  begin(epoch: string, floorLsn: bigint, isSettled: boolean): void
  /** One at or below the head came before and is dropped. */
  append(commit: Commit): void
  /** Everything that commits before `lsn` has been appended. */
  passed(lsn: bigint): void
  /** Every commit up to `lsn` is visible to snapshots taken from now on. */
  settled(lsn: bigint): void
  /** Resolves when there is room: the backpressure. */
  room(): Promise<void>
}

/** What the node that holds the slot appends to, for one life of the replication session. */
export interface Inlet {
  /** In commit order, as the slot gives them. Stored in the background; `room` says when there is too much. */
  append(commit: Commit): void
  /** What was appended goes out now. Call after each gulp. */
  flush(): void
  /** Everything that commits before `lsn` has been appended. */
  passed(lsn: bigint): void
  /** Resolves when there is room. @throws when what was appended could not be stored: it comes again from the slot, in the
   *  next life of whoever holds it then */
  room(): Promise<void>
  /** Takes a snapshot sampled just now. */
  sampled(snapshot: Snapshot): void
  /** Up to where the slot may be acknowledged; null when nowhere yet. */
  acknowledgeable(): Promise<bigint | null>
  /** Resolves when nothing can be stored any more: `room` then throws. */
  readonly failed: Promise<void>
  close(): Promise<void>
}

export interface Journal {
  /** Follows until the signal aborts, whenever this node does not lead. */
  run(feed: Feed, signal: AbortSignal): Promise<void>
  /** Whether this node could lead now: it reaches what is shared. */
  mayLead(): Promise<boolean>
  /** What is held of a slot's epoch; null for nothing. @throws when the journal does not answer */
  held(slotName: string): Promise<Held | null>
  /** This node holds the slot. @throws when the journal cannot be written */
  lead(slot: SlotState, feed: Feed): Promise<Inlet>
  /** Milliseconds since the journal, which answers us now, last showed a living leader; null when that is not known. */
  leaderSilentMs(): number | null
}
