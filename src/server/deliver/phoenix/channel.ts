// One channel of a Phoenix socket: joins by a session of ours, answers what its client pushes, and ends so that the client comes back.
//
//   joining ─all subscriptions stand─▶ joined ─▶ over
//
// `phx_close` would end a channel in the client for good: it answers phx_leave and a second join alone. Whatever else ends it is a
// `phx_error`, upon which the client joins again.
import type { ClientFrame, ErrorEvent, Json, ServerFrame } from '../../../protocol/messages.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Outgoing, Principal } from '../../subscribe/subscription.ts'
import { admitPrincipal } from '../admit.ts'
import type { Place } from '../connections.ts'
import { type Refusal, refused } from '../refusal.ts'
import { canRenew } from '../renewal.ts'
import { broadcastFrameOf, sendFrameOf } from './broadcast.ts'
import { changeFrameOf } from './change-frames.ts'
import { type ChannelSession, type Line, type SessionOwner, silence } from './channel-session.ts'
import { type Entered, enter } from './enter.ts'
import { channelEntry, channelId } from './entries.ts'
import { principalOfToken } from './handshake.ts'
import { asksTooMuch, joinConfigOf, maxBindings, tokenIn } from './join-config.ts'
import { type HeldPresence, PresenceTold, trackedAnew, trackFrameOf } from './presence.ts'
import { Progress } from './progress.ts'
import { Pushes } from './pushes.ts'
import { canComeLater, endingOf, reasonOf } from './reasons.ts'
import { Renewals } from './renewals.ts'
import { ownerOf, type Stand, type Stood } from './stands.ts'
import { Voice } from './voice.ts'
import type { Incoming, JoinConfig, Vsn } from './wire.ts'

/** The socket, as a channel sees it. */
export interface ChannelLine extends Line {
  readonly vsn: Vsn
  /** Of the key that the socket was opened with. */
  readonly principal: Principal
  newPlace(): Place
  /** Where this client stood when it was here before; null for one who was not. */
  stoodAt(owner: string): Promise<Stand['positions'] | null>
  /** What its client holds of who was there when it was in this channel before. */
  heldPresence(topic: string): HeldPresence
  /** A client that comes back may go on from there; null: from nowhere.
   *  @param here where it stands if it does so over this socket: it has got all that was sent before */
  keep(stood: Stood | null, here?: Stand['positions']): void
  /** Its client may come back as `owner`. */
  owns(owner: string, before: string | null): void
  /** It is in the socket's list no more. */
  over(channel: PhoenixChannel): void
}

export class PhoenixChannel implements SessionOwner {
  readonly topic: string
  readonly joinRef: string
  /** Tells whose it is when a client comes back; null before that is known. */
  owner: string | null = null
  readonly #line: ChannelLine
  readonly #voice: Voice
  readonly #config: JoinConfig
  readonly #asksTooMuch: boolean
  #state: 'joining' | 'joined' | 'over' = 'joining'
  #session: ChannelSession | null = null
  #token: string | null
  #isInChannel = false
  #showsPresence = false
  readonly #presence: PresenceTold
  /** What its client told of itself last; another session tells it again. */
  #tracked: ClientFrame | null = null
  readonly #pushes = new Pushes()
  #lastPush = 0
  readonly progress = new Progress()
  /** Where it stands when its session ends: afterwards nobody could tell. */
  #ending: Stand['positions'] | null = null
  /** The join and changes of its token, one after the other. */
  readonly #renewals = new Renewals()
  /** Called when a token that its session checks has been taken, or was not. */
  #onRenewed = nothing

  constructor(line: ChannelLine, topic: string, joinRef: string, payload: Incoming['payload']) {
    this.#line = line
    this.topic = topic
    this.joinRef = joinRef
    this.#voice = new Voice(line, topic, this.name, joinRef)
    this.#asksTooMuch = asksTooMuch(payload as Json)
    this.#config = joinConfigOf(topic, this.#asksTooMuch ? {} : (payload as Json))
    this.#token = this.#config.accessToken
    this.#presence = new PresenceTold(line.vsn, topic, line.heldPresence(topic))
  }

  get name(): string {
    return this.topic.slice(topicPrefix.length)
  }

