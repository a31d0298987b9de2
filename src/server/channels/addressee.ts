// Whom a message that is not for all is shown to.
import type { Caller } from './door.ts'
import type { Draft, Target } from './message.ts'

export const isFor = (to: Target, { principal, connection }: Caller): boolean =>
  'user' in to ? to.user === principal.claims.sub : to.connection === connection

/** What was for one alone is shown to that one, and to whoever sent it. */
export const isToOrFrom = ({ to, sender }: Draft, caller: Caller): boolean =>
  to === null || isFor(to, caller) || (sender.user !== null && sender.user === caller.principal.claims.sub)
