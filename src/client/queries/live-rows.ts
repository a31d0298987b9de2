// The rows of one live query as the client holds them. Strict: what does not fit the rows held is an error, because an
// upsert that shrugs would hide a lost or repeated change from everybody.
import type { DeltaEvent, JsonRow, OrderTerm, RowChange, SnapshotEvent } from '../../protocol/messages.ts'
import { comparing } from './ordering.ts'
import { differences, sameJson } from './row-differences.ts'
import { placeInWindow } from './window-order.ts'

export interface Delta {
  readonly changes: readonly RowChange[]
  /** Commit time of the last commit folded in, ISO 8601 with microseconds; null where a fresh snapshot took the place of older rows. */
  readonly committedAt: string | null
}

/** The server sent what cannot follow from the rows held. The holder asks for a fresh snapshot. */
export class ProtocolError extends Error {
  override readonly name = 'ProtocolError'
}

/** What a subscription says of its rows. */
export interface RowsShape {
  /** Columns of the primary key. */
  readonly key: readonly string[]
  readonly order?: readonly OrderTerm[] | undefined
  readonly limit?: number | undefined
}

/** More changes than this are sorted in together: each by itself moves the rows behind it. */
const maxSingleMoves = 64

/** Holds what the query selects and nothing else: its size is the query's, plus the parts of one unfinished delta or snapshot. */
export class LiveRows {
  #shape: RowsShape = { key: [] }
  #compare: ((a: JsonRow, b: JsonRow) => number) | null = null
  #rows = new Map<string, JsonRow>()
  #list: readonly JsonRow[] = []
  /** Rows of a snapshot whose last part is not here; null: the rows are exact. */
  #coming: Map<string, JsonRow> | null = new Map()
  /** `#list` was a whole state once. */
  #wasWhole = false
  #parts: RowChange[] = []

  /** False from the start, or from `expectSnapshot`, to the last part of a snapshot. */
  get exact(): boolean {
    return this.#coming === null
  }

  /** In the query's order, else as they came; a new array after every change. */
  get rows(): readonly JsonRow[] {
    return this.#list
  }

  get shape(): RowsShape {
    return this.#shape
  }

