// The first rows of an ordered query, and a few to spare, as one audience sees them: kept exact by what each commit is for it.
//
// The guarantee: the rows shown are those of SELECT ... ORDER BY ... LIMIT n at the position of the last commit taken. The simple
// way, reading them again after each commit, costs a query for each change. So all rows that come before a bound in the order
// are held: a row that appears before it is one of them, one that appears behind it does not matter, and one that leaves makes
// room for the first to spare. Only when fewer than n are left, and there may be more behind the bound, the window has run dry
// and must be read again. It also runs dry where a commit cannot be taken exactly: a value that only the database can order, or
// a large one that the WAL left out.
import { isWhole, keyJson, objectJson, truncateJson } from './encode.ts'
import { keyRow } from './key-row.ts'
import { type OrderValues, type Ranks, type RowOrder, rowOrderOf } from './ordering.ts'
import type { Outcome, RowEnds } from './outcome.ts'
import type { Query } from './query.ts'
import { setOf } from './row-json.ts'
import { stayingAmong } from './staying.ts'

/** A row as the query shows it, and where it stands. */
export interface WindowRow {
  readonly key: string
  readonly values: OrderValues
  /** The object of the wire, with every column that the query shows. */
  readonly json: string
}

/** What was read of the query. */
export interface WindowRead {
  /** From the first on, in order. */
  readonly rows: readonly WindowRow[]
  /** All rows at or before it are there; null: all rows. */
  readonly bound: OrderValues | null
  readonly ranks: Ranks
}

/** Characters of all windows of a node. */
export interface WindowSizes {
  chars: number
}

class Held implements WindowRow {
  readonly key: string
  readonly values: OrderValues
  readonly json: string
  /** Where its readers hold it; -1: they do not. */
  place: number

  constructor({ key, values, json }: WindowRow, place: number) {
    this.key = key
    this.values = values
    this.json = json
    this.place = place
  }
}

/** What readers hold who stand at one of these positions. */
interface Stand {
  readonly from: bigint
  /** Null: up to the newest commit taken. */
  to: bigint | null
  readonly rows: readonly WindowRow[]
  /** Characters of the rows that came or changed with it. */
  readonly chars: number
}

/** Who stands farther back is told all rows again. */
const maxStands = 64
const maxStandRows = 8192
const maxStandChars = 1024 * 1024
/** A commit that is more for its readers is not taken row by row: each may stand anywhere, and the event loop is everybody's. */
const maxOutcomes = 2000
/** Rows to spare are let go of beyond so many characters, and a window of more is not kept. */
const maxSpareChars = 256 * 1024
export const maxWindowChars = 16 * 1024 * 1024

export class Window {
  readonly limit: number
  readonly order: RowOrder
  readonly #query: Query
  readonly #sizes: WindowSizes
  /** Held, in order: the first `limit` are shown. */
  #rows: Held[] = []
  #bound: OrderValues | null = null
  #ranks: Ranks = new Map()
  #chars = 0
  #isLoaded = false
  /** The last is what is shown. */
  #stands: Stand[] = []
  #standChars = 0
  /** Somebody reads it: whoever else wants it waits. */
  isLoading = false
  /** How often it was discarded: what was read before is worth nothing then. */
  discards = 0

  constructor(query: Query, limit: number, sizes: WindowSizes) {
    this.limit = limit
    this.order = rowOrderOf(query.table, query.ordering!)
    this.#query = query
    this.#sizes = sizes
  }

  /** Whether it stands at the newest commit. */
  get isLoaded(): boolean {
    return this.#isLoaded
  }

  /** Rows worth reading at once. */
  get wanted(): number {
    return this.limit + spareOf(this.limit)
  }

  /** What is too large to be kept. */
  get isTooLarge(): boolean {
    return this.#chars > maxWindowChars
  }

  get rows(): readonly WindowRow[] {
    return this.#stands.at(-1)?.rows ?? []
  }

