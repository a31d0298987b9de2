// The index as it was: a row is judged against the memberships of its own commit, old versions by the index before it, new
// ones by the index after it. So a commit is applied first, keeping what it changed; a view of the past reads through to that.
import type { Row } from '../../predicate/algebra.ts'
import type { Change } from '../decode/change.ts'
import type { Entry, EntryCount, InnerSet } from './inner-set.ts'

/** A set as it was: the counts of what changed since, and the totals. */
export class SetBefore {
  readonly entries = new Map<string, EntryCount>()
  total: number
  nulls: number

  constructor(total: number, nulls: number) {
    this.total = total
    this.nulls = nulls
  }
}

/** The sets that changed since, as they were, and the time it was. */
export class MembershipsBefore {
  readonly sets = new Map<InnerSet, SetBefore>()
  /** `now()` at that position. */
  readonly nowMicros: bigint

  constructor(nowMicros: bigint) {
    this.nowMicros = nowMicros
  }

  get(set: InnerSet): SetBefore | undefined {
    return this.sets.get(set)
  }

  /** Adds what a later commit changed: of two states the first counts. */
  merge(later: MembershipsBefore, isWanted: (set: InnerSet) => boolean): void {
    for (const [set, before] of later.sets) {
      if (!isWanted(set)) continue
      let held = this.sets.get(set)
      if (held === undefined) {
        held = new SetBefore(before.total, before.nulls)
        this.sets.set(set, held)
      }
      for (const [name, was] of before.entries) if (!held.entries.has(name)) held.entries.set(name, was)
    }
  }
}

/** Remembers how sets were before their first change, then lets the change through. */
export class MembershipWriter {
  readonly before: MembershipsBefore
  /** Sets whose table was truncated: what they held cannot be told from the WAL. */
  readonly truncated = new Set<InnerSet>()
  /** Sets that have failed, or a part of which has: it is not moved any further. */
  readonly failed = new Set<InnerSet>()

  /** @param nowMicros `now()` before the commit */
  constructor(nowMicros: bigint) {
    this.before = new MembershipsBefore(nowMicros)
  }

  /** Counts one change of the set's table in. */
  apply(set: InnerSet, change: Change): void {
    if (set.failure === null) {
      try {
        this.#apply(set, change)
      } catch (error) {
        set.fail(error, rowsOf(change))
      }
    }
    if (set.hasFailed) this.failed.add(set)
  }

  #apply(set: InnerSet, change: Change): void {
    if (change.kind === 'truncate') {
      const before = this.#beforeOf(set)
      for (const [name, { count, values }] of set.entries())
        if (!before.entries.has(name)) before.entries.set(name, { count, values })
      this.truncated.add(set)
      set.empty()
      return
    }
    for (const [entry, by] of changesOf(set, change)) {
      const before = this.#beforeOf(set)
      if (!entry.isNull && !before.entries.has(entry.name))
        before.entries.set(entry.name, { count: set.countOf(entry.name), values: entry.values })
      set.count(entry, by)
    }
  }

  /** Ends the commit: forgets what went, after which `before` must not be used for lookups by key holders. */
  settle(): void {
    for (const [set, before] of this.before.sets) set.settle(before.entries.keys())
  }

  #beforeOf(set: InnerSet): SetBefore {
    let before = this.before.sets.get(set)
    if (before === undefined) {
      before = new SetBefore(set.total, set.nulls)
      this.before.sets.set(set, before)
    }
    return before
  }
}

/** What one change takes from a set and adds to it. @throws what cannot be judged */
function* changesOf(set: InnerSet, change: Exclude<Change, { kind: 'truncate' }>): Generator<[Entry, 1 | -1]> {
  if (change.kind !== 'insert') {
    const entry = set.find(change.old)
    if (entry !== null) yield [entry, -1]
  }
  if (change.kind !== 'delete') {
    const entry = set.find(change.new)
    if (entry !== null) yield [entry, 1]
  }
}

function rowsOf(change: Change): Row[] {
  if (change.kind === 'truncate') return []
  return [...(change.kind === 'insert' ? [] : [change.old]), ...(change.kind === 'delete' ? [] : [change.new])]
}

/** Something that a set gained or lost. */
export interface Flip {
  readonly name: string
  readonly values: readonly (string | null)[]
  readonly granted: boolean
}

/** What is there now and was not then, or the other way round. */
export function flipsOf(set: InnerSet, before: SetBefore): Flip[] {
  const flips: Flip[] = []
  for (const [name, was] of before.entries) {
    const granted = set.countOf(name) > 0
    if (was.count > 0 !== granted) flips.push({ name, values: was.values, granted })
  }
  return flips
}

/** What changes of its table add to a set, in sum. */
export interface NetChange {
  total: number
  nulls: number
  /** Everything touched, also what is back where it was. */
  readonly entries: Map<string, EntryCount>
}

/** @returns null when it cannot be told: a truncation lies between, or a row that cannot be judged */
export function netChange(set: InnerSet, changes: Iterable<Change>): NetChange | null {
  const net: NetChange = { total: 0, nulls: 0, entries: new Map() }
  for (const change of changes) {
    if (change.kind === 'truncate') return null
    const parts = partsOf(set, change)
    if (parts === null) return null
    for (const [entry, by] of parts) {
      net.total += by
      if (entry.isNull) {
        net.nulls += by
        continue
      }
      const held = net.entries.get(entry.name)
      if (held !== undefined) held.count += by
      else net.entries.set(entry.name, { count: by, values: entry.values })
    }
  }
  return net
}

function partsOf(set: InnerSet, change: Exclude<Change, { kind: 'truncate' }>): [Entry, 1 | -1][] | null {
  try {
    return [...changesOf(set, change)]
  } catch {
    return null
  }
}

/** The sets as they were before these commits, undone from their old rows.
 *  @param nowMicros `now()` then
 *  @returns null as `netChange` */
export function undo(
  sets: Iterable<InnerSet>,
  changes: (set: InnerSet) => Iterable<Change>,
  nowMicros: bigint,
): MembershipsBefore | null {
  const result = new MembershipsBefore(nowMicros)
  for (const set of sets) {
    const net = netChange(set, changes(set))
    if (net === null) return null
    if (net.entries.size === 0 && net.nulls === 0) continue
    const before = new SetBefore(set.total - net.total, set.nulls - net.nulls)
    for (const [name, { count, values }] of net.entries)
      before.entries.set(name, { count: set.countOf(name) - count, values })
    result.sets.set(set, before)
  }
  return result
}

/** The state after changes, told like `state`: by what differs from now. Everything that the changes touch must be in it. */
export function rollForward(
  state: MembershipsBefore,
  step: ReadonlyMap<InnerSet, NetChange>,
  nowMicros: bigint,
): MembershipsBefore {
  const after = new MembershipsBefore(nowMicros)
  for (const [set, was] of state.sets) {
    const change = step.get(set)
    if (change === undefined) {
      after.sets.set(set, was)
      continue
    }
    const moved = new SetBefore(was.total + change.total, was.nulls + change.nulls)
    for (const [name, held] of was.entries)
      moved.entries.set(name, { count: held.count + (change.entries.get(name)?.count ?? 0), values: held.values })
    after.sets.set(set, moved)
  }
  return after
}
