// Where answers change by time alone: `expires_at > now()`.
//
// `now()` at a position is the greatest commit timestamp up to it, so that every node, and every replay, judges alike. It moves
// with each commit; answers change when it passes a moment that some row's column tells. Those moments are known ahead: of
// rows of hops, which are held, from a heap; of a followed table's own rows from the next one that Postgres finds and from the
// rows that pass in the stream. At the commit that passes one, the audiences concerned are held, and step on like
// after a grant. When the stream is idle at such a moment, a message of ours makes it move.
import type { Row } from '../../predicate/algebra.ts'
import { type DatetimeFamily, printDatetime, startOfDay } from '../../predicate/calendar.ts'
import { baseOf } from '../../predicate/sql-types.ts'
import { boundMicros, nextFlipMicros, type TimeBound, timeBoundsOf } from '../../predicate/time.ts'
import type { Hop, HopRow } from '../authorize/hop.ts'
import { shapeOf, type Table } from '../catalog/table.ts'
import { repeated } from '../log/log-repeated.ts'
import type { Audience } from '../route/audience.ts'
import { Found } from '../route/found.ts'
import { getOrInsert } from '../route/row-index.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import type { Beacon } from '../wal/heartbeat.ts'
import { MomentHeap } from './moment-heap.ts'
import { changesOf } from './span.ts'
import type { StreamParts } from './stream-parts.ts'

interface TimedHop {
  readonly hop: Hop
  readonly bounds: Map<string, TimeBound>
  readonly moments: MomentHeap<{ row: HopRow; bound: TimeBound }>
  /** Rows whose moment was passed, in order, as far back as `since`. */
  passed: { atMicros: bigint; row: HopRow }[]
  since: bigint
}

/** The rows of a table by one comparison with the time. */
interface Watch {
  readonly table: Table
  readonly bound: TimeBound
  readonly audiences: Set<Audience>
  users: number
  /** No row's answer changes before it; null: not known yet. */
  next: bigint | null
  looking: Promise<void> | null
}

const maxPassed = 10_000
/** A moment that has come while the database's clock is behind ours. */
const againMs = 50
const maxTimerMs = 2 ** 31 - 1

export class Times {
  readonly #stream: StreamParts
  readonly #beacon: Pick<Beacon, 'emit'>
  readonly #hops = new Map<Hop, TimedHop>()
  /** One per table and comparison in use. */
  readonly #watches = new Map<string, Watch>()
  readonly #byTable = new Map<number, Set<Watch>>()
  #timer: NodeJS.Timeout | null = null
  #timerAt: bigint | null = null

  constructor(stream: StreamParts, beacon: Pick<Beacon, 'emit'>) {
    this.#stream = stream
    this.#beacon = beacon
  }

  /** Whether anybody's answer depends on the time. */
  get isFollowed(): boolean {
    return this.#hops.size > 0 || this.#watches.size > 0
  }

