// A live subscription: rows now, then deltas, always equal to the SELECT.

import { type ResyncCode, resyncCodes } from '../../protocol/codes.ts'
import type { OrderTerm, Warning } from '../../protocol/messages.ts'
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Audience } from '../route/audience.ts'
import { Batch } from '../route/batch.ts'
import type { Manner, Member } from '../route/members.ts'
import { orderTermsOf } from '../route/ordering.ts'
import type { Outgoing } from '../route/outgoing.ts'
import type { Reader } from '../snapshot/reader.ts'
import { advance } from './advance.ts'
import { type FirstSnapshotRequest, firstSnapshot, unsettled } from './first-snapshot.ts'
import { reached } from './reached.ts'
import { SpanError } from './span.ts'
import type { Stream } from './stream.ts'
import type { Outlet, Subscription } from './subscription.ts'
import { atWindow, windowSince, windowSnapshot } from './window-stand.ts'

/** Where it stands:
 *  - `joining`: its first snapshot is being read; nothing it holds may be resumed from.
 *  - `attached`: at the head with its audience (or at the start of the audience's hold).
 *  - `behind`: at `lsn`; it takes nothing until its outlet has room and `advance` has brought it to the head.
 *  - `closed`. */
type State =
  | { readonly name: 'joining' }
  | { readonly name: 'attached' }
  | { readonly name: 'behind'; readonly lsn: bigint; readonly advancing: boolean }
  | { readonly name: 'closed' }

const joining: State = { name: 'joining' }
const attached: State = { name: 'attached' }
const closed: State = { name: 'closed' }

/** Whose subscription it is. Told by name instead of by closures, and asked for what takes room and is seldom needed: the
 *  settings of a reader are 800 bytes. */
export interface LiveOwner {
  reader(): Reader
  onClosed(): void
}

export interface LiveOptions {
  readonly stream: Stream
  readonly audience: Audience
  readonly owner: LiveOwner
  readonly outlet: Outlet
  readonly warnings: readonly Warning[]
  /** Commit LSN to resume from; null for a fresh snapshot. */
  readonly since: bigint | null
  /** The fresh snapshot is not older than this commit. */
  readonly notBefore?: bigint
}

export class LiveSubscription implements Subscription, Member {
  readonly kind = 'live'
  readonly query: number
  readonly resumed: boolean
  readonly warnings: readonly Warning[]
  readonly audience: Audience
  readonly #stream: Stream
  readonly #owner: LiveOwner
  readonly #outlet: Outlet
  readonly #notBefore: bigint
  #state: State
  /** Counts the runs of `joining` and `advancing`, so that one that was overtaken knows. */
  #run = 0
  #drained: readonly (() => void)[] = nobodyWaits
  #hasRoom = true
  /** Where the last delta brought it: ahead of the head while a large commit is being served to others. */
  #deliveredLsn = 0n

  constructor(options: LiveOptions) {
    this.#stream = options.stream
    this.#owner = options.owner
    this.#outlet = options.outlet
    this.audience = options.audience
    this.query = options.audience.query.number
    this.resumed = options.since !== null
    this.warnings = options.warnings
    this.#state = options.since === null ? joining : { name: 'behind', lsn: options.since, advancing: false }
    this.#notBefore = options.notBefore ?? 0n
    this.audience.members.stepBack(this)
  }

  get tag(): string {
    return this.audience.tag
  }

  get key(): readonly string[] {
    const { primaryKey, columns } = this.audience.query.table
    return primaryKey.map(column => columns[column]!.name)
  }

  get order(): OrderTerm[] | undefined {
    const { table, ordering = null } = this.audience.query
    return ordering === null ? undefined : orderTermsOf(table, ordering)
  }

  get limit(): number | undefined {
    return this.audience.query.ordering?.limit ?? undefined
  }

