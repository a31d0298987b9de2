// The words of the wire, the same on WebSocket, SSE and long-poll. WebSocket frames carry the same objects plus `type`,
// and `query`, the number of the shared query, so that a frame's bytes do not depend on who receives it.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type JsonRow = { [column: string]: Json }

export type RowChange =
  /** `after`, of a query with a limit: the key of the row that it follows once the whole delta is applied; null: it is the first. */
  | { op: 'insert'; key: JsonRow; row: JsonRow; after?: JsonRow | null }
  /** `after`, of a query with a limit: the row moved. Left out: it follows the row that it followed, or its forerunners are gone. */
  | { op: 'update'; key: JsonRow; set: JsonRow; after?: JsonRow | null }
  | { op: 'delete'; key: JsonRow }
  /** The table was truncated: every row of the query is gone. */
  | { op: 'truncate' }

/** One column of a live query's order, as the server follows it. */
export interface OrderTerm {
  column: string
  direction: 'asc' | 'desc'
  nulls: 'first' | 'last'
  /** How two values of the column compare; see `compareRows` of order.ts. Only with a limit: `server`, by a collation that the server
   *  alone has; `after` then says where a row goes. */
  compare: 'number' | 'text' | 'boolean' | 'time' | 'labels' | 'server'
  /** Of an enum, for `labels`: its values, least first. */
  labels?: string[]
}

/** Rows of a first or fresh snapshot, of a query with a limit in their order. A row of a later part replaces one of the same key; `gone` lists keys that left
 *  the query while the parts were read. The state is exact, at the event's position, when `done` is true. */
export interface SnapshotEvent {
  rows: JsonRow[]
  gone?: JsonRow[]
  done: boolean
}

export interface DeltaEvent {
  changes: RowChange[]
  done: boolean
  /** Commit time of the last commit folded in, ISO 8601 with microseconds. */
  committedAt: string
}

/** One event of a `changes` subscription. `new` is absent for delete, `old` for insert; both hold what the reader may see. */
export interface ChangeEvent {
  op: 'insert' | 'update' | 'delete' | 'truncate'
  schema: string
  table: string
  key?: JsonRow
  new?: JsonRow
  old?: JsonRow
  committedAt: string
}

/** A message of a channel. `payload` is what was sent; of a binary one it is left out, and `binary` holds it in base64. */
export interface MessageEvent {
  /** UUID, set by the server: the same for everybody, and in what was answered to its sender. */
  id: string
  event: string
  payload?: Json
  binary?: string
  /** Set by the server: the token's subject, and the connection's name as its `welcome` said, if it was sent over one. Null where
   *  the database sent it. */
  sender: { user: string | null; connection: string | null } | null
  /** ISO 8601 with milliseconds. */
  sentAt: string
  /** It was sent to this user or connection alone. */
  to?: { user: string } | { connection: string }
}

export interface PresenceMember {
  /** Names the entry as long as it is there, also over a reconnect within the grace. */
  ref: string
  /** As whom it is listed; the token's subject, unless the channel's rule says otherwise. */
  key: string
  user: string | null
  connection: string
  /** What it tells of itself. */
  meta: Json
  /** ISO 8601. */
  since: string
}

/** First `here`: all who are in the channel; then what changes. Where there are more than the rule lists, `count` alone. */
export interface PresenceEvent {
  here?: PresenceMember[]
  joined?: PresenceMember[]
  updated?: PresenceMember[]
  left?: PresenceMember[]
  count: number
}

/** Messages of a channel did not reach this member, and cannot be had any more: of one without history, or dropped because it was
 *  too slow for what the channel's rule keeps. */
export interface GapEvent {
  code: string
  reason: string
  /** How many; null when that is not known. */
  missed: number | null
}

export interface HeartbeatEvent {
  stale: boolean
  lagMs: number
}

export interface ResyncEvent {
  code: string
  reason: string
}

export interface ErrorEvent {
  code: string
  message: string
  retry: boolean
  retryAfterMs?: number
}

export interface Warning {
  code: string
  message: string
}

/** Client to server, over WebSocket. `id` is the client's own number for a subscription. */
export type ClientFrame =
  | { type: 'auth'; token: string }
  | {
      type: 'subscribe'
      id: number
      kind: 'live' | 'changes'
      /** `<schema>.<table>`; `public` if left out. */
      table: string
      /** PostgREST's grammar, as in a URL's query: `room_id=eq.42&or=(a.eq.1,b.is.null)`. */
      filter?: string
      select?: string[]
      /** For `live`, in PostgREST's grammar: `created_at.desc.nullslast,id`. The primary key is added where it is not named. */
      order?: string
      /** For `live`: the first so many rows of the order. */
      limit?: number
      /** For `changes`: only these operations. */
      events?: ('insert' | 'update' | 'delete')[]
      /** The position and tag of the last state the client holds. */
      since?: string
    }
  /** Enters a channel. */
  | ({ type: 'join'; id: number } & Join)
  /** With a `ref` it is answered by `sent`, or by an `error` of that `ref`. */
  | ({ type: 'send'; id: number; ref?: number } & Send)
  /** The client is in the channel, or tells something else of itself. With a `ref` it is answered by `tracked`. */
  | ({ type: 'track'; id: number; ref?: number } & Track)
  | { type: 'untrack'; id: number; ref?: number }
  /** Ends a subscription, or leaves a channel. */
  | { type: 'unsubscribe'; id: number }
  /** Answered by a `heartbeat` and `waited` once what this transaction did has been sent, or by an `error` of this `ref` without an
   *  `id`. `txid`: its `pg_current_xact_id()`. */
  | { type: 'wait'; ref: number; txid: string }
  | { type: 'heartbeat' }

