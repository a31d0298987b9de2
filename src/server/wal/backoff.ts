// How long to wait before the next attempt: twice as long each time, and anywhere below that, so that many nodes that
// lost the same database do not come back at the same moment.

export interface Backoff {
  readonly firstMs: number
  readonly maxMs: number
}

/** @param attempt 0 for the first
 *  @param chance in [0, 1)
 *  @returns milliseconds in [0, min(maxMs, firstMs * 2^attempt)). Source: "Exponential Backoff and Jitter", full jitter */
export const backoffMs = (attempt: number, chance: number, { firstMs, maxMs }: Backoff): number =>
  chance * Math.min(maxMs, firstMs * 2 ** Math.min(attempt, 30))
