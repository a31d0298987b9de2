// Reads the bodies by which messages are sent over HTTP: one message, a list of them, or bytes. Pure.
import { z } from 'zod'
import type { Send } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelName } from '../channels/message.ts'
import { sendShape } from './channel-schema.ts'
import { parseShape } from './parse-shape.ts'

/** Messages of one request. */
export const maxMessages = 100

export interface Posted {
  readonly channel: ChannelName
  readonly send: Send
}

export interface PostedBody {
  readonly messages: readonly Posted[]
  /** One message, whose answer is its own and no list. */
  readonly isSingle: boolean
}

/** What the URL and the headers say for every message that does not say it itself. */
export interface PostedDefaults {
  readonly idempotencyKey: string | null
  /** `pg_current_xact_id()` */
  readonly after: string | null
}

export const sendSchema = z.strictObject(sendShape)
const listSchema = z.array(sendSchema).min(1).max(maxMessages)
export const batchSchema = z.strictObject({
  messages: z
    .array(z.strictObject({ topic: z.string(), private: z.boolean().optional(), ...sendShape }))
    .min(1)
    .max(maxMessages),
})

/** Of `POST /v1/channels/<topic>`: a message or a list of them. @throws BAD_FRAME */
export function postedTo(channel: ChannelName, body: string, defaults: PostedDefaults): PostedBody {
  const isSingle = !/^\s*\[/.test(body)
  const sends = isSingle
    ? [parseShape(body, sendSchema, 'the body') as Send]
    : (parseShape(body, listSchema, 'the body') as Send[])
  return { messages: withDefaults(sends, isSingle, defaults).map(send => ({ channel, send })), isSingle }
}

/** Of `POST /v1/channels`, each message with its topic. @throws BAD_FRAME */
export function postedAnywhere(body: string, defaults: PostedDefaults): PostedBody {
  const { messages } = parseShape(body, batchSchema, 'the body')
  const channels = messages.map(one => ({ topic: one.topic, isPrivate: one.private ?? true }))
  const sends = messages.map(({ topic: _, private: __, ...send }) => send as Send)
  const all = withDefaults(sends, false, defaults)
  return { messages: all.map((send, place) => ({ channel: channels[place]!, send })), isSingle: false }
}

/** Of a body of bytes. @throws BAD_FRAME without an event */
export function postedBytes(
  channel: ChannelName,
  body: Buffer,
  event: string | null,
  defaults: PostedDefaults,
): PostedBody {
  const send = sendSchema.safeParse({ event, binary: body.toString('base64') })
  if (!send.success) throw new TidegateError('BAD_FRAME', 'bytes take a ?event= of 1 to 255 characters')
  return {
    messages: withDefaults([send.data as Send], true, defaults).map(one => ({ channel, send: one })),
    isSingle: true,
  }
}

/** One key for several messages numbers them: tried again, each is known. */
export function withDefaults(
  sends: readonly Send[],
  isSingle: boolean,
  { idempotencyKey, after }: PostedDefaults,
): Send[] {
  return sends.map((send, place) => ({
    ...(idempotencyKey === null ? {} : { idempotencyKey: isSingle ? idempotencyKey : `${idempotencyKey}:${place}` }),
    ...(after === null ? {} : { after }),
    ...send,
  }))
}
