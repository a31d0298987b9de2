// The stands of a node that is alone: lost when it stops.
import { added, type Kept, keepable, type Stand, type StandLimits, type Stands, standLimits, taken } from './stands.ts'

export class MemoryStands implements Stands {
  readonly #now: () => number
  readonly #limits: StandLimits
  /** At most `maxOwners`, in the order in which one was kept of them last. */
  readonly #owners = new Map<string, readonly Kept[]>()

  /** @param now steady */
  constructor(now: () => number, limits: StandLimits = standLimits) {
    this.#now = now
    this.#limits = limits
  }

  /** Owners of whom something is kept. */
  get size(): number {
    return this.#owners.size
  }

  keep(stand: Stand): void {
    if (keepable(stand, this.#limits) === null) return
    const { owner } = stand
    const now = this.#now()
    const kept = added(this.#owners.get(owner) ?? [], stand, now, this.#limits)
    this.#owners.delete(owner)
    this.#owners.set(owner, kept)
    for (const [oldest, left] of this.#owners) {
      const isOver = now - left.at(-1)!.keptMs >= this.#limits.keepMs
      if (!isOver && this.#owners.size <= this.#limits.maxOwners) break
      this.#owners.delete(oldest)
    }
  }

  async take(owner: string, ref: string | null): Promise<Stand['positions'] | null> {
    const before = this.#owners.get(owner)
    if (before === undefined) return null
    const { positions, kept } = taken(before, ref, this.#now(), this.#limits)
    if (kept.length === 0) this.#owners.delete(owner)
    else this.#owners.set(owner, kept)
    return positions
  }

  async close(): Promise<void> {
    this.#owners.clear()
  }
}
