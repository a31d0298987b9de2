// Replays the window's commits, one by one, to a subscription of changes: each event exactly once, in commit order.
//
// An event is owed if its reader could see it at its commit and still can now. So the memberships are undone to the
// starting position and rolled forward commit by commit, and what is sent must also be visible at the head.
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { type MembershipsBefore, rollForward } from '../authorize/membership-history.ts'
import { judge } from '../authorize/visibility.ts'
import type { Table } from '../catalog/table.ts'
import type { Commit } from '../decode/change.ts'
import type { FoldedRow } from '../decode/fold.ts'
import { microsTo2000 } from '../relay/memory-relay.ts'
import type { Audience } from '../route/audience.ts'
import { rowsOfCommit } from '../route/commit-rows.ts'
import { OutcomeEncoder, ordinalOfEvent } from '../route/outcome.ts'
import type { Outgoing } from '../route/outgoing.ts'
import { sameColumns } from '../route/router.ts'
import { Slice } from '../route/slice.ts'
import { preparedSpooled, prepareSpooled } from '../route/spooled-rows.ts'
import { MovedRows } from './moved-rows.ts'
import { membershipsBefore, membershipsStep, nowAt, SpanError } from './span.ts'
import type { Stream } from './stream.ts'

export interface ReplayRequest {
  readonly audience: Audience
  readonly from: Position
  cancelled(): boolean
  /** Takes an event. @returns false when the client should take what it has first; this event is taken still */
  send(event: Outgoing): boolean
}

/** Where the replay stopped: at the head in this very turn, or at a position because the client is slow. */
export type Replayed = { readonly atHead: true } | { readonly atHead: false; readonly position: Position }

/** @throws SpanError when the window does not reach back far enough, or a truncation hides what the reader could see */
export async function replay(stream: Stream, request: ReplayRequest, done: (result: Replayed) => void): Promise<void> {
  const reached = new MovedRows(stream, request.audience)
  try {
    await replayFrom(stream, request, reached, done)
  } finally {
    reached.release()
  }
}

/** @param reached what was reached within the window and is held only for this replay */
async function replayFrom(
  stream: Stream,
  request: ReplayRequest,
  reached: MovedRows,
  done: (result: Replayed) => void,
): Promise<void> {
  const { relay, head, reach } = stream
  const { audience } = request
  const uses = reach.usesOf(audience)
  const { epoch, life } = relay
  const { table } = audience.query
  const slice = new Slice()
  let { from } = request
  for (;;) {
    while (!head.ready(0n) || reached.isWaiting || reach.isPending(uses)) {
      if (request.cancelled()) return
      await head.change()
    }
    if (request.cancelled()) return
    if (relay.life !== life) throw new SpanError('WINDOW_PASSED')
    const commits = commitsAfter(stream, from)
    const states = new MembershipStates(audience, commits, from.lsn, stream)
    if (audience.hops !== null && !reached.holds(states.first)) continue
    let unprepared: Commit | null = null
    for (const commit of commits) {
      if (commit.spooled && commit.relations.has(table.oid) && preparedSpooled(commit, table) === null) {
        unprepared = commit
        break
      }
      const first = commit.commitLsn === from.lsn ? from.index : 0
      const { index, isFull } = sendCommit(stream, request, commit, first, states.next(commit), slice)
      from = { epoch, lsn: commit.commitLsn, index }
      if (isFull) {
        done({ atHead: false, position: from })
        return
      }
      if (slice.over()) break
    }
    const isAtHead = commits.length === 0 || (from.lsn >= head.lsn && from.index === WHOLE_COMMIT)
    if (unprepared === null && isAtHead) {
      done({ atHead: true })
      return
    }
    if (unprepared !== null) await prepareHere(stream, unprepared, table)
    // Neighbours first: the rest in the next turn of the event loop.
    await slice.next()
  }
}

async function prepareHere({ relay }: Stream, commit: Commit, table: Table): Promise<void> {
  try {
    await prepareSpooled(commit, table)
  } catch (error) {
    // It left the window while it was walked, and its file with it.
    if (relay.at(commit.commitLsn) !== commit) throw new SpanError('WINDOW_PASSED')
    throw error
  }
}

