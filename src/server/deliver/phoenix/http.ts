// Broadcasts over HTTP, as Supabase's clients and servers send them: to the addresses `/realtime/v1/api/broadcast` and, as gateways
// rewrite them, `/api/broadcast`.
//
// 202 without a body says that every message was sent, as their clients take it, and nothing else says so. Where one was not, the
// status is that of the first that was not: Supabase drops such a message and answers 202. The others of its batch may have been sent:
// `results` says which, and the same batch again under the same `Idempotency-Key` sends those that are missing. A batch that does not
// fit the published shape is refused whole, before anything is sent.
import type { IncomingMessage } from 'node:http'
import { z } from 'zod'
import { peerCodes } from '../../../protocol/codes.ts'
import type { Json } from '../../../protocol/messages.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Caller, ChannelDoor } from '../../channels/door.ts'
import type { ChannelName } from '../../channels/message.ts'
import type { Principal } from '../../subscribe/subscription.ts'
import { type Posted, sendSchema, withDefaults } from '../channel-body.ts'
import { idempotencyKeyOf, publishAll, type Result } from '../channel-requests.ts'
import { type Exchange, readBytes } from '../exchange.ts'
import { framesOfBody } from '../frame-body.ts'
import { doorOf } from '../membership.ts'
import type { AllowedOrigins } from '../origin.ts'
import type { Services } from '../services.ts'
import { principalOfToken } from './handshake.ts'

/** One message, whose payload is the body; or a batch, whose messages name their topics. */
export type BroadcastAddress =
  | { readonly kind: 'batch' }
  | { readonly kind: 'single'; readonly topic: string; readonly event: string }

/** @param path still percent-encoded, without the query. @returns null for what is none of these addresses; a topic and an event are
 *  still percent-encoded */
export function broadcastAddressOf(path: string): BroadcastAddress | null {
  const match = /^(?:\/realtime\/v1)?\/api\/broadcast(?:\/([^/]+)\/events\/([^/]+))?$/.exec(path)
  if (match === null) return null
  const [, topic, event] = match
  return topic === undefined ? { kind: 'batch' } : { kind: 'single', topic, event: event! }
}

/** No cookies are involved: a page of any origin may speak to this wire, unless origins are listed. */
export const originsOf = (allowed: AllowedOrigins): AllowedOrigins => (allowed.length === 0 ? ['*', 'null'] : allowed)

/** What the answer to a preflight allows: whatever headers it asks for, since applications add their own to the clients' and none is
 *  trusted more for it. */
