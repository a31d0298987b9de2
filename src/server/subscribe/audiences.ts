// The audiences in use: made when the first subscriber asks, kept warm for a grace after the last has gone, so that a poll
// or a quick return asks nothing of the database.

import type { Predicate, SemiJoin } from '../../predicate/algebra.ts'
import { allSemiJoinsOf } from '../../predicate/columns.ts'
import { isHop } from '../../predicate/hops.ts'
import { timeBoundsOf } from '../../predicate/time.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { Few } from '../authorize/few.ts'
import { Hop } from '../authorize/hop.ts'
import type { InnerSet } from '../authorize/inner-set.ts'
import { MembershipSet } from '../authorize/membership.ts'
import { shapeOf, type Table } from '../catalog/table.ts'
import { repeated } from '../log/log-repeated.ts'
import { Audience, audienceKey } from '../route/audience.ts'
import { type Query, QueryRegistry } from '../route/query.ts'
import { Window, type WindowSizes } from '../route/window.ts'
import type { HopUse } from './hop-use.ts'
import { failureOf } from './inner-reads.ts'
import { MembershipSets } from './membership-sets.ts'
import type { Stream } from './stream.ts'
import type { Watch } from './times.ts'

/** Someone who uses an audience, wherever it stands. */
export interface AudienceUser {
  /** The audience is no longer true: subscribe again. */
  end(error: TidegateError): void
}

/** How much a node holds for its subscribers: all 0 a grace after the last of them has left. */
export interface Holdings {
  readonly audiences: number
  readonly queries: number
  /** Membership sets, each of one bound semi-join. */
  readonly memberships: number
  /** Tables followed. */
  readonly routes: number
  /** Snapshots being read and joined to the stream. */
  readonly splices: number
  /** Characters of the rows of windows. */
  readonly windowChars: number
}

interface Held {
  /** While it is opened. */
  opening: Promise<Audience> | null
  /** Once it stands. */
  opened: Audience | null
  readonly users: Few<AudienceUser>
  /** What its policies and filter read, the query's own first. */
  readonly table: Table
  readonly memberships: readonly Table[]
  grace: NodeJS.Timeout | null
}

export interface AudienceRequest {
  readonly query: Omit<Query, 'number' | 'text'>
  /** Policy and filter, bound. */
  readonly predicate: Predicate
  /** Tables of its semi-joins. */
  readonly memberships: readonly Table[]
}

/** Audiences without users that may wait out their grace at a time. One client that asks another query with every poll
 *  would otherwise fill the memory with them. */
const defaultMaxWarm = 10_000

export class Audiences {
  readonly #stream: Stream
  readonly #maxWarm: number
  readonly #queries: QueryRegistry
  readonly #sets: MembershipSets
  readonly #windows: WindowSizes = { chars: 0 }
  /** Bounded by the subscriptions, which are bounded per connection, and those in their grace. */
  readonly #held = new Map<string, Held>()
  readonly #watches = new WeakMap<Audience, readonly Watch[]>()
  /** Those in their grace, in the order their last users left. Past `maxWarm` the oldest is closed. */
  readonly #warm = new Map<string, Audience>()

  /** @param queries numbers them: shared with whoever else sends under such numbers */
  constructor(stream: Stream, maxWarm = defaultMaxWarm, queries = new QueryRegistry()) {
    this.#stream = stream
    this.#queries = queries
    this.#maxWarm = maxWarm
    this.#sets = new MembershipSets(stream, stream.reach)
  }

  get size(): number {
    return this.#held.size
  }

  /** What is held, to be shown and checked. */
  get holdings(): Holdings {
    const { router, relay } = this.#stream
    return {
      audiences: this.#held.size,
      queries: this.#queries.size,
      memberships: this.#sets.size + this.#stream.reach.size,
      routes: router.routes.size,
      splices: relay.pins,
      windowChars: this.#windows.chars,
    }
  }

