// Finds who could be concerned with a row, by the values of its columns: a change then costs in proportion to those it
// could reach. Items are looked up by the keys of their anchors; an item without anchors is handed every row.
import type { Anchor, Row, SemiJoin, SqlType } from '../../predicate/algebra.ts'
import { keyOf } from '../../predicate/compare.ts'
import { joinText } from '../../predicate/join-key.ts'
import { Few } from '../authorize/few.ts'
import type { Hop, KeyIndex } from '../authorize/hop.ts'
import type { KeyHolders, MembershipSet } from '../authorize/membership.ts'
import type { Finds } from './found.ts'

interface JoinColumns<T extends NonNullable<unknown>> {
  readonly columns: readonly number[]
  readonly holders: KeyHolders
  readonly bySet: Map<MembershipSet, Few<T>>
}

/** From a row to the hop's rows under its key, and from those on. */
interface HopColumns<T extends NonNullable<unknown>> {
  readonly columns: readonly number[]
  readonly index: KeyIndex
  readonly items: RowIndex<T>
}

/** An anchor whose semi-join is answered by a loaded set. */
export type BoundAnchor =
  | Extract<Anchor, { kind: 'const' }>
  | { readonly kind: 'set'; readonly columns: readonly number[]; readonly set: MembershipSet }
  | {
      readonly kind: 'hop'
      readonly columns: readonly number[]
      readonly join: SemiJoin
      readonly hop: Hop
      /** Where to look the hop's row up, as for any row. */
      readonly inner: readonly BoundAnchor[] | null
    }

export class RowIndex<T extends NonNullable<unknown>> {
  readonly #types: readonly SqlType[]
  readonly #byValue = new Map<number, Map<string, Few<T>>>()
  readonly #byJoin = new Map<string, JoinColumns<T>>()
  readonly #byHop = new Map<string, HopColumns<T>>()
  readonly #everyRow = new Set<T>()
  readonly #items = new Set<T>()

  /** @param types of the table's columns, by position */
  constructor(types: readonly SqlType[]) {
    this.#types = types
  }

  get size(): number {
    return this.#items.size
  }

  /** @param anchors null: every row concerns it */
  add(item: T, anchors: readonly BoundAnchor[] | null): void {
    this.#items.add(item)
    if (anchors === null) this.#everyRow.add(item)
    else for (const anchor of anchors) this.#addAnchor(item, anchor)
  }

  /** About how many items a row found by these anchors would concern, this one left out. */
  crowdOf(anchors: readonly BoundAnchor[]): number {
    let crowd = 0
    for (const anchor of anchors) {
      if (anchor.kind === 'hop') crowd += hopCrowd
      else if (anchor.kind === 'set') crowd += holdersOf(anchor.set)
      else {
        const byKey = this.#byValue.get(anchor.column)
        let largest = 0
        for (const key of anchor.keys) largest = Math.max(largest, byKey?.get(key)?.size ?? 0)
        crowd += largest
      }
    }
    return crowd
  }

  remove(item: T, anchors: readonly BoundAnchor[] | null): void {
    this.#items.delete(item)
    if (anchors === null) this.#everyRow.delete(item)
    else for (const anchor of anchors) this.#removeAnchor(item, anchor)
  }

