// How each audience saw the memberships before a commit that moved some: made when asked for, once for all its rows.
import type { MembershipsBefore } from '../authorize/membership-history.ts'
import type { MembershipView } from '../authorize/membership-view.ts'
import type { Audience } from './audience.ts'

export class ViewsBefore {
  readonly #before: MembershipsBefore
  readonly #views = new Map<Audience, MembershipView>()

  constructor(before: MembershipsBefore) {
    this.#before = before
  }

  of(audience: Audience): MembershipView {
    if (this.#before.sets.size === 0 && !audience.readsTime) return audience.now
    let view = this.#views.get(audience)
    if (view === undefined) {
      view = audience.at(this.#before)
      this.#views.set(audience, view)
    }
    return view
  }
}
