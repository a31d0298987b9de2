// Moments in order, the earliest first: a binary heap.

interface Moment<T> {
  readonly atMicros: bigint
  readonly item: T
}

export class MomentHeap<T> {
  readonly #moments: Moment<T>[] = []

  get size(): number {
    return this.#moments.length
  }

  get next(): bigint | null {
    return this.#moments[0]?.atMicros ?? null
  }

  add(atMicros: bigint, item: T): void {
    const moments = this.#moments
    let at = moments.length
    moments.push({ atMicros, item })
    while (at > 0) {
      const parent = (at - 1) >>> 1
      if (moments[parent]!.atMicros <= moments[at]!.atMicros) break
      swap(moments, parent, at)
      at = parent
    }
  }

  /** Forgets the others. */
  keep(isWanted: (item: T) => boolean): void {
    const kept = this.#moments.filter(({ item }) => isWanted(item))
    this.#moments.length = 0
    for (const { atMicros, item } of kept) this.add(atMicros, item)
  }

  /** Takes those up to a moment, in order. */
  takeUntil(toMicros: bigint): Moment<T>[] {
    const taken: Moment<T>[] = []
    for (let first = this.#moments[0]; first !== undefined && first.atMicros <= toMicros; first = this.#moments[0]) {
      taken.push(first)
      this.#takeFirst()
    }
    return taken
  }

  #takeFirst(): void {
    const moments = this.#moments
    const last = moments.pop()!
    if (moments.length === 0) return
    moments[0] = last
    let at = 0
    for (;;) {
      let least = at
      for (const child of [2 * at + 1, 2 * at + 2])
        if (child < moments.length && moments[child]!.atMicros < moments[least]!.atMicros) least = child
      if (least === at) return
      swap(moments, least, at)
      at = least
    }
  }
}

function swap<T>(items: T[], a: number, b: number): void {
  const item = items[a]!
  items[a] = items[b]!
  items[b] = item
}
