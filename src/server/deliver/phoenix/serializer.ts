// Frames of the Phoenix wire as bytes, of both versions. Pure.
//
// 1.0.0 is JSON objects, 2.0.0 JSON arrays `[join_ref, ref, topic, event, payload]`, and binary frames, which only their first byte
// tells apart. Sizes are one unsigned byte each; the last field is the rest of the frame.
//
//   0  push            c -> s   join_ref, ref, topic and event sizes; then they; data
//   3  user broadcast  c -> s   join_ref, ref, topic, event and meta sizes, encoding; then they; payload
//   4  user broadcast  s -> c   topic, event and meta sizes, encoding; then they; payload
//
// `encoding` is 0 for bytes, 1 for JSON text. Clients of 2025 know no meta in kind 3: their encoding stands where the size of meta
// stands now, and right behind it a character of the join_ref, ref or topic. No character of those is below a space, so the byte
// behind tells one from the other. The same clients write text one byte per UTF-16 unit.
import { isUtf8 } from 'node:buffer'
import type { Json } from '../../../protocol/messages.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import { binaryFrame, textFrame } from '../encode.ts'
import type { Incoming, OutgoingMessage, Vsn } from './wire.ts'

const kinds = { push: 0, userBroadcastPush: 3, userBroadcast: 4 } as const

/** A frame nested deeper is refused: whoever writes it again by recursion gives up somewhere below. A payload may be nested less
 *  deep, which who takes it looks at. */
const maxDepth = 128

const maxSize = 255

/** @param data one message of the socket. Bytes of a binary payload are a view of it
 *  @returns refs as strings, numbers too; null where there is none. A payload left out is `{}`
 *  @throws BAD_FRAME */
export function parseIncoming(data: Buffer, isBinary: boolean, vsn: Vsn): Incoming {
  if (!isBinary) return parseText(data, vsn)
  if (vsn === '1.0.0') throw badFrame('vsn 1.0.0 has no binary frames')
  if (data[0] === kinds.push) return parsePush(data)
  if (data[0] === kinds.userBroadcastPush) return parseUserBroadcast(data)
  throw badFrame(data.length === 0 ? 'it is empty' : `a client sends no binary frame of kind ${data[0]}`)
}

function parseText(data: Buffer, vsn: Vsn): Incoming {
  if (isTooDeep(data)) throw badFrame(`it is nested deeper than ${maxDepth}`)
  let parsed: Json
  try {
    parsed = JSON.parse(data.toString()) as Json
  } catch (cause) {
    throw badFrame('it is not JSON', cause)
  }
  if (vsn === '2.0.0') {
    if (!Array.isArray(parsed)) throw badFrame('vsn 2.0.0 takes [join_ref, ref, topic, event, payload]')
    const [joinRef, ref, topic, event, payload] = parsed
    return incomingOf(joinRef, ref, topic, event, payload)
  }
  if (typeof parsed !== 'object' || parsed === null || Array.isArray(parsed))
    throw badFrame('vsn 1.0.0 takes {topic, event, payload, ref, join_ref}')
  return incomingOf(parsed.join_ref, parsed.ref, parsed.topic, parsed.event, parsed.payload)
}

type Maybe = Json | undefined

function incomingOf(joinRef: Maybe, ref: Maybe, topic: Maybe, event: Maybe, payload: Maybe): Incoming {
  if (typeof topic !== 'string') throw badFrame('its topic is no text')
  if (typeof event !== 'string') throw badFrame('its event is no text')
  return { joinRef: refOf(joinRef), ref: refOf(ref), topic, event, payload: payload === undefined ? {} : payload }
}

function refOf(ref: Maybe): string | null {
  // A ref is repeated in every answer: a long one would be a large answer to each small frame.
  if (typeof ref === 'string' && ref.length > maxSize) throw badFrame(`a ref has more than ${maxSize} characters`)
  if (typeof ref === 'string') return ref
  return typeof ref === 'number' ? String(ref) : null
}

function parsePush(data: Buffer): Incoming {
  const { texts, bytes } = fieldsOf(data, 5, data.subarray(1, 5))
  const [joinRef, ref, topic, event] = texts as [string, string, string, string]
  return {
    joinRef: joinRef || null,
    ref: ref || null,
    topic,
    event,
    payload: { bytes, userEvent: null, isJson: false },
  }
}

