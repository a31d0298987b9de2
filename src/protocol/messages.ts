// The words of the wire, the same on WebSocket, SSE and long-poll. WebSocket frames carry the same objects plus `type`,
// and `query`, the number of the shared query, so that a frame's bytes do not depend on who receives it.

export type Json = null | boolean | number | string | Json[] | { [key: string]: Json }
export type JsonRow = { [column: string]: Json }

export type RowChange =
  | { op: 'insert'; key: JsonRow; row: JsonRow }
  | { op: 'update'; key: JsonRow; set: JsonRow }
  | { op: 'delete'; key: JsonRow }
  /** The table was truncated: every row of the query is gone. */
  | { op: 'truncate' }

/** Rows of a first or fresh snapshot. A row of a later part replaces one of the same key; `gone` lists keys that left
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
      /** For `changes`: only these operations. */
      events?: ('insert' | 'update' | 'delete')[]
      /** The position and tag of the last state the client holds. */
      since?: string
    }
  | { type: 'unsubscribe'; id: number }
  | { type: 'heartbeat' }

/** Server to client, over WebSocket. */
export type ServerFrame =
  | { type: 'welcome'; connection: string; heartbeatMs: number; expiresAt: number | null }
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
  | ({ type: 'error'; id?: number } & ErrorEvent)
  | { type: 'unsubscribed'; id: number }
