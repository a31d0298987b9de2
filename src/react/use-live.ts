// A live query's rows in a component.
import { useCallback, useInsertionEffect, useMemo, useSyncExternalStore } from 'react'
import type { FeedStatus, LiveQuery, LiveUpdate } from '../client/client.ts'
import { useSame } from './keyed.ts'

/** `idle`: nothing is asked. */
export type LiveResult<Row> = Omit<LiveUpdate<Row>, 'status'> & { readonly status: FeedStatus | 'idle' }

/** Follows a live query for as long as the component is there. The query may be made in render: one that asks the same is the same, and
 *  all components that ask it share one subscription. A row is the same object until it changes.
 *  @param query null: nothing is asked
 *  @param options `enabled: false` is as null
 *  @returns `delta` is what changed since the component showed the state before; null when it was more than one step, or the rows are
 *  new as a whole
 *  @example
 *  const { rows, status } = useLive(tide.from('messages').where('room_id', '=', room).live()) */
export function useLive<Row>(
  query: LiveQuery<Row> | null | undefined,
  { enabled = true }: { readonly enabled?: boolean } = {},
): LiveResult<Row> {
  const source = useSame(enabled ? (query ?? null) : null)
  const store = useMemo(() => (source === null ? null : new LiveStore(source)), [source])
  const state = useSyncExternalStore<LiveResult<Row>>(
    useCallback(wake => store?.subscribe(wake) ?? (() => {}), [store]),
    () => store?.read() ?? idle,
    () => (store === null ? idle : first),
  )
  useInsertionEffect(() => {
    if (store !== null) store.shown = state
  })
  return state
}

const first: LiveUpdate<never> = {
  rows: [],
  delta: null,
  status: 'connecting',
  stale: false,
  error: null,
  exact: true,
  warnings: [],
}
const idle: LiveResult<never> = { ...first, status: 'idle' }

/** The query's states as one component shows them. */
class LiveStore<Row> {
  /** What the component last showed. */
  shown: LiveResult<Row> | null = null
  readonly #query: LiveQuery<Row>
  #isListening = false
  #last: LiveUpdate<Row> | null = null
  #state: LiveUpdate<Row> = first

  constructor(query: LiveQuery<Row>) {
    this.#query = query
  }

  subscribe(wake: () => void): () => void {
    const unsubscribe = this.#query.subscribe(update => {
      this.#take(update)
      wake()
    })
    this.#isListening = true
    return () => {
      this.#isListening = false
      unsubscribe()
    }
  }

  /** The same object until something changes. */
  read(): LiveUpdate<Row> {
    // While it listens, what it was told is what is.
    if (!this.#isListening) this.#take(this.#query.current)
    return this.#state
  }

  #take(update: LiveUpdate<Row>): void {
    if (update === this.#last) return
    this.#last = update
    if (!this.#isListening && isSame(update, this.#state)) return
    // Several states may come before the component shows one: the delta of the last then says too little.
    const isNext = this.#isListening && this.shown === this.#state
    this.#state = isNext || update.delta === null ? update : { ...update, delta: null }
  }
}

/** But for the delta. */
const isSame = <Row>(a: LiveUpdate<Row>, b: LiveUpdate<Row>): boolean =>
  (Object.keys(first) as (keyof LiveUpdate<Row>)[]).every(name => name === 'delta' || a[name] === b[name])
