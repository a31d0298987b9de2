// A ticket carries a principal in a URL for half a minute: a JWT in a URL would stay in logs for as long as it lives.
//
// A ticket is used once. An EventSource, though, comes back by itself with the very same URL: refused, it would stop for
// good. So a used ticket is remembered for as long as its token lives, and taken again together with a Last-Event-ID
// that its own stream has issued, which somebody who only read the URL in a log does not have.
import { randomBytes } from 'node:crypto'
import { comparePositions, type QueryPosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { GatewayLimits } from './limits.ts'
import { readStreamPosition } from './stream-position.ts'

export interface Ticket {
  readonly ticket: string
  /** Milliseconds since 1970. */
  readonly expiresAt: number
}

/** A ticket taken: whose it was, and where to note what its stream issues. */
export interface Redeemed {
  readonly principal: Principal
  /** Notes an id that the stream sends, so that its client may come back with it. */
  issued(positions: readonly (QueryPosition | null)[]): void
}

interface Unused {
  readonly principal: Principal
  readonly origin: string | null
  readonly expiresAt: number
}

interface Used {
  readonly principal: Principal
  readonly origin: string | null
  /** The newest id of the stream; older ones of the same tags count as issued too. */
  last: readonly (QueryPosition | null)[] | null
  /** Tags the stream has issued: a policy that changes under it changes them. The last 16. */
  readonly tags: Set<string>
}

const maxTags = 16

export class Tickets {
  readonly #limits: Pick<GatewayLimits, 'ticketMs' | 'maxTickets' | 'maxTicketsPerPrincipal'>
  readonly #now: () => number
  /** At most `maxTickets`, in order of expiry; past it: BUSY. */
  readonly #unused = new Map<string, Unused>()
  /** At most `maxTickets`, the oldest use is forgotten first: its EventSource needs a new ticket. */
  readonly #used = new Map<string, Used>()

  constructor(limits: Pick<GatewayLimits, 'ticketMs' | 'maxTickets' | 'maxTicketsPerPrincipal'>, now: () => number) {
    this.#limits = limits
    this.#now = now
  }

  /** @param origin the Origin header of the request that asks, null without one. @throws RATE_LIMITED, BUSY */
  issue(principal: Principal, origin: string | null): Ticket {
    this.#forgetExpired()
    const owner = ownerOf(principal)
    let outstanding = 0
    for (const unused of this.#unused.values()) if (ownerOf(unused.principal) === owner) outstanding += 1
    const { ticketMs, maxTickets, maxTicketsPerPrincipal } = this.#limits
    if (outstanding >= maxTicketsPerPrincipal) {
      throw new TidegateError(
        'RATE_LIMITED',
        `${outstanding} tickets of this token's subject are unused; use them, or wait until they expire`,
        { retryAfterMs: ticketMs },
      )
    }
    if (this.#unused.size >= maxTickets) {
      throw new TidegateError('BUSY', `${maxTickets} tickets are unused; come back later`, { retryAfterMs: ticketMs })
    }
    const ticket = randomBytes(24).toString('base64url')
    const expiresAt = Math.min(this.#now() + ticketMs, principal.expiresAt ?? Number.POSITIVE_INFINITY)
    this.#unused.set(ticket, { principal, origin, expiresAt })
    return { ticket, expiresAt }
  }

  /** @param origin the Origin header of the request that presents it: another page's is refused; none is a client that
   *  is no browser, or the same-origin GET of one
   *  @param lastEventId the Last-Event-ID header, with which a used ticket is taken again; null on a WebSocket
   *  @throws TICKET_INVALID, TOKEN_EXPIRED */
  redeem(ticket: string, origin: string | null, lastEventId: string | null): Redeemed {
    const unused = this.#unused.get(ticket)
    if (unused !== undefined) {
      this.#unused.delete(ticket)
      if (unused.expiresAt <= this.#now()) throw refused('it expired')
      if (origin !== null && origin !== unused.origin) throw refused(`it was issued to ${unused.origin ?? 'no'} origin`)
      return this.#remember(ticket, { principal: unused.principal, origin: unused.origin, last: null, tags: new Set() })
    }
    const used = this.#used.get(ticket)
    if (used === undefined) throw refused('it is unknown or expired')
    const expiresAt = used.principal.expiresAt
    if (expiresAt !== null && expiresAt <= this.#now()) {
      this.#used.delete(ticket)
      throw new TidegateError('TOKEN_EXPIRED', 'the token that this ticket stood for has expired; renew it')
    }
    if (origin !== null && origin !== used.origin) throw refused(`it was issued to ${used.origin ?? 'no'} origin`)
    if (lastEventId === null || !wasIssued(used, lastEventId)) throw refused('it was used already')
    return this.#remember(ticket, used)
  }

  #remember(ticket: string, used: Used): Redeemed {
    this.#used.delete(ticket)
    if (this.#used.size >= this.#limits.maxTickets) this.#used.delete(this.#used.keys().next().value!)
    this.#used.set(ticket, used)
    return {
      principal: used.principal,
      issued(positions) {
        used.last = positions
        for (const position of positions) {
          if (position === null || used.tags.has(position.tag)) continue
          if (used.tags.size >= maxTags) used.tags.delete(used.tags.values().next().value!)
          used.tags.add(position.tag)
        }
      },
    }
  }

  #forgetExpired(): void {
    const now = this.#now()
    for (const [ticket, unused] of this.#unused) if (unused.expiresAt <= now) this.#unused.delete(ticket)
  }
}

const refused = (why: string): TidegateError =>
  new TidegateError('TICKET_INVALID', `the ticket is refused: ${why}; ask POST /v1/tickets for a new one`)

const ownerOf = (principal: Principal): string => `${principal.role}\n${String(principal.claims.sub ?? '')}`

function wasIssued({ last, tags }: Used, id: string): boolean {
  const positions = last === null ? null : readStreamPosition(id, last.length)
  // An id without any position proves nothing: everybody could write it.
  if (last === null || positions === null || positions.every(position => position === null)) return false
  return positions.every((position, index) => {
    if (position === null) return true
    const newest = last[index] ?? null
    const isPast = newest !== null && newest.epoch === position.epoch && comparePositions(position, newest) > 0
    return tags.has(position.tag) && !isPast
  })
}
