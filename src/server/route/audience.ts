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
import { Members } from './members.ts'
import type { Query } from './query.ts'
import type { BoundAnchor } from './row-index.ts'

/** From `since` on, the audience's frames wait: rows that its flipped memberships name are being fetched. */
export interface Hold {
  /** The commit before the one that flipped: where its members stand. */
  readonly since: bigint
  readonly before: MembershipsBefore
}

export type OnFailure = (error: unknown, query: Query) => void

export class Audience {
  readonly query: Query
  /** Policy and filter, bound to the reader's claims. */
  readonly predicate: Predicate
  readonly sets: ReadonlyMap<SemiJoin, MembershipSet>
  readonly anchors: readonly BoundAnchor[] | null
  readonly key: string
  readonly now: MembershipView
  readonly members = new Members()
  hold: Hold | null = null
  /** Commit LSN up to which its members have been told, where that is ahead of the head: see `Outbox`. */
  toldLsn = 0n
  mark = 0
  readonly #onFailure: OnFailure
  #hasFailed = false
  #visible: Judge | null = null

  /** @param onFailure told of the first row that could not be judged
   *  @throws FILTER_UNSUPPORTED, POLICY_UNSUPPORTED for what cannot be judged exactly */
  constructor(
    query: Query,
    predicate: Predicate,
    sets: ReadonlyMap<SemiJoin, MembershipSet>,
    onFailure: OnFailure = () => {},
  ) {
    this.query = query
    this.predicate = predicate
    this.#onFailure = onFailure
    // Thrown now, made again when a row comes: most readers' own rows are long in coming, and it takes 0.7 kB.
    compile(predicate)
    this.sets = sets
    this.anchors = boundAnchors(predicate, sets)
    this.key = audienceKey(query, predicate, new Set([...sets.values()].map(set => set.table)))
    this.now = new MembershipView(sets)
  }

  /** Travels in positions: resuming under another tag is a resync. */
  get tag(): string {
    return this.key.slice(0, 12)
  }

  /** When a decision fails, the answer is "not visible": a value that Postgres would raise on, or a set that is not exact
   *  any more because one of its rows could not be counted. */
  get visible(): Judge {
    if (this.#visible === null) {
      const [judge, sets] = [compile(this.predicate), [...this.sets.values()]]
      this.#visible = (row, memberships) => {
        try {
          for (const set of sets) if (set.failure !== null) throw set.failure
          return judge(row, memberships)
        } catch (error) {
          if (!this.#hasFailed) this.#onFailure(error, this.query)
          this.#hasFailed = true
          return false
        }
      }
    }
    return this.#visible
  }

  /** The memberships as they were before. */
  at(before: MembershipsBefore): MembershipView {
    return new MembershipView(this.sets, before)
  }
}

/** Equal for audiences that share every decision, on every node and after every restart. A digest: the text is far longer,
 *  and kept for each reader.
 *  @param memberships the tables of the predicate's semi-joins; their columns are part of what it means */
export function audienceKey(query: Query, predicate: Predicate, memberships: Iterable<Table>): string {
  const shapes = new Set([...memberships].map(shapeOf))
  const text = `${query.text}|${[...shapes].sort().join(',')}|${fingerprint(predicate)}`
  return createHash('sha256').update(text).digest('base64url')
}

function boundAnchors(predicate: Predicate, sets: ReadonlyMap<SemiJoin, MembershipSet>): BoundAnchor[] | null {
  const anchors = cover(predicate)
  if (anchors === null) return null
  if (anchors.some(anchor => anchor.kind === 'semiJoin' && anchor.columns.length > 1)) return null
  return anchors.map(anchor =>
    anchor.kind === 'const' ? anchor : { kind: 'set', column: anchor.columns[0]!, set: sets.get(anchor.join)! },
  )
}
