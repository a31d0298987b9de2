// One subscription, of a query or a channel, as its session or stream holds it: what was joined, where the client stands, whether it waits for
// room. Its events are held until the client has been told that it exists, and dropped once it is gone.
//
// It is the outlet itself, and tells its owner by name instead of by closures: with one live query a connection has to
// fit into 8 kB.
import type { QueryPosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Caller, ChannelDoor, ChannelRequest, ChannelSubscription } from '../channels/door.ts'
import type {
  Batch,
  BatchSink,
  Manner,
  Outgoing,
  Outlet,
  SubscribeRequest,
  Subscription,
  Subscriptions,
} from '../subscribe/subscription.ts'
import { startsOver, takeBack } from './take-back.ts'

/** Whoever sends the events to the client. */
export interface MembershipOwner {
  /** @returns false when its queue is past the bound */
  memberSends(member: Membership, outgoing: Outgoing): boolean
  /** The same for events that the whole audience gets, few enough to be joined. */
  memberSendsBatch(member: Membership, batch: Batch): boolean
  /** Where batches go by themselves; null when the owner must see each. */
  readonly sink: BatchSink | null
  sinkIsFull(): void
  /** Drops what was sent and not handed to the socket. Each member of which something was, is told by `wasTakenBack`. */
  memberTakesBack(member: Membership, manner: Manner): void
  memberResyncs(member: Membership, code: string, reason: string): void
  memberFails(member: Membership, error: unknown): void
  /** Its rules changed: it must be entered again, its client told of what it is now, and then opened. */
  memberMoves(member: Membership): void
}

/** The doors that memberships enter by. */
export interface Doors {
  readonly subscriptions: Subscriptions
  /** Null: there are no channels. */
  readonly channels: ChannelDoor | null
}

export type MemberRequest = SubscribeRequest | ChannelRequest

type Held =
  | { readonly kind: 'send'; readonly outgoing: Outgoing }
  | { readonly kind: 'resync'; readonly code: string; readonly reason: string }
  | { readonly kind: 'fail'; readonly error: unknown }

const nothingHeld: readonly Held[] = []

export class Membership implements Outlet {
  /** The client's number for it: the id of a frame, the place in a URL. */
  readonly id: number
  /** The session's number of this attempt; 0 in a stream. */
  readonly join: number
  readonly #owner: MembershipOwner
  #request: MemberRequest
  readonly #maxHeldChars: number
  #subscription: Subscription | null = null
  #state: 'held' | 'open' | 'closed' = 'held'
  /** Bounded by `maxHeldChars` and one event more: past it the subscription is told to stand still. */
  #held: readonly Held[] = nothingHeld
  #heldChars = 0
  /** Where the client stands while events are held: the subscription is past them already. */
  #beforeHeld: QueryPosition | null = null
  /** The client has not been told yet that it lost what lies between. */
  #owesResync = false
  /** False while the client holds no complete state that it could resume from. */
  #isSettled = false
  #wasRefused = false

  constructor(
    request: MemberRequest,
    owner: MembershipOwner,
    numbers: { readonly id: number; readonly join: number; readonly maxHeldChars: number },
  ) {
    this.#request = request
    this.#owner = owner
    this.id = numbers.id
    this.join = numbers.join
    this.#maxHeldChars = numbers.maxHeldChars
  }

  get request(): MemberRequest {
    return this.#request
  }

  get subscription(): Subscription | null {
    return this.#subscription
  }

  /** The channel that it is in; null before, after, and of a query. */
  get channel(): ChannelSubscription | null {
    const subscription = this.#subscription
    return subscription?.kind === 'channel' && !this.#isClosed() ? (subscription as ChannelSubscription) : null
  }

