// One changes subscription: each insert, update and delete as an event, once, and where they stand in the stream.
import type { ChangeEvent } from '../../protocol/messages.ts'
import type { Entry, Feed, FeedRequest, FrameOf } from '../feed.ts'
import { Stand } from '../stand.ts'
import { type FeedStatus, isLive, type Refusal } from '../status.ts'
import { ProtocolError } from './live-rows.ts'
import type { SharedFeed } from './shared-feeds.ts'

export interface ChangeListeners {
  readonly onChange: (change: ChangeEvent) => void
  /** Events were missed: away past the window, or a lost slot. Those that follow have no gap between them. */
  readonly onResync: (reason: Refusal) => void
  readonly onStatus: (status: FeedStatus, error: Refusal | null) => void
}

/** Listens to the subscription of these changes. @returns ends it */
export type ShareChanges = (request: FeedRequest, listeners: ChangeListeners) => () => void

export class ChangeFeed implements SharedFeed {
  readonly request: FeedRequest
  readonly #listeners = new Set<ChangeListeners>()
  readonly #report: (error: Error) => void
  readonly #stand = new Stand()
  readonly #share: ShareChanges | null
  #unfollow: (() => void) | null = null
  #status: FeedStatus = 'connecting'
  #error: Refusal | null = null

  constructor(request: FeedRequest, report: (error: Error) => void, share: ShareChanges | null = null) {
    this.request = request
    this.#report = report
    this.#share = share
  }

  /** Tells how it is doing, at once, and everything from now on. @returns ends it */
  listen(listeners: ChangeListeners): () => void {
    this.#listeners.add(listeners)
    this.#tell(({ onStatus }) => onStatus(this.#status, this.#error), [listeners])
    return () => this.#listeners.delete(listeners)
  }

  get listenerCount(): number {
    return this.#listeners.size
  }

  get hasEnded(): boolean {
    return this.#status === 'refused' || this.#status === 'closed'
  }

  follow(other: Feed): boolean {
    if (!(other instanceof ChangeFeed) || other === this || this.#share === null) return false
    this.#unfollow = this.#share(other.request, {
      onChange: change => this.#tell(({ onChange }) => onChange(change)),
      onResync: reason => this.restart(reason),
      onStatus: (status, error) => this.moved(status, error),
    })
    return true
  }

  left(): void {
    this.#unfollow?.()
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
    this.moved(frame.resumed ? 'catching up' : 'live', null)
  }

  received(frame: Parameters<Feed['received']>[0], shared: boolean): void {
    if (frame.type !== 'change') return
    if (this.#stand.hasPassed(frame.position)) {
      if (shared) return
      throw new ProtocolError(`the change of ${frame.position} came again`)
    }
    this.#stand.moveTo(frame.position)
    const { type, query, position, ...change } = frame
    this.#tell(({ onChange }) => onChange(change))
  }

  answered(): void {}

  hasReached(position: string): boolean {
    return this.#stand.hasPassed(position) || this.#status === 'refused'
  }

  resync(frame: FrameOf<'resync'>): void {
    // The old position stays until a new one comes: a link lost in between must lead to another resync, not to silence.
    this.restart({ code: frame.code, message: frame.reason })
  }

  heartbeat(_stale: boolean, since: string | undefined): void {
    if (since === undefined) return
    this.#stand.moveToSince(since)
    if (this.#status === 'catching up') this.moved('live', null)
  }

  moved(status: FeedStatus, error: Refusal | null): void {
    if (status === this.#status && error === this.#error) return
    this.#status = status
    this.#error = error
    this.#tell(({ onStatus }) => onStatus(status, error))
  }

  restart(error: Refusal): void {
    this.#tell(({ onResync }) => onResync(error))
  }

  /** A listener that throws harms no other. */
  #tell(tell: (listeners: ChangeListeners) => void, all: Iterable<ChangeListeners> = [...this.#listeners]): void {
    for (const listeners of all) {
      try {
        tell(listeners)
      } catch (error) {
        this.#report(error instanceof Error ? error : new Error(String(error)))
      }
    }
  }
}
