// What carries a session: a WebSocket, an event stream, or one answer to a poll. Types only.
import type { ServerFrame } from '../../protocol/messages.ts'
import type { Batch, BatchSink, Outgoing, Owner } from '../subscribe/subscription.ts'
import type { Place } from './connections.ts'
import type { Wire } from './departures.ts'
import type { Refusal } from './refusal.ts'
import type { Content, TakeBack } from './take-back.ts'

/** How frames are written. What a whole audience gets is made once and kept with the event. */
export interface Encoding {
  frame(frame: ServerFrame): Buffer
  /** @param query number of the query or channel @param id the client's own, for what it alone gets */
  event(outgoing: Outgoing, query: number, id: number): Buffer
  batch(batch: Batch): Buffer
}

/** What waits for the client: see send-queue.ts. */
export interface FrameQueue extends BatchSink {
  push(frame: Buffer, owner?: Owner | null, content?: Content): boolean
  takeBack(request: TakeBack): ReadonlyMap<Owner, Outgoing>
  readonly isFull: boolean
  /** What waits. */
  readonly bytes: number
  readonly stalledSince: number | null
  clear(): void
  finish(): void
  stop(): void
}

export interface Carrier {
  /** For the log. */
  readonly what: Wire
  readonly encoding: Encoding
  /** Whether its client answers pings, or says of itself that it is there: one of which nothing is heard is then gone. */
  readonly isAnswering: boolean
  /** What `welcome` says of it, where that is not the same for all. */
  readonly greeting: { readonly heartbeatMs?: number; readonly stream?: string }
  /** Released when it has closed. */
  readonly place: Place | null
  ping(): void
  /** Hands over no more of what its client sends, until `resume`. */
  pause(): void
  resume(): void
  /** What was sent goes out, and then it ends. */
  end(refusal: Refusal): void
  terminate(): void
}
