// Who may have one of a few places now: some are for few, none is for one kind alone.
import { TidegateError } from '../../protocol/tidegate-error.ts'

/** So many of these together have a place at a time. */
export interface Limit<Name extends string> {
  readonly of: readonly Name[]
  readonly most: number
}

export interface WaitOptions {
  /** Left out: for as long as it takes. */
  readonly waitMs?: number | undefined
  readonly queueLimit: number
}

interface Waiting {
  readonly begin: () => void
  readonly fail: (error: unknown) => void
}

interface Line<Name> {
  readonly name: Name
  readonly rank: number
  readonly limits: Count[]
  readonly waiting: Waiting[]
  taken: number
  /** When one of it was let in last, as a number that rises. */
  servedAt: number
}

interface Count {
  readonly most: number
  taken: number
}

export class Places<Name extends string> {
  readonly #lines: ReadonlyMap<Name, Line<Name>>
  #turn = 0
  #closed: unknown = null

  /** @param ranks who goes first: the lower number; those of the same take turns */
  constructor(limits: readonly Limit<Name>[], ranks: Readonly<Record<Name, number>>) {
    const lines = new Map<Name, Line<Name>>()
    for (const [name, rank] of Object.entries(ranks) as [Name, number][])
      lines.set(name, { name, rank, limits: [], waiting: [], taken: 0, servedAt: 0 })
    for (const { of, most } of limits) {
      const count = { most, taken: 0 }
      for (const name of of) lines.get(name)!.limits.push(count)
    }
    this.#lines = lines
  }

  /** Resolves when there is a place, which `free` gives back. Those of one name come in the order in which they asked.
   *  @throws BUSY when too many wait; an error that says so after `waitMs` */
  async take(name: Name, { waitMs, queueLimit }: WaitOptions): Promise<void> {
    if (this.#closed !== null) throw this.#closed
    const line = this.#lines.get(name)!
    // Whoever waits in a line with room would have been let in.
    if (hasRoom(line)) {
      this.#letIn(line)
      return
    }
    if (line.waiting.length >= queueLimit)
      throw new TidegateError('BUSY', `${line.waiting.length} are waiting for the database already`)
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    const waiting: Waiting = { begin: resolve, fail: reject }
    line.waiting.push(waiting)
    if (waitMs === undefined) return promise
    const timer = setTimeout(() => {
      line.waiting.splice(line.waiting.indexOf(waiting), 1)
      reject(new Error('timeout exceeded when waiting for a connection'))
    }, waitMs)
    return promise.finally(() => clearTimeout(timer))
  }

  free(name: Name): void {
    this.#lines.get(name)!.taken -= 1
    for (const count of this.#lines.get(name)!.limits) count.taken -= 1
    for (let line = this.#next(); line !== null; line = this.#next()) {
      this.#letIn(line)
      line.waiting.shift()!.begin()
    }
  }

  /** How many have a place, and wait for one, by name. */
  get use(): readonly { readonly name: Name; readonly taken: number; readonly waiting: number }[] {
    return Array.from(this.#lines.values(), ({ name, taken, waiting }) => ({ name, taken, waiting: waiting.length }))
  }

  /** Refuses who waits, and whoever comes. */
  close(error: unknown): void {
    this.#closed = error
    for (const { waiting } of this.#lines.values()) for (const { fail } of waiting.splice(0)) fail(error)
  }

  #next(): Line<Name> | null {
    let next: Line<Name> | null = null
    for (const line of this.#lines.values()) {
      if (line.waiting.length === 0 || !hasRoom(line)) continue
      const isSooner =
        next === null || line.rank < next.rank || (line.rank === next.rank && line.servedAt < next.servedAt)
      if (isSooner) next = line
    }
    return next
  }

  #letIn(line: Line<Name>): void {
    this.#turn += 1
    line.servedAt = this.#turn
    line.taken += 1
    for (const count of line.limits) count.taken += 1
  }
}

const hasRoom = (line: Line<string>): boolean => line.limits.every(({ most, taken }) => taken < most)
