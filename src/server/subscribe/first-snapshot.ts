// A live query's first rows, joined to the stream without a gap (DESIGN section 5).
//
// The rows are read under the reader's own role and claims, in chunks by primary key, each chunk under a snapshot of its
// own. At the end, at the head P of the stream, everything that some chunk may not have seen is made good: rows touched by
// commits that the first snapshot did not see take their last version, rows under keys granted or revoked since are looked
// at again. The client is exact when the last part arrives, stamped P; the next delta is the first commit after P.
import type { Row } from '../../predicate/algebra.ts'
import { WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { knownKey } from '../decode/fold.ts'
import type { Pin } from '../relay/memory-relay.ts'
import type { Audience } from '../route/audience.ts'
import { isWhole, keyJson, objectJson, partsOf } from '../route/encode.ts'
import { Outgoing } from '../route/outgoing.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import type { FencedRows, Reader } from '../snapshot/reader.ts'
import { MovedRows, withFallback } from './moved-rows.ts'
import { snapshotSql } from './snapshot-sql.ts'
import { foldTable, membershipsBefore, SpanError } from './span.ts'
import type { Stream } from './stream.ts'

export interface FirstSnapshotRequest {
  readonly audience: Audience
  readonly reader: Reader
  cancelled(): boolean
  /** Takes a part. @returns false when the client should take what it has first */
  send(part: Outgoing): boolean
  /** Resolves when there is room again. */
  drained(): Promise<void>
  /** Runs in the turn in which the last part was sent: from here on the subscriber stands at the head. */
  joined(): void
}

/** @throws SNAPSHOT_TOO_LARGE, SNAPSHOT_SLOW, BUSY, UNAVAILABLE and what Postgres refuses; SpanError when it should be begun anew */
export async function firstSnapshot(stream: Stream, request: FirstSnapshotRequest): Promise<void> {
  const { relay, head, reader, limits, reach, figures } = stream
  const { audience } = request
  const beganMs = performance.now()
  const uses = reach.usesOf(audience)
  const { query } = audience
  const { life } = relay
  await reader.moving()
  if (relay.life !== life) throw new SpanError('WINDOW_PASSED')
  const pins = [relay.pin()]
  /** Keys already sent, with their JSON, so that they can be taken back. */
  const delivered = new Map<string, string>()
  const positions = columnPositions(query.table.columns.length, query.columns)
  let pending = new Map<string, Row>()
  let first: FencedRows | null = null
  let after: readonly (string | null)[] | null = null
  let fence = 0n
  let isBegun = false
  const moved = new MovedRows(stream, audience)
  const abandoned = (): boolean => {
    if (relay.life !== life) throw new SpanError('WINDOW_PASSED')
    if (relay.ringBytes() > limits.ringMaxBytes) throw ringFull()
    return request.cancelled()
  }
  try {
    for (let last = false; !last; ) {
      const { sql, values } = snapshotSql(query, after, limits.snapshotChunkRows)
      const chunk: FencedRows = await readFor(stream, request, { sql, values, pins })
      if (abandoned()) return
      first ??= chunk
      fence = chunk.fence
      last = chunk.rows.length < limits.snapshotChunkRows
      for (const values of chunk.rows) {
        const row = new QueryRow(values, positions)
        pending.set(knownKey(row, query.table.primaryKey)!, row)
      }
      if (delivered.size + pending.size > limits.snapshotMaxRows) throw tooLarge(limits.snapshotMaxRows)
      after = last ? null : query.table.primaryKey.map(column => chunk.rows.at(-1)![positions[column]!] ?? null)
      if (last) break
      await reader.passed(chunk.fence, true)
      while (!head.ready(chunk.fence)) await head.change()
      if (abandoned()) return
      // While memberships move, rows wait for the end: what Postgres showed may be revoked in the stream already.
      const unseen = relay.unseen(first.snapshot, head.lsn)
      if (membershipsBefore(audience, unseen, 0n).sets.size > 0) continue
      const vanished = new Set<string>()
      const touched = foldTable(unseen, query.table, vanished).rows
      const rows = [...pending].filter(([key]) => !touched.has(key) && !vanished.has(key))
      pending = new Map()
      for (const [key, row] of rows) delivered.set(key, keyJson(query.table, row))
      figures.snapshotRows += rows.length
      for (const json of partsOf(rows.map(([, row]) => objectJson(query.table, query.columns, row)))) {
        const text = `{"rows":[${json.join(',')}],"done":false}`
        const room = request.send(new Outgoing('snapshot', text, null, isBegun ? null : 0n))
        isBegun = true
        if (room) continue
        // Its pin holds commits back for as long as it waits: past the ring's bound it gives way, or nobody else is let in.
        const drained = request.drained().then(() => true)
        while (!(await Promise.race([drained, head.change().then(() => false)]))) if (abandoned()) return
      }
    }
    await reader.passed(fence, true)
    // What the time moved for Postgres, it must have moved here.
    while (audience.readsTime && head.nowMicros < first!.nowMicros) await reader.passed(head.passedLsn + 1n)
    for (;;) {
      while (
        !head.ready(fence) ||
        !head.ready(moved.fence) ||
        audience.hold !== null ||
        moved.isWaiting ||
        reach.isPending(uses)
      ) {
        if (abandoned()) return
        await head.change()
      }
      if (abandoned()) return
      const unseen = relay.unseen(first!.snapshot, head.lsn)
      const missing = moved.missing(membershipsBefore(audience, unseen, first!.nowMicros), true)
      if (missing === null) continue
      const rows = missing.length > 0 ? null : atHead(audience, unseen, pending, delivered, moved)
      if (rows !== null && rows.wanted === null) {
        finish(stream, request, rows, isBegun)
        figures.snapshots += 1
        figures.snapshotRows += rows.rows.size
        figures.snapshotTiming.observe((performance.now() - beganMs) / 1000)
        return
      }
      await moved.read(rows?.wanted ? [rows.wanted] : missing)
    }
  } finally {
    for (const pin of pins) pin.release()
    moved.release()
  }
}

/** As the reader of a subscription, in turn with others. @param pins as of `FirstReads.read` @throws SNAPSHOT_SLOW, BUSY, UNAVAILABLE, CLAIM_INVALID */
export function readFor(
  { firstReads }: Stream,
  { audience, reader }: Pick<FirstSnapshotRequest, 'audience' | 'reader'>,
  { sql, values, pins }: { readonly sql: string; readonly values: readonly unknown[]; readonly pins: Pin[] },
): Promise<FencedRows> {
  const { oid, schema, name } = audience.query.table
  const read = { identity: audience, audience: audience.key, reader, sql, values }
  return firstReads.read({ ...read, tableOid: oid, tableName: `${schema}.${name}` }, pins)
}

interface FinalRows {
  readonly rows: ReadonlyMap<string, Row>
  readonly gone: readonly string[]
  /** Rows whose large values must be read first. */
  readonly wanted: ReturnType<MovedRows['missingRows']>
}

/** What remains to be sent for the client to stand at the head. */
function atHead(
  audience: Audience,
  unseen: Parameters<typeof foldTable>[0],
  pending: ReadonlyMap<string, Row>,
  delivered: ReadonlyMap<string, string>,
  moved: MovedRows,
): FinalRows {
  const { query } = audience
  const vanished = new Set<string>()
  const touched = foldTable(unseen, query.table, vanished)
  const rows = new Map(touched.truncated ? [] : pending)
  const gone = new Set<string>(touched.truncated ? delivered.values() : [])
  const partial: Row[] = []
  const moves = moved.atHead()
  const place = (key: string, row: Row | null, base: Row | undefined): void => {
    rows.delete(key)
    if (row !== null && audience.visible(row, audience.now) === true) {
      const filled = withFallback(withFallback(row, base), moves.get(key))
      if (!isWhole(query, filled)) partial.push(filled)
      rows.set(key, filled)
      gone.delete(delivered.get(key) ?? '')
    } else if (delivered.has(key)) gone.add(delivered.get(key)!)
  }
  // A row that came after the first chunk was read and went since: a later chunk may have found it.
  for (const key of vanished) place(key, null, undefined)
  // What was read under a key that another row has taken over, is not this row's.
  for (const { key, new: row, carried } of touched.rows.values()) {
    place(key, row, carried ? undefined : pending.get(key))
  }
  for (const [key, row] of moves) if (!touched.rows.has(key)) place(key, row, pending.get(key))
  return { rows, gone: [...gone], wanted: moved.missingRows(partial) }
}

function finish(stream: Stream, request: FirstSnapshotRequest, { rows, gone }: FinalRows, isBegun: boolean): void {
  const { relay, head } = stream
  const { query } = request.audience
  const position = { epoch: relay.epoch, lsn: head.lsn, index: WHOLE_COMMIT }
  const parts = partsOf([...rows.values()].map(row => objectJson(query.table, query.columns, row)))
  const goneJson = gone.length === 0 ? '' : `,"gone":[${gone.join(',')}]`
  parts.forEach((part, i) => {
    const done = i === parts.length - 1
    const json = `{"rows":[${part.join(',')}]${done ? goneJson : ''},"done":${done}}`
    request.send(new Outgoing('snapshot', json, done ? position : null, isBegun || i > 0 ? null : 0n))
  })
  request.joined()
}

/** Where each of the table's columns stands in a row read; -1 for those not read. */
export function columnPositions(count: number, columns: readonly number[]): number[] {
  const positions = new Array<number>(count).fill(-1)
  columns.forEach((column, i) => {
    positions[column] = i
  })
  return positions
}

const tooLarge = (limit: number): TidegateError =>
  new TidegateError(
    'SNAPSHOT_TOO_LARGE',
    `the query has more than ${limit} rows; filter it, or raise SNAPSHOT_MAX_ROWS`,
  )

export const ringFull = (): TidegateError =>
  new TidegateError('BUSY', 'a transaction that is not visible yet holds too many commits back', { retryAfterMs: 5000 })

export const unsettled = ({ query }: Audience, cause: unknown): TidegateError =>
  new TidegateError(
    'BUSY',
    `what decides about ${query.table.schema}.${query.table.name} changes faster than it can be read`,
    {
      cause,
    },
  )
