// One long-poll: what is new since a position, as one JSON answer. Stateless: each poll joins and leaves, on any node.
import type { ServerResponse } from 'node:http'
import type { Position, QueryPosition } from '../../protocol/position.ts'
import { comparePositions } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Caller } from '../channels/door.ts'
import type { Batch, Manner, Outgoing, Principal } from '../subscribe/subscription.ts'
import { joinedOf } from './accepted.ts'
import { AnswerTaken, answeredBy } from './answer-taken.ts'
import type { ChannelStreamRequest } from './channel-url.ts'
import { connectionNameOf, newPollKey } from './connection-name.ts'
import type { Connection, Ending } from './connections.ts'
import { joinAll } from './join-all.ts'
import { Membership, type MembershipOwner } from './membership.ts'
import { notesOf } from './notes.ts'
import { Pause } from './pause.ts'
import { hereTagOf } from './poll-presence.ts'
import type { Services } from './services.ts'
import { formatStreamPosition } from './stream-position.ts'
import { startsOver, takeBack, type Waiting } from './take-back.ts'
import type { StreamRequest } from './url.ts'

export interface PollAnswer {
  /** 304 has no body. */
  readonly status: 200 | 304
  /** Where the client stands now; also with a 304, so that a quiet query does not fall out of the window. */
  readonly position: string | null
  /** Whether the stream stands still. */
  readonly stale: boolean
  readonly body: string
}

export interface LongPollOptions {
  readonly services: Services
  readonly response: ServerResponse
  readonly principal: Principal
  readonly request: StreamRequest | ChannelStreamRequest
}

/** How long a snapshot may take; the client asks again after UNAVAILABLE. */
const snapshotMs = 60_000
/** `wait=0` gives the replay of what is already there so long to arrive. */
const replayMs = 2_000
const lookAgainMs = 5

export class LongPoll implements Connection, MembershipOwner {
  readonly sink = null
  readonly name: string
  readonly principal: Principal
  readonly #services: Services
  readonly #response: ServerResponse
  readonly #request: StreamRequest | ChannelStreamRequest
  /** What the client brings back, to be the same connection to others. */
  readonly #pollKey: string
  readonly #members: readonly Membership[]
  /** Per query: in the middle of a snapshot or delta of several parts, or waiting for the first part, or for the
   *  resync that is owed. */
  readonly #isPartial: boolean[]
  /** Bounded by `longPollMaxBytes`; past it SNAPSHOT_TOO_LARGE. */
  #events: string[] = []
  /** Whose each event is, and what. */
  #waiting: Waiting[] = []
  /** Events that are answered with others, and do not end the wait: who was there when the poll came. */
  #quiet = 0
  /** By channel: who was there when the poll came, as JSON. */
  readonly #here: (string | null)[]
  #chars = 0
  #failure: unknown = null
  #isOver = false
  /** The stream stands still, or moves again, since the poll came. */
  #isPulseOther = false
  #isMovedAway = false
  /** Where its client stood when this node began to leave. */
  #lastPosition: string | null = null
  readonly #pause = new Pause()
  readonly #taken = new AnswerTaken()

  constructor({ services, response, principal, request }: LongPollOptions) {
    this.#services = services
    this.#response = response
    this.principal = principal
    this.#request = request
    this.#pollKey = ('poll' in request ? request.poll : null) ?? newPollKey()
    this.name = connectionNameOf(this.#pollKey, principal)
    this.#members = request.asked.map(
      (asked, id) => new Membership(asked, this, { id, join: 0, maxHeldChars: services.limits.sendQueueBytes }),
    )
    this.#isPartial = request.asked.map(() => false)
    this.#here = request.asked.map(() => null)
  }