  /** Adds every item: for a truncation, which concerns all. */
  all(found: Finds<T>): void {
    for (const item of this.#items) found.add(item)
  }

  /** Adds to `found` every item that could be concerned with this row version. */
  collect(row: Row, found: Finds<T>): void {
    for (const item of this.#everyRow) found.add(item)
    for (const [column, byKey] of this.#byValue) {
      const text = row.text(column)
      // Unknown: nobody can be ruled out by this column.
      if (text === undefined) for (const items of byKey.values()) addAll(items, found)
      else if (text !== null) {
        const items = byKey.get(keyOf(this.#types[column]!, text))
        if (items !== undefined) addAll(items, found)
      }
    }
    for (const { columns, holders, bySet } of this.#byJoin.values()) {
      const key = this.#keyOf(columns, row)
      if (key === undefined) for (const items of bySet.values()) addAll(items, found)
      else if (key !== null) collectHolders(holders, key, bySet, found)
    }
    for (const { columns, index, items } of this.#byHop.values()) {
      const key = this.#keyOf(columns, row)
      if (key === undefined) items.all(found)
      else if (key !== null) for (const inner of index.byKey.get(key) ?? []) items.collect(inner, found)
    }
  }

  /** Null when one is NULL, undefined when one is unknown. */
  #keyOf(columns: readonly number[], row: Row): string | null | undefined {
    if (columns.length === 1) {
      const text = row.text(columns[0]!)
      return text == null ? text : keyOf(this.#types[columns[0]!]!, text)
    }
    const parts: string[] = []
    let isUnknown = false
    for (const column of columns) {
      const text = row.text(column)
      if (text === null) return null
      if (text === undefined) isUnknown = true
      else parts.push(keyOf(this.#types[column]!, text))
    }
    return isUnknown ? undefined : joinText(parts)
  }

  #addAnchor(item: T, anchor: BoundAnchor): void {
    if (anchor.kind === 'const') {
      const byKey = getOrInsert(this.#byValue, anchor.column, () => new Map<string, Few<T>>())
      for (const key of anchor.keys) getOrInsert(byKey, key, () => new Few<T>()).add(item)
      return
    }
    if (anchor.kind === 'hop') {
      const { columns, hop, join } = anchor
      const index = hop.lookupOf(join).joined
      const types = hop.table.columns.map(({ type }) => type)
      const found = getOrInsert(this.#byHop, hopName(anchor), () => ({ columns, index, items: new RowIndex<T>(types) }))
      found.items.add(item, anchor.inner)
      return
    }
    const join = getOrInsert(this.#byJoin, setName(anchor), () => ({
      columns: anchor.columns,
      holders: anchor.set.holders,
      bySet: new Map<MembershipSet, Few<T>>(),
    }))
    getOrInsert(join.bySet, anchor.set, () => new Few<T>()).add(item)
  }

  #removeAnchor(item: T, anchor: BoundAnchor): void {
    if (anchor.kind === 'const') {
      const byKey = this.#byValue.get(anchor.column)
      for (const key of anchor.keys) {
        const items = byKey?.get(key)
        items?.delete(item)
        if (items?.size === 0) byKey?.delete(key)
      }
      if (byKey?.size === 0) this.#byValue.delete(anchor.column)
      return
    }
    if (anchor.kind === 'hop') {
      const found = this.#byHop.get(hopName(anchor))
      found?.items.remove(item, anchor.inner)
      if (found?.items.size === 0) this.#byHop.delete(hopName(anchor))
      return
    }
    const join = this.#byJoin.get(setName(anchor))
    const items = join?.bySet.get(anchor.set)
    items?.delete(item)
    if (items?.size === 0) join?.bySet.delete(anchor.set)
    if (join?.bySet.size === 0) this.#byJoin.delete(setName(anchor))
  }
}

const setName = ({ columns, set }: Extract<BoundAnchor, { kind: 'set' }>): string =>
  `${columns.join(',')}:${set.holders.name}`

const hopName = ({ columns, hop, join }: Extract<BoundAnchor, { kind: 'hop' }>): string =>
  `${columns.join(',')}:${hop.name}:${join.keys.map(({ inner }) => inner.column).join(',')}`

/** What a hop is taken for: whom it leads to is known only row by row. */
const hopCrowd = 32
const keysLookedAt = 8

/** How many hold one of a set's keys, at most, as far as the first of them tell. */
function holdersOf(set: MembershipSet): number {
  let [looked, most] = [0, 0]
  for (const key of set.keys) {
    most = Math.max(most, set.holders.of(key)?.size ?? 0)
    looked += 1
    if (looked === keysLookedAt) break
  }
  return most
}

/** The smaller side leads: those who hold the key, or those who asked. */
function collectHolders<T extends NonNullable<unknown>>(
  holders: KeyHolders,
  key: string,
  bySet: ReadonlyMap<MembershipSet, Few<T>>,
  found: Finds<T>,
): void {
  const sets = holders.of(key)
  if (sets === undefined) return
  if (sets.size <= bySet.size) {
    for (const set of sets) {
      const items = bySet.get(set)
      if (items !== undefined) addAll(items, found)
    }
  } else {
    for (const [set, items] of bySet) if (sets.has(set)) addAll(items, found)
  }
}

function addAll<T extends NonNullable<unknown>>(items: Few<T>, found: Finds<T>): void {
  const { only } = items
  if (only !== null) found.add(only)
  else for (const item of items) found.add(item)
}

export function getOrInsert<K, V>(map: Map<K, V>, key: K, make: () => V): V {
  let value = map.get(key)
  if (value === undefined) {
    value = make()
    map.set(key, value)
  }
  return value
}
