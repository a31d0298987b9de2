// The members of one channel as the client holds them. Strict: what does not fit the members held is an error, because whoever was
// missed would be shown for ever. Pure.
import type { PresenceEvent } from '../../protocol/messages.ts'
import { ProtocolError } from '../queries/live-rows.ts'
import { type Member, nobody, noChange, type PresenceChange, type PresenceState } from './presence-state.ts'

/** As many as the channel's rule lists: the server tells no more. */
export class Members {
  #members = new Map<string, Member>()
  #isKnown = false
  #state: PresenceState = nobody

  get state(): PresenceState {
    return this.#state
  }

  /** @returns what is different from what was told before
   *  @throws ProtocolError when it cannot follow from the members held */
  apply({ here, joined = [], left = [], updated = [], count }: PresenceEvent): PresenceChange {
    if (here === undefined && joined.length + left.length + updated.length > 0) {
      if (!this.#state.isCurrent || !this.#state.isListed)
        throw new ProtocolError('a change of who is there came before the list')
      const members = new Map(this.#members)
      for (const { ref } of left) if (!members.delete(ref)) throw new ProtocolError(`${ref} left, and was not there`)
      for (const member of joined) {
        if (members.has(member.ref)) throw new ProtocolError(`${member.ref} joined, and was there`)
        members.set(member.ref, member)
      }
      for (const member of updated) {
        if (!members.has(member.ref)) throw new ProtocolError(`${member.ref} changed, and was not there`)
        members.set(member.ref, member)
      }
      this.#members = members
      this.#tell(count, true)
      return { joined, left, updated }
    }
    const before = this.#isKnown ? this.#members : null
    this.#isKnown = here !== undefined
    this.#members = new Map(here?.map(member => [member.ref, member]))
    this.#tell(count, this.#isKnown)
    // Those of the first list did not come just now.
    return before === null || here === undefined ? noChange : differenceOf(before, this.#members)
  }

  /** The place is lost: who was there is known, and who is there is not. */
  interrupt(): void {
    if (this.#state.isCurrent) this.#state = { ...this.#state, isCurrent: false }
  }

  /** What may not be asked for any longer may not be shown any longer. */
  clear(): void {
    this.#members = new Map()
    this.#isKnown = false
    this.#state = nobody
  }

  #tell(count: number, isListed: boolean): void {
    this.#state = { here: [...this.#members.values()], count, isListed, isCurrent: true }
  }
}

function differenceOf(before: ReadonlyMap<string, Member>, after: ReadonlyMap<string, Member>): PresenceChange {
  const joined: Member[] = []
  const updated: Member[] = []
  for (const member of after.values()) {
    const old = before.get(member.ref)
    if (old === undefined) joined.push(member)
    else if (JSON.stringify(old) !== JSON.stringify(member)) updated.push(member)
  }
  return { joined, updated, left: [...before.values()].filter(({ ref }) => !after.has(ref)) }
}