  /** Begins to send. Called once, after the client was told that the subscription stands. */
  start(): void {
    if (this.#state.name === 'joining') void this.#join(null)
    else void this.#advance()
  }

  reader(): Reader {
    return this.#owner.reader()
  }

  get isClosed(): boolean {
    return this.#state.name === 'closed'
  }

  position(): Position {
    const { relay, head } = this.#stream
    const at = (lsn: bigint): Position => ({ epoch: relay.epoch, lsn, index: WHOLE_COMMIT })
    if (this.#state.name === 'behind') return at(this.#state.lsn)
    if (this.#state.name === 'attached') {
      if (this.audience.hold !== null) return at(this.audience.hold.since)
      if (this.#deliveredLsn > head.lsn) return at(this.#deliveredLsn)
      // Another audience of the commit may be told while this one has been: its ids must not step back.
      if (this.audience.toldLsn > head.lsn) return at(this.audience.toldLsn)
      return at(head.lsn)
    }
    // Before the first snapshot is whole there is nothing to resume: position 0 asks for a fresh one.
    return at(0n)
  }

  deliver(batch: Batch): void {
    const room = batch.events.length === 0 || this.#outlet.sendBatch(batch)
    if (this.#state.name !== 'attached') return
    if (!room) this.#fallBehind(batch.lsn)
    // The client may have been told of the subscription since: from now on it needs no detour.
    else this.audience.members.add(this, this.#outlet.sink)
  }

  sinkIsFull(batch: Batch): void {
    this.#outlet.sinkIsFull()
    this.#fallBehind(batch.lsn)
  }

  /** Takes a part of a large commit's delta. @returns false when it has no room for the next: see `hasRoom` */
  deliverPart(part: Outgoing, done: boolean, lsn: bigint): boolean {
    const room = this.#outlet.send(part)
    if (done) this.#deliveredLsn = lsn
    if (room || this.#state.name !== 'attached') return true
    if (done) this.#fallBehind(lsn)
    else this.#hasRoom = false
    return done
  }

  /** False from a part that found no room until the outlet has some again. */
  get hasRoom(): boolean {
    return this.#hasRoom
  }

  /** A commit too large to be kept was cut short for this subscriber, or what it holds is void for another reason. */
  resync(code: ResyncCode): void {
    if (this.#state.name === 'closed') return
    this.#outlet.resync(code, resyncCodes[code])
    this.#startOver(null)
  }

  retract(manner: Manner): void {
    this.#outlet.takeBack(manner)
  }

  retreat({ sinceLsn }: Outgoing): void {
    if (this.#state.name === 'closed') return
    // Whatever runs goes on from where it does not stand any more.
    this.#run += 1
    if (sinceLsn !== null && sinceLsn > 0n) {
      this.#fallBehind(sinceLsn)
      return
    }
    // Of a first snapshot it has nothing, or a part that the rest would have to fit.
    if (sinceLsn === null) this.#outlet.resync('INPUTS_CHANGED', resyncCodes.INPUTS_CHANGED)
    this.#startOver(this.#room())
  }

  resume(): void {
    this.#hasRoom = true
    this.#wake()
    if (this.#state.name === 'behind' && !this.#state.advancing) void this.#advance()
  }

  close(): void {
    if (this.#state.name === 'closed') return
    this.#state = closed
    this.#hasRoom = true
    this.audience.members.delete(this)
    this.#wake()
    this.#owner.onClosed()
  }

  /** It cannot go on. */
  end(error: TidegateError): void {
    this.#fail(error)
  }

  #wake(): void {
    const drained = this.#drained
    this.#drained = nobodyWaits
    for (const resolve of drained) resolve()
  }

  #fail(error: unknown): void {
    if (this.#state.name === 'closed') return
    this.close()
    this.#outlet.fail(error)
  }

  #fallBehind(lsn: bigint): void {
    this.audience.members.stepBack(this)
    this.#state = { name: 'behind', lsn, advancing: false }
  }

  #startOver(room: Promise<void> | null): void {
    this.audience.members.stepBack(this)
    this.#deliveredLsn = 0n
    this.#state = joining
    void this.#join(room)
  }

  /** Resolves when the outlet has room again. */
  #room(): Promise<void> {
    return new Promise<void>(resolve => {
      this.#drained = [...this.#drained, resolve]
    })
  }

  #attach(): void {
    this.#state = attached
    this.audience.members.add(this, this.#outlet.sink)
  }

  /** @param room to wait for; null: there is some */
  async #join(room: Promise<void> | null): Promise<void> {
    this.#run += 1
    const run = this.#run
    const cancelled = (): boolean => this.#run !== run || this.#state.name !== 'joining'
    const { audience } = this
    const [stream, outlet, reader] = [this.#stream, this.#outlet, this.reader()]
    let sent = false
    const request: FirstSnapshotRequest = {
      audience,
      reader,
      cancelled,
      send: part => {
        sent = true
        hasRoom = outlet.send(part)
        return hasRoom
      },
      drained: () => this.#room(),
      joined: () => {
        if (hasRoom) this.#attach()
        else this.#fallBehind(stream.head.lsn)
      },
    }
    let hasRoom = true
    try {
      if (room !== null) await room
      for (let attempt = 1; !cancelled(); attempt++) {
        try {
          if (audience.window === null) await firstSnapshot(stream, request)
          else await windowSnapshot(stream, audience.window, request, this.#notBefore)
          return
        } catch (error) {
          // While the snapshot was read, memberships changed in a way that names no rows, or a commit passed that is too
          // large to lay over it. A snapshot taken a moment later sees both.
          if (!(error instanceof SpanError) || cancelled()) throw error
          if (attempt === maxAttempts) throw unsettled(audience, error)
          if (sent) outlet.resync(error.code, resyncCodes[error.code])
          sent = false
          await new Promise(resolve => setTimeout(resolve, retryMs * attempt))
        }
      }
    } catch (error) {
      if (!cancelled()) this.#fail(error)
    }
  }

  async #advance(): Promise<void> {
    if (this.#state.name !== 'behind') return
    this.#run += 1
    const run = this.#run
    const { lsn } = this.#state
    this.#state = { name: 'behind', lsn, advancing: true }
    const cancelled = (): boolean => this.#run !== run || this.#state.name !== 'behind'
    const { audience } = this
    const stream = this.#stream
    try {
      if (!(await reached(stream, lsn, cancelled))) {
        if (!cancelled()) throw new TidegateError('UNAVAILABLE', 'the stream has not come to this position yet')
        return
      }
      if (audience.window !== null) {
        const { window } = audience
        await atWindow(stream, { audience, window, reader: () => this.reader(), cancelled }, () => {
          this.#attach()
          this.deliver(new Batch(audience, windowSince(stream, window, lsn), stream.head.lsn))
        })
        return
      }
      await advance(stream, { audience, from: lsn, held: null, cancelled }, result => {
        if (result.resync !== null) {
          this.resync(result.resync)
          return
        }
        this.#attach()
        this.deliver(new Batch(audience, result.outgoing, stream.head.lsn))
      })
    } catch (error) {
      if (!cancelled()) this.#fail(error)
    }
  }
}

const nobodyWaits: readonly (() => void)[] = []

const maxAttempts = 8
const retryMs = 50
