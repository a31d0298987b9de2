// What this node hears of channels: it subscribes only to those that somebody here listens to, and a few seconds longer.
//
// With one server there is one link; of a Cluster, one to each server that has slots of channels listened to. A listener is told
// `interrupted` whenever its channel was subscribed to again, over a new connection or another server.
import { Cluster, type Redis, type RedisOptions } from 'ioredis'
import type { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Log } from '../../log/log.ts'
import { type RedisClient, slotOf } from '../../redis/redis.ts'
import type { ChannelName } from '../message.ts'
import type { ChannelListener, Listening } from './channel-relay.ts'
import { channelOf } from './memory-relay.ts'
import { decodeHeard } from './redis-envelope.ts'
import type { ChannelNames } from './redis-keys.ts'
import { SubscriberLink, tickMs } from './redis-relay-link.ts'
import { unavailable } from './redis-relay-publisher.ts'

export interface RelaySubscriberOptions {
  /** Nothing else is asked over it. */
  readonly subscriber: RedisClient
  readonly names: ChannelNames
  readonly nodeId: string
  readonly probe: (name: string, text: string) => Promise<unknown>
  readonly log: Log
  /** How long a channel is heard that nobody listens to any more. */
  readonly graceMs: number
  /** Who waits longer until a channel is heard is told that Redis is away. */
  readonly readyMs: number
}

interface Entry {
  readonly key: string
  readonly channel: ChannelName
  /** Under which it is published. */
  readonly name: string
  readonly slot: number
  link: SubscriberLink | null
  isConfirmed: boolean
  readonly listeners: Set<ChannelListener>
  /** Hears what is published itself: it is no channel. */
  heard: ((text: Buffer) => void) | null
  /** Those of the listeners that have not been told that they hear, by whom the promise is kept. */
  readonly waiting: Map<ChannelListener, Waiter>
}

interface Waiter {
  readonly sinceTick: number
  readonly resolve: () => void
  readonly reject: (error: TidegateError) => void
}

interface Linked {
  readonly link: SubscriberLink
  readonly connection: Redis
  readonly probeName: string
}

/** Listeners told in one turn that something may have been missed: each asks where its channel stands. */
const toldAtOnce = 500
const toldTicks = 4
const refreshTicks = 40
const deafRefreshTicks = 4
/** Of the one server that is no Cluster. */
const only = ''

export class RelaySubscriber {
  readonly #options: RelaySubscriberOptions
  /** By name: those with listeners, and for `graceMs` those without. */
  readonly #entries = new Map<string, Entry>()
  /** Entries that are no channel's, and stay. */
  #mailboxes = 0
  /** By server; of one server, under ''. */
  readonly #links = new Map<string, Linked>()
  /** Entries without listeners, and since which tick; the longest first. */
  readonly #idle = new Map<Entry, number>()
  /** Who waits, the longest first. */
  readonly #waiters = new Set<{ readonly entry: Entry; readonly listener: ChannelListener; readonly waiter: Waiter }>()
  readonly #unplaced = new Set<Entry>()
  readonly #interrupted = new Set<Entry>()
  readonly #told = new Set<string>()
  #ticks = 0
  #refreshedTick = -1
  /** Since when it does not hear. */
  #deaf: { readonly sinceTick: number; isTold: boolean } | null = null
  #isPlacing = false
  #isClosed = false
  readonly #ticking: NodeJS.Timeout

