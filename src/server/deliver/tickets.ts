// A ticket carries a principal in a URL for half a minute: a JWT in a URL would stay in logs for as long as it lives. Types
// only, and what both kinds share: memory-tickets.ts is for one node, redis-tickets.ts for many.
//
// A ticket is used once. An EventSource, though, comes back by itself with the very same URL: refused, it would stop for
// good. So a used ticket is remembered for as long as its token lives, and taken again together with a Last-Event-ID
// that its own stream has issued.
//
// Nothing in a position shows whose stream issued it: its tag is the same for everybody who follows the same query under
// the same policies, and whoever may do that could come in as another reader whose URL stood in a log. Noting each id that a
// stream issues would show it, and would cost a message to Redis for each event, or refuse who comes back before the note
// is there. So every id of such a stream ends in a *proof*, a secret made when the ticket is taken: it stands in no URL,
// nothing has to be noted afterwards, and an id is known for the stream's own the moment it was sent, on every node.
import { createHash, randomBytes } from 'node:crypto'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { GatewayLimits } from './limits.ts'

export interface Ticket {
  readonly ticket: string
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

/** A ticket taken: whose it was, and what the ids of its stream end in. */
export interface Redeemed {
  readonly principal: Principal
  readonly proof: string
}

export interface Tickets {
  /** @param origin the Origin header of the request that asks, null without one. @throws RATE_LIMITED, BUSY, UNAVAILABLE */
  issue(principal: Principal, origin: string | null): Promise<Ticket>
  /** @param origin the Origin header of the request that presents it: another page's is refused; none is a client that
   *  is no browser, or the same-origin GET of one
   *  @param proof of the Last-Event-ID header, with which a used ticket is taken again; null on a WebSocket
   *  @throws TICKET_INVALID, TOKEN_EXPIRED, UNAVAILABLE */
  redeem(ticket: string, origin: string | null, proof: string | null): Promise<Redeemed>
}

export type TicketLimits = Pick<GatewayLimits, 'ticketMs' | 'maxTickets' | 'maxTicketsPerPrincipal'>

export const newTicket = (): string => randomBytes(24).toString('base64url')

/** 22 characters. */
export const newProof = (): string => randomBytes(16).toString('base64url')

/** What is kept of a secret. */
export const digestOf = (secret: string): string => createHash('sha256').update(secret).digest('base64url')

export const ownerOf = (principal: Principal): string => `${principal.role}\n${String(principal.claims.sub ?? '')}`

export const refused = (why: string): TidegateError =>
  new TidegateError('TICKET_INVALID', `the ticket is refused: ${why}; ask POST /v1/tickets for a new one`)

export const refusedOrigin = (origin: string | null): TidegateError =>
  refused(`it was issued to ${origin ?? 'no'} origin`)

export const tokenExpired = (): TidegateError =>
  new TidegateError('TOKEN_EXPIRED', 'the token that this ticket stood for has expired; renew it')

export const tooManyOfOwner = (outstanding: number, ticketMs: number): TidegateError =>
  new TidegateError(
    'RATE_LIMITED',
    `${outstanding} tickets of this token's subject are unused; use them, or wait until they expire`,
    { retryAfterMs: ticketMs },
  )

export const tooMany = ({ maxTickets, ticketMs }: TicketLimits): TidegateError =>
  new TidegateError('BUSY', `${maxTickets} tickets are unused; come back later`, { retryAfterMs: ticketMs })
