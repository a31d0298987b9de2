// One channel on this node: hears what is published, puts it in order, and gives it to those who are in it, once this node's stream
// has passed what the publisher's had: so that a revocation before a message holds for it.
import { createHash } from 'node:crypto'
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import type { Log } from '../log/log.ts'
import { Batch, type Receivers } from '../route/batch.ts'
import { Outgoing } from '../route/outgoing.ts'
import { gapJson, messageJson } from './event-json.ts'
import { type ChannelMessage, type ChannelName, type Draft, goesOn, type Stamp } from './message.ts'
import { ChannelPresence } from './presence/channel-presence.ts'
import type { PresenceDiff, PresenceStore } from './presence/presence.ts'
import type { ChannelListener, ChannelRelay, HistoryPage, Listening, Standing } from './relay/channel-relay.ts'
import { markOf } from './relay/number-mark.ts'
import type { ChannelRule } from './rules.ts'
import { type Due, Sequence } from './sequence.ts'
import type { ChannelEvent, ChannelReceiver, ChannelTurn } from './turn.ts'

/** What everything in a channel shares: where this node's stream stands. */
export interface ChannelSurroundings {
  readonly relay: ChannelRelay
  readonly presence: PresenceStore
  readonly log: Log
  /** The stream's epoch, and the commit served last. */
  where(): Stamp
  /** Whether the stream has passed what the stamp names, and moves. Of public channels nothing can be revoked. */
  mayTell(stamp: Stamp, isPrivate: boolean): boolean
  /** Resolves when it has. @throws UNAVAILABLE */
  untilMayTell(stamp: Stamp, isPrivate: boolean): Promise<void>
  /** What was revoked may not be known here. */
  standsStill(): boolean
  /** Steady milliseconds. */
  now(): number
}

/** Messages whose stamp lies ahead of this node. Past it the newest are let go: they are read again, or told as a gap. */
const maxWaitingChars = 8 * 1024 * 1024
const maxOutboxChars = 32 * 1024
const pageLength = 200
const retryMs = 500

export class Channel implements ChannelListener {
  readonly name: ChannelName
  readonly key: string
  readonly rule: ChannelRule
  /** Of its frames, on this node. */
  readonly number: number
  /** Equal on every node: a position of another channel is told by it. */
  readonly tag: string
  readonly members = new Set<ChannelReceiver>()
  /** Null where the rule allows no presence. */
  readonly here: ChannelPresence | null
  /** Resolves when it hears everything. @throws UNAVAILABLE */
  readonly ready: Promise<void>
  readonly #surroundings: ChannelSurroundings
  readonly #sequence: Sequence
  readonly #listening: Listening
  /** Due, but for their stamps. */
  #waiting: Due[] = []
  #waitingChars = 0
  /** In this turn; handed out at its end. */
  #outbox: ChannelEvent[] = []
  #outboxChars = 0
  /** Number of the last message handed to the members, and its epoch. */
  #told: Standing = { epoch: '', seq: 0n }
  /** Without a history: up to where members have been told what the database says, while its commit is being served. */
  #spoken: Stamp = { epoch: '', lsn: 0n }
  #isReading = false
  #looking: Promise<void> | null = null
  /** Under way: at most one for each member that catches up. */
  readonly #reads = new Map<bigint, Promise<{ page: HistoryPage; events: readonly ChannelEvent[] }>>()
  #isClosed = false
  readonly #onWaiting: (channel: Channel) => void
  /** What a batch knows of whom it goes to. */
  readonly #receivers: Receivers

