// Who sends this request: a Bearer token or a ticket, never a JWT in the URL.
import type { IncomingMessage } from 'node:http'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import { admit, admitPrincipal } from './admit.ts'
import type { Services } from './services.ts'
import { proofOf } from './stream-position.ts'
import type { Redeemed, Tickets } from './tickets.ts'

/** @throws TOKEN_INVALID when the header is there and is no Bearer token */
export function bearerOf(request: IncomingMessage): string | null {
  const header = request.headers.authorization
  if (header === undefined) return null
  const match = /^Bearer +([^\s]+) *$/i.exec(header)
  if (match === null) throw new TidegateError('TOKEN_INVALID', 'the Authorization header is not "Bearer <token>"')
  return match[1]!
}

export const lastEventIdOf = (request: IncomingMessage): string | null => {
  const header = request.headers['last-event-id']
  return typeof header === 'string' && header !== '' ? header : null
}

/** @throws TOKEN_MISSING, TOKEN_INVALID, TOKEN_EXPIRED, TICKET_INVALID, ROLE_REFUSED, UNAVAILABLE */
export async function identify(
  services: Services,
  tickets: Tickets,
  request: IncomingMessage,
  parameters: URLSearchParams,
): Promise<{ principal: Principal; redeemed: Redeemed | null }> {
  const token = bearerOf(request)
  if (token !== null) return { principal: await admit(services, token), redeemed: null }
  const ticket = parameters.get('ticket')
  if (ticket === null) {
    throw new TidegateError('TOKEN_MISSING', 'the request has no Authorization: Bearer <token> and no ticket')
  }
  const lastEventId = lastEventIdOf(request)
  const proof = lastEventId === null ? null : proofOf(lastEventId)
  const redeemed = await tickets.redeem(ticket, request.headers.origin ?? null, proof)
  await admitPrincipal(services, redeemed.principal)
  return { principal: redeemed.principal, redeemed }
}
