// A WebSocket that speaks Phoenix: its frames, its heartbeats, and the channels that share it.
import type { Socket } from 'node:net'
import { type RawData, WebSocket } from 'ws'
import type { Json } from '../../../protocol/messages.ts'
import type { TidegateError } from '../../../protocol/tidegate-error.ts'
import { repeated } from '../../log/log-repeated.ts'
import type { Principal } from '../../subscribe/subscription.ts'
import { newConnectionName } from '../connection-name.ts'
import type { Connection, Connections, Ending, Place } from '../connections.ts'
import { closeReason, refusalOf } from '../refusal.ts'
import { SendQueue } from '../send-queue.ts'
import type { Services } from '../services.ts'
import { fullBucket, type TokenBucket, takeToken } from '../token-bucket.ts'
import { Acks } from './acks.ts'
import { type ChannelLine, PhoenixChannel, topicPrefix } from './channel.ts'
import { silence } from './channel-session.ts'
import type { HeldPresence } from './presence.ts'
import { Rejoins } from './rejoins.ts'
import type { Returns, Suspected } from './returns.ts'
import { messageFrame, parseIncoming } from './serializer.ts'
import { refOf, type Stand, type Stood } from './stands.ts'
import type { Incoming, Vsn } from './wire.ts'

/** Of one socket, as Supabase has it. Past it: ChannelRateLimitReached. */
const maxChannels = 100

/** Of RFC 6455: normal, and the restart of a service, after which Phoenix's clients come back. */
const [closedNormally, restarting] = [1000, 1012] as const

/** A client of Supabase closes so one whose answers do not come, and means to come back. */
const missedHeartbeat = 'heartbeat timeout'

export class PhoenixSocket extends WebSocket {
  line: PhoenixConnection | null = null

  // Told directly, as ProtocolSocket is.
  override emit(event: string | symbol, ...values: unknown[]): boolean {
    const { line } = this
    if (line === null) return super.emit(event, ...values)
    switch (event) {
      case 'message':
        line.take(values[0] as RawData, values[1] as boolean)
        break
      case 'ping':
        line.pays()
        this.pong(values[0] as Buffer)
        break
      case 'pong':
        line.ponged(values[0] as Buffer)
        break
      case 'error':
        line.failed(values[0] as Error)
        break
      case 'close':
        line.closed(values[0] as number, String(values[1] ?? ''))
    }
    return super.listenerCount(event) > 0 ? super.emit(event, ...values) : true
  }
}

/** Tokens of channels expire by it. */
const channelTickMs = 1000

const nobody: readonly object[] = []
const noTopics: readonly string[] = []
const noChannels: readonly PhoenixChannel[] = []
/** Each channel makes its own. */
const noBytes = (): Buffer => silence

export interface PhoenixOptions {
  readonly services: Services
  readonly connections: Connections
  readonly returns: Returns
  readonly ws: PhoenixSocket
  readonly socket: Socket
  readonly place: Place
  /** Of the key in the URL. */
  readonly principal: Principal
  readonly vsn: Vsn
}

/** Begins with the upgrade: who it is was found out before. */
export function openPhoenix(options: PhoenixOptions): void {
  const line = new PhoenixConnection(options)
  options.ws.line = line
  options.place.hold(line)
}

export class PhoenixConnection implements Connection, ChannelLine {
  readonly name = newConnectionName()
  readonly services: Services
  readonly queue: SendQueue
  readonly principal: Principal
  readonly vsn: Vsn
  readonly #connections: Connections
  readonly #returns: Returns
  readonly #ws: PhoenixSocket
  readonly #place: Place
  readonly #acks: Acks
  /** Of the queue, when it was looked at last. */
  #pushedBefore = 0
  readonly #bucket: TokenBucket
  /** Frames that were read past what the bucket had: a piece of a stream is read whole. */
  #debt = 0
  /** No two of one topic: at most `maxChannels`, mostly one, which takes no map. */
  #channels: readonly PhoenixChannel[] = noChannels
  /** Topics that were joined over this socket. Bounded by twice `maxChannels`. */
  #joined: readonly string[] = noTopics
  /** Those of them that its client left, and holds nothing of; null: none. */
  #left: Set<string> | null = null
  /** Who reads nothing more for now: channels, the queue while it is full, and this itself while its client sends too fast. */
  #pausing: readonly object[] = nobody
  readonly #rejoins = new Rejoins()
  #firstRef: string | null = null
  #lastRef = 0
  #heardAt: number
  /** For its channels. */
  #nextTickAt = 0
  /** Everything that was sent will have arrived when its client answers the close. */
  #isClosing = false
  #isOver = false
  endedBy: Ending | null = null

