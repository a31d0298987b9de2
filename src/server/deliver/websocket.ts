// Performs one WebSocket session: does what session.ts decides, and tells it what happened.
import type { Socket } from 'node:net'
import { type RawData, WebSocket } from 'ws'
import { closeCodeOf, type PeerCode, peerCodes } from '../../protocol/codes.ts'
import type { ServerFrame } from '../../protocol/messages.ts'
import { comparePositions, formatPosition, formatQueryPositions, type QueryPosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Batch, BatchSink, Manner, Outgoing, Principal, SubscribeRequest } from '../subscribe/subscription.ts'
import { admit } from './admit.ts'
import { newConnectionName } from './connection-name.ts'
import type { Connection, Place } from './connections.ts'
import { serverFrame, websocketBytesOf, websocketFrameOf } from './encode.ts'
import { parseClientFrame } from './frame-schema.ts'
import { Membership, type MembershipOwner } from './membership.ts'
import { nextBeat, pulseOf, type Vitals } from './pulse.ts'
import { closeReason, refusalOf } from './refusal.ts'
import { SendQueue } from './send-queue.ts'
import type { Services } from './services.ts'
import { type Effect, isDue, type Session, type SessionEvent, startSession, step } from './session.ts'
import { fullBucket, type TokenBucket, takeToken } from './token-bucket.ts'

/** Closes of ws itself, for what broke the WebSocket protocol, in our codes: 1009 or 1008 alone would tell a client to
 *  come back and send the same again. */
const violations = new Map<number, PeerCode>([
  [1002, 'BAD_FRAME'],
  [1007, 'BAD_FRAME'],
  [1008, 'FRAME_TOO_LARGE'],
  [1009, 'FRAME_TOO_LARGE'],
])

export class ProtocolSocket extends WebSocket {
  listener: WebSocketConnection | null = null
  /** Released when it has closed. */
  place: Place | null = null

  // Told directly: listeners of its own for each event would take 250 bytes of every socket.
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    const { listener } = this
    if (listener === null) return super.emit(event, ...values)
    switch (event) {
      case 'message':
        listener.message(values[0] as RawData, values[1] as boolean)
        break
      case 'ping':
        listener.ping(values[0] as Buffer)
        break
      case 'pong':
        listener.pong()
        break
      case 'error':
        listener.broke(values[0] as Error)
        break
      case 'close':
        listener.disconnected()
        this.place?.release()
    }
    return super.listenerCount(event) > 0 ? super.emit(event, ...values) : true
  }

  // ws gives a reason, if only an empty one, when it answers a client's close frame; none when it refuses a frame.
  override close(code?: number, reason?: string | Buffer): void {
    const violation = reason === undefined && code !== undefined ? violations.get(code) : undefined
    if (violation === undefined) super.close(code, reason)
    else super.close(closeCodeOf(violation), closeReason({ code: violation, message: peerCodes[violation].meaning }))
  }
}

export class WebSocketConnection implements Connection, MembershipOwner, Vitals {
  readonly name = newConnectionName()
  readonly #services: Services
  readonly #ws: ProtocolSocket
  readonly #queue: SendQueue
  readonly #bucket: TokenBucket
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

