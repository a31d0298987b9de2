// A subscription to what only Postgres can tell: rows or events as its query returned them, a moment after they changed.
import { type ResyncCode, resyncCodes } from '../../protocol/codes.ts'
import type { OrderTerm, Warning } from '../../protocol/messages.ts'
import type { Position } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { AskedAudience, Waiting } from '../ask/asked-audience.ts'
import type { Batch } from '../route/batch.ts'
import type { Manner, Member } from '../route/members.ts'
import { orderTermsOf } from '../route/ordering.ts'
import type { Outgoing } from '../route/outgoing.ts'
import { shownColumns } from './shown-columns.ts'
import type { Outlet, ShownColumn, Subscription } from './subscription.ts'

/** Where it stands:
 *  - `waiting`: the audience is asked to bring it from there to the head; from nowhere if it holds nothing yet.
 *  - `attached`: with its audience.
 *  - `receiving`: what brings it to `at` is handed over as there is room.
 *  - `behind`: there, until its outlet has room.
 *  - `closed`. */
type State =
  | { readonly name: 'waiting'; readonly from: Position | null }
  | { readonly name: 'attached' }
  | { readonly name: 'receiving'; readonly left: Outgoing[]; readonly from: Position | null; readonly at: Position }
  | { readonly name: 'behind'; readonly at: Position }
  | { readonly name: 'closed' }

/** What readers have still to take of rows that were read for them: in memory meanwhile, and shared where several came at
 *  once. Past its bound whoever cannot take all of its rows at once is sent away for a while. */
export class Untaken {
  readonly #maxChars: number
  #chars = 0

  constructor(maxChars: number) {
    this.#maxChars = maxChars
  }

  /** @returns false when there is no room */
  add(chars: number): boolean {
    if (this.#chars + chars > this.#maxChars) return false
    this.#chars += chars
    return true
  }

  remove(chars: number): void {
    this.#chars -= chars
  }
}

export interface AskedSubscriptionOptions {
  readonly audience: AskedAudience
  readonly outlet: Outlet
  readonly warnings: readonly Warning[]
  /** A position that the audience remembers; null to begin fresh. */
  readonly since: Position | null
  /** The position is the client's own. */
  readonly resumed: boolean
  readonly untaken: Untaken
  readonly onClosed: () => void
}

export class AskedSubscription implements Subscription, Member, Waiting {
  readonly exact = false as const
  readonly kind: 'live' | 'changes'
  readonly query: number
  readonly tag: string
  readonly key: readonly string[]
  readonly resumed: boolean
  readonly warnings: readonly Warning[]
  readonly audience: AskedAudience
  readonly #outlet: Outlet
  readonly #onClosed: () => void
  readonly #untaken: Untaken
  #untakenChars = 0
  #state: State

  constructor(options: AskedSubscriptionOptions) {
    const { audience, since } = options
    const { kind, number, table } = audience.query
    this.audience = audience
    this.kind = kind === 'live' ? 'live' : 'changes'
    this.query = number
    this.tag = audience.tag
    this.key = table.primaryKey.map(column => table.columns[column]!.name)
    this.resumed = options.resumed
    this.warnings = options.warnings
    this.#outlet = options.outlet
    this.#onClosed = options.onClosed
    this.#untaken = options.untaken
    this.#state = { name: 'waiting', from: since }
  }

  get order(): OrderTerm[] | undefined {
    const { table, ordering = null } = this.audience.query
    return ordering === null ? undefined : orderTermsOf(table, ordering)
  }

  get limit(): number | undefined {
    return this.audience.query.ordering?.limit ?? undefined
  }

  get columns(): readonly ShownColumn[] | undefined {
    return this.kind === 'changes' ? shownColumns(this.audience.query) : undefined
  }

