// Holds a subscription's events until its session has told the client that it exists, and drops them once it is gone.
import type { Outgoing, Outlet } from '../subscribe/subscription.ts'

type Held =
  | { readonly kind: 'send'; readonly outgoing: Outgoing }
  | { readonly kind: 'resync'; readonly code: string; readonly reason: string }
  | { readonly kind: 'fail'; readonly error: unknown }

export class GatedOutlet implements Outlet {
  readonly #outlet: Outlet
  readonly #maxChars: number
  #state: 'held' | 'open' | 'closed' = 'held'
  /** Bounded by `maxChars` and one event more: past it the subscription is told to stand still. */
  #held: Held[] = []
  #chars = 0

  constructor(outlet: Outlet, maxChars: number) {
    this.#outlet = outlet
    this.#maxChars = maxChars
  }

  send(outgoing: Outgoing): boolean {
    if (this.#state === 'open') return this.#outlet.send(outgoing)
    if (this.#state === 'closed') return true
    this.#held.push({ kind: 'send', outgoing })
    this.#chars += outgoing.json.length
    return this.#chars <= this.#maxChars
  }

  resync(code: string, reason: string): void {
    if (this.#state === 'open') this.#outlet.resync(code, reason)
    else if (this.#state === 'held') this.#held.push({ kind: 'resync', code, reason })
  }

  fail(error: unknown): void {
    if (this.#state === 'open') this.#outlet.fail(error)
    else if (this.#state === 'held') this.#held.push({ kind: 'fail', error })
  }

  /** Hands over what was held, in order. @returns false when the subscription was told to stand still meanwhile and the
   *  outlet has room: the caller resumes it */
  open(): boolean {
    const wasRefused = this.#chars > this.#maxChars
    const held = this.#held
    this.#held = []
    this.#state = 'open'
    let hasRoom = true
    for (const event of held) {
      if (this.#isClosed()) return true
      if (event.kind === 'send') hasRoom = this.#outlet.send(event.outgoing)
      else if (event.kind === 'resync') this.#outlet.resync(event.code, event.reason)
      else this.#outlet.fail(event.error)
    }
    return !(wasRefused && hasRoom)
  }

  close(): void {
    this.#state = 'closed'
    this.#held = []
  }

  // The outlet may close us while it takes what was held.
  #isClosed(): boolean {
    return this.#state === 'closed'
  }
}