  /** Answers the join. @param ref of the push */
  join(ref: string | null): void {
    this.#renewals.begin(this.#join(ref))
  }

  async #join(ref: string | null): Promise<void> {
    const { services } = this.#line
    try {
      const { isPrivate } = this.#config
      if (this.name === '') throw new TidegateError('TOPIC_INVALID', 'You must provide a topic name')
      if (this.#asksTooMuch)
        throw new TidegateError('TOO_MANY_SUBSCRIPTIONS', `a join may have ${maxBindings} postgres_changes`)
      if (!isPrivate && services.supabase.isPrivateOnly)
        throw new TidegateError('PRIVATE_ONLY', 'public channels are forbidden here; join a private one')
      const principal = await this.#principal()
      const owner = ownerOf(principal, this.topic, this.#config)
      const stood = await this.#line.stoodAt(owner)
      // Left, joined anew or cut off meanwhile, without having been told anything.
      if (this.isOver) {
        if (stood !== null) this.#line.keep({ owner, positions: stood })
        return
      }
      this.#become(owner)
      this.progress.cameBack(stood)
      if (stood !== null) this.#presence.cameBack()
      const entered = await this.#enter(principal, stood)
      if (this.isOver) {
        entered.session.leave('gone')
        return
      }
      this.#stand(entered)
      this.#answerJoin(ref, entered)
      entered.session.release()
    } catch (error) {
      this.#refuseJoin(ref, refused(services, error))
    }
  }

  #become(owner: string): void {
    this.#line.owns(owner, this.owner)
    this.owner = owner
  }

