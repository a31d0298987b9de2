// The channels of this node: who enters, what is published, and what the stream says for them.
import type { Position } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Commit } from '../decode/change.ts'
import type { Log } from '../log.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Outlet } from '../subscribe/subscription.ts'
import { Channel, type ChannelSurroundings } from './channel.ts'
import { type Beginning, ChannelMember, type MemberOwner } from './channel-member.ts'
import type { ChannelRelay, HistoryRange } from './channel-relay.ts'
import type {
  Caller,
  ChannelDoor,
  ChannelRequest,
  ChannelSubscription,
  HistoryPart,
  SendRequest,
  TrackRequest,
} from './door.ts'
import { type ChannelName, channelKey, type Draft, goesOn, type Published, type Stamp } from './message.ts'
import { alwaysAllowed, type ChannelGuards, type ChannelPermission, type PermissionWatcher } from './permission.ts'
import type { PresenceList, PresenceStore } from './presence.ts'
import { Publisher, refused, subjectOf, TooFast } from './publisher.ts'
import type { ChannelRules } from './rules.ts'
import { ToldByStream } from './told-by-stream.ts'
import { WalAppender } from './wal-appender.ts'
import { WalMessages } from './wal-messages.ts'

export interface ChannelsOptions {
  readonly relay: ChannelRelay
  readonly presence: PresenceStore
  readonly guards: ChannelGuards
  readonly rules: ChannelRules
  /** The stream of row changes, as this node has it. */
  readonly window: Pick<MemoryRelay, 'epoch' | 'floorLsn' | 'between' | 'life'>
  readonly head: Head
  /** Resolves when the stream has come to where the database was when this was called. */
  readonly caughtUp: () => Promise<void>
  /** Makes the stream move, if it can: writes a message of ours into the WAL. */
  readonly nudge: () => Promise<unknown>
  readonly isLeading: () => boolean
  readonly waitForTransaction: (xid64: bigint) => Promise<Position>
  readonly log: Log
  readonly now: () => number
  readonly wallNow: () => number
}

/** Whom an order concerns; what is null, is any. */
export interface Whom {
  readonly sub: string | null
  readonly topic: string | null
  readonly connection: string | null
}

const lookAgainMs = 100
/** So long without anything from the stream, and it is not taken for the truth any more. */
const stillMs = 5000
const nudgeMs = 500
const patienceMs = 2000
const maxTopicLength = 255

export class Channels implements ChannelDoor, MemberOwner {
  readonly #options: ChannelsOptions
  readonly #publisher: Publisher
  /** Those with members, or being entered. */
  readonly #channels = new Map<string, { readonly channel: Channel; users: number }>()
  /** Messages wait there for the stream. */
  readonly #waiting = new Set<Channel>()
  #isFollowing = false
  #lastNumber = 0
  readonly #surroundings: ChannelSurroundings
  readonly #walMessages = new WalMessages()
  readonly #appender: WalAppender
  readonly #toldByStream = new ToldByStream()
  /** Epochs that are over, by which stamps of them are known to be passed. The newest few. */
  readonly #epochs: string[] = []
  /** Of the window's life in which the stream had caught up. */
  #caughtUp: { readonly life: number; readonly done: Promise<void> } | null = null
  #nudgedAtMs = Number.NEGATIVE_INFINITY
  #isClosed = false

