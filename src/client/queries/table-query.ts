// Builds a query on one table: conditions, columns, order, then `live()` or `changes()`. Each step gives a new query.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { FeedRequest } from '../feed.ts'
import { type Change, type ChangesDoor, type ChangesOptions, iterateChanges, listenToChanges } from './changes.ts'
import { condition, type Filter, type FilterValue, group, not, type Operator, pairOf } from './filter.ts'
import { type LiveDoor, LiveQuery } from './live-query.ts'
import type { RowOf, ValueFor } from './row-types.ts'

type Name<Table> = keyof Table & string

/** Makes conditions that are joined otherwise than by AND.
 *  @example query.where(c => c.any([c('room_id', '=', 1), c.not(c('author', 'in', [7, 8]))])) */
export interface ConditionBuilder<Table> {
  /** One condition, as `where` takes it. */
  <Column extends Name<Table>, Op extends Operator>(
    column: Column,
    operator: Op,
    value: ValueFor<Table[Column], Op>,
  ): Filter
  /** At least one holds: OR. */
  any(conditions: readonly Filter[]): Filter
  /** Every one holds: AND. */
  all(conditions: readonly Filter[]): Filter
  /** It does not hold: NOT. */
  not(condition: Filter): Filter
}

interface QueryParts {
  readonly table: string
  /** Pairs of a URL's query, AND-ed. */
  readonly conditions: readonly string[]
  readonly columns: readonly string[] | null
  readonly order: readonly OrderBy[]
  readonly limit: number | null
}

interface OrderBy {
  readonly column: string
  /** In PostgREST's grammar: `created_at.desc.nullslast`. */
  readonly text: string
}

export interface OrderOptions {
  /** Where NULL stands. Default, as in Postgres: last, with `desc` first. */
  readonly nulls?: 'first' | 'last'
}

const builder: ConditionBuilder<Record<string, never>> = Object.assign(
  (column: string, operator: Operator, value: FilterValue) => condition(column, operator, value),
  {
    any: (items: readonly Filter[]) => group('or', items),
    all: (items: readonly Filter[]) => group('and', items),
    not,
  },
)

/** A query on one table, built step by step; each step gives a new one.
 *  @typeParam Table the table's columns, as in Kysely's interface @typeParam Result the row of the columns asked for */
export class TableQuery<Table, Result = RowOf<Table>> {
  readonly #parts: QueryParts
  readonly #door: LiveDoor & ChangesDoor

  constructor(parts: Pick<QueryParts, 'table'> & Partial<QueryParts>, door: LiveDoor & ChangesDoor) {
    this.#parts = { conditions: [], columns: null, order: [], limit: null, ...parts }
    this.#door = door
  }

