// Who is in a channel, as one listener was told: strictly, so that a leave told twice is noticed.
import type { PresenceEvent } from '../../../src/protocol/messages.ts'

export class Mirror {
  /** Connections, by the name of their entry. */
  readonly here = new Map<string, string>()
  #isTold = false

  /** Another connection begins with a list. */
  clear(): void {
    this.here.clear()
    this.#isTold = false
  }

  /** @throws on what cannot follow from what was told */
  take({ here, joined, updated, left, count }: PresenceEvent): void {
    if (here !== undefined) {
      this.here.clear()
      this.#isTold = true
    } else if (!this.#isTold) throw new Error('a change came before the list')
    for (const { ref, connection } of [...(here ?? []), ...(joined ?? [])]) {
      if (this.here.has(ref)) throw new Error(`${ref} joined, and was here already`)
      this.here.set(ref, connection)
    }
    for (const { ref, connection } of updated ?? []) {
      if (!this.here.has(ref)) throw new Error(`${ref} was updated, and was not here`)
      this.here.set(ref, connection)
    }
    for (const { ref } of left ?? []) if (!this.here.delete(ref)) throw new Error(`${ref} left, and was not here`)
    if (count !== this.here.size) throw new Error(`${count} are said to be here, and ${this.here.size} are known`)
  }

  /** Their connections, sorted. */
  get connections(): string[] {
    return [...this.here.values()].sort()
  }
}
