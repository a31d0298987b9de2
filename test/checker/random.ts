// A small generator, so that a seed repeats a run's choices.

export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** From 0 up to, and without, 1. */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let t = this.#state
    t = Math.imul(t ^ (t >>> 15), t | 1)
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296
  }

  below(n: number): number {
    return Math.floor(this.next() * n)
  }

  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)]!
  }

  /** Whether a chance of one in n comes true. */
  once(n: number): boolean {
    return this.below(n) === 0
  }

  /** A generator of its own, so that what one actor draws does not shift another's. */
  fork(): Random {
    return new Random(this.below(2 ** 31))
  }
}
