// What is said in a channel, as applications have it and as it goes on the wire: JSON as it is now, or bytes in base64.
import type { Json, MessageEvent, Send } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'

type Bytes = Uint8Array | ArrayBuffer
export type Payload = Json | Bytes

/** A message, its payload typed by the application's interface of events. */
export interface Message<Event extends string = string, Content = Payload> {
  readonly event: Event
  /** Undefined of a binary message. */
  readonly payload: Content extends Bytes ? undefined : Content
  /** What was sent as bytes; else undefined. */
  readonly binary: Content extends Bytes ? Uint8Array : undefined
  /** Set by the server: the token's subject, and the name of the connection, null for HTTP. Null where the database sent it. */
  readonly sender: MessageEvent['sender']
  /** ISO 8601 with milliseconds, set by the server. */
  readonly sentAt: string
  /** The same for everybody, and in what `send` resolves with. */
  readonly id: string
  /** Its place in the channel, for `history`. */
  readonly position?: string
  /** It was for this user or connection alone. */
  readonly to?: MessageEvent['to']
}

/** A message of any of the events: `event` tells which. */
export type AnyMessage<Events> = { [E in keyof Events & string]: Message<E, Events[E]> }[keyof Events & string]

/** The server refuses what is nested deeper, and with it the whole connection. */
const maxDepth = 64

/** @returns a copy: what the application does with its object later is not sent
 *  @throws BAD_FRAME for what is no JSON, or nested deeper than 64 */
export function payloadOf(content: Payload): Pick<Send, 'payload' | 'binary'> {
  if (content instanceof ArrayBuffer || ArrayBuffer.isView(content)) return { binary: base64Of(content) }
  let text: string | undefined
  try {
    text = JSON.stringify(content)
  } catch (cause) {
    throw new TidegateError('BAD_FRAME', `the payload is no JSON: ${String(cause)}`, { cause })
  }
  if (text === undefined) return { payload: null }
  const payload = JSON.parse(text) as Json
  if (isDeeper(payload, maxDepth)) throw new TidegateError('BAD_FRAME', `the payload is nested deeper than ${maxDepth}`)
  return { payload }
}

export function messageOf({
  event,
  payload,
  binary,
  sender,
  sentAt,
  id,
  position,
  to,
}: MessageEvent & { position?: string }): Message {
  return {
    event,
    payload,
    binary: binary === undefined ? undefined : bytesOf(binary),
    sender,
    sentAt,
    id,
    ...(position === undefined ? {} : { position }),
    ...(to === undefined ? {} : { to }),
  } as Message
}

function bytesOf(base64: string): Uint8Array {
  return Uint8Array.from(globalThis.atob(base64), char => char.charCodeAt(0))
}

function base64Of(content: ArrayBuffer | ArrayBufferView): string {
  const bytes = ArrayBuffer.isView(content)
    ? new Uint8Array(content.buffer, content.byteOffset, content.byteLength)
    : new Uint8Array(content)
  let text = ''
  // One by one: as arguments of one call they would be too many.
  for (const byte of bytes) text += String.fromCharCode(byte)
  return globalThis.btoa(text)
}

function isDeeper(value: Json, depth: number): boolean {
  if (typeof value !== 'object' || value === null) return false
  return depth === 0 || Object.values(value).some(item => isDeeper(item, depth - 1))
}
