// Those who read while things break: strict, and coming back for ever, as a good client does.
import type { ChangeEvent, DeltaEvent, JsonRow, RowChange } from '../../src/protocol/messages.ts'
import { StrictRows } from '../support/node.ts'
import type { Transport } from '../support/readers.ts'
import { connect, type Wire, type WireEvent } from './wires.ts'

/** Rows below are changed again and again and read by live queries, those from here on are inserted once and read as
 *  changes. */
export const firstEventId = 1000
/** Rows from here on to the first event, and events from here on, are large: only those read them who are to be slow. */
export const firstLargeRowId = 900
export const firstLargeEventId = 1_000_000_000

const filters = {
  live: { all: `id=lt.${firstEventId}`, small: `id=lt.${firstLargeRowId}` },
  changes: { all: `id=gte.${firstEventId}`, small: `id=gte.${firstEventId}&id=lt.${firstLargeEventId}` },
} as const

/** A client that hears nothing for so long takes its connection for dead. The server speaks every second. */
const silenceMs = 5000
const comeAgainMs = 50
const historyLines = 40

export interface LoyalReaderOptions {
  readonly transport: Transport
  readonly kind: 'live' | 'changes'
  readonly rows: 'all' | 'small'
  readonly url: string
  readonly token: string
}

export class LoyalReader {
  readonly name: string
  readonly kind: 'live' | 'changes'
  readonly transport: Transport
  readonly rows = new StrictRows()
  /** Ids of the inserted rows that it was told of, in order. */
  readonly inserted: number[] = []
  /** How long after its writer began each row came. */
  readonly latencies: { readonly at: number; readonly ms: number }[] = []
  /** Codes that ended its connections: the server's; `closed` where it gave none; `silent` where the reader gave up. */
  readonly ends: string[] = []
  /** What did not fit what it held. */
  failure: string | null = null
  /** Whether the last sign of life said that the stream stands still, and when that last changed, by performance.now(). */
  isStale = false
  staleChangedAt = 0
  readonly #options: LoyalReaderOptions
  readonly #history: string[] = []
  #wire: Wire | null = null
  #connection = 0
  #since: string | null = null
  #isPaused = false
  #heardAt = 0
  #nextComeAt = 0
  #timer: NodeJS.Timeout | undefined

  constructor(options: LoyalReaderOptions) {
    this.#options = options
    this.kind = options.kind
    this.transport = options.transport
    this.name = `${options.transport} ${options.kind}`
  }

  start(): this {
    this.#timer = setInterval(() => this.#look(), 10)
    return this
  }

  /** For the message of a test that fails. */
  get story(): string {
    return `${this.name}, ended by [${this.ends}], told to start over by [${this.resyncs}]`
  }

  /** Whether it holds a state, or a place in the stream of events. */
  get isThere(): boolean {
    return this.#wire !== null && this.#since !== null && (this.kind === 'changes' || this.rows.exact)
  }

  /** Whether a row of this id is among those that it asks for. */
  asksFor(id: number): boolean {
    if (this.#options.rows === 'small' && (id >= firstLargeEventId || (id >= firstLargeRowId && id < firstEventId)))
      return false
    return this.kind === 'live' ? id < firstEventId : id >= firstEventId
  }

  get resyncs(): string[] {
    return this.rows.resyncs
  }

  /** Takes nothing more, and does not mind that nothing comes. */
  pause(): void {
    this.#isPaused = true
    this.#wire?.pause()
  }

  goOn(): void {
    this.#isPaused = false
    this.#heardAt = performance.now()
    this.#wire?.resume()
  }

  stop(): void {
    clearInterval(this.#timer)
    this.#drop()
  }

  #look(): void {
    const now = performance.now()
    if (this.#wire !== null && !this.#isPaused && now - this.#heardAt > silenceMs) this.#ended('silent')
    if (this.#wire !== null || now < this.#nextComeAt || this.failure !== null) return
    this.#heardAt = now
    this.#nextComeAt = now + comeAgainMs
    if (this.kind === 'live' && !this.rows.exact) this.#since = null
    const connection = this.#connection
    const isMine = (): boolean => this.#connection === connection
    const { url, token, kind, transport, rows } = this.#options
    const at = { url, token, kind, transport, table: 'messages', filter: filters[kind][rows], since: this.#since }
    this.#wire = connect({
      ...at,
      onEvent: event => {
        if (isMine()) this.#take(event)
      },
      onEnd: code => {
        if (isMine()) this.#ended(code)
      },
    })
  }

  #drop(): void {
    this.#connection += 1
    this.#wire?.close()
    this.#wire = null
    this.#isPaused = false
    this.rows.interrupt()
  }

  #note(line: string): void {
    this.#history.push(line)
    if (this.#history.length > 2 * historyLines) this.#history.splice(0, historyLines)
  }

  #ended(code: string): void {
    this.ends.push(code)
    this.#note(`-- ended: ${code}`)
    this.#drop()
  }

  #take({ event, position, data }: WireEvent): void {
    this.#heardAt = performance.now()
    this.#note(`${position} ${event} ${JSON.stringify(data).slice(0, 400)}`)
    if (event === 'heartbeat' || event === 'heard') this.#beat(data as { readonly stale: boolean })
    try {
      if (event === 'change') this.#event(data as ChangeEvent)
      else this.rows.take({ event, data })
      if (event === 'delta') for (const change of (data as DeltaEvent).changes) this.#measure(rowOf(change))
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error)
      this.failure ??= `${this.name}: ${reason}\n${this.#history.slice(-historyLines).join('\n')}`
    }
    if (event === 'resync') this.#since = null
    else if (position !== null && !position.startsWith('-')) this.#since = position
  }

  #beat({ stale }: { readonly stale: boolean }): void {
    if (stale !== this.isStale) this.staleChangedAt = performance.now()
    this.isStale = stale
  }

  #event({ op, key, new: row }: ChangeEvent): void {
    if (op !== 'insert') throw new Error(`${op} of a row that was only inserted`)
    this.inserted.push(Number(key!.id))
    this.#measure(row)
  }

  /** Bodies hold the time at which their writer began. */
  #measure(row: JsonRow | undefined): void {
    const writtenAt = Number(row?.body)
    if (writtenAt > 0) this.latencies.push({ at: writtenAt, ms: Date.now() - writtenAt })
  }
}

function rowOf(change: RowChange): JsonRow | undefined {
  return change.op === 'insert' ? change.row : change.op === 'update' ? change.set : undefined
}