  constructor({ services, connections, returns, ws, socket, place, principal, vsn }: PhoenixOptions) {
    const { turn, limits, now } = services
    this.services = services
    this.principal = principal
    this.vsn = vsn
    this.#connections = connections
    this.#returns = returns
    this.#ws = ws
    this.#place = place
    this.#acks = new Acks(now(), limits.heartbeatMs)
    this.#bucket = fullBucket(limits.frameBurst, now())
    this.#heardAt = now()
    this.queue = new SendQueue({
      turn,
      socket,
      maxBytes: limits.sendQueueBytes,
      bytesOf: noBytes,
      now,
      onDrained: () => {
        this.resume(this.queue)
        this.#each(channel => channel.drained())
      },
    })
  }

  /** A frame of its client. What is none is passed over, as Supabase does: a client that is told of nothing else would be cut off
   *  for good. */
  take(data: RawData, isBinary: boolean): void {
    this.pays()
    if (this.#isOver || this.#isClosing) return
    const { log } = this.services
    let message: Incoming
    try {
      message = parseIncoming(data as Buffer, isBinary, this.vsn)
    } catch (error) {
      log.debug({ err: error }, 'a frame of a Phoenix client cannot be read')
      return
    }
    this.#firstRef ??= message.ref
    try {
      this.#dispatch(message)
      this.#lastRef = Math.max(this.#lastRef, refOf(message.ref) ?? 0)
    } catch (error) {
      // Ours, and no reason to end the node.
      repeated(log).error({ err: error }, 'a frame of a Phoenix client could not be served')
      this.terminate()
    }
    // Its answers would pile up.
    if (this.queue.isFull) this.pause(this.queue)
  }

  #dispatch(message: Incoming): void {
    const { topic, event, ref } = message
    const channel = this.#channelOf(topic)
    if (topic === 'phoenix' && event === 'heartbeat') this.#reply(message, 'ok', {})
    else if (topic.startsWith(topicPrefix) && event === 'phx_join') this.#join(message)
    else if (event === 'phx_leave') {
      // Of a join that another has followed: that one stays.
      const isOfAnother = message.joinRef !== null && message.joinRef !== channel?.joinRef
      if (channel === undefined || isOfAnother) this.#reply(message, 'ok', {})
      else {
        this.#left ??= new Set()
        if (this.#joined.includes(topic)) this.#left.add(topic)
        channel.leave(ref)
      }
    } else if (channel === undefined) this.#reply(message, 'error', { reason: 'unmatched topic' })
    else channel.take(message)
  }

  #join(message: Incoming): void {
    const { topic, ref, joinRef, payload } = message
    this.#channelOf(topic)?.giveWay()
    if (this.#channels.length >= maxChannels) {
      this.#reply(message, 'error', { reason: 'ChannelRateLimitReached: Too many channels' })
      return
    }
    const channel = new PhoenixChannel(this, topic, joinRef ?? ref ?? '', payload as Json)
    this.#channels = this.#channels.concat(channel)
    channel.join(ref)
  }

  async stoodAt(owner: string): Promise<Stand['positions'] | null> {
    const stood = this.#rejoins.join(owner)
    return stood === undefined ? this.#returns.stoodAt(owner, this.#firstRef, this) : stood
  }

