// A subscription to changes: every insert, update and delete as an event of its own, exactly once.

import { type ResyncCode, resyncCodes } from '../../protocol/codes.ts'
import type { Warning } from '../../protocol/messages.ts'
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Audience } from '../route/audience.ts'
import type { Batch } from '../route/batch.ts'
import type { Manner, Member } from '../route/members.ts'
import type { Outgoing } from '../route/outgoing.ts'
import type { LiveOwner } from './live-subscription.ts'
import { reached } from './reached.ts'
import { replay } from './replay.ts'
import { shownColumns } from './shown-columns.ts'
import { SpanError } from './span.ts'
import type { Stream } from './stream.ts'
import type { Outlet, ShownColumn, Subscription } from './subscription.ts'

type State =
  | { readonly name: 'attached' }
  /** Waits at `position` for room, or is being replayed from it. */
  | { readonly name: 'behind'; readonly position: Position; readonly replaying: boolean }
  | { readonly name: 'closed' }

export interface ChangesOptions {
  readonly stream: Stream
  readonly audience: Audience
  readonly outlet: Outlet
  readonly warnings: readonly Warning[]
  /** null to begin at the head. */
  readonly since: Position | null
  readonly owner: Pick<LiveOwner, 'onClosed'>
}

export class ChangesSubscription implements Subscription, Member {
  readonly kind = 'changes'
  readonly query: number
  readonly tag: string
  readonly key: readonly string[]
  readonly resumed: boolean
  readonly warnings: readonly Warning[]
  readonly audience: Audience
  readonly #options: ChangesOptions
  #state: State
  #run = 0
  /** Ahead of the head while a large commit is being served. */
  #lastSent: Position | null = null

  constructor(options: ChangesOptions) {
    const { audience, since, stream } = options
    this.#options = options
    this.audience = audience
    this.query = audience.query.number
    this.tag = audience.tag
    this.key = audience.query.table.primaryKey.map(column => audience.query.table.columns[column]!.name)
    this.resumed = since !== null
    this.warnings = options.warnings
    this.#state = { name: 'behind', position: since ?? headOf(stream), replaying: false }
    this.audience.members.stepBack(this)
  }

  /** Begins to send. Called once, after the client was told that the subscription stands. */
  start(): void {
    void this.#replay()
  }

  get columns(): readonly ShownColumn[] {
    return shownColumns(this.audience.query)
  }

  get isClosed(): boolean {
    return this.#state.name === 'closed'
  }

  /** Whether it was not told yet all that it is owed. */
  get isBehind(): boolean {
    return this.#state.name === 'behind'
  }

  position(): Position {
    if (this.#state.name === 'behind') return this.#state.position
    const head = headOf(this.#options.stream)
    const last = this.#lastSent
    if (last !== null && last.epoch === head.epoch && last.lsn > head.lsn) return last
    const { toldLsn } = this.#options.audience
    return toldLsn > head.lsn ? { ...head, lsn: toldLsn } : head
  }

  deliver(batch: Batch): void {
    if (this.#state.name !== 'attached') return
    const { outlet } = this.#options
    if (batch.isAhead) this.#lastSent = batch.events.at(-1)!.position
    if (batch.isJoined) {
      if (!outlet.sendBatch(batch)) this.#fallBehind(batch.events.at(-1)!.position!)
      else this.audience.members.add(this, outlet.sink)
      return
    }
    for (const event of batch.events) {
      if (outlet.send(event)) continue
      // The rest of the commit comes from the relay, from the index where this event ends.
      this.#fallBehind(event.position!)
      return
    }
  }

  sinkIsFull(batch: Batch): void {
    this.#options.outlet.sinkIsFull()
    this.#fallBehind(batch.events.at(-1)!.position!)
  }

  /** What it was owed cannot be told any more: events begin anew at the head. */
  resync(code: ResyncCode): void {
    if (this.#state.name === 'closed') return
    this.#options.outlet.resync(code, resyncCodes[code])
    this.#fallBehind(headOf(this.#options.stream))
    void this.#replay()
  }

  /** A commit cannot be handed to it as it passes: it takes what it can from the relay. */
  catchUp(): void {
    if (this.#state.name !== 'attached') return
    this.#fallBehind(headOf(this.#options.stream))
    void this.#replay()
  }

  retract(manner: Manner): void {
    this.#options.outlet.takeBack(manner)
  }

  retreat({ position }: Outgoing): void {
    if (this.#state.name === 'closed') return
    // Whatever runs goes on from where it does not stand any more.
    this.#run += 1
    this.#fallBehind({ ...position!, index: position!.index - 1 })
  }

  resume(): void {
    if (this.#state.name === 'behind' && !this.#state.replaying) void this.#replay()
  }

  close(): void {
    if (this.#state.name === 'closed') return
    this.#state = { name: 'closed' }
    this.audience.members.delete(this)
    this.#options.owner.onClosed()
  }

  #fallBehind(position: Position): void {
    this.audience.members.stepBack(this)
    this.#state = { name: 'behind', position, replaying: false }
  }

  async #replay(): Promise<void> {
    if (this.#state.name !== 'behind') return
    this.#run += 1
    const run = this.#run
    const { position } = this.#state
    this.#state = { name: 'behind', position, replaying: true }
    const cancelled = (): boolean => this.#run !== run || this.#state.name !== 'behind'
    const { stream, audience, outlet } = this.#options
    try {
      if (!(await reached(stream, position.lsn, cancelled))) {
        if (!cancelled()) throw new TidegateError('UNAVAILABLE', 'the stream has not come to this position yet')
        return
      }
      const send = (event: Outgoing): boolean => {
        this.#state = { name: 'behind', position: event.position!, replaying: true }
        return outlet.send(event)
      }
      await replay(stream, { audience, from: position, cancelled, send }, result => {
        if (result.atHead) {
          this.#state = { name: 'attached' }
          this.audience.members.add(this, outlet.sink)
        } else this.#fallBehind(result.position)
      })
    } catch (error) {
      if (cancelled()) return
      if (error instanceof SpanError) {
        this.resync(error.code)
        return
      }
      this.close()
      outlet.fail(error)
    }
  }
}

const headOf = ({ relay, head }: Stream): Position => ({ epoch: relay.epoch, lsn: head.lsn, index: WHOLE_COMMIT })
