// A committed transaction whose messages are in memory. The window holds them by the hundred thousand, and each collection
// of young garbage moves those that came since the last: a commit of one row takes 0.5 kB of heap here, where an object with
// closures and lists of its own took 1.2 kB, and with it the pauses of the collector.
import type { Change, Commit, Relation } from './change.ts'
import { type CommitFacts, KnownFacts } from './commit-facts.ts'
import { changeOf } from './row-message.ts'

/** From this change on, up to the next run, the messages are of this relation. */
export interface Run {
  readonly from: number
  readonly relation: Relation
}

export class HeldCommit extends KnownFacts implements Commit {
  /** Row messages as they came; a single one without a list around it. */
  readonly rows: Buffer | readonly Buffer[]
  /** Null when every change is of the only layout. */
  readonly runs: readonly Run[] | null

  /** @param facts with the lists of `soleOf`, if there is one layout: the same for all commits of that relation */
  constructor(facts: CommitFacts, rows: Buffer | readonly Buffer[], runs: readonly Run[]) {
    super(facts)
    this.rows = rows
    this.runs = facts.layouts.length === 1 ? null : runs
  }

  get spooled(): boolean {
    return false
  }

  get changeCount(): number {
    return Buffer.isBuffer(this.rows) ? 1 : this.rows.length
  }

  *changes(from = 0): Generator<Change> {
    const rows = this.rows
    if (Buffer.isBuffer(rows)) {
      if (from === 0) yield changeOf(rows, this.layouts[0]!, 0)
      return
    }
    const runs = this.runs
    if (runs === null) {
      for (let index = from; index < rows.length; index++) yield changeOf(rows[index]!, this.layouts[0]!, index)
      return
    }
    for (let run = 0; run < runs.length; run++) {
      const { from: first, relation } = runs[run]!
      const until = runs[run + 1]?.from ?? rows.length
      for (let index = Math.max(first, from); index < until; index++) yield changeOf(rows[index]!, relation, index)
    }
  }

  passing(from?: number): Generator<Change> {
    return this.changes(from)
  }

  release(): void {}
}

/** Lists that every commit of one relation shares. */
export interface Sole {
  readonly layouts: readonly Relation[]
  readonly oids: ReadonlySet<number>
}

const soles = new WeakMap<Relation, Sole>()

export function soleOf(relation: Relation): Sole {
  let sole = soles.get(relation)
  if (sole === undefined) {
    sole = { layouts: [relation], oids: new Set([relation.oid]) }
    soles.set(relation, sole)
  }
  return sole
}
