// Who is in a channel, as applications see it.
import type { Json, PresenceMember } from '../../protocol/messages.ts'

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
