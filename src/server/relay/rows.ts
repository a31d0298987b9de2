// The row messages of a commit that is being read, in memory.
import type { Relation } from '../decode/change.ts'
import { HeldCommit, type Run } from '../decode/held-commit.ts'
import type { CommitHead } from './block-cursor.ts'

export class Rows {
  readonly #rows: Buffer[] = []
  readonly #runs: Run[] = []
  #current: Relation | null = null

  get count(): number {
    return this.#rows.length
  }

  add(relation: Relation, row: Buffer): void {
    if (relation !== this.#current) this.#runs.push({ from: this.#rows.length, relation })
    this.#current = relation
    this.#rows.push(row)
  }

  commit(head: CommitHead): HeldCommit {
    return new HeldCommit(head, this.#rows.length === 1 ? this.#rows[0]! : this.#rows, this.#runs)
  }
}