  /** The same text for the same table, columns and filters. */
  get key(): string {
    return JSON.stringify(this.#request('changes', []))
  }

  /** The same object for all queries of one client. */
  get client(): object {
    return this.#door
  }

  /** Keeps the rows for which this holds too. `like` and `ilike` take `*` for `%`.
   *  @throws FILTER_INVALID when the value does not fit the operator */
  where<Column extends Name<Table>, Op extends Operator>(
    column: Column,
    operator: Op,
    value: ValueFor<Table[Column], Op>,
  ): TableQuery<Table, Result>
  where(build: (condition: ConditionBuilder<Table>) => Filter): TableQuery<Table, Result>
  where(
    column: string | ((condition: ConditionBuilder<Table>) => Filter),
    operator?: Operator,
    value?: unknown,
  ): TableQuery<Table, Result> {
    const filter =
      typeof column === 'function'
        ? column(builder as unknown as ConditionBuilder<Table>)
        : condition(column, operator!, value as FilterValue)
    return this.filter(pairOf(filter))
  }

  /** A condition in PostgREST's own words, percent-encoded as in a URL: `or=(room_id.eq.1,author.is.null)`. */
  filter(text: string): TableQuery<Table, Result> {
    return this.#with({ conditions: [...this.#parts.conditions, text] })
  }

  /** The primary key always comes along, and so do the columns of the order. */
  select<Column extends Name<Table>>(columns: readonly Column[]): TableQuery<Table, Pick<RowOf<Table>, Column>> {
    return this.#with({ columns })
  }

  /** Orders the rows of `live()`; again for what decides where this does not. The primary key decides last. */
  orderBy(
    column: Name<Table>,
    direction: 'asc' | 'desc' = 'asc',
    { nulls }: OrderOptions = {},
  ): TableQuery<Table, Result> {
    // Quoted as in SQL, unlike in a filter.
    const name = /^\w+$/.test(column) ? column : `"${column.replaceAll('"', '""')}"`
    // Said only where it differs: the same order by another text would be refused as the same query.
    const isUsual = nulls === undefined || (nulls === 'first') === (direction === 'desc')
    const text = `${name}.${direction}${isUsual ? '' : `.nulls${nulls}`}`
    return this.#with({ order: [...this.#parts.order, { column, text }] })
  }

  /** The first so many rows of the order; `live()` fills up as rows leave.
   *  @throws PARAMETER_INVALID unless it is a whole number from 1 on */
  limit(rows: number): TableQuery<Table, Result> {
    if (!Number.isSafeInteger(rows) || rows < 1) {
      throw new TidegateError('PARAMETER_INVALID', `limit(${rows}): a limit is a whole number from 1 on`)
    }
    return this.#with({ limit: rows })
  }

  /** The rows now and from now on. Nothing is asked before somebody listens. */
  live(): LiveQuery<Result> {
    const { order, limit } = this.#parts
    const request = this.#request('live', limit === null ? order.map(({ column }) => column) : [])
    if (order.length > 0) request.order = order.map(({ text }) => text).join(',')
    if (limit !== null) request.limit = limit
    return new LiveQuery(request, this.#door)
  }

  /** Every insert, update and delete as an event, each once, in the order of the commits.
   *  What a transaction does to one row is one event. Without a listener they are given one after another; up to `buffer` of them (1,000) wait for
   *  a loop that is slower, which then throws SLOW_CONSUMER behind them. It throws as well when the query is refused.
   *  @returns ends it; or the events
   *  @throws ORDER_UNSUPPORTED after `orderBy` or `limit`: events come as they happen */
  changes(options: ChangesOptions, listener: (change: Change<Result>) => void): () => void
  changes(options?: ChangesOptions & { readonly buffer?: number }): AsyncIterableIterator<Change<Result>>
  changes(
    options: ChangesOptions & { readonly buffer?: number } = {},
    listener?: (change: Change<Result>) => void,
  ): (() => void) | AsyncIterableIterator<Change<Result>> {
    if (this.#parts.order.length > 0 || this.#parts.limit !== null) {
      throw new TidegateError(
        'ORDER_UNSUPPORTED',
        'changes() comes in the order of the commits; leave out orderBy and limit',
      )
    }
    const { event = '*' } = options
    const request = this.#request('changes', [])
    if (event !== '*') request.events = [event.toLowerCase() as 'insert' | 'update' | 'delete']
    if (listener === undefined) return iterateChanges(request, options, this.#door)
    return listenToChanges(request, options, this.#door, listener)
  }

  /** One text for one query, however it was put together: a connection follows a query once.
   *  @param needed columns that come along with those of `select` */
  #request(kind: 'live' | 'changes', needed: readonly string[]): FeedRequest {
    const { table, conditions, columns } = this.#parts
    const request: FeedRequest = { kind, table: table.replace(/^public\.(?=[^.]+$)/, '') }
    if (conditions.length > 0) request.filter = [...new Set(conditions)].sort().join('&')
    if (columns !== null) request.select = [...new Set([...columns, ...needed])].sort()
    return request
  }

  #with<Row = Result>(parts: Partial<QueryParts>): TableQuery<Table, Row> {
    return new TableQuery({ ...this.#parts, ...parts }, this.#door)
  }
}
