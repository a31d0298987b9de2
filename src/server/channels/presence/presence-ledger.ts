// Where the entries of all nodes are kept, as one node's rooms use it: types only. In memory for one node, in Redis for many.
import type { PresenceDraft } from './presence.ts'

/** What a connection tells, and for how long it may be missed. */
export interface Place {
  readonly draft: PresenceDraft
  readonly graceMs: number
}

/** One connection has at most one entry in a channel, and names it. */
export type PresenceOp =
  /** Enters, or updates what is there of the connection, whose ref goes on. Takes over the entry of the same key and user that broke,
   *  and its ref. Else `ref` is what it had before, for an entry that was lost; null for a new one. */
  | { readonly kind: 'put'; readonly place: Place; readonly ref: string | null; readonly sinceMs: number }
  /** @param unsent where the connection has no entry: takes out the one that this would have taken over */
  | { readonly kind: 'leave'; readonly connection: string; readonly unsent?: PresenceDraft | null }
  /** It leaves after so many milliseconds, unless it is taken over. */
  | { readonly kind: 'break'; readonly connection: string; readonly graceMs: number }

/** Where the diffs of a channel stood. */
export interface PresenceStanding {
  readonly epoch: string
  readonly seq: bigint
}

export interface Applied extends PresenceStanding {
  /** For each op: the ref of what was put; null for others. */
  readonly refs: readonly (string | null)[]
  /** When the next broken entry must leave, in milliseconds from now; null: none is broken. */
  readonly dueMs: number | null
}

export interface PresenceLedger {
  /** In one step, told as one diff; then those whose grace is over leave. What is there already, or gone, is in no diff: the same ops
   *  again change nothing.
   *  @param known where the channel stood when it was last seen here: where that is ahead, something was lost, and a new epoch begins
   *  @throws NotSent: nothing was done; anything else: it may have been */
  apply(channel: string, ops: readonly PresenceOp[], known: PresenceStanding | null): Promise<Applied>
}

/** Nothing was asked of the ledger. */
export class NotSent extends Error {}
