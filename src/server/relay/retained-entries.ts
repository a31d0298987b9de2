// What the Stream holds, as its leader knows it: how much of it may be let go. A follower keeps the same account of what it
// reads, so that it knows when it leads.
import { compareIds, type EntryId } from './redis-log.ts'

export interface RetentionLimits {
  readonly maxBytes: number
  readonly maxAgeMs: number
  /** Monotonic, milliseconds. */
  readonly now: () => number
}

interface Retained {
  readonly text: string
  readonly id: EntryId
  readonly bytes: number
  readonly cameAtMs: number
}

/** Readers that follow have taken what is older. */
const youngMs = 5000
/** Of what is young, or may still be invisible: a commit that SQL does not show for hours, or one of gigabytes. */
const excess = 4

export class RetainedEntries {
  readonly #limits: RetentionLimits
  #entries: Retained[] = []
  #bytes = 0
  #trimmedAtMs = 0

  constructor(limits: RetentionLimits) {
    this.#limits = limits
  }

  get bytes(): number {
    return this.#bytes
  }

  clear(): void {
    this.#entries = []
    this.#bytes = 0
  }

  /** One that is counted already, read again, is not counted twice. */
  add(text: string, id: EntryId, bytes: number): void {
    const last = this.#entries.at(-1)
    if (last !== undefined && compareIds(id, last.id) <= 0) return
    this.#entries.push({ text, id, bytes, cameAtMs: this.#limits.now() })
    this.#bytes += bytes
  }

  /** What is past the bounds, at most once a second. Commits that may be invisible stay: a node that starts now would miss
   *  them. So does the newest commit.
   *  @param settledLsn everything up to it is visible
   *  @returns the ID before which entries may go; '' for none */
  trim(settledLsn: bigint): string {
    const { maxBytes, maxAgeMs, now } = this.#limits
    const nowMs = now()
    if (nowMs - this.#trimmedAtMs < 1000) return ''
    this.#trimmedAtMs = nowMs
    const newest = this.#entries.at(-1)?.id.lsn
    let gone = 0
    for (const { id, bytes, cameAtMs } of this.#entries) {
      if (id.lsn === newest) break
      const ageMs = nowMs - cameAtMs
      const isExcess = this.#bytes > excess * maxBytes
      const mayGo = (this.#bytes > maxBytes || ageMs > maxAgeMs) && ageMs > youngMs && id.lsn <= settledLsn
      if (!mayGo && !isExcess) break
      this.#bytes -= bytes
      gone += 1
    }
    if (gone === 0) return ''
    this.#entries.splice(0, gone)
    return this.#entries[0]!.text
  }
}
