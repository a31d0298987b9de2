// What an application holds of a live query: subscribe to it, or iterate over it.
import type { LiveState } from './live-feed.ts'

/** A `LiveState` with the rows typed by the application's database interface. */
export type LiveUpdate<Row> = Omit<LiveState, 'rows'> & { readonly rows: readonly Row[] }

export class LiveQuery<Row> {
  readonly #join: (listener: (state: LiveState) => void) => () => void

  /** @param join adds a listener to the query's one subscription; returns what removes it */
  constructor(join: (listener: (state: LiveState) => void) => () => void) {
    this.#join = join
  }

  /** Calls the listener at once with what is known, then for every commit that changes the rows, for a fresh snapshot,
   *  and when the status moves.
   *  @returns ends it; calling it again does nothing */
  subscribe(listener: (update: LiveUpdate<Row>) => void): () => void {
    // The wire's rows are JSON; the application's interface names their types, as Kysely's does.
    return this.#join(state => listener(state as unknown as LiveUpdate<Row>))
  }

  /** The updates one after another. A loop slower than the database skips steps, never the end state: then `delta` is
   *  null. Ends when the client is closed or the query is refused. Leaving the loop ends the subscription. */
  async *[Symbol.asyncIterator](): AsyncGenerator<LiveUpdate<Row>, void, undefined> {
    // Holds one update at most.
    let pending: LiveUpdate<Row> | null = null
    let wake = (): void => {}
    const unsubscribe = this.subscribe(update => {
      pending = pending === null ? update : { ...update, delta: null }
      wake()
    })
    try {
      for (;;) {
        const update = pending as LiveUpdate<Row> | null
        pending = null
        if (update === null) {
          await new Promise<void>(resolve => {
            wake = resolve
          })
          continue
        }
        yield update
        if (update.status === 'refused' || update.status === 'closed') return
      }
    } finally {
      unsubscribe()
    }
  }
}
