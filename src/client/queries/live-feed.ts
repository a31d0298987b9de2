// One live query as the client holds it: its rows, where they stand in the stream, and who wants to know.
import type { JsonRow, Warning } from '../../protocol/messages.ts'
import type { Entry, Feed, FeedRequest, FrameOf } from '../feed.ts'
import { Stand } from '../stand.ts'
import { type FeedStatus, isLive, type Refusal } from '../status.ts'
import type { StoredQuery, StoredSlot } from '../store/stored-queries.ts'
import { type Delta, LiveRows, ProtocolError } from './live-rows.ts'
import type { SharedFeed } from './shared-feeds.ts'

export interface LiveState {
  /** Equal to the SELECT when `status` is `live`; the last rows known while it is not, and none once it is `refused` or `closed`. In the
   *  query's order, else as they came. A row that did not change stays the same object. */
  readonly rows: readonly JsonRow[]
  /** What changed since the update before; null when the rows are new as a whole, or only the status moved. */
  readonly delta: Delta | null
  readonly status: FeedStatus
  /** The server says that its way from the database is stalled: the rows are old, and right for when they were. */
  readonly stale: boolean
  /** Why the status is not `live`, where there is a reason. */
  readonly error: Refusal | null
  /** False where Postgres is asked who may see what: what it grants or revokes is noticed a moment later. */
  readonly exact: boolean
  readonly warnings: readonly Warning[]
}

/** Of a query that nobody has asked for yet. */
export const waiting: LiveState = {
  rows: [],
  delta: null,
  status: 'connecting',
  stale: false,
  error: null,
  exact: true,
  warnings: [],
}

/** The rows are void as a place to go on from, and were right when they were read: they stay to be seen until the fresh ones are
 *  here. All other reasons speak of who may see them. */
const rowsStayAfter = new Set(['WINDOW_PASSED', 'EPOCH_CHANGED', 'PROTOCOL_ERROR'])

/** Listens to the subscription of a query. @returns ends it */
export type Share = (request: FeedRequest, listener: (state: LiveState) => void) => () => void

export interface LiveFeedOptions {
  readonly report: (error: Error) => void
  /** Where its rows are kept over a reload. */
  readonly stored?: StoredSlot | null
  readonly share?: Share | null
}

export class LiveFeed implements SharedFeed {
  readonly request: FeedRequest
  readonly #rows = new LiveRows()
  readonly #stand = new Stand()
  readonly #listeners = new Set<(state: LiveState) => void>()
  readonly #report: (error: Error) => void
  readonly #stored: StoredSlot | null
  readonly #share: Share | null
  #unfollow: (() => void) | null = null
  #state: LiveState = waiting

  constructor(request: FeedRequest, { report, stored = null, share = null }: LiveFeedOptions) {
    this.request = request
    this.#report = report
    this.#stored = stored
    this.#share = share
    this.restoreStored()
  }

  entry(id: number): Entry {
    const { since } = this.#stand
    return { type: 'subscribe', id, ...this.request, ...(since === null ? {} : { since }) }
  }

