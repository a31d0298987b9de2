// What is made of an event for a wire: once, for all who receive it.

export class MadeOnce<Of extends object, Made extends object | string> {
  /** As long as somebody waits for the event; as many as it has names. */
  readonly #made = new WeakMap<Of, Map<string, Made>>()

  /** @param name tells apart what is made of the same event in several ways */
  of(of: Of, name: string, make: () => Made): Made {
    let made = this.#made.get(of)
    if (made === undefined) {
      made = new Map()
      this.#made.set(of, made)
    }
    let one = made.get(name)
    if (one === undefined) {
      one = make()
      made.set(name, one)
    }
    return one
  }
}
