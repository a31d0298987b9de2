// The rows of one table that a commit in memory changed, folded, in the order of their last change. Of a commit in a file:
// spooled-rows.ts.
import type { Table } from '../catalog/table.ts'
import type { Commit } from '../decode/change.ts'
import { type FoldedRow, RowFold } from '../decode/fold.ts'
import { ordinalOfEvent } from './outcome.ts'

/** Yields `truncate` first when the table was truncated. */
export function* rowsOfCommit(commit: Commit, table: Table): Iterable<FoldedRow | 'truncate'> {
  const fold = new RowFold(table.primaryKey, table.oid)
  for (const change of commit.changes()) fold.add(change)
  if (fold.truncated) yield 'truncate'
  yield* [...fold.rows.values()].sort((a, b) => ordinalOfEvent(a) - ordinalOfEvent(b))
}
