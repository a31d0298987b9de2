// One check of an asked audience, under one snapshot: as little as tells what differs from what its readers hold.
import { baseOf } from '../../predicate/sql-types.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { knownKey } from '../decode/fold.ts'
import type { TextRow } from '../postgres/database.ts'
import { keyValues } from '../route/key-row.ts'
import type { Query } from '../route/query.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import type { Answers, Difference, FoundRow } from './answers.ts'
import { digestSql, hashesSql, rowsSql, type Statement, sequenceSql } from './ask-sql.ts'
import type { View } from './asker.ts'

export interface Looking {
  readonly query: Query
  readonly seed: bigint
  readonly maxRows: number
  /** What is held; null before the first look. */
  readonly answers: Answers | null
  /** The rows to look at; null for all. */
  readonly keys: readonly string[] | null
  /** Whether somebody needs every row. */
  readonly wantsRows: boolean
  /** Keys whose rows somebody needs, changed or not. */
  readonly alsoKeys: readonly string[]
}

export interface Looked {
  /** Every row of the query was looked at. */
  readonly isWhole: boolean
  /** By key, in the order of the key: those that differ, and those that somebody needs. */
  readonly rows: ReadonlyMap<string, FoundRow>
  readonly differences: readonly Difference[]
  /** Of all rows; filled by the first look only. */
  readonly hashes: ReadonlyMap<string, string>
  /** Of a query with a limit: see `Answers.digest`. */
  readonly digest: bigint | null
}

/** Rows read by key in one statement. */
const keysAtOnce = 1_000
/** Characters of all rows together: they are in memory while somebody joins. */
const maxChars = 16 * 1024 * 1024

/** @throws ASKED_TOO_LARGE, and what the view throws */
export async function look(view: View, looking: Looking): Promise<Looked> {
  const { answers, keys, alsoKeys } = looking
  if (looking.query.ordering?.limit != null) return lookAtFirst(view, looking)
  const digest = null
  if (keys !== null) {
    const rows = await rowsByKey(view, looking, keys)
    return { isWhole: false, rows, differences: answers!.differences(keys, rows), hashes: new Map(), digest }
  }
  const all = await digestOf(view, looking, digestSql(looking.query, looking.seed, looking.maxRows + 1))
  if (looking.wantsRows) {
    const rows = await readRows(view, looking, null)
    const hashes = new Map([...rows].map(([key, { hash }]) => [key, hash]))
    return { isWhole: true, rows, differences: answers?.differences(null, rows) ?? [], hashes, digest }
  }
  const isSame = answers !== null && answers.size === all.count && answers.xor === all.hash
  if (isSame) {
    return { isWhole: true, rows: await rowsByKey(view, looking, alsoKeys), differences: [], hashes: new Map(), digest }
  }
  const hashes = await readHashes(view, looking)
  if (answers === null) return { isWhole: true, rows: new Map(), differences: [], hashes, digest }
  const other = [...hashes].filter(([key, hash]) => answers.hashOf(key) !== hash).map(([key]) => key)
  const rows = await rowsByKey(view, looking, [...new Set([...other, ...alsoKeys])])
  const same = new Set([...hashes].filter(([key, hash]) => answers.hashOf(key) === hash).map(([key]) => key))
  const differences = answers.differences(null, rows, same)
  return { isWhole: true, rows, differences, hashes: new Map(), digest }
}

/** Of a query with a limit. Which rows are the first, any row can change: none is looked at alone. */
async function lookAtFirst(view: View, looking: Looking): Promise<Looked> {
  const { answers, query, seed } = looking
  const { hash: digest } = await digestOf(view, looking, sequenceSql(query, seed))
  if (!looking.wantsRows && answers?.digest === digest)
    return { isWhole: true, rows: new Map(), differences: [], hashes: new Map(), digest }
  const rows = await readRows(view, looking, null)
  const hashes = new Map([...rows].map(([key, { hash }]) => [key, hash]))
  return { isWhole: true, rows, differences: answers?.moves(rows) ?? [], hashes, digest }
}

async function digestOf(
  view: View,
  { query, maxRows }: Looking,
  statement: Statement,
): Promise<{ count: number; hash: bigint }> {
  const [row] = await view.ask(statement)
  const [count, hash, chars] = row as [string, string, string]
  if (Number(count) > maxRows || Number(chars) > maxChars) throw tooLarge(query, maxRows)
  return { count: Number(count), hash: BigInt.asUintN(64, BigInt(hash)) }
}

async function readHashes(view: View, { query, seed, maxRows }: Looking): Promise<Map<string, string>> {
  const { table } = query
  const read = await view.ask(hashesSql(query, seed, maxRows + 1), typeOidsOf(query, table.primaryKey))
  return new Map(read.map(values => [keyOfValues(values, table.primaryKey), values.at(-1)!]))
}

async function rowsByKey(view: View, looking: Looking, keys: readonly string[]): Promise<Map<string, FoundRow>> {
  const rows = new Map<string, FoundRow>()
  for (let at = 0; at < keys.length; at += keysAtOnce)
    for (const [key, row] of await readRows(view, looking, keys.slice(at, at + keysAtOnce))) rows.set(key, row)
  return rows
}

/** @param keys null: all */
async function readRows(
  view: View,
  { query, seed, maxRows }: Looking,
  keys: readonly string[] | null,
): Promise<Map<string, FoundRow>> {
  const { table, columns } = query
  const values = keys?.map(key => keyValues(key, table.primaryKey.length))
  const lists = values === undefined ? null : table.primaryKey.map((_, i) => values.map(value => value[i]!))
  const read = await view.ask(rowsSql(query, seed, lists, maxRows + 1), typeOidsOf(query, columns))
  const positions = new Array<number>(table.columns.length).fill(-1)
  columns.forEach((column, i) => {
    positions[column] = i
  })
  const rows = new Map<string, FoundRow>()
  for (const texts of read) {
    const row = new QueryRow(texts, positions)
    rows.set(knownKey(row, table.primaryKey)!, { hash: texts.at(-1)!, row })
  }
  return rows
}

/** As `knownKey` makes it. */
function keyOfValues(values: TextRow, primaryKey: readonly number[]): string {
  return knownKey({ text: column => values[primaryKey.indexOf(column)] ?? undefined }, primaryKey)!
}

/** A result's columns are of the type beneath a domain. */
const typeOidsOf = ({ table }: Query, columns: readonly number[]): (number | null)[] =>
  columns.map(column => {
    const { type } = table.columns[column]!
    return type.domain === true ? null : baseOf(type).oid
  })

export const tooLarge = ({ table }: Query, maxRows: number): TidegateError =>
  new TidegateError(
    'ASKED_TOO_LARGE',
    `Postgres is asked for ${table.schema}.${table.name}, and the query has more than ${maxRows} rows, or more than 16 MiB of them; filter it, raise ASKED_MAX_ROWS, or write the policy so that it compiles`,
  )
