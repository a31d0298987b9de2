// Whose snapshot is read next: users take turns, so that whoever asks for a hundred makes nobody wait behind a hundred. Pure, but for
// the promises by which those who wait are told.
//
// A read stands in the line of everybody who wants it, and goes with the first of them whose turn it is. The lines are served one after
// the other, one read each. No line may have all places at once, where there are several: reads that are slow leave one to the others.
// Past the bound of all lines together the longest gives way, by its newest: a full house is no reason to refuse whoever asks for one.
import { TidegateError } from '../../protocol/tidegate-error.ts'

export interface TurnsOptions {
  /** Reads at a time. */
  readonly places: number
  /** Entries in all lines. */
  readonly maxWaiting: number
}

interface Waiting {
  readonly begin: () => void
  readonly fail: (error: unknown) => void
}

/** One read, that some want. */
export class Wanted {
  /** Whose lines it stands in while it waits; never empty. */
  readonly shares = new Set<string>()
  waiting: Waiting | null = null
  /** In whose turn it is read; null while it is not. */
  servedFor: string | null = null

  /** @param share equal for all that one user asks for */
  constructor(share: string) {
    this.shares.add(share)
  }
}

export class Turns {
  readonly #options: TurnsOptions
  /** In the order in which they are served; none is empty. */
  readonly #lines = new Map<string, Set<Wanted>>()
  /** Reads of each share; none is 0. */
  readonly #reading = new Map<string, number>()
  #taken = 0
  #waiting = 0

  constructor(options: TurnsOptions) {
    this.#options = options
  }

  /** Entries in all lines. */
  get waiting(): number {
    return this.#waiting
  }

  get reading(): number {
    return this.#taken
  }

  /** Resolves when it is its turn, which `free` ends. @throws BUSY */
  take(wanted: Wanted): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    wanted.waiting = { begin: resolve, fail: reject }
    for (const share of wanted.shares) this.#standIn(share, wanted)
    if (this.#stands(wanted)) this.#serve()
    else this.#refuse(wanted)
    return promise
  }

  /** Somebody else wants it too. */
  join(wanted: Wanted, share: string): void {
    if (wanted.shares.has(share)) return
    wanted.shares.add(share)
    if (wanted.waiting === null) return
    this.#standIn(share, wanted)
    this.#serve()
  }

  free(wanted: Wanted): void {
    const share = wanted.servedFor!
    wanted.servedFor = null
    this.#taken -= 1
    const left = this.#reading.get(share)! - 1
    if (left > 0) this.#reading.set(share, left)
    else this.#reading.delete(share)
    this.#serve()
  }

  #standIn(share: string, wanted: Wanted): void {
    const isFull = this.#waiting >= this.#options.maxWaiting
    if (isFull && !this.#isItsTurn(share) && !this.#makeRoom(share, wanted)) return
    const line = this.#lines.get(share)
    if (line === undefined) this.#lines.set(share, new Set([wanted]))
    else line.add(wanted)
    this.#waiting += 1
  }

  /** Whether whoever comes would wait for nobody: those who wait while there is a place have as many as one may. */
  #isItsTurn(share: string): boolean {
    return !this.#lines.has(share) && this.#taken < this.#options.places && this.#mayHaveMore(share)
  }

  #mayHaveMore(share: string): boolean {
    return (this.#reading.get(share) ?? 0) < Math.max(1, this.#options.places - 1)
  }

  #stands(wanted: Wanted): boolean {
    for (const share of wanted.shares) if (this.#lines.get(share)?.has(wanted)) return true
    return false
  }

  /** @returns false when no other line is longer than this one would be */
  #makeRoom(share: string, wanted: Wanted): boolean {
    let [longest, length] = ['', (this.#lines.get(share)?.size ?? 0) + 1]
    for (const [other, { size }] of this.#lines) if (size > length) [longest, length] = [other, size]
    const line = this.#lines.get(longest)
    if (line === undefined) return false
    const newest = [...line].at(-1)!
    this.#leave(longest, newest)
    if (newest !== wanted && !this.#stands(newest)) this.#refuse(newest)
    return true
  }

  #refuse(wanted: Wanted): void {
    const { waiting } = wanted
    wanted.waiting = null
    waiting?.fail(new TidegateError('BUSY', `${this.#waiting} snapshots wait to be read already; come back later`))
  }

  #leave(share: string, wanted: Wanted): void {
    const line = this.#lines.get(share)
    if (line?.delete(wanted) !== true) return
    this.#waiting -= 1
    if (line.size === 0) this.#lines.delete(share)
  }

  #serve(): void {
    while (this.#taken < this.#options.places) {
      const next = this.#next()
      if (next === null) return
      const [share, wanted] = next
      for (const each of wanted.shares) this.#leave(each, wanted)
      // The next time it is the turn of all others first.
      const rest = this.#lines.get(share)
      if (rest !== undefined) {
        this.#lines.delete(share)
        this.#lines.set(share, rest)
      }
      this.#taken += 1
      this.#reading.set(share, (this.#reading.get(share) ?? 0) + 1)
      wanted.servedFor = share
      const { waiting } = wanted
      wanted.waiting = null
      waiting!.begin()
    }
  }

  #next(): readonly [share: string, wanted: Wanted] | null {
    for (const [share, line] of this.#lines) {
      if (this.#mayHaveMore(share)) for (const wanted of line) return [share, wanted]
    }
    return null
  }
}
