import { MemoryTickets } from '../../../src/server/deliver/memory-tickets.ts'
import { ticketRules } from './ticket-rules.ts'

ticketRules('in memory', async limits => {
  const tickets = new MemoryTickets(limits, () => place.now)
  const place = {
    issuing: tickets,
    taking: tickets,
    now: 1_000_000,
    expiry: async (): Promise<void> => {
      place.now += limits.ticketMs + 1
    },
  }
  return place
})
