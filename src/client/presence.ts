// The members of one channel as the client holds them. Strict: what does not fit the members held is an error, because whoever was
// missed would be shown for ever. Pure.
import type { Json, PresenceEvent, PresenceMember } from '../protocol/messages.ts'
import { ProtocolError } from './live-rows.ts'

/** An entry of one connection; a user with two tabs has two under one `key`. */
export type Member<Meta = Json> = Omit<PresenceMember, 'meta'> & { readonly meta: Meta }

/** Stays the same object, and `here` the same list, until something changes. */
export interface PresenceState<Meta = Json> {
  /** In the order they came. Empty where `isListed` is false. */
  readonly here: readonly Member<Meta>[]
  readonly count: number
  /** False: there are more than the channel's rule lists, and only their number is known. */
  readonly isListed: boolean
  /** False: nothing was told yet, or the place in the channel was lost since: `here` is who was there last. */
  readonly isCurrent: boolean
}

export interface PresenceChange<Meta = Json> {
  readonly joined: readonly Member<Meta>[]
  readonly left: readonly Member<Meta>[]
  /** They tell something else of themselves, or came back on another connection. */
  readonly updated: readonly Member<Meta>[]
}

export const nobody: PresenceState<never> = { here: [], count: 0, isListed: true, isCurrent: false }
export const noChange: PresenceChange<never> = { joined: [], left: [], updated: [] }

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
