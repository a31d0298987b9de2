// What waits for one member of a channel that takes messages too slowly.
import type { Backpressure } from './rules.ts'

export interface SlowBufferOptions {
  readonly policy: Backpressure
  readonly maxBytes: number
}

interface Waiting<T> {
  readonly item: T
  readonly bytes: number
  readonly event: string
}

/** A queue whose bytes never exceed a bound. Past it, by policy: `buffer` takes no more, `drop-oldest` lets the oldest go, `latest`
 *  holds only the newest of each event, and of those lets the oldest go too. What is left keeps its order. */
export class SlowBuffer<T> {
  readonly #policy: Backpressure
  readonly #maxBytes: number
  /** From `#head` on, oldest first; undefined where a newer one of the same event came. */
  #items: (Waiting<T> | undefined)[] = []
  #head = 0
  #count = 0
  #bytes = 0
  #dropped = 0
  /** Of `latest`: where in `#items` an event is. */
  readonly #places = new Map<string, number>()

  constructor({ policy, maxBytes }: SlowBufferOptions) {
    this.#policy = policy
    this.#maxBytes = maxBytes
  }

  get size(): number {
    return this.#count
  }

  get bytes(): number {
    return this.#bytes
  }

  /** @returns false when it does not fit and nothing may be dropped: the member is to be closed */
  push(item: T, { bytes, event }: { readonly bytes: number; readonly event: string }): boolean {
    if (this.#policy === 'buffer' && this.#bytes + bytes > this.#maxBytes) return false
    if (this.#policy === 'latest') {
      const place = this.#places.get(event)
      if (place !== undefined) this.#drop(place)
      this.#places.set(event, this.#items.length)
    }
    this.#items.push({ item, bytes, event })
    this.#count += 1
    this.#bytes += bytes
    while (this.#bytes > this.#maxBytes) this.#drop(this.#oldest())
    this.#compact()
    return true
  }

  /** Takes the oldest out; null when there is none. */
  shift(): T | null {
    if (this.#count === 0) return null
    const item = this.#takeOut(this.#oldest())
    this.#compact()
    return item
  }

  /** How many were dropped since this was asked last. */
  takeDropped(): number {
    const dropped = this.#dropped
    this.#dropped = 0
    return dropped
  }

  /** Where the oldest is. There must be one. */
  #oldest(): number {
    while (this.#items[this.#head] === undefined) this.#head += 1
    return this.#head
  }

  #drop(place: number): void {
    this.#takeOut(place)
    this.#dropped += 1
  }

  #takeOut(place: number): T {
    const { item, bytes, event } = this.#items[place]!
    this.#items[place] = undefined
    this.#count -= 1
    this.#bytes -= bytes
    if (this.#policy === 'latest') this.#places.delete(event)
    return item
  }

  /** Holes never outnumber what is there by much: however long it waits, its memory follows its bytes. */
  #compact(): void {
    if (this.#items.length < 2 * this.#count + 16) return
    this.#items = this.#items.filter(waiting => waiting !== undefined)
    this.#head = 0
    if (this.#policy !== 'latest') return
    for (const [place, waiting] of this.#items.entries()) this.#places.set(waiting!.event, place)
  }
}
