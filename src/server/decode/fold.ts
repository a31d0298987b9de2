// Folds the changes of one table to each row's first old and last new version.
//
// A version that its own transaction overwrote was never readable by anybody: judged or sent, it would show a row that no
// SELECT could have returned. So a commit, or a range of them, is seen from its two ends only: what stood under a primary
// key before the first change, and what stands under it after the last. A changed key ends one row and begins another.
import type { Row } from '../../predicate/algebra.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Change, Tuple } from './change.ts'
import { overlay } from './tuple.ts'

export interface FoldedRow {
  /** As `rowKey` gives it. */
  readonly key: string
  /** The version with this key before the range; null when there was none, or when it fell to a TRUNCATE and another row
   *  was inserted under its key. Without REPLICA IDENTITY FULL it has the identity columns only. */
  readonly old: Tuple | null
  /** The version with this key after the range; null when there is none. */
  readonly new: Tuple | null
  /** `index` of the last change that touched it, in the last commit that did. */
  readonly lastIndex: number
  /** Its old version fell to a TRUNCATE in the range: the truncate, sent first, has retracted it. */
  readonly truncated: boolean
  /** `new` came here by a changed key: what it leaves out stood under another key before the range, never under this. */
  readonly carried: boolean
}

export interface FoldedRows {
  /** The table was truncated within the range. */
  readonly truncated: boolean
  /** By `rowKey`, in the order the keys were first touched. Rows that came and went within the range are not there. */
  readonly rows: ReadonlyMap<string, FoldedRow>
  /** Changes whose key the wire does not say, because the replica identity does not cover the primary key: not folded.
   *  Above 0 the table's state is unknown, and its queries must start over. */
  readonly unkeyed: number
}

/** The primary key as text, different for different keys. Values that Postgres takes for equal but prints differently
 *  (numeric 1.0 and 1.00) are different keys here: a change between them is a delete and an insert.
 *  @param keyColumns positions in the relation; a table without a primary key has no rows to name
 *  @throws IDENTITY_INSUFFICIENT when the row does not say its key */
export function rowKey(tuple: Tuple, keyColumns: readonly number[]): string {
  const key = knownKey(tuple, keyColumns)
  if (key !== undefined) return key
  const { schema, name } = tuple.relation
  const statement = `ALTER TABLE "${schema}"."${name}" REPLICA IDENTITY FULL`
  throw new TidegateError(
    'IDENTITY_INSUFFICIENT',
    `a row of ${schema}.${name} came without its primary key; ${statement}`,
  )
}

/** The same, or undefined when the row does not say its key. */
export function knownKey(tuple: Row, keyColumns: readonly number[]): string | undefined {
  if (keyColumns.length === 1) return tuple.text(keyColumns[0]!) ?? undefined
  let key = ''
  for (const column of keyColumns) {
    const text = tuple.text(column)
    if (text === undefined || text === null) return undefined
    key += `${text.length}:${text}`
  }
  return key
}

/** @param changes in commit order, of one layout of the table: end the range where a Relation message changes its columns
 *  @param relationOid changes of other relations are passed over */
export function foldRows(changes: Iterable<Change>, keyColumns: readonly number[], relationOid: number): FoldedRows {
  const fold = new RowFold(keyColumns, relationOid)
  for (const change of changes) fold.add(change)
  return fold
}

interface OpenRow {
  readonly key: string
  old: Tuple | null
  new: Tuple | null
  lastIndex: number
  truncated: boolean
  carried: boolean
}

/** The fold, change by change. Holds one entry and at most two tuples, with the messages they lie in, for each row that
 *  changed: whoever adds the changes of a spooled commit bounds it by `rows.size`. */
export class RowFold implements FoldedRows {
  readonly #keyColumns: readonly number[]
  readonly #relationOid: number
  readonly #vanished: Set<string> | null
  readonly #rows = new Map<string, OpenRow>()
  #truncated = false
  #unkeyed = 0

  /** @param vanished takes the keys of rows that came and went: whoever looked in between has seen them */
  constructor(keyColumns: readonly number[], relationOid: number, vanished: Set<string> | null = null) {
    this.#keyColumns = keyColumns
    this.#relationOid = relationOid
    this.#vanished = vanished
  }

  get truncated(): boolean {
    return this.#truncated
  }

  get rows(): ReadonlyMap<string, FoldedRow> {
    return this.#rows
  }

  get unkeyed(): number {
    return this.#unkeyed
  }

  add(change: Change): void {
    if (change.relation.oid !== this.#relationOid) return
    if (change.kind === 'insert') this.#insert(change.new, change.index)
    else if (change.kind === 'update') this.#update(change.old, change.new, change.index)
    else if (change.kind === 'delete') this.#delete(change.old, change.index)
    else this.#truncate(change.index)
  }

  #insert(row: Tuple, index: number): void {
    const key = knownKey(row, this.#keyColumns)
    if (key === undefined) this.#unkeyed++
    else this.#begin(key, row, index, false)
  }

  #update(old: Tuple, after: Tuple, index: number): void {
    const oldKey = knownKey(old, this.#keyColumns)
    if (oldKey === undefined) {
      this.#unkeyed++
      return
    }
    const open = this.#rows.get(oldKey)
    // The folded version first: it has what an old tuple of the identity columns lacks.
    let row = overlay(after, open?.new ?? old)
    if (open !== undefined) row = overlay(row, old)
    const key = knownKey(row, this.#keyColumns)
    if (key === undefined) {
      this.#unkeyed++
    } else if (key !== oldKey) {
      this.#end(oldKey, old, index)
      this.#begin(key, row, index, true)
    } else if (open === undefined) {
      this.#rows.set(key, { key, old, new: row, lastIndex: index, truncated: false, carried: false })
    } else {
      open.new = row
      open.lastIndex = index
    }
  }

  #delete(old: Tuple, index: number): void {
    const key = knownKey(old, this.#keyColumns)
    if (key === undefined) this.#unkeyed++
    else this.#end(key, old, index)
  }

  #truncate(index: number): void {
    this.#truncated = true
    for (const row of this.#rows.values()) {
      if (row.new !== null) row.lastIndex = index
      row.new = null
      row.truncated = true
      if (row.old === null) this.#vanish(row.key)
    }
  }

  /** A row begins to exist under this key. */
  #begin(key: string, row: Tuple, index: number, carried: boolean): void {
    const open = this.#rows.get(key)
    if (open === undefined) {
      this.#rows.set(key, { key, old: null, new: row, lastIndex: index, truncated: false, carried })
      return
    }
    open.carried = carried
    // What stood there before the TRUNCATE is gone already: this is an insert to whoever could read it.
    if (open.truncated) open.old = null
    open.new = row
    open.lastIndex = index
  }

  /** The row under this key ceases to exist. */
  #end(key: string, old: Tuple, index: number): void {
    const open = this.#rows.get(key)
    if (open === undefined) {
      this.#rows.set(key, { key, old, new: null, lastIndex: index, truncated: false, carried: false })
    } else if (open.old === null) {
      this.#vanish(key)
    } else {
      open.new = null
      open.lastIndex = index
    }
  }

  #vanish(key: string): void {
    this.#rows.delete(key)
    this.#vanished?.add(key)
  }
}
