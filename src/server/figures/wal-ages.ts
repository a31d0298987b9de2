// How old WAL is: when Postgres's WAL was seen to end where, and how long it is since it ended at a position. To the second.

interface Mark {
  readonly lsn: bigint
  readonly atMs: number
}

/** Past it those go that lie closer together than a twentieth of their age: some 250 are left, also of days. */
const maxMarks = 1024
const precision = 0.05

export class WalAges {
  /** Oldest first. */
  #marks: Mark[] = []

  /** @param endLsn where the WAL ended at this moment */
  saw(endLsn: bigint, nowMs: number): void {
    const last = this.#marks.at(-1)
    // Another server, or the same as it was before: what was known is of no use.
    if (last !== undefined && endLsn < last.lsn) this.#marks = []
    if (last !== undefined && endLsn === last.lsn) return
    this.#marks.push({ lsn: endLsn, atMs: nowMs })
    if (this.#marks.length > maxMarks) this.#thin(nowMs)
  }

  /** Nobody will ask for what lies before all of these. */
  forget(...lsns: readonly bigint[]): void {
    let past = 0
    while (past + 1 < this.#marks.length && lsns.every(lsn => this.#marks[past + 1]!.lsn <= lsn)) past += 1
    if (past > 0) this.#marks.splice(0, past)
  }

  /** How long ago WAL was written that lies behind a position; 0 when there is none. Of WAL that is older than what was seen it is
   *  told as long as this has been looked at. */
  secondsBehind(lsn: bigint, nowMs: number): number {
    let low = 0
    let high = this.#marks.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#marks[middle]!.lsn <= lsn) low = middle + 1
      else high = middle
    }
    return low === this.#marks.length ? 0 : Math.max(0, nowMs - this.#marks[low]!.atMs) / 1000
  }

  #thin(nowMs: number): void {
    const kept: Mark[] = []
    for (const [place, mark] of this.#marks.entries()) {
      const [before, next] = [kept.at(-1), this.#marks[place + 1]]
      const isClose =
        before !== undefined && next !== undefined && next.atMs - before.atMs < precision * (nowMs - next.atMs)
      if (!isClose) kept.push(mark)
    }
    this.#marks = kept
  }
}
