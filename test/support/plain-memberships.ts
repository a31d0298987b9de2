// Memberships as a few arrays of rows: the simple thing that the index of a node must agree with, and enough to judge
// what a policy compiled to.
import type { Memberships, Row, SemiJoin } from '../../src/predicate/algebra.ts'
import { evaluate } from '../../src/predicate/evaluate.ts'
import { isHop, splitWhere } from '../../src/predicate/hops.ts'
import { innerKey } from '../../src/predicate/keys.ts'

/** A row from the text values of its columns, in the table's order. */
export const rowOf = (values: readonly (string | null)[]): Row => ({ text: column => values[column] })

interface Held {
  readonly all: readonly Row[]
  readonly byKey: ReadonlyMap<string, readonly Row[]>
  readonly nulls: readonly Row[]
}

/** @param tables rows by table OID, of every table that a policy reads at any depth. What satisfies a semi-join is
 *    remembered: make another for other rows.
 *  @param nowMicros `now()`; microseconds since 1970
 *  @throws Error when a table is asked for that is not among them, or a hop is counted */
export function plainMemberships(tables: ReadonlyMap<number, readonly Row[]>, nowMicros = 0n): Memberships {
  const known = new Map<SemiJoin, Held>()

  function held(join: SemiJoin): Held {
    let found = known.get(join)
    if (found === undefined) {
      found = hold(join)
      known.set(join, found)
    }
    return found
  }

  function hold(join: SemiJoin): Held {
    const { schema, name, oid } = join.table
    const rows = tables.get(oid)
    if (rows === undefined) throw new Error(`the policy does not say that it reads ${schema}.${name}`)
    const { local } = splitWhere(join)
    const all = rows.filter(row => evaluate(local, row, memberships) === true)
    const byKey = new Map<string, Row[]>()
    const nulls: Row[] = []
    for (const row of all) {
      const { key, isNull } = innerKey(join, row)
      if (isNull) nulls.push(row)
      else byKey.set(key, [...(byKey.get(key) ?? []), row])
    }
    return { all, byKey, nulls }
  }

  const counted = (join: SemiJoin): Held => {
    if (isHop(join)) throw new Error(`${join.table.name} is a hop, whose rows must be judged, not counted`)
    return held(join)
  }

  const memberships: Memberships = {
    count: (join, key) => counted(join).byKey.get(key)?.length ?? 0,
    total: join => counted(join).all.length,
    nulls: join => counted(join).nulls.length,
    rows(join, key) {
      const { all, byKey, nulls } = held(join)
      if (key === undefined) return all
      return key === null ? nulls : (byKey.get(key) ?? [])
    },
    nowMicros,
  }
  return memberships
}
