// Who asked for it? From the changes of a commit to the audiences they could concern, and to the membership sets they move.

import type { Row, SqlType } from '../../predicate/algebra.ts'
import { Few, type ReadonlyFew } from '../authorize/few.ts'
import { Hop } from '../authorize/hop.ts'
import type { InnerSet } from '../authorize/inner-set.ts'
import type { MembershipsBefore, MembershipWriter } from '../authorize/membership-history.ts'
import type { Table } from '../catalog/table.ts'
import type { Change, Commit, Relation } from '../decode/change.ts'
import { type FoldedRow, type FoldedRows, RowFold } from '../decode/fold.ts'
import type { Audience } from './audience.ts'
import { type Finds, Found } from './found.ts'
import { type BoundAnchor, getOrInsert, RowIndex } from './row-index.ts'

/** What is followed of one table. */
export interface Route {
  readonly table: Table
  readonly audiences: RowIndex<Audience>
  readonly sets: RowIndex<InnerSet>
  /** Audiences whose predicate reads this table's rows or memberships; for truncations and changes of the table. */
  readonly members: Set<Audience>
}

/** One table's part of a commit. */
export interface Touched {
  readonly route: Route
  readonly fold: FoldedRows
}

export class Router {
  readonly #routes = new Map<number, Route>()
  readonly #bySet = new Map<InnerSet, Few<Audience>>()
  readonly #byHop = new Map<Hop, RowIndex<Audience>>()

  get routes(): ReadonlyMap<number, Route> {
    return this.#routes
  }

  routeOf(oid: number): Route | undefined {
    return this.#routes.get(oid)
  }

