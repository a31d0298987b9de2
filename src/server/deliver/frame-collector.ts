// What waits for the client of a poll: frames, collected into one answer.
//
// The heartbeat of the answer is its last word about where the client stands: one of it is kept, behind everything that it names. What
// follows from the heartbeat, or ends the session, stands behind it.
import type { Figures } from '../figures/figures.ts'
import type { Batch, Outgoing, Owner } from '../subscribe/subscription.ts'
import type { FrameQueue } from './carrier.ts'
import { textEncoding } from './encode.ts'
import { type Content, type TakeBack, takeBack, type Waiting } from './take-back.ts'

export interface FrameCollectorOptions {
  /** Past it subscriptions stand still, unless `isOwed`. */
  readonly maxBytes: number
  /** Past it whoever sends more of a query is told by `tooLarge`, once. */
  readonly hardMaxBytes: number
  /** Whether some query's state is not whole: it goes whole or not at all. */
  readonly isOwed: () => boolean
  readonly tooLarge: (owner: Owner) => void
  /** Looks at an event. @returns false when it needs no telling */
  readonly takes: (owner: Owner, outgoing: Outgoing) => boolean
  readonly onPushed: () => void
  readonly onDrained: () => void
  readonly figures: Figures
}

interface Collected extends Waiting {
  readonly frame: Buffer
}

export class FrameCollector implements FrameQueue {
  readonly stalledSince = null
  /** Nothing here waits for a socket. */
  readonly isFull = false
  readonly #options: FrameCollectorOptions
  /** Bounded by `hardMaxBytes`, one event for each subscription, and the session's own answers. */
  #collected: Collected[] = []
  #heartbeat: Buffer | null = null
  /** Behind the heartbeat. */
  readonly #last: Buffer[] = []
  readonly #isLast = new WeakSet<Buffer>()
  /** In the middle of a snapshot or delta of several parts. */
  readonly #partial = new Set<Owner>()
  readonly #refused = new Set<Owner>()
  #bytes = 0
  #isStopped = false

  constructor(options: FrameCollectorOptions) {
    this.#options = options
  }

  /** Past the bound of what is taken beyond whole states. */
  get isBrimming(): boolean {
    return this.#bytes > this.#options.maxBytes
  }

  get bytes(): number {
    return this.#bytes
  }

  get isPartial(): boolean {
    return this.#partial.size > 0
  }

  /** The next push of this frame goes behind the heartbeat. */
  putLast(frame: Buffer): void {
    this.#isLast.add(frame)
  }

  push(frame: Buffer, owner: Owner | null = null, content: Content = null): boolean {
    if (this.#isStopped) return true
    if (content === 'heartbeat') this.#heartbeat = frame
    else if (this.#isLast.has(frame)) this.#last.push(frame)
    else return this.#collect(frame, owner, content)
    this.#options.onPushed()
    return true
  }

  #collect(frame: Buffer, owner: Owner | null, content: Content): boolean {
    const { takes, tooLarge, hardMaxBytes, isOwed, onPushed } = this.#options
    if (owner !== null && this.#refused.has(owner)) return false
    const outgoing = content !== null && typeof content === 'object' && 'event' in content ? content : null
    if (owner !== null && outgoing !== null && !takes(owner, outgoing)) {
      onPushed()
      return true
    }
    this.#collected.push({ frame, owner, content })
    this.#bytes += frame.length
    if (owner !== null) this.#follow(owner, content)
    if (owner !== null && this.#bytes > hardMaxBytes) {
      this.refuse(owner)
      tooLarge(owner)
      return false
    }
    onPushed()
    return !this.isBrimming || this.isPartial || isOwed()
  }

  #keep(isKept: (collected: Collected, place: number) => boolean): void {
    this.#collected = this.#collected.filter(isKept)
    this.#bytes = this.#collected.reduce((sum, { frame }) => sum + frame.length, 0)
  }

  #follow(owner: Owner, content: Content): void {
    if (isPart(content)) this.#partial.add(owner)
    else this.#partial.delete(owner)
  }

  pushBatch(batch: Batch, owner: Owner): boolean {
    let hasRoom = true
    this.#options.figures.deliveries += batch.events.length
    for (const event of batch.events)
      hasRoom = this.push(textEncoding.event(event, batch.audience.query.number, 0), owner, event)
    return hasRoom
  }

  /** Drops what there is of a subscription, and takes no more of it. */
  refuse(owner: Owner): void {
    this.#refused.add(owner)
    this.#partial.delete(owner)
    this.#keep(({ owner: other }) => other !== owner)
  }

  takeBack(request: TakeBack): ReadonlyMap<Owner, Outgoing> {
    const taken = takeBack(this.#collected, request)
    if (taken === null) return nothingTaken
    this.#keep((_, place) => taken.kept[place]!)
    this.#heartbeat = null
    const last = this.#collected.findLast(({ owner }) => owner === request.of)
    this.#follow(request.of, last?.content ?? null)
    // There is room: nobody waits for a socket here.
    setImmediate(this.#options.onDrained)
    return taken.first
  }

  /** Everything, as the list of one answer. */
  get frames(): readonly Buffer[] {
    const heartbeat = this.#heartbeat === null ? [] : [this.#heartbeat]
    return [...this.#collected.map(({ frame }) => frame), ...heartbeat, ...this.#last]
  }

  clear(): void {
    this.#collected = []
    this.#bytes = 0
  }

  finish(): void {
    this.#isStopped = true
  }

  stop(): void {
    this.#isStopped = true
  }
}

const nothingTaken: ReadonlyMap<Owner, Outgoing> = new Map()

const isPart = (content: Content): boolean =>
  content !== null &&
  typeof content === 'object' &&
  'event' in content &&
  content.position === null &&
  (content.event === 'snapshot' || content.event === 'delta')
