// Limits of time on a machine that has other things to do: what takes a second alone takes ten among ten.
import { expect } from 'vitest'

const spinMs = 300

/** How many times longer work takes now than it would alone: time passed over time computed, of this process. At least 1.
 *  Takes 0.3 seconds. */
export function crowding(): number {
  const before = process.cpuUsage()
  const beganAt = performance.now()
  while (performance.now() - beganAt < spinMs);
  const passedMs = performance.now() - beganAt
  const { user, system } = process.cpuUsage(before)
  return Math.max(1, (1000 * passedMs) / (user + system))
}

/** That something took less than its limit; on a crowded machine as many times the limit as that is crowded. */
export function expectWithin(tookMs: number, limitMs: number): void {
  if (tookMs >= limitMs) expect(tookMs).toBeLessThan(limitMs * crowding())
}
