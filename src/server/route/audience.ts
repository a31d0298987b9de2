// An audience: the subscribers that share a query and everything that decides it (role and relevant claims, bound into the
// predicate). They share every decision; those who stand at the head of the stream also share every frame.
import { createHash } from 'node:crypto'
import type { Anchor, Predicate, SemiJoin } from '../../predicate/algebra.ts'
import { compile } from '../../predicate/evaluate.ts'
import { fingerprint } from '../../predicate/fingerprint.ts'
import { readsTime } from '../../predicate/hops.ts'
import { covers, coverToRead } from '../../predicate/keys.ts'
import { Hop } from '../authorize/hop.ts'
import type { InnerSet } from '../authorize/inner-set.ts'
import type { MembershipSet } from '../authorize/membership.ts'
import type { MembershipsBefore } from '../authorize/membership-history.ts'
import { type Clock, MembershipView } from '../authorize/membership-view.ts'
import type { Judge } from '../authorize/visibility.ts'
import { shapeOf, type Table } from '../catalog/table.ts'
import { Members } from './members.ts'
import type { Query } from './query.ts'
import type { BoundAnchor } from './row-index.ts'
import type { Window } from './window.ts'

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
  /** Of its semi-joins at every depth. */
  readonly sets: ReadonlyMap<SemiJoin, InnerSet>
  /** Where it is found in the index: one of `choices`, taken when it is added; null: every row concerns it. */
  anchors: readonly BoundAnchor[] | null = null
  /** Whether `now()` decides. */
  readonly readsTime: boolean
  /** Which rows of a hop concern it; null: it has no hops. */
  readonly hops: ReadonlyMap<Hop, readonly BoundAnchor[] | null> | null
  readonly key: string
  readonly now: MembershipView
  readonly members = new Members()
  /** Of a query with a limit: followed also while nobody stands at the head, so that whoever comes back need not read. */
  readonly window: Window | null
  /** Nobody uses it any more. */
  isClosed = false
  hold: Hold | null = null
  /** Commit LSN up to which its members have been told, where that is ahead of the head: see `Outbox`. */
  toldLsn = 0n
  mark = 0
  readonly #clock: Clock
  readonly #onFailure: OnFailure
  #hasFailed = false
  #visible: Judge | null = null

  /** @param onFailure told of the first row that could not be judged
   *  @throws FILTER_UNSUPPORTED, POLICY_UNSUPPORTED for what cannot be judged exactly */
  constructor(
    query: Query,
    predicate: Predicate,
    sets: ReadonlyMap<SemiJoin, InnerSet>,
    clock: Clock,
    onFailure: OnFailure = () => {},
    window: Window | null = null,
  ) {
    this.query = query
    this.window = window
    this.predicate = predicate
    this.#onFailure = onFailure
    // Thrown now, made again when a row comes: most readers' own rows are long in coming, and it takes 0.7 kB.
    compile(predicate)
    this.sets = sets
    this.key = audienceKey(query, predicate, new Set([...sets.values()].map(set => set.table)))
    this.hops = hopsOf(sets)
    this.readsTime = readsTime(predicate)
    this.#clock = clock
    this.now = new MembershipView(sets, clock)
  }

  /** Whether commits concern it: somebody stands at the head, or its window does. */
  get isFed(): boolean {
    return this.hold === null && (this.members.size > 0 || this.window?.isLoaded === true)
  }

  /** The ways in which a row that concerns it may be looked up. */
  get choices(): readonly (readonly BoundAnchor[])[] {
    return covers(this.predicate).map(anchors => anchors.map(anchor => boundAnchor(anchor, this.sets)))
  }

  /** Travels in positions: resuming under another tag is a resync. */
  get tag(): string {
    return tagOf(this.key)
  }

  /** When a decision fails, the answer is "not visible": a value that Postgres would raise on, or a set that is not exact
   *  any more because one of its rows could not be counted. */
  get visible(): Judge {
    if (this.#visible === null) {
      const [judge, sets] = [compile(this.predicate), [...new Set(this.sets.values())]]
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
    return new MembershipView(this.sets, this.#clock, before)
  }
}

export const tagOf = (key: string): string => key.slice(0, 12)

/** Equal for audiences that share every decision, on every node and after every restart. A digest: the text is far longer,
 *  and kept for each reader.
 *  @param memberships the tables of the predicate's semi-joins; their columns are part of what it means */
export function audienceKey(query: Query, predicate: Predicate, memberships: Iterable<Table>): string {
  const shapes = new Set([...memberships].map(shapeOf))
  const text = `${query.text}|${[...shapes].sort().join(',')}|${fingerprint(predicate)}`
  return createHash('sha256').update(text).digest('base64url')
}

function boundAnchors(predicate: Predicate, sets: ReadonlyMap<SemiJoin, InnerSet>): BoundAnchor[] | null {
  const anchors = coverToRead(predicate)
  if (anchors === null) return null
  return anchors.map(anchor => boundAnchor(anchor, sets))
}

function boundAnchor(anchor: Anchor, sets: ReadonlyMap<SemiJoin, InnerSet>): BoundAnchor {
  if (anchor.kind === 'const') return anchor
  const { join, columns } = anchor
  const set = sets.get(join)!
  if (set instanceof Hop) return { kind: 'hop', columns, join, hop: set, inner: boundAnchors(join.where, sets) }
  return { kind: 'set', columns, set: set as MembershipSet }
}

/** A hop that several semi-joins read concerns the audience by what any of them reaches. */
function hopsOf(sets: ReadonlyMap<SemiJoin, InnerSet>): Map<Hop, BoundAnchor[] | null> | null {
  const hops = new Map<Hop, BoundAnchor[] | null>()
  for (const [join, hop] of sets) {
    if (!(hop instanceof Hop)) continue
    const known = hops.get(hop)
    const anchors = boundAnchors(join.where, sets)
    hops.set(hop, known === null || anchors === null ? null : [...(known ?? []), ...anchors])
  }
  return hops.size === 0 ? null : hops
}
