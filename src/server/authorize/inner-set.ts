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

/** Rows held by all sets of this node together. */
export class IndexSize {
  readonly maxRows: number
  rows = 0

  constructor(maxRows: number) {
    this.maxRows = maxRows
  }

  get room(): number {
    return Math.max(0, this.maxRows - this.rows)
  }

  /** New subscriptions are refused; those that stand go on, and are judged by what there is. @throws INDEX_FULL */
  assertRoom(): void {
    if (this.rows < this.maxRows) return
    throw indexFull(this)
  }
}

export const indexFull = ({ rows }: IndexSize): TidegateError =>
  new TidegateError('INDEX_FULL', `this node holds ${rows} rows that decide for its readers, and may hold no more`, {
    retryAfterMs: 10_000,
  })

export interface SetLimits {
  /** Rows of one set; past it the set counts no further and fails. */
  readonly maxRows: number
  readonly index: IndexSize
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
  readonly #limits: SetLimits
  /** `local` as a function, while it is needed. */
  #judge: Judge | null

  /** @throws what cannot be judged exactly */
  constructor(table: Table, local: Predicate, limits: SetLimits) {
    this.table = table
    this.local = local
    this.#limits = limits
    this.#judge = compile(local)
  }

  /** Whether an inner row is one that the set is about. @throws what cannot be judged */
  matches(row: Row): boolean {
    this.#judge ??= compile(this.local)
    return this.#judge(row, noMemberships) === true
  }

  /** What a row counts as; null when it is not held. @throws what cannot be judged */
  find(row: Row): Entry | null {
    return this.matches(row) ? this.entryOf(row) : null
  }

  /** One of these rows could not be judged. */
  fail(error: unknown, _rows: readonly Row[]): void {
    this.failure ??= error
  }

  /** Whether it, or a part of it, is not exact any more. */
  get hasFailed(): boolean {
    return this.failure !== null
  }

  /** It stands, and may never be moved: what judges its rows takes 0.7 kB or more, and is made again when it is. */
  rest(): void {
    this.#judge = null
  }

  /** What a row that matches is counted as. */
  abstract entryOf(row: Row): Entry

  abstract countOf(name: string): number

  /** Every kind there is, also those whose count is 0 until `settle`. */
  abstract entries(): Iterable<readonly [name: string, entry: EntryCount]>

  /** Adds to the count of a kind, without regard to `total`. */
  protected abstract add(entry: Entry, by: number): void

  /** Forgets kinds that nothing holds any more. */
  abstract settle(names: Iterable<string>): void

  /** Forgets everything. */
  abstract clear(): void

  /** So many rows came (or went, below 0), whatever they are counted as. */
  protected counted(by: number): void {
    this.total += by
    this.#limits.index.rows += by
  }

  /** Adds (by above 0) or takes away rows of a kind. */
  count(entry: Entry, by: number): void {
    const { maxRows } = this.#limits
    if (by > 0 && this.total + by > maxRows) {
      this.failure ??= this.excess(maxRows)
      return
    }
    this.counted(by)
    if (entry.isNull) this.nulls += by
    else this.add(entry, by)
  }

  /** What its readers are told when it has more rows than it may. */
  protected excess(maxRows: number): TidegateError {
    return membershipTooLarge(this.table, maxRows)
  }

  /** The table was truncated: nothing is left, though it is still found until `settle`. */
  abstract empty(): void
}

export const membershipTooLarge = ({ schema, name }: Table, maxRows: number): TidegateError =>
  new TidegateError(
    'MEMBERSHIP_TOO_LARGE',
    `${schema}.${name} has more than ${maxRows} rows that decide for this reader`,
  )
