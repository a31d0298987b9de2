// Performs one session over whatever carries it: does what session.ts decides, and tells it what happened.
import type { ClientFrame, ServerFrame } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelName } from '../channels/message.ts'
import type { Batch, BatchSink, Manner, Outgoing, Principal } from '../subscribe/subscription.ts'
import { acceptedOf, welcomeFrame } from './accepted.ts'
import { admit } from './admit.ts'
import type { Carrier, FrameQueue } from './carrier.ts'
import { type CatchingUp, CatchUp } from './catch-up.ts'
import { ChannelWork } from './channel-work.ts'
import { newConnectionName } from './connection-name.ts'
import type { Connection, Ending } from './connections.ts'
import { haveCaughtUp, heartbeatFrame, type Standing, standingsOf } from './heartbeat-frame.ts'
import { type MemberRequest, Membership, type MembershipOwner } from './membership.ts'
import { nextBeat, pulseOf, type Vitals } from './pulse.ts'
import { endOf, errorFrame, refusalOf, refused } from './refusal.ts'
import type { Services } from './services.ts'
import { isDue, startSession, step } from './session.ts'
import type { SessionOptions } from './session-options.ts'
import type { Effect, Session, SessionEvent } from './session-parts.ts'
import { fullBucket, type TokenBucket, takeToken } from './token-bucket.ts'

export class SessionConnection implements Connection, MembershipOwner, CatchingUp, Vitals {
  readonly name: string
  readonly #isPublicOpen: boolean | undefined
  readonly #services: Services
  readonly #carrier: Carrier
  readonly #queue: FrameQueue
  readonly #bucket: TokenBucket
  /** Null while it asked nothing of channels. */
  #work: ChannelWork | null = null
  /** At most `maxSubscriptions`. A list, as the session's. */
  #members: readonly Membership[] = noMembers
  #session: Session
  #heardAt: number
  #nextBeatAt: number
  endedBy: Ending | null = null
  #isPaused = false
  #isSuspect = false
  /** Null while its client was never owed anything. */
  #catchUp: CatchUp | null = null

  constructor({ services, carrier, queue, credentials, name = newConnectionName(), isPublicOpen }: SessionOptions) {
    const { limits } = services
    const now = services.now()
    this.name = name
    this.#isPublicOpen = isPublicOpen
    this.#services = services
    this.#carrier = carrier
    this.#queue = queue(() => this.#drained())
    this.#bucket = fullBucket(limits.frameBurst, now)
    this.#heardAt = now
    // The first at a random fraction: connections that came together would otherwise beat together for ever.
    this.#nextBeatAt = now + services.random() * limits.heartbeatMs
    const start = startSession(credentials instanceof TidegateError ? null : credentials, now, limits)
    this.#session = start.session
    for (const effect of start.effects) this.#perform(effect)
    if (credentials instanceof TidegateError) this.broke(credentials)
  }

