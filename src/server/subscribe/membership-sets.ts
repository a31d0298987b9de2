// Loads membership sets on demand, at a known position, and lets them go when no audience uses them.
import type { Row, SemiJoin } from '../../predicate/algebra.ts'
import { keyFunctionOf } from '../../predicate/compare.ts'
import { fingerprint } from '../../predicate/fingerprint.ts'
import { keyComparisonsOf } from '../../predicate/join-key.ts'
import { coverToRead } from '../../predicate/keys.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { membershipTooLarge, type SetLimits } from '../authorize/inner-set.ts'
import { KeyHolders, MembershipSet } from '../authorize/membership.ts'
import { shapeOf, type Table } from '../catalog/table.ts'
import { type BoundAnchor, getOrInsert } from '../route/row-index.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import { failureOf, matchOf, tableChanged } from './inner-reads.ts'
import type { Reach } from './reach.ts'
import { changesOf, SpanError } from './span.ts'
import type { Stream } from './stream.ts'

interface Held {
  readonly set: MembershipSet
  readonly anchors: readonly BoundAnchor[] | null
  readonly loaded: Promise<void>
  isLoaded: boolean
  users: number
}

export class MembershipSets {
  readonly #stream: Stream
  readonly #reach: Reach
  /** One per distinct bound semi-join in use: bounded by the audiences, which are bounded by the connections. */
  readonly #held = new Map<string, Held>()
  readonly #holders = new Map<string, KeyHolders>()
  readonly #limits: SetLimits

  constructor(stream: Stream, reach: Reach) {
    this.#stream = stream
    this.#limits = { maxRows: stream.limits.membershipMaxRows, index: stream.indexSize }
    this.#reach = reach
  }

  get size(): number {
    return this.#held.size
  }

  /** The loaded set of a bound semi-join. Release it when done.
   *  @throws IDENTITY_INSUFFICIENT, INDEX_NOT_READABLE, MEMBERSHIP_TOO_LARGE, UNAVAILABLE */
  async acquire(join: SemiJoin, table: Table): Promise<MembershipSet> {
    const name = setName(join, table)
    let held = this.#held.get(name)
    if (held === undefined) {
      const set = new MembershipSet(join, table, this.#holdersOf(join), this.#limits)
      const anchors = coverToRead(join.where) as readonly BoundAnchor[] | null
      held = { set, anchors, loaded: this.#load(set, anchors), isLoaded: false, users: 0 }
      this.#held.set(name, held)
      // A failed load is tried anew by the next subscriber.
      const loading = held
      loading.loaded.then(
        () => {
          loading.isLoaded = true
        },
        () => {
          if (this.#held.get(name) === loading) this.#held.delete(name)
        },
      )
    }
    held.users += 1
    try {
      await held.loaded
    } catch (error) {
      held.users -= 1
      throw error
    }
    return held.set
  }

  /** The same at once, if somebody else has it loaded; else null. */
  acquireLoaded(join: SemiJoin, table: Table): MembershipSet | null {
    const held = this.#held.get(setName(join, table))
    if (held?.isLoaded !== true || held.set.failure !== null) return null
    held.users += 1
    return held.set
  }

  release(set: MembershipSet): void {
    const name = setName(set.join, set.table)
    const held = this.#held.get(name)
    if (held?.set !== set) return
    held.users -= 1
    if (held.users > 0) return
    this.#held.delete(name)
    this.#drop(held)
  }

  /** Forgets a set that has failed: the next who asks loads it anew. Its audiences must be ended too. */
  forgetFailed(set: MembershipSet): void {
    const name = setName(set.join, set.table)
    const held = this.#held.get(name)
    if (held?.set !== set) return
    this.#held.delete(name)
    this.#drop(held)
  }

  /** Forgets the sets of a table (or all): what they hold is no longer true. Their audiences must be retired too. */
  forget(oid?: number): void {
    for (const [name, held] of this.#held) {
      if (oid !== undefined && held.set.table.oid !== oid) continue
      this.#held.delete(name)
      this.#drop(held)
    }
  }

  #drop(held: Held): void {
    this.#reach.unlinkFrom(held.set)
    this.#stream.router.removeSet(held.set, held.anchors)
    held.set.clear()
  }

  async #load(set: MembershipSet, anchors: readonly BoundAnchor[] | null): Promise<void> {
    const { relay, head, reader, sharedReads, router, limits } = this.#stream
    await reader.moving()
    const pin = relay.pin()
    try {
      const { life } = relay
      const { rows, snapshot, fence } = await sharedReads.asLogin(
        set.table,
        matchOf(set.table, anchors),
        limits.membershipMaxRows + 1,
      )
      if (rows.length > limits.membershipMaxRows) throw membershipTooLarge(set.table, limits.membershipMaxRows)
      await reader.passed(fence, true)
      while (!head.ready(fence)) await head.change()
      if (relay.life !== life) throw new TidegateError('UNAVAILABLE', 'the window began anew', { retryAfterMs: 500 })
      for (const values of rows) count(set, new QueryRow(values), 1)
      assertExact(set)
      for (const change of changesOf(relay.unseen(snapshot, head.lsn), set.table)) {
        if (change.kind === 'truncate') set.clear()
        if (change.kind === 'update' || change.kind === 'delete') count(set, change.old, -1)
        if (change.kind === 'update' || change.kind === 'insert') count(set, change.new, 1)
      }
      assertExact(set)
      set.settle([...set.entries()].map(([key]) => key))
      // Forgotten while it was loaded, or read of a table whose columns have changed: nobody would ever remove it.
      const route = router.routeOf(set.table.oid)
      if (this.#held.get(setName(set.join, set.table))?.set !== set) throw tableChanged(set.table)
      if (route !== undefined && shapeOf(route.table) !== shapeOf(set.table)) throw tableChanged(set.table)
      router.addSet(set, anchors)
      set.rest()
    } catch (error) {
      // What was counted so far must not be found by its keys.
      set.clear()
      throw error instanceof SpanError ? tableChanged(set.table) : error
    } finally {
      pin.release()
    }
  }

  #holdersOf(join: SemiJoin): KeyHolders {
    const name = `${join.table.oid}(${keyName(join)})`
    return getOrInsert(this.#holders, name, () => new KeyHolders(name))
  }
}

/** Equal for semi-joins that hold the same inner rows under the same keys, whatever row they guard. */
const setName = (join: SemiJoin, table: Table): string =>
  `${shapeOf(table)}(${keyName(join)})${join.nullAware ? '?' : ''} ${fingerprint(join.where)}`

/** The inner columns, and how their values become keys: a date that is compared with timestamps has a timestamp's. */
const keyName = (join: SemiJoin): string =>
  join.keys
    .map(({ inner, outer }, i) =>
      keyComparisonsOf(join)[i]!.left === keyFunctionOf(inner.type)
        ? inner.column
        : `${inner.column}/${outer.type.oid}`,
    )
    .join(',')

function count(set: MembershipSet, row: Row, by: 1 | -1): void {
  try {
    const entry = set.find(row)
    if (entry !== null) set.count(entry, by)
  } catch (error) {
    set.fail(error, [row])
  }
}

function assertExact(set: MembershipSet): void {
  if (set.failure !== null) throw failureOf(set)
}
