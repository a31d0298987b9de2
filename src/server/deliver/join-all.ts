// Joins the queries or channels of one stream, all or none.
import type { Caller } from '../channels/door.ts'
import type { Doors, Membership } from './membership.ts'

/** One after the other, so that a stream of many queries takes no more snapshot slots than one of few.
 *  @throws the first refusal; then none is joined */
export async function joinAll(members: readonly Membership[], doors: Doors, caller: Caller): Promise<void> {
  try {
    for (const member of members) await member.enter(doors, caller)
  } catch (error) {
    for (const member of members) member.close('gone')
    throw error
  }
}
