// Our own Subscriptions interface, held in memory: queries with a log of events, so that the wires can be tested alone.
import { createHash } from 'node:crypto'
import type { Json, JsonRow, RowChange } from '../../../../src/protocol/messages.ts'
import { type Position, WHOLE_COMMIT } from '../../../../src/protocol/position.ts'
import { TidegateError } from '../../../../src/protocol/tidegate-error.ts'
import {
  Outgoing,
  type Outlet,
  type Principal,
  type SubscribeRequest,
  type Subscription,
  type Subscriptions,
  type TableName,
} from '../../../../src/server/subscribe/subscription.ts'

export const epoch = '1f2e3d4c'
export const at = (lsn: number): Position => ({ epoch, lsn: BigInt(lsn), index: WHOLE_COMMIT })

interface Query {
  readonly number: number
  readonly request: SubscribeRequest
  readonly rows: JsonRow[]
  readonly log: { lsn: number; outgoing: Outgoing }[]
}

export class MemoryCore implements Subscriptions {
  readonly queries = new Map<string, Query>()
  readonly open = new Set<MemorySubscription>()
  readonly requests: SubscribeRequest[] = []
  lsn = 0x1000
  stale = false
  /** Rows of a snapshot's part. */
  partRows = 100
  /** Waits in `subscribe`, before it resolves. */
  gate: Promise<void> = Promise.resolve()
  waiting = 0

  async subscribe(principal: Principal, request: SubscribeRequest, outlet: Outlet): Promise<Subscription> {
    this.requests.push(request)
    this.waiting += 1
    await this.gate
    this.waiting -= 1
    if (request.table === 'nope') throw new TidegateError('TABLE_UNKNOWN', 'there is no table public.nope')
    if (request.table === 'broken') throw new Error('a secret of the server')
    const query = this.query(request)
    const subscription = new MemorySubscription(this, query, principal, request, outlet)
    this.open.add(subscription)
    // As the door does: nothing comes before the promise resolves, and not in the same turn.
    setImmediate(() => subscription.begin())
    return subscription
  }

  async admit(principal: Principal): Promise<void> {
    if (principal.role === 'postgres') throw new TidegateError('ROLE_REFUSED', 'the role postgres is not listed')
  }

  /** What `tables` gives. */
  tracked: readonly TableName[] = [{ schema: 'public', table: 'messages' }]
  readonly #tableListeners = new Set<() => void>()

  async tables(): Promise<readonly TableName[]> {
    return this.tracked
  }

  onTables(listener: () => void): () => void {
    this.#tableListeners.add(listener)
    return () => {
      this.#tableListeners.delete(listener)
    }
  }

  /** Other tables are tracked from now on. */
  retrack(tables: readonly TableName[]): void {
    this.tracked = tables
    for (const listener of this.#tableListeners) listener()
  }

  head(): { position: Position; stale: boolean; lagMs: number } {
    return { position: at(this.lsn), stale: this.stale, lagMs: 3 }
  }

  async waitForTransaction(xid64: bigint, timeoutMs: number): Promise<Position> {
    if (xid64 === 404n) throw new TidegateError('WAIT_TIMEOUT', `transaction 404 was not seen in ${timeoutMs} ms`)
    if (xid64 === 500n) return new Promise(() => {})
    return at(Number(xid64))
  }

  query(request: Pick<SubscribeRequest, 'kind' | 'table' | 'filters'>): Query {
    const name = JSON.stringify([request.kind, request.table, request.filters])
    let query = this.queries.get(name)
    if (query === undefined) {
      query = { number: this.queries.size + 1, request: request as SubscribeRequest, rows: [], log: [] }
      this.queries.set(name, query)
    }
    return query
  }

  /** Commits changes to a table: one delta, or one change each, for every query of it. */
  commit(table: string, changes: RowChange[]): void {
    this.lsn += 16
    for (const query of this.queries.values()) {
      if (query.request.table !== table) continue
      const { kind } = query.request
      if (kind === 'live') {
        const json = JSON.stringify({ changes, done: true, committedAt })
        this.append(query, new Outgoing('delta', json, at(this.lsn), BigInt(this.lsn - 16)))
        continue
      }
      for (const [index, change] of changes.entries()) {
        const { op } = change
        const rest =
          op === 'insert' ? { key: change.key, new: change.row } : op === 'truncate' ? {} : { key: change.key }
        const json = JSON.stringify({ op, schema: 'public', table, ...rest, committedAt })
        const isLast = index === changes.length - 1
        this.append(query, new Outgoing('change', json, { ...at(this.lsn), index: isLast ? WHOLE_COMMIT : index + 1 }))
      }
    }
    for (const subscription of [...this.open]) subscription.pump()
  }

  insert(table: string, id: number, body: Json = 'hello'): void {
    this.commit(table, [{ op: 'insert', key: { id }, row: { id, body } }])
  }

  append(query: Query, outgoing: Outgoing): void {
    query.log.push({ lsn: this.lsn, outgoing })
  }

  of(table: string): MemorySubscription[] {
    return [...this.open].filter(subscription => subscription.request.table === table)
  }
}

export const committedAt = '2026-01-02T03:04:05.678901+00:00'

export class MemorySubscription implements Subscription {
  readonly kind: 'live' | 'changes'
  readonly query: number
  readonly tag: string
  readonly key = ['id']
  readonly resumed: boolean
  readonly warnings
  readonly principal: Principal
  readonly request: SubscribeRequest
  readonly outlet: Outlet
  readonly #core: MemoryCore
  readonly #query: Query
  #cursor: number
  #stands: Position
  isBlocked = false
  refusals = 0
  resumes = 0
  isClosed = false
  #hasBegun = false

