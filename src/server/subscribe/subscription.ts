// What a subscription is to those above (sessions, transports) and below (audiences): types only.

import type { SqlType } from '../../predicate/algebra.ts'
import type { OrderTerm, Warning } from '../../protocol/messages.ts'
import type { Position } from '../../protocol/position.ts'
import { Batch } from '../route/batch.ts'
import type { BatchSink, Manner, Owner } from '../route/members.ts'
import { Outgoing } from '../route/outgoing.ts'

export type { BatchSink, Manner, Owner }
export { Batch, Outgoing }

/** Who asks: a database role and verified claims. */
export interface Principal {
  readonly role: string
  /** The verified JWT payload. */
  readonly claims: Readonly<Record<string, unknown>>
  /** Milliseconds since 1970, or null when the token does not expire. */
  readonly expiresAt: number | null
}

/** One column of the order that is asked for. */
export interface OrderBy {
  readonly column: string
  readonly direction: 'asc' | 'desc'
  readonly nulls: 'first' | 'last'
}

export interface SubscribeRequest {
  readonly kind: 'live' | 'changes'
  readonly schema: string
  readonly table: string
  /** PostgREST's grammar; each pair one condition, AND-ed. `and`, `or` and `c.<column>` as docs/protocol.md says. */
  readonly filters: readonly (readonly [name: string, value: string])[]
  /** Column names; null for every column the role may read. */
  readonly select: readonly string[] | null
  /** For `changes`: the operations wanted; null for all. */
  readonly events: ReadonlySet<'insert' | 'update' | 'delete'> | null
  /** For `live`. */
  readonly order?: readonly OrderBy[] | null
  /** For `live`: the first so many rows of the order. */
  readonly limit?: number | null
  /** Where the client stands, with the tag of its snapshot; null to begin fresh. */
  readonly since: (Position & { readonly tag: string }) | null
  /** It goes on in the place of one whose policies or table changed: what cannot be taken up is told as POLICY_CHANGED.
   *  `announcements`: changes of the catalog that the stream had passed then. */
  readonly moved?: { readonly announcements: number }
}

/** Where a subscription's events go: one per subscription, made by its session. Nothing here may throw. */
export interface Outlet {
  /** Takes an event into its bounded queue. False: the queue is past its bound (this event is still taken); the
   *  subscription then stands still at its position, holding no memory, until `Subscription.resume` is called. */
  send(outgoing: Outgoing): boolean
  /** The same for events that everybody in the audience gets, joined where they are few. */
  sendBatch(batch: Batch): boolean
  /** Takes joined batches in the place of `sendBatch`, from when it is there until the next `resync`; null where each must
   *  be looked at. Whoever is told that it is past its bound says so by `sinkIsFull`. */
  readonly sink: BatchSink | null
  sinkIsFull(): void
  /** Drops what it has taken and not handed to the socket; `Subscription.retreat` is told, if anything was. Gently: not where
   *  the reader would have to start over. */
  takeBack(manner: Manner): void
  /** Everything the client holds of this subscription is void; a fresh snapshot follows. */
  resync(code: string, reason: string): void
  /** Its policies or table changed, and the subscription has been closed: this request, made anew, goes on in its place,
   *  with another query number, tag, and perhaps key. @returns false when that cannot be told; `fail` follows */
  move(request: SubscribeRequest): boolean
  /** The subscription has ended with this error. */
  fail(error: unknown): void
}

/** A column as a reader of changes is shown it. */
export interface ShownColumn {
  readonly name: string
  /** `pg_type.typname`: `int8`, `_text`. */
  readonly type: string
  /** How its values are written. */
  readonly sqlType: SqlType
}

export interface TableName {
  readonly schema: string
  readonly table: string
}

export interface Subscription {
  readonly kind: 'live' | 'changes' | 'channel'
  /** Number of the shared query: subscriptions with the same query and columns have the same. */
  readonly query: number
  readonly tag: string
  /** Columns of the primary key, in order. Every row sent holds them, whatever `select` says. Of a channel none. */
  readonly key: readonly string[]
  /** True when `since` was taken up; false when a snapshot follows (live) or events begin here (changes). */
  readonly resumed: boolean
  /** Of a live query that was asked for an order or a limit. */
  readonly order?: readonly OrderTerm[] | undefined
  readonly limit?: number | undefined
  /** Of `changes`: what a row of it shows, in the order of the table's columns. */
  readonly columns?: readonly ShownColumn[] | undefined
  readonly warnings: readonly Warning[]
  /** False where Postgres is asked: its grants and revocations are noticed a moment later. */
  readonly exact?: false
  /** Up to where everything owed has been handed to the outlet: what the client may resume from. */
  position(): Position
  /** The outlet has room again. */
  resume(): void
  /** This event and all after it were taken back: it stands right before it, until `resume`. */
  retreat(first: Outgoing): void
  /** @param how `broken`: its client did not say that it goes, and may come back in a moment */
  close(how?: 'gone' | 'broken'): void
}

/** The door of everything behind the transports. */
export interface Subscriptions {
  /** Resolves when the subscription is accepted; its events come through the outlet, never before this resolves. The
   *  first snapshot follows by itself.
   *  @throws TidegateError with a peer code */
  subscribe(principal: Principal, request: SubscribeRequest, outlet: Outlet): Promise<Subscription>
  /** Checks that the role may be taken. @throws ROLE_REFUSED */
  admit(principal: Principal): Promise<void>
  /** The tracked tables of which the role may SELECT at least the primary key.
   *  @throws ROLE_REFUSED */
  tables(principal: Principal): Promise<readonly TableName[]>
  /** Calls when what `tables` gives may be another now. Whoever listens asks again. @returns ends it */
  onTables(listener: () => void): () => void
  /** Where the stream stands now, and how far behind the database it is. */
  head(): { position: Position; stale: boolean; lagMs: number }
  /** Position of the commit of this transaction. @param xid64 as pg_current_xact_id() gives it
   *  @throws WAIT_TIMEOUT, TXID_INVALID */
  waitForTransaction(xid64: bigint, timeoutMs: number): Promise<Position>
}
