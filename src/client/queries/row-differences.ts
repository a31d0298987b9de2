// What became of rows between two states of a query, as changes of rows.
import type { Json, JsonRow, RowChange } from '../../protocol/messages.ts'

/** @param before, after rows by name; one that did not change is the same object in both
 *  @param key columns of the primary key */
export function differences(
  before: ReadonlyMap<string, JsonRow>,
  after: ReadonlyMap<string, JsonRow>,
  key: readonly string[],
): RowChange[] {
  const keyOf = (row: JsonRow): JsonRow => Object.fromEntries(key.map(column => [column, row[column]!]))
  const changes: RowChange[] = []
  for (const [name, row] of before) if (!after.has(name)) changes.push({ op: 'delete', key: keyOf(row) })
  for (const [name, row] of after) {
    const held = before.get(name)
    if (held === undefined) changes.push({ op: 'insert', key: keyOf(row), row })
    else if (held !== row) {
      const set = Object.fromEntries(Object.entries(row).filter(([column, value]) => !sameJson(held[column], value)))
      changes.push({ op: 'update', key: keyOf(row), set })
    }
  }
  return changes
}

export function sameJson(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Array.isArray(a) !== Array.isArray(b)) return false
  const left = Object.entries(a)
  return left.length === Object.keys(b).length && left.every(([name, value]) => sameJson(value, (b as JsonRow)[name]))
}
