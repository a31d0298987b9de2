// Who was there at the last poll, in a word. A position says nothing of presence: the client brings the word back, and is told the
// list anew when another stands for it now. Pure.
import { createHash } from 'node:crypto'
import type { PresenceEvent } from '../../protocol/messages.ts'

/** @param lists the JSON of the first presence event of each channel, in the order of the URL; null where none was asked for
 *  @returns 16 characters, the same whatever the order of the entries; null when no list is there */
export function hereTagOf(lists: readonly (string | null)[]): string | null {
  if (lists.every(list => list === null)) return null
  const hash = createHash('sha256')
  for (const list of lists) hash.update(list === null ? '-\n' : `${linesOf(JSON.parse(list)).join('\n')}\n`)
  return hash.digest().subarray(0, 12).toString('base64url')
}

function linesOf({ here = [], count }: PresenceEvent): string[] {
  const entries = here.map(({ ref, key, connection, meta }) => JSON.stringify([ref, key, connection, meta]))
  return [...entries.sort(), String(count)]
}
