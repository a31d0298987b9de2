// A set that mostly has one element: 40 bytes then, where a Set of one takes 152. Each reader with claims of its own has half a
// dozen of them.

export interface ReadonlyFew<T extends NonNullable<unknown>> extends Iterable<T> {
  readonly size: number
  has(item: T): boolean
}

export class Few<T extends NonNullable<unknown>> implements ReadonlyFew<T> {
  /** Null, the only element, or all of them. */
  #one: T | null = null
  #many: Set<T> | null = null

  get size(): number {
    return this.#many === null ? (this.#one === null ? 0 : 1) : this.#many.size
  }

  has(item: T): boolean {
    return this.#many === null ? this.#one === item : this.#many.has(item)
  }

  add(item: T): void {
    if (this.#many !== null) this.#many.add(item)
    else if (this.#one === null) this.#one = item
    else if (this.#one !== item) {
      this.#many = new Set([this.#one, item])
      this.#one = null
    }
  }

  /** @returns whether it was there */
  delete(item: T): boolean {
    if (this.#many !== null) {
      const was = this.#many.delete(item)
      if (this.#many.size === 0) this.#many = null
      return was
    }
    if (this.#one !== item) return false
    this.#one = null
    return true
  }

  /** The only element; null when there are none or several. Most are looked at without an iterator then. */
  get only(): T | null {
    return this.#one
  }

  // As that of a Set: what is deleted meanwhile does not disturb it.
  [Symbol.iterator](): Iterator<T, undefined> {
    if (this.#many !== null) return this.#many.values()
    return (this.#one === null ? [] : [this.#one]).values()
  }
}
