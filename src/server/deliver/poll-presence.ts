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

/** By the client's number of each channel, who was there when it was told last, in a word: `3=<tag>,7=<tag>`. */
export class PollPresence {
  readonly #before: ReadonlyMap<number, string>
  /** Null: it was told more than the list. At most the channels of the poll. */
  readonly #now = new Map<number, string | null>()

  /** @param word what the client brings back; what is not understood in it, is not known */
  constructor(word: string | null) {
    const pairs = [...(word ?? '').matchAll(/(?<=^|,)(\d{1,16})=([\w-]{16})(?=,|$)/g)]
    this.#before = new Map(pairs.map(([, id, tag]) => [Number(id), tag!]))
  }

  /** A presence event of a channel: the first is who is there, those that follow are what changes.
   *  @returns whether the client is to be told */
  tells(id: number, json: string): boolean {
    if (this.#now.has(id)) {
      // The list that it knows then has no word here: it is told anew with the next poll.
      this.#now.set(id, null)
      return true
    }
    const tag = hereTagOf([json])
    this.#now.set(id, tag)
    return tag !== this.#before.get(id)
  }

  /** What the client is to bring back; null when it was told of nobody. */
  get word(): string | null {
    const pairs = [...this.#now].flatMap(([id, tag]) => (tag === null ? [] : [`${id}=${tag}`]))
    return pairs.length === 0 ? null : pairs.join(',')
  }
}
