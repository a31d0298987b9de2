// The rows of one table that a commit changed, folded, in the order of their last change. A commit in memory is folded at
// once. Of a spooled one, which may hold millions of rows, only rows touched more than once are: a row touched once is its
// own fold, and is forgotten as soon as it was looked at.
import type { Table } from '../catalog/table.ts'
import type { Change, Commit } from '../decode/change.ts'
import { type FoldedRow, knownKey, RowFold } from '../decode/fold.ts'
import { ordinalOfEvent } from './outcome.ts'

/** Yields `truncate` first when the table was truncated. */
export function* rowsOfCommit(commit: Commit, table: Table): Iterable<FoldedRow | 'truncate'> {
  if (commit.spooled) {
    yield* spooledRows(commit, table)
    return
  }
  const fold = new RowFold(table.primaryKey, table.oid)
  for (const change of commit.changes()) fold.add(change)
  if (fold.truncated) yield 'truncate'
  yield* [...fold.rows.values()].sort((a, b) => ordinalOfEvent(a) - ordinalOfEvent(b))
}

function* spooledRows(commit: Commit, table: Table): Iterable<FoldedRow | 'truncate'> {
  // What came before the last truncation is gone; what was touched after it, was inserted after it.
  let truncatedAt = -1
  for (const change of changesOf(commit, table, -1)) if (change.kind === 'truncate') truncatedAt = change.index
  if (truncatedAt >= 0) yield 'truncate'
  const repeated = repeatedKeys(commit, table, truncatedAt)
  const fold = new RowFold(table.primaryKey, table.oid)
  for (const change of changesOf(commit, table, truncatedAt)) {
    if (keysOf(change, table).some(key => repeated.has(hash(key)))) fold.add(change)
  }
  for (const change of changesOf(commit, table, truncatedAt)) {
    const keys = keysOf(change, table)
    if (keys.some(key => repeated.has(hash(key)))) {
      for (const key of keys) {
        const row = fold.rows.get(key)
        if (row !== undefined && row.lastIndex === change.index) yield row
      }
      continue
    }
    const single = new RowFold(table.primaryKey, table.oid)
    single.add(change)
    yield* single.rows.values()
  }
}

function* changesOf(commit: Commit, table: Table, afterIndex: number): Iterable<Change> {
  for (const change of commit.changes())
    if (change.relation.oid === table.oid && change.index > afterIndex) yield change
}

/** The keys a change touches, the old one first. */
function keysOf(change: Change, table: Table): string[] {
  const keys: string[] = []
  if (change.kind === 'update' || change.kind === 'delete') keys.push(knownKey(change.old, table.primaryKey) ?? '')
  if (change.kind === 'update' || change.kind === 'insert') {
    const key = knownKey(change.new, table.primaryKey) ?? ''
    if (key !== keys[0]) keys.push(key)
  }
  return keys
}

/** Hashes of the keys that more than one change touches; two keys of one hash count as one, which costs a little memory
 *  and changes nothing. A table of 32-bit hashes: 8 MiB for a million changes, where a Set of keys would take 100. */
function repeatedKeys(commit: Commit, table: Table, afterIndex: number): ReadonlySet<number> {
  const slots = new Uint32Array(2 ** Math.ceil(Math.log2(Math.max(1024, commit.changeCount * 2))))
  const repeated = new Set<number>()
  for (const change of changesOf(commit, table, afterIndex)) {
    for (const key of keysOf(change, table)) {
      const value = hash(key)
      let at = value % slots.length
      while (slots[at] !== 0 && slots[at] !== value) at = (at + 1) % slots.length
      if (slots[at] === value) repeated.add(value)
      else slots[at] = value
    }
  }
  return repeated
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
