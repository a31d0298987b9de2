// Items gathered for one row, each once. Told by a mark on the item instead of by a Set: with ten readers to a row, the sets
// were a fifth of all garbage of a busy node.

/** What can be found. The mark is nobody's else to read. */
export interface Markable {
  mark: number
}

/** Where found items go. */
export interface Finds<T> {
  add(item: T): unknown
}

// Never used again: a double counts to 9e15.
let lastMark = 0

/** Must be filled in one turn of the event loop. */
export class Found<T extends Markable> implements Finds<T> {
  readonly items: T[] = []
  readonly #mark = ++lastMark

  add(item: T): void {
    if (item.mark === this.#mark) return
    item.mark = this.#mark
    this.items.push(item)
  }
}
