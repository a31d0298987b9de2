// The session of one Phoenix channel: ours, which carries its frames into the words of the wire, into the queue that all channels of
// a socket share. What it sends is held until its client knows that it has joined.
import type { ClientFrame, ErrorEvent, ServerFrame } from '../../../protocol/messages.ts'
import { comparePositions, formatQueryPositions, type QueryPosition } from '../../../protocol/position.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Batch, Outgoing, Owner, Principal } from '../../subscribe/subscription.ts'
import type { Carrier, Encoding, FrameQueue } from '../carrier.ts'
import type { Place } from '../connections.ts'
import type { Standing } from '../heartbeat-frame.ts'
import type { Refusal } from '../refusal.ts'
import type { SendQueue } from '../send-queue.ts'
import type { Services } from '../services.ts'
import { SessionConnection } from '../session-connection.ts'
import { type Content, type TakeBack, takeBack } from '../take-back.ts'
import { type ChangeTarget, changeFramesOf, changeTarget, type TargetOptions } from './change-frames.ts'
import { channelEntry, channelId, type Entries, type Refused } from './entries.ts'
import type { Replay } from './replay.ts'

/** The socket, as its channels see it. */
export interface Line {
  readonly services: Services
  readonly queue: SendQueue
  /** Reads nothing more from the socket while one of its channels takes nothing. */
  pause(reader: object): void
  resume(reader: object): void
}

/** The channel, as its session sees it. */
export interface SessionOwner {
  /** Bytes of an event for the client. Empty: it is told nothing. */
  eventFrame(session: ChannelSession, outgoing: Outgoing, id: number): Buffer
  /** Bytes that tell of what its client missed before it came back, or in the channel itself. */
  missed(frame: Extract<ServerFrame, { type: 'resync' }>): Buffer
  /** What the session says beside events, once it has been entered. */
  said(session: ChannelSession, frame: ServerFrame): void
  ended(session: ChannelSession, refusal: Refusal): void
}

/** What a channel enters by. */
export type EntryFrame = Extract<ClientFrame, { type: 'join' | 'subscribe' }>

interface Gathered {
  readonly frame: Buffer
  readonly owner: Owner
  readonly content: Outgoing
}

interface HeldFrame {
  readonly frame: Buffer
  readonly owner: Owner | null
  readonly content: Content
}

const nothing = (): void => {}
const noGreeting = {}
/** Never added to. */
const noneGathered: Gathered[] = []
const noneRefused: readonly Refused[] = []
const noneEnded: readonly Extract<ServerFrame, { type: 'error' }>[] = []

/** Nothing is said. */
export const silence: Buffer = Buffer.alloc(0)

export class ChannelSession implements Carrier, FrameQueue, Encoding {
  // What a batch looks at comes first, in as few lines of the processor's cache as can be.
  /** Whoever was told something last, and by what its frames are made: mostly the only one. Null where there are several. */
  #lastOwner: Owner | null = null
  #lastTarget: ChangeTarget | null = null
  /** Null once the client knows of it. Bounded as the queue is: past it nothing more comes. */
  #held: HeldFrame[] | null = []
  /** Messages that were told since another session was begun to take its place; null while there is none. */
  #told: Set<Outgoing> | null = null
  #isStopped = false
  readonly #queue: SendQueue
  readonly what = 'WebSocket'
  /** Its socket sees whether the client is there. */
  readonly isAnswering = false
  readonly greeting = noGreeting
  readonly place: Place
  readonly connection: SessionConnection
  /** What its bindings are to it. */
  readonly entries: Entries
  /** What the client asked to be told of before its join; null: nothing. */
  replay: Replay | null = null
  /** Where its client begins in the channel itself: before what is replayed, and before who is there. */
  begun: string | null = null
  readonly #line: Line
  readonly #owner: SessionOwner
  #heldBytes = 0
  #wasFull = false
  /** Changes of this turn, where a channel has several tables: about as many as one commit told it. */
  #gathered: Gathered[] = noneGathered
  /** What ended it. */
  #refusal: Refusal | null = null
  #onDrained = nothing
  #stopListening = nothing
  /** Ids that are being entered, and what was refused of them. */
  #entering: Set<number> | null = null
  #refused: readonly Refused[] = noneRefused
  /** What ended since then, before the client knows of it. At most one for each subscription. */
  #endedEarly: readonly Extract<ServerFrame, { type: 'error' }>[] = noneEnded
  #whenEntered: PromiseWithResolvers<readonly Refused[]> | null = null

