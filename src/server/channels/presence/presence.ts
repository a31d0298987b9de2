// Who is in a channel: types only. In memory for one node, in Redis for many.
import type { PresenceRule } from '../rules.ts'

/** One connection's place in a channel. */
export interface PresenceEntry {
  /** Names the entry, and goes on when its connection came back within the grace. */
  readonly ref: string
  /** As whom it is listed: the token's subject, unless the rule says otherwise. Several entries may have one. */
  readonly key: string
  readonly user: string | null
  readonly connection: string
  /** What the client tells of itself, JSON text. */
  readonly meta: string
  /** Milliseconds since 1970. */
  readonly sinceMs: number
}

/** What changed, of several entries at a time. An entry that came and went in between is in none. */
export interface PresenceDiff {
  readonly epoch: string
  /** Counts the diffs of a channel; one that is not the next means that some were missed. */
  readonly seq: bigint
  readonly joined: readonly PresenceEntry[]
  /** With the new `meta`, or on another connection. */
  readonly updated: readonly PresenceEntry[]
  readonly left: readonly PresenceEntry[]
  /** Entries after it. */
  readonly count: number
}

export interface PresenceList {
  readonly epoch: string
  readonly seq: bigint
  readonly count: number
  /** In order of `ref`. */
  readonly entries: readonly PresenceEntry[]
}

export interface PresenceDraft extends Omit<PresenceEntry, 'ref' | 'sinceMs'> {}

export interface PresenceStore {
  /** Enters, or updates what is told of a connection. Gathered with others for `diffMs`; resolves when it is stored.
   *  @throws UNAVAILABLE */
  track(channel: string, draft: PresenceDraft, rule: PresenceRule): Promise<void>
  /** Takes a connection's entry out.
   *  @param how `broken`: it may come back within the grace, under the same key. @throws UNAVAILABLE */
  untrack(channel: string, connection: string, how: 'gone' | 'broken'): Promise<void>
  /** All entries, or a page of them. @param after `ref` to go on behind, null for the first @throws UNAVAILABLE */
  list(channel: string, page?: { readonly after: string | null; readonly limit: number }): Promise<PresenceList>
  /** Channels in which this node has entries, or had some within their grace. */
  readonly rooms: number
  /** Everything of this node's connections is gone. */
  close(): Promise<void>
}