  /** Follows the rows of a hop by these comparisons, until it is forgotten. */
  followHop(hop: Hop, bounds: readonly TimeBound[]): void {
    if (bounds.length === 0) return
    const timed = getOrInsert(this.#hops, hop, (): TimedHop => {
      const made: TimedHop = {
        hop,
        bounds: new Map(),
        moments: new MomentHeap(),
        passed: [],
        since: this.#stream.head.nowMicros,
      }
      hop.onAdded = row => this.#placeAll(made, row)
      return made
    })
    for (const bound of bounds) {
      const name = boundName(bound)
      if (timed.bounds.has(name)) continue
      timed.bounds.set(name, bound)
      for (const row of hop.rows) this.#place(timed, row, bound, this.#stream.head.nowMicros)
    }
    this.#arm()
  }

  forgetHop(hop: Hop): void {
    this.#hops.delete(hop)
    hop.onAdded = null
  }

  /** Follows a table's rows for an audience. Resolves when it is known when the first of them changes. */
  async watch(table: Table, bounds: readonly TimeBound[]): Promise<Watch[]> {
    const watches = bounds.map(bound => {
      const name = watchName(table, bound)
      let watch = this.#watches.get(name)
      if (watch === undefined) {
        watch = { table, bound, audiences: new Set(), users: 0, next: null, looking: null }
        this.#watches.set(name, watch)
        getOrInsert(this.#byTable, table.oid, () => new Set<Watch>()).add(watch)
      }
      watch.users += 1
      return watch
    })
    try {
      for (const watch of watches) if (watch.next === null) await this.#look(watch)
    } catch (error) {
      this.unwatch(watches)
      throw error
    }
    return watches
  }

  attach(audience: Audience, watches: readonly Watch[]): void {
    for (const watch of watches) watch.audiences.add(audience)
  }

  unwatch(watches: readonly Watch[], audience?: Audience): void {
    for (const watch of watches) {
      if (audience !== undefined) watch.audiences.delete(audience)
      watch.users -= 1
      if (watch.users > 0) continue
      this.#watches.delete(watchName(watch.table, watch.bound))
      const left = this.#byTable.get(watch.table.oid)
      left?.delete(watch)
      if (left?.size === 0) this.#byTable.delete(watch.table.oid)
    }
  }

  /** A row that the stream told of. */
  seen(oid: number, row: Row): void {
    for (const watch of this.#byTable.get(oid) ?? []) this.#see(watch, row)
  }

  /** Whether the time passes a moment, or may. */
  isDue(toMicros: bigint): boolean {
    for (const { moments } of this.#hops.values()) if (isPast(moments.next, toMicros)) return true
    for (const { next } of this.#watches.values()) if (next === null || next <= toMicros) return true
    return false
  }

  /** Takes the moments up to this one. @returns the audiences that they concern */
  pass(toMicros: bigint): readonly Audience[] {
    const found = new Found<Audience>()
    for (const [hop, timed] of this.#hops) {
      const passed: HopRow[] = []
      for (const { atMicros, item } of timed.moments.takeUntil(toMicros)) {
        if (hop.rowNamed(item.row.name) !== item.row) continue
        passed.push(item.row)
        timed.passed.push({ atMicros, row: item.row })
        this.#place(timed, item.row, item.bound, toMicros)
      }
      if (timed.passed.length > maxPassed) {
        timed.since = timed.passed[timed.passed.length - maxPassed]!.atMicros
        timed.passed = timed.passed.slice(-maxPassed)
      }
      if (passed.length > 0) this.#stream.router.reaching(hop, passed, found)
    }
    for (const watch of this.#watches.values()) {
      if (watch.next !== null && watch.next > toMicros) continue
      for (const audience of watch.audiences) found.add(audience)
      if (watch.next !== null) {
        watch.next = null
        this.#lookAgain(watch)
      }
    }
    return found.items
  }

  /** Rows of a hop whose moment lies after one time and not after another; perhaps some more. */
  passedBetween(hop: Hop, rows: Iterable<HopRow>, fromMicros: bigint, toMicros: bigint): readonly HopRow[] {
    const timed = this.#hops.get(hop)
    if (timed === undefined || fromMicros >= toMicros) return []
    if (fromMicros >= timed.since)
      return timed.passed.filter(({ atMicros }) => atMicros > fromMicros).map(({ row }) => row)
    const bounds = [...timed.bounds.values()]
    return [...rows].filter(row =>
      bounds.some(bound => isPast(nextFlipMicros(bound, row.text(bound.column.column) ?? null, fromMicros), toMicros)),
    )
  }

  /** The timer was set for the first moment: when the stream has not come to it by itself, it is made to move. */
  #arm(): void {
    let first: bigint | null = null
    const consider = (at: bigint | null): void => {
      if (at !== null && (first === null || at < first)) first = at
    }
    for (const { moments } of this.#hops.values()) consider(moments.next)
    for (const { next } of this.#watches.values()) consider(next)
    if (first === this.#timerAt && this.#timer !== null) return
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#timerAt = first
    if (first === null) return
    const delayMs = Math.max(Number(first / 1000n) + 1 - Date.now(), 0)
    this.#timer = setTimeout(() => void this.#come(), Math.min(delayMs, maxTimerMs)).unref()
  }

  async #come(): Promise<void> {
    const at = this.#timerAt
    try {
      if (at !== null && at > this.#stream.head.nowMicros && at <= BigInt(Date.now()) * 1000n)
        await this.#beacon.emit('fence')
    } catch {
      // The database is away: there is no time but its commits'.
    }
    await new Promise(resolve => setTimeout(resolve, againMs).unref())
    this.#timer = null
    this.#arm()
  }

  #placeAll(timed: TimedHop, row: HopRow): void {
    const { next } = timed.moments
    for (const bound of timed.bounds.values()) this.#place(timed, row, bound, this.#stream.head.nowMicros)
    if (timed.moments.next !== next) this.#arm()
  }

  #place(timed: TimedHop, row: HopRow, bound: TimeBound, nowMicros: bigint): void {
    const at = nextFlipMicros(bound, row.text(bound.column.column) ?? null, nowMicros)
    if (at === null) return
    const { hop, moments, bounds } = timed
    moments.add(at, { row, bound })
    // Of rows that went before their moment came.
    if (moments.size > 1000 + 2 * hop.size * bounds.size) moments.keep(({ row }) => hop.rowNamed(row.name) === row)
  }

  #see(watch: Watch, row: Row): void {
    if (watch.next === null) return
    const text = row.text(watch.bound.column.column)
    // Unknown: it may be any.
    const at = text === undefined ? watch.next : nextFlipMicros(watch.bound, text, this.#stream.head.nowMicros)
    if (at === null || at >= watch.next) return
    watch.next = at
    this.#arm()
  }

  #lookAgain(watch: Watch): void {
    this.#look(watch).catch(async error => {
      repeated(this.#stream.log).warn(
        { err: error, table: watch.table.name },
        'rows that time moves could not be found; trying again',
      )
      await new Promise(resolve => setTimeout(resolve, 1000).unref())
      if (watch.users > 0) this.#lookAgain(watch)
    })
  }

  /** Finds when the next row's answer changes. Until it is known, each commit may be the moment. */
  #look(watch: Watch): Promise<void> {
    watch.looking ??= this.#find(watch).finally(() => {
      watch.looking = null
    })
    return watch.looking
  }

  async #find(watch: Watch): Promise<void> {
    const { relay, head, reader } = this.#stream
    const { table, bound } = watch
    const pin = relay.pin()
    try {
      const { column } = bound
      const low = printDatetime(baseOf(column.type).family as DatetimeFamily, boundMicros(bound, head.nowMicros))
      const match = { column: column.column, low, high: null, isFirst: true }
      const { rows, snapshot, fence } = await reader.inRange(table, match, 1)
      await reader.passed(fence)
      while (!head.ready(fence)) await head.change()
      const [row] = rows
      const { nowMicros } = head
      let next = row === undefined ? forever : soonest(bound, new QueryRow(row), nowMicros)
      // The first in the range has changed just now, and hides what comes after it.
      if (row !== undefined && next === forever) next = nowMicros + 1n
      // Where months end early, a bound may step back at midnight.
      if (bound.shift.months !== 0) next = earlier(next, startOfDay(nowMicros) + microsOfDay)
      for (const change of changesOf(relay.unseen(snapshot, head.lsn), table)) {
        if (change.kind !== 'insert' && change.kind !== 'update') continue
        next = earlier(next, soonest(bound, change.new, nowMicros))
      }
      watch.next = next
      this.#arm()
    } finally {
      pin.release()
    }
  }
}

export type { Watch }

const forever = 2n ** 62n
const microsOfDay = 86_400_000_000n

const earlier = (a: bigint, b: bigint): bigint => (a < b ? a : b)

const watchName = (table: Table, bound: TimeBound): string => `${shapeOf(table)} ${boundName(bound)}`

function soonest(bound: TimeBound, row: Row, nowMicros: bigint): bigint {
  const text = row.text(bound.column.column)
  if (text === undefined) return nowMicros
  return nextFlipMicros(bound, text, nowMicros) ?? forever
}

const isPast = (at: bigint | null, toMicros: bigint): boolean => at !== null && at <= toMicros

const boundName = ({ column, op, shift, byDay }: TimeBound): string =>
  `${column.column}${op}${shift.months}/${shift.days}/${shift.micros}${byDay ? ' by day' : ''}`

/** The comparisons of an audience's own rows with the time. */
export const boundsOf = (audience: Audience): readonly TimeBound[] =>
  audience.readsTime ? timeBoundsOf(audience.predicate) : []
