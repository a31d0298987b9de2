// The relay of one node without Redis: numbers, histories and idempotency keys in memory.
//
// Bounds. Histories hold `maxBytes` over all channels; past it the oldest message of all goes, whichever channel it is of: who asks
// for it is told that the history has passed. A channel that nobody listens to is forgotten a day after its last message, or when
// it is the longest unused of more than `maxChannels`: its numbers begin anew, in another epoch. Of more than `maxKeys` idempotency
// keys the oldest is forgotten. What listeners are to be told waits for the end of the turn only.

import type { ChannelMessage, ChannelName, Draft, Published } from '../message.ts'
import { channelKey, noEpoch } from '../message.ts'
import type { PresenceDiff } from '../presence/presence.ts'
import type { HistoryRule } from '../rules.ts'
import type {
  ChannelListener,
  ChannelRelay,
  HistoryPage,
  HistoryRange,
  Listening,
  PublishOptions,
  Standing,
} from './channel-relay.ts'

export interface MemoryChannelRelayOptions {
  /** Steady milliseconds. */
  readonly now: () => number
  /** From 0 to below 1. */
  readonly random: () => number
  /** Of all channels, instead of 8 random hex digits for each. */
  readonly epoch?: string
  readonly maxBytes?: number
  readonly maxChannels?: number
  readonly maxKeys?: number
}

interface Kept {
  readonly message: ChannelMessage
  readonly atMs: number
  readonly bytes: number
}

/** Of a message that is or was kept; not the message itself, which nobody may hold longer than its history. */
interface Place {
  readonly channel: string
  readonly epoch: string
  readonly seq: bigint
}

interface ChannelState {
  readonly epoch: string
  seq: bigint
  /** Oldest first, without holes. */
  kept: Kept[]
  rule: HistoryRule | null
  usedMs: number
  /** The last that came through the WAL, and its number. */
  wal: { readonly epoch: string; readonly lsn: bigint; readonly index: number; readonly seq: bigint } | null
}

interface Waiting {
  readonly channel: string
  readonly tell: (listener: ChannelListener) => void
}

const forgetAfterMs = 86_400_000
const sweepMs = 60_000
/** What a message takes beside its payload. */
const overheadBytes = 400

export class MemoryChannelRelay implements ChannelRelay {
  readonly isHearing = true
  readonly #options: MemoryChannelRelayOptions
  readonly #maxBytes: number
  readonly #maxChannels: number
  readonly #maxKeys: number
  /** The longest unused first. */
  readonly #channels = new Map<string, ChannelState>()
  readonly #listeners = new Map<string, Set<ChannelListener>>()
  readonly #sent = new Map<string, { readonly published: Published; readonly untilMs: number }>()
  /** Every message that was kept, in order, from `#oldestAt` on; some may be gone from their channel already: at most as many as are
   *  kept, and 1,024. */
  #order: Place[] = []
  #oldestAt = 0
  #count = 0
  #bytes = 0
  #waiting: Waiting[] = []
  readonly #sweeping: NodeJS.Timeout

  constructor(options: MemoryChannelRelayOptions) {
    this.#options = options
    this.#maxBytes = options.maxBytes ?? 64 * 1024 * 1024
    this.#maxChannels = options.maxChannels ?? 100_000
    this.#maxKeys = options.maxKeys ?? 100_000
    this.#sweeping = setInterval(() => this.#sweep(), sweepMs).unref()
  }

  /** Places of messages that are or were kept. */
  get places(): number {
    return this.#order.length
  }

  get subscribed(): number {
    return this.#listeners.size
  }

  /** Bytes of all histories. */
  get bytes(): number {
    return this.#bytes
  }

  async publish(draft: Draft, options: PublishOptions): Promise<Published> {
    return this.#publish(draft, options)
  }

