// What a night must not leave behind. Pure.
import type { Held, Night } from './night.ts'

/** DATABASE_POOL of three nodes, and the leader's session, beside which another may begin. */
const maxDatabaseConnections = 3 * 4 + 2

/** @returns one line for each kind of thing of which there is more than before */
export function leftOf(before: Held, after: Held): string[] {
  const left: string[] = []
  const compare = (name: string, was: number, is: number): void => {
    if (is > was) left.push(`${name}: ${was} before, ${is} after`)
  }
  compare('descriptors', before.descriptors, after.descriptors)
  compare('slots', before.slots, after.slots)
  compare('connections to Postgres', maxDatabaseConnections, after.databaseConnections)
  const keys = after.redisKeys.filter(key => !before.redisKeys.includes(key))
  if (keys.length > 0) left.push(`keys in Redis: ${keys.length} more, such as ${keys.slice(0, 5).join(', ')}`)
  for (const [name, was] of Object.entries(before.gauges)) compare(name, was, after.gauges[name]!)
  return left
}

/** @param growthLimit per cent for each 100,000 commits; null: memory is not judged, after too short a night
 *  @returns one line for each, and none where all is well */
export function failuresOf(
  { before, after, growth, resyncs, difference }: Omit<Night, 'weights' | 'resident'>,
  growthLimit: number | null,
): string[] {
  const failures = leftOf(before, after)
  if (growthLimit !== null && growth >= growthLimit)
    failures.push(`memory grows by ${growth.toFixed(2)} % for each 100,000 commits, ${growthLimit} are allowed`)
  for (const reason of resyncs) failures.push(`a reader had to begin anew: ${reason}`)
  if (difference !== null) failures.push(difference)
  return failures
}
