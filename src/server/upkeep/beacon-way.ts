// The beacons of this node on their way: which were sent, and which came back through the WAL, the node that holds the slot,
// the journal and this node's own window. Pure: time comes as an argument.

export interface WayState {
  /** Something written for longer than an interval has not come. */
  readonly stale: boolean
  /** How long the newest that came back was on its way; while stale, how long the oldest has been awaited. */
  readonly lagMs: number
  /** Since when nothing that is written comes; null while it does. */
  readonly sinceMs: number | null
}

/** Those sent after so many others still awaited are not remembered: the oldest counts. */
const maxAwaited = 100

export class BeaconWay {
  readonly #patienceMs: number
  /** When those were sent that have not come back, oldest first; at most `maxAwaited`. */
  #awaited: readonly number[] = []
  #lastWayMs: number | null = null

  /** @param patienceMs how long one may be on its way before the node is stale */
  constructor(patienceMs: number) {
    this.#patienceMs = patienceMs
  }

  /** One is about to be written. It counts as awaited even if Postgres does not take it: a later one ends the wait. */
  sent(nowMs: number): void {
    if (this.#awaited.length < maxAwaited) this.#awaited = [...this.#awaited, nowMs]
  }

  /** @param sentAtMs when it was written: whatever was sent before may come no more, and need not */
  cameBack(sentAtMs: number, nowMs: number): void {
    this.#awaited = this.#awaited.filter(awaitedMs => awaitedMs > sentAtMs)
    this.#lastWayMs = Math.max(0, nowMs - sentAtMs)
  }

  /** Whether one ever came back: then all that was written before it has come too. */
  get isProven(): boolean {
    return this.#lastWayMs !== null
  }

  at(nowMs: number): WayState {
    const [oldestMs = null] = this.#awaited
    const awaitedMs = oldestMs === null ? 0 : Math.max(0, nowMs - oldestMs)
    const stale = this.#lastWayMs === null || awaitedMs > this.#patienceMs
    if (!stale) return { stale, lagMs: this.#lastWayMs ?? 0, sinceMs: null }
    return { stale, lagMs: awaitedMs, sinceMs: oldestMs ?? nowMs }
  }
}
