// Broadcasts of Supabase's clients as messages of a channel, and back. Pure.
import type { ClientFrame, Json } from '../../../protocol/messages.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Outgoing } from '../../subscribe/subscription.ts'
import { sendSchema } from '../channel-body.ts'
import { MadeOnce } from './made-once.ts'
import { messageFrame, userBroadcastFrame } from './serializer.ts'
import type { BinaryPayload, Incoming, Vsn } from './wire.ts'

/** @param payload of a `broadcast`: `{"type":"broadcast","event":"shout","payload":{...}}`, or bytes. Bytes that name no event are
 *  one of the event `broadcast`; a text without a `payload` has `{}`, as the clients of 2.0.0 send it
 *  @param keepsHistory whether the channel keeps its messages
 *  @throws BAD_FRAME for what is no broadcast; HISTORY_OFF for one that is to be stored where nothing is */
export function sendFrameOf(
  payload: Incoming['payload'],
  ids: { readonly id: number; readonly ref: number },
  keepsHistory: boolean,
): Extract<ClientFrame, { type: 'send' }> {
  if (!keepsHistory && (isBinary(payload) ? payload.isStored === true : isMap(payload) && Boolean(payload.persist)))
    throw new TidegateError('HISTORY_OFF', "the message is to be stored, and the channel's rule keeps no history")
  const sent = isBinary(payload) ? sentBytes(payload) : sentText(payload)
  const send = sendSchema.safeParse(sent)
  if (!send.success) {
    const [issue] = send.error.issues
    throw notBroadcast(`${issue?.path.join('.')}: ${issue?.message.slice(0, 200)}`)
  }
  return { type: 'send', ...ids, ...(send.data as { event: string; payload?: Json; binary?: string }) }
}

export const isBinary = (payload: Incoming['payload']): payload is BinaryPayload =>
  typeof payload === 'object' && payload !== null && 'bytes' in payload && payload.bytes instanceof Uint8Array

function sentText(payload: Json): { event: unknown; payload: unknown } {
  if (!isMap(payload)) throw notBroadcast('it is no map')
  return { event: payload.event, payload: payload.payload === undefined ? {} : payload.payload }
}

function sentBytes({ bytes, userEvent, isJson }: BinaryPayload): object {
  const event = userEvent ?? 'broadcast'
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (!isJson) return { event, binary: buffer.toString('base64') }
  try {
    return { event, payload: JSON.parse(buffer.toString()) as unknown }
  } catch (cause) {
    throw notBroadcast('its payload is not the JSON that its frame says it is', cause)
  }
}

/** @param outgoing a `message` of a channel
 *  @param topic with its prefix: `realtime:room:1`
 *  @param isReplayed it was sent before the client came
 *  @returns a whole WebSocket frame: text for JSON; bytes go to 2.0.0 as a frame of kind 4, to 1.0.0 as base64 in `binary`. Its `meta`
 *  is `{"id", "sender"?: {"user", "connection"}, "replayed"?: true}`, without `sender` where the database sent it. Made once for
 *  all who receive it */
export const broadcastFrameOf = (outgoing: Outgoing, vsn: Vsn, topic: string, isReplayed: boolean): Buffer =>
  frames.of(outgoing, `${vsn} ${isReplayed} ${topic}`, () => makeFrame(outgoing, vsn, topic, isReplayed))

const frames = new MadeOnce<Outgoing, Buffer>()

function makeFrame(outgoing: Outgoing, vsn: Vsn, topic: string, isReplayed: boolean): Buffer {
  const parts = partsOf(outgoing.json)
  const meta = metaOf(parts, isReplayed)
  if (parts.isBinary && vsn === '2.0.0') {
    const userEvent = JSON.parse(parts.event) as string
    const short = fits(meta) ? meta : metaOf({ ...parts, sender: null }, isReplayed)
    if (fits(userEvent) && fits(topic)) {
      const bytes = Buffer.from(parts.payload.slice(1, -1), 'base64')
      return userBroadcastFrame(topic, userEvent, short, false, bytes)
    }
  }
  const body = `"${parts.isBinary ? 'binary' : 'payload'}":${parts.payload}`
  const payload = `{"type":"broadcast","event":${parts.event},${body},"meta":${meta}}`
  return messageFrame(vsn, { joinRef: null, ref: null, topic, event: 'broadcast', payload })
}

/** When a message of a channel was sent, in milliseconds since 1970. */
export const sentAtMsOf = ({ json }: Outgoing): number => Date.parse(partsOf(json).sentAt)

/** The parts of a MessageEvent, each but `id` and `sentAt` as JSON text. */
interface MessageParts {
  readonly id: string
  readonly event: string
  readonly isBinary: boolean
  readonly payload: string
  /** Null where the database sent it. */
  readonly sender: string | null
  readonly sentAt: string
}

// The payload is cut out, not parsed: it is the same text for everybody, and may be long. In JSON text, an unescaped quote behind a
// comma begins a name or a text: none of a text's own characters look like `,"sentAt":`. Behind `sentAt` comes at most `to`, whose
// names are others, and in front of it `sender` likewise: the last of each is the message's own.
function partsOf(json: string): MessageParts {
  const sentAt = json.lastIndexOf(',"sentAt":"')
  const sender = json.lastIndexOf(',"sender":', sentAt)
  const id = json.slice(7, json.indexOf('"', 7))
  const event = 7 + id.length + eventHead.length
  const eventEnd = endOfString(json, event)
  const isBinary = json.startsWith(binaryHead, eventEnd)
  const payload = eventEnd + (isBinary ? binaryHead : payloadHead).length
  const from = json.slice(sender + ',"sender":'.length, sentAt)
  return {
    id,
    event: json.slice(event, eventEnd),
    isBinary,
    payload: json.slice(payload, sender),
    sender: from === 'null' ? null : from,
    sentAt: json.slice(sentAt + ',"sentAt":"'.length, json.indexOf('"', sentAt + ',"sentAt":"'.length)),
  }
}

const eventHead = '","event":'
const binaryHead = ',"binary":'
const payloadHead = ',"payload":'

/** @param start of its first quote. @returns behind its last */
function endOfString(json: string, start: number): number {
  let at = start + 1
  while (json[at] !== '"') at += json[at] === '\\' ? 2 : 1
  return at + 1
}

const metaOf = ({ id, sender }: Pick<MessageParts, 'id' | 'sender'>, isReplayed: boolean): string =>
  `{"id":"${id}"${sender === null ? '' : `,"sender":${sender}`}${isReplayed ? ',"replayed":true' : ''}}`

/** What a frame of kind 4 has one byte of length for. */
const fits = (text: string): boolean => Buffer.byteLength(text) <= 255

const isMap = (value: Json): value is { [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const notBroadcast = (why: string, cause?: unknown): TidegateError =>
  new TidegateError('BAD_FRAME', `no broadcast: ${why}; send {"type":"broadcast","event":...,"payload":{...}}`, {
    cause,
  })
