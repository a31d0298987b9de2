// One subscription's place in a channel: what it is given, where it stands, what happens when it takes messages too slowly.

import { type ResyncCode, resyncCodes, warningCodes } from '../../protocol/codes.ts'
import type { Warning } from '../../protocol/messages.ts'
import type { Position } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { Outgoing } from '../route/outgoing.ts'
import type { BatchSink, Outlet } from '../subscribe/subscription.ts'
import { isFor } from './addressee.ts'
import type { Channel } from './channel.ts'
import type { Caller, ChannelRequest, ChannelSubscription, SendRequest, TrackRequest } from './door.ts'
import { gapJson } from './event-json.ts'
import type { ChannelPermission, PermissionWatcher } from './guards/permission.ts'
import { goesOn, type Published } from './message.ts'
import type { PresenceWatcher } from './presence/channel-presence.ts'
import { noLonger } from './refusals.ts'
import type { Standing } from './relay/channel-relay.ts'
import { defaultRule } from './rules.ts'
import type { SendRate } from './send-rate.ts'
import { SlowBuffer } from './slow-buffer.ts'
import type { ChannelEvent, ChannelReceiver, ChannelTurn } from './turn.ts'

/** How a member begins: with what is published from now on; after a number of the history; or with what it is told of what
 *  it missed. */
export type Beginning =
  /** @prop upTo those up to this number it has been told at another node */
  | { readonly kind: 'now'; readonly upTo?: bigint }
  | { readonly kind: 'after'; readonly seq: bigint; readonly resumed: boolean }
  | { readonly kind: 'resync'; readonly code: ResyncCode }
  | { readonly kind: 'gap'; readonly missed: number | null }

export interface MemberOwner {
  send(member: ChannelMember, request: SendRequest): Promise<Published>
  track(member: ChannelMember, request: TrackRequest): Promise<void>
  untrack(member: ChannelMember, how: 'gone' | 'broken'): Promise<void>
  /** @param how its client may come back in a moment, or said that it goes */
  left(member: ChannelMember, how: 'gone' | 'broken'): void
}

/** - `attached`: gets what the channel tells, in the turn in which it is told.
 *  - `behind`: stands at a number, and reads on from the history while there is room.
 *  - `buffering`: what it may still get waits in its buffer, by the channel's rule. */
type State =
  | { readonly name: 'attached' }
  | { readonly name: 'behind'; readonly seq: bigint; readonly isReading: boolean }
  | { readonly name: 'buffering'; readonly at: Position; readonly buffer: SlowBuffer<ChannelEvent> }
  | { readonly name: 'closed' }

const sent = Promise.resolve()

interface Receives {
  readonly broadcast: boolean
  readonly presence: boolean
}

const receivesNothing: Receives = { broadcast: false, presence: false }
const receiving: readonly Receives[] = [
  receivesNothing,
  { broadcast: true, presence: false },
  { broadcast: false, presence: true },
  { broadcast: true, presence: true },
]
const attached: State = { name: 'attached' }
const closed: State = { name: 'closed' }
const retryMs = 500
const noKey: readonly string[] = []
const noWarnings: readonly Warning[] = []
const asked: readonly Warning[] = [{ code: 'POLICY_ASKED', message: warningCodes.POLICY_ASKED }]

export class ChannelMember implements ChannelSubscription, ChannelReceiver, PermissionWatcher, PresenceWatcher {
  readonly kind = 'channel'
  readonly key = noKey
  readonly resumed: boolean
  readonly warnings: readonly Warning[]
  readonly exact?: false
  readonly channel: Channel
  readonly caller: Caller
  readonly request: ChannelRequest
  /** As what it is there, or shall be as soon as that can be stored; null: it is not. */
  tracked: TrackRequest | null = null
  /** Made with its first message. */
  rate: SendRate | null = null
  /** Resolves when its message before was given to the relay. */
  sendBefore: Promise<void> = sent
  /** It has not been told yet who is here. */
  isPresenceOwed = false
  readonly #outlet: Outlet
  readonly #owner: MemberOwner
  #permission: ChannelPermission | null = null
  /** What it may receive; losing some of it ends it. */
  #receives: Receives = receivesNothing
  #state: State = attached
  #run = 0
  #hasStarted = false
  #sink: BatchSink | null = null
  /** Its client has these already: it came from a node that was ahead. */
  #skipUpTo: bigint | null = null