  /** Takes a commit. @returns what readers are told, as JSON of row changes; null: it has run dry, see `interrupt`
   *  @param json the object of the wire of a row, as `objectJson` makes it */
  apply(
    truncated: boolean,
    outcomes: readonly Outcome[],
    lsn: bigint,
    json: (row: RowEnds) => string = row => objectJson(this.#query.table, this.#query.columns, row.new!),
  ): readonly string[] | null {
    if (outcomes.length > maxOutcomes) return null
    const places = truncated ? placesOf(this.rows) : null
    if (truncated) {
      this.#clear()
      this.#bound = null
    }
    for (const { op, row } of outcomes) {
      const place = truncated ? (places!.get(row.key) ?? -1) : op === 'insert' ? -1 : this.#remove(row.key)
      if (op !== 'delete' && !this.#place(row, place, json)) return null
    }
    if (this.#rows.length < this.limit && this.#bound !== null) return null
    this.#trim()
    return this.isTooLarge ? null : this.#tell(lsn)
  }

  /** Takes what was read, as of this position. @returns what those are told who hold what was shown last */
  load({ rows, bound, ranks }: WindowRead, lsn: bigint): readonly string[] {
    this.#clear()
    const places = placesOf(this.rows)
    for (const row of rows) this.#insert(this.#rows.length, new Held(row, places.get(row.key) ?? -1))
    this.#bound = bound
    this.#ranks = ranks
    this.#isLoaded = true
    this.#trim()
    return this.#tell(lsn)
  }

  /** It is not followed from here on, until it is loaded again. @param lsn up to where it is true */
  interrupt(lsn: bigint): void {
    if (!this.#isLoaded) return
    this.#isLoaded = false
    this.#clear()
    const last = this.#stands.at(-1)
    if (last !== undefined) last.to = lsn
  }

  /** The same where the table's rows are other ones now: whoever is reading it reads it again. */
  discard(lsn: bigint): void {
    this.discards += 1
    this.interrupt(lsn)
  }

  /** For good. */
  close(): void {
    this.interrupt(0n)
    this.#stands = []
    this.#standChars = 0
  }

  /** Whether it is known what a reader at this position holds. */
  remembers(lsn: bigint): boolean {
    return this.#standAt(lsn) !== null
  }

  /** What a reader at this position is told to hold what is shown: where what it holds is forgotten, all of it. */
  since(lsn: bigint): readonly string[] {
    const stand = this.#standAt(lsn)
    if (stand === null) {
      const { rows } = this
      return [truncateJson, ...rows.map((_, place) => this.#insertJson(rows, place))]
    }
    if (stand === this.#stands.at(-1)) return []
    const places = placesOf(stand.rows)
    return this.#changes(stand.rows, this.rows, ({ key }) => places.get(key) ?? -1)
  }

  #standAt(lsn: bigint): Stand | null {
    return this.#stands.findLast(({ from, to }) => from <= lsn && (to === null || lsn <= to)) ?? null
  }

  /** @returns false when only reading tells where it stands */
  #place(row: RowEnds, place: number, json: (row: RowEnds) => string): boolean {
    const values = this.order.valuesOf(row.new!)
    if (values === null) return false
    if (this.#bound !== null) {
      const sign = this.order.compare(values, this.#bound, this.#ranks)
      if (sign > 0) return true
      if (Number.isNaN(sign)) return false
    }
    const at = placeIn(this.#rows, values, this.order, this.#ranks)
    if (at === null || !isWhole(this.#query, row.new!)) return false
    this.#insert(at, new Held({ key: row.key, values, json: json(row) }, place))
    return true
  }

  /** @returns where readers hold it */
  #remove(key: string): number {
    const at = this.#rows.findIndex(row => row.key === key)
    if (at < 0) return -1
    const [{ json, place }] = this.#rows.splice(at, 1) as [Held]
    this.#count(-json.length)
    return place
  }

  #insert(at: number, row: Held): void {
    this.#rows.splice(at, 0, row)
    this.#count(row.json.length)
  }

  #clear(): void {
    this.#rows = []
    this.#count(-this.#chars)
  }

  #count(chars: number): void {
    this.#chars += chars
    this.#sizes.chars += chars
  }

  #trim(): void {
    const spare = spareOf(this.limit)
    if (this.#rows.length <= this.limit) return
    let kept = this.#rows.length > this.limit + 2 * spare ? this.limit + spare : this.#rows.length
    let spareChars = 0
    for (let at = this.limit; at < kept; at++) {
      spareChars += this.#rows[at]!.json.length
      if (spareChars > maxSpareChars) kept = at
    }
    if (kept === this.#rows.length) return
    for (const { json } of this.#rows.splice(kept)) this.#count(-json.length)
    this.#bound = this.#rows.at(-1)!.values
  }

  #tell(lsn: bigint): readonly string[] {
    const { limit } = this
    const rows = this.#rows
    const before = this.rows
    const count = Math.min(limit, rows.length)
    let isSame = before.length === count
    for (let at = 0; isSame && at < count; at++) isSame = rows[at] === before[at]
    if (isSame && this.#stands.at(-1)?.to === null) return []
    const shown = rows.slice(0, count)
    const changes = this.#changes(before, shown, row => row.place)
    let chars = 0
    for (let at = 0; at < rows.length; at++) {
      const row = rows[at]!
      if (at < count && before[row.place] !== row) chars += row.json.length
      row.place = at < count ? at : -1
    }
    this.#stand({ from: lsn, to: null, rows: shown, chars })
    return changes
  }

  #stand(stand: Stand): void {
    const last = this.#stands.at(-1)
    if (last !== undefined) last.to ??= stand.from - 1n
    this.#stands.push(stand)
    this.#standChars += stand.chars
    const most = Math.max(1, Math.min(maxStands, Math.floor(maxStandRows / this.limit)))
    while (this.#stands.length > most || (this.#standChars > maxStandChars && this.#stands.length > 1))
      this.#standChars -= this.#stands.shift()!.chars
  }

  /** From what readers hold to what they are to hold: what goes first, then from the first row to the last what comes or changes.
   *  Each that comes or moves names the row before it, which stands there already when it is read. */
  #changes<R extends WindowRow>(
    before: readonly WindowRow[],
    after: readonly R[],
    placeOf: (row: R) => number,
  ): readonly string[] {
    const { table } = this.#query
    const changes: string[] = []
    const places = after.map(placeOf)
    const isKept = new Uint8Array(before.length)
    for (const place of places) if (place >= 0) isKept[place] = 1
    for (let place = 0; place < before.length; place++)
      if (isKept[place] === 0)
        changes.push(`{"op":"delete","key":${keyJson(table, keyRow(table, before[place]!.key))}}`)
    const stays = stayingAmong(places, at => isSameOrder(before[places[at]!]!.values, after[at]!.values))
    for (let at = 0; at < after.length; at++) {
      const place = places[at]!
      if (place < 0) {
        changes.push(this.#insertJson(after, at))
        continue
      }
      const [old, row] = [before[place]!, after[at]!]
      if (stays[at] && old.json === row.json) continue
      const moved = stays[at] ? '' : `,"after":${this.#afterJson(after, at)}`
      const set = setOf(old.json, row.json)
      changes.push(`{"op":"update","key":${keyJson(table, keyRow(table, row.key))},"set":${set}${moved}}`)
    }
    return changes
  }

  #insertJson(rows: readonly WindowRow[], at: number): string {
    const { table } = this.#query
    const { key, json } = rows[at]!
    return `{"op":"insert","key":${keyJson(table, keyRow(table, key))},"row":${json},"after":${this.#afterJson(rows, at)}}`
  }

  #afterJson(rows: readonly WindowRow[], at: number): string {
    const { table } = this.#query
    return at === 0 ? 'null' : keyJson(table, keyRow(table, rows[at - 1]!.key))
  }
}

const placesOf = (rows: readonly WindowRow[]): Map<string, number> =>
  new Map(rows.map(({ key }, place) => [key, place]))

/** Each that leaves takes one, and each that comes gives one back. */
const spareOf = (limit: number): number => Math.min(100, Math.max(4, Math.ceil(limit / 4)))

/** Where a row of these values belongs; null when only the database knows. */
export function placeIn(rows: readonly WindowRow[], values: OrderValues, order: RowOrder, ranks: Ranks): number | null {
  let [low, high] = [0, rows.length]
  while (low < high) {
    const middle = (low + high) >>> 1
    const sign = order.compare(rows[middle]!.values, values, ranks)
    if (Number.isNaN(sign)) return null
    if (sign < 0) low = middle + 1
    else high = middle
  }
  return low
}

const isSameOrder = (a: OrderValues, b: OrderValues): boolean => a.every((value, i) => value === b[i])
