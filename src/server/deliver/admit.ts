// From a token to a principal that may come in: verified, not expired, its role one that the server may take.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { Place } from './connections.ts'
import type { Services } from './services.ts'

type Door = Pick<Services, 'authenticator' | 'subscriptions' | 'orders' | 'wallNow'>

/** @param place of a connection that counts for its user
 *  @throws TOKEN_INVALID, TOKEN_EXPIRED, TOKEN_REVOKED, TOKEN_OUTDATED, ROLE_REFUSED, USER_TOO_MANY, UNAVAILABLE */
export async function admit(door: Door, token: string, place: Place | null = null): Promise<Principal> {
  const principal = await door.authenticator.authenticate(token)
  await admitPrincipal(door, principal)
  place?.admit(principal)
  return principal
}

/** Checks again what may have changed since the principal was verified. @throws TOKEN_EXPIRED, TOKEN_REVOKED,
 *  TOKEN_OUTDATED, ROLE_REFUSED */
export async function admitPrincipal(door: Door, principal: Principal): Promise<void> {
  if (principal.expiresAt !== null && principal.expiresAt <= door.wallNow()) {
    throw new TidegateError('TOKEN_EXPIRED', 'the token has expired; renew it')
  }
  await door.subscriptions.admit(principal)
  await door.orders.admit(principal)
}
