// What waits for one socket: whole frames, joined into one write at the end of each turn of the event loop, bounded in
// bytes.
//
// A write carries a syscall, not a message: ten frames in one write cost little more than one (2.19 M instead of 236 k
// deliveries/s to 1,000 sockets). So `push` only remembers, and the end of the turn writes. What a whole audience gets is
// joined already: the first such batch of a turn is written at once, one pass over the sockets instead of two, and what
// follows in the turn waits for its end.
//
// Frames go to the socket itself, below ws: ws writes each of its own control frames in one synchronous step and a slice
// here is made of whole frames, so neither can land inside the other.
//
// A slice is at most 64 KiB (or one larger frame), and the next one waits until the kernel has taken it: so a peer that
// still takes something is told from one that takes nothing. What waits behind it can be taken back: see take-back.ts.
import type { Socket } from 'node:net'
import { Figures } from '../figures/figures.ts'
import type { Batch, Outgoing, Owner } from '../subscribe/subscription.ts'
import type { FrameQueue } from './carrier.ts'
import { type Content, type TakeBack, takeBack, type Waiting } from './take-back.ts'

const sliceBytes = 64 * 1024

export interface SendQueueOptions {
  readonly turn: Turn
  readonly socket: Socket
  /** Bound in bytes, the socket's own buffer included. */
  readonly maxBytes: number
  /** A batch on this wire. */
  readonly bytesOf: (batch: Batch) => Buffer
  readonly now: () => number
  /** Called once after the queue was past its bound and has come below half of it, or something was taken back and the peer
   *  takes again. */
  readonly onDrained: () => void
}

export class SendQueue implements FrameQueue {
  // What a batch looks at comes first, in as few lines of the processor's cache as can be.
  readonly #socket: Socket
  readonly #turn: Turn
  readonly #bytesOf: (batch: Batch) => Buffer
  /** The turn of the last batch that was written at once. */
  #writtenIn = -1
  #pushed = 0
  readonly #maxBytes: number
  readonly #now: () => number
  readonly #onDrained: () => void
  /** What waits, the first apart: mostly one frame or one batch, and an array for each would be garbage. Bounded by
   *  `maxBytes`, one last event for each subscription, and the session's own replies. */
  #first: Buffer | null = null
  #firstOwner: Owner | null = null
  #firstContent: Content = null
  #rest: Buffer[] = noFrames
  /** Whose each of the rest is, and what. */
  #owners: (Owner | null)[] = noOwners
  #contents: Content[] = noContents
  /** The first is the rest of an event that the socket has the beginning of. */
  #isCut = false
  /** Something was taken back: its subscription waits until the peer takes again. */
  #isAwaited = false
  #pendingBytes = 0
  #stalledSince: number | null = null
  #full = false
  #queued = false
  #held = false
  #stopped = false

  constructor(options: SendQueueOptions) {
    this.#socket = options.socket
    this.#turn = options.turn
    this.#bytesOf = options.bytesOf
    this.#maxBytes = options.maxBytes
    this.#now = options.now
    this.#onDrained = options.onDrained
  }

  /** Bytes that the kernel has not taken. */
  get bytes(): number {
    return this.#pendingBytes + this.#socket.writableLength
  }

  /** Rises with everything that is pushed: tells whether something was since it was looked at last. */
  get pushed(): number {
    return this.#pushed
  }

  /** True from passing the bound until coming below half of it. */
  get isFull(): boolean {
    return this.#full
  }

  /** Since when the peer has taken nothing, though something waits for it; null while it takes. */
  get stalledSince(): number | null {
    return this.#stalledSince
  }