  constructor(options: ChannelsOptions) {
    this.#options = options
    const { relay, presence, log, now, rules } = options
    this.#publisher = new Publisher({
      ...options,
      where: () => this.#where(),
      untilMoving: () => this.#untilMoving(),
    })
    this.#appender = new WalAppender({ relay, rules, log })
    this.#surroundings = {
      relay,
      presence,
      log,
      now,
      where: () => this.#where(),
      hasPassed: (stamp, isPrivate) => this.#hasPassed(stamp) && !(isPrivate && this.#standsStill()),
    }
  }

  async join(caller: Caller, request: ChannelRequest, outlet: Outlet): Promise<ChannelSubscription> {
    const { channel: name } = request
    assertTopic(name)
    const rule = this.#options.rules.of(name.topic)
    if (request.last !== null && rule.history === null) throw historyOff(name)
    if ((request.presence || request.track !== null) && rule.presence === null) throw presenceOff(name)
    await this.#untilCaughtUp()
    const watcher = new Watcher()
    const [permission, channel] = await this.#enter(caller, name, watcher)
    let isTaken = false
    try {
      const { beginning } = await this.#beginningOf(channel, request)
      // Looked at after all waiting: what was revoked meanwhile counts.
      if (watcher.error !== null) throw watcher.error
      assertReceives(permission, name, request.presence)
      const options = { channel, caller, request, outlet, owner: this, beginning, isExact: permission.isExact }
      const member = new ChannelMember(options)
      member.admit(permission)
      watcher.member = member
      isTaken = true
      setImmediate(() => this.#start(member))
      return member
    } finally {
      if (!isTaken) {
        permission.release()
        this.#leave(channel)
      }
    }
  }

  async publish(caller: Caller, channel: ChannelName, request: SendRequest): Promise<Published> {
    assertTopic(channel)
    const permission = await this.#permissionOf(caller, channel, new Watcher())
    try {
      return await this.#publisher.publish(caller, channel, permission, request, null)
    } finally {
      permission.release()
    }
  }

  async history(caller: Caller, channel: ChannelName, range: HistoryRange): Promise<HistoryPart> {
    assertTopic(channel)
    if (this.#options.rules.of(channel.topic).history === null) throw historyOff(channel)
    return this.#asReceiver(caller, channel, 'broadcast', async () => {
      const page = await this.#options.relay.read(channelKey(channel), range)
      const messages = page.messages.filter(message => isToOrFrom(message, caller))
      const [first, last] = [page.messages[0], page.messages.at(-1)]
      const looked = first === undefined || last === undefined ? null : { first: first.seq, last: last.seq }
      return { ...page, messages, looked }
    })
  }

  present(
    caller: Caller,
    channel: ChannelName,
    page: { readonly after: string | null; readonly limit: number },
  ): Promise<PresenceList> {
    assertTopic(channel)
    if (this.#options.rules.of(channel.topic).presence === null) return Promise.reject(presenceOff(channel))
    return this.#asReceiver(caller, channel, 'presence', () => this.#options.presence.list(channelKey(channel), page))
  }

  async send(member: ChannelMember, request: SendRequest): Promise<Published> {
    const { caller, channel, permission } = member
    if (member.isClosed || permission === null) throw refused(channel.name)
    member.rate ??= this.#publisher.rateOf(channel.name)
    try {
      return await this.#publisher.publish(caller, channel.name, permission, request, member.rate)
    } catch (error) {
      if (error instanceof TooFast) member.fail(error)
      throw error
    }
  }

  async track(member: ChannelMember, { meta, key }: TrackRequest): Promise<void> {
    const { channel, caller, permission } = member
    const rule = channel.rule.presence
    if (rule === null) throw presenceOff(channel.name)
    if (Buffer.byteLength(meta) > rule.maxMetaBytes)
      throw new TidegateError(
        'PAYLOAD_TOO_LARGE',
        `meta is larger than the ${rule.maxMetaBytes} bytes that the rule allows`,
      )
    if (member.isClosed || !permission?.may('send', 'presence')) throw refused(channel.name)
    const user = subjectOf(caller)
    const own = user ?? caller.connection!
    if (key !== null && key !== own && rule.boundToSubject)
      throw new TidegateError(
        'SEND_REFUSED',
        "the channel's rule lists each member by its token's subject; leave key out",
      )
    member.isTracked = true
    const draft = { key: key ?? own, user, connection: caller.connection!, meta }
    await this.#options.presence.track(channel.key, draft, rule)
  }

  async untrack(member: ChannelMember, how: 'gone' | 'broken'): Promise<void> {
    if (!member.isTracked) return
    member.isTracked = false
    await this.#options.presence.untrack(member.channel.key, member.caller.connection!, how)
  }

  left(member: ChannelMember, how: 'gone' | 'broken'): void {
    const { channel } = member
    this.untrack(member, how).catch(error => this.#options.log.debug({ err: error }, 'a leave is told later'))
    this.#leave(channel)
  }

  /** Ends the places that an order concerns. */
  kick({ sub, topic, connection }: Whom, error: TidegateError): void {
    for (const { channel } of [...this.#channels.values()]) {
      if (topic !== null && channel.name.topic !== topic) continue
      for (const member of [...channel.members]) {
        if (!(member instanceof ChannelMember)) continue
        if (sub !== null && subjectOf(member.caller) !== sub) continue
        if (connection !== null && member.caller.connection !== connection) continue
        member.fail(error)
      }
    }
  }

  /** Whether a commit has messages for channels. */
  concerns(commit: Commit): boolean {
    return this.#walMessages.concerns(commit)
  }

  /** Gives what a commit says in channels, in order with its rows: they have been told. Yields now and then. */
  *serve(commit: Commit): Generator<void, void> {
    const { rules, isLeading } = this.#options
    let count = 0
    for (const draft of this.#saidBy(commit)) {
      if (rules.of(draft.channel.topic).history === null) this.#tell(draft)
      else if (isLeading()) this.#appender.append(draft)
      count += 1
      if (count % tellAtOnce === 0) yield
    }
  }

  /** Those that anybody can hear. What cannot be read harms nobody else. */
  *#saidBy(commit: Commit): Generator<Draft, void> {
    const { rules, window, log } = this.#options
    try {
      for (const draft of this.#walMessages.of(commit, window.epoch))
        if (draft.channel.isPrivate || rules.of(draft.channel.topic).isPublic) yield draft
    } catch (error) {
      log.error({ err: error }, 'messages of a commit cannot be read: nobody gets them')
    }
  }

  /** Resolves when messages that commits brought may be more; null when they may at once. */
  room(): Promise<void> | null {
    return this.#appender.room()
  }

  /** This node holds the slot now: what the one before may not have appended is appended, once. */
  lead(): void {
    const { window, head, rules } = this.#options
    for (const commit of window.between(window.floorLsn, head.lsn)) {
      if (!this.#walMessages.concerns(commit)) continue
      for (const draft of this.#saidBy(commit))
        if (rules.of(draft.channel.topic).history !== null) this.#appender.append(draft)
    }
  }

  async close(): Promise<void> {
    this.#isClosed = true
    this.#appender.close()
    for (const { channel } of this.#channels.values()) channel.close()
    await this.#options.presence.close()
    await this.#options.relay.close()
  }

  async #start(member: ChannelMember): Promise<void> {
    member.start()
    const { track } = member.request
    if (track === null || member.isClosed) return
    try {
      await member.track(track)
    } catch (error) {
      member.fail(error)
    }
  }

  #tell(draft: Draft): void {
    const key = channelKey(draft.channel)
    this.#toldByStream.told(key, draft.stamp.lsn)
    this.#channels.get(key)?.channel.tell(draft)
  }

  async #enter(caller: Caller, name: ChannelName, watcher: PermissionWatcher): Promise<[ChannelPermission, Channel]> {
    const permission = await this.#permissionOf(caller, name, watcher)
    try {
      assertReceives(permission, name, false)
      const channel = this.#open(name)
      try {
        await channel.ready
        return [permission, channel]
      } catch (error) {
        this.#leave(channel)
        throw error
      }
    } catch (error) {
      permission.release()
      throw error
    }
  }

  #open(name: ChannelName): Channel {
    const key = channelKey(name)
    let held = this.#channels.get(key)
    if (held === undefined) {
      this.#lastNumber += 1
      const channel = new Channel(name, {
        key,
        rule: this.#options.rules.of(name.topic),
        number: this.#lastNumber,
        surroundings: this.#surroundings,
        onWaiting: waiting => this.#wait(waiting),
      })
      held = { channel, users: 0 }
      this.#channels.set(key, held)
    }
    held.users += 1
    return held.channel
  }

  #leave(channel: Channel): void {
    const held = this.#channels.get(channel.key)
    if (held?.channel !== channel) return
    held.users -= 1
    if (held.users > 0) return
    this.#channels.delete(channel.key)
    this.#waiting.delete(channel)
    channel.close()
  }

  async #permissionOf(caller: Caller, name: ChannelName, watcher: PermissionWatcher): Promise<ChannelPermission> {
    if (name.isPrivate) return this.#options.guards.acquire(caller.principal, name, watcher)
    if (this.#options.rules.of(name.topic).isPublic) return alwaysAllowed
    throw new TidegateError('CHANNEL_REFUSED', `no rule makes the topic ${JSON.stringify(name.topic)} public`)
  }

  async #asReceiver<T>(
    caller: Caller,
    name: ChannelName,
    extension: 'broadcast' | 'presence',
    read: () => Promise<T>,
  ): Promise<T> {
    const permission = await this.#permissionOf(caller, name, new Watcher())
    try {
      if (!permission.may('receive', extension)) throw channelRefused(name)
      const result = await read()
      if (!permission.may('receive', extension)) throw channelRefused(name)
      return result
    } finally {
      permission.release()
    }
  }

  /** Where the request wants to begin, as far as that can be had. */
  async #beginningOf(channel: Channel, request: ChannelRequest): Promise<{ beginning: Beginning }> {
    const { since, last } = request
    if (since === null || since.lsn === 0n) {
      if (last === null || last === 0 || channel.told.seq === 0n) return { beginning: { kind: 'now' } }
      const after = channel.told.seq - BigInt(last)
      const { first } = await this.#options.relay.read(channel.key, { after: channel.told.seq, limit: 1 })
      return { beginning: { kind: 'after', seq: after < first - 1n ? first - 1n : after, resumed: false } }
    }
    if (since.tag !== channel.tag) return { beginning: this.#void(channel, 'QUERY_CHANGED') }
    if (!channel.hasHistory) return { beginning: this.#sinceInStream(channel, since) }
    if (!goesOn({ epoch: since.epoch, seq: since.lsn }, channel.told))
      return { beginning: this.#void(channel, 'HISTORY_LOST') }
    if (since.lsn >= channel.told.seq) return { beginning: { kind: 'after', seq: since.lsn, resumed: true } }
    const { page } = await channel.readAfter(since.lsn)
    if (page.first > since.lsn + 1n) return { beginning: { kind: 'resync', code: 'HISTORY_PASSED' } }
    return { beginning: { kind: 'after', seq: since.lsn, resumed: true } }
  }

  #void(channel: Channel, code: 'QUERY_CHANGED' | 'HISTORY_LOST'): Beginning {
    return channel.hasHistory ? { kind: 'resync', code } : { kind: 'gap', missed: null }
  }

  /** Of a channel without history: whether anything was said in it since. */
  #sinceInStream(channel: Channel, since: Position): Beginning {
    const { window } = this.#options
    const behind = Number(BigInt.asUintN(32, channel.told.seq - BigInt(since.index)))
    if (since.epoch !== window.epoch || since.lsn < window.floorLsn) return { kind: 'gap', missed: null }
    if (this.#toldByStream.mayHaveSince(channel.key, since.lsn)) return { kind: 'gap', missed: null }
    if (behind === 0) return { kind: 'now' }
    // More than half of all numbers behind is ahead: its client was at a node that had heard more.
    if (behind >= 2 ** 31) return { kind: 'now' }
    return { kind: 'gap', missed: behind > maxCredible ? null : behind }
  }

  #wait(channel: Channel): void {
    this.#waiting.add(channel)
    if (!this.#isFollowing) void this.#follow()
  }

  /** While messages wait for the stream. */
  async #follow(): Promise<void> {
    this.#isFollowing = true
    while (this.#waiting.size > 0 && !this.#isClosed) {
      await Promise.race([this.#options.head.change(), sleep(lookAgainMs)])
      for (const channel of [...this.#waiting]) {
        channel.drain()
        if (!channel.isWaiting) this.#waiting.delete(channel)
      }
    }
    this.#isFollowing = false
  }

  /** What was revoked may not be known here: nothing private is sent or given meanwhile. */
  #standsStill(): boolean {
    const { head, now, nudge } = this.#options
    if (now() - head.movedAtMs <= stillMs) return false
    // It may only be that nothing was written.
    if (now() - this.#nudgedAtMs > nudgeMs) {
      this.#nudgedAtMs = now()
      nudge().catch(() => {})
    }
    return true
  }

  async #untilMoving(): Promise<void> {
    const { head, now } = this.#options
    const until = now() + patienceMs
    while (this.#standsStill()) {
      if (now() >= until)
        throw new TidegateError('UNAVAILABLE', 'the stream of the database stands still: who may send is not known', {
          retryAfterMs: 1000,
        })
      await Promise.race([head.change(), sleep(lookAgainMs)])
    }
  }

  #where(): Stamp {
    const { window, head } = this.#options
    return { epoch: window.epoch, lsn: head.lsn }
  }

  #hasPassed({ epoch, lsn }: Stamp): boolean {
    const { window, head } = this.#options
    if (this.#epochs.at(-1) !== window.epoch) {
      this.#epochs.push(window.epoch)
      if (this.#epochs.length > maxEpochs) this.#epochs.shift()
    }
    if (epoch === window.epoch) return head.lsn >= lsn
    return this.#epochs.includes(epoch)
  }

  /** A node that starts reads again what was told before: nobody enters before it has come to now. */
  #untilCaughtUp(): Promise<void> {
    const { window, caughtUp } = this.#options
    if (window.epoch === '')
      return Promise.reject(new TidegateError('UNAVAILABLE', 'the server is starting', { retryAfterMs: 500 }))
    if (this.#caughtUp?.life !== window.life) {
      const attempt = { life: window.life, done: caughtUp() }
      this.#caughtUp = attempt
      attempt.done.catch(() => {
        if (this.#caughtUp === attempt) this.#caughtUp = null
      })
    }
    return this.#caughtUp!.done
  }
}

