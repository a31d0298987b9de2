// Performs one WebSocket session: does what session.ts decides, and tells it what happened.
import type { Socket } from 'node:net'
import type { RawData } from 'ws'
import { closeCodeOf } from '../../protocol/codes.ts'
import type { ServerFrame } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelName } from '../channels/message.ts'
import type { Batch, BatchSink, Manner, Outgoing, Principal } from '../subscribe/subscription.ts'
import { acceptedOf } from './accepted.ts'
import { admit } from './admit.ts'
import { ChannelWork } from './channel-work.ts'
import { newConnectionName } from './connection-name.ts'
import type { Connection } from './connections.ts'
import { serverFrame, websocketBytesOf, websocketFrameOf } from './encode.ts'
import { parseClientFrame } from './frame-schema.ts'
import { heartbeatFrame } from './heartbeat-frame.ts'
import { type MemberRequest, Membership, type MembershipOwner } from './membership.ts'
import type { ProtocolSocket, SocketListener } from './protocol-socket.ts'
import { nextBeat, pulseOf, type Vitals } from './pulse.ts'
import { closeReason, endOf, refusalOf } from './refusal.ts'
import { SendQueue } from './send-queue.ts'
import type { Services } from './services.ts'
import { isDue, startSession, step } from './session.ts'
import type { Effect, Session, SessionEvent } from './session-parts.ts'
import { fullBucket, type TokenBucket, takeToken } from './token-bucket.ts'

export class WebSocketConnection implements Connection, MembershipOwner, SocketListener, Vitals {
  readonly name = newConnectionName()
  readonly #services: Services
  readonly #ws: ProtocolSocket
  readonly #queue: SendQueue
  readonly #bucket: TokenBucket
  /** Null while it asked nothing of channels. */
  #work: ChannelWork | null = null
  /** At most `maxSubscriptions`. A list, as the session's. */
  #members: readonly Membership[] = noMembers
  #session: Session
  #heardAt: number
  #nextBeatAt: number
  #isPaused = false
  #isSuspect = false

