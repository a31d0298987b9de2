// How does one join? The door behind the transports: from a principal and a request to a subscription that sends.

import type { ResyncCode } from '../../protocol/codes.ts'
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { InnerSet } from '../authorize/inner-set.ts'
import type { TableAccess } from '../catalog/table.ts'
import type { Commit } from '../decode/change.ts'
import { repeated } from '../log/log-repeated.ts'
import { answered, type Lane } from '../postgres/database.ts'
import { type Audience, tagOf } from '../route/audience.ts'
import { QueryRegistry } from '../route/query.ts'
import { type Reader, userOf } from '../snapshot/reader.ts'
import { parseLsn } from '../wal/lsn.ts'
import { AskedDoor, type AskedParts } from './asked-door.ts'
import { Audiences, type AudienceUser, changed, type Holdings } from './audiences.ts'
import { ChangesSubscription } from './changes-subscription.ts'
import { untilEpochKnown } from './epoch-ahead.ts'
import type { SubscriptionListed } from './listing.ts'
import { type LiveOwner, LiveSubscription } from './live-subscription.ts'
import { type Prepared, type PrepareOptions, prepare } from './prepare.ts'
import { isAskable } from './prepare-asked.ts'
import { recheck, type Standing } from './recheck.ts'
import { Rewrites } from './rewrites.ts'
import type { Stream } from './stream.ts'
import type { Outlet, Principal, SubscribeRequest, Subscription, Subscriptions, TableName } from './subscription.ts'
import { waitForTransaction } from './wait.ts'

export interface SubscribeOptions {
  readonly stream: Stream
  readonly pool: Lane
  readonly prepare: PrepareOptions
  /** Whether the stream moves, and how far behind the database it is. */
  readonly pulse: () => { stale: boolean; lagMs: number }
  readonly random: () => number
  /** The epoch in which the deployment is, which this node may not have heard of. */
  readonly epochNow: () => Promise<string>
  readonly asked: AskedParts
}

const maxAttempts = 5

/** @param chance spreads those who come back, 0 to 1 */
const unknownNow = (cause: unknown, chance: number): TidegateError =>
  new TidegateError('UNAVAILABLE', 'the catalog changed and cannot be read; subscribe again', {
    cause,
    retryAfterMs: 500 + Math.floor(chance * 2000),
  })

const lookAgainMs = 1000

/** A first snapshot takes some milliseconds of a connection, of which there are a few. The longest is what a person bears. */
const returnSpreadMs = (subscriptions: number): number => Math.min(Math.max(2 * subscriptions, 2000), 60_000)

type AnySubscription = LiveSubscription | ChangesSubscription

/** What all users share. */
interface Common {
  readonly audiences: Audiences
  readonly settingsOf: PrepareOptions['settingsOf']
}

class User implements AudienceUser, LiveOwner, Standing {
  readonly #common: Common
  readonly principal: Principal
  readonly request: SubscribeRequest
  readonly outlet: Outlet
  access: TableAccess
  subscription: AnySubscription | null = null
  /** Set when its audience ended before the subscription stood. */
  ended: TidegateError | null = null

  constructor(common: Common, access: TableAccess, who: Pick<User, 'principal' | 'request' | 'outlet'>) {
    this.#common = common
    this.access = access
    this.principal = who.principal
    this.request = who.request
    this.outlet = who.outlet
  }

  get isClosed(): boolean {
    return this.subscription?.isClosed ?? false
  }

  reader(): Reader {
    const { principal } = this
    return { role: principal.role, settings: this.#common.settingsOf(principal), user: userOf(principal) }
  }

  onClosed(): void {
    if (this.subscription !== null) this.#common.audiences.leave(this.subscription.audience, this)
  }

  end(error: TidegateError): void {
    this.ended = error
    if (this.subscription === null) return
    this.subscription.close()
    this.outlet.fail(error)
  }
}

/** One that goes on by other rules. */
interface Moving {
  readonly user: User
  /** Of its audience to be; null where Postgres will be asked. */
  readonly tag: string | null
}

export class SubscriptionDoor implements Subscriptions {
  readonly #options: SubscribeOptions
  readonly #audiences: Audiences
  readonly #common: Common
  readonly #rewrites: Rewrites
  /** One look after the other. */
  #rewriteLook: Promise<void> = Promise.resolve()
  #askedLook: Promise<void> = Promise.resolve()
  readonly #asked: AskedDoor
  /** One of each channel that means whatever tables there are. */
  readonly #tableListeners = new Set<() => void>()
  #closed = false
  /** How often the catalog changed. */
  #rechecks = 0
  /** How many changes of the catalog the stream has passed that it told of. */
  #announcements = 0
  /** The catalog changed and cannot be read: nobody is taken. */
  #isShut = false

