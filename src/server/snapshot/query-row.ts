// A row that a query returned, as predicates and encoders read it.
import type { Row } from '../../predicate/algebra.ts'

export class QueryRow implements Row {
  readonly #values: readonly (string | null)[]
  readonly #positions: readonly number[] | null

  /** @param positions of the table's columns in `values`, -1 for those not read; without it `values` are all of them */
  constructor(values: readonly (string | null)[], positions: readonly number[] | null = null) {
    this.#values = values
    this.#positions = positions
  }

  text(column: number): string | null | undefined {
    const at = this.#positions === null ? column : this.#positions[column]!
    return at < 0 ? undefined : this.#values[at]
  }
}

/** A row whose unknown values are taken from another version of it. */
export class FilledRow implements Row {
  readonly #row: Row
  readonly #fallback: Row

  constructor(row: Row, fallback: Row) {
    this.#row = row
    this.#fallback = fallback
  }

  text(column: number): string | null | undefined {
    const text = this.#row.text(column)
    return text === undefined ? this.#fallback.text(column) : text
  }
}
