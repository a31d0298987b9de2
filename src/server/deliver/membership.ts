// One subscription as its session or stream holds it: what was joined, where it stands, and whether it waits for room.
import type { QueryPosition } from '../../protocol/position.ts'
import type {
  Outgoing,
  Outlet,
  Principal,
  SubscribeRequest,
  Subscription,
  Subscriptions,
} from '../subscribe/subscription.ts'
import { GatedOutlet } from './gated-outlet.ts'

export class Membership {
  readonly request: SubscribeRequest
  readonly #gate: GatedOutlet
  #subscription: Subscription | null = null
  #isClosed = false
  /** False while the client holds no complete state that it could resume from. */
  #isSettled = false
  #wasRefused = false

  /** @param maxHeldChars bound of what is held before `open` */
  constructor(request: SubscribeRequest, outlet: Outlet, maxHeldChars: number) {
    this.request = request
    this.#gate = new GatedOutlet(
      {
        send: outgoing => this.#sent(outlet, outgoing),
        resync: (code, reason) => {
          if (request.kind === 'live') this.#isSettled = false
          outlet.resync(code, reason)
        },
        fail: error => outlet.fail(error),
      },
      maxHeldChars,
    )
  }

  /** @returns null when it was closed meanwhile. @throws what `Subscriptions.subscribe` throws */
  async join(subscriptions: Subscriptions, principal: Principal): Promise<Subscription | null> {
    if (this.#isClosed) return null
    const subscription = await subscriptions.subscribe(principal, this.request, this.#gate)
    if (this.#isClosed) {
      subscription.close()
      return null
    }
    this.#subscription = subscription
    this.#isSettled = subscription.resumed || subscription.kind === 'changes'
    return subscription
  }

  /** The client knows of the subscription: its events flow. */
  open(): void {
    if (!this.#gate.open()) this.#subscription?.resume()
  }

  /** There is room again. */
  resume(): void {
    if (!this.#wasRefused) return
    this.#wasRefused = false
    this.#subscription?.resume()
  }

  /** Where the client may resume; null while it holds nothing complete. */
  position(): QueryPosition | null {
    if (this.#subscription === null || !this.#isSettled) return null
    return { ...this.#subscription.position(), tag: this.#subscription.tag }
  }

  /** Where the client stands right after an event. */
  positionAfter(outgoing: Outgoing): QueryPosition | null {
    if (this.#subscription === null || outgoing.position === null) return null
    return { ...outgoing.position, tag: this.#subscription.tag }
  }

  get subscription(): Subscription | null {
    return this.#subscription
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#gate.close()
    this.#subscription?.close()
  }

  #sent(outlet: Outlet, outgoing: Outgoing): boolean {
    if (outgoing.position !== null) this.#isSettled = true
    const hasRoom = outlet.send(outgoing)
    if (!hasRoom) this.#wasRefused = true
    return hasRoom
  }
}
