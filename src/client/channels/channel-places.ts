// The channels of one client: one place in each, however many hold it. Entered while anybody listens, is there or has something to say;
// left a moment after the last of them has gone.
import type { Send, Track } from '../../protocol/messages.ts'
import type { TidegateError } from '../../protocol/tidegate-error.ts'
import type { FeedHandle } from '../feed.ts'
import { ChannelFeed, type ChannelListener, type Wants } from './channel-feed.ts'
import type { ChannelName, ChannelsOptions } from './channels-options.ts'
import type { Sent } from './outbox.ts'

/** Leaving waits so long: a page that draws itself anew, and React's StrictMode, leave and come back at once. */
const lingerMs = 1000
export interface SendHow {
  /** Of the frame, at most. */
  readonly bytes: number
  readonly mayWait: boolean
  readonly timeout: { readonly ms: number; readonly error: TidegateError } | null
}

/** Holds the channels that somebody uses, or did a moment ago. */
export class ChannelPlaces {
  readonly options: ChannelsOptions
  /** Whether this client had a connection of this name. */
  readonly isOwn: (connection: string) => boolean
  readonly #places = new Map<string, ChannelPlace>()

  constructor(options: ChannelsOptions, isOwn: (connection: string) => boolean) {
    this.options = options
    this.isOwn = isOwn
  }

  find(name: ChannelName): ChannelPlace | undefined {
    return this.#places.get(keyOf(name))
  }

  of(name: ChannelName): ChannelPlace {
    const key = keyOf(name)
    let place = this.#places.get(key)
    if (place === undefined) {
      const made = new ChannelPlace(name, this, () => {
        if (this.#places.get(key) === made) this.#places.delete(key)
      })
      this.#places.set(key, made)
      place = made
    }
    return place
  }

  /** The user has gone, and every feed with it. */
  end(): void {
    for (const place of [...this.#places.values()]) place.end()
  }
}

const keyOf = ({ topic, private: isPrivate = true }: ChannelName): string => `${isPrivate} ${topic}`

export class ChannelPlace {
  readonly feed: ChannelFeed
  readonly #places: ChannelPlaces
  readonly #forget: () => void
  readonly #holds = new Set<Wants>()
  /** Who is there: what lets go of the place. */
  readonly #tracking = new Map<object, () => void>()
  #handle: FeedHandle | null = null
  /** With what it was entered. */
  #entered: Wants | null = null
  #isSettling = false
  #timer: ReturnType<typeof setTimeout> | undefined

  constructor(name: ChannelName, places: ChannelPlaces, forget: () => void) {
    this.#places = places
    this.#forget = forget
    const { report, offlineSends = {} } = places.options
    this.feed = new ChannelFeed(name, {
      report,
      offlineSends,
      isOwn: places.isOwn,
      ask: ask => this.#handle?.ask(ask) ?? false,
      enterAgain: () => this.#enter(),
    })
  }

  /** Is in the channel from this turn's end on, until what is returned is called. */
  hold(wants: Wants): () => void {
    // A copy: the same wants may be held twice.
    const hold = { ...wants }
    this.#holds.add(hold)
    // It was refused, and somebody asks again.
    if (this.feed.hasEnded) this.#entered = null
    this.#settleSoon()
    return () => {
      if (this.#holds.delete(hold)) this.#settleSoon()
    }
  }

  /** @param wants null: only while others hold the place */
  listen(listener: ChannelListener, wants: Wants | null): () => void {
    const unlisten = this.feed.listen(listener)
    const release = wants === null ? () => this.#settleSoon() : this.hold(wants)
    return () => {
      unlisten()
      release()
    }
  }

  async send(send: Send, { bytes, mayWait, timeout }: SendHow): Promise<Sent> {
    if (this.feed.hasEnded) return this.feed.send(send, bytes, mayWait).sent
    const release = this.hold(nothing)
    const { sent, cancel } = this.feed.send(send, bytes, mayWait)
    const timer = timeout === null ? undefined : setTimeout(() => cancel(timeout.error), timeout.ms)
    try {
      return await sent
    } finally {
      clearTimeout(timer)
      release()
    }
  }

  /** @param track null: is there no more, as far as it is for the owner */
  async track(owner: object, track: Track | null): Promise<void> {
    if (track !== null && !this.#tracking.has(owner)) this.#tracking.set(owner, this.hold(nothing))
    try {
      await this.feed.track(owner, track)
    } finally {
      if (!this.feed.isTrackedBy(owner)) {
        this.#tracking.get(owner)?.()
        this.#tracking.delete(owner)
      }
    }
  }

  leave(): void {
    clearTimeout(this.#timer)
    this.#handle?.remove()
    this.#handle = null
    this.#entered = null
    this.feed.left()
    if (this.#holds.size === 0 && !this.feed.isUsed) this.#forget()
  }

  /** Whoever held it was another user. */
  end(): void {
    clearTimeout(this.#timer)
    this.#holds.clear()
    this.#handle?.remove()
    this.#handle = null
    if (!this.feed.hasEnded) this.feed.moved('closed', null)
    this.#forget()
  }

  /** At the end of the turn: what is asked for in one turn is joined with at once. */
  #settleSoon(): void {
    clearTimeout(this.#timer)
    if (this.#isSettling) return
    this.#isSettling = true
    queueMicrotask(() => {
      this.#isSettling = false
      this.#settle()
    })
  }

  #settle(): void {
    if (this.#holds.size === 0) {
      clearTimeout(this.#timer)
      this.#timer = setTimeout(() => this.leave(), this.#handle === null ? 0 : lingerMs)
      // Node alone: a process does not stay up for a channel that nobody uses.
      const timer: unknown = this.#timer
      if (typeof timer === 'object') (timer as { unref?: () => void }).unref?.()
      return
    }
    const { self, presence } = this.#wants()
    const entered = this.#entered
    if (this.#handle === null || entered === null || (self && !entered.self) || (presence && !entered.presence))
      this.#enter()
  }

  /** From where it stands, with what all want. */
  #enter(): void {
    this.#handle?.remove()
    this.#handle = null
    this.#entered = this.feed.wants = this.#wants()
    this.#handle = this.#places.options.add(this.feed)
  }

  #wants(): Wants {
    const all = [...this.#holds, ...(this.feed.isJoined && this.#entered !== null ? [this.#entered] : [])]
    return {
      self: all.some(({ self }) => self),
      presence: all.some(({ presence }) => presence),
      last: Math.max(0, ...all.map(({ last }) => last)),
    }
  }
}

const nothing: Wants = { self: false, presence: false, last: 0 }
