// Which rows may have moved although nobody touched them: from what changed in an audience's memberships outwards, hop by
// hop, to values of the guarded table's columns. They name candidates; each is judged before and after by the whole policy.
import type { SemiJoin } from '../../predicate/algebra.ts'
import { semiJoinsOf } from '../../predicate/columns.ts'
import { keyedColumns } from '../../predicate/keys.ts'
import { pinsOf } from '../../predicate/pins.ts'
import { Hop, type HopRow } from '../authorize/hop.ts'
import type { InnerSet } from '../authorize/inner-set.ts'
import { flipsOf, type MembershipsBefore, type SetBefore } from '../authorize/membership-history.ts'
import { hopRows } from '../authorize/membership-view.ts'
import type { Audience } from '../route/audience.ts'
import type { Stream } from './stream.ts'

/** A key of a semi-join that changed hands, or whose row did. */
export interface ChangedKey {
  readonly key: string
  readonly values: readonly (string | null)[]
}

/** Rows of a hop that were reached at the position looked back to, and are not held now. */
export interface MissingPartition {
  readonly hop: Hop
  readonly columns: readonly number[]
  readonly key: string
  readonly values: readonly (string | null)[]
}

export interface ChangedKeys {
  /** By semi-join of the predicate itself; null: something changed that names no rows. */
  readonly byJoin: ReadonlyMap<SemiJoin, readonly ChangedKey[]> | null
  /** Without these the answer is not whole. */
  readonly missing: readonly MissingPartition[]
}

/** Past it a change in a hop that names no rows of the next is one that names none at all. */
const maxUnnamedRows = 10_000

/** @param touched every key that changed, also one that is back where it was */
export function changedKeysOf(
  { times, head }: Stream,
  audience: Audience,
  before: MembershipsBefore,
  touched: boolean,
): ChangedKeys {
  const passed: Passed = (hop, rows) =>
    audience.readsTime ? times.passedBetween(hop, rows, before.nowMicros, head.nowMicros) : []
  const walk = new Walk(audience.sets, before, touched, passed)
  const byJoin = new Map<SemiJoin, readonly ChangedKey[]>()
  let isUnnamed = false
  for (const join of semiJoinsOf(audience.predicate)) {
    const keys = walk.keysOf(join)
    if (keys === null) isUnnamed = true
    else if (keys.length > 0) byJoin.set(join, keys)
  }
  return { byJoin: isUnnamed ? null : byJoin, missing: walk.missing }
}

/** Rows of a hop whose answer the time has changed. */
type Passed = (hop: Hop, rows: Iterable<HopRow>) => readonly HopRow[]

class Walk {
  readonly #sets: ReadonlyMap<SemiJoin, InnerSet>
  readonly #before: MembershipsBefore
  readonly #touched: boolean
  readonly #passed: Passed
  readonly missing: MissingPartition[] = []

  constructor(sets: ReadonlyMap<SemiJoin, InnerSet>, before: MembershipsBefore, touched: boolean, passed: Passed) {
    this.#sets = sets
    this.#before = before
    this.#touched = touched
    this.#passed = passed
  }

  /** Null when what changed names no key. */
  keysOf(join: SemiJoin): readonly ChangedKey[] | null {
    const set = this.#sets.get(join)!
    const was = this.#before.get(set)
    if (!(set instanceof Hop)) {
      if (was === undefined) return []
      if (flipsWithoutKey(join, set, was)) return null
      return this.#changedOf(set, was).map(({ name, values }) => ({ key: name, values }))
    }
    const rows = this.#rowsOf(join, set, was)
    if (rows === null) return null
    if (rows.size === 0) return []
    // Whether a NULL matters, depends on all rows at once.
    if (join.nullAware || join.keys.length === 0) return null
    const keys = new Map<string, ChangedKey>()
    const { joined } = set.lookupOf(join)
    for (const row of rows) {
      const key = joined.keyOf(row)
      if (key !== null) keys.set(key, { key, values: join.keys.map(({ inner }) => row.text(inner.column) ?? null) })
    }
    return [...keys.values()]
  }

  #changedOf(set: InnerSet, was: SetBefore): { name: string; values: readonly (string | null)[] }[] {
    return this.#touched ? [...was.entries].map(([name, { values }]) => ({ name, values })) : flipsOf(set, was)
  }

  /** Rows of a hop that changed, or are judged by what changed. */
  #rowsOf(join: SemiJoin, hop: Hop, was: SetBefore | undefined): ReadonlySet<HopRow> | null {
    const rows = new Set<HopRow>()
    for (const { name, values } of was === undefined ? [] : this.#changedOf(hop, was)) {
      const row = hop.rowOf(name, values)
      if (hop.isPinned(join, row)) rows.add(row)
    }
    for (const row of this.#passed(hop, hopRows(hop, join, undefined, undefined)))
      if (hop.isPinned(join, row)) rows.add(row)
    for (const nested of semiJoinsOf(join.where)) {
      const keys = this.keysOf(nested)
      const columns = keyedColumns(nested)
      if (keys !== null && keys.length === 0) continue
      if (keys === null || columns === null) {
        const all = hopRows(hop, join, undefined, undefined)
        if (all.length > maxUnnamedRows) return null
        for (const row of all) rows.add(row)
        continue
      }
      const index = hop.indexOfColumns(columns)
      for (const { key, values } of keys) {
        this.#need(join, hop, columns, key, values)
        for (const row of index.byKey.get(key) ?? []) if (hop.isPinned(join, row)) rows.add(row)
      }
    }
    return rows
  }

  /** A hop with all its rows, or a reader's own, has what there is. */
  #need(join: SemiJoin, hop: Hop, columns: readonly number[], key: string, values: readonly (string | null)[]): void {
    const { columns: pinned, key: pinnedKey } = pinsOf(join)
    const whole = hop.partitionOf(pinned, pinnedKey)
    if (whole?.isLoaded === true || hop.partitionOf(columns, key)?.isLoaded === true) return
    if (pinned.length > 0) return
    this.missing.push({ hop, columns, key, values })
  }
}

/** True when a change of the set may move rows that no key names: a subquery that does not mention the row, or an IN
 *  whose "not found" turned unknown. */
function flipsWithoutKey(join: SemiJoin, set: InnerSet, before: SetBefore): boolean {
  if (join.keys.length === 0) return before.total > 0 !== set.total > 0
  if (!join.nullAware) return false
  return before.total > 0 !== set.total > 0 || before.nulls > 0 !== set.nulls > 0
}

/** Columns of the guarded row that the semi-join compares; null when it compares something computed. */
export function outerColumns(join: SemiJoin): number[] | null {
  if (join.keys.length === 0) return null
  const columns: number[] = []
  for (const { outer } of join.keys) {
    if (outer.kind !== 'column') return null
    columns.push(outer.column)
  }
  return columns
}