  tick(now: number): void {
    if (this.isOver) return
    const { heartbeatMs, slowConsumerMs } = this.#services.limits
    switch (pulseOf(this, now, heartbeatMs, slowConsumerMs)) {
      case 'slow':
        this.#services.departures.gaveUp('SLOW_CONSUMER', this.#carrier.what)
        // What waits would only stand before the word why.
        this.#queue.clear()
        this.broke(new TidegateError('SLOW_CONSUMER', `nothing was taken for ${slowConsumerMs} ms; connect again`))
        return
      case 'silent':
        // After a long pause of our own, its answers may lie unread: the loop reads them before the next tick.
        if (!this.#isSuspect) {
          this.#isSuspect = true
          return
        }
        this.#services.departures.gaveUp('HEARTBEAT_MISSED', this.#carrier.what)
        this.broke(new TidegateError('HEARTBEAT_MISSED', `nothing was heard for ${2 * heartbeatMs} ms; connect again`))
        this.#carrier.terminate()
        return
      case 'beat':
        this.#nextBeatAt = nextBeat(this.#nextBeatAt, now, heartbeatMs)
        this.#beat()
    }
    this.#catchUp?.look()
    const wallNow = this.#services.wallNow()
    if (isDue(this.#session, now, wallNow)) this.#dispatch({ type: 'tick', now, wallNow })
    else this.#pauseOrRead()
  }

  get principal(): Principal | null {
    return this.#session.state === 'open' ? this.#session.principal : null
  }

  get queuedBytes(): number {
    return this.#queue.bytes
  }

  get nextBeatAt(): number {
    return this.#nextBeatAt
  }

  get heardAt(): number | null {
    return this.#isPaused || !this.#carrier.isAnswering ? null : this.#heardAt
  }

  get stalledSince(): number | null {
    return this.#queue.stalledSince
  }

  tellPulse(): void {
    if (!this.#queue.isFull) this.#tellWhereItStands()
  }

  goAway(error: TidegateError): void {
    this.#tellWhereItStands()
    this.broke(error)
  }

  moveAway(error: TidegateError): boolean {
    if (this.isOver) return false
    this.goAway(error)
    return true
  }

  cutOff(error: TidegateError): void {
    for (const member of this.#members) member.takeBack('firmly')
    this.broke(error)
  }

  refresh(withinMs: number): void {
    if (this.#session.state === 'open') this.#send({ type: 'refresh', withinMs })
  }

  terminate(): void {
    this.#dispatch({ type: 'disconnected', how: 'broken' })
    this.#carrier.terminate()
  }

  memberSends(member: Membership, outgoing: Outgoing): boolean {
    const { subscription, id } = member
    if (subscription === null) return true
    this.#services.figures.deliveries += 1
    if (this.#queue.push(this.#carrier.encoding.event(outgoing, subscription.query, id), subscription, outgoing))
      return true
    this.#pauseOrRead()
    return false
  }

  memberSendsBatch(member: Membership, batch: Batch): boolean {
    if (this.#queue.pushBatch(batch, member.subscription!)) return true
    this.#pauseOrRead()
    return false
  }

  get sink(): BatchSink {
    return this.#queue
  }

  sinkIsFull(): void {
    this.#pauseOrRead()
  }

  memberTakesBack(member: Membership, manner: Manner): void {
    const of = member.subscription!
    const first = this.#queue.takeBack({ of, isShared: false, manner }).get(of)
    if (first !== undefined) member.wasTakenBack(first)
  }

  memberResyncs(member: Membership, code: string, reason: string): void {
    this.#services.figures.resyncs.add(code)
    const frame = this.#carrier.encoding.frame({ type: 'resync', id: member.id, code, reason })
    this.#queue.push(frame, member.subscription, 'resync')
  }

  memberFails({ id, join }: Membership, error: unknown): void {
    this.#dispatch({ type: 'ended', id, join, error })
  }

  memberMoves(member: Membership): void {
    if (this.#session.state === 'open') void this.#enter(member, this.#session.principal)
  }

  /** A frame of its client. */
  take(frame: ClientFrame): void {
    if (!this.hears()) return
    if (frame.type === 'send' || frame.type === 'track' || frame.type === 'untrack') this.#channelWork().count()
    else if (!this.pays()) return
    this.#dispatch({ type: 'frame', frame })
  }

  /** Anything that its client sends is a sign of life. @returns false when the session is over */
  hears(): boolean {
    this.#heardAt = this.#services.now()
    this.#isSuspect = false
    return !this.isOver
  }

  /** Anything but what a channel is asked costs a token. @returns false when it was one too many, and the session is over */
  pays(): boolean {
    const { limits } = this.#services
    if (takeToken(this.#bucket, this.#heardAt, limits.framesPerSecond, limits.frameBurst)) return true
    const message = `more than ${limits.framesPerSecond} frames per second, and ${limits.frameBurst} at once`
    this.broke(new TidegateError('RATE_LIMITED', message, { retryAfterMs: 1000 }))
    return false
  }

  get isFull(): boolean {
    return this.#queue.isFull
  }

  get members(): readonly Membership[] {
    return this.#members
  }

  get isOver(): boolean {
    return this.#session.state === 'closed'
  }

  /** What its client sent cannot be understood, or something else ends it. */
  broke(error: unknown): void {
    this.#dispatch({ type: 'broken', error })
  }

  /** What carries it broke; `disconnected` follows. */
  linkFailed(error: Error): void {
    this.#services.log.debug({ err: error }, `a ${this.#carrier.what} broke`)
  }

  /** @param how whether its client said that it goes */
  disconnected(how: 'gone' | 'broken'): void {
    this.#dispatch({ type: 'disconnected', how })
  }

  #dispatch(event: SessionEvent): void {
    const { session, effects } = step(this.#session, event, this.#services.limits)
    this.#session = session
    for (const effect of effects) this.#perform(effect)
    this.#pauseOrRead()
  }

  #perform(effect: Effect): void {
    switch (effect.do) {
      case 'authenticate':
        this.#authenticate(effect.token)
        break
      case 'welcome':
        this.#send(welcomeFrame(this.name, this.#services.limits, effect.expiresAt, this.#carrier))
        break
      case 'send':
        this.#send(effect.frame)
        break
      case 'join':
        this.#join(effect)
        break
      case 'rejoin':
        this.#rejoin(effect)
        break
      case 'open': {
        const member = this.#memberOf(effect.join)
        if (member?.subscription?.resumed) this.#owes().cameBack(member, this.#services.subscriptions.head().position)
        member?.open()
        this.#tellIfStale()
        break
      }
      case 'leave':
        this.#leave(effect.join)
        break
      case 'leaveInTurn':
        this.#inTurn(effect.channel, () => {
          this.#leave(effect.join)
          this.#send({ type: 'unsubscribed', id: effect.id })
        })
        break
      case 'ask':
        this.#channelWork().ask(
          effect,
          () => this.#memberOf(effect.join)?.channel ?? null,
          event => this.#dispatch(event),
        )
        break
      case 'wait':
        this.#wait(effect.ref, effect.xid64)
        break
      case 'beat':
        this.#tellWhereItStands()
        break
      case 'refuse':
        this.#send(errorFrame(effect, refused(this.#services, effect.error)))
        break
      case 'close': {
        const refusal = refusalOf(effect.error, this.#services.log, this.#services.random)
        this.endedBy = refusal.code
        this.#send({ type: 'error', ...refusal })
        this.#work?.drop()
        for (const member of this.#members) member.close(endOf(refusal.code))
        this.#members = noMembers
        this.#queue.finish()
        this.#carrier.end(refusal)
        break
      }
      case 'abandon':
        // What it had asked before is done.
        for (const member of this.#members) {
          if (member.request.kind === 'channel') this.#inTurn(member.request.channel, () => member.close(effect.how))
          else member.close(effect.how)
        }
        this.#queue.stop()
    }
  }

  #authenticate(token: string): void {
    admit(this.#services, token, this.#carrier.place).then(
      principal => {
        this.#dispatch({ type: 'admitted', principal })
        this.#carrier.place?.hold(this)
      },
      (error: unknown) => this.#dispatch({ type: 'notAdmitted', error }),
    )
  }

  #join(effect: Extract<Effect, { do: 'join' }>): void {
    const { request } = effect
    if (request.kind !== 'channel') void this.#enterAs(effect, request)
    else this.#inTurn(request.channel, () => this.#enterAs(effect, request))
  }

  #rejoin(effect: Extract<Effect, { do: 'rejoin' }>): void {
    const { request } = effect
    const rejoin = (): Promise<void> => {
      const from = this.#memberOf(effect.from)
      // Afterwards nobody would take it back.
      from?.takeBack('gently')
      // One that was not entered yet stands where it asked to.
      const since = from?.subscription === null ? from.request.since : (from?.position() ?? null)
      this.#leave(effect.from, 'broken')
      return this.#enterAs(effect, { ...request, since })
    }
    if (request.kind !== 'channel') void rejoin()
    else this.#inTurn(request.channel, rejoin)
  }

  async #enterAs(
    { id, join, principal }: Extract<Effect, { do: 'join' | 'rejoin' }>,
    request: MemberRequest,
  ): Promise<void> {
    // It waited for its turn, and nobody is there any more.
    if (this.#session.state !== 'open') return
    const maxHeldChars = this.#services.limits.sendQueueBytes
    const member = new Membership(request, this, { id, join, maxHeldChars })
    // Not spread, which leaves room for sixteen more.
    this.#members = this.#members.concat(member)
    await this.#enter(member, principal)
  }

  async #enter(member: Membership, principal: Principal): Promise<void> {
    const { id, join } = member
    try {
      const caller = { principal, connection: this.name, isPublicOpen: this.#isPublicOpen }
      const subscription = await member.enter(this.#services, caller)
      if (subscription === null) return
      this.#dispatch({ type: 'joined', id, join, accepted: acceptedOf(subscription, member.channel) })
    } catch (error) {
      this.#dispatch({ type: 'ended', id, join, error })
    }
  }

  #wait(ref: number, xid64: bigint): void {
    const { subscriptions, limits } = this.#services
    subscriptions.waitForTransaction(xid64, limits.waitTimeoutMs).then(
      position => {
        this.#dispatch({ type: 'waited', ref, position })
        // A query that lags, or still fetches what the commit did to it, says when it is past it: perhaps nothing comes of it.
        if (!haveCaughtUp(this.standings, position)) this.#owes().lags(subscriptions.head().position)
      },
      (error: unknown) => this.#dispatch({ type: 'notWaited', ref, error }),
    )
  }

  #inTurn(channel: ChannelName, run: () => Promise<void> | void): void {
    this.#channelWork().inTurn(channel, run)
  }

  #channelWork(): ChannelWork {
    this.#work ??= new ChannelWork(this.#services, () => this.#pauseOrRead())
    return this.#work
  }

  #leave(join: number, how: 'gone' | 'broken' = 'gone'): void {
    this.#memberOf(join)?.close(how)
    this.#members = this.#members.filter(member => member.join !== join)
  }

  #memberOf(join: number): Membership | undefined {
    return this.#members.find(member => member.join === join)
  }

  #send(frame: ServerFrame): void {
    this.#queue.push(this.#carrier.encoding.frame(frame))
  }

