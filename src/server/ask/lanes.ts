// Who may ask Postgres now: a few at a time, so that no policy that is slow keeps the others waiting.
//
// Half of the places are for quick questions. One that turns out slow goes on in the other half, if there is a place, and
// leaves its own to the next; the next time it waits among the slow ones. When a policy becomes slow for all its readers at
// once, nobody knows yet which of them are: so those of one kind that has been slow lately take one quick place at most, and
// the rest is for others.

/** Longer than that, and a question is slow. */
const slowMs = 100
/** How long it counts that one of a kind was slow. */
const memoryMs = 30_000

export interface Turn {
  /** Questions that are likely to be slow together: those of one table and role. */
  readonly kind: string
  /** How long it took the last time, in milliseconds; null when it is asked for the first time. */
  readonly pace: number | null
}

interface Waiting extends Turn {
  readonly begin: (running: Running) => void
}

interface Running {
  readonly kind: string
  isQuick: boolean
}

export class Lanes {
  readonly #places: number
  readonly #now: () => number
  #waiting: Waiting[] = []
  readonly #running = new Set<Running>()
  /** By kind. Bounded by the tables and roles that are asked for. */
  readonly #slowUntil = new Map<string, number>()

  /** @param places at a time, in all. @param now milliseconds, monotonic */
  constructor(places: number, now: () => number = () => performance.now()) {
    this.#places = Math.max(1, Math.floor(places / 2))
    this.#now = now
  }

  async run<T>(turn: Turn, work: () => Promise<T>): Promise<T> {
    const running = this.#mayBegin(turn)
      ? this.#begin(turn)
      : await new Promise<Running>(resolve => this.#waiting.push({ ...turn, begin: resolve }))
    const timer = setTimeout(() => this.#outlasted(running), slowMs)
    try {
      return await work()
    } finally {
      clearTimeout(timer)
      this.#running.delete(running)
      this.#letIn()
    }
  }

  #outlasted(running: Running): void {
    this.#slowUntil.set(running.kind, this.#now() + memoryMs)
    if (!running.isQuick || this.#count(false) >= this.#places) return
    running.isQuick = false
    this.#letIn()
  }

  #isSlow({ kind, pace }: Turn): boolean {
    return pace === null ? this.#wasSlow(kind) : pace > slowMs
  }

  #wasSlow(kind: string): boolean {
    return this.#now() < (this.#slowUntil.get(kind) ?? 0)
  }

  #mayBegin(turn: Turn): boolean {
    const isQuick = !this.#isSlow(turn)
    if (this.#count(isQuick) >= this.#places) return false
    const isAlone = !isQuick || this.#places === 1 || !this.#wasSlow(turn.kind)
    return isAlone || ![...this.#running].some(({ kind, isQuick }) => isQuick && kind === turn.kind)
  }

  #count(isQuick: boolean): number {
    let count = 0
    for (const running of this.#running) if (running.isQuick === isQuick) count += 1
    return count
  }

  #letIn(): void {
    for (const waiting of [...this.#waiting]) {
      if (!this.#mayBegin(waiting)) continue
      this.#waiting = this.#waiting.filter(one => one !== waiting)
      waiting.begin(this.#begin(waiting))
    }
  }

  #begin(turn: Turn): Running {
    const running = { kind: turn.kind, isQuick: !this.#isSlow(turn) }
    this.#running.add(running)
    return running
  }
}
