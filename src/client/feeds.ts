// All subscriptions and channels of one client: gives each its number, enters them again after every reconnect, and hands each
// frame to those it is for.
import type { ClientFrame, ErrorEvent, ServerFrame } from '../protocol/messages.ts'
import { TidegateError } from '../protocol/tidegate-error.ts'
import type { Ask, Feed, FeedHandle, FrameOf } from './feed.ts'
import type { FeedStatus, Refusal } from './status.ts'

/** Waits between attempts of one subscription that the server could not take: full jitter, from 0.5 to 20 s. One that held for longer
 *  begins with the shortest. */
const baseDelayMs = 500
const maxDelayMs = 20_000

interface Held {
  readonly feed: Feed
  id: number
  /** Of the last `subscribed` or `joined` on this connection: `q7`, `c12`. */
  name: string | null
  attempt: number
  enteredAt: number
  retryTimer: ReturnType<typeof setTimeout> | undefined
}

export interface FeedsOptions {
  /** Sends when the connection is open; else does nothing: everything is entered when it opens. */
  readonly send: (frame: ClientFrame) => void
  /** How subscriptions are doing that no answer of the server has reached. */
  readonly standing: () => readonly [status: FeedStatus, error: Refusal | null]
  readonly report: (error: Error) => void
}

/** Holds what the application subscribed to and nothing else. */
export class Feeds {
  readonly #options: FeedsOptions
  readonly #held = new Map<number, Held>()
  /** Several may follow one query. */
  readonly #idsByName = new Map<string, Set<number>>()
  #lastId = 0
  #stale = false

  constructor(options: FeedsOptions) {
    this.#options = options
  }

  /** The server's own way from the database is stalled. */
  get stale(): boolean {
    return this.#stale
  }

