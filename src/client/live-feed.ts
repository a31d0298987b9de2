// One live query as the client holds it: its rows, where they stand in the stream, and who wants to know.
import type { JsonRow, Warning } from '../protocol/messages.ts'
import type { Entry, Feed, FeedRequest, FrameOf } from './feed.ts'
import { type Delta, LiveRows, ProtocolError } from './live-rows.ts'
import { Stand } from './stand.ts'
import { type FeedStatus, isLive, type Refusal } from './status.ts'

export interface LiveState {
  /** Equal to the SELECT when `status` is `live`; the last rows known while `offline`. In the order they came. */
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

export class LiveFeed implements Feed {
  readonly request: FeedRequest
  readonly #rows = new LiveRows()
  readonly #stand = new Stand()
  readonly #listeners = new Set<(state: LiveState) => void>()
  readonly #report: (error: Error) => void
  #state: LiveState = {
    rows: [],
    delta: null,
    status: 'connecting',
    stale: false,
    error: null,
    exact: true,
    warnings: [],
  }

  constructor(request: FeedRequest, report: (error: Error) => void) {
    this.request = request
    this.#report = report
  }

  entry(id: number): Entry {
    const { since } = this.#stand
    return { type: 'subscribe', id, ...this.request, ...(since === null ? {} : { since }) }
  }

  get isLive(): boolean {
    return isLive(this.#state.status)
  }

  get state(): LiveState {
    return this.#state
  }

  get listenerCount(): number {
    return this.#listeners.size
  }

  /** Tells the listener the state as it is, at once, and from now on. */
  listen(listener: (state: LiveState) => void): () => void {
    this.#listeners.add(listener)
    this.#call(listener, { ...this.#state, delta: null })
    return () => this.#listeners.delete(listener)
  }

  accepted(frame: FrameOf<'subscribed' | 'joined'>): void {
    if (frame.type !== 'subscribed') return
    this.#stand.setTag(frame.tag)
    this.#rows.setKey(frame.key)
    const notes = { exact: frame.exact ?? true, warnings: frame.warnings ?? [] }
    if (frame.resumed) {
      this.#tell({ status: 'live', error: null, ...notes })
      return
    }
    this.#clear()
    this.#tell({ status: 'catching up', rows: this.#rows.rows, ...notes })
  }

  received(frame: Parameters<Feed['received']>[0], shared: boolean): void {
    if (frame.type === 'snapshot') {
      if (!this.#rows.snapshot(frame)) return
      if (frame.position === undefined) throw new ProtocolError('a whole snapshot came without its position')
      this.#stand.moveTo(frame.position)
      this.#tell({ rows: this.#rows.rows, status: 'live', error: null })
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
    if (since !== undefined && this.#rows.exact) this.#stand.moveToSince(since)
    if (stale !== this.#state.stale) this.#tell({ stale })
  }

  moved(status: FeedStatus, error: Refusal | null): void {
    // What may not be asked for any longer may not be shown any longer.
    if (status === 'refused') this.#clear()
    if (status === this.#state.status && error === this.#state.error) return
    this.#tell({ status, error, rows: this.#rows.rows })
  }

  restart(error: Refusal): void {
    this.#clear()
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
  }

  #clear(): void {
    this.#rows.expectSnapshot()
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
