// The rows of a live query with a limit, in the order in which its events put them. Strict: whatever does not fit what is held is an
// error.
import type { DeltaEvent, JsonRow, OrderTerm, RowChange, SnapshotEvent } from '../../src/protocol/messages.ts'
import { parseExactly } from './exact-json.ts'
import { type SseEventRead, SseStream } from './node.ts'

export class OrderedRows {
  rows: JsonRow[] = []
  exact = false
  readonly resyncs: string[] = []
  readonly history: string[] = []
  order: readonly OrderTerm[] = []
  limit = 0
  resumed: boolean | null = null
  #key: readonly string[] = ['id']
  #parts: RowChange[] = []
  /** What is held is of a connection before; a snapshot may replace it. */
  #isOld = false

  /** The connection ended. */
  interrupt(): void {
    this.#parts = []
  }

  take({ event, data }: { event: string; data: unknown }): void {
    this.history.push(`${event} ${JSON.stringify(data)}`.slice(0, 600))
    if (event === 'subscribed') {
      const subscribed = data as { key: string[]; order: OrderTerm[]; limit: number; resumed: boolean }
      this.#key = subscribed.key
      this.order = subscribed.order
      this.limit = subscribed.limit
      this.resumed = subscribed.resumed
      this.#isOld = !subscribed.resumed
      if (subscribed.resumed && !this.exact) throw new Error('resumed from rows that were not whole')
    } else if (event === 'resync') {
      this.resyncs.push((data as { code: string }).code)
      this.#isOld = true
    } else if (event === 'snapshot') this.#snapshot(data as SnapshotEvent)
    else if (event === 'delta') this.#delta(data as DeltaEvent)
  }

  #snapshot({ rows, gone, done }: SnapshotEvent): void {
    if (this.#isOld) {
      this.rows = []
      this.exact = false
      this.#isOld = false
    }
    if (this.exact) throw new Error('a snapshot that nobody asked for')
    if (gone !== undefined) throw new Error('a window that takes rows back')
    this.rows.push(...rows)
    if (new Set(this.rows.map(row => this.#nameOf(row))).size !== this.rows.length) throw new Error('a row twice')
    this.exact = done
  }

  #delta({ changes, done }: DeltaEvent): void {
    if (!this.exact) throw new Error('a delta before the rows were whole')
    this.#parts.push(...changes)
    if (!done) return
    const all = this.#parts
    this.#parts = []
    if (all.length === 0) throw new Error('an empty delta')
    const rows = new Map(this.rows.map(row => [this.#nameOf(row), row]))
    const moving = new Set<string>()
    for (const change of all) {
      if (change.op === 'truncate') {
        rows.clear()
        continue
      }
      const name = this.#nameOf(change.key)
      if ((change.op === 'insert') === rows.has(name))
        throw new Error(`${change.op} of ${name}, held: ${rows.has(name)}`)
      if (change.op === 'delete') rows.delete(name)
      else if (change.op === 'insert') {
        if (change.after === undefined) throw new Error(`an insert of ${name} without a place`)
        rows.set(name, change.row)
      } else {
        const row = rows.get(name)!
        const says = Object.entries(change.set).some(
          ([column, to]) => JSON.stringify(row[column]) !== JSON.stringify(to),
        )
        if (!says && change.after === undefined) throw new Error(`an update of ${name} that says nothing new`)
        rows.set(name, { ...row, ...change.set })
      }
      if (change.op !== 'delete' && change.after !== undefined) moving.add(name)
    }
    const sequence = this.rows.map(row => this.#nameOf(row)).filter(name => rows.has(name) && !moving.has(name))
    for (const change of all) {
      if (change.op === 'truncate' || change.op === 'delete' || change.after === undefined) continue
      const at = change.after === null ? 0 : sequence.indexOf(this.#nameOf(change.after)) + 1
      if (at === 0 && change.after !== null)
        throw new Error(`after ${JSON.stringify(change.after)}, which is not there`)
      sequence.splice(at, 0, this.#nameOf(change.key))
    }
    this.rows = sequence.map(name => rows.get(name)!)
    if (this.rows.length !== rows.size) throw new Error('rows without a place')
    if (this.rows.length > this.limit) throw new Error(`${this.rows.length} rows of ${this.limit}`)
  }

  #nameOf(row: JsonRow): string {
    return JSON.stringify(this.#key.map(column => row[column]))
  }
}

/** Such a query over SSE. */
export class OrderedSse {
  readonly stream: SseStream
  readonly rows: OrderedRows
  failure: unknown = null

  private constructor(stream: SseStream, rows: OrderedRows) {
    this.stream = stream
    this.rows = rows
  }

  static async open(node: { url: string }, path: string, token: string, resume?: OrderedSse): Promise<OrderedSse> {
    const stream = await SseStream.open(node, path, token, resume?.stream.lastEventId)
    if (stream.status !== 200) throw new Error(`${path}: ${JSON.stringify(stream.errorBody)}`)
    const live = new OrderedSse(stream, resume?.rows ?? new OrderedRows())
    live.rows.interrupt()
    const take = ({ event, json }: SseEventRead): void => {
      try {
        // Exactly: an update from 1 to 1.0 says something new.
        live.rows.take({ event, data: parseExactly(json) })
      } catch (error) {
        live.rows.history.push(`FAILED ${String(error)}`)
        live.failure ??= error
      }
    }
    for (const event of stream.events) take(event)
    stream.onEvent = take
    return live
  }

  /** Waits until it holds these rows, by what `of` makes of each. @throws with what it was told last */
  async settle(expected: readonly string[], of: (row: JsonRow) => string, timeoutMs = 20_000): Promise<void> {
    const held = (): string => this.rows.rows.map(of).join('|')
    try {
      await this.stream.waitFor(
        () => this.failure !== null || (this.rows.exact && held() === expected.join('|')),
        timeoutMs,
      )
    } catch {}
    if (this.failure === null && this.rows.exact && held() === expected.join('|')) return
    throw new Error(
      `${String(this.failure)}\nheld     ${held()}\nexpected ${expected.join('|')}\n${this.rows.history.slice(-8).join('\n')}`,
    )
  }

  [Symbol.dispose](): void {
    this.stream.close()
  }
}