  get areLive(): boolean {
    for (const { feed } of this.#held.values()) if (!feed.isLive) return false
    return true
  }

  /** Whether all of them have what was committed up to there. */
  haveReached(position: string): boolean {
    for (const { feed } of this.#held.values()) if (!feed.hasReached(position)) return false
    return true
  }

  /** The user has gone: nobody is told anything any more, but that it is over. */
  end(): void {
    for (const held of [...this.#held.values()]) {
      this.#forget(held)
      held.feed.moved('closed', null)
    }
  }

  add(feed: Feed): FeedHandle {
    const held: Held = { feed, id: ++this.#lastId, name: null, attempt: 0, enteredAt: 0, retryTimer: undefined }
    this.#held.set(held.id, held)
    feed.moved(...this.#options.standing())
    this.#enter(held)
    return {
      ask: ask => this.#ask(held, ask),
      remove: () => {
        if (this.#held.get(held.id) !== held) return
        this.#forget(held)
        this.#options.send({ type: 'unsubscribe', id: held.id })
      },
    }
  }

  /** The frames that enter all of them from where they stand, but those that wait to be tried again. */
  entries(): ClientFrame[] {
    return [...this.#held.values()].filter(held => held.retryTimer === undefined).map(({ feed, id }) => feed.entry(id))
  }

  /** The connection takes subscriptions: all of them, each from where it stands. */
  enterAll(): void {
    this.#idsByName.clear()
    for (const held of this.#held.values()) {
      held.name = null
      stopTimer(held)
      this.#enter(held)
    }
  }

  /** The connection is on its way, away, or never to come back. */
  moved(): void {
    this.#stale = false
    for (const held of this.#held.values()) {
      stopTimer(held)
      held.name = null
      held.feed.moved(...this.#options.standing())
    }
  }

  receive(frame: ServerFrame): void {
    switch (frame.type) {
      case 'subscribed':
        this.#accepted(frame, `q${frame.query}`)
        break
      case 'joined':
        this.#accepted(frame, `c${frame.channel}`)
        break
      case 'snapshot':
        this.#deliver(frame, [frame.id])
        break
      case 'delta':
      case 'change':
        this.#deliver(frame, [...(this.#idsByName.get(`q${frame.query}`) ?? [])])
        break
      case 'message':
      case 'presence':
      case 'gap':
        this.#deliver(frame, [...(this.#idsByName.get(`c${frame.channel}`) ?? [])])
        break
      case 'resync':
        this.#held.get(frame.id)?.feed.resync(frame)
        break
      case 'sent':
      case 'tracked':
        this.#held.get(frame.id)?.feed.answered(frame)
        break
      case 'heartbeat':
        this.#stale = frame.stale
        for (const [id, { feed }] of this.#held) feed.heartbeat(frame.stale, frame.positions[id])
        break
      case 'error':
        if (frame.id === undefined) break
        if (frame.ref === undefined) this.#ended(frame.id, frame)
        else this.#held.get(frame.id)?.feed.answered(frame)
    }
  }

  #enter(held: Held): void {
    held.enteredAt = Date.now()
    this.#options.send(held.feed.entry(held.id))
  }

  #ask(held: Held, ask: Ask): boolean {
    if (held.name === null || this.#held.get(held.id) !== held) return false
    this.#options.send({ ...ask, id: held.id })
    return true
  }

  #accepted(frame: FrameOf<'subscribed' | 'joined'>, name: string): void {
    const held = this.#held.get(frame.id)
    if (held === undefined) return
    this.#leaveName(held)
    held.name = name
    const ids = this.#idsByName.get(name)
    if (ids === undefined) this.#idsByName.set(name, new Set([frame.id]))
    else ids.add(frame.id)
    this.#hand(held, () => held.feed.accepted(frame))
  }

  #deliver(frame: Parameters<Feed['received']>[0], ids: readonly number[]): void {
    for (const id of ids) {
      const held = this.#held.get(id)
      if (held !== undefined) this.#hand(held, () => held.feed.received(frame, ids.length > 1))
    }
  }

  /** What a feed cannot make sense of, begins anew; what it can never take, as its server is a later one, ends. Others go on. */
  #hand(held: Held, take: () => void): void {
    try {
      take()
    } catch (error) {
      const { code, message } = error as TidegateError
      this.#options.send({ type: 'unsubscribe', id: held.id })
      if (error instanceof TidegateError) this.#refused(held, { code, message })
      else {
        this.#options.report(error as Error)
        held.feed.restart({ code: 'PROTOCOL_ERROR', message })
        this.#again(held, 0)
      }
    }
  }

  /** The server refused or ended one subscription. */
  #ended(id: number, error: ErrorEvent & { readonly same?: number }): void {
    const held = this.#held.get(id)
    if (held === undefined) return
    const other = error.same === undefined ? undefined : this.#held.get(error.same)
    if (other !== undefined && held.feed.follow?.(other.feed)) {
      this.#forget(held)
      return
    }
    const refusal = { code: error.code, message: error.message }
    if (error.retry) {
      held.feed.moved('catching up', refusal)
      this.#again(held, error.retryAfterMs ?? 0)
    } else this.#refused(held, refusal)
  }

  #refused(held: Held, refusal: Refusal): void {
    this.#forget(held)
    held.feed.moved('refused', refusal)
  }

  /** Enters again a little later, under a new number: frames still on their way under the old one find nobody. */
  #again(held: Held, afterMs: number): void {
    this.#forget(held)
    held.id = ++this.#lastId
    this.#held.set(held.id, held)
    if (Date.now() - held.enteredAt > maxDelayMs) held.attempt = 0
    const delayMs = afterMs + Math.random() * Math.min(maxDelayMs, baseDelayMs * 2 ** held.attempt++)
    held.retryTimer = setTimeout(() => {
      held.retryTimer = undefined
      this.#enter(held)
    }, delayMs)
  }

  #forget(held: Held): void {
    stopTimer(held)
    this.#leaveName(held)
    this.#held.delete(held.id)
  }

  #leaveName(held: Held): void {
    if (held.name === null) return
    const ids = this.#idsByName.get(held.name)
    ids?.delete(held.id)
    if (ids?.size === 0) this.#idsByName.delete(held.name)
    held.name = null
  }
}

function stopTimer(held: Held): void {
  clearTimeout(held.retryTimer)
  held.retryTimer = undefined
}
