// The order of a live query: by which columns, which way, and how two of their values compare.
import type { Row, SqlType } from '../../predicate/algebra.ts'
import { type Comparison, comparisonOf } from '../../predicate/compare.ts'
import { baseOf, sqlTypes } from '../../predicate/sql-types.ts'
import type { OrderTerm } from '../../protocol/messages.ts'
import type { Table } from '../catalog/table.ts'

export interface OrderColumn {
  /** Position in the table. */
  readonly column: number
  readonly direction: 'asc' | 'desc'
  readonly nulls: 'first' | 'last'
  /** What the client is told of how its values compare. */
  readonly compare: OrderTerm['compare']
  /** By code points, whatever its collation: a column of the primary key that was added to tell rows apart. */
  readonly byCodePoints: boolean
}

export interface Ordering {
  /** Ends in the primary key, so that no two rows are equal. */
  readonly columns: readonly OrderColumn[]
  /** The first so many rows; null: all. */
  readonly limit: number | null
}

/** How a column's values compare to whoever is told; null where no order of theirs is known here. `server`: the database alone
 *  orders them, by a collation of its own, or a client could not. */
export function compareOf(type: SqlType): OrderTerm['compare'] | null {
  switch (baseOf(type).family) {
    case 'int':
    case 'numeric':
    case 'float':
      return comparisonHere(type) === null ? null : 'number'
    case 'text':
      return comparisonHere(type) === null ? 'server' : 'text'
    case 'bpchar':
      // A client has its values padded, and does not know.
      return 'server'
    case 'uuid':
    case 'bytea':
    case 'time':
      return 'text'
    case 'bool':
      return 'boolean'
    case 'date':
    case 'timestamp':
    case 'timestamptz':
      return 'time'
    case 'enum':
      return 'labels'
    default:
      return orderedByPostgres.has(baseOf(type).oid) ? 'server' : null
  }
}

/** interval, timetz, inet, cidr, macaddr, macaddr8, bit, varbit. */
const orderedByPostgres: ReadonlySet<number> = new Set([1186, 1266, 869, 650, 829, 774, 1560, 1562])

function comparisonHere(type: SqlType): Comparison | null {
  try {
    return comparisonOf('<', type, type)
  } catch {
    return null
  }
}

export function orderTermsOf(table: Table, { columns }: Ordering): OrderTerm[] {
  return columns.map(({ column, direction, nulls, compare }) => {
    const { name, type } = table.columns[column]!
    const labels = compare === 'labels' ? { labels: [...(baseOf(type).labels ?? [])] } : {}
    return { column: name, direction, nulls, compare, ...labels }
  })
}

/** Where rows stand in an order, told by their order values alone. */
export interface RowOrder {
  /** The values of a row in canonical form, so that equal ones are equal texts; null when the row does not say them. */
  valuesOf(row: Row): OrderValues | null
  /** Negative when `a` stands before `b`; 0 for one row only; NaN when that is for the database to say.
   *  @param ranks of values that it has ordered, by the place of their column */
  compare(a: OrderValues, b: OrderValues, ranks: Ranks): number
  /** Places of columns that only the database can order. */
  readonly ranked: readonly number[]
}

export type OrderValues = readonly (string | null)[]
/** By place in the order: equal for values that are equal by the column's collation, less for those that come first. */
export type Ranks = ReadonlyMap<number, ReadonlyMap<string, number>>

interface Term {
  readonly column: number
  readonly toKey: (text: string) => string
  readonly order: ((a: string, b: string) => number) | null
  readonly sign: 1 | -1
  readonly ofNull: 1 | -1
}

/** @throws FILTER_UNSUPPORTED never for columns that `compareOf` knows */
export function rowOrderOf(table: Table, { columns }: Ordering): RowOrder {
  const terms = columns.map(column => termOf(table, column))
  const ranked = terms.flatMap(({ order }, place) => (order === null ? [place] : []))
  return {
    ranked,
    valuesOf: row => {
      const values: (string | null)[] = []
      for (const { column, toKey } of terms) {
        const text = row.text(column)
        if (text === undefined) return null
        values.push(text === null ? null : toKey(text))
      }
      return values
    },
    compare: (a, b, ranks) => {
      for (let place = 0; place < terms.length; place++) {
        const [left, right] = [a[place]!, b[place]!]
        if (left === right) continue
        const { order, sign, ofNull } = terms[place]!
        if (left === null) return ofNull
        if (right === null) return -ofNull
        if (order !== null) return sign * order(left, right)
        const known = ranks.get(place)
        const [rankLeft, rankRight] = [known?.get(left), known?.get(right)]
        if (rankLeft === undefined || rankRight === undefined) return Number.NaN
        if (rankLeft !== rankRight) return sign * (rankLeft - rankRight)
      }
      return 0
    },
  }
}

function termOf(table: Table, { column, direction, nulls, byCodePoints }: OrderColumn): Term {
  const { type } = table.columns[column]!
  const comparison = comparisonHere(byCodePoints ? typeOfTail(type) : type)
  return {
    column,
    toKey: comparison?.left ?? (text => text),
    order: comparison?.order == null ? null : (a, b) => orderOrNaN(comparison.order!, a, b),
    sign: direction === 'desc' ? -1 : 1,
    ofNull: nulls === 'first' ? -1 : 1,
  }
}

/** A label of an enum that was added after the catalog was read has no place yet. */
function orderOrNaN(order: (a: string, b: string) => number, a: string, b: string): number {
  try {
    return order(a, b)
  } catch {
    return Number.NaN
  }
}

/** As what a column is ordered that only tells rows apart; the SQL of it: `orderSql`. */
export function typeOfTail(type: SqlType): SqlType {
  const { family } = baseOf(type)
  if (family === 'bpchar') return { ...sqlTypes.bpchar, collation: 'c' }
  if (family === 'text' || comparisonHere(type)?.order == null) return { ...sqlTypes.text, collation: 'c' }
  return type
}
