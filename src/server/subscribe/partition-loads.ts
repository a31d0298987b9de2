// Reads the partitions of hops that somebody came to reach, and splices them into the stream like a snapshot.
//
// What is asked for in one turn of the event loop is read together, and what is asked for while a read of the same hop by the
// same columns is under way goes out after it, in one query too: a thousand readers who come after a restart cost a
// few queries.
import type { Row } from '../../predicate/algebra.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Hop, Partition } from '../authorize/hop.ts'
import { type Entry, indexFull, membershipTooLarge } from '../authorize/inner-set.ts'
import { shapeOf } from '../catalog/table.ts'
import { repeated } from '../log/log-repeated.ts'
import { type BoundAnchor, getOrInsert } from '../route/row-index.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import { failureOf, lasting, matchOf, tableChanged } from './inner-reads.ts'
import { changesOf, SpanError } from './span.ts'
import type { StreamParts } from './stream-parts.ts'

/** Who asks for them. */
export interface Reached {
  isHeld(hop: Hop): boolean
  /** Where all that the hop may hold is found, for those that hold all of it. */
  anchorsOf(hop: Hop): readonly BoundAnchor[] | null
  /** A row came to be held. */
  came(hop: Hop, entry: Entry): void
}

const maxKeysAtOnce = 5000
/** Rows of one query, unless a partition alone has more. */
const maxRowsTogether = 200_000
const maxRetryMs = 2000

export class PartitionLoads {
  readonly #stream: StreamParts
  readonly #reached: Reached
  readonly #scheduled = new Set<Hop>()
  /** Those that a query is made for. */
  readonly #asked = new Set<Partition>()
  /** By hop, the columns by which it is being read. */
  readonly #reading = new WeakMap<Hop, Set<string>>()

  constructor(stream: StreamParts, reached: Reached) {
    this.#stream = stream
    this.#reached = reached
  }