  /** Takes a frame in every case. Several in a row with one owner and content are one event.
   *  @param owner null for what is no subscription's
   *  @returns false when the queue is past its bound */
  push(frame: Buffer, owner: Owner | null = null, content: Content = null): boolean {
    if (this.#stopped) return true
    this.#pushed += 1
    if (this.#first === null) {
      this.#first = frame
      this.#firstOwner = owner
      this.#firstContent = content
    } else if (this.#rest === noFrames) {
      this.#rest = [frame]
      this.#owners = [owner]
      this.#contents = [content]
    } else {
      this.#rest.push(frame)
      this.#owners.push(owner)
      this.#contents.push(content)
    }
    this.#pendingBytes += frame.length
    if (!this.#queued && !this.#held) {
      this.#queued = true
      this.#turn.add(this)
    }
    // While the peer takes everything, nothing but a control frame lies in the socket's own buffer.
    if (this.#pendingBytes > this.#maxBytes || (this.#stalledSince !== null && this.bytes > this.#maxBytes))
      this.#full = true
    return !this.#full
  }

  /** Takes what a whole audience gets, joined: the first of a turn goes out at once, in order behind what waits.
   *  @returns false when the queue is past its bound */
  pushBatch(batch: Batch, owner: Owner): boolean {
    return this.pushJoined(this.#bytesOf(batch), batch, owner)
  }

  /** The same where these are its bytes. */
  pushJoined(bytes: Buffer, batch: Batch, owner: Owner): boolean {
    const turn = this.#turn.number()
    const { figures } = this.#turn
    const { length } = batch.events
    figures.deliveries += length
    figures.mergedFrames += length - 1
    if (this.#first !== null || this.#writtenIn === turn || this.#stalledSince !== null || this.#held || this.#stopped)
      return this.push(bytes, owner, batch)
    this.#writtenIn = turn
    this.#pushed += 1
    figures.writes += 1
    figures.deliveredBytes += bytes.length
    this.#socket.write(bytes)
    if (this.#socket.writableLength > 0) {
      this.#stall()
      if (this.bytes > this.#maxBytes) this.#full = true
    }
    return !this.#full
  }

  /** Keeps what is pushed until `release`: a stream whose headers are not written yet. */
  hold(): void {
    this.#held = true
  }

  release(): void {
    this.#held = false
    this.flush()
    this.#takesAgain()
  }

  /** Drops what waits of a subscription, with what would name a position behind it.
   *  @returns the first event that each subscription was not given */
  takeBack(request: TakeBack): ReadonlyMap<Owner, Outgoing> {
    if (!this.#waits(request.of)) return nothingTaken
    // What only waits for the end of the turn goes out now: it came before the revocation, and its reader is not slow.
    if (this.#stalledSince === null && !this.#held) {
      this.flush()
      if (!this.#waits(request.of)) return nothingTaken
    }
    const frames = [this.#first!, ...this.#rest]
    const waiting = [
      { owner: this.#firstOwner, content: this.#firstContent },
      ...this.#owners.map((owner, place) => ({ owner, content: this.#contents[place]! })),
    ]
    let begun = 0
    if (this.#isCut) while (isSameEvent(waiting[begun], waiting[0]!)) begun += 1
    const taken = takeBack(waiting.slice(begun), request)
    if (taken === null) return nothingTaken
    this.#empty()
    frames.forEach((frame, place) => {
      const { owner, content } = waiting[place]!
      if (place < begun || taken.kept[place - begun]) this.push(frame, owner, content)
    })
    this.#isCut = begun > 0
    this.#isAwaited = true
    return taken.first
  }

  /** Writes what the kernel takes. Called by the turn. */
  flush(): void {
    this.#queued = false
    if (this.#stopped || this.#held) return
    while (this.#first !== null && this.#stalledSince === null) {
      this.#socket.write(this.#takeSlice(this.#first))
      if (this.#socket.writableLength > 0) this.#stall()
    }
    if (this.#full) this.#settle()
  }

  /** Hands everything to the socket now, and takes no more: what follows is a close frame or the end. */
  finish(): void {
    if (this.#stopped) return
    while (this.#first !== null) this.#socket.write(this.#takeSlice(this.#first))
    this.stop()
  }

  /** Drops what waits. */
  clear(): void {
    this.#empty()
  }

  /** Drops what waits, and takes no more. */
  stop(): void {
    this.#stopped = true
    this.#empty()
  }

  #takeSlice(first: Buffer): Buffer {
    const rest = this.#rest
    let count = 0
    let bytes = first.length
    while (count < rest.length && bytes + rest[count]!.length <= sliceBytes) {
      bytes += rest[count]!.length
      count += 1
    }
    this.#pendingBytes -= bytes
    const { figures } = this.#turn
    figures.writes += 1
    figures.deliveredBytes += bytes
    for (let place = 0; place < count; place++) {
      const content = this.#contents[place]!
      // What continues an event is no frame of its own.
      if (content === null || content !== (place === 0 ? this.#firstContent : this.#contents[place - 1]!))
        figures.mergedFrames += 1
    }
    const slice = count === 0 ? first : this.#turn.join([first, ...rest.slice(0, count)], bytes)
    if (count === rest.length) {
      this.#empty()
      return slice
    }
    const [owner, content] = [this.#owners[count]!, this.#contents[count]!]
    const [lastOwner, lastContent] =
      count === 0 ? [this.#firstOwner, this.#firstContent] : [this.#owners[count - 1]!, this.#contents[count - 1]!]
    this.#isCut = content !== null && content === lastContent && owner === lastOwner
    this.#first = rest[count]!
    this.#firstOwner = owner
    this.#firstContent = content
    this.#rest = count + 1 < rest.length ? rest.slice(count + 1) : noFrames
    this.#owners = count + 1 < rest.length ? this.#owners.slice(count + 1) : noOwners
    this.#contents = count + 1 < rest.length ? this.#contents.slice(count + 1) : noContents
    return slice
  }

  #waits(owner: Owner): boolean {
    return this.#first !== null && (this.#firstOwner === owner || this.#owners.includes(owner))
  }

  #empty(): void {
    this.#first = null
    this.#firstOwner = null
    this.#firstContent = null
    this.#rest = noFrames
    this.#owners = noOwners
    this.#contents = noContents
    this.#pendingBytes = 0
    this.#isCut = false
  }

  // A callback for each write would be an object and a tick for each delivery; an empty write is taken after everything before
  // it, and says so.
  #stall(): void {
    this.#stalledSince = this.#now()
    this.#socket.write(nothing, () => {
      this.#stalledSince = null
      this.flush()
      this.#takesAgain()
    })
  }

  #settle(): void {
    if (this.bytes * 2 > this.#maxBytes) return
    this.#full = false
    this.#isAwaited = false
    this.#onDrained()
  }

  #takesAgain(): void {
    if (this.#isAwaited && !this.#stopped && !this.#full) this.#settle()
  }
}

const nothing = Buffer.alloc(0)
/** Never added to. */
const noFrames: Buffer[] = []
const noOwners: (Owner | null)[] = []
const noContents: Content[] = []
const nothingTaken: ReadonlyMap<Owner, Outgoing> = new Map()

const isSameEvent = (a: Waiting | undefined, b: Waiting): boolean =>
  a !== undefined && a.owner === b.owner && a.content === b.content

/** The end of the current turn of the event loop, shared by all sockets of a gateway. */
export class Turn {
  readonly figures: Figures
  /** Bounded by the number of connections: each queue is in it at most once. */
  #queues: SendQueue[] = []
  #last: { frames: readonly Buffer[]; joined: Buffer } | null = null

  #number = 0
  #isEnding = false

  constructor(figures = new Figures()) {
    this.figures = figures
  }

  add(queue: SendQueue): void {
    this.#queues.push(queue)
    this.#willEnd()
  }

  /** Tells this turn from others. */
  number(): number {
    this.#willEnd()
    return this.#number
  }

  /** One buffer of several. Sockets of one audience get the same frames in the same turn: those are joined once. */
  join(frames: readonly Buffer[], bytes: number): Buffer {
    if (this.#last !== null && isSame(this.#last.frames, frames)) return this.#last.joined
    const joined = Buffer.concat(frames, bytes)
    this.#last = { frames, joined }
    return joined
  }

  #willEnd(): void {
    if (this.#isEnding) return
    this.#isEnding = true
    setImmediate(this.#end)
  }

  readonly #end = (): void => {
    this.#isEnding = false
    this.#number += 1
    const queues = this.#queues
    this.#queues = []
    for (const queue of queues) queue.flush()
    this.#last = null
  }
}

function isSame(a: readonly Buffer[], b: readonly Buffer[]): boolean {
  if (a.length !== b.length) return false
  for (let index = a.length - 1; index >= 0; index -= 1) if (a[index] !== b[index]) return false
  return true
}