export function broadcastPreflightOf({ headers }: IncomingMessage): Record<string, string> {
  const asked = headers['access-control-request-headers'] ?? ''
  const isList = asked.length <= 2000 && /^[\w!#$%&'*+.^`|~-]+(?: *, *[\w!#$%&'*+.^`|~-]+)*$/.test(asked)
  return {
    Allow: 'POST, OPTIONS',
    'Access-Control-Allow-Methods': 'POST, OPTIONS',
    'Access-Control-Allow-Headers': isList ? asked : 'authorization, apikey, content-type, x-client-info',
    'Access-Control-Max-Age': '600',
    Vary: 'Origin, Access-Control-Request-Headers',
  }
}

/** Who asks: by `Authorization: Bearer`, else by the header `apikey`. Either is a token or a key of `API_KEYS`; one that is empty is
 *  not there.
 *  @throws TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED, TOKEN_OUTDATED, ROLE_REFUSED, UNAVAILABLE */
export function broadcasterOf(services: Services, { headers }: IncomingMessage): Promise<Principal> {
  const { authorization = '', apikey = '' } = headers
  const bearer = /^Bearer(?: +(\S+))? *$/i.exec(authorization)
  if (bearer === null && authorization.trim() !== '')
    throw new TidegateError('TOKEN_INVALID', 'the Authorization header is not "Bearer <token>"')
  const token = bearer?.[1] ?? (typeof apikey === 'string' ? apikey.trim() : '')
  if (token !== '') return principalOfToken(services, token)
  throw new TidegateError('TOKEN_MISSING', 'send Authorization: Bearer <token>, or apikey: <key or token>')
}

export interface BroadcastAnswer {
  readonly status: number
  /** JSON text; empty for 202. */
  readonly body: string
  readonly retryAfterMs?: number
}

/** @throws BAD_FRAME, FRAME_TOO_LARGE, HISTORY_OFF, CHANNELS_OFF */
export async function answerBroadcast(
  services: Services,
  { request, parameters }: Exchange,
  principal: Principal,
  address: BroadcastAddress,
): Promise<BroadcastAnswer> {
  const door = doorOf(services.channels)
  const caller: Caller = { principal, connection: null, isPublicOpen: !services.supabase.isPrivateOnly }
  const { maxFrameBytes } = services.limits
  const key = idempotencyKeyOf(request)
  const type = (request.headers['content-type'] ?? '').split(';')[0]!.trim().toLowerCase()
  const isBytes = type === 'application/octet-stream' && address.kind === 'single'
  if (!isBytes && type !== 'application/json') return unsupported(type, address)
  const body = await readBytes(request, address.kind === 'batch' ? framesOfBody * maxFrameBytes : maxFrameBytes)
  let posted: Posted[]
  if (address.kind === 'batch') {
    const value = parsed(body)
    const batch = batchSchema.safeParse(value)
    if (!batch.success) return notOfShape(value, batch.error)
    posted = batch.data.messages.map(({ topic, private: isPrivate = false, event, payload }) => ({
      channel: { topic, isPrivate },
      send: { event, payload: payload as Json },
    }))
  } else {
    const channel = { topic: decoded(address.topic), isPrivate: parameters.get('private') === 'true' }
    const payload = isBytes ? { binary: body.toString('base64') } : { payload: parsed(body) }
    const send = sendSchema.safeParse({ event: decoded(address.event), ...payload })
    if (!send.success) return notOfShape(null, send.error)
    if (isStored(parameters)) await assertStores(door, caller, channel)
    posted = [{ channel, send: send.data as Posted['send'] }]
  }
  const sends = withDefaults(
    posted.map(({ send }) => send),
    posted.length === 1,
    { idempotencyKey: key, after: null },
  )
  const messages = posted.map(({ channel }, place) => ({ channel, send: sends[place]! }))
  return answerOf(await publishAll(services, door, caller, messages))
}

function answerOf(results: readonly Result[]): BroadcastAnswer {
  const failed = results.flatMap(result => ('error' in result ? [result.error] : []))
  const [first] = failed
  if (first === undefined) return { status: 202, body: '' }
  const { status } = peerCodes[first.code]
  const { retryAfterMs } = first
  const hint = retryAfterMs === undefined ? {} : { retryAfterMs }
  if (results.length === 1) return { status, body: JSON.stringify(first), ...hint }
  const message = `${failed.length} of ${results.length} messages were not sent; the first: ${first.message}`
  return { status, body: JSON.stringify({ ...first, message, results }), ...hint }
}

/** Messages of one batch. */
const maxMessages = 1000

const batchSchema = z.object({
  messages: z
    .array(
      z.object({
        topic: z.string().min(1),
        event: sendSchema.shape.event,
        payload: sendSchema.shape.payload.unwrap().refine(isMap, 'is no map'),
        private: z
          .boolean()
          .nullish()
          .transform(value => value ?? false),
      }),
    )
    .min(1)
    .max(maxMessages),
})

function isMap(value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** @throws BAD_FRAME */
function parsed(body: Buffer): Json {
  try {
    return JSON.parse(body.toString()) as Json
  } catch (cause) {
    throw new TidegateError('BAD_FRAME', 'the body is not JSON', { cause })
  }
}

/** @throws BAD_FRAME */
function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new TidegateError('BAD_FRAME', `${JSON.stringify(text.slice(0, 80))} is not percent-encoded`, { cause })
  }
}

/** `persist`, or `persist[ttl]`: the sender counts on the message being kept. */
const isStored = (parameters: URLSearchParams): boolean =>
  [...parameters].some(([name, value]) => name.startsWith('persist[') || (name === 'persist' && value !== 'false'))

/** How long, says the rule. @throws HISTORY_OFF */
async function assertStores(door: ChannelDoor, caller: Caller, channel: ChannelName): Promise<void> {
  try {
    await door.history(caller, channel, { before: null, limit: 1 })
  } catch (error) {
    // Who may send need not be one who may read.
    if (!(error instanceof TidegateError && error.code === 'CHANNEL_REFUSED')) throw error
  }
}

function unsupported(type: string, { kind }: BroadcastAddress): BroadcastAnswer {
  const takes = kind === 'batch' ? 'application/json' : 'application/json or application/octet-stream'
  return { status: 415, body: fault(`Content-Type is ${takes}, not ${JSON.stringify(type.slice(0, 80))}`) }
}

/** As Supabase tells it: by field, of a batch in a list with an empty object for each message that fits. */
function notOfShape(value: unknown, error: z.ZodError): BroadcastAnswer {
  const sent = (value as { messages?: unknown } | null)?.messages
  const byMessage = Array.isArray(sent) && sent.length <= maxMessages ? sent.map((): Faults => ({})) : []
  const faults: Faults = {}
  for (const { path, message } of error.issues) {
    const [field, place, name] = path
    const of = field === 'messages' && typeof place === 'number' ? byMessage[place] : faults
    const fieldOf = String((of === faults ? field : name) ?? 'body')
    if (of !== undefined) of[fieldOf] = [...(of[fieldOf] ?? []), message.slice(0, 200)]
  }
  const errors = byMessage.some(one => Object.keys(one).length > 0) ? { ...faults, messages: byMessage } : faults
  const [issue] = error.issues
  const where = issue?.path.length ? ` at ${issue.path.join('.').slice(0, 60)}` : ''
  return {
    status: 422,
    body: fault(`the body has not the published shape${where}: ${issue?.message.slice(0, 200)}`, { errors }),
  }
}

type Faults = { [field: string]: string[] }

const fault = (message: string, more: object = {}): string =>
  JSON.stringify({ code: 'BAD_FRAME', message, retry: false, ...more })
