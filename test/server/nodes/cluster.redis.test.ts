// The same in a Cluster: every script's keys are in one slot, also those it finds by itself.
import { expect, test, vi } from 'vitest'
import { RedisTickets } from '../../../src/server/deliver/redis-tickets.ts'
import { createLog } from '../../../src/server/log/log.ts'
import type { MoveOrder } from '../../../src/server/nodes/node-state.ts'
import { askToRebalance, endRebalancing } from '../../../src/server/nodes/rebalance.ts'
import { livingNodes, NodeRegistry } from '../../../src/server/nodes/registry.ts'
import { open } from '../../support/redis-clients.ts'
import { startRedisCluster } from '../../support/redis-cluster.ts'

test('tickets, leases and rebalancings work in a Cluster', async () => {
  await using cluster = await startRedisCluster()
  using opened = await open(cluster.url).works()
  const redis = opened.client
  const name = 'tidegate'

  const limits = { ticketMs: 30_000, maxTickets: 2, maxTicketsPerPrincipal: 5 }
  const tickets = new RedisTickets({ redis, name, limits, now: Date.now })
  const principal = { role: 'authenticated', claims: { sub: 'ada' }, expiresAt: null }
  const used: { ticket: string; proof: string }[] = []
  for (let i = 0; i < 3; i++) {
    const { ticket } = await tickets.issue(principal, null)
    used.push({ ticket, proof: (await tickets.redeem(ticket, null, null)).proof })
  }
  // The bound of used ones: the first was forgotten by a script that found its key itself.
  await expect(tickets.redeem(used[0]!.ticket, null, used[0]!.proof)).rejects.toMatchObject({ code: 'TICKET_INVALID' })
  expect(await tickets.redeem(used[2]!.ticket, null, used[2]!.proof)).toEqual({ principal, proof: used[2]!.proof })

  const orders: MoveOrder[] = []
  const state = { address: 'a:1', release: '1', leads: false, connections: 4, lagMs: 0, moving: null }
  const registry = new NodeRegistry({
    id: 'a',
    redis,
    name,
    state: () => state,
    onAsked: order => orders.push(order),
    log: createLog('silent'),
  })
  const end = new AbortController()
  const running = registry.run(end.signal)
  await vi.waitFor(async () => expect(await livingNodes(redis, name)).toEqual([{ ...state, id: 'a' }]), 20_000)
  const { id } = await askToRebalance(redis, name, { shares: new Map([['a', 2]]), nodeCount: 2, overMs: 1000 })
  await vi.waitFor(() => expect(orders).toMatchObject([{ rebalancing: id, keep: 2 }]), 20_000)
  await endRebalancing(redis, name, id)
  end.abort()
  await running
  await registry.leave()
  expect(await livingNodes(redis, name)).toEqual([])
})