  /** Whether its client has been handed all that it is owed before anything happens: a complete state or a resync, who is there. */
  get isWhole(): boolean {
    if (this.#state !== 'open' || this.#subscription === null) return false
    return this.channel?.hasCaughtUp ?? (this.#isSettled && !this.#owesResync)
  }

  /** @returns null when it was closed meanwhile. @throws what the door throws, CHANNELS_OFF */
  async enter(doors: Doors, caller: Caller): Promise<Subscription | null> {
    if (this.#isClosed()) return null
    const subscription = await this.#knock(doors, caller)
    if (this.#isClosed()) {
      subscription.close('gone')
      return null
    }
    this.#subscription = subscription
    this.#isSettled = subscription.resumed || subscription.kind !== 'live'
    const { since } = this.request
    this.#owesResync = this.#isSettled && !subscription.resumed && isPlace(since, subscription.kind)
    if (this.#state === 'held') this.#beforeHeld = subscription.resumed ? this.request.since : this.#fresh()
    return subscription
  }

  #knock({ subscriptions, channels }: Doors, caller: Caller): Promise<Subscription> {
    const request = this.#request
    if (request.kind !== 'channel') return subscriptions.subscribe(caller.principal, request, this)
    return doorOf(channels).join(caller, request, this)
  }

  /** The client knows of the subscription: what was held goes first, in order. */
  open(): void {
    if (this.#state !== 'held') return
    const wasToldToWait = this.#heldChars > this.#maxHeldChars || this.#wasRefused
    const held = this.#held
    this.#held = nothingHeld
    this.#beforeHeld = null
    this.#state = 'open'
    let hasRoom = true
    for (const event of held) {
      if (event.kind === 'send') hasRoom = this.send(event.outgoing)
      else if (event.kind === 'resync') this.resync(event.code, event.reason)
      else this.fail(event.error)
    }
    if (wasToldToWait && hasRoom) this.#subscription?.resume()
  }

  send(outgoing: Outgoing): boolean {
    if (this.#state === 'closed') return true
    if (this.#state === 'held') {
      this.#held = [...this.#held, { kind: 'send', outgoing }]
      this.#heldChars += outgoing.json.length
      return this.#heldChars <= this.#maxHeldChars
    }
    if (outgoing.position !== null) this.#isSettled = true
    if (outgoing.event === 'gap') this.#owesResync = false
    const hasRoom = this.#owner.memberSends(this, outgoing)
    if (!hasRoom) this.#wasRefused = true
    return hasRoom
  }

  sendBatch(batch: Batch): boolean {
    if (this.#state === 'open' && batch.isJoined) {
      this.#isSettled = true
      const hasRoom = this.#owner.memberSendsBatch(this, batch)
      if (!hasRoom) this.#wasRefused = true
      return hasRoom
    }
    let hasRoom = true
    for (const event of batch.events) hasRoom = this.send(event) && hasRoom
    return hasRoom
  }

  get sink(): BatchSink | null {
    return this.#state === 'open' && this.#isSettled ? this.#owner.sink : null
  }

  sinkIsFull(): void {
    this.#wasRefused = true
    this.#owner.sinkIsFull()
  }

  takeBack(manner: Manner): void {
    if (this.#state === 'closed' || this.#subscription === null) return
    if (this.#state === 'open') this.#owner.memberTakesBack(this, manner)
    else this.#takeBackHeld(this.#subscription, manner)
  }

  #takeBackHeld(owner: Subscription, manner: Manner): void {
    const waiting = this.#held.map(held => ({
      owner,
      content: held.kind === 'send' ? held.outgoing : held.kind === 'resync' ? held.kind : null,
    }))
    const taken = takeBack(waiting, { of: owner, isShared: false, manner })
    if (taken === null) return
    this.#held = this.#held.filter((_, place) => taken.kept[place])
    const first = taken.first.get(owner)
    if (first !== undefined) this.wasTakenBack(first)
  }

  /** Its client was not given this event, nor any after it. */
  wasTakenBack(first: Outgoing): void {
    this.#wasRefused = true
    if (startsOver(first)) this.#isSettled = false
    this.#subscription?.retreat(first)
  }

  resync(code: string, reason: string): void {
    if (this.#state === 'closed') return
    if (this.#state === 'held') {
      this.#held = [...this.#held, { kind: 'resync', code, reason }]
      return
    }
    if (this.request.kind === 'live') this.#isSettled = false
    this.#owesResync = false
    this.#owner.memberResyncs(this, code, reason)
  }

  move(request: SubscribeRequest): boolean {
    // Whoever waits to be told of it would be told of what it was.
    if (this.#state === 'held') return false
    if (this.#state === 'closed') return true
    this.#request = request
    this.#subscription = null
    this.#state = 'held'
    this.#heldChars = 0
    this.#owesResync = false
    this.#isSettled = false
    this.#wasRefused = false
    this.#owner.memberMoves(this)
    return true
  }

  fail(error: unknown): void {
    if (this.#state === 'held') this.#held = [...this.#held, { kind: 'fail', error }]
    else if (this.#state === 'open') {
      // What decided about what waits may hold no more; the client resumes from what it has.
      this.#owner.memberTakesBack(this, 'firmly')
      this.#owner.memberFails(this, error)
    }
  }

  /** There is room again. */
  resume(): void {
    if (!this.#wasRefused) return
    this.#wasRefused = false
    this.#subscription?.resume()
  }

  /** Where the client may resume; null while it holds nothing complete. */
  position(): QueryPosition | null {
    // While it moves, its client stands where it stood: coming back there it is told what it lost, if anything.
    if (this.#subscription === null && 'moved' in this.#request) return this.#request.since
    if (this.#subscription === null || !this.#isSettled) return null
    // Another query of the stream may be told first, with an id that names this one too: past its resync or its held
    // events, a client that broke off there would never get them.
    if (this.#owesResync) return this.request.since
    if (this.#held.length > 0) return this.#beforeHeld
    return { ...this.#subscription.position(), tag: this.#subscription.tag }
  }

  /** Where changes begin that did not resume. Before it nothing was promised. */
  #fresh(): QueryPosition | null {
    if (this.#subscription?.kind !== 'changes' || this.#held.length > 0) return null
    return { ...this.#subscription.position(), tag: this.#subscription.tag }
  }

  /** Where the client stands right after an event. */
  positionAfter(outgoing: Outgoing): QueryPosition | null {
    if (this.#subscription === null || outgoing.position === null) return null
    return { ...outgoing.position, tag: this.#subscription.tag }
  }

  /** @param how `broken`: its client did not say that it goes, and may come back in a moment */
  close(how: 'gone' | 'broken'): void {
    if (this.#isClosed()) return
    this.#state = 'closed'
    this.#held = nothingHeld
    this.#beforeHeld = null
    this.#subscription?.close(how)
  }

  #isClosed(): boolean {
    return this.#state === 'closed'
  }
}

/** @throws CHANNELS_OFF */
export function doorOf(channels: ChannelDoor | null): ChannelDoor {
  if (channels !== null) return channels
  throw new TidegateError('CHANNELS_OFF', 'this database has no realtime.messages; run tidegate migrate')
}

/** Whether there is something to be lost behind it. Of a query, LSN 0 stands for no place; a channel's numbers begin there. */
const isPlace = (since: QueryPosition | null, kind: Subscription['kind']): boolean =>
  since !== null && (kind === 'channel' || since.lsn !== 0n)
