// What the client says of itself, and each subscription of itself.
import type { TransportName } from './transports/transport.ts'

export interface Refusal {
  /** A stable code of docs/errors.md. */
  readonly code: string
  /** What happened, and what to do about it. */
  readonly message: string
}

/** How the client is connected. `live` and `degraded` hold from the moment on at which every subscription has been taken up: what
 *  commits from then on reaches it. */
export type Status =
  /** Nobody has asked for anything yet. */
  | { readonly name: 'idle' }
  | { readonly name: 'connecting' }
  /** Connected; some subscription waits for its first state, or for what it missed. */
  | { readonly name: 'catching up'; readonly transport: TransportName }
  /** `stale`: the server's own way from the database is stalled; nothing is lost, and rows are as of a moment ago. */
  | { readonly name: 'live'; readonly transport: TransportName; readonly stale: boolean }
  /** Live, over a lesser transport than the first choice, and why. */
  | { readonly name: 'degraded'; readonly transport: TransportName; readonly stale: boolean; readonly reason: Refusal }
  /** Not connected. `retryAt`: the next attempt, in milliseconds since 1970; null while one is on its way. */
  | { readonly name: 'offline'; readonly error: Refusal | null; readonly retryAt: number | null }
  /** Nothing helps but the application or its user. */
  | { readonly name: 'refused'; readonly error: Refusal }
  | { readonly name: 'closed' }

/** How one subscription is doing. `live`: from now on nothing is lost, over whichever transport. `catching up`: connected, and its first state,
 *  or what it missed, is on its way. `refused`: it has ended, see its error; `closed`: the client has. */
export type FeedStatus = 'connecting' | 'catching up' | 'live' | 'offline' | 'refused' | 'closed'

/** Nothing is on its way to it any more: it has all, or has ended. */
export const isLive = (status: FeedStatus): boolean => status === 'live' || status === 'refused' || status === 'closed'
