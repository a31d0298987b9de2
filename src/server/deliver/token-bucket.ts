// How fast one client may send: a bucket of tokens that refills with time.

export interface TokenBucket {
  tokens: number
  refilledAt: number
}

export const fullBucket = (burst: number, now: number): TokenBucket => ({ tokens: burst, refilledAt: now })

/** Takes one token. @returns false when there is none; milliseconds since 1970 as `now` */
export function takeToken(bucket: TokenBucket, now: number, perSecond: number, burst: number): boolean {
  // A clock that steps back must not take tokens away.
  const elapsedMs = Math.max(0, now - bucket.refilledAt)
  bucket.tokens = Math.min(burst, bucket.tokens + (elapsedMs * perSecond) / 1000)
  bucket.refilledAt = now
  if (bucket.tokens < 1) return false
  bucket.tokens -= 1
  return true
}
