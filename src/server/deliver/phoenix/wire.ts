// The words of the Phoenix wire, as Supabase Realtime and its clients speak it: types only. What the frames look like in bytes is
// serializer.ts's.
import type { Json } from '../../../protocol/messages.ts'

/** 1.0.0: JSON objects. 2.0.0: JSON arrays, and binary frames. */
export type Vsn = '1.0.0' | '2.0.0'

/** A message of the client. */
export interface Incoming {
  /** The `ref` of the join under which the client believes itself in the channel; null where it does not say. */
  readonly joinRef: string | null
  readonly ref: string | null
  /** With its prefix: `realtime:room:1`, or `phoenix`. */
  readonly topic: string
  readonly event: string
  readonly payload: Json | BinaryPayload
}

/** A payload that came as bytes: of a broadcast that named its event in the frame's head (kind 3), or of any other push (kind 0). */
export interface BinaryPayload {
  readonly bytes: Uint8Array
  /** Of kind 3 alone. */
  readonly userEvent: string | null
  /** The bytes are JSON text. */
  readonly isJson: boolean
  /** Its sender counts on the message being kept. */
  readonly isStored?: true
}

/** A message to the client. */
export interface OutgoingMessage {
  readonly joinRef: string | null
  readonly ref: string | null
  readonly topic: string
  readonly event: string
  /** JSON text. */
  readonly payload: string
}

/** What a join asks for. Whatever is odd in it is passed over, as Supabase does. */
export interface JoinConfig {
  readonly isPrivate: boolean
  readonly self: boolean
  readonly ack: boolean
  /** Messages sent since (milliseconds since 1970) and at most so many. `invalid`: it was asked for in another way. */
  readonly replay: { readonly sinceMs: number; readonly limit: number } | 'invalid' | null
  /** Its client wants to be told that what the database sends arrives from now on. */
  readonly replicationReady: boolean
  /** Empty: the server names it. */
  readonly presenceKey: string
  readonly presence: boolean
  readonly bindings: readonly Binding[]
  /** Null: that of the connection. */
  readonly accessToken: string | null
  /** Without a `config`: of the first clients, to whom a change comes under its own name, and bare. */
  readonly isLegacy: boolean
}

/** One entry of `postgres_changes`. */
export interface Binding {
  /** From 1 to 2^27 - 1, of what it asks for: the same in every join that asks for the same list, and no two of one join the same. */
  readonly id: number
  /** As it was sent, with the id: its place in the reply. JSON text. */
  readonly echo: string
  readonly event: '*' | 'INSERT' | 'UPDATE' | 'DELETE'
  /** `*`: all that there are. Both empty: it names none. */
  readonly schema: string
  readonly table: string
  /** As sent; null where there is none. */
  readonly filter: string | null
  /** Null: every column. */
  readonly select: readonly string[] | null
}

/** A column as a change tells of it. */
export type { ShownColumn as ColumnType } from '../../subscribe/subscription.ts'