  constructor(options: {
    readonly channel: Channel
    readonly caller: Caller
    readonly request: ChannelRequest
    readonly outlet: Outlet
    readonly owner: MemberOwner
    readonly beginning: Beginning
    readonly isExact: boolean
  }) {
    this.channel = options.channel
    this.caller = options.caller
    this.request = options.request
    this.#outlet = options.outlet
    this.#owner = options.owner
    if (!options.isExact) this.exact = false
    this.warnings = options.isExact ? noWarnings : asked
    const { beginning } = options
    const { since } = this.request
    this.resumed = beginning.kind === 'after' ? beginning.resumed : beginning.kind === 'now' && since !== null
    // From this turn on it misses nothing; what it missed before is told first.
    this.channel.handOut()
    if (beginning.kind === 'now') this.#skipUpTo = beginning.upTo ?? null
    if (beginning.kind === 'after') this.#state = { name: 'behind', seq: beginning.seq, isReading: false }
    else if (beginning.kind === 'resync') this.#outlet.resync(beginning.code, resyncCodes[beginning.code])
    else if (beginning.kind === 'gap') this.#give(this.#gapOf(beginning.missed))
    this.channel.members.add(this)
  }

  get query(): number {
    return this.channel.number
  }

  get tag(): string {
    return this.channel.tag
  }

  get hasHistory(): boolean {
    return this.channel.hasHistory
  }

  get maySend(): boolean {
    return this.#permission?.may('send', 'broadcast') ?? false
  }

  get idempotencyMs(): number | undefined {
    const { idempotencyMs } = this.channel.rule
    return idempotencyMs === defaultRule.idempotencyMs ? undefined : idempotencyMs
  }

  get hasCaughtUp(): boolean {
    return this.#hasStarted && this.#state.name !== 'behind' && !this.isPresenceOwed
  }

  get isClosed(): boolean {
    return this.#state.name === 'closed'
  }

  get permission(): ChannelPermission | null {
    return this.#permission
  }

  /** Its permission stands; from now on it watches it. */
  admit(permission: ChannelPermission): void {
    this.#permission = permission
    const [broadcast, presence] = [permission.may('receive', 'broadcast'), permission.may('receive', 'presence')]
    this.#receives = receiving.find(each => each.broadcast === broadcast && each.presence === presence)!
  }

  get receivesPresence(): boolean {
    return this.#receives.presence && this.request.presence
  }

