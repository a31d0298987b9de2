// Joins the queries of one stream, all or none.
import type { Principal, Subscriptions } from '../subscribe/subscription.ts'
import type { Membership } from './membership.ts'

/** One after the other, so that a stream of many queries takes no more snapshot slots than one of few.
 *  @throws the first refusal; then none is joined */
export async function joinAll(
  members: readonly Membership[],
  subscriptions: Subscriptions,
  principal: Principal,
): Promise<void> {
  try {
    for (const member of members) await member.enter(subscriptions, principal)
  } catch (error) {
    for (const member of members) member.close()
    throw error
  }
}
