// What was said in one channel and is not known to be there: waits for the place in it, is asked in order, and asked again under its
// key when the link was lost before the answer. Reads no clock, and sets no timer.
import type { Code } from '../../protocol/codes.ts'
import type { Send, ServerFrame } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Ask } from '../feed.ts'

export interface Sent {
  /** The message's, the same for everybody. */
  readonly id: string
  readonly position: string
  /** It had been sent before under its `idempotencyKey`, and was not sent again. */
  readonly duplicate: boolean
}

/** What may wait in one channel while its client is offline. */
export interface OfflineSends {
  /** Messages. Default: 100. */
  readonly max?: number
  /** Of their JSON. Default: 1 MiB. */
  readonly maxBytes?: number
  /** Which of them is rejected with SEND_QUEUE_FULL: the one that comes (`refuse`, the default), or the oldest that was not asked yet. */
  readonly whenFull?: 'refuse' | 'drop-oldest'
}

interface Waiting {
  readonly send: Send
  readonly bytes: number
  /** Rejected when the client is offline before it was asked. */
  readonly refuseOffline: boolean
  readonly resolve: (sent: Sent) => void
  readonly reject: (error: TidegateError) => void
  /** Under which it was asked on this connection; null: it was not. */
  ref: number | null
  /** When it was asked for the first time; null: never. */
  firstAskedAt: number | null
}

/** So many are asked and not answered: what is more would outrun a rule's rate, and be refused instead of waiting. */
const maxAsked = 8
/** What may wait while the client is in the channel: the server takes it as fast as the rule says. */
const maxWhileJoined = 1000
/** Of the time in which the server knows a key, what is left for the way: a link that carries nothing is taken for lost after two
 *  heartbeats. */
const keyMarginMs = 60_000

export class Outbox {
  readonly #limits: Required<OfflineSends>
  #waiting: Waiting[] = []
  #bytes = 0

  constructor({ max = 100, maxBytes = 1 << 20, whenFull = 'refuse' }: OfflineSends) {
    this.#limits = { max, maxBytes, whenFull }
  }

  get size(): number {
    return this.#waiting.length
  }

  /** @param send with its key
   *  @returns settles once: with the server's answer, or rejected by it, by `cancel` or by `end` */
  add(
    send: Send,
    { bytes, isJoined, refuseOffline }: { bytes: number; isJoined: boolean; refuseOffline: boolean },
  ): { readonly sent: Promise<Sent>; readonly cancel: (error: TidegateError) => void } {
    const { promise, resolve, reject } = Promise.withResolvers<Sent>()
    const one: Waiting = { send, bytes, refuseOffline, resolve, reject, ref: null, firstAskedAt: null }
    if (this.#makeRoom(bytes, isJoined)) {
      this.#waiting.push(one)
      this.#bytes += bytes
    } else reject(full('as many messages wait as may'))
    return { sent: promise, cancel: error => this.#take(one)?.reject(error) }
  }

  /** Asks as many as may be asked, the oldest first.
   *  @param keptMs so long the server knows a key
   *  @param ask returns false when the client is not in the channel now */
  flush(now: number, keptMs: number, nextRef: () => number, ask: (ask: Ask) => boolean): void {
    let asked = this.#waiting.filter(({ ref }) => ref !== null).length
    for (const one of [...this.#waiting]) {
      if (one.ref !== null) continue
      if (asked >= maxAsked) return
      if (one.firstAskedAt !== null && now - one.firstAskedAt > keptMs - Math.min(keyMarginMs, keptMs / 2)) {
        const lost =
          'the link was lost before the answer, for longer than the channel knows keys: it may have been sent or not'
        this.#take(one)?.reject(new TidegateError('SEND_UNCERTAIN', lost))
        continue
      }
      one.ref = nextRef()
      if (!ask({ type: 'send', ref: one.ref, ...one.send })) {
        one.ref = null
        return
      }
      one.firstAskedAt ??= now
      asked += 1
    }
  }

  /** The place is lost, and with it the answers. */
  interrupt(): void {
    for (const one of this.#waiting) one.ref = null
  }

  /** The client is offline: what was asked is asked again, and what was not need not wait. */
  refuseOffline(): void {
    for (const one of [...this.#waiting])
      if (one.refuseOffline && one.firstAskedAt === null) this.#take(one)?.reject(offline())
  }

  /** @returns whether it was an answer to one of these */
  answered(frame: Extract<ServerFrame, { type: 'sent' | 'error' }>): boolean {
    const one = this.#waiting.find(({ ref }) => ref !== null && ref === frame.ref)
    if (one === undefined) return false
    this.#take(one)
    if (frame.type === 'error') one.reject(errorOf(frame))
    else one.resolve({ id: frame.message, position: frame.position, duplicate: frame.duplicate === true })
    return true
  }

  /** Nothing more will be sent. */
  end(error: TidegateError): void {
    const all = this.#waiting
    this.#waiting = []
    this.#bytes = 0
    for (const { reject } of all) reject(error)
  }

  #makeRoom(bytes: number, isJoined: boolean): boolean {
    const { maxBytes, whenFull } = this.#limits
    const max = isJoined ? Math.max(maxWhileJoined, this.#limits.max) : this.#limits.max
    while (this.#waiting.length >= max || this.#bytes + bytes > maxBytes) {
      const oldest = this.#waiting.find(({ firstAskedAt }) => firstAskedAt === null)
      if (whenFull === 'refuse' || oldest === undefined || bytes > maxBytes) return false
      this.#take(oldest)?.reject(full('it was dropped for newer messages'))
    }
    return true
  }

  #take(one: Waiting): Waiting | null {
    const place = this.#waiting.indexOf(one)
    if (place === -1) return null
    this.#waiting.splice(place, 1)
    this.#bytes -= one.bytes
    return one
  }
}

const full = (why: string): TidegateError => new TidegateError('SEND_QUEUE_FULL', why)

export const offline = (): TidegateError =>
  new TidegateError('CLIENT_OFFLINE', 'the client is offline, and this is not to wait')

export const errorOf = ({ code, message, retryAfterMs }: { code: string; message: string; retryAfterMs?: number }) =>
  new TidegateError(code as Code, message, retryAfterMs === undefined ? {} : { retryAfterMs })
