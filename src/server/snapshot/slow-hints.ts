// When somebody whose query was too slow should ask again: later each time, since each attempt costs the database as much. Pure.

const firstMs = 5000
const longestMs = 300_000
/** Past it the one that was slow longest ago is forgotten, and begins with the first hint. */
const maxRemembered = 1000

export class SlowHints {
  /** How often each was slow, without a success in between. */
  readonly #times = new Map<string, number>()

  get size(): number {
    return this.#times.size
  }

  /** It was too slow. @returns milliseconds until it is worth another attempt: 5 s, 10 s, ... 5 min */
  slow(key: string): number {
    const times = this.#times.get(key) ?? 0
    this.#times.delete(key)
    this.#times.set(key, times + 1)
    if (this.#times.size > maxRemembered) for (const [oldest] of this.#times) return this.#forget(oldest, times)
    return hintOf(times)
  }

  /** It was answered in time. */
  quick(key: string): void {
    this.#times.delete(key)
  }

  #forget(oldest: string, times: number): number {
    this.#times.delete(oldest)
    return hintOf(times)
  }
}

const hintOf = (times: number): number => Math.min(firstMs * 2 ** Math.min(times, 10), longestMs)