  terminate(): void {
    this.#dispatch({ type: 'disconnected' })
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
    if (this.#session.state === 'open') this.#enter(member, this.#session.principal)
  }

  /** A frame came. */
  message(data: RawData, isBinary: boolean): void {
    if (!this.#heard()) return
    if (isBinary) {
      this.#break(new TidegateError('BAD_FRAME', 'the frame is binary; frames are JSON text'))
      return
    }
    try {
      this.#dispatch({ type: 'frame', frame: parseClientFrame(data.toString()) })
    } catch (error) {
      this.#break(error)
    }
  }

  /** Any frame is a sign of life, and costs a token. @returns false when it was one too many */
  #heard(): boolean {
    const { limits, now } = this.#services
    this.#heardAt = now()
    this.#isSuspect = false
    if (this.#session.state === 'closed') return false
    if (takeToken(this.#bucket, this.#heardAt, limits.framesPerSecond, limits.frameBurst)) return true
    const message = `more than ${limits.framesPerSecond} frames per second, and ${limits.frameBurst} at once`
    this.#break(new TidegateError('RATE_LIMITED', message, { retryAfterMs: 1000 }))
    return false
  }

  // Answered here and not by ws, which would cut a flood off without a code.
  ping(data: Buffer): void {
    if (this.#heard()) this.#ws.pong(data)
  }

  pong(): void {
    this.#heard()
  }

  broke(error: Error): void {
    this.#services.log.debug({ err: error }, 'a WebSocket broke')
  }

  disconnected(): void {
    this.#dispatch({ type: 'disconnected' })
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
        this.#join(effect, effect.request)
        break
      case 'rejoin': {
        const from = this.#memberOf(effect.from)
        // Afterwards nobody would take it back.
        from?.takeBack('gently')
        const since = from?.position() ?? null
        this.#leave(effect.from)
        this.#join(effect, { ...effect.request, since })
        break
      }
      case 'open':
        this.#memberOf(effect.join)?.open()
        this.#tellIfStale()
        break
      case 'leave':
        this.#leave(effect.join)
        break
      case 'refuse': {
        const refusal = refusalOf(effect.error, this.#services.log, this.#services.random)
        this.#send({ type: 'error', ...(effect.id === null ? {} : { id: effect.id }), ...refusal })
        break
      }
      case 'close': {
        const refusal = refusalOf(effect.error, this.#services.log, this.#services.random)
        this.#send({ type: 'error', ...refusal })
        this.#leaveAll()
        this.#queue.finish()
        this.#ws.close(closeCodeOf(refusal.code), closeReason(refusal))
        break
      }
      case 'abandon':
        this.#leaveAll()
        this.#queue.stop()
    }
  }

  #authenticate(token: string): void {
    admit(this.#services, token).then(
      principal => this.#dispatch({ type: 'admitted', principal }),
      (error: unknown) => this.#dispatch({ type: 'notAdmitted', error }),
    )
  }

  #join({ id, join, principal }: Extract<Effect, { do: 'join' | 'rejoin' }>, request: SubscribeRequest): void {
    const maxHeldChars = this.#services.limits.sendQueueBytes
    const member = new Membership(request, this, { id, join, maxHeldChars })
    // Not spread, which leaves room for sixteen more.
    this.#members = this.#members.concat(member)
    this.#enter(member, principal)
  }

  #enter(member: Membership, principal: Principal): void {
    const { id, join } = member
    member.enter(this.#services.subscriptions, principal).then(
      subscription => {
        if (subscription === null) return
        const { query, tag, key, resumed, warnings } = subscription
        const exact = subscription.exact === false ? { exact: false as const } : {}
        const position = formatPosition(subscription.position())
        this.#dispatch({
          type: 'joined',
          id,
          join,
          accepted: { query, tag, key, resumed, position, ...exact, warnings },
        })
      },
      (error: unknown) => this.#dispatch({ type: 'ended', id, join, error }),
    )
  }

  #leave(join: number): void {
    this.#memberOf(join)?.close()
    this.#members = this.#members.filter(member => member.join !== join)
  }

  #memberOf(join: number): Membership | undefined {
    return this.#members.find(member => member.join === join)
  }

  #leaveAll(): void {
    for (const member of this.#members) member.close()
    this.#members = noMembers
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
    const { position: head, stale, lagMs } = this.#services.subscriptions.head()
    const positions: { [id: string]: string } = {}
    let lowest: QueryPosition | null = null
    for (const { id, join } of this.#session.members) {
      const position = this.#memberOf(join)?.position() ?? null
      if (position === null) continue
      positions[id] = formatQueryPositions([position])
      const isLower = lowest === null || isBefore(position, lowest, head.epoch)
      if (isLower) lowest = position
    }
    const position = lowest === null ? null : formatPosition(lowest)
    this.#queue.push(serverFrame({ type: 'heartbeat', position, positions, stale, lagMs }), null, 'heartbeat')
  }

  #drained(): void {
    for (const member of this.#members) member.resume()
    this.#pauseOrRead()
  }

  /** Reads nothing more while the first token is checked, or while the peer does not take its answers: what it sends
   *  would otherwise pile up here. */
  #pauseOrRead(): void {
    const shouldPause =
      this.#session.state === 'authenticating' || (this.#session.state === 'open' && this.#queue.isFull)
    if (shouldPause === this.#isPaused) return
    this.#isPaused = shouldPause
    if (shouldPause) this.#ws.pause()
    else {
      this.#heardAt = this.#services.now()
      this.#ws.resume()
    }
  }
}

const noMembers: readonly Membership[] = []

/** Positions of two epochs have no order among them: the one that is not the head's is older. */
const isBefore = (a: QueryPosition, b: QueryPosition, epoch: string): boolean =>
  a.epoch === b.epoch ? comparePositions(a, b) < 0 : b.epoch === epoch
