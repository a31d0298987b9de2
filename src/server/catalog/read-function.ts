// The name of the function through which Tidegate reads a table whose rows its own login would see filtered.
// `track` installs it in the schema `tidegate`; the catalog and the snapshots look for it under the same name.
import { createHash } from 'node:crypto'

/** Postgres cuts identifiers at this many bytes, so two long names could silently become one function. */
const maxIdentifierBytes = 63
const keptBytes = 50

/** @returns the name without its schema, which is `tidegate`: `<schema>.<table>`, shortened with a hash past 63 bytes
 *  @example readFunctionName('public', 'messages') // 'public.messages' */
export function readFunctionName(schema: string, table: string): string {
  const name = `${schema}.${table}`
  const bytes = Buffer.from(name)
  if (bytes.length <= maxIdentifierBytes) return name
  let end = keptBytes
  // A byte 10xxxxxx continues a character: cutting before it would leave half of one.
  while ((bytes[end]! & 0xc0) === 0x80) end--
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 12)
  return `${bytes.toString('utf8', 0, end)}_${hash}`
}
