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

const quoted = (item: string): string =>
  item === '' || /[ \t\n\v\f\r{},"\\]/.test(item) || item.toUpperCase() === 'NULL'
    ? `"${item.replace(/["\\]/g, char => `\\${char}`)}"`
    : item

const notArray = (): ValueError => new ValueError('a value is not an array')
