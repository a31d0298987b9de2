// An audience: the subscribers that share a query and everything that decides it (role and relevant claims, bound into the
// predicate). They share every decision; those who stand at the head of the stream also share every frame.
import { createHash } from 'node:crypto'
import type { Predicate, SemiJoin } from '../../predicate/algebra.ts'
import { compile } from '../../predicate/evaluate.ts'
import { fingerprint } from '../../predicate/fingerprint.ts'
import { cover } from '../../predicate/keys.ts'
import { type MembershipSet, type MembershipsBefore, MembershipView } from '../authorize/membership.ts'
import type { Judge } from '../authorize/visibility.ts'
import { shapeOf, type Table } from '../catalog/table.ts'
import type { Batch } from './batch.ts'
import type { Query } from './query.ts'
import type { BoundAnchor } from './row-index.ts'

/** A subscriber that stands at the head of the stream, or with its audience at the start of a hold. */
export interface Member {
  /** Hands on events; it then stands at the batch's position. */
  deliver(batch: Batch): void
}

/** From `since` on, the audience's frames wait: rows that its flipped memberships name are being fetched. */
export interface Hold {
  /** The commit before the one that flipped: where its members stand. */
  readonly since: bigint
  readonly before: MembershipsBefore
}

export class Audience {
  readonly query: Query
  /** Policy and filter, bound to the reader's claims. */
  readonly predicate: Predicate
  readonly visible: Judge
  readonly sets: ReadonlyMap<SemiJoin, MembershipSet>
  readonly anchors: readonly BoundAnchor[] | null
  readonly key: string
  /** Travels in positions: resuming under another tag is a resync. */
  readonly tag: string
  readonly now: MembershipView
  readonly members = new Set<Member>()
  hold: Hold | null = null
  /** Told of the first row that could not be judged; further ones are counted. */
  onFailure: (error: unknown) => void = () => {}

  constructor(query: Query, predicate: Predicate, sets: ReadonlyMap<SemiJoin, MembershipSet>) {
    this.query = query
    this.predicate = predicate
    this.visible = guarded(compile(predicate), [...sets.values()], error => this.onFailure(error))
    this.sets = sets
    this.anchors = boundAnchors(predicate, sets)
    this.key = audienceKey(query, predicate, new Set([...sets.values()].map(set => set.table)))
    this.tag = createHash('sha256').update(this.key).digest('base64url').slice(0, 12)
    this.now = new MembershipView(sets)
  }

  /** The memberships as they were before. */
  at(before: MembershipsBefore): MembershipView {
    return new MembershipView(this.sets, before)
  }
}

/** When a decision fails, the answer is "not visible": a value that Postgres would raise on, or a set that is not exact any
 *  more because one of its rows could not be counted. */
function guarded(judge: Judge, sets: readonly MembershipSet[], onFailure: (error: unknown) => void): Judge {
  return (row, memberships) => {
    try {
      for (const set of sets) if (set.failure !== null) throw set.failure
      return judge(row, memberships)
    } catch (error) {
      onFailure(error)
      return false
    }
  }
}

/** @param memberships the tables of the predicate's semi-joins; their columns are part of what it means */
export function audienceKey(query: Query, predicate: Predicate, memberships: Iterable<Table>): string {
  const shapes = new Set([...memberships].map(shapeOf))
  return `${query.text}|${[...shapes].sort().join(',')}|${fingerprint(predicate)}`
}

function boundAnchors(predicate: Predicate, sets: ReadonlyMap<SemiJoin, MembershipSet>): BoundAnchor[] | null {
  const anchors = cover(predicate)
  if (anchors === null) return null
  return anchors.map(anchor =>
    anchor.kind === 'const' ? anchor : { kind: 'set', column: anchor.column, set: sets.get(anchor.join)! },
  )
}
