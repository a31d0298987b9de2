// The commits that whoever watches is shown: the newest since they were last told, and how many there were beside them.
import type { CommitTrace } from '../figures/commit-trace.ts'
import type { CommitsSeen } from './wire.ts'

const maxTraces = 25

/** Between two looks it holds `maxTraces` traces. */
export class CommitsRecord {
  readonly #counted: () => number
  readonly #before: number
  #traces: CommitTrace[] = []
  /** In all, as are those below. */
  #traced = 0
  #untraced = 0
  #countedAtLook = 0
  #toldTraces = 0

  /** @param counted how many commits the node has counted */
  constructor(counted: () => number) {
    this.#counted = counted
    this.#before = counted()
  }

  readonly take = (trace: CommitTrace): void => {
    this.#traced += 1
    this.#traces.push(trace)
    if (this.#traces.length > maxTraces) this.#traces.shift()
  }

  /** What came since the last look; null: nothing. A commit is counted shortly before or after it is traced: of those that were counted
   *  at the last look, what is not traced by now is not going to be. */
  look(): CommitsSeen | null {
    const traces = this.#traces
    const untraced = Math.max(0, this.#countedAtLook - this.#traced - this.#untraced)
    const skipped = untraced + this.#traced - this.#toldTraces - traces.length
    this.#untraced += untraced
    this.#countedAtLook = this.#counted() - this.#before
    this.#toldTraces = this.#traced
    this.#traces = []
    return traces.length === 0 && skipped === 0 ? null : { traces, skipped }
  }
}
