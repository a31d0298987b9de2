// The channels of this node: who enters, what is published, and what the stream says for them.
import type { Position } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Commit } from '../decode/change.ts'
import type { Log } from '../log/log.ts'
import { repeated } from '../log/log-repeated.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Outlet } from '../subscribe/subscription.ts'
import { isToOrFrom } from './addressee.ts'
import { beginningOf } from './beginning.ts'
import { Channel, type ChannelSurroundings } from './channel.ts'
import { ChannelMember, type MemberOwner } from './channel-member.ts'
import type {
  Caller,
  ChannelDoor,
  ChannelRequest,
  ChannelSubscription,
  HistoryPart,
  SendRequest,
  TrackRequest,
  Whom,
} from './door.ts'
import {
  alwaysAllowed,
  type ChannelGuards,
  type ChannelPermission,
  type PermissionWatcher,
} from './guards/permission.ts'
import { type ChannelHoldings, holdingsOf } from './holdings.ts'
import { type ChannelName, channelKey, type Draft, type Published } from './message.ts'
import type { PresenceList, PresenceStore } from './presence/presence.ts'
import { Publisher, subjectOf, TooFast } from './publisher.ts'
import {
  assertReceives,
  assertTopic,
  channelRefused,
  historyOff,
  notPublic,
  presenceOff,
  privateOnly,
  sendRefused,
} from './refusals.ts'
import type { ChannelRelay, HistoryRange } from './relay/channel-relay.ts'
import type { ChannelRules } from './rules.ts'
import { ToldByStream } from './sql/told-by-stream.ts'
import { WalAppender } from './sql/wal-appender.ts'
import { WalMessages } from './sql/wal-messages.ts'
import { StreamStand, type StreamStandOptions } from './stream-stand.ts'
import { Watcher } from './watcher.ts'

export interface ChannelsOptions extends StreamStandOptions {
  readonly relay: ChannelRelay
  readonly presence: PresenceStore
  readonly guards: ChannelGuards
  readonly rules: ChannelRules
  /** The stream of row changes, as this node has it. */
  readonly window: Pick<MemoryRelay, 'epoch' | 'floorLsn' | 'between' | 'life'>
  readonly head: Head
  readonly isLeading: () => boolean
  /** Whether some may be in public channels that no rule opens: see `Caller`. */
  readonly isPublicOpen: boolean
  readonly waitForTransaction: (xid64: bigint) => Promise<Position>
  readonly log: Log
  readonly wallNow: () => number
}

const lookAgainMs = 100

export class Channels implements ChannelDoor, MemberOwner {
  readonly #options: ChannelsOptions
  readonly #stand: StreamStand
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
  /** Topics that the log was told of. */
  readonly #warned = new Set<string>()
  #isClosed = false

