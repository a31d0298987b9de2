// What an audience's predicate sees of the memberships: as they stand, or as they were.
import type { Memberships, Row, SemiJoin } from '../../predicate/algebra.ts'
import { joinText } from '../../predicate/join-key.ts'
import { Hop, type HopRow } from './hop.ts'
import type { InnerSet } from './inner-set.ts'
import type { MembershipsBefore, SetBefore } from './membership-history.ts'

/** The time of the newest commit served. */
export interface Clock {
  readonly nowMicros: bigint
}

/** Resolves the semi-joins of an audience's predicate to the loaded sets. */
export class MembershipView implements Memberships {
  readonly #sets: ReadonlyMap<SemiJoin, InnerSet>
  readonly #clock: Clock
  readonly #before: MembershipsBefore | null

  /** @param before null for the index as it stands; its time is then the clock's */
  constructor(sets: ReadonlyMap<SemiJoin, InnerSet>, clock: Clock, before: MembershipsBefore | null = null) {
    this.#sets = sets
    this.#clock = clock
    this.#before = before
  }

  get nowMicros(): bigint {
    return (this.#before ?? this.#clock).nowMicros
  }

  count(join: SemiJoin, key: string): number {
    const set = this.#setOf(join)
    const was = this.#before?.get(set)?.entries.get(key)
    return was === undefined ? set.countOf(key) : was.count
  }

  total(join: SemiJoin): number {
    const set = this.#setOf(join)
    return this.#before?.get(set)?.total ?? set.total
  }

  nulls(join: SemiJoin): number {
    const set = this.#setOf(join)
    return this.#before?.get(set)?.nulls ?? set.nulls
  }

  rows(join: SemiJoin, key: string | null | undefined): Iterable<Row> {
    const hop = this.#setOf(join)
    if (!(hop instanceof Hop)) throw new Error(`the rows of ${join.table.schema}.${join.table.name} are not held`)
    return hopRows(hop, join, key, this.#before?.get(hop))
  }

  #setOf(join: SemiJoin): InnerSet {
    const set = this.#sets.get(join)
    if (set === undefined) throw new Error(`no membership set is loaded for ${join.table.schema}.${join.table.name}`)
    return set
  }
}

const noRows: readonly HopRow[] = []

/** Rows of a hop that are there now, or were before.
 *  @param key null for those with a NULL in it; undefined for all */
export function hopRows(
  hop: Hop,
  join: SemiJoin,
  key: string | null | undefined,
  before: SetBefore | undefined,
): readonly HopRow[] {
  const held = heldRows(hop, join, key)
  const found: HopRow[] = []
  if (before === undefined) {
    // What a commit took is still found until it is served: those who saw it must be told.
    for (const row of held) if (row.count > 0) found.push(row)
    return found
  }
  for (const row of held) if (row.count > 0 && !before.entries.has(row.name)) found.push(row)
  for (const row of rowsBefore(hop, join, key, before)) found.push(row)
  return found
}

function heldRows(hop: Hop, join: SemiJoin, key: string | null | undefined): Iterable<HopRow> {
  const { joined, pinned, both } = hop.lookupOf(join)
  if (typeof key === 'string') return both.byKey.get(pinned === null ? key : joinText([key, pinned.key])) ?? noRows
  if (pinned === null) return key === undefined ? hop.rows : joined.underNull
  const rows = pinned.index.byKey.get(pinned.key) ?? noRows
  return key === undefined ? rows : [...rows].filter(row => joined.keyOf(row) === null)
}

/** By key, of the rows that a set held before: made once for all rows judged by that state. */
const byKeyBefore = new WeakMap<SetBefore, Map<SemiJoin, { size: number; byKey: Map<string | null, HopRow[]> }>>()

function rowsBefore(hop: Hop, join: SemiJoin, key: string | null | undefined, before: SetBefore): readonly HopRow[] {
  let byJoin = byKeyBefore.get(before)
  if (byJoin === undefined) {
    byJoin = new Map()
    byKeyBefore.set(before, byJoin)
  }
  let known = byJoin.get(join)
  if (known?.size !== before.entries.size) {
    known = { size: before.entries.size, byKey: new Map() }
    const { joined } = hop.lookupOf(join)
    for (const [name, was] of before.entries) {
      const row = hop.rowOf(name, was.values)
      if (was.count <= 0 || !hop.isPinned(join, row)) continue
      const under = joined.keyOf(row)
      const rows = known.byKey.get(under)
      if (rows === undefined) known.byKey.set(under, [row])
      else rows.push(row)
    }
    byJoin.set(join, known)
  }
  return key === undefined ? [...known.byKey.values()].flat() : (known.byKey.get(key) ?? noRows)
}
