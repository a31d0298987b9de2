// The words for what has changed in an answer of Postgres: rows as its query returned them, of rows that went the key alone.
import type { Row } from '../../predicate/algebra.ts'
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { isoOf, keyJson, objectJson, partsOf, truncateJson } from '../route/encode.ts'
import { keyRow } from '../route/key-row.ts'
import { Outgoing } from '../route/outgoing.ts'
import type { Query } from '../route/query.ts'
import { type Difference, type FoundRow, ownIndexes } from './answers.ts'

/** All of one check. */
export interface Telling {
  readonly epoch: string
  readonly lsn: bigint
  /** Of the snapshot: microseconds since 2000-01-01 UTC. */
  readonly takenAtMicros: bigint
  /** For one reader who was away: what stands between two of its events is nobody else's position. */
  readonly isOwn: boolean
}

/** A live query's delta, in parts, or an event for each row. */
export function eventsOf(query: Query, differences: readonly Difference[], telling: Telling): readonly Outgoing[] {
  if (differences.length === 0) return []
  if (query.kind !== 'live') return changesOf(query, differences, telling)
  const items = differences.map(difference => itemOf(query, difference))
  return deltaOf(items, telling)
}

export function snapshotOf(query: Query, rows: Iterable<Row>, at: Position): readonly Outgoing[] {
  const parts = partsOf([...rows].map(row => objectJson(query.table, query.columns, row)))
  return parts.map((part, i) => {
    const done = i === parts.length - 1
    return new Outgoing('snapshot', `{"rows":[${part.join(',')}],"done":${done}}`, done ? at : null)
  })
}

/** All rows of a query with a limit, for one of whom it is not known what it holds. */
export function anewOf(query: Query, rows: ReadonlyMap<string, FoundRow>, telling: Telling): readonly Outgoing[] {
  const keys = [...rows.keys()]
  const inserts = keys.map((key, at) => {
    const { row } = rows.get(key)!
    return itemOf(query, { op: 'insert', key, row, after: keys[at - 1] ?? null })
  })
  return deltaOf([truncateJson, ...inserts], telling)
}

function deltaOf(items: readonly string[], telling: Telling): readonly Outgoing[] {
  const committedAt = isoOf(telling.takenAtMicros)
  const parts = partsOf(items)
  return parts.map((part, i) => {
    const done = i === parts.length - 1
    const json = `{"done":${done},"changes":[${part.join(',')}],"committedAt":"${committedAt}"}`
    return new Outgoing('delta', json, done ? positionOf(telling, WHOLE_COMMIT) : null)
  })
}

/** What a row was is not held, only its hash: an update carries all that the query shows. */
function itemOf({ table, columns }: Query, { op, key, row, after, isMoveOnly = false }: Difference): string {
  if (row === null) return `{"op":"delete","key":${keyJson(table, keyRow(table, key))}}`
  const where = after === undefined ? '' : `,"after":${after === null ? 'null' : keyJson(table, keyRow(table, after))}`
  if (op === 'insert')
    return `{"op":"insert","key":${keyJson(table, row)},"row":${objectJson(table, columns, row)}${where}}`
  const set = isMoveOnly ? [] : columns.filter(column => !table.primaryKey.includes(column))
  return `{"op":"update","key":${keyJson(table, row)},"set":${objectJson(table, set, row)}${where}}`
}

function changesOf(query: Query, differences: readonly Difference[], telling: Telling): readonly Outgoing[] {
  const { table, columns, events } = query
  const where = `"schema":${JSON.stringify(table.schema)},"table":${JSON.stringify(table.name)}`
  const committedAt = isoOf(telling.takenAtMicros)
  return differences.flatMap(({ op, key, row }, i) => {
    if (events !== null && !events.has(op)) return []
    const keyText = keyJson(table, row ?? keyRow(table, key))
    let fields = `,"key":${keyText}`
    if (row !== null) fields += `,"new":${objectJson(table, columns, row)}`
    if (op !== 'insert') fields += `,"old":${keyText}`
    const index = i === differences.length - 1 ? WHOLE_COMMIT : i + 1 + (telling.isOwn ? ownIndexes : 0)
    const json = `{"op":"${op}",${where}${fields},"committedAt":"${committedAt}"}`
    return [new Outgoing('change', json, positionOf(telling, index))]
  })
}

const positionOf = ({ epoch, lsn }: Telling, index: number): Position => ({ epoch, lsn, index })
