// The memberships that decide about one row for one reader, read from Postgres at this moment: only the rows under the keys
// that the row leads to, from the outside in. The index of a node is not asked; it is told by the same rows.
import type pg from 'pg'
import type { Memberships, Predicate, Row, SemiJoin } from '../../predicate/algebra.ts'
import { semiJoinsOf } from '../../predicate/columns.ts'
import { keyOf } from '../../predicate/compare.ts'
import { evaluate, valuingOf } from '../../predicate/evaluate.ts'
import { splitWhere } from '../../predicate/hops.ts'
import { joinText, keyComparisonsOf } from '../../predicate/join-key.ts'
import { innerKey } from '../../predicate/keys.ts'
import { pinsOf } from '../../predicate/pins.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Table } from '../catalog/table.ts'
import type { TextRow } from '../postgres/database.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import { type RowMatch, readAsLogin } from '../snapshot/reader.ts'
import { within } from './transaction.ts'

export interface InnerRowsOptions {
  /** In a transaction that reads as the login. */
  readonly client: pg.ClientBase
  /** By OID, all that the predicates read. */
  readonly tables: ReadonlyMap<number, Table>
  /** Rows of one table that may be read. */
  readonly maxRows: number
  /** `now()` of the transaction, in microseconds since 1970. */
  readonly nowMicros: bigint
}

/** Rows by which a semi-join is answered, as far as its condition reads them alone. */
interface Held {
  readonly all: readonly Row[]
  readonly byKey: ReadonlyMap<string, readonly Row[]>
  readonly nulls: readonly Row[]
}

export class InnerRows implements Memberships {
  readonly #options: InnerRowsOptions
  readonly #rows = new Map<SemiJoin, readonly Row[]>()
  readonly #held = new Map<SemiJoin, Held>()
  readonly nowMicros: bigint

  constructor(options: InnerRowsOptions) {
    this.#options = options
    this.nowMicros = options.nowMicros
  }