  get isLive(): boolean {
    return isLive(this.#state.status)
  }

  get hasEnded(): boolean {
    return this.#state.status === 'refused' || this.#state.status === 'closed'
  }

  get state(): LiveState {
    return this.#state
  }

  get listenerCount(): number {
    return this.#listeners.size
  }

  /** Tells the listener the state as it is, at once, and from now on. */
  listen(listener: (state: LiveState) => void): () => void {
    // A copy: the same function may listen twice.
    const own = (state: LiveState): void => listener(state)
    this.#listeners.add(own)
    this.#call(own, this.#state.delta === null ? this.#state : { ...this.#state, delta: null })
    return () => this.#listeners.delete(own)
  }

  /** Rows that were kept are seen at once, and taken up from where they stand; unless the server has been asked for others meanwhile. */
  restoreStored(): void {
    const { status } = this.#state
    if (this.#stand.since !== null || (status !== 'connecting' && status !== 'offline')) return
    const query = this.#stored?.read()
    if (query === undefined) return
    const { since, rows, key, order, limit } = query
    this.#rows.setShape({ key, order, limit })
    this.#rows.restore(rows)
    this.#stand.moveToSince(since)
    this.#tell({ rows })
  }

  /** Rows and where they stand, to be kept; null while they are not exact. */
  get kept(): StoredQuery | null {
    const { since } = this.#stand
    return since === null || !this.#rows.exact ? null : { since, rows: this.#rows.rows, ...this.#rows.shape }
  }

  follow(other: Feed): boolean {
    if (!(other instanceof LiveFeed) || other === this || this.#share === null) return false
    this.#unfollow = this.#share(other.request, state => this.#tell(state))
    return true
  }

  left(): void {
    this.#unfollow?.()
    if (!this.hasEnded) this.#stored?.leave(this)
  }

  accepted(frame: FrameOf<'subscribed' | 'joined'>): void {
    if (frame.type !== 'subscribed') return
    const { tag, key, order, limit, exact = true, warnings = [] } = frame
    // Under another tag the rows may be others' to see.
    const isSame = this.#stand.tag === tag && String(this.#rows.shape.key) === String(key)
    this.#stand.setTag(tag)
    if (!isSame) this.#stored?.drop()
    if (!frame.resumed) this.#expectSnapshot(isSame)
    this.#rows.setShape({ key, order, limit })
    const { rows } = this.#rows
    // What a resumed query missed comes behind it, and a heartbeat when that was all.
    this.#tell({ rows, status: 'catching up', exact, warnings })
  }

  received(frame: Parameters<Feed['received']>[0], shared: boolean): void {
    if (frame.type === 'snapshot') {
      const whole = this.#rows.snapshot(frame)
      if (whole === null) return
      if (frame.position === undefined) throw new ProtocolError('a whole snapshot came without its position')
      this.#stand.moveTo(frame.position)
      this.#tell({ rows: this.#rows.rows, delta: whole.delta, status: 'live', error: null })
      this.#stored?.changed(this)
    } else if (frame.type === 'delta') {
      this.#delta(frame, shared)
    }
  }

  answered(): void {}

  hasReached(position: string): boolean {
    return this.#stand.hasPassed(position) || this.#state.status === 'refused'
  }

  resync(frame: FrameOf<'resync'>): void {
    this.restart({ code: frame.code, message: frame.reason })
  }

  heartbeat(stale: boolean, since: string | undefined): void {
    if (since !== undefined && this.#rows.exact) {
      this.#stand.moveToSince(since)
      this.#stored?.moved(this)
      if (this.#state.status === 'catching up') this.#tell({ status: 'live', error: null, stale })
    }
    if (stale !== this.#state.stale) this.#tell({ stale })
  }

  moved(status: FeedStatus, error: Refusal | null): void {
    // What may not be asked for any longer may not be shown any longer.
    if (status === 'closed') this.#stored?.flush()
    if (status === 'refused') this.#stored?.drop()
    if (status === 'refused' || status === 'closed') this.#expectSnapshot(false)
    if (status === this.#state.status && error === this.#state.error) return
    this.#tell({ status, error, rows: this.#rows.rows })
  }

  restart(error: Refusal): void {
    this.#stored?.drop()
    this.#expectSnapshot(rowsStayAfter.has(error.code))
    this.#tell({ status: 'catching up', rows: this.#rows.rows, error })
  }

  #delta(frame: FrameOf<'delta'>, shared: boolean): void {
    if (!this.#rows.exact) {
      if (shared) return
      throw new ProtocolError('a delta came before the snapshot was whole')
    }
    const delta = this.#rows.collect(frame)
    if (delta === null) return
    if (frame.position === undefined) throw new ProtocolError('a whole delta came without its position')
    if (this.#stand.hasPassed(frame.position)) {
      if (shared) return
      throw new ProtocolError(`the delta of ${frame.position} came again`)
    }
    this.#rows.apply(delta)
    this.#stand.moveTo(frame.position)
    this.#tell({ rows: this.#rows.rows, delta })
    this.#stored?.changed(this)
  }

  #expectSnapshot(keep: boolean): void {
    this.#rows.expectSnapshot(keep)
    this.#stand.forget()
  }

  #tell(change: Partial<LiveState>): void {
    this.#state = { ...this.#state, delta: null, ...change }
    for (const listener of [...this.#listeners]) this.#call(listener, this.#state)
  }

  /** A listener that throws harms no other. */
  #call(listener: (state: LiveState) => void, state: LiveState): void {
    try {
      listener(state)
    } catch (error) {
      this.#report(error instanceof Error ? error : new Error(String(error)))
    }
  }
}