  /** A push of its client. */
  take({ event, ref, payload }: Incoming): void {
    if (event === 'access_token') {
      this.#renew(payload)
      return
    }
    if (this.#session === null) {
      this.#voice.refuse(ref, 'NOT_JOINED: the join is not answered yet')
      return
    }
    const ids = { id: channelId, ref: this.#lastPush + 1 }
    try {
      if (event !== 'broadcast' && event !== 'presence')
        throw new TidegateError(
          'BAD_FRAME',
          `a channel takes broadcast, presence and access_token, not ${event.slice(0, 100)}`,
        )
      if (!this.#isInChannel) throw new TidegateError('CHANNELS_OFF', 'this service has no channels')
      const isBroadcast = event === 'broadcast'
      const frame = isBroadcast
        ? sendFrameOf(payload, ids, this.#session.keepsHistory)
        : trackFrameOf(payload as never, ids, this.#presenceKey)
      this.#lastPush += 1
      this.#pushes.add(ids.ref, { ref, isAnswered: !isBroadcast || this.#config.ack })
      if (!isBroadcast) this.#tracked = trackedAnew(frame)
      this.#session.connection.take(frame)
    } catch (error) {
      this.#voice.refuse(ref, this.#reasonOf(error))
    }
  }

  /** Its client goes. */
  leave(ref: string | null): void {
    this.#voice.reply(ref, 'ok', '{}')
    this.#close('gone')
    this.#voice.end('phx_close')
  }

  /** Another join of the same topic takes its place. */
  giveWay(): void {
    this.#session?.takeBackChanges()
    this.#line.keep(this.stood, this.progress.after(this.#session?.positions()))
    this.#close('broken')
    this.#voice.end('phx_close')
  }

  /** Its socket has closed. */
  disconnected(how: 'gone' | 'broken'): void {
    this.#line.keep(this.stood)
    this.#close(how)
  }

  /** What its client may come back to; null where there is nothing. */
  get stood(): Stood | null {
    const [owner, positions] = [this.owner, this.progress.known]
    return this.isOver || owner === null || positions === null ? null : { owner, positions }
  }

  /** The node leaves, and the client is told to come back. */
  sendAway(): void {
    this.#voice.goAway()
  }

  get isOver(): boolean {
    return this.#state === 'over'
  }

  tick(now: number): void {
    this.#session?.connection.tick(now)
  }

  /** An operator ends what its socket's key may do. */
  cutOff(error: TidegateError): void {
    this.#session?.connection.cutOff(error)
  }

  drained(): void {
    this.#session?.drained()
  }

  /** A ping goes behind everything that it was sent. */
  pinged(): void {
    this.progress.pinged(this.#session?.positions() ?? {})
  }

  /** It was answered. */
  ponged(): void {
    this.progress.ponged()
  }

  eventFrame(session: ChannelSession, outgoing: Outgoing, id: number): Buffer {
    const { vsn } = this.#line
    if (id !== channelId) {
      const target = session.targetOf(id, { vsn, topic: this.topic, isLegacy: this.#config.isLegacy })
      return this.#orReread(target === null ? silence : changeFrameOf(outgoing, target), id)
    }
    switch (outgoing.event) {
      case 'message': {
        const kind = session.replay?.judge(outgoing) ?? 'live'
        return kind === 'passed over' ? silence : broadcastFrameOf(outgoing, vsn, this.topic, kind === 'replayed')
      }
      case 'presence':
        return this.#presence.framesOf(outgoing)
      case 'gap':
        return this.#voice.missed('broadcast', JSON.parse(outgoing.json))
      default:
        return silence
    }
  }

  missed(frame: Extract<ServerFrame, { type: 'resync' }>): Buffer {
    return this.#voice.missed(frame.id === channelId ? 'broadcast' : 'postgres_changes', frame)
  }

  said(session: ChannelSession, frame: ServerFrame): void {
    if (session !== this.#session) return
    switch (frame.type) {
      case 'sent':
      case 'tracked': {
        const push = this.#pushes.take(frame.ref)
        if (push?.isAnswered) this.#voice.reply(push.ref, 'ok', '{}')
        break
      }
      case 'authenticated':
        this.#onRenewed()
        break
      case 'resync':
        this.#comeBack(`${frame.code}: ${frame.reason}`, 'postgres_changes', this.#namesOf(frame.id))
        break
      case 'error':
        this.#failed(frame)
    }
  }

  ended(session: ChannelSession, refusal: Refusal): void {
    if (session === this.#session) this.#comeBack(endingOf(refusal, this.name), 'system')
  }

  #failed(frame: Extract<ServerFrame, { type: 'error' }>): void {
    const reason = this.#reasonFor(frame)
    if (frame.ref === null) this.#voice.system('error', 'presence', reason)
    else if (frame.ref !== undefined) {
      const push = this.#pushes.take(frame.ref)
      if (push !== undefined) this.#voice.refuse(push.ref, reason)
    } else if (frame.id === channelId) this.#comeBack(endingOf(frame as Refusal, this.name), 'system')
    else if (frame.id !== undefined) {
      if (canComeLater(frame.code as Refusal['code'])) this.#comeBack(reason, 'postgres_changes')
      else this.#lost(frame.id, reason)
    } else this.#noteEnding()
  }

  /** Its session ends within this turn, or tells of something else. */
  #noteEnding(): void {
    this.#onRenewed()
    this.#session?.takeBackChanges()
    this.#ending = this.#session?.positions() ?? {}
    queueMicrotask(() => {
      this.#ending = null
    })
  }

  /** A binding stands no more, and will not again. */
  #lost(id: number, reason: string): void {
    // Of a wildcard, one table that is gone is nothing that its client asked for.
    if (this.#session?.lose(id) === 'one') this.#voice.system('error', 'postgres_changes', reason)
  }

  async #principal(): Promise<Principal> {
    const { services, principal } = this.#line
    if (this.#token !== null) return principalOfToken(services, this.#token)
    await admitPrincipal(services, principal)
    return principal
  }

  #enter(principal: Principal, stood: Stand['positions'] | null): Promise<Entered> {
    const place = this.#line.newPlace()
    return enter({ line: this.#line, owner: this, place, principal, name: this.name, config: this.#config, stood })
  }

  #stand({ session, isInChannel, showsPresence }: Entered): void {
    this.#session = session
    this.#isInChannel = isInChannel
    this.#showsPresence = showsPresence
    this.#state = 'joined'
    const begun = session.begun === null ? {} : { [channelEntry]: session.begun }
    this.progress.joined({ ...begun, ...(this.#session?.positions() ?? {}) })
  }

  #answerJoin(ref: string | null, { session, refused }: Entered): void {
    const { bindings, replicationReady } = this.#config
    const response = `{"postgres_changes":[${bindings.map(({ echo }) => echo).join(',')}]}`
    this.#voice.reply(ref, 'ok', response)
    // Clients take no presence before a state; with presence, the channel's own follows.
    if (!this.#showsPresence) this.#voice.nobodyHere()
    for (const { id, error } of refused) this.#lost(id, this.#reasonFor(error))
    if (bindings.length > 0 && (session.entries.size > 0 || refused.length === 0))
      this.#voice.system('ok', 'postgres_changes', 'Subscribed to PostgreSQL')
    if (replicationReady) this.#voice.system('ok', 'system', 'Replication connection established')
  }

  #refuseJoin(ref: string | null, refusal: Refusal): void {
    if (this.isOver) return
    this.#line.keep(this.stood)
    this.#close('gone')
    this.#voice.refuse(ref, this.#reasonFor(refusal))
  }

  /** It ends, and its client joins again: where it stands now, but in what is to begin anew. */
  #comeBack(reason: string, extension: string, lost: readonly string[] = []): void {
    if (this.#state !== 'joined') return
    this.#session?.takeBackChanges()
    this.progress.lose(lost)
    this.#line.keep(this.stood, this.progress.after(this.#ending ?? this.#session?.positions(), lost))
    this.#voice.system('error', extension, reason)
    this.#close('broken')
    this.#voice.end('phx_error')
  }

  #close(how: 'gone' | 'broken'): void {
    if (this.isOver) return
    this.#state = 'over'
    this.#onRenewed()
    const session = this.#session
    this.#session = null
    session?.leave(how)
    this.#line.over(this)
  }

  /** What a stand calls it. */
  #namesOf(...ids: number[]): string[] {
    return ids.flatMap(id => this.#session?.entries.nameOf(id) ?? [])
  }

  #orReread(frames: Buffer | null, id: number): Buffer {
    if (frames !== null) return frames
    const reason = 'TRUNCATED: a table was truncated: read it anew'
    queueMicrotask(() => this.#comeBack(reason, 'postgres_changes', this.#namesOf(id)))
    return silence
  }

  /** Another token: of the same subject it renews the session; of another, a session of theirs takes its place, without a gap. */
  #renew(payload: Incoming['payload']): void {
    const token = tokenIn(payload)
    if (token === null || token === this.#token || token.startsWith('sb_')) return
    this.#token = token
    this.#renewals.ask(() => this.#takeToken())
  }

  async #takeToken(): Promise<void> {
    const session = this.#session
    const token = this.#token
    if (session === null || token === null) return
    try {
      const principal = await principalOfToken(this.#line.services, token)
      const { connection } = session
      if (this.#session !== session) return
      if (connection.principal === null || !canRenew(connection.principal, principal)) await this.#replace(principal)
      else {
        const { promise, resolve } = Promise.withResolvers<void>()
        this.#onRenewed = resolve
        connection.take({ type: 'auth', token })
        await promise
      }
    } catch (error) {
      this.#comeBack(this.#reasonOf(error), 'system')
    }
  }

  async #replace(principal: Principal): Promise<void> {
    const before = this.#session!
    before.noteMessages()
    const entered = await this.#enter(principal, null)
    const { session, refused } = entered
    if (this.#session !== before) {
      session.leave('gone')
      return
    }
    before.takeBackChanges()
    const isWhole = session.follow(before)
    this.#session = null
    before.leave('gone')
    this.#become(ownerOf(principal, this.topic, this.#config))
    this.progress.cameBack(null)
    this.#stand(entered)
    session.release()
    if (this.#tracked !== null) session.connection.take(this.#tracked)
    for (const { id, error } of refused) this.#lost(id, this.#reasonFor(error))
    if (!isWhole)
      this.#comeBack(
        'RESYNC: the stream has begun anew',
        'postgres_changes',
        this.#namesOf(...Array.from(session.entries, ({ id }) => id)),
      )
  }

  get #presenceKey(): string | null {
    const { presenceKey } = this.#config
    return presenceKey === '' ? (this.#session?.connection.name ?? null) : presenceKey
  }

  #reasonFor(error: ErrorEvent): string {
    return reasonOf(error as Refusal, this.name)
  }

  #reasonOf(error: unknown): string {
    return this.#reasonFor(refused(this.#line.services, error))
  }
}

const nothing = (): void => {}

export const topicPrefix = 'realtime:'