  constructor(options: SubscribeOptions) {
    this.#options = options
    const queries = new QueryRegistry()
    this.#audiences = new Audiences(options.stream, undefined, queries)
    this.#asked = new AskedDoor({ ...options.asked, ...options, queries })
    this.#common = { audiences: this.#audiences, settingsOf: options.prepare.settingsOf }
    this.#rewrites = new Rewrites(options.prepare.catalog)
  }

  admit(principal: Principal): Promise<void> {
    return answered(this.#options.prepare.admit(principal.role))
  }

  async tables(principal: Principal): Promise<readonly TableName[]> {
    const { admit, catalog } = this.#options.prepare
    await answered(admit(principal.role))
    const tables = await answered(catalog.readableTables(principal.role))
    return tables.map(({ schema, name }) => ({ schema, table: name }))
  }

  onTables(listener: () => void): () => void {
    // Two may give the same function.
    const own = (): void => listener()
    this.#tableListeners.add(own)
    return () => {
      this.#tableListeners.delete(own)
    }
  }

  head(): { position: Position; stale: boolean; lagMs: number } {
    const { relay, head } = this.#options.stream
    return { position: { epoch: relay.epoch, lsn: head.lsn, index: WHOLE_COMMIT }, ...this.#options.pulse() }
  }

  /** For whoever judges by the same memberships. */
  get audiences(): Audiences {
    return this.#audiences
  }

  get holdings(): Holdings {
    const holdings = this.#audiences.holdings
    return { ...holdings, audiences: holdings.audiences + this.#asked.size }
  }

  /** See `Audiences.count`; those that Postgres is asked for among them. */
  count(): { readonly subscriptions: number; readonly audiences: number } {
    const { subscriptions, audiences } = this.#audiences.count()
    return { subscriptions: subscriptions + this.#asked.userCount, audiences: audiences + this.#asked.size }
  }

  /** Every subscription that has its place, for whoever looks on: some that come or go meanwhile are in it or not. */
  *listing(): Generator<SubscriptionListed, void> {
    for (const [audience, users] of this.#audiences.listing()) {
      const { query, members } = audience
      const isHeld = audience.hold !== null
      for (const user of users) {
        if (!(user instanceof User)) continue
        const { principal, request, subscription } = user
        const isBehind = subscription === null || !members.has(subscription)
        yield { query, audience, role: principal.role, request, isAsked: false, isHeld, isBehind }
      }
    }
    yield* this.#asked.listing()
  }

  waitForTransaction(xid64: bigint, timeoutMs: number): Promise<Position> {
    return waitForTransaction(this.#options.stream, this.#options.pool, xid64, timeoutMs)
  }

  async subscribe(principal: Principal, request: SubscribeRequest, outlet: Outlet): Promise<Subscription> {
    if (this.#options.stream.relay.epoch === '') {
      throw new TidegateError('UNAVAILABLE', 'the server is starting', { retryAfterMs: 500 })
    }
    const { stream, epochNow } = this.#options
    // Position 0 is what a client holds before its first rows were whole.
    if (request.since !== null && request.since.lsn !== 0n && request.since.epoch !== stream.relay.epoch)
      await untilEpochKnown(stream, request.since.epoch, epochNow)
    try {
      return await this.#subscribe(principal, request, outlet)
    } catch (error) {
      if (!isAskable(error)) throw error
      return this.#asked.subscribe({ principal, request, outlet }, error)
    }
  }

  async #subscribe(principal: Principal, request: SubscribeRequest, outlet: Outlet): Promise<Subscription> {
    const { prepared, user, audience } = await this.#join(principal, request, outlet)
    const { since, code } = this.#resumeFrom(audience, request)
    const subscription = this.#make(user, audience, prepared, since)
    user.subscription = subscription
    // After the caller has told the client that it stands.
    setImmediate(() => {
      if (code === null) subscription.start()
      else subscription.resync(code)
    })
    return subscription
  }

  /** Whoever comes while the catalog changes may have been prepared by the old one, and stand too late to be looked at
   *  by `recheck`: it is prepared again. */
  async #join(
    principal: Principal,
    request: SubscribeRequest,
    outlet: Outlet,
  ): Promise<{ prepared: Prepared; user: User; audience: Audience }> {
    for (let attempt = 1; ; attempt++) {
      if (this.#isShut) throw unknownNow(null, this.#options.random())
      const rechecks = this.#rechecks
      const prepared = await prepare(this.#options.prepare, principal, request)
      const user = new User(this.#common, prepared.access, { principal, request, outlet })
      const audience = await this.#audiences.join(prepared.audience, user)
      if (user.ended !== null) throw user.ended
      for (const table of [prepared.audience.query.table, ...prepared.audience.memberships])
        this.#rewrites.followed(table, this.#options.stream.head.lsn)
      await this.#isInForce(request)
      if (rechecks === this.#rechecks) return { prepared, user, audience }
      this.#audiences.leave(audience, user)
      if (attempt === maxAttempts) throw changed(audience.query.table)
    }
  }

  /** Policies are read ahead of the stream: events of commits before are not to be judged by them. A live query's first
   *  snapshot is such a reading itself, and joins the stream behind it. */
  async #isInForce({ kind, since, moved }: SubscribeRequest): Promise<void> {
    const { stream, prepare: options } = this.#options
    // Who resumes was judged by the same before.
    if (kind === 'changes' && (since === null || moved !== undefined))
      await stream.reader.passed(options.catalog.readUpTo)
  }

  /** The catalog changed and has been forgotten: every subscription is looked at anew. One whose answer is another now goes
   *  on by the new rules, if it can, and else ends with what is wrong. So does one that cannot be looked at: what it
   *  showed may be hidden now. */
  async recheck(): Promise<void> {
    this.#rechecks += 1
    const { prepare: options, stream, random } = this.#options
    let failures = 0
    const moving: Moving[] = []
    await recheck({
      prepare: options,
      standings: this.#standing(),
      tell: (user, prepared, error) => {
        // It has gone while others were looked at.
        if (user.subscription === null || user.isClosed) return
        if (prepared !== null) {
          const key = this.#audiences.keyOf(prepared.audience)
          if (key !== user.subscription.audience.key) moving.push({ user, tag: tagOf(key) })
          return
        }
        if (isAskable(error)) {
          moving.push({ user, tag: null })
          return
        }
        failures += 1
        if (failures === 1 && !(error instanceof TidegateError))
          repeated(stream.log).warn({ err: error }, 'a subscription could not be looked at anew; it ends')
        user.end(error instanceof TidegateError ? error : unknownNow(error, random()))
      },
    })
    this.#move(moving)
    // Not awaited: it waits for the stream, and the stream may be waiting for this look at the catalog.
    this.#rewriteLook = this.#rewriteLook.then(() => this.#endRewritten())
    // Nor this: what Postgres answers is true by its own rules.
    this.#askedLook = this.#askedLook.then(() => this.#asked.recheck())
    for (const listener of this.#tableListeners) listener()
  }

  /** All at once: first they leave, so that nothing is left of tables as they were, then they come anew. */
  #move(moving: readonly Moving[]): void {
    const requests = moving.flatMap(({ user, tag }) => {
      const { subscription, request } = user
      if (subscription === null || user.isClosed) return []
      const moved = { announcements: this.#announcements }
      // What waits for a slow reader was judged by the old rules. A live query begins anew, wherever it stands.
      if (subscription.kind === 'live') subscription.close()
      user.outlet.takeBack('firmly')
      let since: SubscribeRequest['since'] = null
      if (subscription.kind === 'changes') {
        // What it was told is all that the old rules showed: by the new ones it goes on right behind. One that is behind is
        // owed events that are neither by the old nor by the new.
        since = { ...subscription.position(), tag: tag === null || subscription.isBehind ? subscription.tag : tag }
      }
      subscription.close()
      return [{ user, request: { ...request, since, moved } }]
    })
    this.#audiences.closeUnused()
    for (const { user, request } of requests)
      if (!user.outlet.move(request)) user.outlet.fail(changed(user.access.table))
  }

  #standing(): User[] {
    return this.#audiences.users().filter(user => user instanceof User && user.subscription !== null) as User[]
  }

  /** The stream is at a commit that changed the catalog. */
  announced(): void {
    this.#announcements += 1
  }

  /** The catalog changed and cannot be read: nobody is judged by what it was, and nobody is taken, until `reopen`. */
  shut(): void {
    this.#isShut = true
    this.#rechecks += 1
    for (const user of this.#standing()) user.end(unknownNow(null, this.#options.random()))
    this.#audiences.closeUnused()
  }

  reopen(): void {
    this.#isShut = false
  }

  /** Rows of a partition that went without a word: who follows them reads anew. Tried until it could be looked at. */
  async #endRewritten(): Promise<void> {
    try {
      const rewritten = await this.#rewrites.look(() => this.#passedNow())
      if (rewritten.size === 0) return
      this.#audiences.discardWindows(rewritten)
      // Of memberships: the sets that hold them are not true, and whoever reads them subscribes anew.
      const memberships = this.#audiences.membershipOids()
      this.retire(new Set([...rewritten].filter(oid => memberships.has(oid))))
      for (const user of this.#audiences.users()) {
        if (!(user instanceof User) || user.subscription?.kind !== 'live') continue
        if (rewritten.has(user.subscription.audience.query.table.oid)) user.subscription.resync('POLICY_CHANGED')
      }
    } catch (error) {
      if (this.#closed) return
      repeated(this.#options.stream.log).warn({ err: error }, 'partitions could not be looked at; trying again')
      await new Promise(resolve => setTimeout(resolve, lookAgainMs))
      if (!this.#closed) await this.#endRewritten()
    }
  }

  /** The stream told of a truncation of these tables. */
  truncated(oid: number): void {
    this.#rewrites.truncated(oid)
  }

  /** The head, once it has passed everything that the catalog can show by now. */
  async #passedNow(): Promise<bigint> {
    const { pool, stream } = this.#options
    const { rows } = await pool.query<{ lsn: string }>('SELECT pg_current_wal_insert_lsn()::text AS lsn')
    await stream.reader.passed(parseLsn(rows[0]!.lsn))
    return stream.head.lsn
  }

  /** Tables whose columns changed: nothing of them may be judged any more. */
  retire(oids: ReadonlySet<number>): void {
    this.#audiences.retire(oids, changed)
  }

  /** A commit has been served to all who are judged here. */
  served(commit: Commit): void {
    this.#asked.served(commit)
  }

  /** Memberships that cannot be told any more: their readers are ended with the reason, their neighbours are not. */
  endFailed(sets: Iterable<InnerSet>): void {
    this.#audiences.endFailed(sets)
  }

  /** The window begins anew, with a new epoch or after a gap: whatever clients hold cannot be joined to what comes. They come
   *  back spread over a time in which the database can read what they begin with. */
  endEpoch(): void {
    const { random } = this.#options
    const spreadMs = returnSpreadMs(this.#audiences.users().length + this.#asked.userCount)
    const errorOf = (): TidegateError =>
      new TidegateError('UNAVAILABLE', 'a new epoch began; subscribe again', {
        retryAfterMs: Math.floor(random() * spreadMs),
      })
    this.#audiences.retire(null, errorOf)
    this.#asked.retire(null, errorOf)
  }

  close(): void {
    this.#closed = true
    this.#audiences.close()
    this.#asked.close()
  }

  #make(user: User, audience: Audience, prepared: Prepared, since: Position | null): AnySubscription {
    const { stream } = this.#options
    const options = {
      stream,
      audience,
      outlet: user.outlet,
      warnings: prepared.warnings,
      owner: user,
    }
    return audience.query.kind === 'live'
      ? new LiveSubscription({ ...options, since: since?.lsn ?? null, notBefore: seenUpTo(user.request, stream) })
      : new ChangesSubscription({ ...options, since })
  }

  /** Whether the client may continue where it stands, and if not, why. */
  #resumeFrom(
    audience: Audience,
    { since, moved }: SubscribeRequest,
  ): { since: Position | null; code: ResyncCode | null } {
    const { relay } = this.#options.stream
    // In the place of one whose rules changed: a live query is read anew. Changes go on, unless there was a second change
    // between where they stood and what was read.
    const isVoidByMove = since === null || since.tag !== audience.tag || moved?.announcements !== this.#announcements
    if (moved !== undefined && isVoidByMove) return { since: null, code: 'POLICY_CHANGED' }
    // Position 0 is what a client holds before its first snapshot was whole.
    if (since === null || since.lsn === 0n) return { since: null, code: null }
    if (since.epoch !== relay.epoch) return { since: null, code: 'EPOCH_CHANGED' }
    if (since.tag !== audience.tag) return { since: null, code: 'QUERY_CHANGED' }
    // Of few rows: those of now are as good as the difference, and the client sees it by itself.
    if (audience.window !== null) return { since: audience.window.remembers(since.lsn) ? since : null, code: null }
    if (!relay.covers(since.lsn)) return { since: null, code: 'WINDOW_PASSED' }
    const memberships = [...audience.sets.values()].map(set => set.table)
    const isVoid = [audience.query.table, ...memberships].some(({ oid }) => this.#rewrites.isVoid(oid, since.lsn))
    if (isVoid) return { since: null, code: 'POLICY_CHANGED' }
    return { since, code: null }
  }
}

/** What a client has seen already, as far as it can be told by a position of this epoch. */
const seenUpTo = ({ since }: SubscribeRequest, { relay }: Stream): bigint =>
  since === null || since.epoch !== relay.epoch ? 0n : since.lsn
