// Finds who could be concerned with a row, by the values of its columns: a change then costs in proportion to those it
// could reach. Items are looked up by the keys of their anchors; an item without anchors is handed every row.
import type { Anchor, Row, SqlType } from '../../predicate/algebra.ts'
import { keyOf } from '../../predicate/compare.ts'
import { Few } from '../authorize/few.ts'
import type { KeyHolders, MembershipSet } from '../authorize/membership.ts'
import type { Finds } from './found.ts'

interface JoinColumn<T extends NonNullable<unknown>> {
  readonly column: number
  readonly holders: KeyHolders
  readonly bySet: Map<MembershipSet, Few<T>>
}

/** An anchor whose semi-join is answered by a loaded set. */
export type BoundAnchor =
  | Extract<Anchor, { kind: 'const' }>
  | { readonly kind: 'set'; readonly column: number; readonly set: MembershipSet }

export class RowIndex<T extends NonNullable<unknown>> {
  readonly #types: readonly SqlType[]
  readonly #byValue = new Map<number, Map<string, Few<T>>>()
  readonly #byJoin = new Map<string, JoinColumn<T>>()
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
    for (const { column, holders, bySet } of this.#byJoin.values()) {
      const text = row.text(column)
      if (text === undefined) for (const items of bySet.values()) addAll(items, found)
      else if (text !== null) collectHolders(holders, keyOf(this.#types[column]!, text), bySet, found)
    }
  }

  #addAnchor(item: T, anchor: BoundAnchor): void {
    if (anchor.kind === 'const') {
      const byKey = getOrInsert(this.#byValue, anchor.column, () => new Map<string, Few<T>>())
      for (const key of anchor.keys) getOrInsert(byKey, key, () => new Few<T>()).add(item)
      return
    }
    const name = `${anchor.column}:${anchor.set.holders.name}`
    const join = getOrInsert(this.#byJoin, name, () => ({
      column: anchor.column,
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
    const name = `${anchor.column}:${anchor.set.holders.name}`
    const join = this.#byJoin.get(name)
    const items = join?.bySet.get(anchor.set)
    items?.delete(item)
    if (items?.size === 0) join?.bySet.delete(anchor.set)
    if (join?.bySet.size === 0) this.#byJoin.delete(name)
  }
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
