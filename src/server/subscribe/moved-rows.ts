// Rows that a query should look at although no commit touched them: those under a key that was granted or revoked, and
// those whose large values the WAL left out. Read by literal keys as Tidegate's own login, then carried to the head.
import { setTimeout as sleep } from 'node:timers/promises'
import type { Expr, Row, SemiJoin } from '../../predicate/algebra.ts'
import { keyOf } from '../../predicate/compare.ts'
import { keyComparisonsOf } from '../../predicate/join-key.ts'
import { keyedColumns } from '../../predicate/keys.ts'
import { flippingRange } from '../../predicate/time.ts'
import type { Hop, Partition } from '../authorize/hop.ts'
import type { MembershipsBefore } from '../authorize/membership-history.ts'
import { knownKey } from '../decode/fold.ts'
import type { Pin } from '../relay/memory-relay.ts'
import type { Audience } from '../route/audience.ts'
import { FilledRow, QueryRow } from '../snapshot/query-row.ts'
import type { RangeMatch } from '../snapshot/reader.ts'
import type { Snapshot } from '../wal/visibility.ts'
import { type ChangedKey, changedKeysOf, type MissingPartition, outerColumns } from './changed-keys.ts'
import { foldTable, SpanError } from './span.ts'
import type { Stream } from './stream.ts'
import { boundsOf } from './times.ts'

/** Rows to read: those whose `columns` equal one of `keys`, or lie in the range. */
export interface Wanted {
  readonly columns: readonly number[]
  readonly keys: (readonly (string | null)[])[]
  readonly range?: RangeMatch
  /** The keys are of another type than the columns: only Postgres knows which rows are whose. */
  readonly isForeign?: boolean
}

/** What Postgres has committed it shows within milliseconds, or when its busy machine, or a standby, lets it: three seconds of reads. */
const maxRowReads = 20
const longestPauseMs = 250

const aheadMicros = 10_000_000n

interface Read {
  readonly snapshot: Snapshot
  readonly rows: ReadonlyMap<string, Row>
}

export class MovedRows {
  readonly #stream: Stream
  readonly #audience: Audience
  readonly #pins: Pin[] = []
  readonly #demands: { hop: Hop; partition: Partition }[] = []
  readonly #reads: Read[] = []
  readonly #asked = new Set<string>()
  #rowReads = 0
  /** Up to when rows that the time moves have been read. */
  #passedMicros = 0n
  /** The stream must have passed this before the rows may be used. */
  fence = 0n

  constructor(stream: Stream, audience: Audience) {
    this.#stream = stream
    this.#audience = audience
  }