  heldPresence(topic: string): HeldPresence {
    if (this.#joined.includes(topic)) return this.#left?.delete(topic) ? 'none' : 'older'
    if (this.#joined.length < 2 * maxChannels) this.#joined = this.#joined.concat(topic)
    // A page that was there before this socket may have been in any channel.
    return (refOf(this.#firstRef) ?? 0) > 1 ? 'unknown' : 'none'
  }

  keep(stood: Stood | null, here = stood?.positions): void {
    if (stood === null || (!this.#isOver && this.#rejoins.leave(stood, here!))) return
    const silentMs = Math.max(0, this.services.now() - this.#heardAt)
    this.services.stands.keep({ ...stood, lastRef: this.#lastRef, silentMs })
  }

  /** Where its channels of this owner stood, if it is not known to have got what it was sent last: its client may have come back
   *  over another socket. */
  *suspects(owner: string): Generator<Suspected> {
    this.#noteSent()
    if (!this.#acks.isOwed) return
    const silentMs = Math.max(0, this.services.now() - this.#heardAt)
    for (const { stood, progress } of this.#channels)
      if (stood?.owner === owner) yield { ...stood, lastRef: this.#lastRef, silentMs, progress }
  }

  owns(owner: string, before: string | null): void {
    if (before !== null) this.#returns.remove(before, this)
    this.#returns.add(owner, this)
  }

  over(channel: PhoenixChannel): void {
    if (channel.owner !== null) this.#returns.remove(channel.owner, this)
    this.#channels = this.#channels.filter(other => other !== channel)
  }

  newPlace(): Place {
    return this.#connections.inner(this.#place)
  }

  /** A look at what has been pushed, instead of a word for each: that would be two more objects to fetch for a delivery. */
  #noteSent(): void {
    const { pushed } = this.queue
    if (pushed === this.#pushedBefore) return
    this.#pushedBefore = pushed
    this.#acks.sent()
  }

  pause(reader: object): void {
    if (this.#pausing.includes(reader)) return
    if (this.#pausing.length === 0) this.#ws.pause()
    this.#pausing = [...this.#pausing, reader]
  }

  resume(reader: object): void {
    if (!this.#pausing.includes(reader)) return
    this.#pausing = this.#pausing.filter(other => other !== reader)
    if (this.#pausing.length > 0) return
    this.#heardAt = this.services.now()
    if (this.#ws.readyState === WebSocket.OPEN) this.#ws.resume()
  }

  /** Anything that its client sends is a sign of life, and costs a token: without one nothing more is read for a while. */
  pays(): void {
    const { now, limits } = this.services
    this.#heardAt = now()
    if (takeToken(this.#bucket, this.#heardAt, limits.framesPerSecond, limits.frameBurst)) return
    this.#debt += 1
    this.pause(this)
  }

  #payDebt(now: number): void {
    const { limits } = this.services
    while (this.#debt > 0 && takeToken(this.#bucket, now, limits.framesPerSecond, limits.frameBurst)) this.#debt -= 1
    if (this.#debt === 0) this.resume(this)
  }

  ponged(payload: Buffer): void {
    this.#heardAt = this.services.now()
    if (this.#acks.answered(payload)) this.#each(channel => channel.ponged())
  }

  get queuedBytes(): number {
    return this.queue.bytes
  }

  tick(now: number): void {
    if (this.#isOver) return
    const { limits, departures } = this.services
    const { stalledSince } = this.queue
    if (stalledSince !== null && now - stalledSince >= limits.slowConsumerMs) {
      departures.gaveUp('SLOW_CONSUMER', 'WebSocket')
      this.endedBy = 'SLOW_CONSUMER'
      this.terminate()
      return
    }
    if (this.#pausing.length === 0 && now - this.#heardAt > 2 * limits.heartbeatMs) {
      departures.gaveUp('HEARTBEAT_MISSED', 'WebSocket')
      this.endedBy = 'HEARTBEAT_MISSED'
      this.terminate()
      return
    }
    if (this.#debt > 0) this.#payDebt(now)
    if (now >= this.#nextTickAt) {
      this.#nextTickAt = now + channelTickMs
      this.#each(channel => channel.tick(now))
    }
    this.#noteSent()
    if (this.queue.isFull || this.#isClosing || !this.#acks.isDue(now, this.#connections.count)) return
    this.#each(channel => channel.pinged())
    this.queue.push(this.#acks.ask(now))
    this.#pushedBefore = this.queue.pushed
  }

  tellPulse(): void {}

  goAway(error: TidegateError): void {
    this.#each(channel => channel.sendAway())
    this.#close(error)
  }

  moveAway(error: TidegateError): boolean {
    if (this.#isOver || this.#isClosing) return false
    this.goAway(error)
    return true
  }

  cutOff(error: TidegateError): void {
    this.#each(channel => channel.cutOff(error))
    this.#close(error)
  }

  /** Its channels are told: they have tokens of their own. */
  refresh(): void {}

  terminate(): void {
    this.#ws.terminate()
  }

  failed(error: Error): void {
    this.services.log.debug({ err: error }, 'a WebSocket of a Phoenix client broke')
  }

  closed(code: number, reason: string): void {
    if (this.#isOver) return
    this.#isOver = true
    // Its client has answered the close: what was sent before it has arrived.
    if (this.#isClosing && code === restarting) this.#each(channel => channel.ponged())
    const how = code === closedNormally && reason !== missedHeartbeat ? 'gone' : 'broken'
    this.#each(channel => channel.disconnected(how))
    for (const stood of this.#rejoins.rest()) this.keep(stood)
    this.queue.stop()
    this.#place.release()
  }

  #close(error: TidegateError): void {
    if (this.#isOver || this.#isClosing) return
    this.#isClosing = true
    this.#each(channel => channel.pinged())
    this.queue.finish()
    const refusal = refusalOf(error, this.services.log, this.services.random)
    this.endedBy = refusal.code
    this.#ws.close(restarting, closeReason(refusal))
  }

  #channelOf(topic: string): PhoenixChannel | undefined {
    for (const channel of this.#channels) if (channel.topic === topic) return channel
    return undefined
  }

  #each(act: (channel: PhoenixChannel) => void): void {
    for (const channel of this.#channels) act(channel)
  }

  #reply({ topic, ref, joinRef }: Incoming, status: 'ok' | 'error', response: object): void {
    const payload = JSON.stringify({ status, response })
    this.queue.push(messageFrame(this.vsn, { joinRef, ref, topic, event: 'phx_reply', payload }))
  }
}