  constructor(line: Line, owner: SessionOwner, place: Place, principal: Principal, entries: Entries) {
    this.entries = entries
    this.#line = line
    this.#queue = line.queue
    this.#owner = owner
    this.place = place
    this.connection = new SessionConnection({
      services: line.services,
      carrier: this,
      queue: onDrained => {
        this.#onDrained = onDrained
        return this
      },
      credentials: principal,
      isPublicOpen: true,
    })
    place.hold(this.connection)
  }

  get encoding(): Encoding {
    return this
  }

  event(outgoing: Outgoing, _query: number, id: number): Buffer {
    return this.#owner.eventFrame(this, outgoing, id)
  }

  batch(): Buffer {
    return silence
  }

  /** Whether messages of the channel are kept. */
  get keepsHistory(): boolean {
    return this.connection.members.some(({ channel }) => channel?.hasHistory === true)
  }

  /** @returns what was refused, once all of them stand or were
   *  @throws what ended the session meanwhile */
  async enter(frames: readonly EntryFrame[]): Promise<readonly Refused[]> {
    if (this.#refusal !== null) throw errorOf(this.#refusal)
    this.#entering = new Set(frames.map(({ id }) => id))
    this.#refused = noneRefused
    this.#whenEntered = Promise.withResolvers()
    const { promise } = this.#whenEntered
    for (const frame of frames) this.connection.take(frame)
    this.#settle()
    return promise
  }

  /** The client knows of it: what was held follows. */
  release(): void {
    const held = this.#held
    if (held === null) return
    if (this.#refusal !== null) this.#owner.ended(this, this.#refusal)
    if (this.#isStopped) return
    this.#held = null
    let hasRoom = true
    for (const { frame, owner, content } of held) hasRoom = this.push(frame, owner, content)
    if (this.#wasFull && hasRoom) this.#onDrained()
    const endedEarly = this.#endedEarly
    this.#endedEarly = noneEnded
    for (const frame of endedEarly) this.#owner.said(this, frame)
    if (this.entries.isOfAll && !this.#isStopped)
      this.#stopListening = this.#line.services.subscriptions.onTables(() => this.#addTables())
  }

  /** A subscription stands no more.
   *  @returns whether its client asked for it as one of many */
  lose(id: number): 'one' | 'of many' {
    const lost = this.entries.lose(id)
    this.#lastOwner = null
    // Its table may be there again already, and nothing would tell.
    if (lost?.isOfMany === true && lost.hasStood) this.#addTables()
    return lost?.isOfMany === true ? 'of many' : 'one'
  }

  #addTables(): void {
    void this.entries.addTables().then(
      added => {
        this.#lastOwner = null
        for (const { frame } of added) this.connection.take(frame)
      },
      (error: unknown) =>
        this.#line.services.log.debug({ err: error }, 'tables are looked at again with the next change'),
    )
  }

  /** Of what waits for a slow client, what can be had again: nobody takes it back once another session stands in the place of this
   *  one. Its subscriptions stand before it then. */
  takeBackChanges(): void {
    for (const member of this.connection.members) if (member.id !== channelId) member.takeBack('gently')
  }

  /** In the place of another, of which the client has had everything up to a moment: drops what it has had already.
   *  @returns false where it cannot be told what that is */
  follow(before: ChannelSession): boolean {
    const had = before.places()
    for (const [name, begun] of this.places()) {
      const until = had.get(name)
      if (until !== undefined && (until.epoch !== begun.epoch || comparePositions(until, begun) < 0)) return false
    }
    this.#held = (this.#held ?? []).filter(({ owner, content }) => {
      if (owner === null || content === null || typeof content === 'string' || 'events' in content) return true
      if (content.event === 'message') return before.#told?.has(content) !== true
      const until = had.get(this.entries.nameOf(this.#idOf(owner)) ?? '')
      return until === undefined || content.position === null || comparePositions(content.position, until) > 0
    })
    return true
  }

  /** Where its client stands in each table, by what a stand calls it. */
  places(): Map<string, QueryPosition> {
    const places = new Map<string, QueryPosition>()
    for (const { id, position } of this.connection.standings) {
      const name = this.entries.nameOf(id)
      if (name !== null && position !== null) places.set(name, position)
    }
    return places
  }

  /** Behind everything that was handed to the queue, by what a stand calls it. A channel that is still told what it missed is left
   *  out. */
  positions(): Record<string, string> {
    const positions: Record<string, string> = {}
    for (const member of this.connection.members) {
      const isOfChannel = member.id === channelId
      const name = isOfChannel ? channelEntry : this.entries.nameOf(member.id)
      const position = isOfChannel && !member.isWhole ? null : member.position()
      if (name !== null && position !== null) positions[name] = formatQueryPositions([position])
    }
    return positions
  }

  /** From now on it is written down what is told in channels. */
  noteMessages(): void {
    this.#told ??= new Set()
  }

  get standings(): readonly Standing[] {
    return this.connection.standings
  }

  drained(): void {
    this.#onDrained()
  }

  /** @param how whether its client said that it goes */
  leave(how: 'gone' | 'broken'): void {
    this.stop()
    this.#held = null
    this.connection.disconnected(how)
    this.#line.resume(this)
    this.place.release()
    this.#whenEntered?.reject(new TidegateError('GOING_AWAY', 'the channel was left'))
  }

  push(frame: Buffer, owner: Owner | null = null, content: Content = null): boolean {
    if (this.#isStopped) return true
    if (frame.length === 0) return !this.isFull
    if (this.#told !== null && content !== null && typeof content !== 'string' && !('events' in content))
      this.#told.add(content)
    if (this.#held === null) {
      if (owner !== null && isChange(content) && this.entries.size > 1) this.#gather(frame, owner, content)
      else this.#hand(frame, owner, content)
      return !this.isFull
    }
    this.#held.push({ frame, owner, content })
    this.#heldBytes += frame.length
    if (this.#heldBytes <= this.#line.services.limits.sendQueueBytes) return true
    this.#wasFull = true
    return false
  }

  pushBatch(batch: Batch, owner: Owner): boolean {
    const target = owner === this.#lastOwner ? this.#lastTarget : null
    if (target === null || this.#held !== null || this.#told !== null) return this.#pushEach(batch, owner)
    const frames = changeFramesOf(batch, target)
    if (frames === null) return this.#pushEach(batch, owner)
    if (frames.length === 0 || this.#isStopped) return !this.isFull
    return this.#queue.pushJoined(frames, batch, owner)
  }

  #pushEach(batch: Batch, owner: Owner): boolean {
    const id = this.#idOf(owner)
    for (const event of batch.events) this.push(this.#owner.eventFrame(this, event, id), owner, event)
    this.#lastOwner = owner
    // Of several tables the changes of a commit are gathered first.
    this.#lastTarget = this.entries.size > 1 ? null : (this.entries.of(id)?.target ?? null)
    return !this.isFull
  }

  /** By what frames of a table's changes are made; null where it is not known which table that is. */
  targetOf(id: number, words: Pick<TargetOptions, 'vsn' | 'topic' | 'isLegacy'>): ChangeTarget | null {
    const entry = this.entries.of(id)
    if (entry === null || entry.target !== null) return entry?.target ?? null
    const columns = this.connection.members.find(member => member.id === id)?.subscription?.columns
    if (columns === undefined) return null
    const { binding, others } = entry
    const bindingIds = [binding.id, ...others]
    entry.target = changeTarget({ ...words, event: binding.event, bindingIds, columns })
    return entry.target
  }

  takeBack(request: TakeBack): ReadonlyMap<Owner, Outgoing> {
    this.#handGathered()
    if (this.#held === null) return this.#queue.takeBack(request)
    const taken = takeBack(this.#held, request)
    if (taken === null) return new Map()
    this.#held = this.#held.filter((_, place) => taken.kept[place])
    this.#heldBytes = this.#held.reduce((sum, { frame }) => sum + frame.length, 0)
    this.#wasFull = true
    return taken.first
  }

  get isFull(): boolean {
    return this.#held === null ? this.#queue.isFull : this.#heldBytes > this.#line.services.limits.sendQueueBytes
  }

  get bytes(): number {
    return this.#heldBytes
  }

  get stalledSince(): number | null {
    return this.#held === null ? this.#queue.stalledSince : null
  }

  clear(): void {
    this.#gathered = noneGathered
    if (this.#held === null) this.#queue.clear()
    else this.#held = []
  }

  finish(): void {
    this.stop()
  }

  stop(): void {
    this.#handGathered()
    this.#isStopped = true
    this.#stopListening()
  }

  ping(): void {}

  pause(): void {
    this.#line.pause(this)
  }

  resume(): void {
    this.#line.resume(this)
  }

  end(refusal: Refusal): void {
    this.#refusal = refusal
    this.#line.resume(this)
    this.place.release()
    this.#whenEntered?.reject(errorOf(refusal))
    this.#owner.ended(this, refusal)
  }

  terminate(): void {}

  #hand(frame: Buffer, owner: Owner | null, content: Content): void {
    this.#queue.push(frame, owner, content)
  }

  /** A commit is told to one subscription after the other; a client of several tables gets its changes in the order in which they
   *  were made. */
  #gather(frame: Buffer, owner: Owner, content: Outgoing): void {
    if (this.#gathered.length === 0) queueMicrotask(() => this.#handGathered())
    if (this.#gathered === noneGathered) this.#gathered = []
    this.#gathered.push({ frame, owner, content })
  }

  #handGathered(): void {
    if (this.#gathered.length === 0) return
    const gathered = this.#gathered
    this.#gathered = noneGathered
    // Of several epochs nothing tells which is first but when they came.
    const isOfOne = gathered.every(({ content }) => content.position?.epoch === gathered[0]!.content.position?.epoch)
    if (isOfOne) gathered.sort((a, b) => comparePositions(a.content.position!, b.content.position!))
    for (const { frame, owner, content } of gathered) this.#hand(frame, owner, content)
  }

  #idOf(owner: Owner): number {
    for (const { subscription, id } of this.connection.members) if (subscription === owner) return id
    return 0
  }

  frame(frame: ServerFrame): Buffer {
    if (frame.type === 'subscribed' || frame.type === 'joined') {
      if (frame.type === 'joined') this.begun = `${frame.position}.${frame.tag}`
      // Entered anew, it is another subscription under the same id.
      this.#lastOwner = null
      const entry = this.entries.of(frame.id)
      if (entry !== null) {
        entry.target = null
        entry.hasStood = true
      }
      if (this.#entering?.delete(frame.id)) this.#settle()
      else this.#owner.said(this, frame)
    } else if (frame.type === 'error' && frame.id !== undefined && this.#entering?.delete(frame.id)) {
      this.#refused = [...this.#refused, { id: frame.id, error: frame }]
      this.#settle()
    } else if (frame.type === 'error' && frame.id !== undefined && frame.ref === undefined && this.#held !== null) {
      if (this.#entering === null) this.#endedEarly = [...this.#endedEarly, frame]
      else this.#refused = [...this.#refused, { id: frame.id, error: frame }]
    } else if (frame.type === 'resync' && (this.#held !== null || this.entries.of(frame.id) === null))
      return this.#owner.missed(frame)
    else this.#owner.said(this, frame)
    return silence
  }

  #settle(): void {
    if (this.#entering === null || this.#entering.size > 0) return
    this.#entering = null
    this.#whenEntered?.resolve(this.#refused.toSorted((a, b) => a.id - b.id))
    this.#whenEntered = null
  }
}

const isChange = (content: Content): content is Outgoing =>
  content !== null && typeof content !== 'string' && !('events' in content) && content.event === 'change'

export const errorOf = ({ code, message, retryAfterMs }: ErrorEvent): TidegateError =>
  new TidegateError(code as Refusal['code'], message, retryAfterMs === undefined ? {} : { retryAfterMs })
