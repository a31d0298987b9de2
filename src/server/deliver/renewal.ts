// May this token take the place of that one, and does anything change for the subscriptions? Pure.
import { isDeepStrictEqual } from 'node:util'
import type { Principal } from '../subscribe/subscription.ts'

/** The same role and the same subject: a connection never becomes somebody else's. */
export const canRenew = (from: Principal, to: Principal): boolean =>
  from.role === to.role && isDeepStrictEqual(from.claims.sub, to.claims.sub)

/** Claims that say when and how the token was minted, and nothing of who holds it: new in every renewal. */
const mintingClaims = new Set(['exp', 'iat', 'nbf', 'jti'])

/** True when only the minting differs. A policy that reads even that gets the first token's values until the
 *  connection ends. */
export function hasSameClaims(from: Principal, to: Principal): boolean {
  return isDeepStrictEqual(lastingClaims(from), lastingClaims(to))
}

/** What a token says of who holds it: the same in every renewal. */
export const lastingClaims = (principal: Principal): Record<string, unknown> =>
  Object.fromEntries(Object.entries(principal.claims).filter(([name]) => !mintingClaims.has(name)))
