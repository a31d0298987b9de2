// Replays the window's commits, one by one, to a subscription of changes: each event exactly once, in commit order.
//
// An event is owed if its reader could see it at its commit and still can now. So the memberships are undone to the
// starting position and rolled forward commit by commit, and what is sent must also be visible at the head.
import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { type MembershipsBefore, SetBefore } from '../authorize/membership.ts'
import { judge } from '../authorize/visibility.ts'
import type { Commit } from '../decode/change.ts'
import type { FoldedRow } from '../decode/fold.ts'
import type { Audience } from '../route/audience.ts'
import { rowsOfCommit } from '../route/commit-rows.ts'
import { OutcomeEncoder, ordinalOfEvent } from '../route/outcome.ts'
import type { Outgoing } from '../route/outgoing.ts'
import { sameColumns } from '../route/router.ts'
import { membershipsBefore, membershipsStep, SpanError } from './span.ts'
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

const sliceMs = 10

/** @throws SpanError when the window does not reach back far enough, or a truncation hides what the reader could see */
export async function replay(stream: Stream, request: ReplayRequest, done: (result: Replayed) => void): Promise<void> {
  const { relay, head } = stream
  const { audience } = request
  const { epoch } = relay
  let { from } = request
  for (;;) {
    while (!head.ready(0n)) {
      if (request.cancelled()) return
      await head.change()
    }
    if (request.cancelled()) return
    if (relay.epoch !== epoch) throw new SpanError('WINDOW_PASSED')
    const commits = commitsAfter(stream, from)
    const states = new MembershipStates(audience, commits)
    const sliceEnd = performance.now() + sliceMs
    let stopped: Position | null = null
    for (const commit of commits) {
      const first = commit.commitLsn === from.lsn ? from.index : 0
      const stop = sendCommit(stream, request, commit, first, states.next(commit))
      from = stop ?? { epoch, lsn: commit.commitLsn, index: WHOLE_COMMIT }
      if (stop !== null) {
        stopped = stop
        break
      }
      if (performance.now() > sliceEnd) break
    }
    if (stopped !== null) {
      done({ atHead: false, position: stopped })
      return
    }
    if (from.lsn >= head.lsn || commits.length === 0) {
      done({ atHead: true })
      return
    }
    // Neighbours first: the rest in the next turn of the event loop.
    await new Promise<void>(resolve => setImmediate(resolve))
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

/** @returns where it stopped, or null when the commit is done */
function sendCommit(
  stream: Stream,
  request: ReplayRequest,
  commit: Commit,
  first: number,
  views: Views,
): Position | null {
  const { audience } = request
  const { query, visible } = audience
  if (!commit.relations.has(query.table.oid)) return null
  for (const { relation } of commit.changes())
    if (relation.oid === query.table.oid && !sameColumns(relation, query.table)) throw new SpanError('POLICY_CHANGED')
  const encoder = new OutcomeEncoder(stream.relay.epoch, commit.commitLsn, commit.committedAtMicros)
  const before = audience.at(views.before)
  const after = audience.at(views.after)
  for (const item of rowsOfCommit(commit, query.table)) {
    let event: Outgoing
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
    if (!request.send(event)) return event.position
  }
  return null
}

const stillVisible = (audience: Audience, row: FoldedRow, gone: boolean): boolean =>
  audience.visible((gone ? row.old : row.new)!, audience.now) === true

/** The memberships before and after each commit of a span, rolled forward. */
class MembershipStates {
  readonly #audience: Audience
  #state: MembershipsBefore

  constructor(audience: Audience, commits: readonly Commit[]) {
    this.#audience = audience
    this.#state = membershipsBefore(audience, commits)
  }

  next(commit: Commit): Views {
    const before = this.#state
    if (before.size === 0) return { before, after: before }
    const step = membershipsStep(this.#audience, commit)
    if (step.size === 0) return { before, after: before }
    const after: MembershipsBefore = new Map()
    for (const [set, was] of before) {
      const change = step.get(set)
      if (change === undefined) {
        after.set(set, was)
        continue
      }
      const moved = new SetBefore(was.total + change.total, was.nulls + change.nulls)
      for (const [key, held] of was.keys) {
        moved.keys.set(key, { count: held.count + (change.keys.get(key)?.count ?? 0), values: held.values })
      }
      after.set(set, moved)
    }
    this.#state = after
    return { before, after }
  }
}
