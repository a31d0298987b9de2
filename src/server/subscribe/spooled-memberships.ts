// What a spooled commit did to the tables whose rows decide for somebody, kept in memory when it is little. Undoing the
// memberships of a commit that lies in a file would mean to walk millions of rows for the one that revokes something.
import type { Change, Commit } from '../decode/change.ts'
import { bytesOf, detached } from '../route/spooled-rows.ts'

/** For each commit. The window holds as many spooled ones as fit into a quarter of the slot's limit: eight, by default. */
const maxBytes = 4 * 1024 * 1024

const kept = new WeakMap<Commit, ReadonlyMap<number, readonly Change[] | null>>()

/** The commit's changes of one table; null when they were too many, or nobody's memberships were in it at that time. */
export const keptChanges = (commit: Commit, oid: number): readonly Change[] | null => kept.get(commit)?.get(oid) ?? null

/** Takes them in while the commit is walked. */
export class ChangeKeeper {
  readonly #commit: Commit
  readonly #byTable: Map<number, Change[] | null>
  #bytes = 0

  /** @param oids of tables whose changes will all be shown to it */
  constructor(commit: Commit, oids: Iterable<number>) {
    this.#commit = commit
    this.#byTable = new Map([...oids].map(oid => [oid, []]))
  }

  add(change: Change): void {
    const changes = this.#byTable.get(change.relation.oid)
    if (changes === undefined || changes === null) return
    this.#bytes += bytesOf(change)
    if (this.#bytes > maxBytes) this.#byTable.set(change.relation.oid, null)
    else changes.push(detached(change))
  }

  /** All have been shown. */
  keep(): void {
    kept.set(this.#commit, this.#byTable)
  }
}