  /** @param onWaiting messages wait for the stream: call `drain` when it has moved */
  constructor(
    name: ChannelName,
    options: {
      readonly key: string
      readonly rule: ChannelRule
      readonly number: number
      readonly surroundings: ChannelSurroundings
      readonly onWaiting: (channel: Channel) => void
    },
  ) {
    this.name = name
    this.key = options.key
    this.rule = options.rule
    this.number = options.number
    this.#surroundings = options.surroundings
    this.#onWaiting = options.onWaiting
    this.tag = createHash('sha256').update(this.key).digest('base64url').slice(0, 12)
    const { tag, number } = this
    this.#receivers = { query: { number }, tag, toldLsn: 0n, members: { deliver: () => {} } }
    const { presence: store, now } = options.surroundings
    const { presence: rule } = options.rule
    const receivers = this.#receivers
    this.here =
      rule === null
        ? null
        : new ChannelPresence({
            ...{ store, channel: this.key, rule, receivers, now },
            position: () => this.position,
            mayTell: () => !(name.isPrivate && this.#surroundings.standsStill()),
            onHeld: () => this.#onWaiting(this),
          })
    this.#sequence = new Sequence(this.hasHistory)
    this.#listening = options.surroundings.relay.listen(this.key, this)
    this.ready = this.#begin()
    this.ready.catch(() => {})
  }

  get hasHistory(): boolean {
    return this.rule.history !== null
  }

  /** Up to here members have been told. */
  get told(): Standing {
    return this.#told
  }

  /** Where members stand who have all that was told. */
  get position(): Position {
    this.handOut()
    return this.positionAt(this.#told)
  }

  get isWaiting(): boolean {
    return this.#waiting.length > 0 || (this.here?.isHeld ?? false)
  }

  /** As clients have it, after a number. */
  positionAt(standing: Standing): Position {
    if (this.hasHistory) return { epoch: standing.epoch, lsn: standing.seq, index: WHOLE_COMMIT }
    const at = this.#surroundings.where()
    const { lsn } = this.#spoken.epoch === at.epoch && this.#spoken.lsn > at.lsn ? this.#spoken : at
    return { epoch: at.epoch, lsn, index: markOf(standing) }
  }

  message(message: ChannelMessage): void {
    this.#due(this.#sequence.take(message))
    if (this.#sequence.isBehind) void this.#read()
  }

  presence(diff: PresenceDiff): void {
    this.here?.take(diff)
  }

  interrupted(): void {
    void this.#look()
    this.here?.interrupted()
  }

  /** Asks where the channel stands. Those who ask at the same time share a question. @throws UNAVAILABLE */
  look(): Promise<void> {
    this.#looking ??= this.#lookOnce().finally(() => {
      this.#looking = null
    })
    return this.#looking
  }

  /** Gives what this node's own stream tells, in the turn in which its commit is served. Only of channels without history. */
  tell(draft: Draft): void {
    this.drain()
    // Right before its commit, of which more may follow: who comes back with that has missed something.
    this.#spoken = { epoch: draft.stamp.epoch, lsn: draft.stamp.lsn - 1n }
    const position = this.positionAt(this.#told)
    this.#outbox.push({
      outgoing: new Outgoing('message', messageJson(draft), position),
      event: draft.event,
      seq: this.#told.seq,
      message: draft,
    })
    this.handOut()
  }

