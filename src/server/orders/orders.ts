// What operators have ordered, on this node: read when it starts, kept with the stream, and carried out in the turn in which the
// commit of an order is served. Doors ask here whether a token is still taken.
//
// The guarantee: whoever was admitted before an order's commit was served is reached by it, and whoever comes later is judged by
// it. So the doors wait until the orders in force are known: all rows that a snapshot sees, with the commits that it does not
// see laid over them, at one position of the stream. And because an order may be served between the look at a door and the
// moment the connection can be found by its user, whoever holds connections looks again then (`verdictOn`).
import { setTimeout as sleep } from 'node:timers/promises'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Change, Commit, Relation } from '../decode/change.ts'
import type { Log } from '../log/log.ts'
import { isAway, type Lane } from '../postgres/database.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import { Slice } from '../route/slice.ts'
import type { SnapshotReader } from '../snapshot/reader.ts'
import type { Principal } from '../subscribe/subscription.ts'
import { carryOut, endOutdated, tellToRefresh } from './carry-out.ts'
import { type Order, orderColumns, orderOf, type Refresh, restOfSecond, tokenOf } from './order.ts'
import { OrdersInForce, type Verdict } from './orders-in-force.ts'
import { type OrdersRead, readOrders } from './read-orders.ts'
import type { OrderTargets, TokenOrders } from './targets.ts'

export interface OrdersOptions {
  readonly relay: Pick<MemoryRelay, 'epoch' | 'life' | 'pin' | 'unseen'>
  readonly head: Head
  readonly reader: Pick<SnapshotReader, 'passed'>
  /** Reads the table, as the server's login. */
  readonly reads: Lane
  /** Deletes what is over. */
  readonly upkeep: Lane
  readonly publication: string
  readonly targets: () => OrderTargets
  /** Whether this node holds the slot: one of them deletes. */
  readonly leads: () => boolean
  readonly log: Log
  /** Milliseconds since 1970, steady. */
  readonly now: () => number
}

const retryMs = 250
/** How long somebody at the door waits for the orders to be read. */
const patienceMs = 3000
const deleteEveryMs = 10_000

export class Orders implements TokenOrders {
  readonly #options: OrdersOptions
  readonly #inForce = new OrdersInForce()
  /** Of refreshes whose time is not over, one each. */
  readonly #timers = new Map<string, NodeJS.Timeout>()
  #oid: number | null = null
  #isKnown = false
  #isFirstRead = true
  #known = Promise.withResolvers<void>()
  #wasWarned = false
  readonly #stopped = new AbortController()

  constructor(options: OrdersOptions) {
    this.#options = options
  }

  readonly #refused = Promise.withResolvers<never>()

  /** Orders and kicks that are over, which are deleted some seconds later. */
  get size(): number {
    return this.#inForce.size
  }

