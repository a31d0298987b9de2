// Carries a session for one answer: enters everything from where the client stands, and answers with the frames that there are, or
// when there is something to tell. Nothing is kept between two polls: each may go to another node.
import type { ServerResponse } from 'node:http'
import type { ServerFrame } from '../../protocol/messages.ts'
import { type Position, parsePosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Outgoing, Owner, Principal } from '../subscribe/subscription.ts'
import { AnswerTaken, answeredBy } from './answer-taken.ts'
import type { Carrier } from './carrier.ts'
import { connectionNameOf, newPollKey } from './connection-name.ts'
import type { Connection, Ending } from './connections.ts'
import { textEncoding } from './encode.ts'
import type { Polling } from './frame-body.ts'
import { FrameCollector } from './frame-collector.ts'
import { haveCaughtUp } from './heartbeat-frame.ts'
import { Pause } from './pause.ts'
import { PollPresence } from './poll-presence.ts'
import type { Services } from './services.ts'
import { SessionConnection } from './session-connection.ts'

export interface FramePollOptions {
  readonly services: Services
  readonly response: ServerResponse
  readonly principal: Principal
  readonly polling: Polling
}

/** How long a first state may take; what is not whole then is refused. */
const snapshotMs = 60_000
/** A poll that does not wait gives the replay of what is already there so long to arrive. */
const replayMs = 2_000
const lookAgainMs = 5

