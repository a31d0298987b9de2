// A hop: the rows of a table in the middle of a chain `row -> project -> team -> user`, held once for all readers.
//
// What is held of it are *partitions*: the rows that somebody reaches, such as the projects of one team, or all, where a
// condition names no values to look rows up by. A partition is asked for (`Reach` in subscribe/reach.ts) by those who come
// from the reader's side: a reader who joins a team reaches its projects. A row counts while a loaded partition holds it;
// what no partition holds is invisible to everybody who is connected.
import type { Predicate, Row, SemiJoin } from '../../predicate/algebra.ts'
import { keyOf } from '../../predicate/compare.ts'
import { joinText } from '../../predicate/join-key.ts'
import { innerKey } from '../../predicate/keys.ts'
import { pinsOf } from '../../predicate/pins.ts'
import type { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Table } from '../catalog/table.ts'
import { Few } from './few.ts'
import { type Entry, type EntryCount, InnerSet, indexFull, membershipTooLarge, type SetLimits } from './inner-set.ts'

/** Rows that are alike in all columns kept. */
export class HopRow implements Row, EntryCount {
  readonly name: string
  readonly values: readonly (string | null)[]
  count = 0
  readonly #positions: readonly number[]

  constructor(name: string, values: readonly (string | null)[], positions: readonly number[]) {
    this.name = name
    this.values = values
    this.#positions = positions
  }

  text(column: number): string | null | undefined {
    return this.values[this.#positions[column] ?? -1]
  }
}

/** Rows by key. Those with a NULL in it are apart. */
export interface KeyIndex {
  readonly keyOf: (row: Row) => string | null
  readonly byKey: Map<string, Few<HopRow>>
  readonly underNull: Few<HopRow>
}

/** How the rows of one bound semi-join are found: by its key, and by the columns that its condition pins to constants
 *  ("where user_id is this user"). */
export interface HopLookup {
  /** Of the semi-join's key, whatever is pinned. */
  readonly joined: KeyIndex
  /** By the pinned columns; null when there are none. */
  readonly pinned: { readonly columns: readonly number[]; readonly key: string; readonly index: KeyIndex } | null
  /** By both, when there are pinned columns; else as `joined`. */
  readonly both: KeyIndex
}

/** Rows of the hop with these values in these columns; without columns, all that match. */
export interface Partition {
  readonly columns: readonly number[]
  readonly key: string
  readonly values: readonly (string | null)[]
  isLoaded: boolean
  /** Why it cannot be loaded; whoever waits for it is told. */
  failure: unknown
  /** How many reasons there are to hold it. */
  uses: number
}

export interface HopLimits extends SetLimits {
  /** Rows of one partition. */
  readonly partitionMaxRows: number
}

export class Hop extends InnerSet {
  readonly name: string
  /** The table's columns that are kept, in order. */
  readonly columns: readonly number[]
  readonly partitions = new Map<string, Partition>()
  /** Those asked for and not there yet. */
  readonly loading = new Set<Partition>()
  /** Loaded ones that are not exact any more, and why: a row of theirs cannot be judged, or they have too many. To be given
   *  up with `breakOff`, before anything is judged. */
  readonly failing = new Map<Partition, unknown>()
  /** Told of each row that comes to be held. */
  onAdded: ((row: HopRow) => void) | null = null
  readonly #limits: HopLimits
  readonly #positions: number[]
  readonly #rows = new Map<string, HopRow>()
  readonly #indexes = new Map<string, KeyIndex>()
  readonly #lookups = new WeakMap<SemiJoin, HopLookup>()
  /** Columns by which partitions were asked for. */
  readonly #partitionedBy = new Map<string, readonly number[]>()

  constructor(options: {
    name: string
    table: Table
    local: Predicate
    columns: readonly number[]
    limits: HopLimits
  }) {
    super(options.table, options.local, options.limits)
    this.name = options.name
    this.columns = options.columns
    this.#limits = options.limits
    this.#positions = options.table.columns.map((_, column) => options.columns.indexOf(column))
  }

