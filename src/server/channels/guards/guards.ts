// Who may be in a channel, and send to it: policies on realtime.messages, judged on the row that a message would be.
//
// Topic and claims are known, so a policy becomes what memberships decide. That is an audience of the membership index like
// any other, but for this: no row finds it. It is judged anew when a commit moves what it reads, or the time passes what
// changes its answer, in the turn in which that commit is served and before anything of it is delivered.

import type { Predicate, Row } from '../../../predicate/algebra.ts'
import { compile } from '../../../predicate/evaluate.ts'
import { growsWithHops } from '../../../predicate/growing.ts'
import { TidegateError } from '../../../protocol/tidegate-error.ts'
import { Few } from '../../authorize/few.ts'
import type { MembershipWriter } from '../../authorize/membership-history.ts'
import type { Commit } from '../../decode/change.ts'
import { repeated } from '../../log/log-repeated.ts'
import { answered } from '../../postgres/database.ts'
import type { Audience } from '../../route/audience.ts'
import { Found } from '../../route/found.ts'
import { Slice } from '../../route/slice.ts'
import { type Audiences, changed } from '../../subscribe/audiences.ts'
import { failureOf } from '../../subscribe/inner-reads.ts'
import { digestOf } from '../../subscribe/recheck.ts'
import type { Stream } from '../../subscribe/stream.ts'
import type { Principal } from '../../subscribe/subscription.ts'
import type { ChannelName } from '../message.ts'
import { type ChannelAccess, type ChannelCatalog, readChannelAccess, topicSetting } from './guards-access.ts'
import { AskedGuards, type AskedGuardsOptions } from './guards-asked.ts'
import { type Guard, Permission } from './guards-permission.ts'
import { channelQuery, type Plan, planOf, standingPlan } from './guards-plan.ts'
import { alwaysAllowed, type ChannelGuards, type ChannelPermission, type PermissionWatcher } from './permission.ts'

export interface GuardsOptions extends Omit<AskedGuardsOptions, 'log'> {
  readonly stream: Stream
  /** Those of subscriptions: what memberships decide is held once for both. */
  readonly audiences: Audiences
  readonly catalog: ChannelCatalog
  /** @throws ROLE_REFUSED */
  readonly admit: (role: string) => Promise<void>
  /** As for any reader. */
  readonly settingsOf: (principal: Principal) => readonly (readonly [name: string, value: string])[]
}

/** All 0 a grace after the last has gone. */
export interface GuardHoldings {
  readonly permissions: number
  /** What memberships answer for them. */
  readonly guards: number
  /** What Postgres does. */
  readonly asked: number
}

const maxAttempts = 5
/** How long the policies of one role may take to be read while the stream waits. */
const maxReadMs = 2000

export class Guards implements ChannelGuards {
  readonly #options: GuardsOptions
  readonly #asked: AskedGuards
  /** By audience, as long as somebody stands. Bounded by the members of channels. */
  readonly #guards = new Map<Audience, Guard>()
  /** All that stand, and those that come. */
  readonly #permissions = new Set<Permission>()
  /** By role: bounded by the roles that tokens may name. */
  #accesses = new Map<string, Promise<ChannelAccess>>()
  /** How often the catalog changed. */
  #rechecks = 0
  /** The catalog changed and cannot be read: nobody is taken. */
  #isShut = false

  constructor(options: GuardsOptions) {
    this.#options = options
    this.#asked = new AskedGuards({ ...options, log: options.stream.log })
  }

