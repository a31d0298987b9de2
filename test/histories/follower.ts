// One subscriber of a history, as strict as a client can be: what it is told must fit what it holds. Notes what it held at which
// positions, and which events it was sent, for `judge` to compare with the truth.
import type { ChangeEvent, DeltaEvent, JsonRow, SnapshotEvent } from '../../src/protocol/messages.ts'
import { type Position, WHOLE_COMMIT } from '../../src/protocol/position.ts'
import { TidegateError } from '../../src/protocol/tidegate-error.ts'
import type {
  Batch,
  Outgoing,
  Outlet,
  Principal,
  SubscribeRequest,
  Subscription,
  Subscriptions,
} from '../../src/server/subscribe/subscription.ts'
import { StrictRows } from '../support/node.ts'
import { OrderedRows } from '../support/ordered-rows.ts'
import type { Claims, Subscriber, Table } from './history.ts'
import { keyOf } from './truth.ts'

/** The rows held at a position: JSON, one a line, sorted, or in the order of its query. */
export interface Held {
  readonly lsn: bigint
  readonly rows: string
  readonly how: string
}

/** Rows of a snapshot's earlier parts: each could be read at some time while it came. */
export interface Shown {
  readonly from: bigint
  readonly to: bigint
  readonly rows: readonly string[]
}

export interface Received {
  readonly lsn: bigint
  readonly event: ChangeEvent
}

/** Positions from, and without, the first, up to and with the last. */
export interface Range {
  readonly from: bigint
  readonly to: bigint
}

/** Come again at once. */
const passing: readonly string[] = ['UNSUBSCRIBED_TABLE_CHANGED', 'BUSY', 'UNAVAILABLE']

export class Follower {
  readonly subscriber: Subscriber
  readonly table: Table
  readonly held: Held[] = []
  readonly shown: Shown[] = []
  readonly received: Received[] = []
  /** Where events are owed. */
  readonly owed: Range[] = []
  /** Where they may come late. */
  readonly behind: Range[] = []
  readonly resyncs: string[] = []
  /** All that it was told, in short. */
  readonly told: string[] = []
  failure: string | null = null
  /** Why it was not admitted. */
  refusal: string | null = null
  /** Why Postgres is asked for its rows; null: they are judged in the stream. */
  asked: string | null = null
  resumed = 0
  isGone = true
  readonly #door: Subscriptions
  readonly #principal: Principal
  readonly #request: SubscribeRequest
  readonly #rows: StrictRows | OrderedRows
  #coming: Promise<void> = Promise.resolve()
  #subscription: Subscription | null = null
  /** Counts the times it came: what comes through an outlet of before is not for it. */
  #visits = 0
  #since: SubscribeRequest['since'] = null
  /** What it was told last of where it stands. */
  #stand: Position | null = null
  /** That of the last event. */
  #lastEvent: Position | null = null
  #last = 0n
  #lastIndex = 0
  #parts: string[] = []
  #partsFrom = 0n
  #owedFrom: bigint | null = null
  #behindFrom: bigint | null = null
  #isFull = false
  #wasRefused = false

  constructor(door: Subscriptions, schema: string, table: Table, claims: Claims, subscriber: Subscriber) {
    this.subscriber = subscriber
    this.table = table
    this.#door = door
    this.#rows = subscriber.window === undefined ? new StrictRows(table.key) : new OrderedRows()
    this.#principal = { role: claims.role, claims, expiresAt: null }
    const { kind, filter, select } = subscriber
    const [name, ...value] = filter.split('=')
    const filters: [string, string][] = filter === '' ? [] : [[name!, value.join('=')]]
    const { window } = subscriber
    const [column = '', ...words] = (window?.order ?? '').split('.')
    const direction = words.includes('desc') ? 'desc' : 'asc'
    const last = words.includes('nullslast') || (direction === 'asc' && !words.includes('nullsfirst'))
    const order = window === undefined ? null : [{ column, direction, nulls: last ? 'last' : 'first' } as const]
    const asked = { kind, schema, table: table.name, filters, select, events: null, since: null }
    this.#request = window === undefined ? asked : { ...asked, order, limit: window.limit }
  }

  /** Subscribes, at its position if it has one. Does not wait for the answer. */
  come(): void {
    this.isGone = false
    this.#coming = this.#coming.then(() => this.#come())
  }

