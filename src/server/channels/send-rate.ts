// How fast one connection may send to one topic. A bucket of tokens that may be overdrawn: a message past the rate is taken later, one
// far past it not at all, and whoever goes on so is closed. All of it passes with time: after a pause everything is as before.

export interface Rate {
  readonly perSecond: number
  readonly burst: number
}

export type SendVerdict =
  /** Taken once so many milliseconds have passed, 0: at once. Nothing more is read from the sender until then. */
  | { readonly kind: 'take'; readonly waitMs: number }
  /** RATE_LIMITED; so long until one would be taken at once. */
  | { readonly kind: 'refuse'; readonly retryAfterMs: number }
  | { readonly kind: 'close' }

/** A message that would wait longer is refused. */
const maxWaitMs = 2000
/** After so long of more refused than taken, without a pause of `maxWaitMs`, the sender is closed. */
const maxFloodMs = 10_000

export class SendRate {
  readonly #intervalMs: number
  readonly #burst: number
  /** When the bucket will be full again if nothing more comes. */
  #fullAt = Number.NEGATIVE_INFINITY
  #flood: { readonly since: number; lastAt: number; refused: number; taken: number } | null = null

  constructor({ perSecond, burst }: Rate) {
    this.#intervalMs = 1000 / perSecond
    this.#burst = burst
  }

  /** A message wants to be sent. @param now milliseconds of a clock that never goes back */
  ask(now: number): SendVerdict {
    const fullAt = Math.max(this.#fullAt, now)
    const waitMs = Math.max(0, fullAt - now - (this.#burst - 1) * this.#intervalMs)
    if (this.#flood !== null && now - this.#flood.lastAt >= maxWaitMs) this.#flood = null
    if (waitMs <= maxWaitMs) {
      this.#fullAt = fullAt + this.#intervalMs
      if (this.#flood !== null) this.#flood.taken += 1
      return { kind: 'take', waitMs: Math.ceil(waitMs) }
    }
    this.#flood ??= { since: now, lastAt: now, refused: 0, taken: 0 }
    this.#flood.lastAt = now
    this.#flood.refused += 1
    const { since, refused, taken } = this.#flood
    if (now - since >= maxFloodMs && refused > taken) return { kind: 'close' }
    return { kind: 'refuse', retryAfterMs: Math.ceil(waitMs) }
  }

  /** Whether it is as if nothing had ever been sent. */
  isFresh(now: number): boolean {
    return this.#fullAt <= now && (this.#flood === null || now - this.#flood.lastAt >= maxWaitMs)
  }
}

/** Rates of senders that are not in the channel, by any key. */
export class SendRates {
  readonly #maxSenders: number
  /** The one that asked last at the end. At most `maxSenders`: past it the one that has been quiet longest is forgotten. */
  readonly #rates = new Map<string, SendRate>()

  constructor(maxSenders = 50_000) {
    this.#maxSenders = maxSenders
  }

  /** @param key names sender and topic */
  ask(key: string, rate: Rate, now: number): SendVerdict {
    const known = this.#rates.get(key)
    this.#rates.delete(key)
    if (known === undefined) this.#makeRoom(now)
    const of = known ?? new SendRate(rate)
    this.#rates.set(key, of)
    return of.ask(now)
  }

  get size(): number {
    return this.#rates.size
  }

  /** Forgets the fresh ones among the quietest, a few at a time, and whichever is first where there is no room. */
  #makeRoom(now: number): void {
    let looked = 0
    for (const [key, rate] of this.#rates) {
      if (this.#rates.size >= this.#maxSenders || rate.isFresh(now)) this.#rates.delete(key)
      else return
      looked += 1
      if (looked === 4) return
    }
  }
}
