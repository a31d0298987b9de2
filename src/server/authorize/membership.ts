// Membership sets: for each bound semi-join in use ("members where user_id is this user"), the keys it reaches.
import type { Row, SemiJoin } from '../../predicate/algebra.ts'
import { innerKey } from '../../predicate/keys.ts'
import type { Table } from '../catalog/table.ts'
import { Few, type ReadonlyFew } from './few.ts'
import { type Entry, type EntryCount, InnerSet, type SetLimits } from './inner-set.ts'

/** A key, once for all sets that hold it: a million memberships share its text and its values. */
interface HeldKey {
  readonly key: string
  readonly values: readonly (string | null)[]
  readonly sets: Few<MembershipSet>
}

/** Which sets hold a key, over all sets of one shape (inner table and joined columns). During a commit it also names
 *  those that held the key before it. */
export class KeyHolders {
  readonly name: string
  readonly #byKey = new Map<string, HeldKey>()

  constructor(name: string) {
    this.name = name
  }

  of(key: string): ReadonlyFew<MembershipSet> | undefined {
    return this.#byKey.get(key)?.sets
  }

  valuesOf(key: string): readonly (string | null)[] {
    return this.#byKey.get(key)?.values ?? []
  }

  /** @returns the key's text as all who hold it have it */
  add({ name, values }: Entry, set: MembershipSet): string {
    let held = this.#byKey.get(name)
    if (held === undefined) {
      held = { key: name, values, sets: new Few() }
      this.#byKey.set(name, held)
    }
    held.sets.add(set)
    return held.key
  }

  remove(key: string, set: MembershipSet): void {
    const held = this.#byKey.get(key)
    held?.sets.delete(set)
    if (held?.sets.size === 0) this.#byKey.delete(key)
  }
}

/** The inner rows of one bound semi-join, counted by key. */
export class MembershipSet extends InnerSet {
  /** Bound: `where` holds constants only, and no semi-joins. */
  readonly join: SemiJoin
  readonly holders: KeyHolders
  readonly #keys = new Map<string, number>()

  constructor(join: SemiJoin, table: Table, holders: KeyHolders, limits: SetLimits) {
    super(table, join.where, limits)
    this.join = join
    this.holders = holders
  }

  entryOf(row: Row): Entry {
    const { key, isNull } = innerKey(this.join, row)
    return { name: key, isNull, values: this.join.keys.map(({ inner }) => row.text(inner.column) ?? null) }
  }

  get keys(): Iterable<string> {
    return this.#keys.keys()
  }

  countOf(key: string): number {
    return this.#keys.get(key) ?? 0
  }

  *entries(): Iterable<readonly [string, EntryCount]> {
    for (const [key, count] of this.#keys) yield [key, { count, values: this.holders.valuesOf(key) }]
  }

  protected add(entry: Entry, by: number): void {
    const count = this.#keys.get(entry.name)
    if (count === undefined) this.#keys.set(this.holders.add(entry, this), by)
    else this.#keys.set(entry.name, count + by)
  }

  settle(keys: Iterable<string>): void {
    for (const key of keys) {
      if (this.#keys.get(key) !== 0) continue
      this.#keys.delete(key)
      this.holders.remove(key, this)
    }
  }

  empty(): void {
    for (const key of this.#keys.keys()) this.#keys.set(key, 0)
    this.counted(-this.total)
    this.nulls = 0
  }

  clear(): void {
    for (const key of this.#keys.keys()) this.holders.remove(key, this)
    this.#keys.clear()
    this.counted(-this.total)
    this.nulls = 0
  }
}
