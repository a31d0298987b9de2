// Reads the first rows of an ordered query and carries them to the head of the stream (DESIGN section 5).
//
// The rows are read under the reader's own role and claims. At the head P, those touched by commits that the snapshot did not see
// take their last version, and so do those under keys that were granted or revoked meanwhile: each that is visible at P and
// stands at or before the last row read is one of them. All others stand as they were read. Where too few are left, more are read.
import type { Row } from '../../predicate/algebra.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Commit } from '../decode/change.ts'
import { knownKey } from '../decode/fold.ts'
import type { Pin } from '../relay/memory-relay.ts'
import type { Audience } from '../route/audience.ts'
import { isWhole, objectJson } from '../route/encode.ts'
import type { OrderValues, Ranks } from '../route/ordering.ts'
import { maxWindowChars, placeIn, type Window, type WindowRead, type WindowRow } from '../route/window.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import type { FencedRows, Reader } from '../snapshot/reader.ts'
import { columnPositions, readFor, ringFull, unsettled } from './first-snapshot.ts'
import { MovedRows, withFallback } from './moved-rows.ts'
import { foldTable, membershipsBefore, SpanError } from './span.ts'
import type { Stream } from './stream.ts'
import { ranksSql, windowColumns, windowSql } from './window-sql.ts'

export interface ReadWindowRequest {
  readonly audience: Audience
  readonly window: Window
  readonly reader: Reader
  /** For a hold of this audience, which others wait out. */
  readonly isHeld: boolean
  cancelled(): boolean
}

const retryMs = 20
const maxRetryMs = 500
/** For who waits to join: some four seconds. A hold has a bound of its own. */
const maxAttempts = 12

/** @param done takes the rows in the same turn in which the head was looked at
 *  @throws SNAPSHOT_TOO_LARGE, BUSY, UNAVAILABLE and what Postgres refuses; SpanError when the window began anew */
export async function readWindow(
  stream: Stream,
  request: ReadWindowRequest,
  done: (read: WindowRead) => void,
): Promise<void> {
  const { life } = stream.relay
  let { wanted } = request.window
  for (let attempt = 0; ; attempt++) {
    try {
      // So many rows are gone, and SELECT still shows them.
      if (wanted > Math.max(stream.limits.snapshotMaxRows, request.window.wanted)) throw new SpanError('INPUTS_CHANGED')
      const outcome = await new WindowReading(stream, request, wanted).run(done)
      if (outcome !== 'dry') return
      wanted *= 2
    } catch (error) {
      // What cannot be laid over these rows, the next snapshot sees.
      if (!(error instanceof SpanError) || stream.relay.life !== life) throw error
      if (!request.isHeld && attempt >= maxAttempts) throw unsettled(request.audience, error)
      wanted = request.window.wanted
      await new Promise(resolve => setTimeout(resolve, Math.min(retryMs * 2 ** attempt, maxRetryMs)))
    }
    if (request.cancelled()) return
  }
}

/** One snapshot of it. */
class WindowReading {
  readonly #stream: Stream
  readonly #request: ReadWindowRequest
  readonly #wanted: number
  readonly #moved: MovedRows
  #ranks: Ranks = new Map()

  constructor(stream: Stream, request: ReadWindowRequest, wanted: number) {
    this.#stream = stream
    this.#request = request
    this.#wanted = wanted
    this.#moved = new MovedRows(stream, request.audience)
  }

