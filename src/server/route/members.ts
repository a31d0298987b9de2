// Those of an audience who stand at the head of the stream, each with where its batches go; and, apart, those who do not.
//
// A joined batch goes from here to the queue of each socket: on the way through the subscription, its membership and its
// connection lie four objects to fetch for each delivery, and fetching them costs more than the work (0.4 µs beside the 1.8 of
// a bare write).
import { Few } from '../authorize/few.ts'
import type { Batch } from './batch.ts'

/** A subscriber that stands at the head of the stream, or with its audience at the start of a hold. */
export interface Member {
  /** Hands on events; it then stands at the batch's position. */
  deliver(batch: Batch): void
  /** Its sink has taken the batch, and is past its bound. */
  sinkIsFull(batch: Batch): void
  /** Takes back what waits for its reader: rows of it may be hidden now. */
  retract(manner: Manner): void
}

/** Whose a frame is, a subscription: compared, and never looked into. */
export type Owner = object

/** Whether what waits is taken back even from a reader who must then start over. */
export type Manner = 'gently' | 'firmly'

export interface BatchSink {
  /** @param owner for whom
   *  @returns false when it is past its bound; this batch is still taken */
  pushBatch(batch: Batch, owner: Owner): boolean
}

/** Mostly one, which takes no map. */
export class Members implements Iterable<Member> {
  /** Null, the only one, or all of them. */
  #one: Member | null = null
  #sinkOfOne: BatchSink | null = null
  #many: Map<Member, BatchSink | null> | null = null
  /** Behind, or still joining; null when nobody is. */
  #away: Few<Member> | null = null

  get size(): number {
    return this.#many === null ? (this.#one === null ? 0 : 1) : this.#many.size
  }

  /** Nobody is there, at the head or elsewhere. */
  get isDeserted(): boolean {
    return this.size === 0 && this.#away === null
  }

  /** Whether it stands at the head. */
  has(member: Member): boolean {
    return this.#many?.has(member) ?? this.#one === member
  }

  /** @param sink where joined batches go; null when each must be handed to the member */
  add(member: Member, sink: BatchSink | null): void {
    if (this.#away?.delete(member) === true && this.#away.size === 0) this.#away = null
    if (this.#many !== null) this.#many.set(member, sink)
    else if (this.#one === null || this.#one === member) {
      this.#one = member
      this.#sinkOfOne = sink
    } else {
      this.#many = new Map([
        [this.#one, this.#sinkOfOne],
        [member, sink],
      ])
      this.#one = null
      this.#sinkOfOne = null
    }
  }

  /** It does not stand at the head, for now. */
  stepBack(member: Member): void {
    this.delete(member)
    this.#away ??= new Few()
    this.#away.add(member)
  }

  delete(member: Member): void {
    if (this.#away?.delete(member) === true && this.#away.size === 0) this.#away = null
    if (this.#many !== null) {
      this.#many.delete(member)
      if (this.#many.size === 0) this.#many = null
    } else if (this.#one === member) {
      this.#one = null
      this.#sinkOfOne = null
    }
  }

  // As that of a Map: what is deleted meanwhile does not disturb it.
  [Symbol.iterator](): Iterator<Member, undefined> {
    if (this.#many !== null) return this.#many.keys()
    return (this.#one === null ? [] : [this.#one]).values()
  }

  /** Takes back what waits for any of them, also for those who do not stand at the head. */
  retract(manner: Manner): void {
    const away = this.#away === null ? [] : [...this.#away]
    for (const member of this) member.retract(manner)
    for (const member of away) member.retract(manner)
  }

  deliver(batch: Batch): void {
    if (this.#many === null) {
      if (this.#one !== null) hand(batch, this.#one, this.#sinkOfOne)
      return
    }
    for (const [member, sink] of this.#many) hand(batch, member, sink)
  }
}

function hand(batch: Batch, member: Member, sink: BatchSink | null): void {
  if (sink === null || !batch.isJoined) member.deliver(batch)
  else if (!sink.pushBatch(batch, member)) member.sinkIsFull(batch)
}
