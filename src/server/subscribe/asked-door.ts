// How does one join what Postgres is asked for? Beside the door of what is judged here, which sends those on whose policies
// do not compile.
import type { ResyncCode } from '../../protocol/codes.ts'
import type { Position } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { AskedAudience } from '../ask/asked-audience.ts'
import { AskedAudiences, type AskedLimits, type AskedUser, tagOf } from '../ask/asked-audiences.ts'
import type { Asker } from '../ask/asker.ts'
import type { Commit } from '../decode/change.ts'
import type { Lane } from '../postgres/database.ts'
import type { QueryRegistry } from '../route/query.ts'
import { AskedSubscription, Untaken } from './asked-subscription.ts'
import { changed } from './audiences.ts'
import type { SubscriptionListed } from './listing.ts'
import type { PrepareOptions } from './prepare.ts'
import { prepare } from './prepare.ts'
import { isAskable, type PreparedAsked, prepareAsked } from './prepare-asked.ts'
import type { Stream } from './stream.ts'
import type { Outlet, Principal, SubscribeRequest, Subscription } from './subscription.ts'

/** What asking takes, besides what the door has. */
export interface AskedParts {
  readonly asker: Asker
  /** For the catalog. */
  readonly pool: Lane
  readonly limits: AskedLimits
}

export interface AskedDoorOptions extends AskedParts {
  readonly prepare: PrepareOptions
  readonly stream: Pick<Stream, 'relay' | 'head' | 'log'>
  readonly queries: QueryRegistry
  /** 0 to 1. */
  readonly random: () => number
}

interface Who {
  readonly principal: Principal
  readonly request: SubscribeRequest
  readonly outlet: Outlet
}

class User implements AskedUser {
  readonly who: Who
  subscription: AskedSubscription | null = null
  /** Set when its audience ended before the subscription stood. */
  ended: unknown = null

  constructor(who: Who) {
    this.who = who
  }

  end(error: unknown): void {
    this.ended = error
    this.subscription?.fail(error)
  }

  /** Its subscription is made anew, by what the catalog says now. */
  move(): void {
    const { request, outlet } = this.who
    if (this.subscription === null || this.subscription.isClosed) return
    const { table } = this.subscription.audience
    this.subscription.close()
    if (!outlet.move({ ...request, since: null, moved: { announcements: 0 } })) outlet.fail(changed(table))
  }
}

export class AskedDoor {
  readonly #options: AskedDoorOptions
  readonly #audiences: AskedAudiences
  readonly #untaken = new Untaken(maxUntakenChars)

  constructor(options: AskedDoorOptions) {
    const { relay, head, log } = options.stream
    this.#options = options
    this.#audiences = new AskedAudiences({ ...options, relay, head, log })
  }

  get size(): number {
    return this.#audiences.size
  }

  get userCount(): number {
    return this.#audiences.users().length
  }

  /** @param reason why it is not judged here. @throws TidegateError with a peer code */
  async subscribe(who: Who, reason: TidegateError): Promise<Subscription> {
    const audiences = this.#audiences
    const { principal, request, outlet } = who
    const prepared = await this.#prepare(principal, request, reason)
    const user = new User(who)
    const audience = await audiences.join(prepared.request, user)
    try {
      const { since, code } = this.#resumeFrom(audience, prepared, request)
      // Events begin where the answer is known: before, nobody could tell what is new.
      const begin = request.kind === 'changes' && since === null ? await standOf(audience) : since
      if (user.ended !== null) throw user.ended
      const subscription = new AskedSubscription({
        audience,
        outlet,
        warnings: prepared.warnings,
        since: begin,
        resumed: since !== null,
        untaken: this.#untaken,
        onClosed: () => audiences.leave(audience, user),
      })
      user.subscription = subscription
      // After the caller has told the client that it stands.
      setImmediate(() => subscription.start(code))
      return subscription
    } catch (error) {
      audiences.leave(audience, user)
      throw error
    }
  }

  /** A commit has been served. */
  served(commit: Commit): void {
    this.#audiences.served(commit)
  }

  /** The catalog changed: who would be answered otherwise now goes on by the new rules, or ends with what is wrong. What stays
   *  is asked anew, whatever its policies read now. */
  async recheck(): Promise<void> {
    const audiences = this.#audiences
    for (const user of audiences.users()) {
      if (!(user instanceof User) || user.subscription === null) continue
      const { principal, request } = user.who
      const { table } = user.subscription.audience
      try {
        await prepare(this.#options.prepare, principal, request)
        // It is judged here now.
        user.move()
      } catch (error) {
        if (!isAskable(error)) user.end(error instanceof TidegateError ? error : changed(table))
        else {
          const again = await this.#prepare(principal, request, error).catch((failure: unknown) => failure)
          if (again instanceof Error) user.end(again instanceof TidegateError ? again : changed(table))
          else if (!isOf(user.subscription.audience, audiences.keyOf((again as PreparedAsked).request))) user.move()
        }
      }
    }
    await audiences.recheck()
  }

  /** Ends all, or those of these tables. */
  retire(oids: ReadonlySet<number> | null, errorOf: Parameters<AskedAudiences['retire']>[1]): void {
    this.#audiences.retire(oids, errorOf)
  }

  *listing(): Generator<SubscriptionListed, void> {
    for (const [audience, users] of this.#audiences.listing()) {
      const { query, members } = audience
      for (const user of users) {
        if (!(user instanceof User)) continue
        const { principal, request } = user.who
        const isBehind = user.subscription === null || !members.has(user.subscription)
        yield { query, audience, role: principal.role, request, isAsked: true, isHeld: false, isBehind }
      }
    }
  }

  close(): void {
    this.#audiences.close()
  }

  #prepare(principal: Principal, request: SubscribeRequest, reason: TidegateError): Promise<PreparedAsked> {
    const { prepare: options, limits } = this.#options
    return prepareAsked({ ...options, recheckMs: limits.recheckMs }, principal, request, reason)
  }

  /** Whether the client may continue where it stands, and if not, why. */
  #resumeFrom(
    audience: AskedAudience,
    prepared: PreparedAsked,
    { since, moved }: SubscribeRequest,
  ): { since: Position | null; code: ResyncCode | null } {
    const { relay } = this.#options.stream
    if (moved !== undefined) return { since: null, code: 'POLICY_CHANGED' }
    // Position 0 is what a client holds before its first rows were whole.
    if (since === null || since.lsn === 0n) return { since: null, code: null }
    if (since.epoch !== relay.epoch) return { since: null, code: 'EPOCH_CHANGED' }
    if (since.tag === audience.tag && audience.remembers(since)) return { since, code: null }
    // Its first rows of now are as good as the difference.
    const isLimited = audience.query.ordering?.limit != null
    const isSameQuery = since.tag.startsWith(tagOf(this.#audiences.keyOf(prepared.request)))
    return { since: null, code: !isSameQuery ? 'QUERY_CHANGED' : isLimited ? null : 'ASKED_FORGOTTEN' }
  }
}

/** Of rows that were read for readers who have not taken them yet. */
const maxUntakenChars = 64 * 1024 * 1024

const isOf = (audience: AskedAudience, key: string): boolean => audience.tag.startsWith(tagOf(key))

/** Where an audience stands, once it has been asked after this was called. */
const standOf = (audience: AskedAudience): Promise<Position> =>
  new Promise((resolve, reject) => {
    audience.ask({
      from: null,
      told: (_events, at) => resolve(at),
      forgotten: () => reject(new Error('nothing was to be remembered')),
      fail: reject,
    })
  })
