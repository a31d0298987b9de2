// One reader's permission in one channel: where its answers are looked up, and who is told when they change.
import type { TidegateError } from '../../../protocol/tidegate-error.ts'
import type { Few } from '../../authorize/few.ts'
import type { Audience } from '../../route/audience.ts'
import type { AudienceUser } from '../../subscribe/audiences.ts'
import type { Principal } from '../../subscribe/subscription.ts'
import type { ChannelAccess } from './guards-access.ts'
import type { AskedGuard, AskedGuardUser } from './guards-asked.ts'
import { type Plan, placeOf } from './guards-plan.ts'
import type { Action, ChannelPermission, Extension, PermissionWatcher } from './permission.ts'

/** What memberships answer, for all who have the same claims and channel as far as they matter. */
export interface Guard {
  readonly audience: Audience
  /** Of the parts of the audience's predicate, as of the newest commit whose memberships have been counted in. */
  truths: readonly boolean[]
  readonly permissions: Few<Permission>
  /** Resolves when what it reaches anew is loaded; null while nothing is. */
  settling: Promise<void> | null
}

export interface PermissionOwner {
  released(permission: Permission): void
}

export class Permission implements ChannelPermission, AudienceUser, AskedGuardUser {
  readonly principal: Principal
  readonly topic: string
  readonly #owner: PermissionOwner
  readonly #watcher: PermissionWatcher
  /** What it was made by. */
  access: ChannelAccess
  plan: Plan
  guard: Guard | null = null
  asked: AskedGuard | null = null
  /** Why it is judged no more. */
  ended: TidegateError | null = null
  /** It has been given out. */
  isStanding = false
  #isReleased = false

  constructor(
    owner: PermissionOwner,
    who: { readonly principal: Principal; readonly topic: string; readonly watcher: PermissionWatcher },
    made: { readonly access: ChannelAccess; readonly plan: Plan },
  ) {
    this.#owner = owner
    this.principal = who.principal
    this.topic = who.topic
    this.#watcher = who.watcher
    this.access = made.access
    this.plan = made.plan
  }

  get isExact(): boolean {
    return this.plan.asked === null
  }

  may(action: Action, extension: Extension): boolean {
    if (this.ended !== null || this.#isReleased) return false
    const slot = this.plan.slots[placeOf(action, extension)]!
    if (typeof slot === 'boolean') return slot
    const truths = slot.by === 'memberships' ? this.guard?.truths : this.asked?.truths
    return truths?.[slot.at] ?? false
  }

  /** All of `may`, to be compared. */
  get answers(): readonly boolean[] {
    return answersOf(this)
  }

  changed(): void {
    if (this.isStanding && !this.#isReleased) this.#watcher.changed()
  }

  askedAnew(): void {
    this.changed()
  }

  end(error: TidegateError): void {
    if (this.ended !== null || this.#isReleased) return
    this.ended = error
    this.#owner.released(this)
    if (this.isStanding) this.#watcher.ended(error)
  }

  release(): void {
    if (this.#isReleased) return
    this.#isReleased = true
    if (this.ended === null) this.#owner.released(this)
  }
}

const answersOf = (permission: ChannelPermission): boolean[] => [
  permission.may('receive', 'broadcast'),
  permission.may('receive', 'presence'),
  permission.may('send', 'broadcast'),
  permission.may('send', 'presence'),
]
