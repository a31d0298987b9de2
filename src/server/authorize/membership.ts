// The membership index: for each bound semi-join in use ("members where user_id is this user"), the keys it reaches, moved
// forward by the same stream of commits as the rows it guards.
//
// A row is judged against the memberships of its own commit: old versions with the index before it, new versions with the
// index after it. So a commit is applied first, keeping what it changed; `before` reads through to that.

import type { Memberships, Row, SemiJoin } from '../../predicate/algebra.ts'
import { compile } from '../../predicate/evaluate.ts'
import { innerKey } from '../../predicate/keys.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Table } from '../catalog/table.ts'
import type { Change } from '../decode/change.ts'
import { Few, type ReadonlyFew } from './few.ts'
import type { Judge } from './visibility.ts'

export interface KeyCount {
  count: number
  /** The key's values as the inner table spells them, to read rows by; null when it joins nothing. */
  values: readonly (string | null)[]
}

/** Which sets hold a key, over all sets of one shape (inner table and joined columns). During a commit it also names
 *  those that held the key before it. */
export class KeyHolders {
  readonly name: string
  readonly #byKey = new Map<string, Few<MembershipSet>>()

  constructor(name: string) {
    this.name = name
  }

  of(key: string): ReadonlyFew<MembershipSet> | undefined {
    return this.#byKey.get(key)
  }

  add(key: string, set: MembershipSet): void {
    let sets = this.#byKey.get(key)
    if (sets === undefined) {
      sets = new Few()
      this.#byKey.set(key, sets)
    }
    sets.add(set)
  }

  remove(key: string, set: MembershipSet): void {
    const sets = this.#byKey.get(key)
    sets?.delete(set)
    if (sets?.size === 0) this.#byKey.delete(key)
  }
}

/** The inner rows of one bound semi-join, counted by key. */
export class MembershipSet {
  /** Bound: `where` holds constants only. */
  readonly join: SemiJoin
  readonly table: Table
  readonly holders: KeyHolders
  readonly keys = new Map<string, KeyCount>()
  /** Inner rows that satisfy `where`, and those among them with a NULL in the key. */
  total = 0
  nulls = 0
  /** Why the set is not exact any more: a row could not be judged, or there are more than `maxRows`. Nothing that reads
   *  it is visible then, and whoever does is told so. */
  failure: unknown = null
  mark = 0
  readonly #maxRows: number
  /** `where` as a function, while it is needed. */
  #where: Judge | null

  /** @param maxRows past it the set counts no further and fails
   *  @throws what cannot be judged exactly */
  constructor(join: SemiJoin, table: Table, holders: KeyHolders, maxRows: number) {
    this.join = join
    this.table = table
    this.holders = holders
    this.#maxRows = maxRows
    this.#where = compile(join.where)
  }

  /** Whether an inner row satisfies `where`. */
  matches(row: Row): boolean {
    try {
      this.#where ??= compile(this.join.where)
      return this.#where(row, noMemberships) === true
    } catch (error) {
      this.failure ??= error
      return false
    }
  }

  /** It stands, and may never be moved: what judges its rows takes 0.7 kB or more, and is made again when it is. */
  rest(): void {
    this.#where = null
  }

  /** Adds (+1) or takes away (-1) an inner row that satisfies `where`. */
  count(row: Row, by: 1 | -1): void {
    if (this.total >= this.#maxRows && by === 1) {
      this.failure ??= membershipTooLarge(this.table, this.#maxRows)
      return
    }
    this.total += by
    const { key, isNull } = innerKey(this.join, row)
    if (isNull) {
      this.nulls += by
      return
    }
    const held = this.keys.get(key)
    if (held === undefined) {
      this.keys.set(key, { count: by, values: this.join.keys.map(pair => row.text(pair.inner.column) ?? null) })
      this.holders.add(key, this)
    } else held.count += by
  }

  /** Forgets keys that nothing holds any more. */
  settle(keys: Iterable<string>): void {
    for (const key of keys) {
      if (this.keys.get(key)?.count === 0) {
        this.keys.delete(key)
        this.holders.remove(key, this)
      }
    }
  }

  clear(): void {
    for (const key of this.keys.keys()) this.holders.remove(key, this)
    this.keys.clear()
    this.total = 0
    this.nulls = 0
  }
}

export const membershipTooLarge = ({ schema, name }: Table, maxRows: number): TidegateError =>
  new TidegateError(
    'MEMBERSHIP_TOO_LARGE',
    `${schema}.${name} has more than ${maxRows} rows that decide for this reader`,
  )

/** A set as it was: the counts of the keys that changed since, and the totals. */
export class SetBefore {
  readonly keys = new Map<string, KeyCount>()
  total: number
  nulls: number