  /** The audience of this query and these claims, with its memberships loaded. `leave` when the user goes.
   *  @throws what loading its memberships throws */
  async join(request: AudienceRequest, user: AudienceUser): Promise<Audience> {
    const query = this.#queries.acquire(request.query)
    const key = audienceKey(query, request.predicate, membershipsOf(request))
    let held = this.#held.get(key)
    if (held === undefined) {
      held = {
        opening: this.#open(query, request),
        opened: null,
        users: new Few(),
        table: request.query.table,
        memberships: request.memberships,
        grace: null,
      }
      this.#held.set(key, held)
      const opened = held
      opened.opening!.then(
        audience => {
          opened.opened = audience
          opened.opening = null
          // Retired while its memberships were loaded.
          if (this.#held.get(key) !== opened) this.#dispose(audience)
        },
        () => {
          if (this.#held.get(key) === opened) this.#held.delete(key)
          this.#queries.release(query)
        },
      )
    } else this.#queries.release(query)
    this.#endGrace(key, held)
    held.users.add(user)
    try {
      const audience = held.opened ?? (await held.opening!)
      if (this.#held.get(key) !== held) throw changed(query.table)
      return audience
    } catch (error) {
      held.users.delete(user)
      throw error
    }
  }

  /** The same at once, where all that decides is loaded already; else null.
   *  @throws what cannot be judged exactly */
  joinLoaded(request: AudienceRequest, user: AudienceUser): Audience | null {
    const query = this.#queries.acquire(request.query)
    const key = audienceKey(query, request.predicate, membershipsOf(request))
    let held = this.#held.get(key)
    if (held === undefined) {
      const opened = this.#openLoaded(query, request)
      if (opened === null) {
        this.#queries.release(query)
        return null
      }
      const { memberships } = request
      held = { opening: null, opened, users: new Few(), table: query.table, memberships, grace: null }
      this.#held.set(key, held)
    } else this.#queries.release(query)
    if (held.opened === null) return null
    this.#endGrace(key, held)
    held.users.add(user)
    return held.opened
  }

  /** What `Audience.key` would be. */
  keyOf(request: AudienceRequest): string {
    const query = this.#queries.acquire(request.query)
    this.#queries.release(query)
    return audienceKey(query, request.predicate, membershipsOf(request))
  }

  leave(audience: Audience, user: AudienceUser): void {
    const held = this.#held.get(audience.key)
    if (held === undefined || !held.users.delete(user) || held.users.size > 0) return
    // What it reaches could not be had: the next who asks tries anew.
    if (this.#stream.reach.failureFor(audience) !== null) {
      this.#close(audience.key, audience)
      return
    }
    held.grace = setTimeout(() => this.#close(audience.key, audience), this.#stream.limits.audienceGraceMs)
    held.grace.unref()
    this.#warm.set(audience.key, audience)
    if (this.#warm.size <= this.#maxWarm) return
    const [oldest] = this.#warm.values()
    this.#close(oldest!.key, oldest!)
  }

  /** Ends every audience that reads one of these tables, or all. Its users are told to subscribe again. */
  retire(oids: ReadonlySet<number> | null, errorOf: (table: Table) => TidegateError): void {
    for (const [key, held] of this.#held) {
      if (oids !== null && ![held.table, ...held.memberships].some(({ oid }) => oids.has(oid))) continue
      this.#held.delete(key)
      this.#endGrace(key, held)
      if (held.opened === null) continue
      this.#dispose(held.opened)
      for (const user of [...held.users]) user.end(errorOf(held.opened.query.table))
    }
    for (const oid of oids ?? [undefined]) {
      this.#sets.forget(oid)
      this.#stream.reach.forget(oid)
    }
  }

  /** Lets go of audiences that nobody uses: what they were made from may be true no more. */
  closeUnused(): void {
    for (const audience of [...this.#warm.values()]) this.#close(audience.key, audience)
  }

  /** Ends every audience that one of these sets decides for: they, or parts of them, are not exact any more. */
  endFailed(sets: Iterable<InnerSet>): void {
    const { reach, router } = this.#stream
    for (const set of sets) {
      if (set instanceof Hop) reach.breakOff(set)
      for (const audience of [...router.audiencesOf(set)]) {
        const held = this.#held.get(audience.key)
        if (held?.opened !== audience) continue
        // Of a hop perhaps only a part has failed: it ends those who reach it.
        const failure = set.failure === null ? reach.failureFor(audience) : failureOf(set)
        if (failure === null) continue
        this.#held.delete(audience.key)
        this.#endGrace(audience.key, held)
        this.#dispose(audience)
        for (const user of [...held.users]) user.end(failure)
      }
      if (set.failure === null) continue
      if (set instanceof Hop) reach.forgetFailed(set)
      else if (set instanceof MembershipSet) this.#sets.forgetFailed(set)
    }
  }

  /** Audiences that nobody uses any more, at once: when the server stops. */
  close(): void {
    for (const [key, held] of this.#held) this.#endGrace(key, held)
    this.#held.clear()
  }

  /** Tables that decide for somebody. */
  membershipOids(): ReadonlySet<number> {
    const audiences = [...this.#held.values()].flatMap(({ opened }) => (opened === null ? [] : [opened]))
    return new Set(audiences.flatMap(({ sets }) => [...sets.values()].map(({ table }) => table.oid)))
  }

  /** Those with users, for whoever looks on: some who come or go meanwhile are in it or not. */
  *listing(): Generator<readonly [Audience, Iterable<AudienceUser>], void> {
    for (const { opened, users } of this.#held.values()) if (opened !== null && users.size > 0) yield [opened, users]
  }

  /** Of queries, not of channels; looked at one by one: 100,000 take some milliseconds. */
  count(): { readonly subscriptions: number; readonly audiences: number } {
    let subscriptions = 0
    let audiences = 0
    for (const { opened, users } of this.#held.values()) {
      if (opened === null || opened.query.kind === 'channel') continue
      audiences += 1
      subscriptions += users.size
    }
    return { subscriptions, audiences }
  }

  /** Users by audience, for looking at each again when the catalog changed. */
  users(): AudienceUser[] {
    return [...this.#held.values()].flatMap(held => [...held.users])
  }

  async #open(query: Query, request: AudienceRequest): Promise<Audience> {
    const { router, reach, head, times, indexSize } = this.#stream
    let watches: readonly Watch[] = []
    const joins = allSemiJoinsOf(request.predicate)
    if (joins.length > 0) indexSize.assertRoom()
    const sets = new Map<SemiJoin, InnerSet>()
    const uses: HopUse[] = []
    try {
      // A hop's own semi-joins first: it holds what they reach.
      for (const join of joins) {
        const table = request.memberships.find(membership => membership.oid === join.table.oid)
        if (table === undefined) throw new Error(`no facts about ${join.table.schema}.${join.table.name}`)
        if (!isHop(join)) {
          sets.set(join, await this.#sets.acquire(join, table))
          continue
        }
        const use = reach.acquire(join, table, sets)
        uses.push(use)
        sets.set(join, use.hop)
      }
      if (uses.length > 0) await reach.settled(uses)
      // A row of its own that comes into view or leaves by time alone is looked for; of changes nothing is owed then.
      if (query.kind === 'live') watches = await times.watch(query.table, timeBoundsOf(request.predicate))
      if (joins.length > 0) indexSize.assertRoom()
      // One that failed while the others were loaded ends nobody who does not stand yet.
      for (const set of sets.values()) if (set.failure !== null) throw failureOf(set)
      // What others hold of this table has other columns: they are about to be ended, or this one was asked too early.
      const route = query.kind === 'channel' ? undefined : router.routeOf(query.table.oid)
      if (route !== undefined && shapeOf(route.table) !== shapeOf(query.table)) throw changed(query.table)
      const audience = new Audience(query, request.predicate, sets, head, this.#onFailure, this.#windowOf(query))
      if (uses.length > 0) reach.attach(audience, uses)
      if (watches.length > 0) {
        times.attach(audience, watches)
        this.#watches.set(audience, watches)
      }
      router.addAudience(audience)
      return audience
    } catch (error) {
      this.#release(sets.values(), uses)
      times.unwatch(watches)
      throw error
    }
  }

  /** Of membership sets only, for who watches no rows of its own. */
  #openLoaded(query: Query, { predicate, memberships }: AudienceRequest): Audience | null {
    const { router, head } = this.#stream
    const sets = new Map<SemiJoin, MembershipSet>()
    for (const join of allSemiJoinsOf(predicate)) {
      const table = memberships.find(membership => membership.oid === join.table.oid)
      const set = isHop(join) || table === undefined ? null : this.#sets.acquireLoaded(join, table)
      if (set === null) {
        this.#release(sets.values(), [])
        return null
      }
      sets.set(join, set)
    }
    const audience = new Audience(query, predicate, sets, head, this.#onFailure)
    router.addAudience(audience)
    return audience
  }

  #release(sets: Iterable<InnerSet>, uses: readonly HopUse[]): void {
    for (const use of uses) this.#stream.reach.release(use)
    for (const set of sets) if (set instanceof MembershipSet) this.#sets.release(set)
  }

  readonly #onFailure = (error: unknown, query: Query): void => {
    repeated(this.#stream.log).warn({ err: error, table: query.table.name }, 'a row could not be judged: not visible')
  }

  #close(key: string, audience: Audience): void {
    const held = this.#held.get(key)
    if (held === undefined || held.users.size > 0) return
    this.#held.delete(key)
    this.#endGrace(key, held)
    this.#dispose(audience)
  }

  #endGrace(key: string, held: Held): void {
    if (held.grace !== null) clearTimeout(held.grace)
    held.grace = null
    this.#warm.delete(key)
  }

  /** @throws BUSY when the rows of all windows together are too many */
  #windowOf(query: Query): Window | null {
    const limit = query.ordering?.limit ?? null
    if (limit === null) return null
    if (this.#windows.chars > this.#stream.limits.windowsMaxBytes)
      throw new TidegateError('BUSY', 'the rows of queries with a limit are more than WINDOWS_MAX_BYTES here')
    return new Window(query, limit, this.#windows)
  }

  /** Rows of these tables are other ones now, without a word in the stream: windows are read again. */
  discardWindows(oids: ReadonlySet<number>): void {
    for (const { opened } of this.#held.values())
      if (opened !== null && oids.has(opened.query.table.oid)) opened.window?.discard(this.#stream.head.lsn)
  }

  #dispose(audience: Audience): void {
    audience.isClosed = true
    audience.window?.close()
    this.#stream.router.removeAudience(audience)
    this.#release(audience.sets.values(), this.#stream.reach.usesOf(audience))
    this.#stream.times.unwatch(this.#watches.get(audience) ?? [], audience)
    this.#queries.release(audience.query)
  }
}

/** The tables that the bound predicate still reads. */
function membershipsOf({ predicate, memberships }: AudienceRequest): Table[] {
  const oids = new Set(allSemiJoinsOf(predicate).map(join => join.table.oid))
  return memberships.filter(table => oids.has(table.oid))
}

export const changed = (table: Table): TidegateError =>
  new TidegateError('UNSUBSCRIBED_TABLE_CHANGED', `${table.schema}.${table.name}, its policies or privileges changed`, {
    retryAfterMs: 0,
  })