  /** Reads what is in force, and from then on deletes what is over. Ends with the signal. @throws PRIVILEGE_MISSING */
  async run(signal: AbortSignal): Promise<void> {
    signal.addEventListener('abort', () => this.#stop(), { once: true })
    void this.#read()
    await Promise.race([this.#deleteNowAndThen(signal), this.#refused.promise])
  }

  async #deleteNowAndThen(signal: AbortSignal): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      await sleep(deleteEveryMs, undefined, { signal, ref: false }).catch(() => {})
      if (!signal.aborted && this.#options.leads()) await this.#deleteExpired()
    }
  }

  /** The window began anew: commits may be missing, and with them orders. Doors wait until they are read. */
  begin(): void {
    if (!this.#isKnown) return
    this.#isKnown = false
    this.#known = Promise.withResolvers()
    void this.#read()
  }

  async admit(principal: Principal): Promise<void> {
    if (!this.#isKnown) await Promise.race([this.#known.promise, sleep(patienceMs, undefined, { ref: false })])
    if (!this.#isKnown)
      throw new TidegateError('UNAVAILABLE', 'what operators have ordered is not known yet', { retryAfterMs: 1000 })
    const verdict = this.verdictOn(principal)
    if (verdict?.kind === 'refused') throw verdict.error
  }

  verdictOn(principal: Principal): Verdict | null {
    return this.#inForce.size === 0 ? null : this.#inForce.verdictOn(tokenOf(principal), this.#options.now())
  }

  /** Whether the commit gives orders, or takes some back. */
  concerns(commit: Commit): boolean {
    for (const relation of commit.announced) if (isOrders(relation)) this.#oid = relation.oid
    return this.#oid !== null && commit.relations.has(this.#oid)
  }

  /** Carries out what it orders: at once, but for a commit that is walked in slices.
   *  @returns null when it is done */
  serve(commit: Commit): Promise<void> | null {
    const fold = new Map<string, Order | null>()
    if (!commit.spooled) {
      for (const change of commit.changes()) this.#fold(change, fold)
      this.#apply(fold)
      return null
    }
    const walk = async (): Promise<void> => {
      const slice = new Slice()
      for (const change of commit.passing()) {
        this.#fold(change, fold)
        if (slice.over()) await slice.next()
      }
      this.#apply(fold)
    }
    return walk()
  }

  /** The last state of each row that the commit touches; null for one that is gone. */
  #fold(change: Change, fold: Map<string, Order | null>): void {
    if (change.relation.oid !== this.#oid) return
    if (change.kind === 'truncate') {
      for (const id of [...this.#inForce.ids, ...fold.keys()]) fold.set(id, null)
      return
    }
    const positions = positionsIn(change.relation)
    if (change.kind === 'delete') {
      fold.set(change.old.text(positions[0]!) ?? '', null)
      return
    }
    const order = orderOf(change.new, positions)
    if (order !== null) fold.set(order.id, order)
  }

  #apply(fold: ReadonlyMap<string, Order | null>): void {
    const now = this.#options.now()
    const given: Order[] = []
    for (const [id, order] of fold) {
      if (order === null) this.#takeBack(id)
      else {
        // A kick is over when it was carried out; the others hold as they stand now.
        if (order.kind !== 'kick' || !this.#inForce.has(id)) given.push(order)
        this.#put(order, now)
      }
    }
    this.#carryOut(given)
  }

  /** @param since when it was given, by this node's clock: a refresh counts from there */
  #put(order: Order, since: number): void {
    this.#takeBack(order.id)
    const tellAt = since + restOfSecond(order) + clocksDifferMs
    const deadlineMs = order.kind === 'refresh' ? tellAt + order.withinMs : 0
    this.#inForce.put(order, deadlineMs)
    if (order.kind === 'refresh') this.#expect(order, tellAt, deadlineMs)
  }

  #takeBack(id: string): void {
    this.#inForce.delete(id)
    clearTimeout(this.#timers.get(id))
    this.#timers.delete(id)
  }

  /** Tells whoever holds older tokens when the second of the order is over: fetched before, a new token would count as old too.
   *  Whoever comes meanwhile is told at once, by who holds its connection. */
  #expect(order: Refresh, tellAt: number, deadlineMs: number): void {
    const { targets, now } = this.#options
    const at = (time: number, act: () => void): void => {
      this.#timers.set(order.id, setTimeout(act, Math.max(0, time - now())).unref())
    }
    at(tellAt, () => {
      if (deadlineMs > now()) tellToRefresh(order, Math.min(deadlineMs - now(), order.withinMs), targets())
      at(deadlineMs, () => {
        this.#timers.delete(order.id)
        endOutdated(order, targets())
      })
    })
  }

  #carryOut(orders: readonly Order[]): void {
    if (orders.length === 0) return
    const ended = carryOut(orders, this.#options.targets())
    const named = orders.slice(0, maxLogged).map(({ id, kind }) => `${kind} ${id}`)
    this.#options.log.info({ orders: named, count: orders.length, ended }, 'carried out what an operator ordered')
  }

  async #read(): Promise<void> {
    const { relay, head, log, reader, reads, publication } = this.#options
    const { signal } = this.#stopped
    while (!signal.aborted) {
      const { life } = relay
      try {
        if (relay.epoch === '') {
          await head.change()
          continue
        }
        const pin = relay.pin()
        try {
          const read = await readOrders(reads, publication)
          await reader.passed(read.fence)
          while (!head.ready(read.fence)) await head.change()
          if (relay.life !== life) continue
          this.#take(read)
          return
        } finally {
          pin.release()
        }
      } catch (error) {
        if (signal.aborted) return
        if (isDenied(error)) {
          this.#refused.reject(unreadable(error))
          return
        }
        const isExpected = isAway(error) || error instanceof TidegateError
        log[isExpected ? 'debug' : 'error'](
          { err: error },
          'the orders of tidegate.orders could not be read; nobody is let in until they are',
        )
        await sleep(retryMs, undefined, { ref: false })
      }
    }
  }

  /** In one turn, at the head: what was read, with the commits that the read did not see. */
  #take({ oid, isPublished, orders, snapshot }: OrdersRead): void {
    const { relay, head, now } = this.#options
    this.#oid = oid ?? this.#oid
    this.#warn(oid !== null, isPublished)
    const rows = new Map<string, Order | null>(orders.map(order => [order.id, order]))
    const given: Order[] = []
    for (const commit of relay.unseen(snapshot, head.lsn)) {
      if (!this.concerns(commit)) continue
      for (const change of commit.passing()) this.#fold(change, rows)
    }
    for (const id of [...this.#inForce.ids]) if ((rows.get(id) ?? null) === null) this.#takeBack(id)
    for (const [id, order] of rows) {
      const isGiven = !this.#inForce.has(id)
      if (order === null || !(isGiven || this.#isFirstRead)) continue
      if (isGiven) given.push(order)
      // At the start the stream may have brought, as if they were new, some whose time has been running.
      this.#put(order, Math.min(order.orderedAtMs, now()))
    }
    this.#isFirstRead = false
    this.#isKnown = true
    this.#known.resolve()
    this.#carryOut(given)
  }

  #warn(exists: boolean, isPublished: boolean): void {
    if ((exists && isPublished) || this.#wasWarned) return
    this.#wasWarned = true
    this.#options.log.warn(
      'nobody can be kicked, and no token revoked: tidegate.orders is not in the publication; run: tidegate migrate',
    )
  }

  async #deleteExpired(): Promise<void> {
    if (this.#oid === null) return
    try {
      await this.#options.upkeep.query('DELETE FROM tidegate.orders WHERE until < now()')
    } catch (error) {
      // They stay in force for as long as they said, and are deleted later.
      this.#options.log[isAway(error) ? 'debug' : 'warn']({ err: error }, 'orders that are over could not be deleted')
    }
  }

  #stop(): void {
    this.#stopped.abort()
    for (const timer of this.#timers.values()) clearTimeout(timer)
    this.#timers.clear()
  }
}

const maxLogged = 20

/** SQLSTATE insufficient_privilege. */
const isDenied = (error: unknown): boolean => (error as { code?: unknown }).code === '42501'

/** A token that was revoked must not be good again after a restart. */
const unreadable = (cause: unknown): TidegateError =>
  new TidegateError(
    'PRIVILEGE_MISSING',
    'the login of DATABASE_URL may not read tidegate.orders, which say whose tokens are revoked; run: tidegate migrate',
    { cause },
  )

/** Clocks that are kept by NTP, of the database and of whoever issues tokens. */
const clocksDifferMs = 100

const isOrders = ({ schema, name }: Relation): boolean => schema === 'tidegate' && name === 'orders'

const positionsIn = ({ columns }: Relation): number[] =>
  orderColumns.map(name => columns.findIndex(column => column.name === name))