  get holdings(): GuardHoldings {
    return { permissions: this.#permissions.size, guards: this.#guards.size, asked: this.#asked.size }
  }

  async acquire(principal: Principal, channel: ChannelName, watcher: PermissionWatcher): Promise<ChannelPermission> {
    if (!channel.isPrivate) return alwaysAllowed
    const { stream, admit, random } = this.#options
    if (stream.relay.epoch === '')
      throw new TidegateError('UNAVAILABLE', 'the server is starting', { retryAfterMs: 500 })
    for (let attempt = 1; ; attempt++) {
      if (this.#isShut) throw unknownNow(random(), null)
      const rechecks = this.#rechecks
      await answered(admit(principal.role))
      const access = await answered(this.#access(principal.role))
      const plan = this.#planFor(access, principal, channel.topic)
      const permission = new Permission(this.#owner, { principal, topic: channel.topic, watcher }, { access, plan })
      this.#permissions.add(permission)
      try {
        await this.#join(permission)
      } catch (error) {
        permission.release()
        throw permission.ended ?? error
      }
      if (rechecks === this.#rechecks) {
        permission.isStanding = true
        permission.plan = standingPlan(access, plan)
        return permission
      }
      // Made by rules that may hold no more.
      permission.release()
      if (attempt === maxAttempts) throw changed(access.table)
    }
  }

  /** Memberships have been counted in: before anything of the commit is delivered. */
  flipped(writer: MembershipWriter): void {
    if (this.#guards.size === 0) return
    const concerned = new Found<Audience>()
    this.#options.stream.router.movedBy(writer.before, concerned)
    for (const audience of concerned.items) this.moved(audience)
  }

  /** What decides for this audience has changed, or the time has passed a moment of it. */
  moved(audience: Audience): void {
    const guard = this.#guards.get(audience)
    if (guard !== undefined) this.#judgeAnew(guard)
  }

  /** A commit has been served. */
  served(commit: Commit): void {
    this.#asked.served(commit)
  }

  /** The catalog changed and has been forgotten. Whose answers the new rules change is told; who cannot be judged by them at
   *  once has to come again. Reads from the database, and never waits for the stream. */
  async recheck(): Promise<void> {
    const { stream } = this.#options
    this.#rechecks += 1
    this.#accesses = new Map()
    const byRole = Map.groupBy(this.#permissions, ({ principal }) => principal.role)
    const slice = new Slice()
    for (const [role, permissions] of byRole) {
      const access = await this.#accessInTime(role)
      while (!stream.head.resting) await stream.head.change()
      for (const permission of permissions) {
        if (!permission.isStanding || !this.#permissions.has(permission)) continue
        if (access instanceof TidegateError) permission.end(access)
        else this.#reviseBy(access, permission)
        if (slice.over()) await slice.next()
      }
    }
    // Nothing is left of tables as they were.
    this.#options.audiences.closeUnused()
    // Not awaited: it waits for the stream, and the stream may be waiting for this look at the catalog.
    void this.#asked.recheck()
  }

  /** The catalog changed and cannot be read: nobody is judged by what it was, and nobody is taken, until `reopen`. */
  shut(): void {
    this.#isShut = true
    this.#rechecks += 1
    this.#accesses = new Map()
    for (const permission of [...this.#permissions]) permission.end(unknownNow(this.#options.random(), null))
  }

  reopen(): void {
    this.#isShut = false
  }

  close(): void {
    this.#asked.close()
  }

  readonly #owner = {
    released: (permission: Permission): void => {
      this.#permissions.delete(permission)
      this.#leaveGuards(permission)
    },
  }

  #leaveGuards(permission: Permission): void {
    const { guard, asked } = permission
    permission.guard = null
    permission.asked = null
    if (guard !== null) {
      guard.permissions.delete(permission)
      if (guard.permissions.size === 0 && this.#guards.get(guard.audience) === guard)
        this.#guards.delete(guard.audience)
      this.#options.audiences.leave(guard.audience, permission)
    }
    if (asked !== null) this.#asked.leave(asked, permission)
  }

  #access(role: string): Promise<ChannelAccess> {
    let access = this.#accesses.get(role)
    if (access === undefined) {
      access = readChannelAccess(this.#options.catalog, role, this.#options.stream.log)
      const accesses = this.#accesses
      accesses.set(role, access)
      // Not kept: it may be mended without a sign.
      access.catch(() => accesses.delete(role))
    }
    return access
  }

  #planFor(access: ChannelAccess, principal: Principal, topic: string): Plan {
    return planOf(access, topic, this.#options.settingsOf(principal))
  }

  /** Resolves when its answers are known. */
  async #join(permission: Permission): Promise<void> {
    const { stream, audiences, catalog } = this.#options
    const { plan } = permission
    if (plan.memberships !== null) {
      const audience = await audiences.join(plan.memberships, permission)
      try {
        await this.#settled(audience)
      } catch (error) {
        audiences.leave(audience, permission)
        throw error
      }
      if (permission.ended !== null) throw permission.ended
      this.#enter(audience, permission)
    }
    if (plan.asked !== null) await this.#ask(permission, plan.asked)
    // Policies are read ahead of the stream: commits before are not to be judged by them.
    if (!stream.head.ready(catalog.readUpTo)) await stream.reader.passed(catalog.readUpTo, true)
    if (permission.ended !== null) throw permission.ended
  }

  async #ask(permission: Permission, conditions: NonNullable<Plan['asked']>): Promise<void> {
    const { principal, topic, access } = permission
    const settings = this.#options.settingsOf(principal).filter(([name]) => name !== topicSetting)
    permission.asked = await this.#asked.join(
      {
        query: { ...channelQuery(access.table), number: 0, text: '' },
        reader: { role: principal.role, settings: [[topicSetting, topic], ...settings] },
        topic,
        conditions,
      },
      permission,
    )
  }

  /** Resolves, at a position, when everything that the audience reaches is there. @throws what loading it throws */
  async #settled(audience: Audience): Promise<void> {
    const { head, reach } = this.#options.stream
    const uses = reach.usesOf(audience)
    for (;;) {
      if (!head.resting) await head.change()
      else if (uses.length > 0 && reach.isPending(uses)) await reach.settled(uses)
      else return
    }
  }

  #enter(audience: Audience, permission: Permission): void {
    let guard = this.#guards.get(audience)
    if (guard === undefined) {
      guard = { audience, truths: this.#truthsOf(audience), permissions: new Few(), settling: null }
      this.#guards.set(audience, guard)
    } else if (guard.settling !== null) this.#judgeAnew(guard)
    guard.permissions.add(permission)
    permission.guard = guard
  }

  #judgeAnew(guard: Guard): void {
    const { reach } = this.#options.stream
    const { audience } = guard
    let isPending = false
    try {
      isPending = audience.hops !== null && reach.isPending(reach.usesOf(audience))
    } catch (error) {
      this.#end(guard, error)
      return
    }
    // Nobody can say before it is there whom it excludes.
    if (isPending && !growsWithHops(audience.predicate)) {
      this.#end(guard, new TidegateError('UNAVAILABLE', 'what decides is being read; join again', { retryAfterMs: 0 }))
      return
    }
    let truths = this.#truthsOf(audience)
    if (isPending) {
      // Nothing is gained by half of what decides.
      truths = truths.map((truth, i) => truth && guard.truths[i]!)
      this.#settle(guard)
    }
    if (truths.every((truth, i) => truth === guard.truths[i])) return
    guard.truths = truths
    for (const permission of [...guard.permissions]) permission.changed()
  }

  #settle(guard: Guard): void {
    guard.settling ??= this.#settled(guard.audience).then(
      () => {
        guard.settling = null
        if (this.#guards.get(guard.audience) === guard) this.#judgeAnew(guard)
      },
      error => {
        guard.settling = null
        this.#end(guard, error)
      },
    )
  }

  #end({ permissions }: Guard, error: unknown): void {
    const known = error instanceof TidegateError ? error : unknownNow(this.#options.random(), error)
    for (const permission of [...permissions]) permission.end(known)
  }

  /** When a decision fails, the answer is no. */
  #truthsOf({ predicate, sets, now }: Audience): boolean[] {
    const { log } = this.#options.stream
    return partsOf(predicate).map(part => {
      try {
        for (const set of sets.values()) if (set.failure !== null) throw failureOf(set)
        return compile(part)(noRow, now) === true
      } catch (error) {
        repeated(log).warn({ err: error }, 'who may be in a channel could not be judged: not allowed')
        return false
      }
    })
  }

  /** What is wrong, where it cannot be read. */
  async #accessInTime(role: string): Promise<ChannelAccess | TidegateError> {
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error('the policies of channels could not be read in time')), maxReadMs)
    })
    const read = async (): Promise<ChannelAccess> => {
      await this.#options.admit(role)
      return this.#access(role)
    }
    try {
      return await Promise.race([read(), late])
    } catch (error) {
      return error instanceof TidegateError ? error : unknownNow(this.#options.random(), error)
    } finally {
      clearTimeout(timer)
    }
  }

  #reviseBy(access: ChannelAccess, permission: Permission): void {
    if (digestOf(access) === digestOf(permission.access)) {
      permission.access = access
      return
    }
    try {
      const plan = this.#planFor(access, permission.principal, permission.topic)
      permission.access = access
      if (this.#isAsBefore(plan, permission)) return
      this.#goOnBy(plan, permission)
    } catch (error) {
      permission.end(error instanceof TidegateError ? error : unknownNow(this.#options.random(), error))
    }
  }

  #isAsBefore({ slots, memberships, asked }: Plan, { plan, guard }: Permission): boolean {
    if (JSON.stringify([slots, asked]) !== JSON.stringify([plan.slots, plan.asked])) return false
    return (memberships === null ? undefined : this.#options.audiences.keyOf(memberships)) === guard?.audience.key
  }

  /** By other rules, if all that they read is at hand. */
  #goOnBy(plan: Plan, permission: Permission): void {
    const { audiences } = this.#options
    const before = permission.answers
    const audience = plan.memberships === null ? null : audiences.joinLoaded(plan.memberships, permission)
    if (plan.asked !== null || (plan.memberships !== null && audience === null)) {
      if (audience !== null) audiences.leave(audience, permission)
      permission.end(changed(permission.access.table))
      return
    }
    permission.plan = standingPlan(permission.access, plan)
    if (audience === null || audience !== permission.guard?.audience) {
      this.#leaveGuards(permission)
      if (audience !== null) this.#enter(audience, permission)
    }
    if (permission.answers.some((answer, i) => answer !== before[i])) permission.changed()
  }
}

const noRow: Row = { text: () => undefined }

const partsOf = (predicate: Predicate): readonly Predicate[] => (predicate.kind === 'or' ? predicate.args : [predicate])

/** @param chance spreads those who come back, 0 to 1 */
const unknownNow = (chance: number, cause: unknown): TidegateError =>
  new TidegateError('UNAVAILABLE', 'the policies of channels changed and cannot be read; join again', {
    cause,
    retryAfterMs: 500 + Math.floor(chance * 2000),
  })
