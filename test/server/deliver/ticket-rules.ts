// What holds for tickets wherever they are kept. `make` gives two doors to the same tickets: of one node, or of two.
import { expect, test } from 'vitest'
import type { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import type { TicketLimits, Tickets } from '../../../src/server/deliver/tickets.ts'
import type { Principal } from '../../../src/server/subscribe/subscription.ts'

export interface TicketPlace {
  readonly issuing: Tickets
  readonly taking: Tickets
  /** Until an unused ticket has expired. */
  expiry(): Promise<void>
  /** The clock by which tokens expire, milliseconds since 1970. */
  now: number
}

export const principal = (sub: string, expiresAt: number | null = null): Principal => ({
  role: 'authenticated',
  claims: { sub, nested: { list: [1, 'é', null] } },
  expiresAt,
})

const page = 'https://a.example'
const otherPage = 'https://b.example'

export async function codeOf(act: Promise<unknown>): Promise<string> {
  return act.then(
    () => 'none',
    (error: TidegateError) => error.code,
  )
}

export function ticketRules(where: string, make: (limits: TicketLimits) => Promise<TicketPlace>): void {
  const lasting = { ticketMs: 30_000, maxTickets: 100, maxTicketsPerPrincipal: 100 }

  test(`a ticket is used once, and stands for all that its token said (${where})`, async () => {
    const { issuing, taking } = await make(lasting)
    const { ticket } = await issuing.issue(principal('alice'), page)
    expect((await taking.redeem(ticket, page, null)).principal).toEqual(principal('alice'))
    for (const door of [issuing, taking]) expect(await codeOf(door.redeem(ticket, page, null))).toBe('TICKET_INVALID')
    expect(await codeOf(taking.redeem('no ticket at all', page, null))).toBe('TICKET_INVALID')
  })

  test(`of many who present a ticket at once, one gets in (${where})`, async () => {
    const { issuing, taking } = await make(lasting)
    const { ticket } = await issuing.issue(principal('alice'), null)
    const doors = Array.from({ length: 40 }, (_, place) => (place % 2 === 0 ? issuing : taking))
    const codes = await Promise.all(doors.map(door => codeOf(door.redeem(ticket, null, null))))
    expect(codes.filter(code => code === 'none')).toHaveLength(1)
    expect(codes.filter(code => code === 'TICKET_INVALID')).toHaveLength(39)
  })

  test(`a ticket belongs to one origin (${where})`, async () => {
    const { issuing, taking } = await make(lasting)
    const { ticket: stolen } = await issuing.issue(principal('alice'), page)
    expect(await codeOf(taking.redeem(stolen, otherPage, null))).toBe('TICKET_INVALID')
    // Tried from elsewhere once, it is spent.
    expect(await codeOf(taking.redeem(stolen, page, null))).toBe('TICKET_INVALID')
    // A browser sends no Origin with a GET to its own host.
    const { ticket } = await issuing.issue(principal('alice'), page)
    expect((await taking.redeem(ticket, null, null)).principal.claims.sub).toBe('alice')
    const { ticket: ofServer } = await issuing.issue(principal('bob'), null)
    expect(await codeOf(taking.redeem(ofServer, page, null))).toBe('TICKET_INVALID')
  })

  test(`a ticket expires, no later than its token (${where})`, async () => {
    const place = await make({ ...lasting, ticketMs: 1000 })
    const { issuing, taking } = place
    const longer = await issuing.issue(principal('alice', place.now + 1e6), null)
    const endless = await issuing.issue(principal('alice'), null)
    const shorter = await issuing.issue(principal('alice', place.now + 500), null)
    expect(shorter.expiresAt).toBe(place.now + 500)
    for (const { expiresAt } of [longer, endless]) {
      expect(expiresAt).toBeGreaterThan(place.now)
      expect(expiresAt).toBeLessThan(place.now + 1000 + 30_000)
    }
    await place.expiry()
    for (const { ticket } of [longer, endless, shorter])
      expect(await codeOf(taking.redeem(ticket, null, null))).toBe('TICKET_INVALID')
  })

  test(`[P4] a used ticket is taken again with the proof that its stream gave, until its token expires (${where})`, async () => {
    const place = await make(lasting)
    const { issuing, taking } = place
    const until = place.now + 100_000
    const { ticket } = await issuing.issue(principal('alice', until), page)
    const { proof } = await taking.redeem(ticket, page, null)
    // On any node, as often as the connection breaks, at once.
    for (const door of [issuing, taking, issuing])
      expect(await door.redeem(ticket, page, proof)).toEqual({ principal: principal('alice', until), proof })
    expect(await codeOf(issuing.redeem(ticket, otherPage, proof))).toBe('TICKET_INVALID')
    expect(await codeOf(issuing.redeem(ticket, page, null))).toBe('TICKET_INVALID')
    // Refusing it takes nothing from whoever it belongs to.
    place.now = until - 1
    expect(await codeOf(issuing.redeem(ticket, page, proof))).toBe('none')
    place.now = until
    expect(await codeOf(issuing.redeem(ticket, page, proof))).toBe('TOKEN_EXPIRED')
  })

  test(`[P2] the proof of another stream, of the same reader or not, opens nothing (${where})`, async () => {
    const { issuing, taking } = await make(lasting)
    const proofs: string[] = []
    const tickets: string[] = []
    for (const sub of ['alice', 'alice', 'bob']) {
      const { ticket } = await issuing.issue(principal(sub), null)
      tickets.push(ticket)
      proofs.push((await taking.redeem(ticket, null, null)).proof)
    }
    expect(new Set(proofs).size).toBe(3)
    for (const proof of proofs.slice(1))
      expect(await codeOf(taking.redeem(tickets[0]!, null, proof))).toBe('TICKET_INVALID')
    // An unused one is not opened for anybody by a proof that came with it: it gets its own.
    const { ticket } = await issuing.issue(principal('carol'), null)
    expect((await taking.redeem(ticket, null, proofs[2]!)).proof).not.toBe(proofs[2])
  })

  test(`[P7] tickets are bounded by principal and in all; of the used ones the oldest is forgotten (${where})`, async () => {
    const place = await make({ ticketMs: 1000, maxTickets: 4, maxTicketsPerPrincipal: 2 })
    const { issuing, taking } = place
    const issue = async (sub: string) => (await issuing.issue(principal(sub), null)).ticket
    const own = [await issue('alice'), await issue('alice')]
    expect(await codeOf(issue('alice'))).toBe('RATE_LIMITED')
    await issue('bob')
    await issue('carol')
    expect(await codeOf(issue('dave'))).toBe('BUSY')
    const proofs: string[] = []
    for (const ticket of own) proofs.push((await taking.redeem(ticket, null, null)).proof)
    // Used, they do not count as unused any more.
    await issue('alice')
    await place.expiry()
    for (const sub of ['u', 'v', 'w']) await taking.redeem(await issue(sub), null, null)
    expect(await codeOf(taking.redeem(own[0]!, null, proofs[0]!))).toBe('TICKET_INVALID')
    expect(await codeOf(taking.redeem(own[1]!, null, proofs[1]!))).toBe('none')
    // It was used a moment ago: another is the oldest now.
    await taking.redeem(await issue('x'), null, null)
    expect(await codeOf(taking.redeem(own[1]!, null, proofs[1]!))).toBe('none')
  })
}