  /** Before the first event of a (new) subscription. Rows stay. */
  setShape(shape: RowsShape): void {
    this.#shape = shape
    const { order, limit } = shape
    // With a limit the server says where each row goes.
    this.#compare = order === undefined || limit !== undefined ? null : comparing(order)
    this.#parts = []
    if (this.#compare === null) return
    const sorted = this.#list.toSorted(this.#compare)
    if (sorted.some((row, at) => row !== this.#list[at])) this.#list = sorted
  }

  /** A snapshot follows.
   *  @param keep the rows held stay to be seen until it is whole */
  expectSnapshot(keep: boolean): void {
    this.#parts = []
    this.#coming = new Map()
    if (!keep) {
      this.#wasWhole = false
      this.#list = []
    }
    // Anew from what was shown: a delta that did not fit may have been applied in part.
    this.#rows = this.#named(this.#list)
  }

  /** Rows that were whole at a position, from a store.
   *  @throws ProtocolError when one lacks a column of the key */
  restore(rows: readonly JsonRow[]): void {
    this.#rows = this.#named(rows)
    this.#list = rows
    this.#wasWhole = true
    this.#coming = null
  }

  /** @returns null while parts are missing; then what became of the rows shown before, which is null where there were none */
  snapshot(event: SnapshotEvent): { readonly delta: Delta | null } | null {
    const coming = this.#coming
    if (coming === null) throw new ProtocolError('a snapshot came that nobody asked for')
    for (const key of event.gone ?? []) coming.delete(this.#name(key))
    for (const row of event.rows) {
      const name = this.#name(row)
      // In a window it stands where it came last.
      if (this.#shape.limit !== undefined) coming.delete(name)
      coming.set(name, row)
    }
    if (!event.done) return null
    const before = this.#rows
    for (const [name, row] of coming) {
      const held = before.get(name)
      if (held !== undefined && sameJson(held, row)) coming.set(name, held)
    }
    const list = [...coming.values()]
    if (this.#compare !== null) list.sort(this.#compare)
    this.#show(list)
    this.#rows = coming
    this.#coming = null
    const delta = this.#wasWhole ? { changes: differences(before, coming, this.#shape.key), committedAt: null } : null
    this.#wasWhole = true
    return { delta }
  }

  /** @returns the delta once its last part is here, not yet applied; else null */
  collect(event: DeltaEvent): Delta | null {
    this.#parts.push(...event.changes)
    if (!event.done) return null
    const changes = this.#parts
    this.#parts = []
    return { changes, committedAt: event.committedAt }
  }

  /** @throws ProtocolError when a change does not fit; the rows then need `expectSnapshot` */
  apply(delta: Delta): void {
    if (this.#coming !== null) throw new ProtocolError('a delta came before the snapshot was whole')
    const { changes } = delta
    const compare = this.#compare
    if (compare !== null && changes.length <= maxSingleMoves) {
      const list = [...this.#list]
      for (const change of changes) {
        const { before, after } = this.#apply(change)
        if (change.op === 'truncate') list.length = 0
        else move(list, before, after, compare)
      }
      this.#list = list
      return
    }
    for (const change of changes) this.#apply(change)
    if (compare !== null) this.#list = [...this.#rows.values()].sort(compare)
    else if (this.#shape.limit === undefined) this.#list = [...this.#rows.values()]
    else {
      const list = placeInWindow(this.#list.map(this.#name), changes, this.#rows, this.#name)
      if (list === null) throw new ProtocolError('a row follows one that is not there')
      this.#show(list)
    }
  }

  #apply(change: RowChange): { before?: JsonRow; after?: JsonRow } {
    if (change.op === 'truncate') {
      this.#rows.clear()
      return {}
    }
    const name = this.#name(change.key)
    const before = this.#rows.get(name)
    if (change.op === 'insert') {
      if (before !== undefined) throw new ProtocolError(`insert of the known key ${name}`)
      this.#rows.set(name, change.row)
      return { after: change.row }
    }
    if (before === undefined) throw new ProtocolError(`${change.op} of the unknown key ${name}`)
    if (change.op === 'delete') {
      this.#rows.delete(name)
      return { before }
    }
    if (change.op !== 'update') throw new ProtocolError(`a change with the unknown op ${JSON.stringify(change)}`)
    const after = { ...before, ...change.set }
    this.#rows.set(name, after)
    return { before, after }
  }

  #show(list: readonly JsonRow[]): void {
    const { limit } = this.#shape
    if (limit !== undefined && list.length > limit)
      throw new ProtocolError(`${list.length} rows for a limit of ${limit}`)
    this.#list = list
  }

  #named(rows: readonly JsonRow[]): Map<string, JsonRow> {
    return new Map(rows.map(row => [this.#name(row), row]))
  }

  readonly #name = (row: JsonRow): string =>
    JSON.stringify(
      this.#shape.key.map(column => {
        const value = row[column]
        if (value === undefined) throw new ProtocolError(`a row without its key column "${column}"`)
        return value
      }),
    )
}

/** Takes a row out of a sorted list, and puts another in. */
function move(
  list: JsonRow[],
  before: JsonRow | undefined,
  after: JsonRow | undefined,
  compare: (a: JsonRow, b: JsonRow) => number,
): void {
  if (before !== undefined) {
    const at = placeOf(list, before, compare)
    if (list[at] !== before) throw new ProtocolError('the order does not tell the rows apart')
    if (after !== undefined && compare(before, after) === 0) {
      list[at] = after
      return
    }
    list.splice(at, 1)
  }
  if (after !== undefined) list.splice(placeOf(list, after, compare), 0, after)
}

/** The first place whose row does not stand before this one. */
function placeOf(list: readonly JsonRow[], row: JsonRow, compare: (a: JsonRow, b: JsonRow) => number): number {
  let low = 0
  let high = list.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if (compare(list[middle]!, row) < 0) low = middle + 1
    else high = middle
  }
  return low
}