  /** How to find the rows of a bound semi-join whose inner table this is. */
  lookupOf(join: SemiJoin): HopLookup {
    let lookup = this.#lookups.get(join)
    if (lookup === undefined) {
      const pins = pinsOf(join)
      const name = joinIndexName(join)
      const keyOfJoin = (row: Row): string | null => {
        const { key, isNull } = innerKey(join, row)
        return isNull ? null : key
      }
      const joined = this.#index(name, keyOfJoin)
      if (pins.columns.length === 0) lookup = { joined, pinned: null, both: joined }
      else {
        const { columns } = pins
        const both = this.#index(`${name}|${columns.join(',')}`, row => {
          const key = keyOfJoin(row)
          const pinned = this.keyOfColumns(columns, row)
          return key === null || pinned === null ? null : joinText([key, pinned])
        })
        lookup = { joined, pinned: { columns, key: pins.key, index: this.indexOfColumns(columns) }, both }
      }
      this.#lookups.set(join, lookup)
    }
    return lookup
  }

  /** Rows by the values of columns: those that a semi-join of its own compares. */
  indexOfColumns(columns: readonly number[]): KeyIndex {
    return this.#index(`by ${columns.join(',')}`, row => this.keyOfColumns(columns, row))
  }

  /** Whether a row is one of those that the semi-join's condition pins. */
  isPinned(join: SemiJoin, row: Row): boolean {
    const { pinned } = this.lookupOf(join)
    return pinned === null || this.keyOfColumns(pinned.columns, row) === pinned.key
  }

  /** Null when one is NULL. */
  keyOfColumns(columns: readonly number[], row: Row): string | null {
    const parts: string[] = []
    for (const column of columns) {
      const text = row.text(column)
      if (text === null || text === undefined) return null
      parts.push(keyOf(this.table.columns[column]!.type, text))
    }
    return joinText(parts)
  }

  get size(): number {
    return this.#rows.size
  }

  rowNamed(name: string): HopRow | undefined {
    return this.#rows.get(name)
  }

  get rows(): Iterable<HopRow> {
    return this.#rows.values()
  }

  rowOf(name: string, values: readonly (string | null)[]): HopRow {
    return this.#rows.get(name) ?? new HopRow(name, values, this.#positions)
  }

  /** Rows that no loaded partition has are nobody's: they are not even judged. */
  override find(row: Row): Entry | null {
    return this.isHeld(row) ? super.find(row) : null
  }

  /** Whoever reaches the row is told; the hop goes on for all others. */
  override fail(error: unknown, rows: readonly Row[]): void {
    for (const row of rows) for (const partition of this.#holding(row)) this.failing.set(partition, error)
  }

  override get hasFailed(): boolean {
    return this.failure !== null || this.failing.size > 0
  }

  protected override excess(): TidegateError {
    return indexFull(this.#limits.index)
  }

  entryOf(row: Row): Entry {
    const values = this.columns.map(column => {
      const text = row.text(column)
      if (text === undefined) throw new Error(`a row of ${this.table.name} lacks ${this.table.columns[column]!.name}`)
      return text
    })
    return { name: JSON.stringify(values), values, isNull: false }
  }

  /** Whether a loaded partition has the row. */
  isHeld(row: Row): boolean {
    for (const _ of this.#holding(row)) return true
    return false
  }

  *#holding(row: Row): Generator<Partition, void> {
    for (const columns of this.#partitionedBy.values()) {
      const key = this.keyOfColumns(columns, row)
      if (key === null) continue
      const partition = this.partitions.get(partitionName(columns, key))
      if (partition?.isLoaded === true) yield partition
    }
  }

  /** The partition, made if need be; then it is in `loading` until somebody has loaded it. */
  partition(columns: readonly number[], key: string, values: readonly (string | null)[]): Partition {
    const name = partitionName(columns, key)
    let partition = this.partitions.get(name)
    if (partition === undefined) {
      partition = { columns, key, values, isLoaded: false, failure: null, uses: 0 }
      this.partitions.set(name, partition)
      this.#partitionedBy.set(columns.join(','), columns)
      this.indexOfColumns(columns)
      this.loading.add(partition)
    }
    return partition
  }

  partitionOf(columns: readonly number[], key: string): Partition | undefined {
    return this.partitions.get(partitionName(columns, key))
  }

  /** Lets go of a partition. @returns its rows that no other partition holds, taken away */
  drop(partition: Partition): HopRow[] {
    this.partitions.delete(partitionName(partition.columns, partition.key))
    this.loading.delete(partition)
    return this.#takeFrom(partition)
  }

  /** Gives up a partition that cannot be held: whoever reaches it is told why. @returns as `drop` */
  breakOff(partition: Partition, failure: unknown): HopRow[] {
    partition.failure = failure
    this.loading.add(partition)
    return this.#takeFrom(partition)
  }

  #takeFrom(partition: Partition): HopRow[] {
    if (!partition.isLoaded) return []
    partition.isLoaded = false
    const gone: HopRow[] = []
    for (const row of this.indexOfColumns(partition.columns).byKey.get(partition.key) ?? []) {
      if (this.isHeld(row)) continue
      gone.push(row)
      this.counted(-row.count)
      row.count = 0
    }
    this.settle(gone.map(({ name }) => name))
    return gone
  }

  countOf(name: string): number {
    return this.#rows.get(name)?.count ?? 0
  }

  entries(): Iterable<readonly [string, EntryCount]> {
    return this.#rows
  }

  protected add({ name, values }: Entry, by: number): void {
    let row = this.#rows.get(name)
    if (row === undefined) {
      row = new HopRow(name, values, this.#positions)
      this.#rows.set(name, row)
      for (const index of this.#indexes.values()) place(index, row)
      this.onAdded?.(row)
      this.#checkSizes(row)
    }
    row.count += by
  }

  #checkSizes(row: HopRow): void {
    const { partitionMaxRows } = this.#limits
    for (const partition of this.#holding(row)) {
      const size = this.indexOfColumns(partition.columns).byKey.get(partition.key)?.size ?? 0
      if (size > partitionMaxRows) this.failing.set(partition, membershipTooLarge(this.table, partitionMaxRows))
    }
  }

  settle(names: Iterable<string>): void {
    for (const name of names) {
      const row = this.#rows.get(name)
      if (row?.count !== 0) continue
      this.#rows.delete(name)
      for (const index of this.#indexes.values()) displace(index, row)
    }
  }

  empty(): void {
    for (const row of this.#rows.values()) row.count = 0
    this.counted(-this.total)
  }

  clear(): void {
    this.empty()
    this.settle([...this.#rows.keys()])
  }

  #index(name: string, keyOfRow: KeyIndex['keyOf']): KeyIndex {
    let index = this.#indexes.get(name)
    if (index === undefined) {
      index = { keyOf: keyOfRow, byKey: new Map(), underNull: new Few() }
      for (const row of this.#rows.values()) place(index, row)
      this.#indexes.set(name, index)
    }
    return index
  }
}

function place({ keyOf: keyOfRow, byKey, underNull }: KeyIndex, row: HopRow): void {
  const key = keyOfRow(row)
  if (key === null) {
    underNull.add(row)
    return
  }
  let rows = byKey.get(key)
  if (rows === undefined) {
    rows = new Few()
    byKey.set(key, rows)
  }
  rows.add(row)
}

function displace({ keyOf: keyOfRow, byKey, underNull }: KeyIndex, row: HopRow): void {
  const key = keyOfRow(row)
  if (key === null) {
    underNull.delete(row)
    return
  }
  const rows = byKey.get(key)
  rows?.delete(row)
  if (rows?.size === 0) byKey.delete(key)
}

const partitionName = (columns: readonly number[], key: string): string => `${columns.join(',')}:${key}`

/** One index serves all semi-joins over the same columns that compare alike. */
const joinIndexName = (join: SemiJoin): string =>
  `by ${join.keys
    .map(({ inner, outer }) => (inner.type.oid === outer.type.oid ? inner.column : `${inner.column}/${outer.type.oid}`))
    .join(',')}`
