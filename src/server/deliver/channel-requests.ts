// Requests about channels that are answered at once: sending, who is there, what was said.
import type { IncomingMessage } from 'node:http'
import { peerCodes, type ResyncCode, resyncCodes } from '../../protocol/codes.ts'
import { formatPosition, type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Caller, ChannelDoor, HistoryPart } from '../channels/door.ts'
import { listJson, messageJson } from '../channels/event-json.ts'
import { channelKey } from '../channels/message.ts'
import type { HistoryRange } from '../channels/relay/channel-relay.ts'
import { type PublishedAnswer, publishedOf } from './ask.ts'
import { type Posted, type PostedBody, postedAnywhere, postedBytes, postedTo } from './channel-body.ts'
import { sendRequestOf } from './channel-request.ts'
import { channelNameOf, numberOf, positionOf, refuseOthers, single } from './channel-url.ts'
import { connectionNameOf } from './connection-name.ts'
import { type Exchange, readBytes } from './exchange.ts'
import { doorOf } from './membership.ts'
import { type Refusal, refused } from './refusal.ts'
import type { Services } from './services.ts'

export interface Answered {
  readonly status: number
  readonly body: string
}

export const maxPage = 1000
const defaultPage = 100

const sendParameters = new Set(['private', 'event', 'after', 'ticket', 'poll'])
const batchParameters = new Set(['after', 'ticket', 'poll'])
const presenceParameters = new Set(['private', 'after', 'limit', 'ticket'])
const historyParameters = new Set(['private', 'after', 'before', 'last', 'limit', 'ticket'])

/** @param topic of the path, still percent-encoded; null where each message names its own
 *  @throws what `ChannelDoor.publish` throws for a single message; BAD_FRAME, PARAMETER_INVALID, TOPIC_INVALID, CHANNELS_OFF */
export async function answerSend(
  services: Services,
  { request, parameters }: Exchange,
  { principal }: Caller,
  topic: string | null,
): Promise<Answered> {
  const door = doorOf(services.channels)
  refuseOthers(parameters, [topic === null ? batchParameters : sendParameters])
  // Of a client that polls, so that its own messages do not come back to it.
  const poll = single(parameters, 'poll')
  const caller: Caller = { principal, connection: poll === null ? null : connectionNameOf(poll, principal) }
  const body = await readBytes(request, services.limits.maxFrameBytes)
  const defaults = {
    idempotencyKey: idempotencyKeyOf(request),
    after: single(parameters, 'after'),
  }
  let posted: PostedBody
  if (topic === null) posted = postedAnywhere(body.toString(), defaults)
  else {
    const channel = channelNameOf(topic, parameters)
    const event = single(parameters, 'event')
    const isBytes = /^application\/octet-stream\b/i.test(request.headers['content-type'] ?? '')
    if (isBytes) posted = postedBytes(channel, body, event, defaults)
    else if (event === null) posted = postedTo(channel, body.toString(), defaults)
    else
      throw new TidegateError(
        'PARAMETER_INVALID',
        'event goes with Content-Type: application/octet-stream; JSON has it inside',
      )
  }
  const [first] = posted.messages
  if (posted.isSingle) return { status: 200, body: JSON.stringify(await publish(door, caller, first!)) }
  const results = await publishAll(services, door, caller, posted.messages)
  const failed = results.filter(result => 'error' in result)
  const status = failed.length < results.length ? 200 : peerCodes[failed[0]!.error.code].status
  return { status, body: JSON.stringify({ results }) }
}

/** Of its list too: a number is put behind it. */
const maxKeyChars = 250

/** @throws BAD_FRAME */
export function idempotencyKeyOf({ headers }: IncomingMessage): string | null {
  const key = headers['idempotency-key']
  if (typeof key !== 'string' || key === '') return null
  if (key.length <= maxKeyChars) return key
  throw new TidegateError('BAD_FRAME', `Idempotency-Key has ${key.length} characters; it may have ${maxKeyChars}`)
}

