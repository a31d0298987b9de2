// A strict reader of one or several queries that goes on, mid-stream, on another node over another wire, where it stands.
import type { ChangeEvent } from '../../src/protocol/messages.ts'
import { type Asked, connect, Refused, type Transport, type Wire, type WireEvent } from '../checker/wires.ts'
import { StrictRows } from '../support/node.ts'
import { until } from '../support/stalled.ts'

type Query = Asked['query']

const historyLines = 60

/** One of its queries. */
export class HoppingQuery {
  readonly query: Query
  readonly rows: StrictRows
  /** Of a change feed: `insert 7`, in the order in which they came. */
  readonly changes: string[] = []
  since: string | null = null

  constructor(query: Query) {
    this.query = query
    this.rows = new StrictRows()
  }

  take(kind: 'live' | 'changes', { event, position, data }: WireEvent): void {
    if (event === 'change') {
      const { op, key } = data as ChangeEvent
      this.changes.push(`${op} ${key!.id}`)
    } else if (data !== null) this.rows.take({ event, data })
    if (event === 'resync') this.since = null
    else if (position !== null && (kind === 'changes' || this.rows.exact)) this.since = position
  }
}

export class Hopper {
  readonly name: string
  readonly kind: 'live' | 'changes'
  readonly queries: readonly HoppingQuery[]
  failure: string | null = null
  hops = 0
  /** Each pair of a wire and a node that it read on. */
  readonly visited = new Set<string>()
  /** What ended a connection before this reader left it. */
  readonly ends: string[] = []
  readonly #token: string
  readonly #history: string[] = []
  #wire: Wire | null = null
  #connection = 0
  #heard = 0

  constructor(name: string, kind: 'live' | 'changes', queries: readonly Query[], token: string) {
    this.name = name
    this.kind = kind
    this.queries = queries.map(query => new HoppingQuery(query))
    this.#token = token
  }

  get isThere(): boolean {
    return this.#wire !== null && this.queries.every(({ since }) => since !== null)
  }

  get resyncs(): string[] {
    return this.queries.flatMap(({ rows }) => rows.resyncs)
  }

  /** For the message of a test that fails. */
  get story(): string {
    return `${this.name}: ${this.failure}\n${this.#history.slice(-historyLines).join('\n')}`
  }

  /** Leaves without a word and comes to another place.
   *  @returns false when nobody is there, or the node sent it on */
  async hop(url: string, transport: Transport): Promise<boolean> {
    this.leave()
    const connection = this.#connection
    const isMine = (): boolean => this.#connection === connection
    this.#note(`-- ${transport} at ${url}, since ${this.queries.map(({ since }) => since)}`)
    try {
      const wire = await connect({
        url,
        transport,
        token: this.#token,
        asked: this.queries.map(({ query, since }) => ({ kind: this.kind, query, since })),
        onEvent: (place, event) => {
          if (isMine()) this.#take(place, event)
        },
        onEnd: ({ code }) => {
          if (!isMine()) return
          this.ends.push(code)
          this.#note(`-- ended: ${code}`)
          this.leave()
        },
      })
      // A poll that was cut ended before this.
      if (!isMine()) {
        wire.close()
        return false
      }
      this.#wire = wire
    } catch (error) {
      const isRefused = error instanceof Refused
      if (isRefused && !error.ending.isRetryable) this.failure ??= error.message
      if (isRefused) this.ends.push(error.ending.code)
      this.#note(`-- ${error}`)
      return false
    }
    this.hops += 1
    this.visited.add(`${transport} ${url}`)
    return true
  }

  /** Resolves when something has come over this connection, or it has ended. */
  async heard(count: number): Promise<void> {
    await until(() => this.#wire === null || this.#heard >= count || this.failure !== null, 30_000).catch(() => {
      throw new Error(`it hears nothing: ${this.story}`)
    })
  }

  leave(): void {
    this.#connection += 1
    this.#wire?.close()
    this.#wire = null
    this.#heard = 0
    for (const query of this.queries) {
      query.rows.interrupt()
      if (this.kind === 'live' && !query.rows.exact) query.since = null
    }
  }

  #note(line: string): void {
    this.#history.push(line)
    if (this.#history.length > 2 * historyLines) this.#history.splice(0, historyLines)
  }

  #take(place: number, event: WireEvent): void {
    if (event.event === 'delta' || event.event === 'change') this.#heard += 1
    this.#note(`${place} ${event.position} ${event.event} ${JSON.stringify(event.data)?.slice(0, 300)}`)
    try {
      this.queries[place]!.take(this.kind, event)
    } catch (error) {
      this.failure ??= String(error)
    }
  }
}