  constructor(options: RelaySubscriberOptions) {
    this.#options = options
    const { subscriber } = options
    if (subscriber instanceof Cluster) subscriber.on('refresh', this.#onRefresh)
    else this.#linkTo(only, subscriber, null)
    this.#ticking = setInterval(() => this.#tick(), tickMs).unref()
  }

  get isHearing(): boolean {
    if (this.#unplaced.size > 0) return false
    for (const { link } of this.#links.values()) if (!link.isHearing) return false
    return true
  }

  /** Channels that are subscribed to, or shall be. */
  get size(): number {
    return this.#entries.size - this.#mailboxes
  }

  /** Keys of channels that somebody listens to. */
  *listened(): Iterable<string> {
    for (const { key, listeners } of this.#entries.values()) if (listeners.size > 0) yield key
  }

  listen(key: string, listener: ChannelListener): Listening {
    const entry = this.#entryOf(key)
    this.#idle.delete(entry)
    entry.listeners.add(listener)
    const ready = this.#readyOf(entry, listener)
    // Who does not wait for it is told by `interrupted`.
    ready.catch(() => {})
    return { ready, close: () => this.#leave(entry, listener) }
  }

  /** For good. @param key no channel's: it begins with `:` @param heard may not throw */
  hear(key: string, heard: (text: Buffer) => void): void {
    this.#mailboxes += 1
    this.#entryOf(key).heard = heard
  }

  close(): void {
    this.#isClosed = true
    clearInterval(this.#ticking)
    const { subscriber } = this.#options
    if (subscriber instanceof Cluster) subscriber.off('refresh', this.#onRefresh)
    for (const server of [...this.#links.keys()]) this.#unlink(server)
    for (const { waiter } of this.#waiters) waiter.reject(unavailable('the server is stopping'))
    this.#waiters.clear()
    this.#entries.clear()
    this.#idle.clear()
  }

  #entryOf(key: string): Entry {
    const { names, subscriber } = this.#options
    const name = names.live(key)
    const known = this.#entries.get(name)
    if (known !== undefined) return known
    const entry: Entry = {
      key,
      channel: channelOf(key),
      name,
      slot: subscriber instanceof Cluster ? slotOf(name) : 0,
      link: null,
      isConfirmed: false,
      listeners: new Set(),
      heard: null,
      waiting: new Map(),
    }
    this.#entries.set(name, entry)
    this.#place(entry)
    return entry
  }

  #readyOf(entry: Entry, listener: ChannelListener): Promise<void> {
    if (entry.isConfirmed) return Promise.resolve()
    if (this.#isClosed) return Promise.reject(unavailable('the server is stopping'))
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiter: Waiter = { sinceTick: this.#ticks, resolve, reject }
    entry.waiting.set(listener, waiter)
    this.#waiters.add({ entry, listener, waiter })
    return promise
  }

  #leave(entry: Entry, listener: ChannelListener): void {
    entry.listeners.delete(listener)
    entry.waiting.get(listener)?.reject(unavailable('nobody listens any more'))
    entry.waiting.delete(listener)
    if (entry.listeners.size === 0 && this.#entries.get(entry.name) === entry) this.#idle.set(entry, this.#ticks)
  }

  // Where channels are.

  /** Subscribes to a channel at the server that has it. */
  #place(entry: Entry): void {
    const server = this.#serverOf(entry.slot)
    const link = server === null ? null : this.#linkOf(server, entry.key)
    if (entry.link === link && link !== null) return
    entry.link?.drop(entry.name)
    entry.link = link
    entry.isConfirmed = false
    if (link === null) {
      this.#unplaced.add(entry)
      this.#refresh()
      return
    }
    this.#unplaced.delete(entry)
    link.want(entry.name)
  }

  #serverOf(slot: number): string | null {
    const { subscriber } = this.#options
    return subscriber instanceof Cluster ? (subscriber.slots[slot]?.[0] ?? null) : only
  }

  #linkOf(server: string, channel: string): SubscriberLink | null {
    const known = this.#links.get(server)
    if (known !== undefined) return known.link
    const { subscriber } = this.#options
    if (!(subscriber instanceof Cluster)) return null
    const node = subscriber.nodes('all').find(({ options: { host, port } }) => `${host}:${port}` === server)
    if (node === undefined) return null
    const connection = (node.duplicate as (override: RedisOptions) => Redis)({
      lazyConnect: false,
      readOnly: false,
      enableOfflineQueue: false,
      autoResubscribe: false,
      retryStrategy: attempt => Math.min(50 * 2 ** Math.min(attempt, 5), 500) * (0.5 + Math.random() / 2),
    })
    connection.on('error', () => {})
    connection.on('close', () => this.#refresh())
    return this.#linkTo(server, connection, channel)
  }

  /** @param channel one of the server's; null where there is one server */
  #linkTo(server: string, connection: Redis, channel: string | null): SubscriberLink {
    const { probe, log, subscriber, names, nodeId } = this.#options
    const probeName = names.probe(nodeId, channel)
    const link = new SubscriberLink({
      connection,
      slotOf: subscriber instanceof Cluster ? slotOf : null,
      probeName,
      probe,
      log,
      events: {
        heard: this.#onHeard,
        confirmed: this.#onConfirmed,
        moved: () => this.#refresh(),
      },
    })
    this.#links.set(server, { link, connection, probeName })
    return link
  }

  #unlink(server: string): void {
    const { link, connection } = this.#links.get(server)!
    this.#links.delete(server)
    link.close()
    // One of its own; the other one is whoever's opened it.
    if (server !== only) connection.disconnect()
  }

  /** Asks a Cluster who has what; at most once in a tick. */
  #refresh(): void {
    const { subscriber } = this.#options
    if (!(subscriber instanceof Cluster) || this.#isClosed || this.#refreshedTick === this.#ticks) return
    this.#refreshedTick = this.#ticks
    subscriber.refreshSlotsCache(() => {})
  }

  readonly #onRefresh = (): void => {
    if (this.#isPlacing || this.#isClosed) return
    this.#isPlacing = true
    setImmediate(() => {
      this.#isPlacing = false
      if (this.#isClosed) return
      // Its probe has gone elsewhere, or nobody needs it.
      for (const [server, { probeName }] of this.#links)
        if (this.#serverOf(slotOf(probeName)) !== server) this.#retire(server)
      for (const entry of this.#entries.values()) this.#place(entry)
      for (const [server, { link }] of this.#links) if (link.size === 0) this.#unlink(server)
    })
  }

  /** A link whose probe goes to another server. */
  #retire(server: string): void {
    const { link } = this.#links.get(server)!
    this.#unlink(server)
    for (const entry of this.#entries.values())
      if (entry.link === link) {
        entry.link = null
        entry.isConfirmed = false
      }
  }

  // What is heard.

  readonly #onHeard = (name: string, text: Buffer): void => {
    const entry = this.#entries.get(name)
    entry?.heard?.(text)
    if (entry === undefined || entry.listeners.size === 0) return
    try {
      const heard = decodeHeard(entry.channel, text)
      if (heard === null) this.#tellOnce(text.toString('latin1', 0, 2), null)
      else if (heard.kind === 'message') for (const listener of entry.listeners) listener.message(heard.message)
      else if (heard.kind === 'presence') for (const listener of entry.listeners) listener.presence(heard.diff)
    } catch (error) {
      this.#tellOnce('damaged', error)
    }
  }

  #tellOnce(kind: string, error: unknown): void {
    if (this.#told.has(kind) || this.#told.size > 16) return
    this.#told.add(kind)
    this.#options.log.warn(
      { kind, ...(error === null ? {} : { err: error }) },
      'what another node published in a channel cannot be read here and is left out; if all nodes run the same release, report it',
    )
  }

  readonly #onConfirmed = (names: readonly string[]): void => {
    for (const name of names) {
      const entry = this.#entries.get(name)
      if (entry === undefined) continue
      entry.isConfirmed = true
      if (entry.listeners.size > entry.waiting.size) this.#interrupt(entry)
      for (const { resolve } of entry.waiting.values()) resolve()
      entry.waiting.clear()
    }
  }

  #interrupt(entry: Entry): void {
    if (this.#interrupted.size === 0) setImmediate(() => this.#tellInterrupted())
    this.#interrupted.add(entry)
  }

  #tellInterrupted(): void {
    let told = 0
    for (const entry of this.#interrupted) {
      if (told >= toldAtOnce) break
      this.#interrupted.delete(entry)
      for (const listener of entry.listeners) {
        told += 1
        listener.interrupted()
      }
    }
    if (this.#interrupted.size > 0) setImmediate(() => this.#tellInterrupted())
  }

  // Time.

  #tick(): void {
    this.#ticks += 1
    for (const { link } of this.#links.values()) link.tick()
    // A master that hangs says nothing of who has taken over.
    if (this.#unplaced.size > 0 || this.#ticks % (this.isHearing ? refreshTicks : deafRefreshTicks) === 0)
      this.#refresh()
    this.#endGraces()
    this.#refuseWaiting()
    this.#tellHearing()
  }

  #endGraces(): void {
    const graceTicks = Math.ceil(this.#options.graceMs / tickMs)
    for (const [entry, sinceTick] of this.#idle) {
      if (this.#ticks - sinceTick < graceTicks) return
      this.#idle.delete(entry)
      this.#entries.delete(entry.name)
      this.#unplaced.delete(entry)
      entry.link?.drop(entry.name)
    }
  }

  #refuseWaiting(): void {
    const readyTicks = Math.ceil(this.#options.readyMs / tickMs)
    for (const each of this.#waiters) {
      const { entry, listener, waiter } = each
      const isWaiting = entry.waiting.get(listener) === waiter
      if (isWaiting && this.#ticks - waiter.sinceTick < readyTicks) return
      this.#waiters.delete(each)
      if (!isWaiting) continue
      entry.waiting.delete(listener)
      waiter.reject(unavailable('Redis, over which channels are heard, does not answer'))
    }
  }

  #tellHearing(): void {
    const { log } = this.#options
    if (this.isHearing) {
      if (this.#deaf?.isTold) log.info('what other nodes publish in channels is heard again')
      this.#deaf = null
      return
    }
    this.#deaf ??= { sinceTick: this.#ticks, isTold: false }
    // Not at a start, nor at a cut that is over in a moment.
    if (this.#deaf.isTold || this.#ticks - this.#deaf.sinceTick < toldTicks) return
    this.#deaf.isTold = true
    log.warn(
      { code: 'RELAY_UNREACHABLE' },
      'what other nodes publish in channels is not heard: histories are read once it is, and gaps are told. Check Redis with: redis-cli -u "$REDIS_URL" PING',
    )
  }
}