  /** Begins to send. Called once, after the client was told that the subscription stands.
   *  @param code why it could not resume; null where it did, or need not */
  start(code: ResyncCode | null): void {
    if (this.#state.name !== 'waiting') return
    if (code !== null) this.#outlet.resync(code, resyncCodes[code])
    this.audience.ask(this)
  }

  get isClosed(): boolean {
    return this.#state.name === 'closed'
  }

  get from(): Position | null {
    return this.#state.name === 'waiting' ? this.#state.from : null
  }

  position(): Position {
    const state = this.#state
    if (state.name === 'attached') return this.audience.position()
    if (state.name === 'behind') return state.at
    const from = state.name === 'waiting' || state.name === 'receiving' ? state.from : null
    // Before the first rows are whole there is nothing to resume: position 0 asks for fresh ones.
    return from ?? { ...this.audience.position(), lsn: 0n }
  }

  told(events: readonly Outgoing[], at: Position): void {
    if (this.#state.name !== 'waiting') return
    // The last first, so that each is taken from the end.
    this.#state = { name: 'receiving', left: events.toReversed(), from: this.#state.from, at }
    this.#receive()
  }

  /** What it was owed cannot be told any more: it begins anew. */
  forgotten(): void {
    if (this.#state.name !== 'waiting') return
    this.#state = { name: 'waiting', from: null }
    this.#outlet.resync('ASKED_FORGOTTEN', resyncCodes.ASKED_FORGOTTEN)
    this.audience.ask(this)
  }

  fail(error: unknown): void {
    if (this.#state.name === 'closed') return
    this.close()
    this.#outlet.fail(error)
  }

  deliver(batch: Batch): void {
    if (this.#state.name !== 'attached') return
    if (this.kind === 'live' || batch.isJoined) {
      if (!this.#outlet.sendBatch(batch)) this.#fallBehind(batch.events.at(-1)!.position!)
      else this.audience.members.add(this, this.#outlet.sink)
      return
    }
    for (const event of batch.events) {
      if (this.#outlet.send(event)) continue
      this.#fallBehind(event.position!)
      return
    }
  }

  sinkIsFull(batch: Batch): void {
    this.#outlet.sinkIsFull()
    this.#fallBehind(batch.events.at(-1)!.position!)
  }

  resume(): void {
    if (this.#state.name === 'receiving') this.#receive()
    else if (this.#state.name === 'behind') this.#comeBack(this.#state.at)
  }

  retract(manner: Manner): void {
    this.#outlet.takeBack(manner)
  }

  /** What was taken back is not kept here: it begins anew. */
  retreat(): void {
    const { name } = this.#state
    if (name === 'closed') return
    this.audience.members.delete(this)
    this.#state = { name: 'waiting', from: null }
    this.#outlet.resync('INPUTS_CHANGED', resyncCodes.INPUTS_CHANGED)
    if (name !== 'waiting') this.audience.ask(this)
  }

  close(): void {
    if (this.#state.name === 'closed') return
    this.#state = { name: 'closed' }
    this.#keep(0)
    this.audience.members.delete(this)
    this.audience.leave(this)
    this.#onClosed()
  }

  /** Hands over as much as there is room for. */
  #receive(): void {
    while (this.#state.name === 'receiving') {
      const { left, at } = this.#state
      const event = left.pop()
      if (event === undefined) {
        this.#comeBack(at)
        return
      }
      if (event.position !== null) this.#state = { ...this.#state, from: event.position }
      if (this.#outlet.send(event)) continue
      if (this.#state.name !== 'receiving') return
      if (left.length === 0) {
        this.#keep(0)
        this.#state = { name: 'behind', at }
      } else if (!this.#keep(charsOf(left))) this.fail(tooMuch())
      return
    }
    this.#keep(0)
  }

  /** @returns false when there is no room */
  #keep(chars: number): boolean {
    this.#untaken.remove(this.#untakenChars)
    const hasRoom = this.#untaken.add(chars)
    this.#untakenChars = hasRoom ? chars : 0
    return hasRoom
  }

  /** Joins the members where nothing has been told since it stood there; else it is told what. */
  #comeBack(at: Position): void {
    if (this.audience.isCurrent(at)) {
      this.#state = { name: 'attached' }
      this.audience.members.add(this, this.#outlet.sink)
      this.audience.attended()
      return
    }
    this.#state = { name: 'waiting', from: at }
    this.audience.ask(this)
  }

  #fallBehind(at: Position): void {
    this.audience.members.delete(this)
    this.#state = { name: 'behind', at }
  }
}

function charsOf(events: readonly Outgoing[]): number {
  let chars = 0
  for (const { json } of events) chars += json.length
  return chars
}

const tooMuch = (): TidegateError => new TidegateError('BUSY', 'too many rows wait to be taken by slow readers')
