// Our own ChannelDoor interface, held in memory: channels with numbered messages, so that the wires can be tested alone. Topics
// that begin with `h:` have a history, `x:` refuses everybody, `slow:` holds each send until it is let go.
import { randomUUID } from 'node:crypto'
import { type Position, WHOLE_COMMIT } from '../../../../src/protocol/position.ts'
import { TidegateError } from '../../../../src/protocol/tidegate-error.ts'
import type {
  Caller,
  ChannelDoor,
  ChannelRequest,
  ChannelSubscription,
  HistoryPart,
  SendRequest,
  TrackRequest,
} from '../../../../src/server/channels/door.ts'
import { gapJson, hereJson, messageJson } from '../../../../src/server/channels/event-json.ts'
import {
  type ChannelMessage,
  type ChannelName,
  channelKey,
  type Published,
} from '../../../../src/server/channels/message.ts'
import type { PresenceEntry, PresenceList } from '../../../../src/server/channels/presence/presence.ts'
import type { HistoryRange } from '../../../../src/server/channels/relay/channel-relay.ts'
import { Batch } from '../../../../src/server/route/batch.ts'
import { Outgoing, type Outlet } from '../../../../src/server/subscribe/subscription.ts'

export const historyEpoch = 'abcdef01'
const streamEpoch = '1f2e3d4c'

interface Held {
  readonly number: number
  readonly name: ChannelName
  readonly messages: ChannelMessage[]
  readonly entries: PresenceEntry[]
}

export class MemoryDoor implements ChannelDoor {
  readonly channels = new Map<string, Held>()
  readonly members = new Set<MemoryMember>()
  readonly joined: { caller: Caller; request: ChannelRequest }[] = []
  /** What happened, in order: `join room`, `send room 1`, `close room gone`. */
  readonly log: string[] = []
  /** Sends of `slow:` topics wait for it. */
  gate: Promise<void> = Promise.resolve()
  readonly keys = new Map<string, Published>()
  maxPayload = 1000

  channel(name: ChannelName): Held {
    const key = channelKey(name)
    let held = this.channels.get(key)
    if (held === undefined) {
      held = { number: this.channels.size + 1, name, messages: [], entries: [] }
      this.channels.set(key, held)
    }
    return held
  }

  async join(caller: Caller, request: ChannelRequest, outlet: Outlet): Promise<ChannelSubscription> {
    const { topic } = request.channel
    this.joined.push({ caller, request })
    await this.gate
    if (topic === '') throw new TidegateError('TOPIC_INVALID', '"" is no topic')
    if (topic.startsWith('x:')) throw new TidegateError('CHANNEL_REFUSED', `no policy lets you into ${topic}`)
    const member = new MemoryMember(this, this.channel(request.channel), caller, request, outlet)
    this.members.add(member)
    this.log.push(`join ${topic}`)
    setImmediate(() => member.start())
    return member
  }

  async publish(caller: Caller, name: ChannelName, request: SendRequest): Promise<Published> {
    const held = this.channel(name)
    if (name.topic.startsWith('x:')) throw new TidegateError('SEND_REFUSED', `no policy lets you send to ${name.topic}`)
    if (name.topic.startsWith('slow:')) await this.gate
    if (request.payload.length > this.maxPayload) throw new TidegateError('PAYLOAD_TOO_LARGE', 'it is too large')
    const key = request.idempotencyKey
    const before = key === null ? undefined : this.keys.get(key)
    if (before !== undefined) return { ...before, isDuplicate: true }
    const sub = caller.principal.claims.sub
    const message: ChannelMessage = {
      channel: name,
      id: randomUUID(),
      event: request.event,
      payload: request.payload,
      isBinary: request.isBinary,
      sender: { user: typeof sub === 'string' ? sub : null, connection: caller.connection },
      sentAtMs: 1_767_323_045_678,
      to: request.to,
      stamp: { epoch: streamEpoch, lsn: 1n },
      walIndex: null,
      epoch: historyEpoch,
      seq: BigInt(held.messages.length + 1),
    }
    this.log.push(`send ${name.topic} ${request.payload}`)
    this.say(held, message)
    const published = { id: message.id, epoch: message.epoch, seq: message.seq, isDuplicate: false }
    if (key !== null) this.keys.set(key, published)
    return published
  }

  say(held: Held, message: ChannelMessage): void {
    held.messages.push(message)
    const outgoing = outgoingOf(message)
    const receivers = { query: { number: held.number }, tag: tagOf(held), toldLsn: 0n, members: { deliver: () => {} } }
    const batch = new Batch(receivers, [outgoing], message.seq)
    for (const member of this.of(held.name.topic)) member.take(message, batch)
  }

  of(topic: string): MemoryMember[] {
    return [...this.members].filter(({ held }) => held.name.topic === topic)
  }

  async history(_caller: Caller, name: ChannelName, range: HistoryRange): Promise<HistoryPart> {
    const { messages } = this.channel(name)
    if (!name.topic.startsWith('h:')) throw new TidegateError('HISTORY_OFF', `${name.topic} keeps no history`)
    const part =
      'after' in range
        ? messages.filter(({ seq }) => seq > range.after).slice(0, range.limit)
        : messages.filter(({ seq }) => range.before === null || seq < range.before).slice(-range.limit)
    const looked = part.length === 0 ? null : { first: part[0]!.seq, last: part.at(-1)!.seq }
    return { epoch: historyEpoch, seq: BigInt(messages.length), first: 1n, messages: part, looked }
  }

