// The rows of one table that a spooled commit changed, folded: a commit that may hold millions of rows, walked with the
// memory of a few.
//
// A row touched once is its own fold, and is forgotten as soon as it was looked at. Only rows touched more than once are
// folded ahead and kept until they are reached. Which they are is found by a walk of its own, over hashes of their keys.
import type { Table } from '../catalog/table.ts'
import type { Change, Commit, Tuple } from '../decode/change.ts'
import { type FoldedRow, knownKey, RowFold } from '../decode/fold.ts'
import { RowTuple } from '../decode/tuple.ts'
import { Slice } from './slice.ts'

/** What the rows touched more than once may take: about 100,000 narrow ones. */
const maxFoldedBytes = 64 * 1024 * 1024
const maxFoldedRows = 200_000
/** A table of hashes takes 16 bytes for each change: past this many it would take more memory than it saves. */
const maxChanges = 8_000_000

/** Why a table's part of a commit cannot be told in rows: its queries start over.
 *  - `unkeyed`: a change does not say its primary key.
 *  - `repeated`: too many of its rows were changed more than once. */
export type Untold = 'unkeyed' | 'repeated'

export interface SpooledRows {
  readonly untold: Untold | null
  /** The rows in the order of their last change, beginning with the raw change number `from`; `truncate` first when the
   *  table was truncated and `from` is 0. A number now and then says that so many raw changes have been passed. */
  walk(from: number): Iterable<FoldedRow | 'truncate' | number>
}

const prepared = new WeakMap<Commit, Map<string, { rows: SpooledRows | null; readonly coming: Promise<SpooledRows> }>>()

/** What a walk needs to know ahead, made once for all who walk. @throws SPOOL_FAILED */
export async function prepareSpooled(commit: Commit, table: Table): Promise<SpooledRows> {
  let byTable = prepared.get(commit)
  if (byTable === undefined) {
    byTable = new Map()
    prepared.set(commit, byTable)
  }
  const name = nameOf(table)
  let held = byTable.get(name)
  if (held === undefined) {
    const made = { rows: null as SpooledRows | null, coming: prepare(commit, table) }
    held = made
    byTable.set(name, made)
    made.coming.then(
      rows => {
        made.rows = rows
      },
      () => byTable.delete(name),
    )
  }
  return held.coming
}

/** The same, if it has been made. */
export const preparedSpooled = (commit: Commit, table: Table): SpooledRows | null =>
  prepared.get(commit)?.get(nameOf(table))?.rows ?? null

const nameOf = (table: Table): string => `${table.oid}(${table.primaryKey.join()})`

async function prepare(commit: Commit, table: Table): Promise<SpooledRows> {
  if (commit.changeCount > maxChanges) return untold('repeated')
  const slice = new Slice()
  const keys = new KeyHashes(commit.changeCount)
  // What came before the last truncation is gone; what was touched after it, was inserted after it.
  let truncatedAt = -1
  for (const change of commit.passing()) {
    if (change.index % 64 === 0 && slice.over()) await slice.next()
    if (change.relation.oid !== table.oid) continue
    if (change.kind === 'truncate') {
      truncatedAt = change.index
      keys.clear()
      continue
    }
    for (const key of keysOf(change, table)) {
      if (key === undefined) return untold('unkeyed')
      keys.add(hash(key))
    }
    if (keys.repeated.size > maxFoldedRows) return untold('repeated')
  }
  const { repeated } = keys
  const fold = new RowFold(table.primaryKey, table.oid)
  if (repeated.size > 0) {
    let bytes = 0
    for (const change of commit.passing(truncatedAt + 1)) {
      if (change.index % 64 === 0 && slice.over()) await slice.next()
      if (change.relation.oid !== table.oid || !isRepeated(change, table, repeated)) continue
      const before = fold.rows.size
      fold.add(detached(change))
      bytes += (fold.rows.size - before) * bytesOf(change)
      if (bytes > maxFoldedBytes) return untold('repeated')
    }
  }
  return { untold: null, walk: from => walk(commit, table, { truncatedAt, repeated, folded: fold.rows }, from) }
}

