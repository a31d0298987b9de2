// A query as its subscribers share it: table, filter, projection. Subscribers of one query receive the same bytes whenever
// the same rows concern them.
import type { Predicate } from '../../predicate/algebra.ts'
import { fingerprint } from '../../predicate/fingerprint.ts'
import type { Op } from '../authorize/visibility.ts'
import { shapeOf, type Table } from '../catalog/table.ts'
import type { Ordering } from './ordering.ts'

export interface Query {
  /** Its number on this node, the `query` of WebSocket frames. */
  readonly number: number
  /** Equal for equal queries, on every node and after every restart. */
  readonly text: string
  /** `channel`: who may be in a channel. No rows are sent, and none are looked at. */
  readonly kind: 'live' | 'changes' | 'channel'
  readonly table: Table
  readonly filter: Predicate
  /** Columns sent, by position: those asked for and the primary key. */
  readonly columns: readonly number[]
  /** For `changes`: the operations wanted. */
  readonly events: ReadonlySet<Op> | null
  /** Of a live query that was asked for an order or a limit. */
  readonly ordering?: Ordering | null
}

/** Gives equal queries one number. Holds what audiences hold: `release` when the last of them goes. */
export class QueryRegistry {
  readonly #byText = new Map<string, { query: Query; users: number }>()
  #next = 1

  get size(): number {
    return this.#byText.size
  }

  acquire(parts: Omit<Query, 'number' | 'text'>): Query {
    const text = queryText(parts)
    const held = this.#byText.get(text)
    if (held !== undefined) {
      held.users += 1
      return held.query
    }
    const query: Query = { ...parts, number: this.#next, text }
    this.#next += 1
    this.#byText.set(text, { query, users: 1 })
    return query
  }

  release(query: Query): void {
    const held = this.#byText.get(query.text)
    if (held === undefined) return
    held.users -= 1
    if (held.users === 0) this.#byText.delete(query.text)
  }
}

/** Holds the table's shape, also what this query does not show: after a change of any column, positions mean other
 *  columns, and what was kept under the old ones must not be taken for the new. */
function queryText(parts: Omit<Query, 'number' | 'text'>): string {
  const { table, ordering = null } = parts
  return JSON.stringify([
    parts.kind,
    table.oid,
    table.schema,
    table.name,
    shapeOf(table),
    parts.columns,
    fingerprint(parts.filter),
    parts.events === null ? null : [...parts.events].sort(),
    ...(ordering === null ? [] : [ordering]),
  ])
}
