// Who is here by user and by connection's name: what orders ask for. A name may have several places: a client that polls has one
// name for all its polls.
import type { Token } from '../orders/order.ts'

type Index<Place> = Map<string, Place | Set<Place>>

export class Roster<Place extends object> {
  /** Entries: at most two for each place. */
  readonly #byUser: Index<Place> = new Map()
  readonly #byName: Index<Place> = new Map()

  add(place: Place, sub: Token['sub'], name: string | null): void {
    if (sub !== null) add(this.#byUser, sub, place)
    if (name !== null) add(this.#byName, name, place)
  }

  remove(place: Place, sub: Token['sub'], name: string | null): void {
    if (sub !== null) remove(this.#byUser, sub, place)
    if (name !== null) remove(this.#byName, name, place)
  }

  get size(): number {
    return this.#byUser.size + this.#byName.size
  }

  ofUser(sub: string): readonly Place[] {
    return listed(this.#byUser.get(sub))
  }

  named(name: string): readonly Place[] {
    return listed(this.#byName.get(name))
  }
}

/** Most have one, and a set of one takes 200 bytes. */
function add<Place extends object>(index: Index<Place>, key: string, place: Place): void {
  const found = index.get(key)
  if (found === undefined) index.set(key, place)
  else if (found instanceof Set) found.add(place)
  else if (found !== place) index.set(key, new Set([found, place]))
}

function remove<Place extends object>(index: Index<Place>, key: string, place: Place): void {
  const found = index.get(key)
  if (found === place) index.delete(key)
  else if (found instanceof Set) {
    found.delete(place)
    if (found.size === 0) index.delete(key)
  }
}

const listed = <Place extends object>(found: Place | Set<Place> | undefined): readonly Place[] =>
  found === undefined ? [] : found instanceof Set ? [...found] : [found]