  /** @throws a refusal */
  async answer(): Promise<PollAnswer> {
    try {
      const { subscriptions } = this.#services
      await joinAll(this.#members, this.#services, this.#caller)
      // The client has gone: nobody reads the answer.
      if (this.#isOver) return { status: 304, position: null, stale: false, body: '' }
      const head = subscriptions.head().position
      for (const [q, member] of this.#members.entries()) {
        const { resumed, kind } = member.subscription!
        // An answer with a position at the head and without the resync would hide what was lost in between.
        const isResyncOwed = !resumed && member.request.since !== null && member.request.since.lsn !== 0n
        this.#isPartial[q] = kind !== 'channel' && (isResyncOwed || (kind === 'live' && !resumed))
        member.open()
      }
      await this.#waitForNews(head)
      if (this.#failure !== null) throw this.#failure
      if (this.#isWaitingForParts()) {
        throw new TidegateError('UNAVAILABLE', 'the answer was not complete in time; ask again')
      }
      return this.#answerNow()
    } finally {
      this.leave()
    }
  }

  get endedBy(): Ending | null {
    return this.#taken.isGivenUp ? 'SLOW_CONSUMER' : answeredBy(this.#response)
  }

  get queuedBytes(): number {
    return this.#chars
  }

  /** An answer that nobody takes is held in memory, up to `longPollMaxBytes` of it. */
  tick(now: number): void {
    if (this.#taken.isStalled(this.#response, now, this.#services)) this.terminate()
  }

  tellPulse(): void {
    this.#isPulseOther = true
    this.#pause.end()
  }

  /** What is whole already is answered in this turn. */
  goAway(error: TidegateError): void {
    if (!this.#isWaitingForParts()) {
      if (this.#events.length > 0) return
      this.#lastPosition = this.#position(null, null)
    }
    this.#failed(error)
  }

  /** Answers what there is now, and ends its connection: the next poll goes wherever a balancer sends it. */
  moveAway(): boolean {
    if (this.#isOver || this.#isWaitingForParts() || this.#response.headersSent) return false
    this.#isMovedAway = true
    this.#pause.end()
    return true
  }

  get isMovedAway(): boolean {
    return this.#isMovedAway
  }

  /** What goes with a refusal; null when nothing is known that the client does not know. */
  get lastPosition(): string | null {
    return this.#lastPosition
  }

  cutOff(error: TidegateError): void {
    this.#failed(error)
  }

  /** No token can come to it: the next poll brings another. */
  refresh(): void {
    this.goAway(
      new TidegateError('TOKEN_OUTDATED', 'newer claims were asked for; poll again with a token issued later'),
    )
  }

  terminate(): void {
    this.leave()
    this.#response.socket?.destroy()
  }

  leave(): void {
    this.#isOver = true
    for (const member of this.#members) member.close('broken')
    this.#pause.end()
  }

  /** Waits until there is something whole to tell, `wait` is over, or nobody asks any more. */
  async #waitForNews(head: Position): Promise<void> {
    const { limits, now, wallNow } = this.#services
    const startedAt = now()
    const waitMs = this.#request.after === null ? 0 : Math.min(this.#request.waitMs ?? 0, limits.maxWaitMs)
    const { expiresAt } = this.principal
    const patienceAt = startedAt + Math.min(waitMs, expiresAt === null ? waitMs : expiresAt - wallNow())
    while (!this.#isOver && this.#failure === null) {
      const elapsedMs = now() - startedAt
      if (this.#isWaitingForParts()) {
        if (elapsedMs >= snapshotMs) return
        await this.#pause.for(this.#isPartial.includes(true) ? snapshotMs - elapsedMs : lookAgainMs)
        continue
      }
      if (this.#hasNews()) {
        // What else comes in this turn of the event loop goes with it.
        await new Promise(resolve => setImmediate(resolve))
        if (!this.#isWaitingForParts()) return
        continue
      }
      if (this.#isPulseOther || this.#isMovedAway) return
      const isOwed = this.#request.after !== null && elapsedMs < replayMs && !this.#hasReached(head)
      const patienceMs = patienceAt - now()
      if (patienceMs > 0) await this.#pause.for(patienceMs)
      else if (isOwed) await this.#pause.for(lookAgainMs)
      else return
    }
  }

  /** True when every query has handed over all that was there when the poll came. */
  #hasReached(head: Position): boolean {
    return this.#members.every(member => {
      if (member.channel !== null) return true
      const position = member.position()
      return position !== null && position.epoch === head.epoch && comparePositions(position, head) >= 0
    })
  }

  #isWaitingForParts(): boolean {
    return this.#isPartial.includes(true) || (!this.#isFull() && this.#members.some(isCatchingUp))
  }

  #isFull(): boolean {
    return this.#chars > this.#services.limits.sendQueueBytes
  }

  #hasNews(): boolean {
    return this.#events.length > this.#quiet || this.#hasOthersHere()
  }

  /** Whether others are there than at the last poll, as far as the client brought back who was. */
  #hasOthersHere(): boolean {
    const before = 'here' in this.#request ? this.#request.here : null
    return before !== null && this.#quiet > 0 && hereTagOf(this.#here) !== before
  }

  get #caller(): Caller {
    return { principal: this.principal, connection: this.name }
  }

