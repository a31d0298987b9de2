// How far the client of a channel is known to have come, for when it is cut off. Pure.
import type { Stand } from './stands.ts'

type Positions = Stand['positions']

export class Progress {
  /** Null where the client is not known to have had anything. */
  #known: Positions | null = null
  /** Where it will stand once the last ping is answered. */
  #asked: Positions | null = null

  /** Null: there is nothing to go on from. */
  get known(): Positions | null {
    return this.#known
  }

  /** It was here before. */
  cameBack(stood: Positions | null): void {
    this.#known = stood
  }

  /** What it missed is on its way, and no further.
   *  @param positions behind everything that is on its way */
  joined(positions: Positions): void {
    const stood = this.#known
    this.#known = Object.fromEntries(
      Object.entries(positions).map(([name, position]) => [name, stood?.[name] ?? position]),
    )
    this.#asked = null
  }

  /** Its client has come back over another socket, which goes on from here.
   *  @param positions where it stands if it was another after all that is like it; null: it was this one, most likely */
  taken(positions: Positions | null): void {
    this.#known = positions
  }

  /** @param positions behind everything that was sent before this ping */
  pinged(positions: Positions): void {
    // Where one stands nowhere yet, nothing new is known.
    this.#asked = this.after(positions)
  }

  /** It is told to begin anew in these. */
  lose(names: readonly string[]): void {
    this.#known = this.after({}, names)
  }

  /** Where it stands once it has got what was sent.
   *  @param positions behind everything that was sent */
  after(positions: Positions = {}, lost: readonly string[] = []): Positions {
    const all = Object.entries({ ...this.#known, ...positions })
    return Object.fromEntries(all.filter(([name]) => !lost.includes(name)))
  }

  ponged(): void {
    this.#known = this.#asked ?? this.#known
    this.#asked = null
  }
}