  /** @param credentials what was verified before the upgrade: a principal, an error to close with, or null when the
   *  first frame must bring the token */
  constructor(services: Services, ws: ProtocolSocket, socket: Socket, credentials: Principal | TidegateError | null) {
    const { limits } = services
    const now = services.now()
    this.#services = services
    this.#ws = ws
    this.#queue = new SendQueue({
      turn: services.turn,
      socket,
      maxBytes: limits.sendQueueBytes,
      bytesOf: websocketBytesOf,
      now: services.now,
      onDrained: () => this.#drained(),
    })
    this.#bucket = fullBucket(limits.frameBurst, now)
    this.#heardAt = now
    // The first at a random fraction: connections that came together would otherwise beat together for ever.
    this.#nextBeatAt = now + services.random() * limits.heartbeatMs
    ws.listener = this
    const refused = credentials instanceof TidegateError
    const start = startSession(refused ? null : credentials, now, limits)
    this.#session = start.session
    for (const effect of start.effects) this.#perform(effect)
    if (refused) this.#dispatch({ type: 'broken', error: credentials })
  }

  tick(now: number): void {
    if (this.#session.state === 'closed') return
    const { heartbeatMs, slowConsumerMs } = this.#services.limits
    switch (pulseOf(this, now, heartbeatMs, slowConsumerMs)) {
      case 'slow':
        this.#services.departures.gaveUp('SLOW_CONSUMER', 'WebSocket')
        // What waits would only stand before the close frame.
        this.#queue.stop()
        this.#break(new TidegateError('SLOW_CONSUMER', `nothing was taken for ${slowConsumerMs} ms; connect again`))
        return
      case 'silent':
        // After a long pause of our own, its answers may lie unread: the loop reads them before the next tick.
        if (!this.#isSuspect) {
          this.#isSuspect = true
          return
        }
        this.#services.departures.gaveUp('HEARTBEAT_MISSED', 'WebSocket')
        this.#break(new TidegateError('HEARTBEAT_MISSED', `nothing was heard for ${2 * heartbeatMs} ms; connect again`))
        this.#ws.terminate()
        return
      case 'beat':
        this.#nextBeatAt = nextBeat(this.#nextBeatAt, now, heartbeatMs)
        this.#beat()
    }
    const wallNow = this.#services.wallNow()
    if (isDue(this.#session, now, wallNow)) this.#dispatch({ type: 'tick', now, wallNow })
    else this.#pauseOrRead()
  }

  get principal(): Principal | null {
    return this.#session.state === 'open' ? this.#session.principal : null
  }

  get nextBeatAt(): number {
    return this.#nextBeatAt
  }

  get heardAt(): number | null {
    return this.#isPaused ? null : this.#heardAt
  }

  get stalledSince(): number | null {
    return this.#queue.stalledSince
  }

  tellPulse(): void {
    if (!this.#queue.isFull) this.#tellWhereItStands()
  }

  goAway(error: TidegateError): void {
    this.#tellWhereItStands()
    this.#break(error)
  }

  moveAway(error: TidegateError): boolean {
    if (this.#session.state === 'closed') return false
    this.goAway(error)
    return true
  }

  cutOff(error: TidegateError): void {
    for (const member of this.#members) member.takeBack('firmly')
    this.#break(error)
  }

  refresh(withinMs: number): void {
    if (this.#session.state === 'open') this.#send({ type: 'refresh', withinMs })
  }

  terminate(): void {
    this.#dispatch({ type: 'disconnected', how: 'broken' })
    this.#ws.terminate()
  }

  memberSends(member: Membership, outgoing: Outgoing): boolean {
    const { subscription, id } = member
    if (subscription === null) return true
    if (this.#queue.push(websocketFrameOf(outgoing, subscription.query, id), subscription, outgoing)) return true
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
    this.#queue.push(serverFrame({ type: 'resync', id: member.id, code, reason }), member.subscription, 'resync')
  }

  memberFails({ id, join }: Membership, error: unknown): void {
    this.#dispatch({ type: 'ended', id, join, error })
  }

  memberMoves(member: Membership): void {
    if (this.#session.state === 'open') void this.#enter(member, this.#session.principal)
  }

  message(data: RawData, isBinary: boolean): void {
    if (!this.#isListening()) return
    try {
      if (isBinary) throw new TidegateError('BAD_FRAME', 'the frame is binary; frames are JSON text')
      const frame = parseClientFrame(data.toString())
      if (frame.type === 'send' || frame.type === 'track' || frame.type === 'untrack') this.#channelWork().count()
      else if (!this.#takeFrame()) return
      this.#dispatch({ type: 'frame', frame })
    } catch (error) {
      this.#break(error)
    }
  }

  /** Any frame is a sign of life. */
  #isListening(): boolean {
    this.#heardAt = this.#services.now()
    this.#isSuspect = false
    return this.#session.state !== 'closed'
  }

  /** Any other frame costs a token. @returns false when it was one too many */
  #takeFrame(): boolean {
    const { limits } = this.#services
    if (takeToken(this.#bucket, this.#heardAt, limits.framesPerSecond, limits.frameBurst)) return true
    const message = `more than ${limits.framesPerSecond} frames per second, and ${limits.frameBurst} at once`
    this.#break(new TidegateError('RATE_LIMITED', message, { retryAfterMs: 1000 }))
    return false
  }

  // Answered here and not by ws, which would cut a flood off without a code.
  ping(data: Buffer): void {
    if (this.#isListening() && this.#takeFrame()) this.#ws.pong(data)
  }

  pong(): void {
    if (this.#isListening()) this.#takeFrame()
  }

  broke(error: Error): void {
    this.#services.log.debug({ err: error }, 'a WebSocket broke')
  }

  disconnected(code: number): void {
    this.#dispatch({ type: 'disconnected', how: code === closedNormally ? 'gone' : 'broken' })
  }

  #break(error: unknown): void {
    this.#dispatch({ type: 'broken', error })
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
        this.#send({
          type: 'welcome',
          connection: this.name,
          heartbeatMs: this.#services.limits.heartbeatMs,
          expiresAt: effect.expiresAt,
        })
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
      case 'open':
        this.#memberOf(effect.join)?.open()
        this.#tellIfStale()
        break
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
      case 'refuse': {
        const { id, ref } = effect
        const refusal = refusalOf(effect.error, this.#services.log, this.#services.random)
        this.#send({ type: 'error', ...(id === null ? {} : { id }), ...(ref === undefined ? {} : { ref }), ...refusal })
        break
      }
      case 'close': {
        const refusal = refusalOf(effect.error, this.#services.log, this.#services.random)
        this.#send({ type: 'error', ...refusal })
        this.#work?.drop()
        for (const member of this.#members) member.close(endOf(refusal.code))
        this.#members = noMembers
        this.#queue.finish()
        this.#ws.close(closeCodeOf(refusal.code), closeReason(refusal))
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
    admit(this.#services, token).then(
      principal => {
        this.#dispatch({ type: 'admitted', principal })
        this.#ws.place?.hold(this)
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
      const subscription = await member.enter(this.#services, { principal, connection: this.name })
      if (subscription === null) return
      this.#dispatch({ type: 'joined', id, join, accepted: acceptedOf(subscription, member.channel) })
    } catch (error) {
      this.#dispatch({ type: 'ended', id, join, error })
    }
  }

  #wait(ref: number, xid64: bigint): void {
    const { subscriptions, limits } = this.#services
    subscriptions.waitForTransaction(xid64, limits.waitTimeoutMs).then(
      position => this.#dispatch({ type: 'waited', ref, position }),
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
    this.#queue.push(serverFrame(frame))
  }

  #beat(): void {
    // Browsers answer a ping by themselves; the frame tells their page what they cannot see.
    this.#ws.ping()
    // A full queue would only grow, and its reader is not waiting for news.
    if (!this.#queue.isFull) this.#tellWhereItStands()
  }

  /** Whoever comes now would not know before its first heartbeat. */
  #tellIfStale(): void {
    if (this.#services.subscriptions.head().stale) this.tellPulse()
  }

  #tellWhereItStands(): void {
    if (this.#session.state !== 'open') return
    const standings = this.#session.members.map(({ id, join, request: { kind } }) => {
      return { id, kind, position: this.#memberOf(join)?.position() ?? null }
    })
    const frame = heartbeatFrame(standings, this.#services.subscriptions.head())
    this.#queue.push(serverFrame(frame), null, 'heartbeat')
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
    if (shouldPause) this.#ws.pause()
    else {
      this.#heardAt = this.#services.now()
      this.#ws.resume()
    }
  }
}

/** Of RFC 6455. A page that is closed or loaded anew sends 1001: it may come back in a moment. */
const closedNormally = 1000

const noMembers: readonly Membership[] = []
