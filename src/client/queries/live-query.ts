// What an application holds of a live query: subscribe to it, iterate over it, or wait for its first rows.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { FeedRequest } from '../feed.ts'
import { refusalError } from '../refusal-error.ts'
import { type LiveState, waiting } from './live-feed.ts'

/** A `LiveState` with the rows typed by the application's database interface. */
export type LiveUpdate<Row> = Omit<LiveState, 'rows'> & { readonly rows: readonly Row[] }

export interface LiveDoor {
  /** Adds a listener to the query's one subscription. @returns what removes it */
  listen(name: string, request: FeedRequest, listener: (state: LiveState) => void): () => void
  /** Of the query's subscription, where there is one. */
  state(name: string): LiveState | undefined
}

/** The rows of a query, now and from now on. Nothing is asked before somebody listens; all who ask the same share one subscription. */
export class LiveQuery<Row> {
  /** The same text for the same query: table, columns, filters, order and limit. */
  readonly key: string
  /** The same object for all queries of one client. */
  readonly client: object
  readonly #request: FeedRequest
  readonly #door: LiveDoor

  constructor(request: FeedRequest, door: LiveDoor) {
    this.key = JSON.stringify(request)
    this.client = door
    this.#request = request
    this.#door = door
  }

  /** What is known now; the same object until something changes, and a constant while nobody listens. */
  get current(): LiveUpdate<Row> {
    // The wire's rows are JSON; the application's interface names their types, as Kysely's does.
    return (this.#door.state(this.key) ?? waiting) as unknown as LiveUpdate<Row>
  }

  /** Calls the listener at once with what is known, then for every commit that changes the rows, for a fresh snapshot,
   *  and when the status moves.
   *  @returns ends it; calling it again does nothing */
  subscribe(listener: (update: LiveUpdate<Row>) => void): () => void {
    return this.#door.listen(this.key, this.#request, state => listener(state as unknown as LiveUpdate<Row>))
  }

  /** The first rows that are live.
   *  @throws TidegateError when the query is refused, CLIENT_CLOSED when the client is closed first; the signal's reason */
  once({ signal }: { readonly signal?: AbortSignal } = {}): Promise<readonly Row[]> {
    return new Promise((resolve, reject) => {
      let unsubscribe = (): void => {}
      const end = (then: () => void): void => {
        signal?.removeEventListener('abort', abort)
        // Not before `subscribe` has returned: it may call back at once.
        queueMicrotask(() => unsubscribe())
        then()
      }
      const abort = (): void => end(() => reject(signal!.reason))
      if (signal?.aborted) return reject(signal.reason)
      signal?.addEventListener('abort', abort)
      unsubscribe = this.subscribe(({ status, rows, error }) => {
        if (status === 'live') end(() => resolve(rows))
        else if (status === 'refused') end(() => reject(refusalError(error)))
        else if (status === 'closed') end(() => reject(new TidegateError('CLIENT_CLOSED', 'the client was closed')))
      })
    })
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