const tellAtOnce = 200
const maxEpochs = 16
/** A difference of numbers beyond it comes from a counter that began anew. */
const maxCredible = 1_000_000

/** Told of changes while its member does not stand yet. */
class Watcher implements PermissionWatcher {
  member: ChannelMember | null = null
  error: unknown = null

  changed(): void {
    this.member?.changed()
  }

  ended(error: unknown): void {
    this.error = error
    this.member?.ended(error)
  }
}

/** @throws TOPIC_INVALID */
function assertTopic({ topic }: ChannelName): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is refused
  if (topic !== '' && topic.length <= maxTopicLength && !/[\u0000-\u001f\u007f]/.test(topic) && topic.isWellFormed())
    return
  throw new TidegateError(
    'TOPIC_INVALID',
    `${JSON.stringify(topic.slice(0, 80))} is no topic: 1 to ${maxTopicLength} characters, none of them a control character`,
  )
}

/** @throws CHANNEL_REFUSED */
function assertReceives(permission: ChannelPermission, name: ChannelName, needsPresence: boolean): void {
  const mayPresence = permission.may('receive', 'presence')
  if (needsPresence ? mayPresence : mayPresence || permission.may('receive', 'broadcast')) return
  throw channelRefused(name)
}

const channelRefused = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('CHANNEL_REFUSED', `no policy lets this reader SELECT from the topic ${JSON.stringify(topic)}`)

const historyOff = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('HISTORY_OFF', `the rule of the topic ${JSON.stringify(topic)} keeps no history`)

const presenceOff = ({ topic }: ChannelName): TidegateError =>
  new TidegateError('PRESENCE_OFF', `the rule of the topic ${JSON.stringify(topic)} allows no presence`)

/** What was for one alone is shown to that one, and to whoever sent it. */
function isToOrFrom({ to, sender }: Draft, { principal, connection }: Caller): boolean {
  if (to === null) return true
  const { sub } = principal.claims
  if ('user' in to ? to.user === sub : to.connection === connection) return true
  return sender.user !== null && sender.user === sub
}

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
