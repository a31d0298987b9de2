// Remembers what was read, and lets all who ask at the same time share one read.
export class PromiseCache<K, V> {
  readonly #entries = new Map<K, Promise<V>>()
  readonly #values = new WeakMap<Promise<V>, { readonly value: V }>()
  readonly #maxEntries: number

  /** @param maxEntries past it the oldest entry is dropped, and read again when asked for */
  constructor(maxEntries: number) {
    this.#maxEntries = maxEntries
  }

  get(key: K, read: () => Promise<V>): Promise<V> {
    const known = this.#entries.get(key)
    if (known !== undefined) return known
    const reading = read()
    this.#keep(key, reading)
    reading.then(
      value => this.#values.set(reading, { value }),
      () => {
        // A failed read is tried again by the next who asks.
        if (this.#entries.get(key) === reading) this.#entries.delete(key)
      },
    )
    return reading
  }

  /** What has been read already; undefined when nothing has, or when it is being read. */
  known(key: K): V | undefined {
    const reading = this.#entries.get(key)
    return reading === undefined ? undefined : this.#values.get(reading)?.value
  }

  clear(): void {
    this.#entries.clear()
  }

  /** Drops what matches. What is still being read answers those who wait for it, and stays only if it does not match. */
  drop(matches: (value: V) => boolean): void {
    for (const [key, reading] of [...this.#entries]) {
      this.#entries.delete(key)
      reading.then(
        value => {
          if (!matches(value) && !this.#entries.has(key)) this.#keep(key, reading)
        },
        () => {},
      )
    }
  }

  #keep(key: K, reading: Promise<V>): void {
    if (this.#entries.size >= this.#maxEntries) this.#entries.delete(this.#entries.keys().next().value!)
    this.#entries.set(key, reading)
  }
}
