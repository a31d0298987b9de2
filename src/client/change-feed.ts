// One changes subscription: each insert, update and delete as an event, once, and where they stand in the stream.
import type { ChangeEvent } from '../protocol/messages.ts'
import type { Entry, Feed, FeedRequest, FrameOf } from './feed.ts'
import { ProtocolError } from './live-rows.ts'
import { Stand } from './stand.ts'
import { type FeedStatus, isLive, type Refusal } from './status.ts'

export interface ChangeListeners {
  readonly onChange: (change: ChangeEvent) => void
  /** Events were missed: away past the window, or a lost slot. Those that follow have no gap between them. */
  readonly onResync: (reason: Refusal) => void
  readonly onStatus: (status: FeedStatus, error: Refusal | null) => void
}

export class ChangeFeed implements Feed {
  readonly request: FeedRequest
  readonly #listeners: ChangeListeners
  readonly #report: (error: Error) => void
  readonly #stand = new Stand()
  #status: FeedStatus = 'connecting'

  constructor(request: FeedRequest, listeners: ChangeListeners, report: (error: Error) => void) {
    this.request = request
    this.#listeners = listeners
    this.#report = report
  }

  entry(id: number): Entry {
    const { since } = this.#stand
    return { type: 'subscribe', id, ...this.request, ...(since === null ? {} : { since }) }
  }

  get isLive(): boolean {
    return isLive(this.#status)
  }

  accepted(frame: FrameOf<'subscribed' | 'joined'>): void {
    if (frame.type !== 'subscribed') return
    // A subscription that resumes still owes what is between our position and the frame's.
    if (!frame.resumed) {
      this.#stand.forget()
      this.#stand.moveTo(frame.position)
    }
    this.#stand.setTag(frame.tag)
    this.moved('live', null)
  }

  received(frame: Parameters<Feed['received']>[0], shared: boolean): void {
    if (frame.type !== 'change') return
    if (this.#stand.hasPassed(frame.position)) {
      if (shared) return
      throw new ProtocolError(`the change of ${frame.position} came again`)
    }
    this.#stand.moveTo(frame.position)
    const { type, query, position, ...change } = frame
    this.#call(() => this.#listeners.onChange(change))
  }

  answered(): void {}

  hasReached(position: string): boolean {
    return this.#stand.hasPassed(position) || this.#status === 'refused'
  }

  resync(frame: FrameOf<'resync'>): void {
    // The old position stays until a new one comes: a link lost in between must lead to another resync, not to silence.
    this.#call(() => this.#listeners.onResync({ code: frame.code, message: frame.reason }))
  }

  heartbeat(_stale: boolean, since: string | undefined): void {
    if (since !== undefined) this.#stand.moveToSince(since)
  }

  moved(status: FeedStatus, error: Refusal | null): void {
    this.#status = status
    this.#call(() => this.#listeners.onStatus(status, error))
  }

  restart(error: Refusal): void {
    this.#call(() => this.#listeners.onResync(error))
  }

  #call(listen: () => void): void {
    try {
      listen()
    } catch (error) {
      this.#report(error instanceof Error ? error : new Error(String(error)))
    }
  }
}
