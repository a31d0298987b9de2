// How many of one kind are here at a time, by a key: an address, a user.

export class Quota {
  readonly #max: number
  /** Those that are here, and no others: as many as there are connections at most. */
  readonly #counts = new Map<string, number>()

  /** @param max 0: nothing is counted, and everybody may */
  constructor(max: number) {
    this.#max = max
  }

  get max(): number {
    return this.#max
  }

  /** Keys that are counted. */
  get size(): number {
    return this.#counts.size
  }

  /** @returns false when there are `max` already; those that are here stay */
  take(key: string): boolean {
    if (this.#max === 0) return true
    const count = this.#counts.get(key) ?? 0
    if (count >= this.#max) return false
    this.#counts.set(key, count + 1)
    return true
  }

  /** Once for each `take` that was granted. */
  giveBack(key: string): void {
    if (this.#max === 0) return
    const left = this.#counts.get(key)! - 1
    if (left > 0) this.#counts.set(key, left)
    else this.#counts.delete(key)
  }
}
