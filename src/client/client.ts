// Tidegate's client for browsers, workers, Node, Deno and Bun: live queries and change events of tables, and channels, over one
// connection that comes back by itself and continues where it stood.
//
//   const tide = createClient<Database>('https://tide.example.com', { token: () => fetchToken() })
//   const messages = tide.from('messages').where('room_id', '=', 42).select(['id', 'body']).live()
//   const unsubscribe = messages.subscribe(({ rows, delta, status }) => render(rows))
import type { Json, JsonRow, ServerFrame } from '../protocol/messages.ts'
import { TidegateError } from '../protocol/tidegate-error.ts'
import { type AnyEvents, Channel, type ChannelOptions } from './channels/channel.ts'
import { Channels } from './channels/channels.ts'
import type { OfflineSends } from './channels/outbox.ts'
import { Connection, type TokenSource } from './connection/connection.ts'
import { standingOf, statusOf } from './connection/standing.ts'
import type { Waits } from './connection/waits.ts'
import type { Feed, FeedHandle } from './feed.ts'
import { Feeds } from './feeds.ts'
import { LiveQueries } from './queries/live-queries.ts'
import type { RowOf } from './queries/row-types.ts'
import { TableQuery } from './queries/table-query.ts'
import type { Status } from './status.ts'
import type { RowStore } from './store/stored-queries.ts'
import type { TransportName } from './transports/transport.ts'

export type {
  AnyEvents,
  Channel,
  ChannelOptions,
  ChannelPresence,
  PresenceUpdate,
  SendOptions,
} from './channels/channel.ts'
export type { ChannelStatus, Gap } from './channels/channel-feed.ts'
export type { History, HistoryPage, HistoryRange } from './channels/channel-history.ts'
export type { AnyMessage, Message, Payload } from './channels/channel-message.ts'
export type { OfflineSends, Sent } from './channels/outbox.ts'
export type { Member, PresenceChange, PresenceState } from './channels/presence-state.ts'
export type { TokenSource } from './connection/connection.ts'
export type { Change, ChangesOptions } from './queries/changes.ts'
export type { Filter, Operator } from './queries/filter.ts'
export type { LiveQuery, LiveUpdate } from './queries/live-query.ts'
export { type Delta, ProtocolError } from './queries/live-rows.ts'
export type { ConditionBuilder, OrderOptions, TableQuery } from './queries/table-query.ts'
export type { FeedStatus, Refusal, Status } from './status.ts'
export type { TransportName } from './transports/transport.ts'
export { TidegateError }

export interface ClientOptions {
  /** A JWT, or what fetches one: asked again when the server wants a new token, and ahead of its expiry. */
  readonly token: TokenSource
  /** Those that may be used, the best first. Default: all three, `websocket`, `sse`, `long-poll`. What carried is remembered for a day, and
   *  a better one is taken as soon as it carries. */
  readonly transports?: readonly TransportName[]
  /** Keeps the rows of live queries, and where they stand, over a reload of the page: they are seen at once, and taken up from there. Each
   *  user's are their own, by role and subject of the token: `storedRows(indexedDbStore())` of `tidegate/store`. Default: they are not kept. */
  readonly store?: RowStore
  /** Names the user whose rows are stored, where the token is no JWT. */
  readonly user?: string
  /** What is sent to channels while the client is offline: how much of it waits in each, or `refuse`, and it is rejected with CLIENT_OFFLINE.
   *  Default: 100 messages and 1 MiB wait. */
  readonly offlineSends?: OfflineSends | 'refuse'
  /** What the server takes as one frame, its MAX_FRAME_BYTES: a larger message is refused here. Default: 65,536. */
  readonly maxFrameBytes?: number
  /** Errors nobody else hears of: a listener that throws, a frame that cannot follow from the state held (the query
   *  then starts over by itself). Default: console.error. */
  readonly onError?: (error: Error) => void
}

/** Of a client that was told of no tables: any table, any column. */
export type AnyDatabase = Record<string, JsonRow>

/** Makes a client. It connects when something is asked of it.
 *  @typeParam Database tables and their columns, as in the interface for Kysely
 *  @param url base address of the service; `http`, `https`, `ws` and `wss` are all understood */
export function createClient<Database = AnyDatabase>(url: string, options: ClientOptions): Client<Database> {
  return new Client<Database>(url, options)
}

const allTransports: readonly TransportName[] = ['websocket', 'sse', 'long-poll']

/** One user's live queries, changes and channels, over one connection. Made by `createClient`. */
export class Client<Database = AnyDatabase> {
  readonly #connection: Connection
  readonly #feeds: Feeds
  /** Null until somebody waits; its code is fetched then. */
  #waits: Waits | null = null
  #loadingWaits: Promise<Waits> | null = null
  readonly #report: (error: Error) => void
  readonly #queries: LiveQueries
  readonly #channels: Channels
  readonly #listeners = new Set<(status: Status) => void>()
  #status: Status = { name: 'idle' }
  /** Grows when the user leaves: what was asked before is nothing to the next one. */
  #life = 0

