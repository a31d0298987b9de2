// Rows to the JSON text of the wire, spliced from Postgres's own text. Each distinct text is made once per commit.
import type { Row } from '../../predicate/algebra.ts'
import type { Table } from '../catalog/table.ts'
import { jsonOf } from '../decode/values.ts'
import type { Query } from './query.ts'

/** Above this a delta goes out in parts: a frame stays small enough for every proxy and every client's patience. */
export const maxPartChars = 256 * 1024

/** `"name":` of each column, by table. */
const labelsByTable = new WeakMap<Table, readonly string[]>()

function labelsOf(table: Table): readonly string[] {
  let labels = labelsByTable.get(table)
  if (labels === undefined) {
    labels = table.columns.map(column => `${JSON.stringify(column.name)}:`)
    labelsByTable.set(table, labels)
  }
  return labels
}

/** `{"id":1,"room_id":2}` of these columns; what is unknown is left out, never null. */
export function objectJson(table: Table, columns: readonly number[], row: Row): string {
  const labels = labelsOf(table)
  let json = '{'
  for (const column of columns) {
    const text = row.text(column)
    if (text === undefined) continue
    if (json.length > 1) json += ','
    json += labels[column]! + (text === null ? 'null' : jsonOf(table.columns[column]!.type, text))
  }
  return `${json}}`
}

export const keyJson = (table: Table, row: Row): string => objectJson(table, table.primaryKey, row)

/** The columns of an update: those that differ where the old row is whole, else all that came.
 *  @returns null when nothing that the query shows has changed */
export function setJson(query: Query, old: Row, next: Row): string | null {
  const { table } = query
  const changed = query.columns.filter(column => {
    const text = next.text(column)
    if (text === undefined || table.primaryKey.includes(column)) return false
    const before = old.text(column)
    return before === undefined ? !table.identity.has(column) : before !== text
  })
  return changed.length === 0 ? null : objectJson(table, changed, next)
}

/** Whether every column that the query shows is known. */
export const isWhole = (query: Query, row: Row): boolean =>
  query.columns.every(column => row.text(column) !== undefined)

export const insertJson = (query: Query, row: Row): string =>
  `{"op":"insert","key":${keyJson(query.table, row)},"row":${objectJson(query.table, query.columns, row)}}`

export function updateJson(query: Query, old: Row, next: Row): string | null {
  const set = setJson(query, old, next)
  return set === null ? null : `{"op":"update","key":${keyJson(query.table, next)},"set":${set}}`
}

export const deleteJson = (query: Query, row: Row): string => `{"op":"delete","key":${keyJson(query.table, row)}}`

export const truncateJson = '{"op":"truncate"}'

/** Cuts items into parts of about `maxPartChars`, at least one. */
export function partsOf(items: readonly string[]): string[][] {
  const parts: string[][] = [[]]
  let chars = 0
  for (const item of items) {
    if (chars > 0 && chars + item.length > maxPartChars) {
      parts.push([])
      chars = 0
    }
    parts.at(-1)!.push(item)
    chars += item.length + 1
  }
  return parts
}

/** Commit time as ISO 8601 with microseconds. @param micros since 2000-01-01 UTC, as the wire has it */
export function isoOf(micros: bigint): string {
  const sinceUnix = micros + 946_684_800_000_000n
  const millis = Number(sinceUnix / 1000n)
  const rest = Number(sinceUnix % 1000n)
  if (millis !== lastMillis) {
    lastMillis = millis
    lastText = new Date(millis).toISOString().slice(0, -1)
  }
  return `${lastText}${String(rest).padStart(3, '0')}Z`
}

/** A hundred commits may be of one millisecond. */
let lastMillis = Number.NaN
let lastText = ''