async function publish(door: ChannelDoor, caller: Caller, { channel, send }: Posted): Promise<PublishedAnswer> {
  return publishedOf(await door.publish(caller, channel, sendRequestOf(send)))
}

export type Result = PublishedAnswer | { readonly error: Refusal }

/** Those of one channel one after the other, in their order; channels do not wait for each other. */
export async function publishAll(
  services: Services,
  door: ChannelDoor,
  caller: Caller,
  messages: readonly Posted[],
): Promise<Result[]> {
  const lines = new Map<string, Promise<unknown>>()
  return Promise.all(
    messages.map(posted => {
      const key = channelKey(posted.channel)
      const before = lines.get(key) ?? Promise.resolve()
      const result = before
        .then(() => publish(door, caller, posted))
        .catch((error: unknown) => ({ error: refused(services, error) }))
      lines.set(key, result)
      return result
    }),
  )
}

/** @throws CHANNEL_REFUSED, PRESENCE_OFF, PARAMETER_INVALID, TOPIC_INVALID, CHANNELS_OFF */
export async function answerPresence(
  services: Services,
  { parameters }: Exchange,
  caller: Caller,
  topic: string,
): Promise<Answered> {
  const door = doorOf(services.channels)
  refuseOthers(parameters, [presenceParameters])
  const limit = numberOf(parameters, 'limit', maxPage) ?? defaultPage
  const page = { after: single(parameters, 'after'), limit }
  const { count, entries } = await door.present(caller, channelNameOf(topic, parameters), page)
  const next = entries.length < limit ? null : entries.at(-1)!.ref
  return { status: 200, body: `{"count":${count},"members":${listJson(entries)},"next":${JSON.stringify(next)}}` }
}

/** @throws CHANNEL_REFUSED, HISTORY_OFF, PARAMETER_INVALID, POSITION_INVALID, TOPIC_INVALID, CHANNELS_OFF */
export async function answerHistory(
  services: Services,
  { parameters }: Exchange,
  caller: Caller,
  topic: string,
): Promise<Answered> {
  const door = doorOf(services.channels)
  refuseOthers(parameters, [historyParameters])
  const [after, before] = [positionOf(parameters, 'after'), positionOf(parameters, 'before')]
  const last = numberOf(parameters, 'last', maxPage)
  const limit = numberOf(parameters, 'limit', maxPage)
  if ([after, before, last].filter(given => given !== null).length > 1 || (last !== null && limit !== null)) {
    throw new TidegateError('PARAMETER_INVALID', 'give after or before with a limit, or last')
  }
  const range: HistoryRange =
    after !== null
      ? { after: after.lsn, limit: limit ?? defaultPage }
      : { before: before?.lsn ?? null, limit: last ?? limit ?? defaultPage }
  const part = await door.history(caller, channelNameOf(topic, parameters), range)
  return { status: 200, body: historyJson(part, after, before) }
}

function historyJson(part: HistoryPart, after: Position | null, before: Position | null): string {
  const { epoch, seq, first, looked } = part
  const textOf = (number: bigint): string => formatPosition({ epoch, lsn: number, index: WHOLE_COMMIT })
  const asked = after ?? before
  const isOther = asked !== null && asked.epoch !== epoch
  // Numbers of another epoch say nothing about these messages.
  const messages = isOther ? [] : part.messages
  let next: bigint | null = null
  if (looked !== null && !isOther) {
    if (after !== null) next = looked.last < seq ? looked.last : null
    else next = looked.first > first ? looked.first : null
  }
  const resync = isOther
    ? resyncOf('HISTORY_LOST')
    : after !== null && after.lsn + 1n < first
      ? resyncOf('HISTORY_PASSED')
      : ''
  const list = messages.map(message => `{"position":"${textOf(message.seq)}",${messageJson(message).slice(1)}`)
  return `{"messages":[${list.join(',')}],"position":"${textOf(seq)}","next":${next === null ? null : `"${textOf(next)}"`}${resync}}`
}

const resyncOf = (code: ResyncCode): string => `,"resync":${JSON.stringify({ code, reason: resyncCodes[code] })}`
