// Postgres's text form of arrays: `{a,"b c",NULL}`, nested, with bounds in front when they do not begin at 1.
import { ValueError } from './value-error.ts'

export interface ArrayText {
  /** Bounds and nesting: two arrays with the same items are equal only if this is equal too. */
  readonly shape: string
  /** Items in storage order, nesting flattened, as `= ANY` sees them. */
  readonly items: readonly (string | null)[]
}

/** @throws ValueError when the text is no array. */
export function parseArray(text: string): ArrayText {
  const equals = text.startsWith('[') ? text.indexOf('=') : -1
  const items: (string | null)[] = []
  let shape = text.slice(0, equals + 1)
  let at = equals + 1
  let depth = 0
  if (text[at] !== '{') throw notArray()
  for (;;) {
    const char = text[at]
    if (char === undefined) throw notArray()
    if (char === '{') {
      depth++
      at++
      shape += '{'
    } else if (char === '}') {
      depth--
      at++
      shape += '}'
      if (depth === 0) break
    } else if (char === ',') {
      at++
    } else if (char === '"') {
      let value = ''
      for (at++; text[at] !== '"'; at++) {
        if (text[at] === '\\') at++
        if (at >= text.length) throw notArray()
        value += text[at]
      }
      at++
      items.push(value)
      shape += 'x'
    } else {
      let value = ''
      let escaped = false
      for (; at < text.length && text[at] !== ',' && text[at] !== '}' && text[at] !== '{'; at++) {
        if (text[at] === '\\') {
          escaped = true
          at++
        }
        value += text[at] ?? ''
      }
      items.push(!escaped && value.toUpperCase() === 'NULL' ? null : value)
      shape += 'x'
    }
  }
  if (at !== text.length) throw notArray()
  return { shape, items }
}

/** A one-dimensional array as Postgres prints it. */
export function printArray(items: readonly (string | null)[]): string {
  return `{${items.map(item => (item === null ? 'NULL' : quoted(item))).join(',')}}`
}

/** One level of an array, its items as they are written: `{{a,b},{c,d}}` has `{a,b}` and `{c,d}`. */
export interface ArrayLevel {
  /** The subscript of the first item. */
  readonly lower: number
  readonly items: readonly string[]
  readonly nested: boolean
}

/** The outermost level. @throws ValueError when the text is no array */
export function outerLevel(text: string): ArrayLevel {
  const equals = text.startsWith('[') ? text.indexOf('=') : -1
  const lower = equals < 0 ? 1 : Number(/^\[(-?\d+):/.exec(text)?.[1] ?? 1)
  const items: string[] = []
  if (text[equals + 1] !== '{') throw notArray()
  let start = equals + 2
  let depth = 1
  for (let at = start; at < text.length; at++) {
    const char = text[at]
    if (char === '\\') at++
    else if (char === '"') {
      for (at++; at < text.length && text[at] !== '"'; at++) if (text[at] === '\\') at++
    } else if (char === '{') depth++
    else if (depth === 1 && (char === ',' || char === '}')) {
      if (at > start || char === ',') items.push(text.slice(start, at))
      start = at + 1
      if (char === '}') return { lower, items, nested: items[0]?.startsWith('{') === true }
    } else if (char === '}') depth--
  }
  throw notArray()
}

/** The value of an item that is no array itself. */
export const itemOf = (written: string): string | null => parseArray(`{${written}}`).items[0]!

/** An array of the same shape, made of each item. */
export function mapArray(text: string, work: (item: string) => string): string {
  const bounds = text.slice(0, text.indexOf('{'))
  const { items, nested } = outerLevel(text)
  const mapped = items.map(item => {
    if (nested) return mapArray(item, work)
    const value = itemOf(item)
    return value === null ? 'NULL' : quoted(work(value))
  })
  return `${bounds}{${mapped.join(',')}}`
}

const quoted = (item: string): string =>
  item === '' || /[ \t\n\v\f\r{},"\\]/.test(item) || item.toUpperCase() === 'NULL'
    ? `"${item.replace(/["\\]/g, char => `\\${char}`)}"`
    : item

const notArray = (): ValueError => new ValueError('a value is not an array')
