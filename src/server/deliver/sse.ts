// One stream of server-sent events: the events of one or several queries or channels, each with the id to come back with.
//
// The response carries neither a length nor chunks: it ends with the connection, so that what is written is the event's
// own bytes, shared by its whole audience, and goes to the socket in one write with whatever else is pending.
import type { ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { QueryPosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Caller } from '../channels/door.ts'
import type { Batch, BatchSink, Manner, Outgoing, Principal, Subscription } from '../subscribe/subscription.ts'
import { joinedOf } from './accepted.ts'
import { newConnectionName } from './connection-name.ts'
import type { Connection, Ending } from './connections.ts'
import { sseBytesOf, sseEnd, sseEvent, sseIdLine, sseLinesOf, sseNumberedLinesOf } from './encode.ts'
import { joinAll } from './join-all.ts'
import { Membership, type MembershipOwner } from './membership.ts'
import { notesOf } from './notes.ts'
import { nextBeat, pulseOf } from './pulse.ts'
import { endOf, refusalOf } from './refusal.ts'
import { SendQueue } from './send-queue.ts'
import type { Services } from './services.ts'
import { formatStreamPosition } from './stream-position.ts'
import type { StreamRequest } from './url.ts'

export const sseHeaders = {
  'Content-Type': 'text/event-stream; charset=utf-8',
  // A proxy that transforms or buffers would hold events back.
  'Cache-Control': 'no-cache, no-transform',
  'X-Accel-Buffering': 'no',
  Connection: 'close',
} as const

export interface EventStreamOptions {
  readonly services: Services
  readonly response: ServerResponse
  readonly principal: Principal
  readonly request: StreamRequest
  /** What every id ends in, if a ticket opened the stream: its client may come back with it. */
  readonly proof: string | null
}

export class EventStream implements Connection, MembershipOwner {
  readonly name = newConnectionName()
  readonly principal: Principal
  readonly #services: Services
  readonly #response: ServerResponse
  readonly #label: StreamRequest['label']
  readonly #proof: string | null
  readonly #socket: Socket
  readonly #queue: SendQueue
  readonly #members: readonly Membership[]
  #nextBeatAt: number
  #endedAt: number | null = null
  endedBy: Ending | null = null
  /** Why it must end, though its members are still being joined: told as a status and a body. */
  #refusal: unknown = null

  constructor({ services, response, principal, request, proof }: EventStreamOptions) {
    const { limits } = services
    this.#services = services
    this.#response = response
    this.principal = principal
    this.#label = request.label
    this.#proof = proof
    this.#socket = response.req.socket
    this.#queue = new SendQueue({
      turn: services.turn,
      socket: this.#socket,
      maxBytes: limits.sendQueueBytes,
      bytesOf: sseBytesOf,
      now: services.now,
      onDrained: () => {
        for (const member of this.#members) member.resume()
      },
    })
    // Nothing may reach the socket before the headers do.
    this.#queue.hold()
    this.#members = request.asked.map(
      (asked, id) => new Membership(asked, this, { id, join: 0, maxHeldChars: limits.sendQueueBytes }),
    )
    this.#nextBeatAt = services.now() + services.random() * limits.heartbeatMs
  }

  /** Joins every query or channel, then answers: until then a refusal is still a status and a body. @throws a refusal */
  async start(headers: Readonly<Record<string, string>>): Promise<void> {
    await joinAll(this.#members, this.#services, this.#caller)
    if (this.#endedAt !== null) return
    if (this.#refusal !== null) {
      this.leave('gone')
      throw this.#refusal
    }
    const response = this.#response
    // Without this node would frame the body in chunks, and bytes written below it would break the framing.
    response.removeHeader('Transfer-Encoding')
    response.writeHead(200, { ...sseHeaders, ...headers })
    response.flushHeaders()
    this.#queue.push(Buffer.from(`retry: ${this.#retryMs()}\n\n`))
    for (const member of this.#members) this.#tellOf(member, member.subscription!)
    // Behind an answer to an earlier request of this connection that is not over, the response has no socket yet, and bytes
    // written below it would stand in front of that answer.
    if (response.socket !== null) this.#queue.release()
    else response.write(':\n\n', () => this.#queue.release())
    for (const member of this.#members) member.open()
    // Whoever comes now would not know before its first heartbeat.
    if (this.#services.subscriptions.head().stale) this.tellPulse()
  }

  tick(now: number): void {
    const { heartbeatMs, slowConsumerMs, closeTimeoutMs } = this.#services.limits
    if (this.#endedAt !== null) {
      if (now - this.#endedAt >= closeTimeoutMs) this.terminate()
      return
    }
    if (this.principal.expiresAt !== null && this.#services.wallNow() >= this.principal.expiresAt) {
      this.#fail(new TidegateError('TOKEN_EXPIRED', 'the token has expired; renew it and connect again'))
      return
    }
    const vitals = { nextBeatAt: this.#nextBeatAt, heardAt: null, stalledSince: this.#queue.stalledSince }
    const pulse = pulseOf(vitals, now, heartbeatMs, slowConsumerMs)
    // Who takes nothing is not told why either: an EventSource comes back by itself, and resumes.
    if (pulse === 'slow') {
      this.#services.departures.gaveUp('SLOW_CONSUMER', 'event stream')
      this.endedBy = 'SLOW_CONSUMER'
      this.terminate()
    }
    if (pulse !== 'beat') return
    this.#nextBeatAt = nextBeat(this.#nextBeatAt, now, heartbeatMs)
    this.tellPulse()
  }

  get queuedBytes(): number {
    return this.#queue.bytes
  }

  tellPulse(): void {
    if (!this.#queue.isFull) this.#tellWhereItStands()
  }

  #tellWhereItStands(): void {
    if (this.#endedAt !== null || !this.#response.headersSent) return
    const { stale, lagMs } = this.#services.subscriptions.head()
    const id = this.#idOf(this.#members.map(member => member.position()))
    this.#queue.push(sseEvent('heartbeat', { stale, lagMs }, id), null, 'heartbeat')
  }

  goAway(error: TidegateError): void {
    this.#tellWhereItStands()
    this.#fail(error)
  }

  moveAway(error: TidegateError): boolean {
    if (this.#endedAt !== null) return false
    this.goAway(error)
    return true
  }

  cutOff(error: TidegateError): void {
    for (const member of this.#members) member.takeBack('firmly')
    this.#fail(error)
  }

  refresh(withinMs: number): void {
    if (this.#endedAt === null) this.#queue.push(sseEvent('refresh', { withinMs }, null))
  }

  terminate(): void {
    this.leave()
    this.#socket.destroy()
  }

  /** The client has gone, which says no word on this wire; or the stream ends by our own. */
  leave(how: 'gone' | 'broken' = 'broken'): void {
    this.#endedAt ??= this.#services.now()
    for (const member of this.#members) member.close(how)
    this.#queue.stop()
  }

  memberSends(member: Membership, outgoing: Outgoing): boolean {
    const owner = member.subscription
    this.#services.figures.deliveries += 1
    if (this.#label !== null)
      for (const lines of sseNumberedLinesOf(outgoing, member.id)) this.#queue.push(lines, owner, outgoing)
    else this.#queue.push(sseLinesOf(outgoing), owner, outgoing)
    if (outgoing.position === null) return this.#queue.push(sseEnd, owner, outgoing)
    const own = member.positionAfter(outgoing)
    const id = this.#idOf(this.#members.map(other => (other === member ? own : other.position())))
    return this.#queue.push(id === null ? sseEnd : sseIdLine(id), owner, outgoing)
  }

  memberSendsBatch(member: Membership, batch: Batch): boolean {
    if (this.#takesBatches()) return this.#queue.pushBatch(batch, member.subscription!)
    let hasRoom = true
    for (const event of batch.events) hasRoom = this.memberSends(member, event)
    return hasRoom
  }

  get sink(): BatchSink | null {
    return this.#takesBatches() ? this.#queue : null
  }

  sinkIsFull(): void {}

  memberTakesBack(member: Membership, manner: Manner): void {
    const first = this.#queue.takeBack({ of: member.subscription!, isShared: this.#label !== null, manner })
    for (const other of this.#members) {
      const event = first.get(other.subscription!)
      if (event !== undefined) other.wasTakenBack(event)
    }
  }

  memberResyncs(member: Membership, code: string, reason: string): void {
    this.#services.figures.resyncs.add(code)
    const event = sseEvent('resync', { ...this.#numbered(member.id), code, reason }, null)
    this.#queue.push(event, member.subscription, 'resync')
  }

  memberFails(member: Membership, error: unknown): void {
    this.#fail(error, member.id)
  }

  memberMoves(member: Membership): void {
    member.enter(this.#services, this.#caller).then(
      subscription => {
        if (subscription === null) return
        this.#tellOf(member, subscription)
        member.open()
      },
      (error: unknown) => this.#fail(error, member.id),
    )
  }

  get #caller(): Caller {
    return { principal: this.principal, connection: this.name }
  }

  #tellOf({ id, channel }: Membership, subscription: Subscription): void {
    if (channel !== null) {
      const joined = { ...this.#numbered(id), connection: this.name, ...joinedOf(channel) }
      this.#queue.push(sseEvent('joined', joined, null))
      return
    }
    const { key, resumed } = subscription
    const data = { ...this.#numbered(id), key, resumed, ...notesOf(subscription) }
    this.#queue.push(sseEvent('subscribed', data, null))
  }

  #idOf(positions: readonly (QueryPosition | null)[]): string | null {
    return formatStreamPosition(positions, this.#proof)
  }

  #fail(error: unknown, id?: number): void {
    if (this.#endedAt !== null) return
    const response = this.#response
    if (!response.headersSent) {
      this.#refusal ??= error
      return
    }
    const refusal = refusalOf(error, this.#services.log, this.#services.random)
    this.endedBy = refusal.code
    const retryMs = refusal.retryAfterMs ?? this.#retryMs()
    this.#queue.push(Buffer.from(`retry: ${retryMs}\n`))
    this.#queue.push(sseEvent('error', { ...(id === undefined ? {} : this.#numbered(id)), ...refusal }, null))
    this.#queue.finish()
    this.leave(endOf(refusal.code))
    response.end()
  }

  /** Whether its bytes are those of everybody in the audience: no ids of several queries, and none with a proof. */
  #takesBatches(): boolean {
    return this.#label === null && this.#members.length === 1 && this.#proof === null
  }

  #numbered(id: number): { q?: number; c?: number } {
    return this.#label === null ? {} : { [this.#label]: id }
  }

  #retryMs(): number {
    return Math.round(this.#services.limits.retryMs * (1 + this.#services.random()))
  }
}
