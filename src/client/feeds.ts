// All subscriptions of one client: gives each its number, subscribes them again after every reconnect, and hands each
// frame to those it is for.
import type { ClientFrame, ErrorEvent, ServerFrame } from '../protocol/messages.ts'
import type { Connection } from './connection.ts'
import type { ConnectionState, Refusal } from './connection-machine.ts'
import { ProtocolError } from './live-rows.ts'

export type FrameOf<T extends ServerFrame['type']> = Extract<ServerFrame, { type: T }>
export type FeedRequest = Omit<Extract<ClientFrame, { type: 'subscribe' }>, 'type' | 'id' | 'since'>

/** How a subscription is doing. `catching up`: connected, and the first or a fresh snapshot is on its way. */
export type Status = 'connecting' | 'catching up' | 'live' | 'offline' | 'refused' | 'closed'

/** One subscription's state, without the wire. */
export interface Feed {
  readonly request: FeedRequest
  /** Position and tag of the last state held; null to begin fresh. */
  readonly since: string | null
  subscribed(frame: FrameOf<'subscribed'>): void
  /** @param shared another subscription of this client has the same query number: frames may be for that one
   *  @throws ProtocolError when the frame cannot follow from the state held */
  received(frame: FrameOf<'snapshot' | 'delta' | 'change'>, shared: boolean): void
  resync(frame: FrameOf<'resync'>): void
  /** @param since what to resume from, when the server says so: position and tag */
  heartbeat(stale: boolean, since: string | undefined): void
  /** Without an answer of the server: on the way to it, away from it, or never to come back. */
  moved(status: Status, error: Refusal | null): void
  /** What is held is worth nothing: the next `since` is null. */
  restart(error: Refusal): void
}

/** Waits between attempts of one subscription that the server could not take: full jitter, from 0.5 to 20 s. */
const baseDelayMs = 500
const maxDelayMs = 20_000

interface Entry {
  readonly feed: Feed
  id: number
  /** Of the last `subscribed` on this connection. */
  query: number | null
  attempt: number
  retryTimer: ReturnType<typeof setTimeout> | undefined
}

/** Holds what the application subscribed to and nothing else. */
export class Feeds {
  readonly #connection: Connection
  readonly #report: (error: Error) => void
  readonly #entries = new Map<number, Entry>()
  readonly #idsByQuery = new Map<number, Set<number>>()
  #lastId = 0

  constructor(connection: Connection, report: (error: Error) => void) {
    this.#connection = connection
    this.#report = report
  }

  /** @returns removes it again */
  add(feed: Feed): () => void {
    const entry: Entry = { feed, id: ++this.#lastId, query: null, attempt: 0, retryTimer: undefined }
    this.#entries.set(entry.id, entry)
    this.#connection.start()
    feed.moved(...statusOf(this.#connection.state))
    this.#subscribe(entry)
    return () => {
      if (this.#entries.get(entry.id) !== entry) return
      this.#forget(entry)
      this.#connection.send({ type: 'unsubscribe', id: entry.id })
    }
  }

  /** The connection takes subscriptions: all of them, each from where it stands. */
  subscribeAll(): void {
    this.#idsByQuery.clear()
    for (const entry of this.#entries.values()) {
      entry.query = null
      clearTimeout(entry.retryTimer)
      this.#subscribe(entry)
    }
  }

  connectionMoved(state: ConnectionState, previous: ConnectionState): void {
    // A renewed token changes an open connection's state, and nothing for its subscriptions.
    if (state.name === previous.name) return
    for (const entry of this.#entries.values()) {
      if (state.name !== 'open') clearTimeout(entry.retryTimer)
      entry.feed.moved(...statusOf(state))
    }
  }

  receive(frame: ServerFrame): void {
    switch (frame.type) {
      case 'subscribed':
        this.#subscribed(frame)
        break
      case 'snapshot':
        this.#deliver(frame, [frame.id])
        break
      case 'delta':
      case 'change':
        this.#deliver(frame, [...(this.#idsByQuery.get(frame.query) ?? [])])
        break
      case 'resync':
        this.#entries.get(frame.id)?.feed.resync(frame)
        break
      case 'heartbeat':
        for (const [id, { feed }] of this.#entries) feed.heartbeat(frame.stale, frame.positions[id])
        break
      case 'error':
        if (frame.id !== undefined) this.#ended(frame.id, frame)
        break
    }
  }

  #subscribe({ id, feed }: Entry): void {
    const { since } = feed
    this.#connection.send({ type: 'subscribe', id, ...feed.request, ...(since === null ? {} : { since }) })
  }

  #subscribed(frame: FrameOf<'subscribed'>): void {
    const entry = this.#entries.get(frame.id)
    if (entry === undefined) return
    this.#leaveQuery(entry)
    entry.query = frame.query
    const ids = this.#idsByQuery.get(frame.query)
    if (ids === undefined) this.#idsByQuery.set(frame.query, new Set([frame.id]))
    else ids.add(frame.id)
    entry.feed.subscribed(frame)
  }

  #deliver(frame: FrameOf<'snapshot' | 'delta' | 'change'>, ids: readonly number[]): void {
    for (const id of ids) {
      const entry = this.#entries.get(id)
      if (entry === undefined) continue
      try {
        entry.feed.received(frame, ids.length > 1)
        entry.attempt = 0
      } catch (error) {
        if (!(error instanceof ProtocolError)) throw error
        this.#report(error)
        this.#connection.send({ type: 'unsubscribe', id })
        entry.feed.restart({ code: 'PROTOCOL_ERROR', message: error.message })
        this.#again(entry, 0)
      }
    }
  }

  /** The server refused or ended one subscription. */
  #ended(id: number, error: ErrorEvent): void {
    const entry = this.#entries.get(id)
    if (entry === undefined) return
    const refusal = { code: error.code, message: error.message }
    if (error.retry) {
      entry.feed.moved('catching up', refusal)
      this.#again(entry, error.retryAfterMs ?? 0)
    } else {
      this.#forget(entry)
      entry.feed.moved('refused', refusal)
    }
  }

  /** Subscribes again a little later, under a new number: frames still on their way under the old one find nobody. */
  #again(entry: Entry, afterMs: number): void {
    this.#forget(entry)
    entry.id = ++this.#lastId
    this.#entries.set(entry.id, entry)
    const delayMs = afterMs + Math.random() * Math.min(maxDelayMs, baseDelayMs * 2 ** entry.attempt++)
    entry.retryTimer = setTimeout(() => this.#subscribe(entry), delayMs)
  }

  #forget(entry: Entry): void {
    clearTimeout(entry.retryTimer)
    this.#leaveQuery(entry)
    this.#entries.delete(entry.id)
  }

  #leaveQuery(entry: Entry): void {
    if (entry.query === null) return
    const ids = this.#idsByQuery.get(entry.query)
    ids?.delete(entry.id)
    if (ids?.size === 0) this.#idsByQuery.delete(entry.query)
    entry.query = null
  }
}

function statusOf(state: ConnectionState): [status: Status, error: Refusal | null] {
  switch (state.name) {
    case 'idle':
      return ['connecting', null]
    case 'asking':
    case 'opening':
      return [state.attempt === 0 ? 'connecting' : 'offline', state.error]
    case 'waiting':
      return ['offline', state.error]
    case 'open':
      return ['catching up', null]
    case 'refused':
      return ['refused', state.error]
    case 'closed':
      return ['closed', null]
  }
}