  constructor(options: ChannelsOptions) {
    this.#options = options
    this.#stand = new StreamStand(options)
    const { relay, presence, log, now, rules } = options
    this.#publisher = new Publisher({
      ...options,
      where: () => this.#stand.where(),
      untilMoving: () => this.#stand.untilMoving(),
    })
    this.#appender = new WalAppender({ relay, rules, log })
    this.#surroundings = {
      relay,
      presence,
      log,
      now,
      where: () => this.#stand.where(),
      mayTell: (stamp, isPrivate) => this.#stand.mayTell(stamp, isPrivate),
      untilMayTell: (stamp, isPrivate) => this.#stand.untilMayTell(stamp, isPrivate),
      standsStill: () => this.#stand.standsStill(),
    }
  }

  get holdings(): ChannelHoldings {
    return holdingsOf(
      Array.from(this.#channels.values(), ({ channel }) => channel),
      this.#options,
    )
  }

  /** For whoever looks on: some that come or go meanwhile are in it or not. */
  *listing(): Generator<Channel, void> {
    for (const { channel } of this.#channels.values()) if (channel.members.size > 0) yield channel
  }

  async join(caller: Caller, request: ChannelRequest, outlet: Outlet): Promise<ChannelSubscription> {
    const { channel: name } = request
    assertTopic(name)
    const rule = this.#options.rules.of(name)
    if (request.last !== null && rule.history === null) throw historyOff(name)
    if ((request.presence || request.track !== null) && rule.presence === null) throw presenceOff(name)
    await this.#stand.untilCaughtUp()
    const watcher = new Watcher()
    const [permission, channel] = await this.#enter(caller, name, watcher)
    let isTaken = false
    try {
      const { relay, window } = this.#options
      const sources = { relay, window, stand: this.#stand, toldByStream: this.#toldByStream }
      const beginning = await beginningOf(channel, request, sources)
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
      return await this.#publisher.publish(caller, channel, permission, request, null, null)
    } finally {
      permission.release()
    }
  }

  async history(caller: Caller, channel: ChannelName, range: HistoryRange): Promise<HistoryPart> {
    assertTopic(channel)
    if (this.#options.rules.of(channel).history === null) throw historyOff(channel)
    return this.#asReceiver(caller, channel, 'broadcast', async () => {
      const page = await this.#options.relay.read(channelKey(channel), range)
      for (const { stamp } of page.messages) await this.#stand.untilMayTell(stamp, channel.isPrivate)
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
    if (this.#options.rules.of(channel).presence === null) return Promise.reject(presenceOff(channel))
    return this.#asReceiver(caller, channel, 'presence', async () => {
      const list = await this.#options.presence.list(channelKey(channel), page)
      if (channel.isPrivate) await this.#stand.untilMoving()
      return list
    })
  }

  async send(member: ChannelMember, request: SendRequest): Promise<Published> {
    const { caller, channel, permission } = member
    if (member.isClosed || permission === null) throw sendRefused(channel.name)
    member.rate ??= this.#publisher.rateOf(channel.name)
    const { promise, resolve: next } = Promise.withResolvers<void>()
    const turn = { before: member.sendBefore, next }
    member.sendBefore = promise
    try {
      return await this.#publisher.publish(caller, channel.name, permission, request, member.rate, turn)
    } catch (error) {
      if (error instanceof TooFast) member.fail(error)
      throw error
    } finally {
      next()
    }
  }

  async track(member: ChannelMember, request: TrackRequest): Promise<void> {
    const { channel, caller, permission } = member
    const { meta, key } = request
    const rule = channel.rule.presence
    if (rule === null) throw presenceOff(channel.name)
    if (Buffer.byteLength(meta) > rule.maxMetaBytes)
      throw new TidegateError(
        'PAYLOAD_TOO_LARGE',
        `meta is larger than the ${rule.maxMetaBytes} bytes that the rule allows`,
      )
    if (member.isClosed || permission === null) throw sendRefused(channel.name)
    const user = subjectOf(caller)
    const own = user ?? caller.connection!
    const isFree = !rule.boundToSubject || (caller.isPublicOpen === true && !channel.name.isPrivate)
    if (key !== null && key !== own && key !== caller.connection && !isFree)
      throw new TidegateError(
        'SEND_REFUSED',
        "the channel's rule lists each member by its token's subject or its connection's name; leave key out",
      )
    const { tracked: before } = member
    member.tracked = request
    if (channel.name.isPrivate) await this.#stand.untilMoving()
    // It asked for something else since, or has left.
    if (member.tracked !== request) return
    if (!permission.may('send', 'presence')) {
      member.tracked = before
      throw sendRefused(channel.name)
    }
    const draft = { key: key ?? own, user, connection: caller.connection!, meta }
    await this.#options.presence.track(channel.key, draft, rule)
  }

  async untrack(member: ChannelMember, how: 'gone' | 'broken'): Promise<void> {
    if (member.tracked === null) return
    member.tracked = null
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
      if (rules.of(draft.channel).history === null) this.#tell(draft)
      else if (isLeading()) this.#appender.append(draft)
      count += 1
      if (count % tellAtOnce === 0) yield
    }
  }

  /** Those that anybody can hear. What cannot be read harms nobody else. */
  *#saidBy(commit: Commit): Generator<Draft, void> {
    const { rules, window, isPublicOpen, log } = this.#options
    try {
      for (const draft of this.#walMessages.of(commit, window.epoch)) {
        const { topic, isPrivate } = draft.channel
        if (isPrivate || isPublicOpen || rules.of(draft.channel).isPublic) yield draft
        else this.#warnOf(topic)
      }
    } catch (error) {
      repeated(log).error({ err: error }, 'messages of a commit cannot be read: nobody gets them')
    }
  }

  /** Nobody can hear what was sent there: said once for a topic. */
  #warnOf(topic: string): void {
    if (this.#warned.has(topic) || this.#warned.size >= maxWarned) return
    this.#warned.add(topic)
    this.#options.log.warn(
      { topic },
      'SQL sends to the public channel of a topic that no rule makes public: nobody gets it',
    )
  }

  /** Resolves when messages that commits brought may be more; null when they may at once. */
  room(): Promise<void> | null {
    return this.#appender.room()
  }

  /** This node holds the slot now: what the one before may not have appended is appended, once. Also what is not served here yet: of
   *  a commit that is just being served, some was passed by when another node held it. */
  lead(): void {
    const { window, rules } = this.#options
    for (const commit of window.between(window.floorLsn, maxLsn)) {
      if (!this.#walMessages.concerns(commit)) continue
      for (const draft of this.#saidBy(commit))
        if (rules.of(draft.channel).history !== null) this.#appender.append(draft)
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
    member.tracked = track
    // Redis may be away: it is here all the same, and is told to be as soon as that can be, unless it asks for something else.
    for (let wait = lookAgainMs; member.tracked === track; wait = Math.min(2 * wait, 5000)) {
      try {
        await member.track(track)
        return
      } catch (error) {
        if (!(error instanceof TidegateError && error.code === 'UNAVAILABLE')) {
          member.fail(error)
          return
        }
        await sleep(wait)
      }
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
        rule: this.#options.rules.of(name),
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
    if (caller.isPublicOpen === false) throw privateOnly(name)
    if (caller.isPublicOpen || this.#options.rules.of(name).isPublic) return alwaysAllowed
    throw notPublic(name)
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
}

const tellAtOnce = 200
const maxLsn = 2n ** 64n - 1n
const maxWarned = 100

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
