// Tidegate's client for browsers and Node: live queries and change events of tables, over one WebSocket that comes back
// by itself and continues where it stood.
//
//   const tide = createClient<Database>('https://tide.example.com', { token: () => fetchToken() })
//   const messages = tide.from('messages').where('room_id', '=', 42).select(['id', 'body']).live()
//   const unsubscribe = messages.subscribe(({ rows, delta, status }) => render(rows))
import type { JsonRow } from '../protocol/messages.ts'
import { ChangeFeed } from './change-feed.ts'
import { Connection, type TokenSource } from './connection.ts'
import type { ConnectionState } from './connection-machine.ts'
import type { FeedRequest } from './feed.ts'
import { Feeds } from './feeds.ts'
import { LiveFeed, type LiveState } from './live-feed.ts'
import type { FeedStatus, Refusal } from './status.ts'
import { TableQuery } from './table-query.ts'

export type { Operator } from './filter.ts'
export type { LiveQuery, LiveUpdate } from './live-query.ts'
export { type Delta, ProtocolError } from './live-rows.ts'
export type { FeedStatus, Refusal } from './status.ts'
export type { Change, ChangesOptions } from './table-query.ts'

export interface ClientOptions {
  /** A JWT, or what fetches one: asked again when the server wants a new token, and ahead of its expiry. */
  readonly token: TokenSource
  /** Errors nobody else hears of: a listener that throws, a frame that cannot follow from the state held (the query
   *  then starts over by itself). Default: console.error. */
  readonly onError?: (error: Error) => void
}

/** A column's type as SELECT gives it; understands Kysely's `Generated` and `ColumnType`. */
type Selected<Column> = Column extends { readonly __select__: infer Value } ? Value : Column
type RowOf<Table> = { [Column in keyof Table]: Selected<Table[Column]> }
export type AnyDatabase = Record<string, JsonRow>

/** @param url base address of the service; `http`, `https`, `ws` and `wss` are all understood */
export function createClient<Database = AnyDatabase>(url: string, options: ClientOptions): Client<Database> {
  return new Client<Database>(url, options)
}

export class Client<Database = AnyDatabase> {
  readonly #connection: Connection
  readonly #feeds: Feeds
  readonly #report: (error: Error) => void
  /** Live queries that somebody listens to, by their request: one subscription each, however many listeners. */
  readonly #shared = new Map<string, { readonly feed: LiveFeed; readonly remove: () => void }>()

  constructor(url: string, options: ClientOptions) {
    this.#report = options.onError ?? (error => console.error(error))
    this.#connection = new Connection({
      url,
      token: options.token,
      onFrame: frame => this.#feeds.receive(frame),
      onState: (state, previous) => {
        // A renewed token changes an open connection's state, and nothing for its subscriptions.
        if (state.name !== previous.name) this.#feeds.moved()
      },
      onReady: () => this.#feeds.enterAll(),
    })
    this.#feeds = new Feeds({
      send: frame => this.#connection.send(frame),
      standing: () => standingOf(this.#connection.state),
      report: this.#report,
    })
  }

  /** @param table `<schema>.<table>`; `public` if left out */
  from<Table extends keyof Database & string>(
    table: Table,
  ): TableQuery<RowOf<Database[Table]>, RowOf<Database[Table]>> {
    return new TableQuery(
      { table, conditions: [], columns: null },
      {
        live: (request, listener) => this.#listen(request, listener),
        changes: (request, listeners) => this.#add(new ChangeFeed(request, listeners, this.#report)),
      },
    )
  }

  /** Ends the connection and every subscription, for good. */
  close(): void {
    this.#connection.stop()
  }

  #add(feed: ChangeFeed | LiveFeed): () => void {
    const { remove } = this.#feeds.add(feed)
    this.#connection.start()
    return remove
  }

  #listen(request: FeedRequest, listener: (state: LiveState) => void): () => void {
    const name = JSON.stringify(request)
    const held = this.#shared.get(name)
    let feed = held?.feed
    if (feed === undefined || feed.state.status === 'refused') {
      feed = new LiveFeed(request, this.#report)
      this.#shared.set(name, { feed, remove: this.#add(feed) })
    }
    const unlisten = feed.listen(listener)
    return () => {
      unlisten()
      const shared = this.#shared.get(name)
      if (shared?.feed !== feed || feed.listenerCount > 0) return
      this.#shared.delete(name)
      shared.remove()
    }
  }
}

function standingOf(state: ConnectionState): [status: FeedStatus, error: Refusal | null] {
  switch (state.name) {
    case 'idle':
      return ['connecting', null]
    case 'asking':
    case 'opening':
      return [state.attempt === 0 ? 'connecting' : 'offline', state.error]
    case 'waiting':
      return ['offline', state.error]
    case 'open':
      return ['catching up', null]
    case 'refused':
      return ['refused', state.error]
    case 'closed':
      return ['closed', null]
  }
}