  addAudience(audience: Audience): void {
    // What is written to a channel is not judged row by row: it goes to whoever is in it.
    if (audience.query.kind !== 'channel') {
      const route = this.#open(audience.query.table)
      audience.anchors = leastOf(audience.choices, route.audiences)
      route.audiences.add(audience, audience.anchors)
      route.members.add(audience)
    }
    for (const set of audience.sets.values()) getOrInsert(this.#bySet, set, () => new Few<Audience>()).add(audience)
    for (const [hop, anchors] of audience.hops ?? [])
      getOrInsert(this.#byHop, hop, () => new RowIndex(typesOf(hop.table))).add(audience, anchors)
  }

  removeAudience(audience: Audience): void {
    if (audience.query.kind !== 'channel') {
      const route = this.#routes.get(audience.query.table.oid)
      if (route === undefined || !route.members.delete(audience)) return
      route.audiences.remove(audience, audience.anchors)
      this.#close(route)
    }
    for (const set of audience.sets.values()) {
      const audiences = this.#bySet.get(set)
      audiences?.delete(audience)
      if (audiences?.size === 0) this.#bySet.delete(set)
    }
    for (const [hop, anchors] of audience.hops ?? []) {
      const index = this.#byHop.get(hop)
      index?.remove(audience, anchors)
      if (index?.size === 0) this.#byHop.delete(hop)
    }
  }

  addSet(set: InnerSet, anchors: readonly BoundAnchor[] | null): void {
    this.#open(set.table).sets.add(set, anchors)
  }

  removeSet(set: InnerSet, anchors: readonly BoundAnchor[] | null): void {
    const route = this.#routes.get(set.table.oid)
    if (route === undefined) return
    route.sets.remove(set, anchors)
    this.#close(route)
  }

  /** Audiences whose predicate reads this set. */
  audiencesOf(set: InnerSet): ReadonlyFew<Audience> {
    return this.#bySet.get(set) ?? nobody
  }

  /** Adds the audiences that a change of memberships may concern. */
  movedBy(before: MembershipsBefore, found: Finds<Audience>): void {
    for (const [set, was] of before.sets) {
      if (set instanceof Hop) {
        const rows = [...was.entries].map(([name, { values }]) => set.rowOf(name, values))
        this.reaching(set, rows, found)
      } else for (const audience of this.audiencesOf(set)) found.add(audience)
    }
  }

  /** Adds the audiences that reach one of these rows of a hop, or reached it before. */
  reaching(hop: Hop, rows: Iterable<Row>, found: Finds<Audience>): void {
    const index = this.#byHop.get(hop)
    if (index !== undefined) for (const row of rows) index.collect(row, found)
  }

  /** Whether anybody follows one of the commit's tables. */
  concerns(commit: Commit): boolean {
    for (const oid of commit.relations) if (this.#routes.has(oid)) return true
    return false
  }

  /** Tables whose columns in this commit are not those that the catalog told: nothing of them may be judged. */
  changedTables(commit: Commit): ReadonlySet<number> {
    const changed = new Set<number>()
    for (const relation of commit.layouts) {
      const route = this.#routes.get(relation.oid)
      if (route !== undefined && !sameColumns(relation, route.table)) changed.add(relation.oid)
    }
    return changed
  }

  /** Whether the commit changes a table whose rows decide for somebody. */
  movesMemberships(commit: Commit): boolean {
    for (const oid of commit.relations) if ((this.#routes.get(oid)?.sets.size ?? 0) > 0) return true
    return false
  }

  /** Counts one change into the membership sets it concerns. */
  applyMembership(change: Change, writer: MembershipWriter): void {
    const route = this.#routes.get(change.relation.oid)
    if (route === undefined || route.sets.size === 0) return
    const found = new Found<InnerSet>()
    if (change.kind === 'truncate') route.sets.all(found)
    else {
      if (change.kind !== 'insert') route.sets.collect(change.old, found)
      if (change.kind !== 'delete') route.sets.collect(change.new, found)
    }
    for (const set of found.items) writer.apply(set, change)
  }

  /** Folds the commit's changes per row, for tables with audiences. */
  fold(commit: Commit): Touched[] {
    const folds = new Map<Route, RowFold>()
    for (const change of commit.changes()) {
      const route = this.#routes.get(change.relation.oid)
      if (route === undefined || route.audiences.size === 0) continue
      let fold = folds.get(route)
      if (fold === undefined) {
        fold = new RowFold(route.table.primaryKey, route.table.oid)
        folds.set(route, fold)
      }
      fold.add(change)
    }
    return [...folds].map(([route, fold]) => ({ route, fold }))
  }

  /** Audiences that one row, old or new, could concern. */
  collect(route: Route, row: FoldedRow, found: Finds<Audience>): void {
    if (row.old !== null) route.audiences.collect(row.old, found)
    if (row.new !== null) route.audiences.collect(row.new, found)
  }

  #open(table: Table): Route {
    let route = this.#routes.get(table.oid)
    if (route === undefined) {
      const types = typesOf(table)
      route = { table, audiences: new RowIndex(types), sets: new RowIndex(types), members: new Set() }
      this.#routes.set(table.oid, route)
    }
    return route
  }

  #close(route: Route): void {
    if (route.audiences.size === 0 && route.sets.size === 0) this.#routes.delete(route.table.oid)
  }
}

const nobody: ReadonlyFew<Audience> = new Set()

/** Fewer than these are not worth another way of looking up. */
const fewEnough = 16

/** The smaller side: the first way that leads to few, else the one that leads to the fewest. A literal of a policy
 *  (`status = 'open' AND ...`) leads to everybody. */
function leastOf(
  choices: readonly (readonly BoundAnchor[])[],
  index: RowIndex<Audience>,
): readonly BoundAnchor[] | null {
  let least: readonly BoundAnchor[] | null = null
  let leastCrowd = Number.POSITIVE_INFINITY
  for (const anchors of choices) {
    const crowd = index.crowdOf(anchors)
    if (crowd <= fewEnough) return anchors
    if (crowd < leastCrowd) [least, leastCrowd] = [anchors, crowd]
  }
  return least
}

const typesOf = ({ columns }: Table): SqlType[] => columns.map(({ type }) => type)

const verdicts = new WeakMap<Relation, { table: Table; same: boolean }>()

/** Whether a column position means the same in the WAL and in the catalog's table. */
export function sameColumns(relation: Relation, table: Table): boolean {
  const held = verdicts.get(relation)
  if (held?.table === table) return held.same
  const same =
    relation.columns.length === table.columns.length &&
    relation.columns.every(
      (column, i) => column.name === table.columns[i]!.name && column.typeOid === table.columns[i]!.type.oid,
    ) &&
    relation.columns.every((column, i) => column.identity || !table.identity.has(i))
  verdicts.set(relation, { table, same })
  return same
}