  constructor(total: number, nulls: number) {
    this.total = total
    this.nulls = nulls
  }
}

/** What a commit, or several, changed: the sets as they were before. */
export type MembershipsBefore = Map<MembershipSet, SetBefore>

/** A key that a set gained or lost. */
export interface Flip {
  readonly key: string
  readonly values: readonly (string | null)[]
  readonly granted: boolean
}

/** Resolves the semi-joins of an audience's predicate to its loaded sets. */
export class MembershipView implements Memberships {
  readonly #sets: ReadonlyMap<SemiJoin, MembershipSet>
  readonly #before: MembershipsBefore | null

  /** @param before null for the index as it stands */
  constructor(sets: ReadonlyMap<SemiJoin, MembershipSet>, before: MembershipsBefore | null = null) {
    this.#sets = sets
    this.#before = before
  }

  count(join: SemiJoin, key: string): number {
    const set = this.#setOf(join)
    const was = this.#before?.get(set)?.keys.get(key)
    return was === undefined ? (set.keys.get(key)?.count ?? 0) : was.count
  }

  total(join: SemiJoin): number {
    const set = this.#setOf(join)
    return this.#before?.get(set)?.total ?? set.total
  }

  nulls(join: SemiJoin): number {
    const set = this.#setOf(join)
    return this.#before?.get(set)?.nulls ?? set.nulls
  }

  rows(): Iterable<Row> {
    return []
  }

  get nowMicros(): bigint {
    return 0n
  }

  #setOf(join: SemiJoin): MembershipSet {
    const set = this.#sets.get(join)
    if (set === undefined) throw new Error(`no membership set is loaded for ${join.table.schema}.${join.table.name}`)
    return set
  }
}

/** Remembers how a set was before its first change, then lets the change through. */
export class MembershipWriter {
  readonly before: MembershipsBefore = new Map()
  /** Sets whose table was truncated: what they held cannot be told from the WAL. */
  readonly truncated = new Set<MembershipSet>()
  /** Sets that have failed: they are not moved any further. */
  readonly failed = new Set<MembershipSet>()

  /** Counts one change of the set's table in. */
  apply(set: MembershipSet, change: Change): void {
    if (set.failure === null) this.#apply(set, change)
    if (set.failure !== null) this.failed.add(set)
  }

  #apply(set: MembershipSet, change: Change): void {
    switch (change.kind) {
      case 'insert':
        if (set.matches(change.new)) this.#count(set, change.new, 1)
        return
      case 'update':
        if (set.matches(change.old)) this.#count(set, change.old, -1)
        if (set.matches(change.new)) this.#count(set, change.new, 1)
        return
      case 'delete':
        if (set.matches(change.old)) this.#count(set, change.old, -1)
        return
      case 'truncate': {
        const before = this.#beforeOf(set)
        for (const [key, held] of set.keys) if (!before.keys.has(key)) before.keys.set(key, { ...held })
        this.truncated.add(set)
        for (const held of set.keys.values()) held.count = 0
        set.total = 0
        set.nulls = 0
      }
    }
  }

  /** Ends the commit: forgets keys that went, after which `before` must not be used for lookups by key holders. */
  settle(): void {
    for (const [set, before] of this.before) set.settle(before.keys.keys())
  }

  #count(set: MembershipSet, row: Row, by: 1 | -1): void {
    const before = this.#beforeOf(set)
    const { key, isNull } = innerKey(set.join, row)
    if (!isNull && !before.keys.has(key)) {
      const held = set.keys.get(key)
      before.keys.set(key, {
        count: held?.count ?? 0,
        values: held?.values ?? set.join.keys.map(pair => row.text(pair.inner.column) ?? null),
      })
    }
    set.count(row, by)
  }

  #beforeOf(set: MembershipSet): SetBefore {
    let before = this.before.get(set)
    if (before === undefined) {
      before = new SetBefore(set.total, set.nulls)
      this.before.set(set, before)
    }
    return before
  }
}