/** What enters a channel. */
export interface Join {
  topic: string
  /** False: the public channel of this name, where a rule allows one. Left out: true. */
  private?: boolean
  /** Whether its own messages come back to it. Left out: false. */
  self?: boolean
  /** Whether it is told who is there. Left out: false. */
  presence?: boolean
  /** Is there itself, from the start. */
  track?: Track
  /** The position and tag of the last message that the client has. */
  since?: string
  /** Without `since`: so many of the newest messages first. */
  last?: number
}

/** A message to be sent: a frame's, or the body of a POST. */
export interface Send {
  event: string
  /** Left out with `binary`. */
  payload?: Json
  /** Base64. */
  binary?: string
  to?: { user: string } | { connection: string }
  /** Sent once, however often it is tried under this key, within the time that the channel's rule says. */
  idempotencyKey?: string
  /** `pg_current_xact_id()` of a transaction that has committed: whoever it shuts out does not get the message. */
  after?: string
}

export interface Track {
  meta: Json
  /** As whom; only where the channel's rule leaves that to the client. */
  key?: string
}

/** Server to client, over WebSocket. */
export type ServerFrame =
  /** `stream`, of `POST /v1/stream`: later frames go to `POST /v1/stream/<stream>`. A secret, unlike `connection`, which others see. */
  | { type: 'welcome'; connection: string; heartbeatMs: number; expiresAt: number | null; stream?: string }
  | { type: 'authenticated'; expiresAt: number | null }
  /** `query` numbers the frames of this subscription from now on; `tag` goes with the position into `since`:
   *  `<position>.<tag>`. `resumed` says that the position was taken up: no snapshot follows. `key` names the primary
   *  key's columns in order; every row of the query holds them, whatever `select` says: without them a client could
   *  not tell which row a later part, `gone` or a delta means. */
  | {
      type: 'subscribed'
      id: number
      query: number
      tag: string
      key: string[]
      resumed: boolean
      position: string
      /** Of a live query that was asked for one: all terms, those of the primary key at the end. */
      order?: OrderTerm[]
      limit?: number
      /** Left out where it is exact. */
      exact?: false
      warnings?: Warning[]
    }
  | ({ type: 'snapshot'; id: number; position?: string } & SnapshotEvent)
  | ({ type: 'delta'; query: number; position?: string } & DeltaEvent)
  | ({ type: 'change'; query: number; position: string } & ChangeEvent)
  | ({ type: 'resync'; id: number } & ResyncEvent)
  /** `positions`: what each subscription may resume from, by its id; position and tag, as `since` takes them. */
  | ({ type: 'heartbeat'; position: string | null; positions: { [id: string]: string } } & HeartbeatEvent)
  /** With a `ref` it refuses the `send`, `track` or `untrack` that was asked under it, or one without a `ref` where that is
   *  null; the subscription stays. `same`, of ALREADY_SUBSCRIBED: the id of the subscription that is there. */
  | ({ type: 'error'; id?: number; ref?: number | null; same?: number } & ErrorEvent)
  | { type: 'unsubscribed'; id: number }
  /** A channel was entered. `channel` numbers its frames from now on. `resumed`: what came after `since` follows, and nothing is
   *  missing. */
  | {
      type: 'joined'
      id: number
      channel: number
      tag: string
      resumed: boolean
      position: string
      /** Whether what is missed can be had later. */
      history: boolean
      /** Whether policies let it send, as things stand. */
      maySend: boolean
      /** How long the channel knows an idempotency key, where that is not five minutes. */
      idempotencyMs?: number
      exact?: false
      warnings?: Warning[]
    }
  | ({ type: 'message'; channel: number; position?: string } & MessageEvent)
  | ({ type: 'presence'; channel: number; position?: string } & PresenceEvent)
  | ({ type: 'gap'; channel: number; position?: string } & GapEvent)
  /** Answers a `send` with a `ref`: it is in the relay, and in the history where there is one. */
  | { type: 'sent'; id: number; ref: number; message: string; position: string; duplicate?: true }
  /** Answers `track` and `untrack` with a `ref`. */
  | { type: 'tracked'; id: number; ref: number }
  /** Answers `wait`: everything up to the transaction's commit has been handed out. What each subscription has had of it, say the `positions`
   *  of the heartbeat before it. */
  | { type: 'waited'; ref: number; position: string }
  /** An operator wants newer claims: a token issued later must come within this time. */
  | { type: 'refresh'; withinMs: number }
