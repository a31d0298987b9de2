// How far the stream has been served on this node: the one position at which the membership index, the audiences and the
// relay agree. Whoever waits for it looks again, in one turn, before acting: between two turns it may have moved.

import { steadyNow } from '../steady-clock.ts'

export class Head {
  /** Commit LSN of the newest commit served, or the epoch's floor. */
  lsn = 0n
  /** Everything that commits before it has been served. */
  passedLsn = 0n
  /** `now()` where the stream stands: the greatest commit timestamp served, in microseconds since 1970. */
  nowMicros = 0n
  /** False while a commit is being served in slices: index and audiences are between two positions. */
  resting = true
  /** When anything came last, on the steady clock. */
  movedAtMs = Number.NEGATIVE_INFINITY
  #changed: Promise<void>
  #notify!: () => void

  constructor() {
    this.#changed = new Promise(resolve => {
      this.#notify = resolve
    })
  }

  /** A new epoch: nothing of the old one counts. */
  begin(floorLsn: bigint): void {
    this.lsn = floorLsn
    this.passedLsn = floorLsn
    this.moved()
  }

  /** Whether everything up to `fence` has been served and nothing is half done. */
  ready(fence: bigint): boolean {
    return this.resting && this.passedLsn >= fence
  }

  /** Resolves at the next change. Use: `while (!head.ready(fence)) await head.change()`. */
  change(): Promise<void> {
    return this.#changed
  }

  moved(): void {
    this.movedAtMs = steadyNow()
    const notify = this.#notify
    this.#changed = new Promise(resolve => {
      this.#notify = resolve
    })
    notify()
  }
}
