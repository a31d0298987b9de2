// How fast one client may send: a bucket of tokens that refills with time.

export interface TokenBucket {
  tokens: number
  refilledAt: number
}

export const fullBucket = (burst: number, now: number): TokenBucket => ({ tokens: burst, refilledAt: now })

/** Takes one token. @returns false when there is none; milliseconds since 1970 as `now` */
export function takeToken(bucket: TokenBucket, now: number, perSecond: number, burst: number): boolean {
  refill(bucket, now, perSecond, burst)
  if (bucket.tokens < 1) return false
  bucket.tokens -= 1
  return true
}

/** Takes one token, owing it if there is none. */
export function oweToken(bucket: TokenBucket, now: number, perSecond: number, burst: number): void {
  refill(bucket, now, perSecond, burst)
  bucket.tokens -= 1
}

export function isInDebt(bucket: TokenBucket, now: number, perSecond: number, burst: number): boolean {
  refill(bucket, now, perSecond, burst)
  return bucket.tokens < 0
}

function refill(bucket: TokenBucket, now: number, perSecond: number, burst: number): void {
  // A clock that steps back must not take tokens away.
  const elapsedMs = Math.max(0, now - bucket.refilledAt)
  bucket.tokens = Math.min(burst, bucket.tokens + (elapsedMs * perSecond) / 1000)
  bucket.refilledAt = now
}
