// A committed transaction whose messages are in memory. The window holds them by the hundred thousand, and each collection
// of young garbage moves those that came since the last: a commit of one row takes 0.5 kB of heap here, where an object with
// closures and lists of its own took 1.2 kB, and with it the pauses of the collector.
import type { Change, Commit, LogicalMessage, Relation } from './change.ts'
import { changeOf } from './row-message.ts'

/** From this change on, up to the next run, the messages are of this relation. */
export interface Run {
  readonly from: number
  readonly relation: Relation
}

export interface HeldParts extends Omit<Commit, 'changes' | 'passing' | 'changeCount' | 'spooled' | 'release'> {
  /** Row messages as they came. */
  readonly rows: readonly Buffer[]
  readonly runs: readonly Run[]
}

export class HeldCommit implements Commit {
  readonly xid: number
  readonly commitLsn: bigint
  readonly endLsn: bigint
  readonly committedAtMicros: bigint
  readonly bytes: number
  readonly relations: ReadonlySet<number>
  readonly layouts: readonly Relation[]
  readonly announced: readonly Relation[]
  readonly messages: readonly LogicalMessage[]
  readonly #rows: Buffer | readonly Buffer[]
  /** Null when every change is of the only layout. */
  readonly #runs: readonly Run[] | null

  constructor({ rows, runs, ...parts }: HeldParts) {
    this.xid = parts.xid
    this.commitLsn = parts.commitLsn
    this.endLsn = parts.endLsn
    this.committedAtMicros = parts.committedAtMicros
    this.bytes = parts.bytes
    this.relations = parts.relations
    this.layouts = parts.layouts.length === 1 ? onlyLayout(parts.layouts[0]!) : parts.layouts
    this.announced = parts.announced
    this.messages = parts.messages
    this.#rows = rows.length === 1 ? rows[0]! : rows
    this.#runs = parts.layouts.length === 1 ? null : runs
  }

  get spooled(): boolean {
    return false
  }

  get changeCount(): number {
    return Buffer.isBuffer(this.#rows) ? 1 : this.#rows.length
  }

  *changes(from = 0): Generator<Change> {
    const rows = this.#rows
    if (Buffer.isBuffer(rows)) {
      if (from === 0) yield changeOf(rows, this.layouts[0]!, 0)
      return
    }
    const runs = this.#runs
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

const layouts = new WeakMap<Relation, readonly Relation[]>()

/** The same list for every commit of one relation. */
function onlyLayout(relation: Relation): readonly Relation[] {
  let layout = layouts.get(relation)
  if (layout === undefined) {
    layout = [relation]
    layouts.set(relation, layout)
  }
  return layout
}
