// What a client posts to its stream, handed to its session: each POST once, in the order of their numbers.
//
// A POST whose answer was lost comes again under the same number, and may come on another node. What its session does not take yet
// waits here: at most one POST, since the client sends the next when this one was answered.
import type { ClientFrame } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'

interface Posted {
  readonly seq: number
  readonly frames: readonly ClientFrame[]
  /** How many were handed over. */
  handed: number
  readonly done: PromiseWithResolvers<void>
}

export class FrameInbox {
  readonly #take: (frame: ClientFrame) => void
  /** All up to this one were handed over whole. */
  #lastSeq: number
  #current: Posted | null = null
  #isPaused = false
  #isHanding = false
  #isOver = false

  /** @param take may call `pause`, `resume` and `end` @param lastSeq numbers begin behind it */
  constructor(take: (frame: ClientFrame) => void, lastSeq = 0) {
    this.#take = take
    this.#lastSeq = lastSeq
  }

  /** Resolves when they have been handed over, now or before. @throws BAD_FRAME where another one is missing, STREAM_UNKNOWN once it is over */
  post(seq: number, frames: readonly ClientFrame[]): Promise<void> {
    if (this.#isOver) return Promise.reject(streamUnknown())
    if (seq <= this.#lastSeq) return Promise.resolve()
    if (this.#current?.seq === seq) return this.#current.done.promise
    if (this.#current !== null || seq !== this.#lastSeq + 1) {
      const message = `seq ${seq} is out of order: the last one that was answered is ${this.#lastSeq}; send one POST after the other`
      return Promise.reject(new TidegateError('BAD_FRAME', message))
    }
    const done = Promise.withResolvers<void>()
    this.#current = { seq, frames, handed: 0, done }
    this.#hand()
    return done.promise
  }

  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    this.#isPaused = false
    this.#hand()
  }

  end(): void {
    this.#isOver = true
    this.#current?.done.reject(streamUnknown())
    this.#current = null
  }

  #hand(): void {
    if (this.#isHanding) return
    this.#isHanding = true
    for (let posted = this.#current; posted !== null && !this.#isPaused; posted = this.#current) {
      const frame = posted.frames[posted.handed]
      if (frame !== undefined) {
        posted.handed += 1
        this.#take(frame)
        continue
      }
      this.#lastSeq = posted.seq
      this.#current = null
      posted.done.resolve()
    }
    this.#isHanding = false
  }
}

export const streamUnknown = (): TidegateError =>
  new TidegateError('STREAM_UNKNOWN', 'no stream of yours has this name; open a new one, and resume')
