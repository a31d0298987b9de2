// Presence of Supabase's clients as that of a channel, and back. Pure.
import { z } from 'zod'
import type { ClientFrame, Json, PresenceEvent, PresenceMember } from '../../../protocol/messages.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import { trackShape } from '../channel-schema.ts'

/** @param payload of a `presence`: `{"type":"presence","event":"track","payload":{...}}`, or `untrack`; in any case of letters
 *  @param key as the join named it; null: the server names it
 *  @throws BAD_FRAME, whose message is the reason that clients know where it is no map */
export function trackFrameOf(
  payload: Json,
  ids: { readonly id: number; readonly ref: number },
  key: string | null,
): Extract<ClientFrame, { type: 'track' | 'untrack' }> {
  const { event, payload: meta = {} } = isMap(payload) ? payload : {}
  const name = typeof event === 'string' ? event.toLowerCase() : null
  if (name === 'untrack') return { type: 'untrack', ...ids }
  if (name !== 'track') throw new TidegateError('BAD_FRAME', 'presence takes the events track and untrack')
  if (!isMap(meta)) throw new TidegateError('BAD_FRAME', 'Presence track payload must be a map')
  if (key !== null && isOfObjects(key))
    throw new TidegateError('BAD_FRAME', `a presence key ${JSON.stringify(key)} breaks clients of JavaScript`)
  const track = trackSchema.safeParse({ meta, ...(key === null ? {} : { key }) })
  if (!track.success)
    throw new TidegateError('BAD_FRAME', `presence cannot tell this: ${track.error.issues[0]?.message.slice(0, 200)}`)
  return { type: 'track', ...ids, meta, ...(key === null ? {} : { key }) }
}

const trackSchema = z.strictObject(trackShape)

export interface PresenceMessage {
  readonly event: 'presence_state' | 'presence_diff'
  /** JSON text. */
  readonly payload: string
}

/** @param json a PresenceEvent. Where it holds a count alone, nobody is listed
 *  @returns all who are here as a state, else a diff: an update is a join of the `phx_ref` that it updates, which clients put in the
 *  place of the one they have */
export function presenceMessageOf(json: string): PresenceMessage {
  const { here, joined = [], updated = [], left = [], ...rest } = JSON.parse(json) as PresenceEvent
  const isCountOnly = joined.length + updated.length + left.length === 0 && rest.count > 0
  if (here !== undefined || isCountOnly) return { event: 'presence_state', payload: listOf(here ?? []) }
  return {
    event: 'presence_diff',
    payload: `{"joins":${listOf([...joined, ...updated])},"leaves":${listOf(left)}}`,
  }
}

/** By key, in the order in which they came. JSON text. */
function listOf(members: readonly PresenceMember[]): string {
  const metas = new Map<string, string[]>()
  for (const member of members) {
    const key = shownKey(member.key)
    const list = metas.get(key)
    if (list === undefined) metas.set(key, [metaOf(member)])
    else list.push(metaOf(member))
  }
  const parts = Array.from(metas, ([key, list]) => `${JSON.stringify(key)}:{"metas":[${list.join(',')}]}`)
  return `{${parts.join(',')}}`
}

/** A meta that is no map, which clients of other wires may track, stands under `meta`. The last of two equal names holds for who parses it. */
function metaOf({ ref, meta }: PresenceMember): string {
  const text = JSON.stringify(isMap(meta) ? meta : { meta })
  return `${text.slice(0, -1)}${text === '{}' ? '' : ','}"phx_ref":${JSON.stringify(ref)}}`
}

/** Clients hold members in a plain object, where a key that every object has is not theirs: one such member, and they fail at all. */
const isOfObjects = (key: string): boolean => key in {}

const shownKey = (key: string): string =>
  isOfObjects(key) ? `%${key.charCodeAt(0).toString(16).toUpperCase()}${key.slice(1)}` : key

const isMap = (value: Json | undefined): value is { [key: string]: Json } =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
