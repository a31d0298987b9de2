// What every transport needs of its surroundings.
import type { ChannelDoor } from '../channels/door.ts'
import type { Figures } from '../figures/figures.ts'
import type { Log } from '../log/log.ts'
import type { TokenOrders } from '../orders/targets.ts'
import type { Principal, Subscriptions } from '../subscribe/subscription.ts'
import type { Departures } from './departures.ts'
import type { GatewayLimits } from './limits.ts'
import type { SupabaseOptions } from './phoenix/api-keys.ts'
import type { Stands } from './phoenix/stands.ts'
import type { Turn } from './send-queue.ts'

export interface Authenticator {
  /** @throws TOKEN_INVALID, TOKEN_EXPIRED, ROLE_REFUSED, CLAIM_INVALID, UNAVAILABLE */
  authenticate(token: string): Promise<Principal>
}

export interface Services {
  readonly subscriptions: Subscriptions
  /** Null: there are none. */
  readonly channels: ChannelDoor | null
  readonly authenticator: Authenticator
  readonly orders: TokenOrders
  readonly limits: GatewayLimits
  readonly supabase: SupabaseOptions
  /** Of all nodes. */
  readonly stands: Stands
  readonly log: Log
  readonly departures: Departures
  readonly turn: Turn
  readonly figures: Figures
  /** Milliseconds on a steady clock: a wall clock that is set would make every peer look silent. */
  readonly now: () => number
  /** Milliseconds since 1970, by which tokens and tickets expire. */
  readonly wallNow: () => number
  /** From 0 to 1: spreads heartbeats and hints, decides no secret. */
  readonly random: () => number
}