  /** Messages of the history after a number, as far as members have been told, once the stream has passed their stamps: of what was
   *  said before this node entered the channel it may not have. Those who ask at the same time share a read.
   *  @throws UNAVAILABLE */
  async readAfter(seq: bigint): Promise<{ readonly page: HistoryPage; readonly events: readonly ChannelEvent[] }> {
    let read = this.#reads.get(seq)
    if (read === undefined) {
      read = this.#surroundings.relay.read(this.key, { after: seq, limit: pageLength }).then(page => ({
        page,
        events: page.messages.map(message => this.#eventOf(message)),
      }))
      this.#reads.set(seq, read)
      const forget = (): void => void this.#reads.delete(seq)
      read.then(forget, forget)
    }
    const { page, events } = await read
    for (const { stamp } of page.messages) await this.#surroundings.untilMayTell(stamp, this.name.isPrivate)
    const { epoch, seq: upTo } = this.#told
    return { page, events: page.epoch === epoch ? events.filter(each => each.seq <= upTo) : [] }
  }

  /** Gives members what the stream has passed the stamps of. */
  drain(): void {
    this.here?.goOn()
    let count = 0
    for (const due of this.#waiting) {
      if (due.kind === 'message' && !this.#surroundings.mayTell(due.message.stamp, this.name.isPrivate)) break
      count += 1
    }
    if (count === 0) return
    const due = this.#waiting
    this.#waiting = due.slice(count)
    for (const each of due.slice(0, count)) {
      this.#waitingChars -= charsOf(each)
      this.#tell(each)
    }
    if (this.#waiting.length === 0 && this.#sequence.isBehind) void this.#read()
  }

  /** Gives members what has gathered in this turn. */
  handOut(): void {
    const events = this.#outbox
    if (events.length === 0) return
    this.#outbox = []
    this.#outboxChars = 0
    if (this.members.size === 0) return
    const senders = new Set<string>()
    let hasTarget = false
    for (const { message } of events) {
      if (message === null) continue
      if (message.to !== null) hasTarget = true
      if (message.sender.connection !== null) senders.add(message.sender.connection)
    }
    const batch = new Batch(
      this.#receivers,
      events.map(({ outgoing }) => outgoing),
      this.#told.seq,
    )
    const turn: ChannelTurn = { events, batch, hasTarget, senders }
    for (const member of this.members) member.receive(turn)
  }

  close(): void {
    this.#isClosed = true
    this.#listening.close()
    this.here?.close()
    this.#waiting = []
    this.#outbox = []
  }

  async #begin(): Promise<void> {
    await this.#listening.ready
    const { hasHistory } = this
    const standing = await this.#surroundings.relay.standing(this.key, { hasHistory })
    // What came in between is older than that, or is read, or comes again by being told where the channel stands.
    this.#sequence.begin(standing)
    this.#told = standing
    await this.#look()
    // Nobody is in it yet.
    this.handOut()
  }

  /** Until it is known where the channel stands: something may not have been heard. */
  async #look(): Promise<void> {
    for (let wait = retryMs; !this.#isClosed; wait = Math.min(2 * wait, 10_000)) {
      try {
        await this.look()
        return
      } catch (error) {
        this.#surroundings.log.debug({ err: error, topic: this.name.topic }, 'where a channel stands is not known yet')
        await sleep(wait)
      }
    }
  }

  async #lookOnce(): Promise<void> {
    const standing = await this.#surroundings.relay.standing(this.key, { hasHistory: this.hasHistory })
    if (this.#isClosed) return
    this.#due(this.#sequence.stands(standing))
    if (this.#sequence.isBehind) void this.#read()
    // Its numbers go on in another epoch, of which nobody was told a message yet.
    if (this.#waiting.length > 0 || !goesOn(this.#told, standing)) return
    this.#enter(standing)
    this.#told = { ...standing, seq: this.#told.seq }
  }

  /** Reads what was not heard. */
  async #read(): Promise<void> {
    if (this.#isReading) return
    this.#isReading = true
    try {
      for (let wait = retryMs; this.#sequence.isBehind && !this.#isClosed && !this.#isFull(); ) {
        try {
          const { seq } = this.#sequence.standing
          const page = await this.#surroundings.relay.read(this.key, { after: seq, limit: pageLength })
          if (this.#isClosed) return
          const due = this.#sequence.fill(page)
          this.#due(due)
          // It ends before what was heard of: that was lost again.
          if (due.length === 0) this.#due(this.#sequence.stands(page))
          if (due.length === 0 && this.#sequence.isBehind) await sleep(wait)
          wait = retryMs
        } catch (error) {
          this.#surroundings.log.debug(
            { err: error, topic: this.name.topic },
            'a history could not be read; trying again',
          )
          await sleep(wait)
          wait = Math.min(2 * wait, 10_000)
        }
      }
    } finally {
      this.#isReading = false
    }
  }

  #isFull(): boolean {
    return this.#waitingChars > maxWaitingChars
  }

  #due(due: readonly Due[]): void {
    for (const each of due) {
      if (this.#waiting.length === 0 && this.#isDue(each)) this.#tell(each)
      else if (this.hasHistory && this.#isFull() && each.kind !== 'reset') {
        this.#sequence.rewind(seqBefore(each))
        return
      } else this.#wait(each)
    }
  }

  #isDue(due: Due): boolean {
    return due.kind !== 'message' || this.#surroundings.mayTell(due.message.stamp, this.name.isPrivate)
  }

  #wait(due: Due): void {
    const last = this.#waiting.at(-1)
    if (this.#isFull() && due.kind !== 'reset') {
      const { epoch, seq } = due.kind === 'gap' ? due : due.message
      const gap = { kind: 'gap' as const, epoch, seq, missed: missedOf(due) }
      if (last?.kind === 'gap') {
        const missed = last.missed === null || gap.missed === null ? null : last.missed + gap.missed
        this.#waiting[this.#waiting.length - 1] = { ...gap, missed }
      } else this.#waiting.push(gap)
      return
    }
    this.#waiting.push(due)
    this.#waitingChars += charsOf(due)
    if (this.#waiting.length === 1) this.#onWaiting(this)
  }

  #tell(due: Due): void {
    if (due.kind === 'reset') {
      this.handOut()
      this.#told = { epoch: due.epoch, seq: due.seq }
      for (const member of [...this.members]) member.startOver()
      return
    }
    const { epoch, seq } = due.kind === 'message' ? due.message : due
    const before = due.kind === 'message' ? due.message.before : this.#told.before
    this.#enter({ epoch, seq, ...(before === undefined ? {} : { before }) })
    this.#told = { epoch, seq, ...(before === undefined ? {} : { before }) }
    if (this.#outbox.length === 0) setImmediate(() => this.handOut())
    const event = due.kind === 'message' ? this.#eventOf(due.message) : this.#gap(due.missed)
    this.#outbox.push(event)
    this.#outboxChars += event.outgoing.json.length
    // So that nobody is given much more than fits in one go.
    if (this.#outboxChars > maxOutboxChars) this.handOut()
  }

  /** Its numbers go on in another epoch: of which who was told more at another node, may have been told what was lost. */
  #enter(now: Standing): void {
    const { epoch } = this.#told
    if (epoch === now.epoch) return
    this.handOut()
    for (const member of [...this.members]) member.enterEpoch(epoch, now)
  }

  #eventOf(message: ChannelMessage): ChannelEvent {
    const { seq, epoch, event } = message
    const outgoing = new Outgoing('message', messageJson(message), this.positionAt({ epoch, seq }))
    return { outgoing, event, seq, message }
  }

  #gap(missed: number | null): ChannelEvent {
    const outgoing = new Outgoing('gap', gapJson('MESSAGES_LOST', missed), this.positionAt(this.#told))
    return { outgoing, event: '', seq: this.#told.seq, message: null, missed }
  }
}

const charsOf = (due: Due): number => (due.kind === 'message' ? due.message.payload.length + 200 : 0)

const missedOf = (due: Exclude<Due, { kind: 'reset' }>): number | null => (due.kind === 'gap' ? due.missed : 1)

const seqBefore = (due: Exclude<Due, { kind: 'reset' }>): bigint =>
  due.kind === 'gap' ? due.seq - BigInt(due.missed ?? 0) : due.message.seq - 1n

const sleep = (ms: number): Promise<void> => new Promise(resolve => setTimeout(resolve, ms))
