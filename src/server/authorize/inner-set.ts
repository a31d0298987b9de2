// The inner rows of a semi-join, as the index holds them: how many there are of each kind. For a membership set rows of a
// kind have the same key; for a hop, the same values in all columns that are read. Moved forward by the stream of commits.
import type { Predicate, Row } from '../../predicate/algebra.ts'
import { compile } from '../../predicate/evaluate.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Table } from '../catalog/table.ts'
import { type Judge, noMemberships } from './visibility.ts'

/** What an inner row is counted as. */
export interface Entry {
  /** Equal for rows of a kind. */
  readonly name: string
  /** As the inner table spells them: a membership set's key, a hop's columns kept. To read rows by. */
  readonly values: readonly (string | null)[]
  /** A NULL in the key of a membership set: counted, but under no key. */
  readonly isNull: boolean
}

export interface EntryCount {
  count: number
  readonly values: readonly (string | null)[]
}

export abstract class InnerSet {
  readonly table: Table
  /** Bound: which inner rows are held. */
  readonly local: Predicate
  /** Rows counted, and those among them with a NULL in the key. */
  total = 0
  nulls = 0
  /** Why the set is not exact any more: a row could not be judged, or there are more than `maxRows`. Nothing that reads
   *  it is visible then, and whoever does is told so. */
  failure: unknown = null
  mark = 0
  readonly #maxRows: number
  /** `local` as a function, while it is needed. */
  #judge: Judge | null

  /** @param maxRows past it the set counts no further and fails
   *  @throws what cannot be judged exactly */
  constructor(table: Table, local: Predicate, maxRows: number) {
    this.table = table
    this.local = local
    this.#maxRows = maxRows
    this.#judge = compile(local)
  }

  /** Whether an inner row is one of those held. */
  matches(row: Row): boolean {
    try {
      this.#judge ??= compile(this.local)
      return this.#judge(row, noMemberships) === true
    } catch (error) {
      this.failure ??= error
      return false
    }
  }

  /** It stands, and may never be moved: what judges its rows takes 0.7 kB or more, and is made again when it is. */
  rest(): void {
    this.#judge = null
  }

  /** What a row that matches is counted as; null when it is not held for now. */
  abstract entryOf(row: Row): Entry | null

  abstract countOf(name: string): number

  /** Every kind there is, also those whose count is 0 until `settle`. */
  abstract entries(): Iterable<readonly [name: string, entry: EntryCount]>

  /** Adds to the count of a kind, without regard to `total`. */
  protected abstract add(entry: Entry, by: number): void

  /** Forgets kinds that nothing holds any more. */
  abstract settle(names: Iterable<string>): void

  /** Forgets everything. */
  abstract clear(): void

  /** Adds (by above 0) or takes away rows of a kind. */
  count(entry: Entry, by: number): void {
    if (by > 0 && this.total + by > this.#maxRows) {
      this.failure ??= membershipTooLarge(this.table, this.#maxRows)
      return
    }
    this.total += by
    if (entry.isNull) this.nulls += by
    else this.add(entry, by)
  }

  /** The table was truncated: nothing is left, though it is still found until `settle`. */
  abstract empty(): void
}

export const membershipTooLarge = ({ schema, name }: Table, maxRows: number): TidegateError =>
  new TidegateError(
    'MEMBERSHIP_TOO_LARGE',
    `${schema}.${name} has more than ${maxRows} rows that decide for this reader`,
  )