  constructor(core: MemoryCore, query: Query, principal: Principal, request: SubscribeRequest, outlet: Outlet) {
    const { sub, org } = principal.claims
    this.#core = core
    this.#query = query
    this.principal = principal
    this.request = request
    this.outlet = outlet
    this.kind = request.kind
    this.query = query.number
    this.tag = createHash('sha256').update(`${query.number} ${sub} ${org}`).digest('base64url').slice(0, 10)
    this.resumed = request.since?.tag === this.tag
    const since = this.resumed ? Number(request.since!.lsn) : core.lsn
    this.#cursor = query.log.filter(entry => entry.lsn <= since).length
    this.#stands = this.resumed ? request.since! : at(core.lsn)
    this.warnings =
      request.table === 'open' ? [{ code: 'NO_ROW_SECURITY', message: 'row-level security is off on public.open' }] : []
  }

  begin(): void {
    this.#hasBegun = true
    if (this.isClosed) return
    if (this.request.since !== null && !this.resumed) this.resync('QUERY_CHANGED', 'another tag')
    else if (!this.resumed) this.snapshot()
    this.pump()
  }

  resync(code: string, reason: string): void {
    this.outlet.resync(code, reason)
    this.snapshot()
  }

  snapshot(): void {
    if (this.kind === 'changes') return
    const { rows } = this.#query
    const size = this.#core.partRows
    for (let start = 0; start === 0 || start < rows.length; start += size) {
      const done = start + size >= rows.length
      const json = JSON.stringify({ rows: rows.slice(start, start + size), done })
      this.send(new Outgoing('snapshot', json, done ? this.#stands : null))
    }
  }

  pump(): void {
    while (this.#hasBegun && !this.isClosed && !this.isBlocked && this.#cursor < this.#query.log.length) {
      const { outgoing } = this.#query.log[this.#cursor]!
      this.#cursor += 1
      this.send(outgoing)
    }
    if (this.#cursor === this.#query.log.length && !this.isBlocked) this.#stands = at(this.#core.lsn)
  }

  send(outgoing: Outgoing): void {
    if (outgoing.position !== null) this.#stands = outgoing.position
    if (this.outlet.send(outgoing)) return
    this.refusals += 1
    this.isBlocked = true
  }

  position(): Position {
    return this.#stands
  }

  resume(): void {
    this.resumes += 1
    this.isBlocked = false
    this.pump()
  }

  retreat(first: Outgoing): void {
    this.#cursor = this.#query.log.filter(entry => entry.lsn <= Number(first.sinceLsn)).length
    this.#stands = at(Number(first.sinceLsn))
    this.isBlocked = true
  }

  close(): void {
    this.isClosed = true
    this.#core.open.delete(this)
  }
}
