// Tells a client where it stands the moment it has all that it is owed: after it came back, or waited for a transaction. Nothing else may
// come for it, and the next heartbeat is far. Made for who is owed something for the first time.
import type { Position } from '../../protocol/position.ts'
import { haveCaughtUp, type Standing } from './heartbeat-frame.ts'
import type { Membership } from './membership.ts'

/** Whose it is. */
export interface CatchingUp {
  readonly standings: readonly Standing[]
  readonly members: readonly Membership[]
  /** What would be told now would only wait. */
  readonly isFull: boolean
  tellPulse(): void
}

export class CatchUp {
  readonly #of: CatchingUp
  /** Where the stream stood when a query came back, or lagged behind what was waited for. Null: none is owed anything. */
  #owed: Position | null = null
  /** The same of channels, which stand in no stream of commits. */
  #owesChannels = false

  constructor(of: CatchingUp) {
    this.#of = of
  }

  /** @param head where the stream stands */
  cameBack({ channel }: Membership, head: Position): void {
    if (channel === null) this.#owed = head
    else this.#owesChannels = true
  }

  /** Queries lag behind a transaction that was waited for, or still fetch what it did to them. */
  lags(head: Position): void {
    this.#owed = head
    this.#lookSoon(5)
  }

  /** Time has passed. */
  look(): void {
    if (this.#owed !== null) this.#tellIfThere(this.#owed)
    if (this.#owesChannels) this.#tellIfChannelsAreThere()
  }

  /** Between the ticks: who waits for a write of its own waits for some milliseconds then. */
  #lookSoon(afterMs: number): void {
    setTimeout(() => {
      if (this.#owed !== null) this.#tellIfThere(this.#owed)
      if (this.#owed !== null && afterMs < 100) this.#lookSoon(2 * afterMs)
    }, afterMs)
  }

  #tellIfThere(owed: Position): void {
    if (this.#of.isFull || !haveCaughtUp(this.#of.standings, owed)) return
    this.#owed = null
    this.#of.tellPulse()
  }

  #tellIfChannelsAreThere(): void {
    if (this.#of.isFull || this.#of.members.some(member => member.channel !== null && !member.isWhole)) return
    this.#owesChannels = false
    this.#of.tellPulse()
  }
}