function parseUserBroadcast(data: Buffer): Incoming {
  const hasMeta = isEncoding(data[6])
  const encoding = hasMeta ? data[6] : data[5]
  if (!isEncoding(encoding)) throw badFrame('its encoding is neither 0 nor 1')
  const { texts, bytes } = hasMeta ? fieldsOf(data, 7, data.subarray(1, 6)) : fieldsOf(data, 6, data.subarray(1, 5))
  const [joinRef, ref, topic, userEvent] = texts as [string, string, string, string]
  return {
    joinRef: joinRef || null,
    ref: ref || null,
    topic,
    event: 'broadcast',
    payload: { bytes, userEvent, isJson: encoding === 1, ...(asksToStore(texts[4]) ? { isStored: true } : {}) },
  }
}

/** @param meta JSON text, or empty: `{"persist":true}`, `{"persist":{"ttl":60}}` */
function asksToStore(meta = ''): boolean {
  try {
    return meta !== '' && Boolean((JSON.parse(meta) as { persist?: unknown } | null)?.persist)
  } catch {
    return false
  }
}

const isEncoding = (byte: number | undefined): boolean => byte === 0 || byte === 1

/** @param start where the first field begins @param sizes of the fields, in their order; what follows them is `bytes` */
function fieldsOf(data: Buffer, start: number, sizes: Uint8Array): { texts: string[]; bytes: Uint8Array } {
  const texts: string[] = []
  let end = start
  for (const size of sizes) {
    texts.push(textOf(data.subarray(end, end + size)))
    end += size
  }
  if (end > data.length) throw badFrame(`its fields have ${end} bytes, it has ${data.length}`)
  return { texts, bytes: data.subarray(end) }
}

const textOf = (bytes: Buffer): string => bytes.toString(isUtf8(bytes) ? 'utf8' : 'latin1')

/** Of JSON text; of anything else the answer does not matter. */
function isTooDeep(text: Buffer): boolean {
  if (text.length <= maxDepth) return false
  let depth = 0
  let isInString = false
  for (let at = 0; at < text.length; at++) {
    const byte = text[at]
    if (byte === quote) isInString = !isInString
    else if (isInString) {
      if (byte === backslash) at++
    } else if (byte === openBracket || byte === openBrace) {
      if (++depth > maxDepth) return true
    } else if (byte === closeBracket || byte === closeBrace) depth--
  }
  return false
}

const quote = 0x22
const backslash = 0x5c
const openBracket = 0x5b
const closeBracket = 0x5d
const openBrace = 0x7b
const closeBrace = 0x7d

/** @returns a whole WebSocket text frame. 1.0.0 has no join_ref */
export const messageFrame = (vsn: Vsn, message: OutgoingMessage): Buffer => textFrame(messageText(vsn, message))

export function messageText(vsn: Vsn, { joinRef, ref, topic, event, payload }: OutgoingMessage): string {
  const names = `${JSON.stringify(topic)},${vsn === '1.0.0' ? '"event":' : ''}${JSON.stringify(event)}`
  if (vsn === '1.0.0') return `{"topic":${names},"payload":${payload},"ref":${JSON.stringify(ref)}}`
  return `[${JSON.stringify(joinRef)},${JSON.stringify(ref)},${names},${payload}]`
}

/** @param topic with its prefix: `realtime:room:1`
 *  @param meta JSON text, or empty; left out where it has more than 255 bytes: the message counts for more than what is said of it
 *  @param isJson the bytes are JSON text
 *  @returns a whole WebSocket binary frame of kind 4
 *  @throws FRAME_TOO_LARGE for a topic or event of more than 255 bytes, which kind 4 has no way to say */
export function userBroadcastFrame(
  topic: string,
  userEvent: string,
  meta: string,
  isJson: boolean,
  bytes: Uint8Array,
): Buffer {
  const fields = [fieldOf('topic', topic), fieldOf('event', userEvent), Buffer.from(meta)]
  if (fields[2]!.length > maxSize) fields[2] = Buffer.alloc(0)
  const sizes = fields.map(field => field.length)
  return binaryFrame(Buffer.concat([Uint8Array.of(kinds.userBroadcast, ...sizes, isJson ? 1 : 0), ...fields, bytes]))
}

function fieldOf(name: string, text: string): Buffer {
  const bytes = Buffer.from(text)
  if (bytes.length <= maxSize) return bytes
  throw new TidegateError(
    'FRAME_TOO_LARGE',
    `the ${name} of a binary broadcast may have ${maxSize} bytes, not ${bytes.length}`,
  )
}

const badFrame = (fault: string, cause?: unknown): TidegateError =>
  new TidegateError('BAD_FRAME', `the frame is none of Phoenix: ${fault}`, { cause })
