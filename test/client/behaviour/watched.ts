// A client and all that it tells, kept for whoever asks. Runs where the client runs, in Node or in a page: it knows the client alone.
import { type Client, createClient, type Status, type TransportName } from '../../../src/client/client.ts'
import type { JsonRow } from '../../../src/protocol/messages.ts'

/** Rows below change again and again and are read by a live query, those from here on are inserted once and read as changes. */
export const firstEventId = 1000

export interface WatchOptions {
  readonly url: string
  readonly token: string
  /** Left out: those of the client's own choice. */
  readonly transports?: readonly TransportName[]
}

/** In short, to be asked often. */
export interface Glance {
  readonly status: Status
  /** Since when, on the clock of this machine, it has been saying without a break that nothing is lost; null: it does not. */
  readonly liveSince: number | null
  /** How often it stopped saying so. */
  readonly losses: number
  /** The last event that it was told of both as a change and as a message, and has in its window. */
  readonly lastEvent: number
}

export interface Seen extends Glance {
  readonly rows: readonly JsonRow[]
  readonly rowsStatus: string
  /** Ids of what was inserted, as the changes came. */
  readonly events: readonly number[]
  /** The same ids, as messages of a channel with a history. */
  readonly messages: readonly number[]
  /** The newest of them, newest first, as a query with an order and a limit has them. */
  readonly newest: readonly number[]
  /** Codes of what was told to begin anew. */
  readonly resyncs: readonly string[]
  /** What went wrong that nobody else hears of. */
  readonly errors: readonly string[]
  /** The last statuses, in words. */
  readonly story: readonly string[]
}

export const topic = 'room:1'
export const windowRows = 5
const storyLines = 60

export class Watched {
  readonly #client: Client
  readonly #events: number[] = []
  readonly #messages: number[] = []
  #newest: readonly number[] = []
  readonly #resyncs: string[] = []
  readonly #errors: string[] = []
  readonly #story: string[] = []
  #rows: readonly JsonRow[] = []
  #rowsStatus = ''
  #status: Status = { name: 'idle' }
  #liveSince: number | null = null
  #losses = 0

  constructor({ url, token, transports }: WatchOptions) {
    const onError = (error: Error): void => void this.#errors.push(String(error.stack ?? error))
    this.#client = createClient(url, { token, onError, ...(transports === undefined ? {} : { transports }) })
    this.#client.onStatus(status => this.#moved(status))
    const messages = this.#client.from('messages')
    messages
      .where('id', '<', firstEventId)
      .live()
      .subscribe(({ rows, status, error }) => {
        this.#rows = rows
        this.#rowsStatus = status
        if (error !== null && status === 'catching up') this.#resyncs.push(error.code)
      })
    const onResync = ({ code }: { readonly code: string }): void => void this.#resyncs.push(code)
    messages.where('id', '>=', firstEventId).changes({ onResync }, change => {
      if (change.op !== 'insert') this.#errors.push(`${change.op} of a row that was only inserted`)
      this.#events.push(Number(change.key?.id))
    })
    messages
      .where('author', '=', 'event')
      .select(['id'])
      .orderBy('id', 'desc')
      .limit(windowRows)
      .live()
      .subscribe(({ rows }) => {
        this.#newest = rows.map(({ id }) => Number(id))
      })
    const room = this.#client.channel<{ event: number }>(topic)
    room.on('event', ({ payload }) => this.#messages.push(payload))
    room.onGap(({ code }) => this.#resyncs.push(code))
  }

  get glance(): Glance {
    return {
      status: this.#status,
      liveSince: this.#liveSince,
      losses: this.#losses,
      lastEvent: Math.min(this.#events.at(-1) ?? 0, this.#messages.at(-1) ?? 0, this.#newest[0] ?? 0),
    }
  }

  get seen(): Seen {
    return {
      ...this.glance,
      rows: this.#rows,
      rowsStatus: this.#rowsStatus,
      events: this.#events,
      messages: this.#messages,
      newest: this.#newest,
      resyncs: this.#resyncs,
      errors: this.#errors,
      story: this.#story,
    }
  }

  close(): void {
    this.#client.close()
  }

  #moved(status: Status): void {
    this.#status = status
    this.#story.push(`${new Date().toISOString().slice(14)} ${JSON.stringify(status)}`)
    if (this.#story.length > storyLines) this.#story.shift()
    const isLive = (status.name === 'live' || status.name === 'degraded') && !status.stale
    if (isLive) this.#liveSince ??= Date.now()
    else {
      if (this.#liveSince !== null) this.#losses += 1
      this.#liveSince = null
    }
  }
}
