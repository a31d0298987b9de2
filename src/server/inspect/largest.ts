// The largest of many, in order, while they pass by.

export class Largest<T> {
  readonly #most: number
  readonly #sizeOf: (item: T) => number
  /** At most `most`, the largest first; equal ones in the order in which they came. */
  readonly items: T[] = []
  /** How many are not among them. */
  more = 0

  constructor(most: number, sizeOf: (item: T) => number) {
    this.#most = most
    this.#sizeOf = sizeOf
  }

  /** Its size must not change afterwards. */
  add(item: T): void {
    const size = this.#sizeOf(item)
    const { items } = this
    if (items.length === this.#most) {
      this.more += 1
      if (size <= this.#sizeOf(items.at(-1)!)) return
      items.pop()
    }
    let place = items.length
    while (place > 0 && this.#sizeOf(items[place - 1]!) < size) place -= 1
    items.splice(place, 0, item)
  }
}
