// A small generator, so that a seed repeats a run's choices.

export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** The generator of one actor: what it draws depends on the seed and on who it is, never on how fast others were. */
  static of(seed: number, ...actor: readonly (string | number)[]): Random {
    let hash = 0x811c9dc5 ^ seed
    for (const character of actor.join(' ')) hash = Math.imul(hash ^ character.codePointAt(0)!, 0x01000193)
    const random = new Random(hash)
    // Seeds that lie side by side begin alike.
    for (let i = 0; i < 3; i++) random.next()
    return random
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
}