  /** What changed hands and was not read yet; empty when there is nothing more to read. Null when rows that decided
   *  before are not held now: they have been asked for, and it must be called again when the index has them.
   *  @param touched every key that changed, also one that is back where it was
   *  @throws SpanError when a change names no rows */
  missing(before: MembershipsBefore, touched: boolean): Wanted[] | null {
    if (before.sets.size === 0 && !this.#audience.readsTime) return []
    const { byJoin, missing } = changedKeysOf(this.#stream, this.#audience, before, touched)
    if (missing.length > 0) {
      this.#demand(missing)
      return null
    }
    if (byJoin === null) throw new SpanError('INPUTS_CHANGED')
    const wanted = new Map<string, Wanted>()
    for (const [join, keys] of byJoin) {
      const columns = outerColumns(join)
      if (columns === null) throw new SpanError('INPUTS_CHANGED')
      for (const key of keys) if (couldConcern(this.#audience, join, key)) this.#want(wanted, columns, join, key)
    }
    return [...wanted.values(), ...this.#passedRows(before.nowMicros)]
  }

  /** Rows whose own columns the time has passed, or soon will: the stream goes on while they are read. */
  #passedRows(fromMicros: bigint): Wanted[] {
    const { nowMicros } = this.#stream.head
    if (nowMicros <= this.#passedMicros) return []
    const begins = this.#passedMicros === 0n ? fromMicros : this.#passedMicros
    this.#passedMicros = nowMicros + aheadMicros
    return boundsOf(this.#audience).map(bound => {
      const { low, high } = flippingRange(bound, begins, this.#passedMicros)
      const { column } = bound.column
      return { columns: [column], keys: [], range: { column, low, high, isFirst: false } }
    })
  }

  /** Whether all rows of hops that decided in between are held, so that any position since may be judged; if not, they have
   *  been asked for. */
  holds(before: MembershipsBefore): boolean {
    if (before.sets.size === 0) return true
    const { missing } = changedKeysOf(this.#stream, this.#audience, before, true)
    this.#demand(missing)
    return missing.length === 0
  }

  /** Whether what `missing` asked for is still not there. @throws why it cannot be had */
  get isWaiting(): boolean {
    for (const { partition } of this.#demands) {
      if (partition.failure !== null) throw partition.failure
      if (!partition.isLoaded) return true
    }
    return false
  }

  /** Rows by primary key. More than once for one key: a read may not see yet that another row has it now.
   *  @throws SpanError when reading does not help */
  missingRows(rows: readonly Row[]): Wanted | null {
    const columns = this.#audience.query.table.primaryKey
    if (rows.length === 0) return null
    if (this.#rowReads === maxRowReads) throw new SpanError('INPUTS_CHANGED')
    this.#rowReads += 1
    return { columns, keys: rows.map(row => columns.map(column => row.text(column) ?? null)) }
  }

  /** @throws SpanError when more rows move than one grant may; TidegateError when the database cannot be read */
  async read(wanted: readonly Wanted[]): Promise<void> {
    const { relay, reader, sharedReads, limits } = this.#stream
    const { table } = this.#audience.query
    // What the read before did not see yet, the next one may: a little later each time.
    if (this.#rowReads > 1) await sleep(Math.min(2 ** (this.#rowReads - 2), longestPauseMs))
    for (const { columns, keys, range, isForeign } of wanted) {
      this.#pins.push(relay.pin())
      const { rows, snapshot, fence } = await (range === undefined
        ? (isForeign ? reader : sharedReads).asLogin(table, { columns, keys }, limits.snapshotMaxRows + 1)
        : reader.inRange(table, range, limits.snapshotMaxRows + 1))
      if (rows.length > limits.snapshotMaxRows) throw new SpanError('INPUTS_CHANGED')
      const byKey = new Map<string, Row>()
      for (const values of rows) {
        const row = new QueryRow(values)
        byKey.set(knownKey(row, table.primaryKey)!, row)
      }
      this.#reads.push({ snapshot, rows: byKey })
      if (fence > this.fence) this.fence = fence
      await reader.passed(fence)
    }
  }

  /** Everything read, as it stands at the head: commits that a read did not see are laid over it. */
  atHead(): Map<string, Row> {
    const { relay, head } = this.#stream
    const { table } = this.#audience.query
    const result = new Map<string, Row>()
    for (const read of this.#reads) {
      const { truncated, rows: unseen } = foldTable(relay.unseen(read.snapshot, head.lsn), table)
      if (!truncated) for (const [key, row] of read.rows) if (!unseen.has(key)) result.set(key, row)
      for (const [key, row] of unseen) {
        if (row.new === null) result.delete(key)
        // What stood under the key when it was read, is another row's: it stays partial, and a later read has it whole.
        else result.set(key, row.carried ? row.new : withFallback(row.new, read.rows.get(key)))
      }
    }
    return result
  }

  release(): void {
    for (const pin of this.#pins) pin.release()
    for (const { hop, partition } of this.#demands) this.#stream.reach.letGo(hop, partition)
  }

  #demand(missing: readonly MissingPartition[]): void {
    for (const { hop, columns, key, values } of missing)
      this.#demands.push({ hop, partition: this.#stream.reach.demand(hop, columns, key, values) })
  }

  #want(wanted: Map<string, Wanted>, columns: readonly number[], join: SemiJoin, { key, values }: ChangedKey): void {
    const isForeign = keyedColumns(join) === null
    const group = `${columns.join(',')}${isForeign ? ' foreign' : ''}`
    const name = `${group}:${join.table.oid}:${key}`
    if (this.#asked.has(name)) return
    this.#asked.add(name)
    const held = wanted.get(group)
    if (held !== undefined) held.keys.push(values)
    else wanted.set(group, { columns, keys: [values], isForeign })
  }
}

/** A query filtered on the very column that a key names is not concerned with other keys: `room_id = 42` and a grant of
 *  room 7. */
export function couldConcern({ predicate, query }: Audience, join: SemiJoin, { values }: ChangedKey): boolean {
  const columns = keyedColumns(join)
  if (columns === null) return true
  const comparisons = keyComparisonsOf(join)
  const conjuncts = predicate.kind === 'and' ? predicate.args : [predicate]
  for (const conjunct of conjuncts) {
    const fixed = fixedColumn(conjunct)
    if (fixed === null) continue
    const at = columns.indexOf(fixed.column)
    const value = at < 0 ? null : (values[at] ?? null)
    if (value === null) continue
    const { type } = query.table.columns[fixed.column]!
    const key = comparisons[at]!.left(value)
    if (!fixed.values.some(text => keyOf(type, text) === key)) return false
  }
  return true
}

function fixedColumn(predicate: Audience['predicate']): { column: number; values: string[] } | null {
  if (predicate.kind === 'compare' && predicate.op === '=') {
    const column = columnOf(predicate.left)
    if (
      column !== null &&
      predicate.right.kind === 'const' &&
      predicate.right.value !== null &&
      sameType(predicate.left, predicate.right)
    ) {
      return { column, values: [predicate.right.value] }
    }
  }
  if (predicate.kind === 'in') {
    const column = columnOf(predicate.left)
    const values = predicate.items.map(item =>
      item.kind === 'const' && sameType(predicate.left, item) ? item.value : null,
    )
    if (column !== null && values.every(value => value !== null)) return { column, values }
  }
  return null
}

const columnOf = (expr: Expr): number | null => (expr.kind === 'column' ? expr.column : null)

const sameType = (a: Expr, b: Expr): boolean => a.type.oid === b.type.oid

/** The row, with what it leaves out from another version of it. */
export const withFallback = (row: Row, fallback: Row | undefined): Row =>
  fallback === undefined ? row : new FilledRow(row, fallback)
