// A committed transaction whose row messages are in a file.
import type { Change, Commit } from './change.ts'
import { type CommitFacts, KnownFacts } from './commit-facts.ts'
import { changeOf } from './row-message.ts'
import type { Spool } from './spool.ts'

export class SpooledCommit extends KnownFacts implements Commit {
  readonly changeCount: number
  /** Its row messages; each names its relation by the place in `layouts`. */
  readonly spool: Spool

  /** @param spool finished; it belongs to the commit from here on */
  constructor(facts: CommitFacts, spool: Spool, changeCount: number) {
    super(facts)
    this.changeCount = changeCount
    this.spool = spool
  }

  get spooled(): boolean {
    return true
  }

  changes(from = 0): Generator<Change> {
    return this.#walk(this.spool.entries(from), from)
  }

  passing(from = 0): Generator<Change> {
    return this.#walk(this.spool.passing(from), from)
  }

  release(): void {
    this.spool.close()
  }

  *#walk(entries: Iterable<readonly [layout: number, message: Buffer]>, from: number): Generator<Change> {
    let index = this.spool.startBefore(from).entry
    for (const [layout, message] of entries) {
      if (index >= from) yield changeOf(message, this.layouts[layout]!, index)
      index++
    }
  }
}
