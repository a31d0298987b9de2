// One place in one channel as the client holds it, however many listen: where it stands, who is there, what waits to be said.
import type { Code } from '../../protocol/codes.ts'
import type { Join, Send, Track } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Ask, Entry, Feed, FrameOf } from '../feed.ts'
import { ProtocolError } from '../queries/live-rows.ts'
import { Stand } from '../stand.ts'
import { type FeedStatus, isLive, type Refusal } from '../status.ts'
import { errorOf, type OfflineSends, Outbox, offline, type Sent } from './outbox.ts'
import { Members } from './presence.ts'
import { noChange, type PresenceChange, type PresenceState } from './presence-state.ts'

/** `idle`: nobody listens, and the client is not in the channel. */
export type ChannelStatus = FeedStatus | 'idle'

/** Messages did not reach this client, and will not. */
export interface Gap {
  readonly code: string
  readonly message: string
  /** How many; null when that is not known. */
  readonly missed: number | null
}

export interface ChannelListener {
  /** Whether it wants what this client says itself. */
  readonly self?: boolean
  readonly onMessage?: (message: FrameOf<'message'>) => void
  readonly onGap?: (gap: Gap) => void
  readonly onStatus?: (status: ChannelStatus, error: Refusal | null) => void
  readonly onPresence?: (state: PresenceState, change: PresenceChange) => void
}

export interface ChannelSurroundings {
  readonly report: (error: Error) => void
  readonly offlineSends: OfflineSends | 'refuse'
  /** Whether it names a connection of this client. */
  readonly isOwn: (connection: string) => boolean
  /** Asks the server, when the client is in the channel. @returns false when it is not */
  readonly ask: (ask: Ask) => boolean
  /** What it was refused for is dropped: enters the channel again. */
  readonly enterAgain: () => void
}

/** What those who hold the place want of it, together. */
export interface Wants {
  readonly self: boolean
  readonly presence: boolean
  readonly last: number
}

/** Messages of this client that may come back to it by their id alone, because they were not sent over its connection. */
const maxOwnIds = 256
/** Of a rule that says nothing else. */
const defaultKeptMs = 300_000

export class ChannelFeed implements Feed {
  readonly #name: Pick<Join, 'topic' | 'private'>
  readonly #around: ChannelSurroundings
  readonly #stand = new Stand()
  readonly #members = new Members()
  readonly #outbox: Outbox
  readonly #listeners = new Set<ChannelListener>()
  readonly #ownIds = new Set<string>()
  /** Who wants to be there as what; the last of them counts. */
  readonly #tracks = new Map<object, Track>()
  #trackWaiters: { resolve: () => void; reject: (error: TidegateError) => void }[] = []
  /** What the server knows of it, and was asked last. */
  #tracked: Track | null = null
  #asked: { readonly ref: number; readonly track: Track | null } | null = null
  #wants: Wants = { self: false, presence: false, last: 0 }
  #status: ChannelStatus = 'idle'
  #error: Refusal | null = null
  #isJoined = false
  #hasHistory = false
  #keptMs = defaultKeptMs
  #lastRef = 0
  #complained: string | null = null
  #toldPresence = this.#members.state

  constructor(name: Pick<Join, 'topic' | 'private'>, around: ChannelSurroundings) {
    this.#name = name
    this.#around = around
    this.#outbox = new Outbox(around.offlineSends === 'refuse' ? {} : around.offlineSends)
  }

  get status(): ChannelStatus {
    return this.#status
  }

  get error(): Refusal | null {
    return this.#error
  }

  get presence(): PresenceState {
    return this.#members.state
  }

  get isJoined(): boolean {
    return this.#isJoined
  }

  get isUsed(): boolean {
    return this.#listeners.size + this.#tracks.size + this.#outbox.size > 0
  }

  get isLive(): boolean {
    return this.#status === 'idle' || isLive(this.#status)
  }

  /** Refused, or closed: whoever comes next asks anew. */
  get hasEnded(): boolean {
    return this.#status === 'refused' || this.#status === 'closed'
  }

  hasReached(): boolean {
    return true
  }

  /** With what it is entered from now on. */
  set wants(wants: Wants) {
    this.#wants = wants
  }

  listen(listener: ChannelListener): () => void {
    this.#listeners.add(listener)
    const { state } = this.#members
    if (listener.onPresence !== undefined && state.isCurrent) this.#call(() => listener.onPresence?.(state, noChange))
    return () => this.#listeners.delete(listener)
  }

  entry(id: number): Entry {
    const { since } = this.#stand
    const { self, presence, last } = this.#wants
    // Who is to be there no more comes back as what it was, to go at once: left alone, it would be there for the whole grace.
    const wanted = this.#wanted
    const track = wanted === this.#tracked || wanted === null ? this.#tracked : null
    return {
      type: 'join',
      id,
      ...this.#name,
      ...(self ? { self } : {}),
      ...(presence ? { presence } : {}),
      ...(track === null ? {} : { track }),
      ...(since === null ? (last > 0 ? { last } : {}) : { since }),
    }
  }