export class FramePoll implements Connection, Carrier {
  readonly what = 'long-poll'
  readonly isAnswering = false
  readonly place = null
  readonly greeting: { readonly heartbeatMs: number }
  readonly encoding = { ...textEncoding, frame: (frame: ServerFrame) => this.#encode(frame) }
  readonly #services: Services
  readonly #response: ServerResponse
  readonly #polling: Polling
  /** What the client brings back, to be the same connection to others. */
  readonly #pollKey: string
  readonly #presence: PollPresence
  #collector!: FrameCollector
  readonly #session: SessionConnection
  readonly #taken = new AnswerTaken()
  /** Something is to be told that need not wait for more. */
  #hasNews = false
  /** The stream stands still, or moves again, since the poll came. */
  #isPulseOther = false
  #isMovedAway = false
  /** A transaction has passed: queries that lag behind it are waited for a moment, for nothing would say later that they are past it. */
  #passed: { readonly position: Position; readonly untilMs: number } | null = null
  readonly #pause = new Pause()

  constructor({ services, response, principal, polling }: FramePollOptions) {
    const { limits } = services
    this.#services = services
    this.#response = response
    this.#polling = polling
    this.greeting = { heartbeatMs: Math.min(limits.heartbeatMs, limits.maxWaitMs) }
    this.#pollKey = polling.poll ?? newPollKey()
    this.#presence = new PollPresence(polling.here ?? null)
    const queue = (onDrained: () => void): FrameCollector => {
      this.#collector = new FrameCollector({
        maxBytes: limits.sendQueueBytes,
        hardMaxBytes: limits.longPollMaxBytes,
        isOwed: () => this.#areStatesOwed(),
        tooLarge: owner => setImmediate(() => this.#refuseTooLarge(owner)),
        takes: (owner, outgoing) => this.#takes(owner, outgoing),
        onPushed: () => this.#pause.end(),
        onDrained,
        figures: services.figures,
      })
      return this.#collector
    }
    const name = connectionNameOf(this.#pollKey, principal)
    this.#session = new SessionConnection({ services, carrier: this, queue, credentials: principal, name })
  }

  /** @returns JSON */
  async answer(): Promise<Buffer> {
    const session = this.#session
    const head = this.#services.subscriptions.head().position
    for (const frame of this.#polling.frames) session.take(frame)
    await this.#waitForNews(head)
    this.#giveUpWhatIsNotWhole()
    session.tellPulse()
    const frames = this.#collector.frames.flatMap(frame => [comma, frame]).slice(1)
    session.disconnected('broken')
    const here = this.#presence.word
    const rest = JSON.stringify({ poll: this.#pollKey, ...(here === null ? {} : { here }) })
    return Buffer.concat([Buffer.from('{"frames":['), ...frames, Buffer.from(`],${rest.slice(1)}`)])
  }

  get principal(): Principal | null {
    return this.#session.principal
  }

  get name(): string {
    return this.#session.name
  }

  get endedBy(): Ending | null {
    if (this.#taken.isGivenUp) return 'SLOW_CONSUMER'
    return this.#session.endedBy ?? answeredBy(this.#response)
  }

  get queuedBytes(): number {
    return this.#session.queuedBytes
  }

  get isMovedAway(): boolean {
    return this.#isMovedAway
  }

  tick(now: number): void {
    if (this.#taken.isStalled(this.#response, now, this.#services)) this.terminate()
  }

  tellPulse(): void {
    this.#isPulseOther = true
    this.#pause.end()
  }

  goAway(error: TidegateError): void {
    this.#session.goAway(error)
    this.#pause.end()
  }

  /** Answers what there is now, and ends its connection: the next poll goes wherever a balancer sends it. */
  moveAway(): boolean {
    if (this.#session.isOver || this.#isIncomplete() || this.#response.headersSent) return false
    this.#isMovedAway = true
    this.#pause.end()
    return true
  }

  cutOff(error: TidegateError): void {
    this.#session.cutOff(error)
    this.#pause.end()
  }

  /** No token can come to this poll: it is answered at once, and the next brings another. */
  refresh(withinMs: number): void {
    this.#session.refresh(withinMs)
  }

  terminate(): void {
    this.leave()
    this.#response.socket?.destroy()
  }

  leave(): void {
    this.#session.disconnected('broken')
    this.#pause.end()
  }

  ping(): void {}
  pause(): void {}
  resume(): void {}

  end(): void {
    this.#pause.end()
  }

  #encode(frame: ServerFrame): Buffer {
    const bytes = textEncoding.frame(frame)
    if (isNews(frame)) this.#hasNews = true
    if (frame.type === 'waited')
      this.#passed = { position: parsePosition(frame.position)!, untilMs: this.#services.now() + replayMs }
    if (frame.type === 'waited' || isOfAll(frame)) this.#collector.putLast(bytes)
    return bytes
  }

  #takes(owner: Owner, outgoing: Outgoing): boolean {
    const id = this.#session.members.find(({ subscription }) => subscription === owner)?.id
    const isTold = outgoing.event !== 'presence' || id === undefined || this.#presence.tells(id, outgoing.json)
    if (isTold) this.#hasNews = true
    return isTold
  }

  /** Waits until there is something whole to tell, `wait` is over, or nobody asks any more. */
  async #waitForNews(head: Position): Promise<void> {
    const { limits, now, wallNow } = this.#services
    const startedAt = now()
    const waitMs = Math.min((this.#polling.wait ?? 0) * 1000, limits.maxWaitMs)
    const expiresAt = this.principal?.expiresAt ?? null
    const patienceAt = startedAt + Math.min(waitMs, expiresAt === null ? waitMs : expiresAt - wallNow())
    while (!this.#session.isOver) {
      const elapsedMs = now() - startedAt
      if (this.#isIncomplete()) {
        if (elapsedMs >= snapshotMs) return
        await this.#pause.for(this.#areStatesOwed() ? snapshotMs - elapsedMs : lookAgainMs)
        continue
      }
      if (this.#hasNews) {
        // What else comes in this turn of the event loop goes with it.
        await new Promise(resolve => setImmediate(resolve))
        if (!this.#isIncomplete()) return
        continue
      }
      if (this.#isPulseOther || this.#isMovedAway) return
      const isOwed = elapsedMs < replayMs && !haveCaughtUp(this.#session.standings, head)
      const patienceMs = patienceAt - now()
      if (patienceMs > 0) await this.#pause.for(patienceMs)
      else if (isOwed) await this.#pause.for(lookAgainMs)
      else return
    }
  }

  /** An answer now would end in the middle. */
  #isIncomplete(): boolean {
    if (this.#session.isOver) return false
    if (this.#areStatesOwed() || this.#lagsBehindWhatPassed()) return true
    return !this.#collector.isBrimming && !this.#session.members.every(({ isWhole }) => isWhole)
  }

  #lagsBehindWhatPassed(): boolean {
    const passed = this.#passed
    if (passed === null || this.#services.now() >= passed.untilMs) return false
    return !haveCaughtUp(this.#session.standings, passed.position)
  }

  /** Something was not answered, or a query has not its whole state. */
  #areStatesOwed(): boolean {
    if (this.#collector.isPartial) return true
    return this.#session.members.some(({ request, subscription, isWhole }) =>
      request.kind === 'channel' ? subscription === null : !isWhole,
    )
  }

  #refuseTooLarge(owner: Owner): void {
    const member = this.#session.members.find(({ subscription }) => subscription === owner)
    if (member === undefined || this.#session.isOver) return
    const message = `the answer is larger than ${this.#services.limits.longPollMaxBytes} bytes; filter the query, or use another wire`
    member.fail(new TidegateError('SNAPSHOT_TOO_LARGE', message))
  }

  #giveUpWhatIsNotWhole(): void {
    if (!this.#isIncomplete()) return
    for (const member of this.#session.members) {
      if (member.isWhole) continue
      if (member.subscription !== null) this.#collector.refuse(member.subscription)
      this.#session.memberFails(
        member,
        new TidegateError('UNAVAILABLE', 'its state was not complete in time; ask again'),
      )
    }
  }
}

const comma = Buffer.from(',')

const isOfAll = (frame: ServerFrame): boolean =>
  frame.type === 'error' && frame.id === undefined && frame.ref === undefined

/** Whether it need not wait for what else may come. */
function isNews(frame: ServerFrame): boolean {
  if (frame.type === 'subscribed' || frame.type === 'joined') return !frame.resumed
  return frame.type !== 'welcome' && frame.type !== 'heartbeat'
}