  /** Reads what judging these rows asks for: one query for each semi-join at each depth.
   *  @param predicate bound: then each semi-join is an object of its own and stands in one place
   *  @throws INDEX_NOT_READABLE, MEMBERSHIP_TOO_LARGE */
  async load(predicate: Predicate, rows: readonly Row[]): Promise<void> {
    for (const join of semiJoinsOf(predicate)) {
      if (!this.#rows.has(join)) this.#rows.set(join, await this.#read(join, rows))
      const { rest } = splitWhere(join)
      // Of all of them, also those that its own columns rule out: what they lead to is told as well.
      if (rest.kind !== 'true') await this.load(rest, this.#rows.get(join)!)
    }
  }

  /** Rows under the key that this row gives, whether or not they satisfy the rest of the condition. */
  candidates(join: SemiJoin, row: Row): readonly Row[] {
    const table = this.tableOf(join)
    const key = keyTextOf(join, row, this)
    return (this.#rows.get(join) ?? []).filter(
      inner => satisfiesPins(join, inner, table) && (join.keys.length === 0 || keyIs(join, inner, key)),
    )
  }

  tableOf({ table }: SemiJoin): Table {
    const found = this.#options.tables.get(table.oid)
    if (found === undefined) throw new Error(`no policy says that it reads ${table.schema}.${table.name}`)
    return found
  }

  satisfies(join: SemiJoin, inner: Row): boolean {
    return evaluate(join.where, inner, this) === true
  }

  count(join: SemiJoin, key: string): number {
    return this.#heldOf(join).byKey.get(key)?.length ?? 0
  }

  total(join: SemiJoin): number {
    return this.#heldOf(join).all.length
  }

  nulls(join: SemiJoin): number {
    return this.#heldOf(join).nulls.length
  }

  rows(join: SemiJoin, key: string | null | undefined): Iterable<Row> {
    const { all, byKey, nulls } = this.#heldOf(join)
    if (key === undefined) return all
    return key === null ? nulls : (byKey.get(key) ?? [])
  }

  #heldOf(join: SemiJoin): Held {
    let held = this.#held.get(join)
    if (held === undefined) {
      const { local } = splitWhere(join)
      const all = (this.#rows.get(join) ?? []).filter(row => evaluate(local, row, this) === true)
      const byKey = new Map<string, Row[]>()
      const nulls: Row[] = []
      for (const row of all) {
        const { key, isNull } = innerKey(join, row)
        const under = isNull ? nulls : (byKey.get(key) ?? [])
        under.push(row)
        if (!isNull) byKey.set(key, under)
      }
      held = { all, byKey, nulls }
      this.#held.set(join, held)
    }
    return held
  }

  async #read(join: SemiJoin, outer: readonly Row[]): Promise<readonly Row[]> {
    const { client, maxRows } = this.#options
    const table = this.tableOf(join)
    const match = matchOf(join, table, outer, this)
    if (match?.keys.length === 0) return []
    let values: TextRow[]
    try {
      values = await within(client, '', () => readAsLogin(client, table, match, maxRows + 1))
    } catch (error) {
      // A value of the outer row that the inner column's type cannot hold: 5000000000 beside an integer. Told apart by
      // comparing, as the server does.
      if (!isDataException(error)) throw error
      values = await readAsLogin(client, table, null, maxRows + 1)
    }
    if (values.length > maxRows)
      throw new TidegateError(
        'MEMBERSHIP_TOO_LARGE',
        `${table.schema}.${table.name} has more than ${maxRows} rows that could decide about this row`,
      )
    return values.map(row => new QueryRow(row))
  }
}

const isDataException = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && typeof error.code === 'string' && error.code.startsWith('22')

/** Types whose text Postgres reads back as an equal value, and looks up by an index. */
const matchFamilies = new Set(['int', 'text', 'uuid', 'bpchar', 'enum', 'bool', 'numeric'])

/** The columns that the subquery fixes, by the outer rows or by constants; null: all rows, when it fixes none, and when its
 *  NULLs count. */
function matchOf(join: SemiJoin, table: Table, outer: readonly Row[], memberships: Memberships): RowMatch | null {
  if (join.nullAware) return null
  const isMatchable = (column: number): boolean => matchFamilies.has(table.columns[column]!.type.family)
  const keyed = join.keys
    .filter(({ inner }) => isMatchable(inner.column))
    .map(({ inner, outer: expr }) => ({ column: inner.column, value: valuingOf(expr) }))
  const pins = pinsOf(join)
  const columns = [...keyed.map(({ column }) => column), ...pins.columns]
  if (columns.length === 0) return null
  const keys = new Map<string, string[]>()
  for (const row of keyed.length === 0 ? outer.slice(0, 1) : outer) {
    const values = keyed.map(({ value }) => value(row, memberships))
    if (!values.every(value => typeof value === 'string')) continue
    const key = [...values, ...pins.values]
    keys.set(JSON.stringify(key), key)
  }
  return { columns, keys: [...keys.values()] }
}

function satisfiesPins(join: SemiJoin, inner: Row, { columns: types }: Table): boolean {
  const { columns, key } = pinsOf(join)
  const texts = columns.map(column => {
    const value = inner.text(column)
    return value == null ? null : keyOf(types[column]!.type, value)
  })
  return columns.length === 0 || (texts.every(text => text !== null) && joinText(texts) === key)
}

/** The texts of the outer side, compared as the semi-join does; null when one is NULL. */
function keyTextOf(join: SemiJoin, row: Row, memberships: Memberships): readonly string[] | null {
  const texts = join.keys.map(({ outer }, index) => {
    const value = valuingOf(outer)(row, memberships)
    return value == null ? null : keyComparisonsOf(join)[index]!.right(value)
  })
  return texts.every(text => text !== null) ? texts : null
}

const keyIs = (join: SemiJoin, inner: Row, key: readonly string[] | null): boolean =>
  key !== null &&
  join.keys.every(({ inner: { column } }, index) => {
    const value = inner.text(column)
    return value != null && keyComparisonsOf(join)[index]!.left(value) === key[index]
  })
