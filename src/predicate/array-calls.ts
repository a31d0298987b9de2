// Functions and operators over arrays.
import type { SqlType } from './algebra.ts'
import { itemOf, outerLevel, parseArray } from './array-text.ts'
import { type Calls, type Compute, type ComputeWithNulls, isInt, isText, type Maker, printBool } from './call.ts'
import { comparisonOf } from './compare.ts'
import { baseOf } from './sql-types.ts'

export const arrayCalls: Calls<Compute> = {
  cardinality: ([type]) => (isArray(type) ? text => String(parseArray(text).items.length) : null),
  array_length: ([type, dimension]) => (isArray(type) && isInt(dimension) ? arrayLength : null),
  subscript: ([type, index]) =>
    isArray(type) && isInt(index)
      ? (text, at) => {
          const { lower, items, nested } = outerLevel(text)
          const found = nested ? undefined : items[Number(at) - lower]
          return found === undefined ? null : itemOf(found)
        }
      : null,
  slice: slices((text, from, to) => slice(text, Number(from), Number(to))),
  sliceFrom: slices((text, from) => slice(text, Number(from), null)),
  sliceTo: slices((text, to) => slice(text, null, Number(to))),
  '&&': overlap,
}

export const arrayCallsWithNulls: Calls<ComputeWithNulls> = {
  array_to_string: ([type, separator, nullText]) => {
    const element = type === undefined ? undefined : baseOf(type).element
    // Other elements are printed by their types' settings, or with spaces that are not kept here.
    const prints = element !== undefined && printable.has(baseOf(element).family)
    if (!prints || !isText(separator) || (nullText !== undefined && !isText(nullText))) return null
    return (array, between, forNull) => {
      if (array === null || between == null) return null
      const items = parseArray(array).items.map(item => item ?? forNull ?? null)
      return items.filter(item => item !== null).join(between)
    }
  },
}

const printable: ReadonlySet<string> = new Set(['text', 'int', 'numeric', 'uuid', 'bool', 'enum'])

const isArray = (type: SqlType | undefined): type is SqlType => type?.family === 'array' && type.element !== undefined

/** Containment: a NULL equals nothing, so what holds one is contained in nothing. Nesting is not looked at. */
export function arrayContains(types: readonly SqlType[]): Compute | null {
  const keys = keysOf(types)
  if (keys === null) return null
  return (whole, part) => {
    const held = new Set(parseArray(whole).items.flatMap(item => (item === null ? [] : [keys.left(item)])))
    return printBool(parseArray(part).items.every(item => item !== null && held.has(keys.right(item))))
  }
}

function overlap(types: readonly SqlType[]): Compute | null {
  const keys = keysOf(types)
  if (keys === null) return null
  return (a, b) => {
    const held = new Set(parseArray(a).items.flatMap(item => (item === null ? [] : [keys.left(item)])))
    return printBool(parseArray(b).items.some(item => item !== null && held.has(keys.right(item))))
  }
}

/** How the items of two arrays of one type are equal. */
function keysOf([a, b]: readonly SqlType[]): ReturnType<typeof comparisonOf> | null {
  if (!isArray(a) || !isArray(b)) return null
  const [x, y] = [baseOf(a.element!), baseOf(b.element!)]
  if (x.oid !== y.oid && !(isText(x) && isText(y))) return null
  return comparisonOf('in', a.element!, b.element!)
}

function slices(compute: Compute): Maker<Compute> {
  return ([type, ...bounds]) => (isArray(type) && bounds.length > 0 && bounds.every(isInt) ? compute : null)
}

/** Of the outermost dimension; subscripts begin at 1 afterwards. */
function slice(text: string, from: number | null, to: number | null): string {
  const { lower, items } = outerLevel(text)
  const start = from === null ? 0 : Math.max(from - lower, 0)
  const end = to === null ? items.length : Math.max(to - lower + 1, 0)
  return `{${items.slice(start, end).join(',')}}`
}

function arrayLength(text: string, dimension: string): string | null {
  let level = outerLevel(text)
  for (let at = 1; at < Number(dimension); at++) {
    if (!level.nested) return null
    level = outerLevel(level.items[0]!)
  }
  return Number(dimension) < 1 || level.items.length === 0 ? null : String(level.items.length)
}