  /** Goes without a word. @param byEvent comes back at the position of the last event, whatever heartbeats told since */
  async leave(byEvent: boolean): Promise<void> {
    await this.#coming
    this.isGone = true
    this.#visits += 1
    if (this.#subscription === null) return
    this.look()
    const position = (byEvent ? this.#lastEvent : null) ?? this.#subscription.position()
    this.#subscription.close()
    this.#setBehind(position.lsn)
    const holdsAll = this.subscriber.kind === 'changes' || this.#rows.exact
    this.#since = holdsAll ? { ...position, tag: this.#subscription.tag } : null
    this.#rows.interrupt()
    this.#parts = []
    this.#subscription = null
    this.#isFull = false
  }

  /** Its queue is full from now on. */
  fill(): void {
    this.#isFull = true
    this.#wasRefused = false
    const position = this.#subscription?.position()
    if (position !== undefined) this.#setBehind(position.lsn)
  }

  drain(): void {
    this.#isFull = false
    if (!this.#wasRefused) return
    this.#wasRefused = false
    this.#subscription?.resume()
  }

  /** Notes where it stands, by the word of the server, and what it holds there. */
  look(): void {
    if (this.#subscription === null || this.failure !== null) return
    const position = this.#subscription.position()
    const { lsn } = position
    this.#stand = position
    // Where it began to be behind it may still be waiting, though nothing has come after.
    const hasMoved = this.#behindFrom !== null && lsn > this.#behindFrom
    if (hasMoved && !this.#isFull && lsn >= this.#door.head().position.lsn) this.#closeBehind(lsn)
    // Where Postgres is asked, what is held is what it showed last, not what it would show here.
    if (this.asked !== null) return
    if (this.subscriber.kind === 'live' && this.#rows.exact && lsn > this.#last) this.#note(lsn, 'position')
  }

  /** Whether it stands at the position or past it, with all that there is, or cannot come there. @param rows that it shows then */
  hasReached(lsn: bigint, rows: string): boolean {
    if (this.failure !== null || this.refusal !== null || this.isGone || this.#isFull) return true
    if (this.#subscription === null || this.#subscription.position().lsn < lsn) return false
    if (this.subscriber.kind === 'changes') return true
    return this.#rows.exact && (this.asked === null || this.#text() === rows)
  }

  /** For whoever wonders why it does not come to the end. */
  get stand(): string {
    const where = this.#subscription === null ? 'nowhere' : hex(this.#subscription.position().lsn)
    return `${where}, ${this.#rows.exact ? 'with all rows' : 'without a whole snapshot'}; told last: ${this.told.slice(-5).join(' | ')}`
  }

  /** Nothing more is owed. */
  end(): void {
    this.look()
    const to = this.#subscription?.position().lsn ?? this.#last
    if (this.#owedFrom !== null) this.owed.push({ from: this.#owedFrom, to })
    if (this.#behindFrom !== null) this.#closeBehind(to)
    this.#visits += 1
    this.#subscription?.close()
    this.#subscription = null
  }

  async settled(): Promise<void> {
    await this.#coming
  }

  async #come(): Promise<void> {
    const visit = ++this.#visits
    const since = this.#since
    this.#partsFrom = this.#door.head().position.lsn
    try {
      const subscription = await this.#door.subscribe(this.#principal, { ...this.#request, since }, this.#outlet(visit))
      if (subscription.exact === false) this.asked = subscription.warnings.map(({ message }) => message).join('; ')
      this.#subscription = subscription
      const { lsn } = subscription.position()
      if (subscription.resumed) this.resumed += 1
      this.#setBehind(lsn)
      if (this.subscriber.kind === 'changes') this.#owedFrom ??= lsn
      // What was held before is void; with a position it goes on, or a resync follows.
      else if (since === null) this.#rows.take({ event: 'resync', data: { code: '' } })
      if (this.#rows instanceof OrderedRows) {
        const { key, order, limit, resumed } = subscription
        this.#rows.take({ event: 'subscribed', data: { key, order, limit, resumed } })
      }
      this.told.push(`${subscription.resumed ? 'resumed' : 'subscribed'} at ${hex(lsn)}`)
    } catch (error) {
      this.isGone = true
      if (error instanceof TidegateError && error.code === 'POLICY_UNSUPPORTED') this.refusal = error.message
      else if (error instanceof TidegateError && passing.includes(error.code)) this.#comeAgain()
      else this.#fail(`refused: ${String(error)}`)
    }
  }

  #comeAgain(): void {
    setTimeout(() => this.come(), 10)
    this.isGone = false
  }

  #outlet(visit: number): Outlet {
    const isMine = (): boolean => visit === this.#visits
    return {
      sink: null,
      sinkIsFull: () => {},
      takeBack: () => {},
      send: outgoing => !isMine() || this.#take([outgoing]),
      sendBatch: (batch: Batch) => !isMine() || this.#take(batch.events),
      resync: code => {
        if (isMine()) this.#resync(code)
      },
      // It comes again by itself.
      move: () => false,
      fail: error => {
        if (isMine()) this.#ended(error)
      },
    }
  }

  /** @returns whether it has room for more */
  #take(events: readonly Outgoing[]): boolean {
    if (this.#isFull && this.#wasRefused) this.#fail('was sent more though its queue was full')
    this.#wasRefused = this.#isFull
    for (const event of events) {
      if (this.failure !== null) break
      if (event.position !== null) this.#stand = this.#lastEvent = event.position
      this.told.push(
        `${event.position === null ? '-' : hex(event.position.lsn)} ${event.event} ${event.json}`.slice(0, 500),
      )
      try {
        if (event.event === 'change') this.#change(JSON.parse(event.json) as ChangeEvent, event.position!)
        else this.#state(event)
      } catch (error) {
        this.#fail(String(error))
      }
    }
    return !this.#isFull
  }

  #state({ event, json, position }: Outgoing): void {
    const data = JSON.parse(json) as SnapshotEvent | DeltaEvent
    if ('changes' in data) this.#refuseEmpty(data)
    else this.#parts.push(...data.rows.map(row => JSON.stringify(row)))
    this.#rows.take({ event, data })
    if (position === null) return
    // Of a snapshot that is not the first of a visit the position may be that of before.
    if (event === 'delta' && position.lsn <= this.#last)
      throw new Error(`a delta at ${hex(position.lsn)} after the position ${hex(this.#last)} was told`)
    if (this.#parts.length > 0) this.shown.push({ from: this.#partsFrom, to: position.lsn, rows: this.#parts })
    this.#parts = []
    this.#note(position.lsn, event)
  }

  /** An update that changes nothing of what is held repeats something. */
  #refuseEmpty(delta: DeltaEvent): void {
    // One that has an order looks for itself.
    if (this.#rows instanceof OrderedRows) return
    const held = this.#rows.rows
    for (const change of delta.changes) {
      if (change.op !== 'update') continue
      const row = held.get(keyOf(this.table, change.key))
      if (row === undefined) continue
      const isNew = Object.entries(change.set).some(
        ([name, value]) => JSON.stringify(row[name]) !== JSON.stringify(value),
      )
      if (!isNew) throw new Error(`an update of ${JSON.stringify(change.key)} that says nothing new`)
    }
  }

  #change(event: ChangeEvent, { lsn, index }: Position): void {
    if (lsn < this.#last || (lsn === this.#last && index <= this.#lastIndex))
      throw new Error(`an event at ${hex(lsn)}-${index} after ${hex(this.#last)}-${this.#lastIndex}`)
    this.#last = lsn
    this.#lastIndex = index
    this.received.push({ lsn, event })
  }

  #resync(code: string): void {
    this.resyncs.push(code)
    this.told.push(`resync ${code}`)
    this.#partsFrom = this.#last
    this.#parts = []
    this.#lastEvent = null
    if (this.subscriber.kind === 'live') {
      this.#rows.take({ event: 'resync', data: { code } })
      return
    }
    // What lies between is lost, and said to be; the rest of a commit too in whose middle it stood. It goes on at the head.
    if (this.#owedFrom !== null) {
      const { lsn, index } = this.#stand ?? { lsn: this.#owedFrom, index: WHOLE_COMMIT }
      this.owed.push({ from: this.#owedFrom, to: index === WHOLE_COMMIT ? lsn : lsn - 1n })
    }
    this.#owedFrom = this.#door.head().position.lsn
  }

  #ended(error: unknown): void {
    this.told.push(`ended: ${String(error)}`)
    const tag = this.#subscription?.tag
    this.#subscription = null
    if (!(error instanceof TidegateError) || !passing.includes(error.code)) {
      this.#fail(`ended: ${String(error)}`)
      return
    }
    const holdsAll = this.subscriber.kind === 'changes' || this.#rows.exact
    this.#since = holdsAll && tag !== undefined && this.#stand !== null ? { ...this.#stand, tag } : null
    this.#rows.interrupt()
    this.#parts = []
    this.#comeAgain()
  }

  #note(lsn: bigint, how: string): void {
    this.#last = lsn
    this.held.push({ lsn, rows: this.#text(), how })
  }

  #text(): string {
    const rows = [...this.#rows.rows.values()].map((row: JsonRow) => JSON.stringify(row))
    return (this.#rows instanceof OrderedRows ? rows : rows.sort()).join('\n')
  }

  #setBehind(lsn: bigint): void {
    this.#behindFrom ??= lsn
  }

  #closeBehind(to: bigint): void {
    this.behind.push({ from: this.#behindFrom!, to })
    this.#behindFrom = null
  }

  #fail(text: string): void {
    this.failure ??= text
  }
}

const hex = (lsn: bigint): string => lsn.toString(16)