  /** Begins to send. Called once, after the client was told that it is here. */
  start(): void {
    if (this.#state.name === 'closed') return
    this.#hasStarted = true
    if (this.#state.name === 'behind') void this.#advance()
    if (this.receivesPresence) this.channel.here?.watch(this)
  }

  position(): Position {
    const state = this.#state
    if (state.name === 'buffering') return state.at
    if (state.name === 'behind') return this.channel.positionAt({ epoch: this.channel.told.epoch, seq: state.seq })
    const { position, told } = this.channel
    const seq = this.#skipUpTo
    return seq === null || seq <= told.seq ? position : this.channel.positionAt({ epoch: told.epoch, seq })
  }

  receive(turn: ChannelTurn): void {
    const state = this.#state
    if (state.name === 'behind' || state.name === 'closed') return
    if (state.name === 'buffering') {
      for (const event of turn.events) if (this.#isFor(event)) this.#buffer(state.buffer, event)
      return
    }
    const { batch } = turn
    if (!this.#getsAll(turn)) {
      for (const event of turn.events) if (this.#isFor(event)) this.#give(this.#ownGap(event))
    } else if (this.#sink !== null && batch.isJoined) {
      if (this.#sink.pushBatch(batch, this)) return
      this.#outlet.sinkIsFull()
      this.#fallBehind(turn.events.at(-1)!)
    } else if (this.#outlet.sendBatch(batch)) this.#sink = this.#outlet.sink
    else this.#fallBehind(turn.events.at(-1)!)
  }

  /** Gives one event, wherever it stands; what has no room waits as the rule says. */
  #give(event: ChannelEvent): void {
    const state = this.#state
    if (state.name === 'buffering') this.#buffer(state.buffer, event)
    else if (state.name === 'attached' && !this.#outlet.send(event.outgoing)) this.#fallBehind(event)
  }

  /** Whether what changes of who is here can be told now. */
  get takesPresence(): boolean {
    return this.#hasStarted && this.#state.name === 'attached'
  }

  startOver(): void {
    if (this.#state.name === 'closed') return
    this.#run += 1
    this.#skipUpTo = null
    if (this.hasHistory) this.#resync('HISTORY_LOST')
    else this.#give(this.#gapOf(null))
  }

  /** Who came from a node that was ahead may have been told what was lost with the epoch. */
  enterEpoch(epoch: string, now: Standing): void {
    const seq = this.#state.name === 'behind' ? this.#state.seq : this.#skipUpTo
    if (seq !== null && !goesOn({ epoch, seq }, now)) this.startOver()
  }

  resume(): void {
    const state = this.#state
    if (state.name === 'behind' && !state.isReading) void this.#advance()
    else if (state.name === 'buffering') this.#flush(state)
  }

  retreat(first: Outgoing): void {
    if (this.#state.name === 'closed') return
    this.#run += 1
    this.#sink = null
    if (this.receivesPresence) this.isPresenceOwed = true
    const { position } = first
    if (this.hasHistory && position !== null)
      this.#state = {
        name: 'behind',
        seq: first.event === 'message' ? position.lsn - 1n : position.lsn,
        isReading: false,
      }
    else this.#give(this.#gapOf(null))
  }

  changed(): void {
    const permission = this.#permission
    if (permission === null || this.#state.name === 'closed') return
    const { broadcast, presence } = this.#receives
    const hasLost =
      (broadcast && !permission.may('receive', 'broadcast')) || (presence && !permission.may('receive', 'presence'))
    if (hasLost) this.fail(noLonger(this.channel.name))
    else if (this.tracked !== null && !permission.may('send', 'presence'))
      void this.#owner.untrack(this, 'gone').catch(() => {})
  }

  ended(error: unknown): void {
    this.fail(error)
  }

  /** It has ended. */
  fail(error: unknown): void {
    if (this.#state.name === 'closed') return
    this.close('gone')
    this.#outlet.fail(error)
  }

  close(how: 'gone' | 'broken' = 'broken'): void {
    if (this.#state.name === 'closed') return
    this.#state = closed
    this.#sink = null
    this.channel.members.delete(this)
    this.channel.here?.unwatch(this)
    this.#permission?.release()
    this.#owner.left(this, how)
  }

  send(request: SendRequest): Promise<Published> {
    return this.#owner.send(this, request)
  }

  track(request: TrackRequest): Promise<void> {
    return this.#owner.track(this, request)
  }

  untrack(): Promise<void> {
    return this.#owner.untrack(this, 'gone')
  }

  #resync(code: ResyncCode): void {
    this.#sink = null
    this.#outlet.resync(code, resyncCodes[code])
    // What was read or kept for it came before that.
    this.#attach()
  }

  #attach(): void {
    this.#state = attached
    if (this.isPresenceOwed) this.channel.here?.tellHere(this)
  }

  #gapOf(missed: number | null): ChannelEvent {
    const { told } = this.channel
    const outgoing = new Outgoing('gap', gapJson('MESSAGES_LOST', missed), this.channel.positionAt(told))
    return { outgoing, event: '', seq: told.seq, message: null, missed }
  }

  #getsAll({ hasTarget, senders }: ChannelTurn): boolean {
    if (hasTarget || this.#skipUpTo !== null || !this.#receives.broadcast) return false
    const { connection } = this.caller
    return this.request.self || connection === null || !senders.has(connection)
  }

  #isFor({ message, seq, missed }: ChannelEvent): boolean {
    if (message === null) return missed === undefined || this.#skipUpTo === null || seq > this.#skipUpTo
    if (!this.#receives.broadcast) return false
    // What the database says without a history has no number of its own.
    if (this.#skipUpTo !== null && (this.hasHistory || message.walIndex === null)) {
      if (seq <= this.#skipUpTo) return false
      this.#skipUpTo = null
    }
    const { connection } = this.caller
    const { to, sender } = message
    if (to !== null) return isFor(to, this.caller)
    return this.request.self || sender.connection === null || sender.connection !== connection
  }

  /** Of a gap whose beginning it was told at another node, what is left. */
  #ownGap(event: ChannelEvent): ChannelEvent {
    const upTo = this.#skipUpTo
    const { missed, seq, outgoing } = event
    if (upTo === null || missed === undefined) return event
    this.#skipUpTo = null
    const left = missed === null ? null : Math.min(missed, Number(seq - upTo))
    return { ...event, outgoing: new Outgoing('gap', gapJson('MESSAGES_LOST', left), outgoing.position), missed: left }
  }

  /** @param last given with the room that there was: others of its turn may come after it */
  #fallBehind({ seq, outgoing }: ChannelEvent): void {
    this.#sink = null
    const { rule } = this.channel
    this.#state =
      this.hasHistory && rule.backpressure === 'buffer'
        ? { name: 'behind', seq, isReading: false }
        : {
            name: 'buffering',
            at: outgoing.position!,
            buffer: new SlowBuffer({ policy: rule.backpressure, maxBytes: rule.bufferBytes }),
          }
  }

  #buffer(buffer: SlowBuffer<ChannelEvent>, event: ChannelEvent): void {
    if (buffer.push(event, { bytes: event.outgoing.json.length, event: event.event })) return
    this.fail(
      new TidegateError(
        'SLOW_CONSUMER',
        `more than ${this.channel.rule.bufferBytes} bytes of messages waited; join again`,
      ),
    )
  }

  #flush({ name, buffer, at }: Extract<State, { name: 'buffering' }>): void {
    const missed = buffer.takeDropped()
    // Who breaks off behind it comes back for what waits.
    let hasRoom = missed === 0 || this.#outlet.send(new Outgoing('gap', gapJson('MESSAGES_DROPPED', missed), at))
    while (hasRoom) {
      const event = buffer.shift()
      if (event === null) {
        this.#attach()
        return
      }
      this.#state = { name, buffer, at: event.outgoing.position! }
      hasRoom = this.#outlet.send(event.outgoing)
    }
  }

  /** Reads on from the history until it stands where the channel does, or there is no room. */
  async #advance(): Promise<void> {
    this.#run += 1
    const run = this.#run
    for (let wait = retryMs; this.#run === run && this.#state.name === 'behind'; ) {
      const { seq } = this.#state
      this.channel.handOut()
      const { told } = this.channel
      if (seq >= told.seq) {
        if (seq > told.seq) this.#skipUpTo = seq
        this.#attach()
        return
      }
      this.#state = { name: 'behind', seq, isReading: true }
      try {
        const { page, events } = await this.channel.readAfter(seq)
        if (this.#run !== run || this.#state.name !== 'behind') return
        if (page.epoch === this.channel.told.epoch && !this.#take(seq, page.first, events)) return
        if (this.#state.seq > seq) {
          wait = retryMs
          continue
        }
      } catch {
        // Redis is away; the channel itself notices.
      }
      await new Promise(resolve => setTimeout(resolve, wait))
      wait = Math.min(2 * wait, 10_000)
    }
  }

  /** @returns false when it has no room, or does not stand there any more */
  #take(after: bigint, first: bigint, events: readonly ChannelEvent[]): boolean {
    if (first > after + 1n) {
      this.#resync('HISTORY_PASSED')
      return false
    }
    for (const event of events) {
      if (event.seq <= after) continue
      const hasRoom = !this.#isFor(event) || this.#outlet.send(event.outgoing)
      if (this.#state.name !== 'behind') return false
      this.#state = { name: 'behind', seq: event.seq, isReading: hasRoom }
      if (!hasRoom) return false
    }
    return true
  }
}
