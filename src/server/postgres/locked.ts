// Reads of what somebody else has locked, for a migration say: they wait without a connection. Each try gives up after
// `lockTimeoutMs`; of those who want the same, one tries and the others wait for it, so that a thousand readers of a table
// that is locked take no more of the few connections than one.
import { setTimeout as sleep } from 'node:timers/promises'
import { TidegateError } from '../../protocol/tidegate-error.ts'

/** What `SET LOCAL lock_timeout` takes: how long a statement may stand before a lock, with its connection. */
export const lockTimeoutMs = 100
const firstPauseMs = 50
const maxPauseMs = 250
/** What the catalog says of a table is awaited for so long. */
const catalogPatienceMs = 10_000

export interface LockedOptions {
  /** How long somebody waits in all. */
  readonly patienceMs: number
  /** How many may wait for others to get through; past it BUSY. */
  readonly queueLimit: number
}

export class Locked {
  readonly #options: LockedOptions
  /** What is known to be locked: whether it is over. Whoever tries removes it. */
  readonly #known = new Map<string, Promise<void>>()
  #waiting = 0

  constructor(options: LockedOptions) {
    this.#options = options
  }

  /** Tries until nothing stands in the way. @param key equal for those who will probably meet the same lock
   *  @param attempt throws `standAside` where it has waited for its connection and `isKnown` by then
   *  @throws what `attempt` throws but 55P03; UNAVAILABLE when its time is over; BUSY */
  async run<T>(key: string, attempt: (isKnown: () => boolean) => Promise<T>): Promise<T> {
    const deadlineMs = performance.now() + this.#options.patienceMs
    for (;;) {
      await this.#freed(key, deadlineMs)
      try {
        return await attempt(() => this.#known.has(key))
      } catch (error) {
        if (!isLocked(error)) throw error
        if (!this.#known.has(key) && error !== standAside)
          return await this.#insist(key, () => attempt(() => false), deadlineMs)
      }
    }
  }

  /** The one who tries. */
  async #insist<T>(key: string, attempt: () => Promise<T>, deadlineMs: number): Promise<T> {
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#known.set(key, promise)
    try {
      await sleep(firstPauseMs)
      return await untilUnlocked(attempt, deadlineMs - performance.now())
    } finally {
      this.#known.delete(key)
      resolve()
    }
  }

  async #freed(key: string, deadlineMs: number): Promise<void> {
    for (let known = this.#known.get(key); known !== undefined; known = this.#known.get(key)) {
      if (this.#waiting >= this.#options.queueLimit)
        throw new TidegateError('BUSY', `${this.#waiting} are waiting for locks already`)
      this.#waiting += 1
      const late = new AbortController()
      try {
        const isLate = sleep(Math.max(0, deadlineMs - performance.now()), true, { signal: late.signal }).catch(
          () => true,
        )
        if (await Promise.race([known.then(() => false), isLate])) throw tooLong()
      } finally {
        late.abort()
        this.#waiting -= 1
      }
    }
  }
}

/** Tries until nothing stands in the way. For what few ask for at a time. @throws as `Locked.run` */
export async function untilUnlocked<T>(attempt: () => Promise<T>, patienceMs = catalogPatienceMs): Promise<T> {
  const deadlineMs = performance.now() + patienceMs
  for (let pauseMs = firstPauseMs; ; pauseMs = Math.min(2 * pauseMs, maxPauseMs)) {
    try {
      return await attempt()
    } catch (error) {
      if (!isLocked(error)) throw error
      if (performance.now() + pauseMs > deadlineMs) throw tooLong(error)
    }
    await sleep(pauseMs)
  }
}

const tooLong = (cause?: unknown): TidegateError =>
  new TidegateError('UNAVAILABLE', 'a table is locked, by a migration perhaps', { cause })

/** Somebody else stands before the lock already. */
export const standAside = Object.assign(new Error('others wait for a lock'), { code: '55P03' })

/** 55P03 lock_not_available. */
export const isLocked = (error: unknown): boolean => error instanceof Error && 'code' in error && error.code === '55P03'
