// What Redis lost, and whom that excuses. A resync for it is owed a fault of this run: Redis was emptied or rolled back past what
// the slot held back, and the node that told of the resync had nothing of its own from before.
import type { Resync } from '../checker/judge.ts'

export interface RedisLoss {
  /** As the fault is counted, and its number. */
  readonly name: string
  /** performance.now(), when it was killed. */
  readonly at: number
  /** Up to here the slot had been acknowledged: what comes after it is there to fill Redis again. */
  readonly acknowledged: bigint
  /** Where the WAL ended before the time for which acknowledgements are held back. What is younger must be there still. */
  readonly heldFrom: bigint
  /** What each process of a node had told anybody by then, at most. */
  readonly told: ReadonlyMap<string, bigint>
}

export class RedisLosses {
  readonly #losses: RedisLoss[] = []

  add(loss: RedisLoss): void {
    this.#losses.push(loss)
  }

  /** @returns the fault that it is owed to; null when there is none */
  excuse({ code, from, at, node }: Resync): string | null {
    if (code !== 'WINDOW_PASSED') return null
    const loss = this.#losses.find(
      each =>
        each.at <= at &&
        from < each.acknowledged &&
        from < each.heldFrom &&
        (each.told.get(node) ?? 0n) < each.acknowledged,
    )
    return loss === undefined ? null : `Redis lost more than was held back, and the node had been behind (${loss.name})`
  }
}