/** The rest of the position's own commit, and all commits after it. */
function commitsAfter({ relay, head }: Stream, from: Position): Commit[] {
  if (!relay.covers(from.lsn)) throw new SpanError('WINDOW_PASSED')
  const commits = relay.between(from.lsn, head.lsn)
  if (from.index === WHOLE_COMMIT) return commits
  const partial = relay.at(from.lsn)
  if (partial === null) throw new SpanError('WINDOW_PASSED')
  return [partial, ...commits]
}

interface Views {
  readonly before: MembershipsBefore
  readonly after: MembershipsBefore
}

/** @returns up to where it came: all of the commit, or less when the client is full or, in a spooled one, the slice over */
function sendCommit(
  stream: Stream,
  request: ReplayRequest,
  commit: Commit,
  first: number,
  views: Views,
  slice: Slice,
): { readonly index: number; readonly isFull: boolean } {
  const { audience } = request
  const { query, visible } = audience
  if (!commit.relations.has(query.table.oid)) return { index: WHOLE_COMMIT, isFull: false }
  for (const relation of commit.layouts)
    if (relation.oid === query.table.oid && !sameColumns(relation, query.table)) throw new SpanError('POLICY_CHANGED')
  const span = { since: request.from.lsn, lsn: commit.commitLsn }
  const encoder = new OutcomeEncoder(stream.relay.epoch, span, commit.committedAtMicros)
  const before = audience.at(views.before)
  const after = audience.at(views.after)
  for (const item of itemsOf(commit, query.table, first)) {
    let event: Outgoing
    if (typeof item === 'number') {
      if (slice.over()) return { index: Math.max(first, item * 2 + 1), isFull: false }
      continue
    }
    if (item === 'truncate') {
      if (first > 0) continue
      event = encoder.changes(query, true, [])[0]!
    } else {
      if (ordinalOfEvent(item) < first) continue
      const op = judge(visible, item.truncated ? null : item.old, item.new, before, after)
      if (op === null || !stillVisible(audience, item, op === 'delete')) continue
      if (query.events !== null && !query.events.has(op)) continue
      event = encoder.change(query, { op, row: item })
    }
    if (!request.send(event)) return { index: event.position!.index, isFull: true }
  }
  return { index: WHOLE_COMMIT, isFull: false }
}

/** @param first the number of the first event wanted, as `ordinalOfEvent` counts */
function itemsOf(commit: Commit, table: Table, first: number): Iterable<FoldedRow | 'truncate' | number> {
  if (!commit.spooled) return rowsOfCommit(commit, table)
  const rows = preparedSpooled(commit, table)!
  if (rows.untold !== null) throw new SpanError(rows.untold === 'unkeyed' ? 'POLICY_CHANGED' : 'WINDOW_PASSED')
  return rows.walk(Math.max(0, Math.floor((first - 1) / 2)))
}

const stillVisible = (audience: Audience, row: FoldedRow, gone: boolean): boolean =>
  audience.visible((gone ? row.old : row.new)!, audience.now) === true

/** The memberships before and after each commit of a span, rolled forward. */
class MembershipStates {
  readonly #audience: Audience
  readonly first: MembershipsBefore
  #state: MembershipsBefore

  /** @param fromLsn the span begins after it */
  constructor(audience: Audience, commits: readonly Commit[], fromLsn: bigint, stream: Stream) {
    this.#audience = audience
    const begins = commits[0]?.commitLsn === fromLsn ? fromLsn - 1n : fromLsn
    this.first = membershipsBefore(audience, commits, nowAt(stream.relay, audience, begins))
    this.#state = this.first
  }

  next(commit: Commit): Views {
    const before = this.#state
    if (before.sets.size === 0 && !this.#audience.readsTime) return { before, after: before }
    const step = membershipsStep(this.#audience, commit)
    const nowMicros = later(commit.committedAtMicros + microsTo2000, before.nowMicros)
    if (step.size === 0 && nowMicros === before.nowMicros) return { before, after: before }
    this.#state = rollForward(before, step, nowMicros)
    return { before, after: this.#state }
  }
}

/** Time at positions does not go back, though two commits' timestamps may. */
export const later = (a: bigint, b: bigint): bigint => (a < b ? b : a)
