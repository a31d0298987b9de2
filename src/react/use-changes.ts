// A table's changes in a component: each insert, update and delete as an event.
import { type RefObject, useCallback, useMemo, useSyncExternalStore } from 'react'
import type { Change, ChangesOptions, FeedStatus, Refusal, TableQuery } from '../client/client.ts'
import { useSame } from './keyed.ts'
import { useLatest } from './latest.ts'

export interface UseChangesOptions extends Pick<ChangesOptions, 'event' | 'onResync'> {
  /** False: nothing is asked. */
  readonly enabled?: boolean
}

export interface ChangesResult {
  /** `idle`: nothing is asked. */
  readonly status: FeedStatus | 'idle'
  readonly error: Refusal | null
}

/** Calls the listener with each change, once, for as long as the component is there. The query may be made in render, and so may the
 *  listener: it is always the one of the last render that is called. What changes does not render the component; its status does.
 *  @param query null: nothing is asked
 *  @example
 *  useChanges(tide.from('orders'), change => notify(change.new), { event: 'INSERT' }) */
export function useChanges<Table, Row>(
  query: TableQuery<Table, Row> | null | undefined,
  listener: (change: Change<Row>) => void,
  options: UseChangesOptions = {},
): ChangesResult {
  const { event = '*', enabled = true } = options
  const source = useSame(enabled ? (query ?? null) : null)
  const latest = useLatest<Listening<Row>>({ listener, onResync: options.onResync })
  const store = useMemo(
    () => (source === null ? null : new ChangesStore(source, event, latest)),
    [source, event, latest],
  )
  return useSyncExternalStore(
    useCallback(wake => store?.subscribe(wake) ?? (() => {}), [store]),
    () => store?.state ?? idle,
    () => (store === null ? idle : connecting),
  )
}

interface Listening<Row> {
  readonly listener: (change: Change<Row>) => void
  readonly onResync: ChangesOptions['onResync']
}

const idle: ChangesResult = { status: 'idle', error: null }
const connecting: ChangesResult = { status: 'connecting', error: null }

class ChangesStore<Table, Row> {
  state: ChangesResult = connecting
  readonly #query: TableQuery<Table, Row>
  readonly #event: NonNullable<ChangesOptions['event']>
  readonly #latest: RefObject<Listening<Row>>

  constructor(
    query: TableQuery<Table, Row>,
    event: NonNullable<ChangesOptions['event']>,
    latest: RefObject<Listening<Row>>,
  ) {
    this.#query = query
    this.#event = event
    this.#latest = latest
  }

  subscribe(wake: () => void): () => void {
    const options: ChangesOptions = {
      event: this.#event,
      onResync: reason => {
        const { onResync } = this.#latest.current
        // Who does not ask is told as the client tells it: by its `onError`.
        if (onResync === undefined) throw new Error(`changes were missed: ${reason.message}`)
        onResync(reason)
      },
      onStatus: (status, error) => {
        if (status === this.state.status && error === this.state.error) return
        this.state = { status, error }
        wake()
      },
    }
    return this.#query.changes(options, change => this.#latest.current.listener(change))
  }
}