  constructor(url: string, options: ClientOptions) {
    this.#report = options.onError ?? (error => console.error(error))
    const { transports = allTransports, store, user } = options
    this.#queries = new LiveQueries({
      add: feed => this.#add(feed),
      leave: () => this.#connection.leave(),
      report: this.#report,
      stored: store?.({ address: url, report: this.#report }) ?? null,
      user,
    })
    const { offlineSends, maxFrameBytes } = options
    this.#channels = new Channels({
      add: feed => this.#enter(feed),
      request: path => this.#connection.request(path),
      report: this.#report,
      offlineSends,
      maxFrameBytes,
    })
    this.#connection = new Connection({
      url,
      token: options.token,
      transports: transports.length === 0 ? allTransports : transports,
      entries: () => this.#feeds.entries(),
      onFrame: frame => this.#received(frame),
      onToken: token => this.#queries.signedIn(token),
      onState: (state, previous) => {
        // A renewed token changes an open connection's state, and nothing for its subscriptions.
        if (state.name !== previous.name) this.#feeds.moved()
        if (state.name === 'closed' || state.name === 'refused') this.#waits?.end()
        this.#tellStatus()
      },
      onReady: () => {
        this.#feeds.enterAll()
        this.#waits?.sendAll()
      },
    })
    this.#feeds = new Feeds({
      send: frame => this.#connection.send(frame),
      standing: () => standingOf(this.#connection.state),
      report: this.#report,
    })
  }

  /** How the client is connected; stays the same object until something changes. */
  get status(): Status {
    return this.#status
  }

  /** Calls the listener after every change of `status`. @returns ends it */
  onStatus(listener: (status: Status) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** A query on a table, to be built further.
   *  @param table `<schema>.<table>`; `public` if left out */
  from<Table extends keyof Database & string>(table: Table): TableQuery<Database[Table], RowOf<Database[Table]>> {
    return new TableQuery({ table }, this.#queries)
  }

  /** A channel. Nothing is asked before somebody listens, sends, or is there; all that is made of one topic share one place in its channel.
   *  @typeParam Events what may be said: `{ typing: { on: boolean } }` @typeParam Meta what members tell of themselves */
  channel<Events extends object = AnyEvents, Meta = Json>(
    topic: string,
    options?: ChannelOptions,
  ): Channel<Events, Meta> {
    return new Channel<Events, Meta>(this.#channels, topic, options)
  }

  /** Resolves when everything that a transaction did, and this client may see, has reached its queries: an optimistic write may then be
   *  dropped. Waits through lost connections too.
   *  @param txid the writer's `pg_current_xact_id()`, as text
   *  @throws TidegateError WAIT_TIMEOUT when it has not ended in time, TXID_INVALID when it was rolled back or never began,
   *  CLIENT_CLOSED */
  async waitFor(txid: string | bigint, { timeoutMs = 30_000 }: { readonly timeoutMs?: number } = {}): Promise<void> {
    this.#start()
    const life = this.#life
    this.#loadingWaits ??= this.#loadWaits()
    const waits = await this.#loadingWaits
    const { name } = this.#connection.state
    if (life !== this.#life || name === 'closed' || name === 'refused')
      throw new TidegateError('CLIENT_CLOSED', 'the client was closed or logged out')
    return waits.add(String(txid), timeoutMs)
  }

  /** The user leaves: ends every subscription, forgets the token and all rows. The client may be used anew, for whomever `token` then
   *  speaks of. */
  async logout(): Promise<void> {
    // First: what ends below must not be written.
    const forgotten = this.#queries.signedOut()
    this.#feeds.end()
    this.#channels.end()
    this.#life += 1
    this.#waits?.end()
    this.#connection.reset()
    await forgotten
  }

  /** Ends the connection and every subscription, for good. */
  close(): void {
    this.#life += 1
    this.#connection.stop()
    void this.#queries.close()
  }

  async #loadWaits(): Promise<Waits> {
    try {
      const { Waits } = await import('./connection/waits.ts')
      this.#waits = new Waits({
        send: frame => this.#connection.send(frame),
        reached: position => this.#feeds.haveReached(position),
      })
      return this.#waits
    } catch (cause) {
      this.#loadingWaits = null
      throw new TidegateError('CONNECTION_LOST', `the code that waits could not be fetched: ${cause}`, { cause })
    }
  }

  #start(): void {
    this.#connection.start()
  }

  #add(feed: Feed): () => void {
    return this.#enter(feed).remove
  }

  #enter(feed: Feed): FeedHandle {
    const { ask, remove } = this.#feeds.add(feed)
    this.#start()
    this.#tellStatus()
    return {
      ask,
      remove: () => {
        remove()
        this.#tellStatus()
      },
    }
  }

  #received(frame: ServerFrame): void {
    if (frame.type === 'welcome') this.#channels.connected(frame.connection)
    this.#feeds.receive(frame)
    this.#waits?.receive(frame)
    this.#tellStatus()
  }

  #tellStatus(): void {
    const { state, transport } = this.#connection
    const status = statusOf(state, { transport, areLive: this.#feeds.areLive, stale: this.#feeds.stale })
    if (isSame(status, this.#status)) return
    this.#status = status
    for (const listener of [...this.#listeners]) {
      try {
        listener(status)
      } catch (error) {
        this.#report(error instanceof Error ? error : new Error(String(error)))
      }
    }
  }
}

/** Of the same fields with the same values: reasons are objects that stay the same. */
const isSame = (a: Status, b: Status): boolean =>
  Object.keys(a).length === Object.keys(b).length &&
  Object.entries(a).every(([name, value]) => (b as unknown as Record<string, unknown>)[name] === value)