  #beat(): void {
    // Browsers answer a ping by themselves; the frame tells their page what they cannot see.
    this.#carrier.ping()
    // A full queue would only grow, and its reader is not waiting for news.
    if (!this.#queue.isFull) this.#tellWhereItStands()
  }

  #owes(): CatchUp {
    this.#catchUp ??= new CatchUp(this)
    return this.#catchUp
  }

  /** Whoever comes now would not know before its first heartbeat. */
  #tellIfStale(): void {
    if (this.#services.subscriptions.head().stale) this.tellPulse()
  }

  #tellWhereItStands(): void {
    if (this.#session.state !== 'open') return
    const frame = heartbeatFrame(this.standings, this.#services.subscriptions.head())
    this.#queue.push(this.#carrier.encoding.frame(frame), null, 'heartbeat')
  }

  get standings(): readonly Standing[] {
    return this.#session.state === 'open' ? standingsOf(this.#session.members, this.#members) : []
  }

  #drained(): void {
    for (const member of this.#members) member.resume()
    this.#pauseOrRead()
  }

  /** Reads nothing more while the first token is checked, while the peer does not take its answers, or while it asks more of its
   *  channels than they take: what it sends would otherwise pile up here. */
  #pauseOrRead(): void {
    const { state } = this.#session
    const shouldPause =
      state === 'authenticating' || (state === 'open' && (this.#queue.isFull || this.#work?.isTooMuch === true))
    if (shouldPause === this.#isPaused) return
    this.#isPaused = shouldPause
    if (shouldPause) this.#carrier.pause()
    else {
      this.#heardAt = this.#services.now()
      this.#carrier.resume()
    }
  }
}

const noMembers: readonly Membership[] = []
