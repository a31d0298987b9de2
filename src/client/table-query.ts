// Builds a query on one table: conditions, columns, then `live()` or `changes()`. Each step gives a new query.
import type { ChangeEvent } from '../protocol/messages.ts'
import type { ChangeListeners } from './change-feed.ts'
import type { FeedRequest } from './feed.ts'
import { condition, type FilterValue, type Operator } from './filter.ts'
import type { LiveState } from './live-feed.ts'
import { LiveQuery } from './live-query.ts'
import type { FeedStatus, Refusal } from './status.ts'

export interface QueryDoor {
  live(request: FeedRequest, listener: (state: LiveState) => void): () => void
  changes(request: FeedRequest, listeners: ChangeListeners): () => void
}

interface QueryParts {
  readonly table: string
  /** Pairs of a URL's query, AND-ed. */
  readonly conditions: readonly string[]
  readonly columns: readonly string[] | null
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

type Value<Row, Column extends keyof Row, Op extends Operator> = Op extends 'in' | 'not in'
  ? readonly NonNullable<Row[Column]>[]
  : Op extends 'is' | 'is not'
    ? null | boolean
    : Op extends 'like' | 'ilike' | 'not like' | 'not ilike'
      ? string
      : NonNullable<Row[Column]>

/** @typeParam Row the table's columns @typeParam Result the columns asked for */
export class TableQuery<Row, Result> {
  readonly #parts: QueryParts
  readonly #door: QueryDoor

  constructor(parts: QueryParts, door: QueryDoor) {
    this.#parts = parts
    this.#door = door
  }

  /** @throws FILTER_INVALID when the value does not fit the operator */
  where<Column extends keyof Row & string, Op extends Operator>(
    column: Column,
    operator: Op,
    value: Value<Row, Column, Op>,
  ): TableQuery<Row, Result> {
    return this.filter(condition(column, operator, value as FilterValue))
  }

  /** A condition in PostgREST's own words, percent-encoded as in a URL: `or=(room_id.eq.1,author.is.null)`. */
  filter(text: string): TableQuery<Row, Result> {
    return new TableQuery({ ...this.#parts, conditions: [...this.#parts.conditions, text] }, this.#door)
  }

  /** The primary key always comes along. */
  select<Column extends keyof Row & string>(columns: readonly Column[]): TableQuery<Row, Pick<Row, Column>> {
    return new TableQuery({ ...this.#parts, columns }, this.#door)
  }

  /** The rows now and from now on. Nothing is asked before somebody listens. */
  live(): LiveQuery<Result> {
    const request = this.#request('live')
    return new LiveQuery(listener => this.#door.live(request, listener))
  }

  /** Every insert, update and delete as an event, each once.
   *  @returns ends it */
  changes(options: ChangesOptions, listener: (change: Change<Result>) => void): () => void {
    const { event = '*' } = options
    const request = this.#request('changes')
    if (event !== '*') request.events = [event.toLowerCase() as 'insert' | 'update' | 'delete']
    return this.#door.changes(request, {
      onChange: change => listener(change as unknown as Change<Result>),
      onResync: reason => {
        if (options.onResync === undefined) throw new Error(`events of ${request.table} were missed: ${reason.message}`)
        options.onResync(reason)
      },
      onStatus: options.onStatus ?? (() => {}),
    })
  }

  #request(kind: 'live' | 'changes'): FeedRequest {
    const { table, conditions, columns } = this.#parts
    const request: FeedRequest = { kind, table }
    if (conditions.length > 0) request.filter = conditions.join('&')
    if (columns !== null) request.select = [...columns]
    return request
  }
}
