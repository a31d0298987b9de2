// What is made of an event for a wire: once, for all who receive it.

/** An event, or several. */
export interface Made {
  /** What was made of it first, for most of them all that is. */
  elsewhere: object | undefined
}

interface First<Thing> {
  readonly by: object
  readonly key: object | string
  readonly thing: Thing
}

export class MadeOnce<Of extends Made, Thing> {
  /** Behind the first: as long as somebody waits for the event, as many as it has keys. */
  readonly #others = new WeakMap<Of, Map<object | string, Thing>>()

  /** @param key tells apart what is made of the same event in several ways */
  of(of: Of, key: object | string, make: () => Thing): Thing {
    const first = of.elsewhere as First<Thing> | undefined
    if (first === undefined) {
      const thing = make()
      of.elsewhere = { by: this, key, thing } satisfies First<Thing>
      return thing
    }
    if (first.by === this && first.key === key) return first.thing
    let others = this.#others.get(of)
    if (others === undefined) {
      others = new Map()
      this.#others.set(of, others)
    }
    let thing = others.get(key)
    if (thing === undefined) {
      thing = make()
      others.set(key, thing)
    }
    return thing
  }
}
