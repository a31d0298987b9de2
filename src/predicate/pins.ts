// Where a reader's own rows are found among everybody's: the columns that a hop's condition pins to constants.
import type { Predicate, SemiJoin } from './algebra.ts'
import { and } from './build.ts'
import { splitWhere } from './hops.ts'
import { joinText } from './join-key.ts'
import { cover } from './keys.ts'

/** Inner columns that a bound semi-join's condition fixes to one constant of the reader's each, in order: `m.user_id = <this user>`. Rows
 *  are looked up by them, so that a reader's own are found among everybody's. */
export interface Pins {
  readonly columns: readonly number[]
  /** The constants, as `joinText` of their canonical texts. */
  readonly key: string
  /** As they were written, to read rows by. */
  readonly values: readonly string[]
  /** What is left of the local part. */
  readonly local: Predicate
}

const knownPins = new WeakMap<SemiJoin, Pins>()

/** Types whose constants may be handed to Postgres as they are written here. */
const pinnable: ReadonlySet<string> = new Set(['int', 'text', 'uuid', 'enum', 'bool'])

export function pinsOf(join: SemiJoin): Pins {
  let pins = knownPins.get(join)
  if (pins === undefined) {
    const { local } = splitWhere(join)
    const conjuncts = local.kind === 'and' ? local.args : [local]
    const found = new Map<number, { key: string; value: string }>()
    const left = conjuncts.filter(conjunct => {
      const pin = pinOf(conjunct)
      if (pin === null || found.has(pin.column)) return true
      found.set(pin.column, pin)
      return false
    })
    const columns = [...found.keys()].sort((a, b) => a - b)
    pins = {
      columns,
      key: columns.length === 0 ? '' : joinText(columns.map(column => found.get(column)!.key)),
      values: columns.map(column => found.get(column)!.value),
      local: and(...left),
    }
    knownPins.set(join, pins)
  }
  return pins
}

function pinOf(predicate: Predicate): { column: number; key: string; value: string } | null {
  if (predicate.kind !== 'compare' || predicate.op !== '=') return null
  const [column, constant] =
    predicate.left.kind === 'column' ? [predicate.left, predicate.right] : [predicate.right, predicate.left]
  if (column.kind !== 'column' || constant.kind !== 'const' || constant.value === null) return null
  // A literal is the same for all readers: it decides what is held.
  if (constant.ofReader === undefined) return null
  if (!pinnable.has(column.type.family)) return null
  const [anchor] = cover(predicate) ?? []
  const key = anchor?.kind === 'const' ? anchor.keys[0] : undefined
  return key === undefined ? null : { column: column.column, key, value: constant.value }
}
