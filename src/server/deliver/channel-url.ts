// Reads the URLs of channels: streams and polls of one or several, and what is asked of one. Pure.
import { z } from 'zod'
import type { Track } from '../../protocol/messages.ts'
import { type Position, parsePosition, parseQueryPositions, type QueryPosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelRequest } from '../channels/door.ts'
import { type ChannelName, channelKey } from '../channels/message.ts'
import { trackRequestOf } from './channel-request.ts'
import { maxLast, trackShape } from './channel-schema.ts'
import { parseStreamPosition } from './stream-position.ts'
import type { StreamRequest } from './url.ts'

export interface ChannelStreamRequest extends StreamRequest<ChannelRequest> {
  /** What a client that polls was given, so that its polls are one connection to others. */
  readonly poll: string | null
  /** What it was given with the last list of who is there. */
  readonly here: string | null
}

const streamParameters = new Set(['c', 'after', 'wait', 'ticket', 'poll', 'here'])
const channelParameters = new Set(['private', 'self', 'presence', 'last', 'track', 'key'])

/** @param topic the path behind `/v1/channels/`, still percent-encoded; null for a stream of several channels
 *  @param lastEventId the header: an EventSource that comes back repeats its first URL, so it goes before `after`
 *  @throws PARAMETER_INVALID, TOPIC_INVALID, POSITION_INVALID, TOO_MANY_SUBSCRIPTIONS, ALREADY_SUBSCRIBED */
export function parseChannelsUrl(options: {
  readonly topic: string | null
  readonly parameters: URLSearchParams
  readonly lastEventId: string | null
  readonly maxChannels: number
}): ChannelStreamRequest {
  const { topic, parameters, maxChannels } = options
  const after = options.lastEventId || single(parameters, 'after')
  const parts = topic === null ? parameters.getAll('c') : []
  const count = topic === null ? parts.length : 1
  if (count === 0) {
    throw invalid('name a channel, /v1/channels/<topic>, or channels, /v1/channels?c=<topic?...>')
  }
  if (count > maxChannels) {
    throw new TidegateError('TOO_MANY_SUBSCRIPTIONS', `the URL asks for ${count} channels; the limit is ${maxChannels}`)
  }
  const positions = after === null ? [] : parseStreamPosition(after, count)
  let asked: ChannelRequest[]
  if (topic === null) {
    refuseOthers(parameters, [streamParameters])
    asked = parts.map((part, place) => channelOf(part, positions[place] ?? null))
  } else {
    if (parameters.has('c')) throw invalid('c goes without a topic: /v1/channels?c=...')
    refuseOthers(parameters, [streamParameters, channelParameters])
    asked = [requestOf(decodeTopic(topic), parameters, positions[0] ?? null)]
  }
  refuseTwins(asked)
  return {
    asked,
    label: topic === null ? 'c' : null,
    after,
    waitMs: waitOf(single(parameters, 'wait')),
    poll: single(parameters, 'poll'),
    here: single(parameters, 'here'),
  }
}

/** The channel of a path, and of nothing but `private` in its parameters. @throws TOPIC_INVALID, PARAMETER_INVALID */
export function channelNameOf(topic: string, parameters: URLSearchParams): ChannelName {
  return { topic: decodeTopic(topic), isPrivate: booleanOf(parameters, 'private', true) }
}

/** @throws PARAMETER_INVALID for one that is not among them */
export function refuseOthers(parameters: URLSearchParams, known: readonly ReadonlySet<string>[]): void {
  for (const name of parameters.keys())
    if (!known.some(names => names.has(name))) throw invalid(`${shown(name)} is no parameter of this address`)
}

/** @returns null where it is left out or empty. @throws PARAMETER_INVALID where it stands twice */
export function single(parameters: URLSearchParams, name: string): string | null {
  const [value, second] = parameters.getAll(name)
  if (second !== undefined) throw invalid(`${name} stands twice`)
  return value || null
}

/** @throws PARAMETER_INVALID */
export function numberOf(parameters: URLSearchParams, name: string, max: number): number | null {
  const text = single(parameters, name)
  if (text === null) return null
  const number = /^\d{1,6}$/.test(text) ? Number(text) : 0
  if (number < 1 || number > max) throw invalid(`${name}=${shown(text)}: it is a number from 1 to ${max}`)
  return number
}

/** A position in a history, with or without its tag. @throws PARAMETER_INVALID, POSITION_INVALID */
export function positionOf(parameters: URLSearchParams, name: string): Position | null {
  const text = single(parameters, name)
  if (text === null) return null
  const position = parsePosition(text) ?? parseQueryPositions(text)?.[0] ?? null
  if (position === null) throw new TidegateError('POSITION_INVALID', `${name}=${shown(text)} is no position`)
  return position
}

/** One `c`: `room:42?presence=true`. */
function channelOf(text: string, since: QueryPosition | null): ChannelRequest {
  const mark = text.indexOf('?')
  const parameters = new URLSearchParams(mark === -1 ? '' : text.slice(mark + 1))
  refuseOthers(parameters, [channelParameters])
  return requestOf(decodeTopic(mark === -1 ? text : text.slice(0, mark)), parameters, since)
}

const requestOf = (topic: string, parameters: URLSearchParams, since: QueryPosition | null): ChannelRequest => {
  const track = trackOf(parameters)
  return {
    kind: 'channel',
    channel: { topic, isPrivate: booleanOf(parameters, 'private', true) },
    self: booleanOf(parameters, 'self', false),
    presence: booleanOf(parameters, 'presence', false),
    track: track === null ? null : trackRequestOf(track),
    last: numberOf(parameters, 'last', maxLast),
    since,
  }
}

function trackOf(parameters: URLSearchParams): Track | null {
  const text = single(parameters, 'track')
  const key = single(parameters, 'key')
  if (text === null) {
    if (key !== null) throw invalid('key goes with track')
    return null
  }
  let meta: unknown
  try {
    meta = JSON.parse(text)
  } catch (cause) {
    throw invalid(`track=${shown(text)} is not JSON`, cause)
  }
  const track = trackSchema.safeParse({ meta, ...(key === null ? {} : { key }) })
  if (!track.success) throw invalid(`track or key does not fit: ${track.error.issues[0]?.message.slice(0, 200)}`)
  return track.data as Track
}

const trackSchema = z.strictObject(trackShape)

function booleanOf(parameters: URLSearchParams, name: string, otherwise: boolean): boolean {
  const text = single(parameters, name)
  if (text === null) return otherwise
  if (text !== 'true' && text !== 'false') throw invalid(`${name}=${shown(text)}: it is true or false`)
  return text === 'true'
}

function waitOf(text: string | null): number | null {
  if (text === null) return null
  if (!/^\d{1,6}(\.\d{1,3})?$/.test(text)) throw invalid(`wait=${shown(text)} is no number of seconds`)
  return Number(text) * 1000
}

function decodeTopic(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch (cause) {
    throw new TidegateError('TOPIC_INVALID', `${shown(text)} is not percent-encoded`, { cause })
  }
}

function refuseTwins(asked: readonly ChannelRequest[]): void {
  const keys = new Set<string>()
  for (const { channel } of asked) {
    const key = channelKey(channel)
    if (keys.has(key)) throw new TidegateError('ALREADY_SUBSCRIBED', `${shown(channel.topic)} stands twice in the URL`)
    keys.add(key)
  }
}

const invalid = (message: string, cause?: unknown): TidegateError =>
  new TidegateError('PARAMETER_INVALID', message, { cause })

/** What a peer sent, quoted on one line and short enough for a message. */
const shown = (text: string): string => JSON.stringify(text.slice(0, 80))