  async publishAll(drafts: readonly Draft[], options: (draft: Draft) => PublishOptions): Promise<readonly Published[]> {
    return drafts.map(draft => this.#publish(draft, options(draft)))
  }

  listen(channel: string, listener: ChannelListener): Listening {
    const listeners = this.#listeners.get(channel) ?? new Set()
    this.#listeners.set(channel, listeners)
    listeners.add(listener)
    const close = (): void => {
      listeners.delete(listener)
      if (listeners.size === 0 && this.#listeners.get(channel) === listeners) this.#listeners.delete(channel)
    }
    return { ready: Promise.resolve(), close }
  }

  /** Tells all who listen who came and went; in the order of messages. */
  tellPresence(channel: string, diff: PresenceDiff): void {
    this.#tell(channel, listener => listener.presence(diff))
  }

  async standing(channel: string, begin?: { readonly hasHistory: boolean }): Promise<Standing> {
    const state = begin === undefined ? this.#channels.get(channel) : this.#open(channel, begin.hasHistory)
    return state === undefined ? { epoch: noEpoch, seq: 0n } : { epoch: state.epoch, seq: state.seq }
  }

  async read(channel: string, range: HistoryRange): Promise<HistoryPage> {
    const state = this.#channels.get(channel)
    if (state === undefined) return { epoch: noEpoch, seq: 0n, first: 1n, messages: [] }
    this.#trim(state)
    const { epoch, seq, kept } = state
    const first = kept[0]?.message.seq ?? seq + 1n
    return { epoch, seq, first, messages: pageOf(kept, range).map(({ message }) => message) }
  }

  async close(): Promise<void> {
    clearInterval(this.#sweeping)
    this.#listeners.clear()
    this.#channels.clear()
    this.#sent.clear()
    this.#order = []
    this.#oldestAt = 0
    this.#count = 0
    this.#bytes = 0
  }

  #publish(draft: Draft, { history, idempotency }: PublishOptions): Published {
    const channel = channelKey(draft.channel)
    const sentKey = idempotency === null ? null : `${channel}\n${idempotency.key}`
    const before = sentKey === null ? undefined : this.#sent.get(sentKey)
    if (before !== undefined && before.untilMs > this.#options.now()) return { ...before.published, isDuplicate: true }
    const state = this.#open(channel, history !== null)
    if (isAppended(draft, state)) return { id: draft.id, epoch: state.epoch, seq: state.wal!.seq, isDuplicate: true }
    state.seq += 1n
    const message: ChannelMessage = { ...draft, epoch: state.epoch, seq: state.seq }
    if (draft.walIndex !== null) state.wal = { ...draft.stamp, index: draft.walIndex, seq: state.seq }
    this.#keep(channel, state, message, history)
    const published = { id: draft.id, epoch: state.epoch, seq: state.seq, isDuplicate: false }
    if (sentKey !== null && idempotency !== null) this.#remember(sentKey, published, idempotency.ms)
    this.#tell(channel, listener => listener.message(message))
    return published
  }

  /** The state of a channel, which is used now. */
  #open(channel: string, hasHistory: boolean): ChannelState {
    const { now, random, epoch } = this.#options
    const known = this.#channels.get(channel)
    // Behind all others in the map.
    if (known !== undefined) this.#channels.delete(channel)
    const state: ChannelState = known ?? {
      epoch: epoch ?? hexOf(random),
      // Without a history clients know only their number: one that begins anywhere is not taken for the one before.
      seq: hasHistory ? 0n : BigInt(Math.floor(random() * 2 ** 32)),
      kept: [],
      rule: null,
      usedMs: 0,
      wal: null,
    }
    state.usedMs = now()
    this.#channels.set(channel, state)
    if (this.#channels.size > this.#maxChannels) this.#forgetOne()
    return state
  }

  #keep(channel: string, state: ChannelState, message: ChannelMessage, rule: HistoryRule | null): void {
    state.rule = rule
    if (rule === null) {
      // A history with holes is none.
      this.#drop(state, state.kept.length)
      return
    }
    const kept = { message, atMs: this.#options.now(), bytes: overheadBytes + 2 * message.payload.length }
    state.kept.push(kept)
    this.#order.push({ channel, epoch: message.epoch, seq: message.seq })
    this.#count += 1
    this.#bytes += kept.bytes
    this.#trim(state)
    while (this.#bytes > this.#maxBytes) this.#dropOldest()
    this.#shorten()
  }

  /** Lets go what is past the length and age of its rule. */
  #trim(state: ChannelState): void {
    const { kept, rule } = state
    if (rule === null) return
    const leastMs = this.#options.now() - rule.ageMs
    let count = Math.max(0, kept.length - rule.length)
    while (count < kept.length && kept[count]!.atMs < leastMs) count += 1
    this.#drop(state, count)
  }

  #drop(state: ChannelState, count: number): void {
    if (count === 0) return
    this.#count -= count
    for (const { bytes } of state.kept.splice(0, count)) this.#bytes -= bytes
  }

  #dropOldest(): void {
    const oldest = this.#order[this.#oldestAt]
    this.#oldestAt += 1
    if (oldest === undefined) return
    const state = this.#channels.get(oldest.channel)
    const first = state?.kept[0]?.message
    if (first?.seq === oldest.seq && first.epoch === oldest.epoch) this.#drop(state!, 1)
  }

  /** Forgets the places of messages that are gone, once they outnumber those that are not. */
  #shorten(): void {
    if (this.#order.length < 2 * this.#count + 1024) return
    this.#order = this.#order.slice(this.#oldestAt).filter(({ channel, epoch, seq }) => {
      const oldest = this.#channels.get(channel)?.kept[0]?.message
      return oldest?.epoch === epoch && oldest.seq <= seq
    })
    this.#oldestAt = 0
  }

  #remember(key: string, published: Published, ms: number): void {
    this.#sent.delete(key)
    this.#sent.set(key, { published, untilMs: this.#options.now() + ms })
    if (this.#sent.size > this.#maxKeys) this.#sent.delete(this.#sent.keys().next().value!)
  }

  #forgetOne(): void {
    for (const [channel, state] of this.#channels) {
      if (this.#listeners.has(channel)) continue
      this.#drop(state, state.kept.length)
      this.#channels.delete(channel)
      return
    }
  }

  #sweep(): void {
    const now = this.#options.now()
    for (const [channel, state] of this.#channels) {
      this.#trim(state)
      if (state.usedMs + forgetAfterMs <= now && state.kept.length === 0 && !this.#listeners.has(channel))
        this.#channels.delete(channel)
    }
    for (const [key, { untilMs }] of this.#sent) if (untilMs <= now) this.#sent.delete(key)
    this.#shorten()
  }

  /** At the end of the turn: a listener that publishes is not in the middle of being told. */
  #tell(channel: string, tell: (listener: ChannelListener) => void): void {
    if (!this.#listeners.has(channel)) return
    this.#waiting.push({ channel, tell })
    if (this.#waiting.length === 1) queueMicrotask(() => this.#tellAll())
  }

  #tellAll(): void {
    for (let at = 0; at < this.#waiting.length; at += 1) {
      const { channel, tell } = this.#waiting[at]!
      for (const listener of [...(this.#listeners.get(channel) ?? [])]) tell(listener)
    }
    this.#waiting = []
  }
}

/** The channel of a key that `channelKey` gave. */
export function channelOf(key: string): ChannelName {
  const slash = key.indexOf('/')
  return { topic: key.slice(slash + 1), isPrivate: key.slice(0, slash) === 'private' }
}

function isAppended({ walIndex, stamp }: Draft, { wal }: ChannelState): boolean {
  if (walIndex === null || wal === null || wal.epoch !== stamp.epoch) return false
  return stamp.lsn < wal.lsn || (stamp.lsn === wal.lsn && walIndex <= wal.index)
}

function pageOf(kept: readonly Kept[], range: HistoryRange): readonly Kept[] {
  const oldest = kept[0]?.message.seq
  if (oldest === undefined || range.limit <= 0) return []
  // Numbers have no holes: the place of one follows from the first.
  const placeOf = (seq: bigint): number =>
    seq <= oldest ? 0 : seq >= oldest + BigInt(kept.length) ? kept.length : Number(seq - oldest)
  if ('after' in range) {
    const from = placeOf(range.after + 1n)
    return kept.slice(from, from + range.limit)
  }
  const end = range.before === null ? kept.length : placeOf(range.before)
  return kept.slice(Math.max(0, end - range.limit), end)
}

export function hexOf(random: () => number): string {
  const hex = Math.floor(random() * 2 ** 32)
    .toString(16)
    .padStart(8, '0')
  return hex === noEpoch ? '00000001' : hex
}
