// Where the rows of a query with a limit stand after a delta. The server alone may know the order: each row that came or
// moved names the row that it follows once the whole delta is applied; all others keep their order among themselves.
import type { JsonRow, RowChange } from '../../protocol/messages.ts'

/** @param before names of the rows in their order before the delta
 *  @param rows all rows after it, by name
 *  @returns the rows in order; null when the names do not make one order of all of them */
export function placeInWindow(
  before: readonly string[],
  changes: readonly RowChange[],
  rows: ReadonlyMap<string, JsonRow>,
  nameOf: (key: JsonRow) => string,
): JsonRow[] | null {
  const forerunners = forerunnersOf(changes, nameOf)
  if (forerunners === null) return null
  const followers = new Map<string, string>()
  for (const [name, forerunner] of forerunners) {
    if (followers.has(forerunner)) return null
    followers.set(forerunner, name)
  }
  const list: JsonRow[] = []
  const addFollowers = (of: string): void => {
    for (let name = followers.get(of); name !== undefined; name = followers.get(name)) list.push(rows.get(name)!)
  }
  addFollowers(nobody)
  for (const name of before) {
    if (forerunners.has(name)) continue
    const row = rows.get(name)
    if (row !== undefined) list.push(row)
    // Also of a row that this delta deletes: what follows it stands where it stood.
    addFollowers(name)
  }
  return list.length === rows.size ? list : null
}

/** Names are JSON arrays, so none is empty. */
const nobody = ''

/** Of each row that came or moved and is still there, the row that it follows. */
function forerunnersOf(changes: readonly RowChange[], nameOf: (key: JsonRow) => string): Map<string, string> | null {
  const forerunners = new Map<string, string>()
  for (const change of changes) {
    if (change.op === 'truncate') {
      forerunners.clear()
      continue
    }
    const name = nameOf(change.key)
    if (change.op === 'delete') forerunners.delete(name)
    else if (change.after !== undefined) forerunners.set(name, change.after === null ? nobody : nameOf(change.after))
    else if (change.op === 'insert') return null
  }
  return forerunners
}
