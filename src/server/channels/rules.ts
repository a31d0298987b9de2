// What holds for which channels, and which rule is a channel's.
import type { ChannelEntry } from '../config/channel-entries.ts'
import { matchesTopic } from '../config/topic-pattern.ts'
import type { ChannelName } from './message.ts'

export interface HistoryRule {
  /** Messages kept, and for how long. */
  readonly length: number
  readonly ageMs: number
}

export interface PresenceRule {
  /** A connection that broke may come back so long without a leave. */
  readonly graceMs: number
  /** Changes are gathered so long before they are told. */
  readonly diffMs: number
  /** Above so many members only their count is told; their list can be asked for in pages. */
  readonly listUpTo: number
  /** Bytes of what a member tells of itself. */
  readonly maxMetaBytes: number
  /** Keys are the token's subject; false: whatever the client chooses. */
  readonly boundToSubject: boolean
}

/** What happens to messages for a connection that takes them too slowly: kept up to a bound, past which it is closed; the oldest
 *  dropped, and how many told; or only the newest of each event kept. */
export type Backpressure = 'buffer' | 'drop-oldest' | 'latest'

export interface ChannelRule {
  /** `room:*`: `*` stands for any text. */
  readonly pattern: string
  /** Whoever has a valid token may come and send to the public channel of the topic. */
  readonly isPublic: boolean
  readonly history: HistoryRule | null
  /** Null: nobody can be present. */
  readonly presence: PresenceRule | null
  readonly backpressure: Backpressure
  /** Bytes of messages that wait for one slow member, beside its connection's queue. */
  readonly bufferBytes: number
  /** Of one connection to one topic. Past it sends are delayed, far past it refused. */
  readonly rate: { readonly perSecond: number; readonly burst: number }
  /** Bytes of a payload's JSON text. */
  readonly maxPayloadBytes: number
  /** How long an idempotency key is remembered. */
  readonly idempotencyMs: number
}

/** Of a topic that no pattern matches, and of what an entry leaves out. */
export const defaultRule = {
  pattern: '*',
  isPublic: false,
  history: null,
  presence: { graceMs: 10_000, diffMs: 100, listUpTo: 1000, maxMetaBytes: 4096, boundToSubject: true },
  backpressure: 'buffer',
  bufferBytes: 1024 * 1024,
  rate: { perSecond: 20, burst: 60 },
  // What fits into a frame of 64 KiB, as MAX_FRAME_BYTES has it, beside its other fields.
  maxPayloadBytes: 63 * 1024,
  idempotencyMs: 300_000,
} as const satisfies ChannelRule

/** What holds for the private and for the public channel of a topic. Where no rule opens the public one, there is one all the same for
 *  whom the wire lets in: it keeps nothing, or anybody could fill the histories under ever new topics. */
class RulePair {
  readonly private: ChannelRule
  readonly public: ChannelRule

  constructor(rule: ChannelRule) {
    this.private = rule
    this.public = rule.isPublic || rule.history === null ? rule : { ...rule, history: null }
  }
}

const defaultPair = new RulePair(defaultRule)

/** The rules of one configuration, in its order. */
export class ChannelRules {
  readonly #pairs: readonly RulePair[]
  readonly #maxTopics: number
  /** By topic, at most `maxTopics`: past it, the one that was asked for first goes. */
  readonly #known = new Map<string, RulePair>()

  constructor(entries: readonly ChannelEntry[], maxTopics = 10_000) {
    this.#pairs = entries.map(entry => new RulePair(ruleOf(entry)))
    this.#maxTopics = maxTopics
  }

  /** The rule of the first pattern that matches. The same object for the same channel, and for all of one pattern. */
  of({ topic, isPrivate }: ChannelName): ChannelRule {
    const pair = this.#pairOf(topic)
    return isPrivate ? pair.private : pair.public
  }

  #pairOf(topic: string): RulePair {
    if (this.#pairs.length === 0) return defaultPair
    const known = this.#known.get(topic)
    if (known !== undefined) return known
    const pair = this.#pairs.find(({ private: { pattern } }) => matchesTopic(pattern, topic)) ?? defaultPair
    if (this.#known.size >= this.#maxTopics) this.#known.delete(this.#known.keys().next().value!)
    this.#known.set(topic, pair)
    return pair
  }
}

function ruleOf({ public: isPublic = defaultRule.isPublic, history, presence, ...given }: ChannelEntry): ChannelRule {
  return {
    ...defaultRule,
    ...given,
    isPublic,
    history: history || null,
    presence: presence === false ? null : { ...defaultRule.presence, ...(presence === true ? {} : presence) },
  }
}