  accepted(frame: FrameOf<'subscribed' | 'joined'>): void {
    if (frame.type !== 'joined') return
    if (!frame.resumed) this.#stand.forget()
    this.#stand.setTag(frame.tag)
    // What a resumed place missed comes behind it: until then it stands where it stood.
    if (!frame.resumed) this.#stand.moveTo(frame.position)
    this.#hasHistory = frame.history
    this.#keptMs = frame.idempotencyMs ?? defaultKeptMs
    this.#members.interrupt()
    this.#isJoined = true
    this.#outbox.interrupt()
    this.#asked = null
    this.#move(frame.resumed ? 'catching up' : 'live', null)
    this.#track()
    this.#flush()
  }

  received(frame: Parameters<Feed['received']>[0]): void {
    if (frame.type === 'message') this.#message(frame)
    else if (frame.type === 'gap') {
      this.#moveTo(frame.position)
      this.#gap({ code: frame.code, message: frame.reason, missed: frame.missed })
    } else if (frame.type === 'presence') {
      const change = this.#members.apply(frame)
      this.#moveTo(frame.position)
      this.#tellPresence(change)
    }
  }

  answered(frame: FrameOf<'sent' | 'tracked' | 'error'>): void {
    const asked = this.#asked
    if (asked !== null && frame.ref === asked.ref && frame.type !== 'sent') {
      this.#asked = null
      if (frame.type === 'tracked') this.#hasTracked(asked.track)
      else this.#trackRefused(errorOf(frame))
    } else if (frame.type === 'error' && frame.ref === null) {
      // Of what is sent without an answer, once for each code and place: a cursor moves sixty times a second.
      if (this.#complained !== frame.code) this.#around.report(errorOf(frame))
      this.#complained = frame.code
    } else if (frame.type !== 'tracked') {
      if (frame.type === 'sent') this.#own(frame.message)
      this.#outbox.answered(frame)
      this.#flush()
    }
  }

  resync(frame: FrameOf<'resync'>): void {
    // The old position stays until a new one comes: a link lost in between must lead to another resync, not to silence.
    this.#gap({ code: frame.code, message: frame.reason, missed: null })
  }

  heartbeat(_stale: boolean, since: string | undefined): void {
    if (since === undefined || !this.#isJoined) return
    this.#moveTo(since.slice(0, since.lastIndexOf('.')))
    if (this.#status === 'catching up') this.#move('live', null)
  }

  moved(status: FeedStatus, error: Refusal | null): void {
    const asked = this.#asked?.track ?? null
    this.#loseWay()
    if (status === 'offline') this.#outbox.refuseOffline()
    else if (status === 'refused' && this.#isRefusedForTrack(error, asked)) {
      this.#around.enterAgain()
      this.#move('catching up', error)
      return
    } else if (status === 'refused' || status === 'closed') this.#end(status, error)
    this.#move(status, error)
  }

  restart(error: Refusal): void {
    this.#loseWay()
    this.#move('catching up', error)
  }

  /** Nobody holds the place any more. */
  left(): void {
    this.#loseWay()
    this.#stand.forget()
    this.#members.clear()
    this.#tracked = null
    this.#move('idle', null)
  }

  /** @param send as it goes on the wire, with its key
   *  @throws what the server answers; CLIENT_OFFLINE, SEND_QUEUE_FULL, CLIENT_CLOSED, SEND_UNCERTAIN */
  send(send: Send, bytes: number, mayWait: boolean): { sent: Promise<Sent>; cancel: (error: TidegateError) => void } {
    const error =
      this.#status === 'refused' || this.#status === 'closed'
        ? errorOfEnd(this.#status, this.#error)
        : this.#status === 'offline' && !mayWait
          ? offline()
          : null
    if (error !== null) return { sent: Promise.reject(error), cancel: () => {} }
    const added = this.#outbox.add(send, { bytes, isJoined: this.#isJoined, refuseOffline: !mayWait })
    this.#flush()
    return added
  }

  /** @returns false when it was dropped: the client is not in the channel now */
  sendNow(send: Send): boolean {
    return this.#isJoined && this.#around.ask({ type: 'send', ...send })
  }

  /** Is there, as what the owner says; null: as far as it is for the owner, no more.
   *  @throws TidegateError what the server refuses it with */
  track(owner: object, track: Track | null): Promise<void> {
    if (track === null && !this.#tracks.has(owner)) return Promise.resolve()
    this.#tracks.delete(owner)
    if (track !== null) this.#tracks.set(owner, track)
    if (this.#status === 'refused' || this.#status === 'closed') return this.#untracked(track)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    this.#trackWaiters.push({ resolve, reject })
    if (this.#isJoined) this.#track()
    // Where nobody is listed, nobody need be taken off.
    else if (track === null && this.#status === 'idle') this.#hasTracked(null)
    return promise
  }

  isTrackedBy(owner: object): boolean {
    return this.#tracks.has(owner)
  }

  get #wanted(): Track | null {
    return [...this.#tracks.values()].at(-1) ?? null
  }

  #untracked(track: Track | null): Promise<void> {
    return track === null
      ? Promise.resolve()
      : Promise.reject(errorOfEnd(this.#status === 'refused' ? 'refused' : 'closed', this.#error))
  }

  /** Asks to be there as what is wanted, unless the server knows or was asked. */
  #track(): void {
    const track = this.#wanted
    if (track === (this.#asked === null ? this.#tracked : this.#asked.track)) {
      if (this.#asked === null) this.#hasTracked(track)
      return
    }
    const ref = ++this.#lastRef
    if (this.#around.ask(track === null ? { type: 'untrack', ref } : { type: 'track', ref, ...track }))
      this.#asked = { ref, track }
  }

  #hasTracked(track: Track | null): void {
    this.#tracked = track
    if (track !== this.#wanted) return
    for (const { resolve } of this.#trackWaiters.splice(0)) resolve()
  }

  /** It is there as what it was before, if at all. */
  #trackRefused(error: TidegateError): void {
    for (const [owner, track] of this.#tracks) if (track !== this.#tracked) this.#tracks.delete(owner)
    for (const { reject } of this.#trackWaiters.splice(0)) reject(error)
  }

  /** What came with the join, allowed once or asked for just now, is not allowed: being in the channel may be.
   *  @param asked what was asked and not answered: a transport without a way back brings it with the next join */
  #isRefusedForTrack(error: Refusal | null, asked: Track | null): boolean {
    const track = asked ?? this.#tracked
    const wanted = this.#wanted
    if (error === null || track === null || (wanted !== null && wanted !== track)) return false
    if (!/^(SEND_REFUSED|PAYLOAD_TOO_LARGE|PRESENCE_OFF)$/.test(error.code)) return false
    this.#tracked = null
    if (wanted === null) {
      this.#hasTracked(null)
      return true
    }
    const refused = errorOf(error)
    if (asked === null) this.#around.report(refused)
    this.#trackRefused(refused)
    return true
  }

  #flush(): void {
    if (!this.#isJoined) return
    this.#outbox.flush(
      Date.now(),
      this.#keptMs,
      () => ++this.#lastRef,
      ask => this.#around.ask(ask),
    )
  }

  #message(frame: FrameOf<'message'>): void {
    const { position, id, sender } = frame
    // Without a history positions are no numbers of their own: there the server alone sees to it.
    if (this.#hasHistory && position !== undefined && this.#stand.hasPassed(position))
      throw new ProtocolError(`the message of ${position} came again`)
    this.#moveTo(position)
    const isOwn = this.#ownIds.has(id) || (sender?.connection != null && this.#around.isOwn(sender.connection))
    for (const listener of [...this.#listeners])
      if (!isOwn || listener.self === true) this.#call(() => listener.onMessage?.(frame))
  }

  #own(id: string): void {
    this.#ownIds.add(id)
    if (this.#ownIds.size > maxOwnIds) for (const oldest of this.#ownIds) if (this.#ownIds.delete(oldest)) break
  }

  #moveTo(position: string | undefined): void {
    if (position === undefined) return
    // Numbers go on; without a history a position is whatever the server said last.
    if (!this.#hasHistory) this.#stand.forget()
    this.#stand.moveTo(position)
  }

  #gap(gap: Gap): void {
    const listeners = [...this.#listeners].filter(({ onGap }) => onGap !== undefined)
    for (const listener of listeners) this.#call(() => listener.onGap?.(gap))
    if (listeners.length === 0)
      this.#around.report(new Error(`messages of ${this.#name.topic} were missed: ${gap.message}`))
  }

  #loseWay(): void {
    this.#isJoined = false
    this.#asked = null
    this.#complained = null
    this.#outbox.interrupt()
    this.#members.interrupt()
  }

  #end(status: 'refused' | 'closed', error: Refusal | null): void {
    this.#members.clear()
    this.#stand.forget()
    this.#tracked = null
    this.#tracks.clear()
    const ended = errorOfEnd(status, error)
    for (const { reject } of this.#trackWaiters.splice(0)) reject(ended)
    this.#outbox.end(ended)
  }

  #move(status: ChannelStatus, error: Refusal | null): void {
    if (status === this.#status && error === this.#error) return
    this.#status = status
    this.#error = error
    for (const listener of [...this.#listeners]) this.#call(() => listener.onStatus?.(status, error))
    this.#tellPresence(noChange)
  }

  #tellPresence(change: PresenceChange): void {
    const { state } = this.#members
    if (state === this.#toldPresence) return
    this.#toldPresence = state
    for (const listener of [...this.#listeners]) this.#call(() => listener.onPresence?.(state, change))
  }

  /** A listener that throws harms no other. */
  #call(listen: () => void): void {
    try {
      listen()
    } catch (error) {
      this.#around.report(error instanceof Error ? error : new Error(String(error)))
    }
  }
}

function errorOfEnd(status: 'refused' | 'closed', error: Refusal | null): TidegateError {
  return status === 'closed' || error === null
    ? new TidegateError('CLIENT_CLOSED', 'the client was closed or logged out')
    : new TidegateError(error.code as Code, error.message)
}
