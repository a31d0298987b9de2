// When commits came from the slot: noted once for all that came together, and looked up for those whose way is timed.

/** Past it the oldest are forgotten: as many gulps as come in a second at most. */
const maxNotes = 1024

export class Arrivals {
  readonly #lsns = new BigInt64Array(maxNotes)
  readonly #atMs = new Float64Array(maxNotes)
  /** How many were noted in all. */
  #count = 0

  /** @param lsn of the last commit that came @param atMs milliseconds since 1970 */
  note(lsn: bigint, atMs: number): void {
    const place = this.#count % maxNotes
    this.#lsns[place] = lsn
    this.#atMs[place] = atMs
    this.#count += 1
  }

  /** The slot is not held any more, or read again. */
  clear(): void {
    this.#count = 0
  }

  /** When a commit came; null when it is not known. */
  of(lsn: bigint): number | null {
    const first = Math.max(0, this.#count - maxNotes)
    let low = first
    let high = this.#count
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#lsns[middle % maxNotes]! < lsn) low = middle + 1
      else high = middle
    }
    // Of the oldest note nobody knows how far it reaches back, once others were forgotten.
    if (low === this.#count || (low === first && first > 0)) return null
    return this.#atMs[low % maxNotes]!
  }
}
