// Events on their way to every member of an audience at once: of one commit, or of several that came one after the other
// in a turn of the event loop. Ten deltas then cost a member one call and one write, not ten.
import type { CommitClock } from '../figures/commit-clock.ts'
import type { Outgoing } from './outgoing.ts'

/** What is joined is at most about this large, so that a slow reader's queue passes its bound by no more. */
const maxJoinedChars = 64 * 1024

/** An audience, as far as it is delivered to. */
export interface Receivers {
  readonly query: { readonly number: number }
  readonly tag: string
  /** Commit LSN up to which they have been told: ahead of the head while its commit is being served. */
  toldLsn: bigint
  readonly members: { deliver(batch: Batch): void }
}

export class Batch {
  readonly audience: Receivers
  readonly events: readonly Outgoing[]
  /** Commit LSN where a live query stands after it. */
  readonly lsn: bigint
  /** Of a commit that is still being served: the head comes after it. */
  readonly isAhead: boolean
  /** Small enough to be taken as one. */
  readonly isJoined: boolean
  /** Bytes for a wire, made by the first receiver that needs them. */
  websocketBytes: Buffer | undefined
  sseBytes: Buffer | undefined
  streamBytes: Buffer | undefined
  /** What a wire of other words makes of it, for itself alone. */
  elsewhere: object | undefined

  constructor(audience: Receivers, events: readonly Outgoing[], lsn: bigint, isAhead = false) {
    this.audience = audience
    this.events = events
    this.lsn = lsn
    this.isAhead = isAhead
    this.isJoined = events.length === 1 || (events.length > 1 && charsOf(events) <= maxJoinedChars)
  }
}

/** Collects what commits in a row tell one audience. Whoever lets go of the turn, or looks at where members stand, hands
 *  it out first. */
export class Outbox {
  readonly #clock: Clock
  #audience: Receivers | null = null
  #events: readonly Outgoing[] = []
  #chars = 0
  #lsn = 0n
  #isTimed = false

  constructor(clock: Clock = noClock) {
    this.#clock = clock
  }

  /** Whether something of a commit that is timed waits. */
  get isTimed(): boolean {
    return this.#isTimed
  }

  add(audience: Receivers, events: readonly Outgoing[], lsn: bigint): void {
    const chars = charsOf(events)
    if (audience === this.#audience && this.#chars + chars <= maxJoinedChars) {
      this.#events = [...this.#events, ...events]
      this.#chars += chars
    } else {
      this.handOut()
      this.#audience = audience
      this.#events = events
      this.#chars = chars
    }
    this.#lsn = lsn
    if (this.#clock.isServing) this.#isTimed = true
  }

  /** Delivers what waits. */
  handOut(): void {
    const audience = this.#audience
    if (audience === null) return
    this.#audience = null
    const batch = new Batch(audience, this.#events, this.#lsn)
    const isTimed = this.#isTimed
    this.#isTimed = false
    if (isTimed) this.#clock.handingOut()
    audience.members.deliver(batch)
    audience.toldLsn = batch.lsn
    if (isTimed) this.#clock.handedOut()
  }
}

/** Knows which commits are timed on their way. */
type Clock = Pick<CommitClock, 'isServing' | 'handingOut' | 'handedOut'>

const noClock: Clock = { isServing: false, handingOut: () => {}, handedOut: () => {} }

function charsOf(events: readonly Outgoing[]): number {
  let chars = 0
  for (const { json } of events) chars += json.length
  return chars
}
