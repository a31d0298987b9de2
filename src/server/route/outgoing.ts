// An event on its way to subscribers.
import type { Position } from '../../protocol/position.ts'

/** Of queries the first three, of channels the others. */
export type OutgoingEvent = 'snapshot' | 'delta' | 'change' | 'message' | 'presence' | 'gap'

/** One event, its JSON text made once and shared by everybody who receives it. */
export class Outgoing {
  readonly event: OutgoingEvent
  /** The event's object as JSON text, as SSE's `data:` has it. No line breaks. */
  readonly json: string
  /** Where a subscriber stands after it; null when more parts follow. */
  readonly position: Position | null
  /** Commit LSN where a live query's subscriber stands before it: 0 before a first snapshot, null in the middle of one or of
   *  a delta. Of no meaning for a change, which its own position tells from the one before. */
  readonly sinceLsn: bigint | null
  /** Of a change that is an insert to its reader: whether the row was there before, out of the reader's sight. Null: not known. */
  readonly existed: boolean | null
  /** Bytes for a wire, made by the first transport that needs them. */
  websocketFrame: Buffer | undefined
  sseChunk: Buffer | undefined
  streamFrame: Buffer | undefined
  /** What a wire of other words makes of it, for itself alone. */
  elsewhere: object | undefined

  constructor(
    event: OutgoingEvent,
    json: string,
    position: Position | null,
    sinceLsn: bigint | null = null,
    existed: boolean | null = null,
  ) {
    this.event = event
    this.json = json
    this.position = position
    this.sinceLsn = sinceLsn
    this.existed = existed
  }
}
