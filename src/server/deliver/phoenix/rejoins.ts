// What the channels of a socket left that its client is to join again. Whoever does so over this socket has got all that was sent
// before; if it breaks instead, the client is known to stand where it said last. Pure.
import type { Stand, Stood } from './stands.ts'

/** Of one socket: twice its channels. */
const maxOwners = 200

type Positions = Stand['positions']

const none: readonly string[] = []

export class Rejoins {
  /** At most `maxOwners`; who comes after them is looked for as if it had just come back. */
  #joined: readonly string[] = none
  /** At most `maxOwners`; null: none. */
  #left: Map<string, { readonly positions: Positions; readonly known: Positions }> | null = null

  /** @returns where it stands; null: it begins anew; undefined: it has not been here over this socket */
  join(owner: string): Positions | null | undefined {
    const left = this.#left?.get(owner)
    this.#left?.delete(owner)
    if (left !== undefined) return left.positions
    if (this.#joined.includes(owner)) return null
    if (this.#joined.length < maxOwners) this.#joined = this.#joined.concat(owner)
    return undefined
  }

  /** @param positions where its client stands if it joins again over this socket
   *  @returns false where there is no room */
  leave({ owner, positions: known }: Stood, positions: Positions): boolean {
    this.#left ??= new Map()
    if (this.#left.size >= maxOwners && !this.#left.has(owner)) return false
    this.#left.set(owner, { positions, known })
    return true
  }

  /** The socket broke. @returns what nobody joined again */
  rest(): Stood[] {
    const rest = Array.from(this.#left ?? [], ([owner, { known }]) => ({ owner, positions: known }))
    this.#left = null
    return rest
  }
}
