// Whoever comes back: finds where a client stood when its socket broke, also before anybody has noticed that it has.
import type { Progress } from './progress.ts'
import { choose, earliest, type Stand, type Stands } from './stands.ts'

/** A Phoenix socket. */
export interface Suspect {
  /** Where its channels of this owner stood, if its client may be there no more. */
  suspects(owner: string): Iterable<Suspected>
}

export interface Suspected extends Stand {
  readonly progress: Pick<Progress, 'taken'>
}

/** The Phoenix sockets of this node. */
export class Returns {
  readonly #stands: Stands
  readonly #now: () => number
  /** By what their channels are joined as; bounded by the places of connections and the channels of each. */
  readonly #byOwner = new Map<string, Set<Suspect>>()

  /** @param now milliseconds on a steady clock */
  constructor(stands: Stands, now: () => number) {
    this.#stands = stands
    this.#now = now
  }

  add(owner: string, connection: Suspect): void {
    const all = this.#byOwner.get(owner)
    if (all === undefined) this.#byOwner.set(owner, new Set([connection]))
    else all.add(connection)
  }

  remove(owner: string, connection: Suspect): void {
    const all = this.#byOwner.get(owner)
    if (all?.delete(connection) && all.size === 0) this.#byOwner.delete(owner)
  }

  /** @param ref see `Stands.take` @param own its new socket */
  async stoodAt(owner: string, ref: string | null, own: Suspect): Promise<Stand['positions'] | null> {
    const kept = await this.#stands.take(owner, ref)
    if (kept !== null || ref === null) return kept
    const candidates: (Suspected & { readonly heardMs: number })[] = []
    for (const connection of this.#byOwner.get(owner) ?? []) {
      if (connection === own) continue
      for (const stand of connection.suspects(owner))
        candidates.push({ ...stand, heardMs: this.#now() - (stand.silentMs ?? 0) })
    }
    const choice = choose(candidates, ref)
    if (choice === null) return null
    const positions = earliest(choice.alike.map(other => other.positions))
    // As in `taken` of stands.ts.
    for (const other of choice.alike) other.progress.taken(other === choice.own ? null : positions)
    return positions
  }
}
