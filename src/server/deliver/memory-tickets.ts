// The tickets of a node that is alone.
import type { Principal } from '../subscribe/subscription.ts'
import {
  digestOf,
  newProof,
  newTicket,
  ownerOf,
  type Redeemed,
  refused,
  refusedOrigin,
  type Ticket,
  type TicketLimits,
  type Tickets,
  tokenExpired,
  tooMany,
  tooManyOfOwner,
} from './tickets.ts'

interface Unused {
  readonly principal: Principal
  readonly origin: string | null
  readonly expiresAt: number
}

interface Used {
  readonly principal: Principal
  readonly origin: string | null
  readonly proofDigest: string
}

export class MemoryTickets implements Tickets {
  readonly #limits: TicketLimits
  readonly #now: () => number
  /** At most `maxTickets`, in order of expiry; past it: BUSY. */
  readonly #unused = new Map<string, Unused>()
  /** At most `maxTickets`, the oldest use is forgotten first: its EventSource needs a new ticket. */
  readonly #used = new Map<string, Used>()

  constructor(limits: TicketLimits, now: () => number) {
    this.#limits = limits
    this.#now = now
  }

  async issue(principal: Principal, origin: string | null): Promise<Ticket> {
    this.#forgetExpired()
    const owner = ownerOf(principal)
    let outstanding = 0
    for (const unused of this.#unused.values()) if (ownerOf(unused.principal) === owner) outstanding += 1
    const { ticketMs, maxTickets, maxTicketsPerPrincipal } = this.#limits
    if (outstanding >= maxTicketsPerPrincipal) throw tooManyOfOwner(outstanding, ticketMs)
    if (this.#unused.size >= maxTickets) throw tooMany(this.#limits)
    const ticket = newTicket()
    const expiresAt = Math.min(this.#now() + ticketMs, principal.expiresAt ?? Number.POSITIVE_INFINITY)
    this.#unused.set(ticket, { principal, origin, expiresAt })
    return { ticket, expiresAt }
  }

  async redeem(ticket: string, origin: string | null, proof: string | null): Promise<Redeemed> {
    const unused = this.#unused.get(ticket)
    if (unused !== undefined) {
      this.#unused.delete(ticket)
      if (unused.expiresAt <= this.#now()) throw refused('it expired')
      if (origin !== null && origin !== unused.origin) throw refusedOrigin(unused.origin)
      const fresh = newProof()
      this.#remember(ticket, { principal: unused.principal, origin: unused.origin, proofDigest: digestOf(fresh) })
      return { principal: unused.principal, proof: fresh }
    }
    const used = this.#used.get(ticket)
    if (used === undefined) throw refused('it is unknown or expired')
    const { principal } = used
    if (principal.expiresAt !== null && principal.expiresAt <= this.#now()) {
      this.#used.delete(ticket)
      throw tokenExpired()
    }
    if (origin !== null && origin !== used.origin) throw refusedOrigin(used.origin)
    if (proof === null || digestOf(proof) !== used.proofDigest) throw refused('it was used already')
    this.#remember(ticket, used)
    return { principal, proof }
  }

  #remember(ticket: string, used: Used): void {
    this.#used.delete(ticket)
    if (this.#used.size >= this.#limits.maxTickets) this.#used.delete(this.#used.keys().next().value!)
    this.#used.set(ticket, used)
  }

  #forgetExpired(): void {
    const now = this.#now()
    for (const [ticket, unused] of this.#unused) if (unused.expiresAt <= now) this.#unused.delete(ticket)
  }
}