const untold = (why: Untold): SpooledRows => ({ untold: why, walk: () => [] })

interface Ahead {
  readonly truncatedAt: number
  readonly repeated: ReadonlySet<number>
  readonly folded: ReadonlyMap<string, FoldedRow>
}

function* walk(
  commit: Commit,
  table: Table,
  { truncatedAt, repeated, folded }: Ahead,
  from: number,
): Iterable<FoldedRow | 'truncate' | number> {
  if (truncatedAt >= 0 && from === 0) yield 'truncate'
  for (const change of commit.passing(Math.max(from, truncatedAt + 1))) {
    if (change.index % 256 === 0) yield change.index
    if (change.relation.oid !== table.oid) continue
    if (isRepeated(change, table, repeated)) {
      for (const key of keysOf(change, table)) {
        const row = folded.get(key!)
        if (row !== undefined && row.lastIndex === change.index) yield row
      }
      continue
    }
    const single = new RowFold(table.primaryKey, table.oid)
    single.add(change)
    yield* single.rows.values()
  }
}

function isRepeated(change: Change, table: Table, repeated: ReadonlySet<number>): boolean {
  return repeated.size > 0 && keysOf(change, table).some(key => repeated.has(hash(key!)))
}

/** The keys a change touches, the old one first; undefined for one it does not say. */
function keysOf(change: Change, table: Table): (string | undefined)[] {
  if (change.kind === 'truncate') return []
  if (change.kind === 'insert') return [knownKey(change.new, table.primaryKey)]
  const old = knownKey(change.old, table.primaryKey)
  if (change.kind === 'delete') return [old]
  const next = knownKey(change.new, table.primaryKey) ?? old
  return next === old ? [old] : [old, next]
}

/** The change with rows of their own: the file's tuples are gone when the walk goes on. */
export function detached(change: Change): Change {
  if (change.kind === 'insert') return { ...change, new: copyOf(change.new) }
  if (change.kind === 'delete') return { ...change, old: copyOf(change.old) }
  if (change.kind === 'update') return { ...change, old: copyOf(change.old), new: copyOf(change.new) }
  return change
}

const copyOf = (tuple: Tuple): Tuple =>
  new RowTuple(
    tuple.relation,
    tuple.relation.columns.map((_, column) => tuple.text(column)),
  )

/** About what a folded row takes: two versions, each value a string. */
export function bytesOf(change: Change): number {
  if (change.kind === 'truncate') return 0
  const tuple = change.kind === 'delete' ? change.old : change.new
  let bytes = 200
  for (let column = 0; column < tuple.relation.columns.length; column++)
    bytes += 2 * (32 + (tuple.text(column)?.length ?? 0))
  return bytes
}

/** Hashes of keys, and which of them came more than once. Two keys of one hash count as one that came twice, which costs a
 *  little memory and changes nothing. 16 MiB for a million changes, where a Set of keys would take 100. */
class KeyHashes {
  readonly repeated = new Set<number>()
  readonly #slots: Uint32Array

  constructor(changes: number) {
    // An update may touch two keys; half of the slots stay free.
    this.#slots = new Uint32Array(2 ** Math.ceil(Math.log2(Math.max(1024, changes * 4))))
  }

  add(value: number): void {
    const slots = this.#slots
    let at = value & (slots.length - 1)
    while (slots[at] !== 0 && slots[at] !== value) at = (at + 1) & (slots.length - 1)
    if (slots[at] === value) this.repeated.add(value)
    else slots[at] = value
  }

  clear(): void {
    this.repeated.clear()
    this.#slots.fill(0)
  }
}

/** FNV-1a, never 0. Source: http://www.isthe.com/chongo/tech/comp/fnv/ */
function hash(text: string): number {
  let value = 0x811c9dc5
  for (let i = 0; i < text.length; i++) {
    value ^= text.charCodeAt(i)
    value = Math.imul(value, 0x01000193)
  }
  return value >>> 0 || 1
}
