// How many commits a second are traced: a bucket of one second's worth, so that the first after a rest are all there.

export class TraceRate {
  readonly #perSecond: number
  #tokens: number
  #refilledAtMs = Number.NEGATIVE_INFINITY

  constructor(perSecond: number) {
    this.#perSecond = perSecond
    this.#tokens = perSecond
  }

  /** Whether one more may go out. @param nowMs steady */
  take(nowMs: number): boolean {
    const passedMs = Math.min(1000, Math.max(0, nowMs - this.#refilledAtMs))
    this.#tokens = Math.min(this.#perSecond, this.#tokens + (passedMs * this.#perSecond) / 1000)
    this.#refilledAtMs = nowMs
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}
