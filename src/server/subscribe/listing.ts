// What stands behind the door of subscriptions, for whoever looks at a node: types only.
import type { Query } from '../route/query.ts'
import type { SubscribeRequest } from './subscription.ts'

/** One subscription. Those of an audience come one after the other. */
export interface SubscriptionListed {
  readonly query: Query
  /** Tells one audience from another. */
  readonly audience: object
  readonly role: string
  readonly request: SubscribeRequest
  /** Postgres is asked. */
  readonly isAsked: boolean
  /** The audience's frames wait for rows that a grant or revocation names. */
  readonly isHeld: boolean
  /** It does not stand at the head of the stream, or not yet. */
  readonly isBehind: boolean
}
