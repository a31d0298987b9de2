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

  /** @param positions behind everything that was sent before this ping */
  pinged(positions: Positions): void {
    this.#asked = positions
  }

  ponged(): void {
    this.#known = this.#asked ?? this.#known
    this.#asked = null
  }
}