  /** Reads what is in the hop's `loading`, soon. */
  ask(hop: Hop): void {
    if (this.#scheduled.has(hop)) return
    this.#scheduled.add(hop)
    setImmediate(() => {
      this.#scheduled.delete(hop)
      this.#loadAsked(hop)
    })
  }

  #loadAsked(hop: Hop): void {
    const byColumns = new Map<string, Partition[]>()
    for (const partition of hop.loading) {
      if (this.#asked.has(partition) || partition.failure !== null) continue
      const columns = partition.columns.join(',')
      if (this.#reading.get(hop)?.has(columns) === true) continue
      getOrInsert(byColumns, columns, () => []).push(partition)
    }
    for (const partitions of byColumns.values()) {
      const batch = partitions.slice(0, maxKeysAtOnce)
      for (const partition of batch) this.#asked.add(partition)
      void this.#loadUntilDone(hop, batch)
    }
  }

  /** Tried until it succeeds, nobody needs it any more, or trying does not help. */
  async #loadUntilDone(hop: Hop, partitions: readonly Partition[]): Promise<void> {
    const { log, head } = this.#stream
    for (let attempt = 0; ; attempt++) {
      const wanted = partitions.filter(partition => hop.loading.has(partition))
      if (wanted.length === 0 || !this.#reached.isHeld(hop)) break
      try {
        if (await this.#load(hop, wanted)) break
        // More rows than may be read at once: whose they are, shows when they are read apart.
        const middle = wanted.length >>> 1
        await this.#loadUntilDone(hop, wanted.slice(0, middle))
        await this.#loadUntilDone(hop, wanted.slice(middle))
        break
      } catch (error) {
        if (error instanceof TidegateError && lasting.has(error.code)) {
          for (const partition of wanted) partition.failure = error
          head.moved()
          break
        }
        if (attempt === 0 && !(error instanceof SpanError))
          repeated(log).warn(
            { err: error, table: hop.table.name },
            'rows that a grant reaches could not be read; trying again',
          )
        await new Promise(resolve => setTimeout(resolve, Math.min(100 * 2 ** attempt, maxRetryMs)))
      }
    }
    for (const partition of partitions) this.#asked.delete(partition)
  }

  /** @returns false when these are too many to be read together */
  async #load(hop: Hop, partitions: readonly Partition[]): Promise<boolean> {
    const { relay, head, reader, limits, indexSize } = this.#stream
    const { table } = hop
    const pin = relay.pin()
    try {
      const { life } = relay
      // Rows that no partition holds yet, and no more than there is room for.
      const room = indexSize.room
      const isApart = partitions.length === 1 || room < partitions.length
      const limit = isApart ? room : Math.min(room, maxRowsTogether)
      const { rows, snapshot, fence } = await this.#read(hop, partitions, limit + 1)
      if (rows.length > limit) {
        if (!isApart) return false
        throw indexFull(indexSize)
      }
      await reader.passed(fence)
      while (!head.ready(fence)) await head.change()
      if (relay.life !== life) throw new TidegateError('UNAVAILABLE', 'the window began anew', { retryAfterMs: 500 })
      if (!this.#reached.isHeld(hop)) return true
      const found = new FoundRows(hop, partitions)
      for (const values of rows) found.count(new QueryRow(values), 1)
      for (const change of changesOf(relay.unseen(snapshot, head.lsn), table)) {
        if (change.kind === 'truncate') found.clear()
        if (change.kind === 'update' || change.kind === 'delete') found.count(change.old, -1)
        if (change.kind === 'update' || change.kind === 'insert') found.count(change.new, 1)
      }
      const route = this.#stream.router.routeOf(table.oid)
      if (route !== undefined && shapeOf(route.table) !== shapeOf(table)) throw tableChanged(table)
      for (const partition of partitions) {
        if (!hop.loading.has(partition)) continue
        const { size, failure } = found.of(partition)
        if (failure !== null) partition.failure = failureOf({ failure, table })
        else if (size > limits.membershipMaxRows)
          partition.failure = membershipTooLarge(table, limits.membershipMaxRows)
        // Others may have been read meanwhile.
        else if (size > indexSize.room) partition.failure = indexFull(indexSize)
        else this.#place(hop, partition, found)
      }
      hop.rest()
      head.moved()
      return true
    } finally {
      pin.release()
    }
  }

  async #read(hop: Hop, partitions: readonly Partition[], limit: number): ReturnType<StreamParts['reader']['asLogin']> {
    const { columns } = partitions[0]!
    const match =
      columns.length > 0
        ? { columns, keys: partitions.map(({ values }) => values) }
        : matchOf(hop.table, this.#reached.anchorsOf(hop))
    let reading = this.#reading.get(hop)
    if (reading === undefined) {
      reading = new Set()
      this.#reading.set(hop, reading)
    }
    const name = columns.join(',')
    reading.add(name)
    try {
      return await this.#stream.reader.asLogin(hop.table, match, limit)
    } finally {
      reading.delete(name)
      this.ask(hop)
    }
  }

  #place(hop: Hop, partition: Partition, found: FoundRows): void {
    hop.loading.delete(partition)
    for (const { row, entry, count } of found.of(partition).rows) {
      if (count <= 0 || hop.isHeld(row)) continue
      hop.count(entry, count)
      this.#reached.came(hop, entry)
    }
    partition.isLoaded = true
  }
}

interface FoundPartition {
  readonly rows: Map<string, { readonly row: Row; readonly entry: Entry; count: number }>
  /** Rows that cannot be judged, and why the last one cannot. */
  unjudged: number
  failure: unknown
}

/** Rows read for partitions, with the commits that the read did not see laid over them. */
class FoundRows {
  readonly #hop: Hop
  readonly #byKey: ReadonlyMap<string, FoundPartition>
  readonly #columns: readonly number[]

  constructor(hop: Hop, partitions: readonly Partition[]) {
    this.#hop = hop
    this.#columns = partitions[0]!.columns
    this.#byKey = new Map(partitions.map(({ key }) => [key, { rows: new Map(), unjudged: 0, failure: null }]))
  }

  count(row: Row, by: 1 | -1): void {
    const hop = this.#hop
    const key = hop.keyOfColumns(this.#columns, row)
    const found = key === null ? undefined : this.#byKey.get(key)
    if (found === undefined) return
    try {
      if (!hop.matches(row)) return
      const entry = hop.entryOf(row)
      const held = found.rows.get(entry.name)
      if (held === undefined) found.rows.set(entry.name, { row: hop.rowOf(entry.name, entry.values), entry, count: by })
      else held.count += by
    } catch (error) {
      found.unjudged += by
      found.failure = error
    }
  }

  clear(): void {
    for (const found of this.#byKey.values()) {
      found.rows.clear()
      found.unjudged = 0
    }
  }

  of({ key }: Partition): {
    readonly rows: Iterable<{ row: Row; entry: Entry; count: number }>
    size: number
    failure: unknown
  } {
    const { rows, unjudged, failure } = this.#byKey.get(key)!
    let size = 0
    for (const { count } of rows.values()) size += Math.max(0, count)
    return { rows: rows.values(), size, failure: unjudged > 0 ? failure : null }
  }
}
