// A row of which only the key is known.
import type { Row } from '../../predicate/algebra.ts'
import type { Table } from '../catalog/table.ts'

/** @param key as `knownKey` makes it */
export function keyRow({ primaryKey }: Table, key: string): Row {
  const values = keyValues(key, primaryKey.length)
  return {
    text: column => {
      const place = primaryKey.indexOf(column)
      return place < 0 ? undefined : values[place]
    },
  }
}

/** The texts of a key's columns. */
export function keyValues(key: string, count: number): readonly string[] {
  if (count === 1) return [key]
  const values: string[] = []
  let at = 0
  while (values.length < count) {
    const colon = key.indexOf(':', at)
    const end = colon + 1 + Number(key.slice(at, colon))
    values.push(key.slice(colon + 1, end))
    at = end
  }
  return values
}
