// Brings a live query from a position to the head of the stream in one step: the one way in which holds end, clients
// resume and slow ones catch up.
//
// The difference between two positions is found from the rows that the commits between touched (folded to their first old
// and last new version), and from the rows under keys that were granted or revoked meanwhile (read by literal key). Each
// is judged before, with the memberships of the first position, and after, with those of the head.
import type { Row } from '../../predicate/algebra.ts'
import type { MembershipsBefore } from '../authorize/membership-history.ts'
import { judge } from '../authorize/visibility.ts'
import type { Commit } from '../decode/change.ts'
import type { FoldedRow } from '../decode/fold.ts'
import type { Audience } from '../route/audience.ts'
import { lacksValues, type Outcome, OutcomeEncoder, type RowEnds } from '../route/outcome.ts'
import type { Outgoing } from '../route/outgoing.ts'
import { MovedRows, withFallback } from './moved-rows.ts'
import { foldTable, membershipsBefore, nowAt, SpanError } from './span.ts'
import type { Stream } from './stream.ts'

export interface AdvanceRequest {
  readonly audience: Audience
  /** Commit LSN where the query stands. */
  readonly from: bigint
  /** For a hold: the memberships as it kept them. Without it they are undone from the window's commits. */
  readonly held: MembershipsBefore | null
  cancelled(): boolean
}

/** What the step found. `done` runs in the same turn in which the head was looked at: whoever acts on the result in it
 *  stands exactly at the head. */
export type Advanced =
  | { readonly resync: null; readonly outgoing: readonly Outgoing[] }
  | { readonly resync: SpanError['code']; readonly outgoing: null }

export async function advance(
  stream: Stream,
  request: AdvanceRequest,
  done: (result: Advanced) => void,
): Promise<void> {
  const { relay, head, reach } = stream
  const { audience, from, held } = request
  const uses = reach.usesOf(audience)
  const { epoch, life } = relay
  const moved = new MovedRows(stream, audience)
  try {
    for (;;) {
      // Someone who joins a held audience would stand after the hold's start and be sent its delta again.
      while (
        !head.ready(moved.fence) ||
        (held === null && audience.hold !== null) ||
        moved.isWaiting ||
        reach.isPending(uses)
      ) {
        if (request.cancelled()) return
        await head.change()
      }
      if (request.cancelled()) return
      if (relay.life !== life || !relay.covers(from)) throw new SpanError('WINDOW_PASSED')
      const commits = relay.between(from, head.lsn)
      // Rows of a hop that the hold has not seen change, because they came to be held only meanwhile, are undone from the
      // commits.
      const before =
        audience.hops === null && held !== null
          ? held
          : membershipsBefore(audience, commits, held?.nowMicros ?? nowAt(stream.relay, audience, from))
      let missing = moved.missing(before, false)
      if (missing === null) continue
      if (missing.length === 0) {
        const fold = foldTable(commits, audience.query.table)
        const outcomes = difference(audience, fold.rows, fold.truncated, moved, before)
        stream.figures.decisionsCompiled += fold.rows.size
        const partial = outcomes.filter(outcome => lacksValues(audience.query, outcome))
        const rows = moved.missingRows(partial.map(({ row }) => row.new!))
        if (rows === null) {
          const last = commits.at(-1)
          const encoder = new OutcomeEncoder(epoch, { since: from, lsn: head.lsn }, last?.committedAtMicros ?? 0n)
          if (held === null) stream.figures.foldedCommits += foldedOf(commits, audience.query.table.oid)
          done({ resync: null, outgoing: encoder.delta(audience.query, fold.truncated, outcomes) })
          return
        }
        missing = [rows]
      }
      await moved.read(missing)
    }
  } catch (error) {
    if (!(error instanceof SpanError)) throw error
    if (!request.cancelled()) done({ resync: error.code, outgoing: null })
  } finally {
    moved.release()
  }
}

function difference(
  audience: Audience,
  touched: ReadonlyMap<string, FoldedRow>,
  truncated: boolean,
  moved: MovedRows,
  before: MembershipsBefore,
): Outcome[] {
  const was = audience.at(before)
  const outcomes: Outcome[] = []
  const atHead = moved.atHead()
  for (const row of touched.values()) {
    const next = row.new === null ? null : withFallback(row.new, atHead.get(row.key))
    const op = judge(audience.visible, truncated ? null : row.old, next, was, audience.now)
    if (op !== null) outcomes.push({ op, row: { ...row, new: next } })
  }
  for (const [key, row] of atHead) {
    if (touched.has(key)) continue
    const op = judge(audience.visible, truncated ? null : row, row, was, audience.now)
    if (op === 'insert' || op === 'delete') outcomes.push({ op, row: stillRow(key, row) })
  }
  return outcomes
}

/** Of those that changed the table, all but one. */
const foldedOf = (commits: readonly Commit[], oid: number): number =>
  Math.max(0, commits.reduce((count, { relations }) => count + (relations.has(oid) ? 1 : 0), 0) - 1)

/** A row that moved although nobody touched it. */
const stillRow = (key: string, row: Row): RowEnds => ({ key, old: row, new: row, lastIndex: 0, carried: false })
