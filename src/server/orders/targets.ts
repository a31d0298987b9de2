// Whom orders reach on a node: types only. The gateway has the connections, the channels their members.
import type { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { Verdict } from './orders-in-force.ts'

export interface OrderedConnection {
  /** Null before its token is verified, and once it is over. */
  readonly principal: Principal | null
  readonly name: string | null
  /** Sends what waits for the client, tells it where it stands and why, and ends. */
  goAway(error: TidegateError): void
  /** Sends nothing more of what can be taken back, tells why, and ends. */
  cutOff(error: TidegateError): void
  /** A newer token must come within this time, or `goAway` follows. Where none can be presented in place, it may end at once. */
  refresh(withinMs: number): void
}

export interface OrderedConnections {
  ofUser(sub: string): Iterable<OrderedConnection>
  named(connection: string): Iterable<OrderedConnection>
  all(): Iterable<OrderedConnection>
}

export interface OrderedChannels {
  /** Ends places in the channels of this topic, private and public: those of this user and on this connection, everybody's where
   *  both are null. */
  kick(
    whom: { readonly sub: string | null; readonly connection: string | null; readonly topic: string },
    error: TidegateError,
  ): void
}

export interface OrderTargets {
  readonly connections: OrderedConnections
  /** Null where there are no channels. */
  readonly channels: OrderedChannels | null
}

/** What is asked at every door. */
export interface TokenOrders {
  /** Waits until the orders in force are known. @throws TOKEN_REVOKED, TOKEN_OUTDATED, UNAVAILABLE */
  admit(principal: Principal): Promise<void>
  /** A look, for one that was admitted: an order may have come since. */
  verdictOn(principal: Principal): Verdict | null
}

export const noOrders: TokenOrders = { admit: async () => {}, verdictOn: () => null }
