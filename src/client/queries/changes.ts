// What an application holds of the changes of a query: a callback, or a loop over them.
import type { ChangeEvent } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { FeedRequest } from '../feed.ts'
import { refusalError } from '../refusal-error.ts'
import type { FeedStatus, Refusal } from '../status.ts'
import type { ChangeListeners } from './change-feed.ts'

export interface ChangesDoor {
  /** Adds a listener to the subscription of these changes. @returns what removes it */
  changes(name: string, request: FeedRequest, listeners: ChangeListeners): () => void
}

export interface ChangesOptions {
  /** Default: all three, and truncate. */
  readonly event?: 'INSERT' | 'UPDATE' | 'DELETE' | '*'
  /** Events were missed: away past the window, or a lost slot. Without it such a gap goes to the client's `onError`. */
  readonly onResync?: (reason: Refusal) => void
  readonly onStatus?: (status: FeedStatus, error: Refusal | null) => void
}

/** One event, with the rows as far as this reader may see them. */
export type Change<Row> = Omit<ChangeEvent, 'new' | 'old'> & { readonly new?: Row; readonly old?: Partial<Row> }

/** @returns ends it */
export function listenToChanges<Row>(
  request: FeedRequest,
  options: ChangesOptions,
  door: ChangesDoor,
  listener: (change: Change<Row>) => void,
): () => void {
  return door.changes(JSON.stringify(request), request, {
    onChange: change => listener(change as unknown as Change<Row>),
    onResync: reason => {
      if (options.onResync === undefined) throw new Error(`events of ${request.table} were missed: ${reason.message}`)
      options.onResync(reason)
    },
    onStatus: options.onStatus ?? (() => {}),
  })
}

/** Begins at once, not with the first `next`. A loop that is slower than the database lets events pile up, `buffer` of them (default
 *  1,000); one more, and it is told so: the loop gets those that are there, then throws SLOW_CONSUMER. It throws as well when the query
 *  is refused, and ends when the client is closed. Leaving the loop ends the subscription. */
export function iterateChanges<Row>(
  request: FeedRequest,
  options: ChangesOptions & { readonly buffer?: number },
  door: ChangesDoor,
): AsyncIterableIterator<Change<Row>> {
  const { buffer = 1000 } = options
  const pending: Change<Row>[] = []
  let end: { readonly error: TidegateError | null } | null = null
  const waiting: (() => void)[] = []
  const wake = (): void => {
    for (const resolve of waiting.splice(0)) resolve()
  }
  let stop = (): void => {}
  const finish = (error: TidegateError | null): void => {
    end ??= { error }
    stop()
    wake()
  }
  const onStatus = (status: FeedStatus, error: Refusal | null): void => {
    if (status === 'refused') finish(refusalError(error))
    if (status === 'closed') finish(null)
    options.onStatus?.(status, error)
  }
  stop = listenToChanges<Row>(request, { ...options, onStatus }, door, change => {
    if (end !== null) return
    if (pending.length >= buffer) {
      const text = `a loop over the changes of ${request.table} is more than ${buffer} events behind`
      return finish(new TidegateError('SLOW_CONSUMER', text))
    }
    pending.push(change)
    wake()
  })
  return {
    [Symbol.asyncIterator]() {
      return this
    },
    async next() {
      for (;;) {
        const value = pending.shift()
        if (value !== undefined) return { done: false, value }
        if (end !== null) {
          const { error } = end
          // Thrown once: a loop that goes on after it is at its end.
          end = { error: null }
          if (error !== null) throw error
          return { done: true, value: undefined }
        }
        await new Promise<void>(resolve => {
          waiting.push(resolve)
        })
      }
    },
    async return() {
      pending.length = 0
      finish(null)
      return { done: true, value: undefined }
    },
  }
}
