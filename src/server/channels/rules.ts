// What holds for which channels: types, and which rule is a channel's.

export interface HistoryRule {
  /** Messages kept, and for how long. */
  readonly length: number
  readonly ageMs: number
}

export interface PresenceRule {
  /** A connection that broke may come back so long without a leave. */
  readonly graceMs: number
  /** Changes are gathered so long before they are told. */
  readonly diffMs: number
  /** Above so many members only their count is told; their list can be asked for in pages. */
  readonly listUpTo: number
  /** Bytes of what a member tells of itself. */
  readonly maxMetaBytes: number
  /** Keys are the token's subject; false: whatever the client chooses. */
  readonly boundToSubject: boolean
}

/** What happens to messages for a connection that takes them too slowly: kept up to a bound, past which it is closed; the oldest
 *  dropped, and how many told; or only the newest of each event kept. */
export type Backpressure = 'buffer' | 'drop-oldest' | 'latest'

export interface ChannelRule {
  /** `room:*`: `*` stands for any text. */
  readonly pattern: string
  /** Whoever has a valid token may come and send to the public channel of the topic. */
  readonly isPublic: boolean
  readonly history: HistoryRule | null
  /** Null: nobody can be present. */
  readonly presence: PresenceRule | null
  readonly backpressure: Backpressure
  /** Bytes of messages that wait for one slow member, beside its connection's queue. */
  readonly bufferBytes: number
  /** Of one connection to one topic. Past it sends are delayed, far past it refused. */
  readonly rate: { readonly perSecond: number; readonly burst: number }
  readonly maxPayloadBytes: number
  /** How long an idempotency key is remembered. */
  readonly idempotencyMs: number
}