  async run(done: (read: WindowRead) => void): Promise<'done' | 'dry' | 'cancelled'> {
    const { relay, head, reader, reach } = this.#stream
    const { audience, isHeld } = this.#request
    const { query } = audience
    const uses = reach.usesOf(audience)
    const { life } = relay
    const moved = this.#moved
    const pins = [relay.pin()]
    try {
      const { sql, values } = windowSql(query, this.#wanted)
      const read = await readFor(this.#stream, this.#request, { sql, values, pins })
      this.#assertFits(life)
      await reader.passed(read.fence, !isHeld)
      // What the time moved for Postgres, it must have moved here.
      while (audience.readsTime && head.nowMicros < read.nowMicros) await reader.passed(head.passedLsn + 1n)
      for (;;) {
        while (
          !head.ready(read.fence) ||
          !head.ready(moved.fence) ||
          (!isHeld && audience.hold !== null) ||
          moved.isWaiting ||
          reach.isPending(uses)
        ) {
          if (this.#request.cancelled()) return 'cancelled'
          await head.change()
        }
        if (this.#request.cancelled()) return 'cancelled'
        this.#assertFits(life)
        const unseen = relay.unseen(read.snapshot, head.lsn)
        const missing = moved.missing(membershipsBefore(audience, unseen, read.nowMicros), true)
        if (missing === null) continue
        if (missing.length > 0) {
          await moved.read(missing)
          continue
        }
        const found = this.#atHead(read, unseen)
        if ('wanted' in found) await moved.read([found.wanted])
        else if ('unranked' in found) this.#ranks = await this.#rank(found.unranked, pins)
        else if (found.rows.length < this.#request.window.limit && found.bound !== null) return 'dry'
        else {
          assertSize(this.#request.audience, found.rows)
          done(found)
          return 'done'
        }
      }
    } finally {
      for (const pin of pins) pin.release()
      moved.release()
    }
  }

  #assertFits(life: number): void {
    const { relay, limits } = this.#stream
    if (relay.life !== life) throw new SpanError('WINDOW_PASSED')
    if (relay.ringBytes() > limits.ringMaxBytes) throw ringFull()
  }

  /** What the query shows at the head, or what must be known for it: large values, or the ranks of these order values. */
  #atHead(
    read: FencedRows,
    unseen: readonly Commit[],
  ): WindowRead | { wanted: NonNullable<ReturnType<MovedRows['missingRows']>> } | { unranked: OrderValues[] } {
    const { audience, window } = this.#request
    const { query } = audience
    const { table } = query
    const { order } = window
    const positions = columnPositions(table.columns.length, windowColumns(query))
    const before = new Map(
      read.rows.map(values => {
        const row = new QueryRow(values, positions)
        return [knownKey(row, table.primaryKey)!, row] as const
      }),
    )
    const isAll = read.rows.length < this.#wanted
    const lastRead = isAll ? null : order.valuesOf(new QueryRow(read.rows.at(-1)!, positions))!
    const vanished = new Set<string>()
    const touched = foldTable(unseen, table, vanished)
    const moves = this.#moved.atHead()
    // The last version of each row that may stand elsewhere now, if it is visible.
    const changed = new Map<string, Row | null>([...vanished].map(key => [key, null]))
    const place = (key: string, row: Row | null, base: Row | undefined): void => {
      const isVisible = row !== null && audience.visible(row, audience.now) === true
      changed.set(key, isVisible ? withFallback(withFallback(row, base), moves.get(key)) : null)
    }
    // What was read under a key that another row has taken over, is not this row's.
    for (const { key, new: row, carried } of touched.rows.values())
      place(key, row, carried ? undefined : before.get(key))
    for (const [key, row] of moves) if (!touched.rows.has(key)) place(key, row, before.get(key))
    const rows: WindowRow[] = []
    if (!touched.truncated) for (const [key, row] of before) if (!changed.has(key)) rows.push(this.#windowRow(key, row))
    const bound = touched.truncated ? null : lastRead
    const partial: Row[] = []
    let isRanked = true
    for (const [key, row] of changed) {
      if (row === null) continue
      const values = order.valuesOf(row)
      if (values === null || !isWhole(query, row)) {
        partial.push(row)
        continue
      }
      const sign = bound === null ? -1 : order.compare(values, bound, this.#ranks)
      if (sign > 0) continue
      const at = Number.isNaN(sign) ? null : placeIn(rows, values, order, this.#ranks)
      if (at === null) isRanked = false
      else rows.splice(at, 0, this.#windowRow(key, row))
    }
    const wanted = this.#moved.missingRows(partial)
    if (wanted !== null) return { wanted }
    if (isRanked) return { rows, bound, ranks: this.#ranks }
    const all = [...rows.map(({ values }) => values), ...(bound === null ? [] : [bound])]
    for (const row of changed.values()) if (row !== null) all.push(order.valuesOf(row)!)
    return { unranked: all }
  }

  #windowRow(key: string, row: Row): WindowRow {
    const { audience, window } = this.#request
    const { table, columns } = audience.query
    return { key, values: window.order.valuesOf(row)!, json: objectJson(table, columns, row) }
  }

  /** @throws SpanError for a value that nothing but Postgres knows */
  async #rank(all: readonly OrderValues[], pins: Pin[]): Promise<Ranks> {
    const { audience, window } = this.#request
    const { query } = audience
    const ranks = new Map<number, Map<string, number>>()
    for (const place of window.order.ranked) {
      const values = new Set(all.flatMap(row => row[place] ?? []))
      const { sql, values: parameters } = ranksSql(query, query.ordering!.columns[place]!.column, [...values])
      const { rows } = await readFor(this.#stream, this.#request, { sql, values: parameters, pins })
      ranks.set(place, new Map(rows.map(([value, rank]) => [value!, Number(rank)])))
    }
    // A label of an enum that the catalog does not know yet.
    if (window.order.ranked.length === 0) throw new SpanError('POLICY_CHANGED')
    return ranks
  }
}

function assertSize({ query }: Audience, rows: readonly WindowRow[]): void {
  let chars = 0
  for (const { json } of rows) chars += json.length
  if (chars <= maxWindowChars) return
  const { schema, name } = query.table
  throw new TidegateError(
    'SNAPSHOT_TOO_LARGE',
    `the first rows of ${schema}.${name} are more than ${maxWindowChars} characters; lower the limit, or select fewer columns`,
  )
}