  async present(
    _caller: Caller,
    name: ChannelName,
    page: { after: string | null; limit: number },
  ): Promise<PresenceList> {
    const { entries } = this.channel(name)
    const rest = entries.filter(({ ref }) => page.after === null || ref > page.after)
    return { epoch: historyEpoch, seq: 1n, count: entries.length, entries: rest.slice(0, page.limit) }
  }
}

const tagOf = (held: Held): string => `t${held.number}`

const hasHistory = ({ topic }: ChannelName): boolean => topic.startsWith('h:')

const placeOf = (name: ChannelName, seq: bigint): Position =>
  hasHistory(name)
    ? { epoch: historyEpoch, lsn: seq, index: WHOLE_COMMIT }
    : { epoch: streamEpoch, lsn: 0x1000n, index: Number(seq) }

const outgoingOf = (message: ChannelMessage): Outgoing =>
  new Outgoing('message', messageJson(message), placeOf(message.channel, message.seq))

export class MemoryMember implements ChannelSubscription {
  readonly kind = 'channel'
  readonly key = []
  readonly warnings = []
  readonly maySend = true
  readonly query: number
  readonly tag: string
  readonly resumed: boolean
  readonly hasHistory: boolean
  readonly caller: Caller
  readonly request: ChannelRequest
  readonly outlet: Outlet
  readonly held: Held
  readonly #door: MemoryDoor
  hasCaughtUp = false
  isBlocked = false
  #seq: bigint
  #isClosed = false

  constructor(door: MemoryDoor, held: Held, caller: Caller, request: ChannelRequest, outlet: Outlet) {
    const { since } = request
    this.#door = door
    this.held = held
    this.caller = caller
    this.request = request
    this.outlet = outlet
    this.query = held.number
    this.tag = tagOf(held)
    this.hasHistory = hasHistory(held.name)
    const head = BigInt(held.messages.length)
    const number = since === null ? null : this.hasHistory ? since.lsn : BigInt(since.index)
    this.resumed = this.hasHistory
      ? since?.epoch === historyEpoch && since.tag === this.tag
      : since !== null && number === head
    this.#seq =
      this.resumed && number !== null
        ? number
        : request.last !== null
          ? head - BigInt(Math.min(request.last, Number(head)))
          : head
  }

  start(): void {
    if (this.#isClosed) return
    const { since, track, presence } = this.request
    if (since !== null && !this.resumed) {
      if (this.hasHistory) this.outlet.resync('HISTORY_LOST', 'the history was begun anew')
      else {
        const place = placeOf(this.held.name, this.#seq)
        this.outlet.send(new Outgoing('gap', gapJson('MESSAGES_LOST', Number(this.#seq) - since.index), place))
      }
    }
    this.pump()
    if (presence)
      this.outlet.send(new Outgoing('presence', hereJson(this.held.entries, this.held.entries.length), null))
    this.hasCaughtUp = true
    if (track !== null) void this.track(track)
  }

  pump(): void {
    while (!this.isBlocked && this.#seq < BigInt(this.held.messages.length)) {
      const message = this.held.messages[Number(this.#seq)]!
      this.#seq += 1n
      this.isBlocked = !this.outlet.send(outgoingOf(message))
    }
  }

  take(message: ChannelMessage, batch: Batch): void {
    if (this.#seq !== message.seq - 1n || this.isBlocked) return
    this.#seq = message.seq
    const isOwn = message.sender.connection === this.caller.connection && message.sender.connection !== null
    if (isOwn && !this.request.self) return
    const { sink } = this.outlet
    if (sink !== null) {
      if (sink.pushBatch(batch, this)) return
      this.outlet.sinkIsFull()
      this.isBlocked = true
    } else if (!this.outlet.sendBatch(batch)) this.isBlocked = true
  }

  send(request: SendRequest): Promise<Published> {
    return this.#door.publish(this.caller, this.held.name, request)
  }

  async track({ meta, key }: TrackRequest): Promise<void> {
    if (meta.length > 100) throw new TidegateError('PAYLOAD_TOO_LARGE', 'meta is larger than 100 bytes')
    const user = String(this.caller.principal.claims.sub)
    const connection = this.caller.connection!
    const { entries } = this.held
    const place = entries.findIndex(entry => entry.connection === connection)
    this.#door.log.push(`track ${this.held.name.topic} ${meta}`)
    const ref = `r${entries.length + 1}`
    if (place === -1) entries.push({ ref, key: key ?? user, user, connection, meta, sinceMs: 1_767_323_045_678 })
    else entries[place] = { ...entries[place]!, meta }
  }

  /** Somebody else comes. */
  change(): void {
    this.outlet.send(new Outgoing('presence', '{"joined":[],"count":1}', null))
  }

  async untrack(): Promise<void> {
    this.#door.log.push(`untrack ${this.held.name.topic}`)
    const { entries } = this.held
    const place = entries.findIndex(({ connection }) => connection === this.caller.connection)
    if (place !== -1) entries.splice(place, 1)
  }

  position(): Position {
    return placeOf(this.held.name, this.#seq)
  }

  resume(): void {
    this.isBlocked = false
    this.pump()
  }

  retreat(first: Outgoing): void {
    const number = this.hasHistory ? first.position!.lsn : BigInt(first.position!.index)
    this.#seq = number - 1n
    this.isBlocked = true
  }

  close(how: 'gone' | 'broken' = 'broken'): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#door.members.delete(this)
    this.#door.log.push(`close ${this.held.name.topic} ${how}`)
  }

  /** As at a revocation. */
  end(error: unknown): void {
    this.close('gone')
    this.outlet.fail(error)
  }
}