/** Keys whose presence differs between then and now. */
export function flipsOf(set: MembershipSet, before: SetBefore): Flip[] {
  const flips: Flip[] = []
  for (const [key, was] of before.keys) {
    const granted = (set.keys.get(key)?.count ?? 0) > 0
    if (was.count > 0 !== granted) flips.push({ key, values: was.values, granted })
  }
  return flips
}

/** True when a change of the set may move rows that no key names: a subquery that does not mention the row, or an IN
 *  whose "not found" turned unknown. */
export function flipsWithoutKey(set: MembershipSet, before: SetBefore): boolean {
  if (set.join.keys.length === 0) return before.total > 0 !== set.total > 0
  if (!set.join.nullAware) return false
  return before.total > 0 !== set.total > 0 || before.nulls > 0 !== set.nulls > 0
}

/** Adds what a later commit changed to what earlier ones did: the first state counts. */
export function mergeBefore(into: MembershipsBefore, later: MembershipsBefore): void {
  for (const [set, before] of later) {
    const held = into.get(set)
    if (held === undefined) {
      const copy = new SetBefore(before.total, before.nulls)
      for (const [key, was] of before.keys) copy.keys.set(key, was)
      into.set(set, copy)
    } else for (const [key, was] of before.keys) if (!held.keys.has(key)) held.keys.set(key, was)
  }
}

/** What changes of its table add to a set, in sum. */
export interface NetChange {
  total: number
  nulls: number
  /** Every key touched, also one whose count is back where it was. */
  readonly keys: Map<string, KeyCount>
}

/** @returns null when a truncation lies between: what it took away cannot be told */
export function netChange(set: MembershipSet, changes: Iterable<Change>): NetChange | null {
  const net: NetChange = { total: 0, nulls: 0, keys: new Map() }
  const count = (row: Row, by: 1 | -1): void => {
    net.total += by
    const { key, isNull } = innerKey(set.join, row)
    if (isNull) net.nulls += by
    else {
      const held = net.keys.get(key)
      if (held !== undefined) held.count += by
      else net.keys.set(key, { count: by, values: set.join.keys.map(pair => row.text(pair.inner.column) ?? null) })
    }
  }
  for (const change of changes) {
    if (change.kind === 'truncate') return null
    if (change.kind !== 'insert' && set.matches(change.old)) count(change.old, -1)
    if (change.kind !== 'delete' && set.matches(change.new)) count(change.new, 1)
  }
  return net
}

/** The sets as they were before these commits, undone from their old rows.
 *  @returns null when a truncation lies between */
export function undo(
  sets: Iterable<MembershipSet>,
  changes: (set: MembershipSet) => Iterable<Change>,
): MembershipsBefore | null {
  const result: MembershipsBefore = new Map()
  for (const set of sets) {
    const net = netChange(set, changes(set))
    if (net === null) return null
    if (net.keys.size === 0 && net.nulls === 0) continue
    const before = new SetBefore(set.total - net.total, set.nulls - net.nulls)
    for (const [key, change] of net.keys) {
      before.keys.set(key, { count: (set.keys.get(key)?.count ?? 0) - change.count, values: change.values })
    }
    result.set(set, before)
  }
  return result
}

const noMemberships: Memberships = {
  count: () => 0,
  total: () => 0,
  nulls: () => 0,
  rows: () => [],
  nowMicros: 0n,
}