  memberSends(member: Membership, outgoing: Outgoing): boolean {
    this.#services.figures.deliveries += 1
    this.#isPartial[member.id] = outgoing.position === null && member.channel === null
    if (outgoing.event === 'presence' && this.#here[member.id] === null) {
      this.#here[member.id] = outgoing.json
      this.#quiet += 1
    }
    const own = member.positionAfter(outgoing)
    const id = own === null ? null : this.#position(member, own)
    this.#add(member, { event: outgoing.event, json: outgoing.json, id }, outgoing)
    // A delta or snapshot goes whole or not at all, so its parts are taken past the bound of a queue.
    return !this.#isFull() || this.#isPartial.includes(true)
  }

  memberSendsBatch(member: Membership, batch: Batch): boolean {
    let hasRoom = true
    for (const event of batch.events) hasRoom = this.memberSends(member, event)
    return hasRoom
  }

  sinkIsFull(): void {}

  memberTakesBack(member: Membership, manner: Manner): void {
    const taken = takeBack(this.#waiting, { of: member.subscription!, isShared: true, manner })
    if (taken === null) return
    this.#events = this.#events.filter((_, place) => taken.kept[place])
    this.#waiting = this.#waiting.filter((_, place) => taken.kept[place])
    this.#chars = this.#events.reduce((sum, { length }) => sum + length, 0)
    for (const other of this.#members) {
      const first = taken.first.get(other.subscription!)
      if (first === undefined) continue
      if (startsOver(first)) this.#isPartial[other.id] = true
      other.wasTakenBack(first)
      // There is room: nobody waits for a socket here.
      other.resume()
    }
  }

  memberResyncs(member: Membership, code: string, reason: string): void {
    this.#isPartial[member.id] = member.request.kind === 'live'
    this.#services.figures.resyncs.add(code)
    this.#add(member, { event: 'resync', json: JSON.stringify({ code, reason }), id: null }, 'resync')
  }

  memberFails(_member: Membership, error: unknown): void {
    this.#failed(error)
  }

  memberMoves(member: Membership): void {
    this.#isPartial[member.id] = true
    member.enter(this.#services, this.#caller).then(
      subscription => {
        if (subscription === null) return
        // Else the resync is owed.
        this.#isPartial[member.id] = !subscription.resumed
        member.open()
        this.#pause.end()
      },
      (error: unknown) => this.#failed(error),
    )
  }

  #add(
    member: Membership,
    { event, json, id }: { event: string; json: string; id: string | null },
    content: Outgoing | 'resync',
  ): void {
    if (this.#isOver || this.#failure !== null) return
    const { label } = this.#request
    const data = label === null ? json : `{"${label}":${member.id},${json.slice(1)}`
    const text = `{"event":"${event}","data":${data}${id === null ? '' : `,"id":"${id}"`}}`
    this.#events.push(text)
    this.#waiting.push({ owner: member.subscription, content })
    this.#chars += text.length
    if (this.#chars > this.#services.limits.longPollMaxBytes) {
      const message = `the answer is larger than ${this.#services.limits.longPollMaxBytes} bytes; use SSE or a WebSocket`
      this.#events = []
      this.#waiting = []
      this.#failed(new TidegateError('SNAPSHOT_TOO_LARGE', message))
      return
    }
    this.#pause.end()
  }

  #failed(error: unknown): void {
    this.#failure ??= error
    this.#pause.end()
  }

  #position(member: Membership | null, own: QueryPosition | null): string | null {
    return formatStreamPosition(this.#members.map(other => (other === member ? own : other.position())))
  }

  #answerNow(): PollAnswer {
    const position = this.#position(null, null)
    const { stale } = this.#services.subscriptions.head()
    if (!this.#hasNews() && this.#request.after !== null) return { status: 304, position, stale, body: '' }
    const rest = JSON.stringify({ position, ...this.#whatWasJoined() }).slice(1)
    return { status: 200, position, stale, body: `{"events":[${this.#events.join(',')}],${rest}` }
  }

  #whatWasJoined(): object {
    if (!('poll' in this.#request)) {
      const queries = this.#members.map(({ subscription }) => {
        const { key, resumed } = subscription!
        return { key, resumed, ...notesOf(subscription!) }
      })
      return { queries }
    }
    const here = hereTagOf(this.#here)
    return {
      channels: this.#members.map(({ channel }) => joinedOf(channel!)),
      connection: this.name,
      poll: this.#pollKey,
      ...(here === null ? {} : { here }),
    }
  }
}

const isCatchingUp = ({ channel }: Membership): boolean => channel?.hasCaughtUp === false
