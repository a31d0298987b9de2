// Presence of Supabase's clients as that of a channel, and back. Pure.
import { z } from 'zod'
import type { ClientFrame, Json, PresenceEvent, PresenceMember } from '../../../protocol/messages.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Outgoing } from '../../subscribe/subscription.ts'
import { trackShape } from '../channel-schema.ts'
import { MadeOnce } from './made-once.ts'
import { messageFrame } from './serializer.ts'
import type { Vsn } from './wire.ts'

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

/** What tells the same of its client in another session, without anybody who waits for the answer; null where it tells nothing. */
export function trackedAnew(frame: ClientFrame): ClientFrame | null {
  if (frame.type !== 'track') return null
  const { ref: _, ...track } = frame
  return track
}

const trackSchema = z.strictObject(trackShape)

/** What a client that joins holds of who was in the channel: none; what was true when it was here last; or either. */
export type HeldPresence = 'none' | 'older' | 'unknown'

/** What one client was told of who is in its channel. */
export class PresenceTold {
  readonly #vsn: Vsn
  readonly #topic: string
  #held: HeldPresence
  #isListed = true

  /** @param topic with its prefix: `realtime:room:1` */
  constructor(vsn: Vsn, topic: string, held: HeldPresence) {
    this.#vsn = vsn
    this.#topic = topic
    this.#held = held
  }

  /** It was here before. */
  cameBack(): void {
    this.#held = 'older'
  }

  /** @param outgoing a `presence` of its channel
   *  @returns whole WebSocket frames, one after the other; empty where there is nothing to tell. Where more are there than the rule
   *  lists it is told of nobody, and once by a `system` error why */
  framesOf(outgoing: Outgoing): Buffer {
    const { event, payload, unlisted } = messages.of(outgoing, '', () => presenceMessageOf(outgoing.json))
    if (unlisted !== null) return this.#unlisted(unlisted)
    // All who are here are told once they are few enough.
    if (event === 'presence_diff' && !this.#isListed) return nothing
    const frame = this.#once(outgoing, event, () => payload)
    if (event === 'presence_diff') return frame
    const held = this.#held
    this.#isListed = true
    this.#held = 'older'
    // A state alone leaves a client the metas that it has of a ref, although a member may have told something else of itself since.
    // A diff puts the new ones in their place, and seems to be a join of each: for one that holds nothing it would be the second.
    if (held === 'older')
      return Buffer.concat([frame, this.#once(outgoing, 'presence_diff', () => `{"joins":${payload},"leaves":{}}`)])
    return held === 'none' ? frame : Buffer.concat([this.#frame('presence_state', '{}'), frame])
  }

  #unlisted(count: number): Buffer {
    if (!this.#isListed) return nothing
    this.#isListed = false
    this.#held = 'none'
    return Buffer.concat([this.#frame('presence_state', '{}'), this.#frame('system', this.#noticeOf(count))])
  }

  #once(outgoing: Outgoing, event: PresenceMessage['event'], payload: () => string): Buffer {
    return frames.of(outgoing, `${this.#vsn} ${event} ${this.#topic}`, () => this.#frame(event, payload()))
  }

  #frame(event: string, payload: string): Buffer {
    return messageFrame(this.#vsn, { joinRef: null, ref: null, topic: this.#topic, event, payload })
  }

  #noticeOf(count: number): string {
    const message = `PresenceNotListed: ${count} are here, more than the listUpTo of the channel's rule`
    return JSON.stringify({
      extension: 'presence',
      status: 'error',
      message,
      channel: this.#topic.replace(/^realtime:/, ''),
    })
  }
}

const nothing = Buffer.alloc(0)
const messages = new MadeOnce<Outgoing, PresenceMessage>()
const frames = new MadeOnce<Outgoing, Buffer>()

export interface PresenceMessage {
  readonly event: 'presence_state' | 'presence_diff'
  /** JSON text. */
  readonly payload: string
  /** How many are there, where they are too many to be listed: then the state is empty. */
  readonly unlisted: number | null
}

/** @param json a PresenceEvent
 *  @returns all who are here as a state, else a diff: an update is a join of the `phx_ref` that it updates, which clients put in the
 *  place of the one they have */
export function presenceMessageOf(json: string): PresenceMessage {
  const { here, joined = [], updated = [], left = [], count } = JSON.parse(json) as PresenceEvent
  if (here !== undefined) return { event: 'presence_state', payload: listOf(here), unlisted: null }
  if (joined.length + updated.length + left.length === 0)
    return { event: 'presence_state', payload: '{}', unlisted: count }
  const payload = `{"joins":${listOf([...joined, ...updated])},"leaves":${listOf(left)}}`
  return { event: 'presence_diff', payload, unlisted: null }
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
