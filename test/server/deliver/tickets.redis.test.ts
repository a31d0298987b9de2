import { createHash } from 'node:crypto'
import { Redis } from 'ioredis'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { RedisTickets } from '../../../src/server/deliver/redis-tickets.ts'
import type { TicketLimits } from '../../../src/server/deliver/tickets.ts'
import { openRedis, type RedisClient } from '../../../src/server/redis/redis.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { findRedis, type TestRedis } from '../../support/redis.ts'
import { expectWithin } from '../../support/within.ts'
import { codeOf, principal, type TicketPlace, ticketRules } from './ticket-rules.ts'

let server: TestRedis
let redis: Redis
const clients: RedisClient[] = []
let deployments = 0

beforeAll(async () => {
  server = await findRedis()
  redis = new Redis(server.url)
})
afterAll(async () => {
  for (const client of [redis, ...clients]) client.disconnect()
  await server[Symbol.asyncDispose]()
})

async function connect(url = server.url, commandTimeoutMs = 2000): Promise<RedisClient> {
  const client = openRedis(url, { connectionName: 'test', commandTimeoutMs })
  clients.push(client)
  if (client.status !== 'ready') await new Promise(resolve => client.once('ready', resolve))
  return client
}

const lasting = { ticketMs: 30_000, maxTickets: 100, maxTicketsPerPrincipal: 100 }

/** Two nodes of a deployment of its own. */
async function twoNodes(
  limits: TicketLimits,
  name = `tickets_${++deployments}`,
): Promise<TicketPlace & { name: string }> {
  const now = (): number => place.now
  const [a, b] = [await connect(), await connect()]
  const place = {
    name,
    issuing: new RedisTickets({ redis: a, name, limits, now }),
    taking: new RedisTickets({ redis: b, name, limits, now }),
    now: Date.now(),
    expiry: async (): Promise<void> => {
      while ((await redis.exists(`{${name}}:ticket:unused`)) === 1)
        await new Promise(resolve => setTimeout(resolve, 20))
    },
  }
  return place
}

ticketRules('in Redis, of two nodes', twoNodes)

test('every key begins with the name of the deployment and expires; two deployments share nothing', async () => {
  const { issuing, taking, name } = await twoNodes(lasting)
  const other = await twoNodes(lasting)
  const { ticket } = await issuing.issue(principal('alice', Date.now() + 60_000), null)
  const { ticket: used } = await issuing.issue(principal('alice'), null)
  expect(await codeOf(other.taking.redeem(used, null, null))).toBe('TICKET_INVALID')
  await taking.redeem(used, null, null)
  const keys = await redis.keys(`{${name}}:*`)
  expect(keys.length).toBe(5)
  for (const key of keys) {
    expect(key).toMatch(new RegExp(`^\\{${name}\\}:ticket:`))
    expect(await redis.pttl(key)).toBeGreaterThan(0)
  }
  expect(await redis.keys(`{${other.name}}:*`)).toEqual([])
  expect(ticket).not.toBe(used)
})

test('[P2] nothing that stands in Redis opens anything', async () => {
  const { issuing, taking, name } = await twoNodes(lasting)
  const { ticket } = await issuing.issue(principal('alice'), null)
  const { ticket: used } = await issuing.issue(principal('bob'), null)
  const { proof } = await taking.redeem(used, null, null)
  const seen: string[] = []
  for (const key of await redis.keys(`{${name}}:*`)) {
    const isHash = (await redis.type(key)) === 'hash'
    const value = isHash ? JSON.stringify(await redis.hgetall(key)) : JSON.stringify(await redis.zrange(key, '0', '-1'))
    seen.push(key, value)
  }
  const all = seen.join('\n')
  for (const secret of [ticket, used, proof]) expect(all).not.toContain(secret)
  const digest = createHash('sha256').update(ticket).digest('base64url')
  expect(all).toContain(digest)
  expect(await codeOf(taking.redeem(digest, null, null))).toBe('TICKET_INVALID')
  const proofDigest = createHash('sha256').update(proof).digest('base64url')
  expect(all).toContain(proofDigest)
  expect(await codeOf(taking.redeem(used, null, proofDigest))).toBe('TICKET_INVALID')
  expect(await codeOf(taking.redeem(used, null, proof))).toBe('none')
})

test('[P8] with Redis away or silent, tickets are refused in time with UNAVAILABLE, and go on when it is back', async () => {
  await using link = await FaultyLink.to(server.url)
  const away = await connect(link.url, 500)
  const tickets = new RedisTickets({ redis: away, name: `tickets_${++deployments}`, limits: lasting, now: Date.now })
  const { ticket } = await tickets.issue(principal('alice'), null)
  link.isolate()
  const began = performance.now()
  await expect(tickets.issue(principal('alice'), null)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  await expect(tickets.redeem('x', null, null)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  expectWithin(performance.now() - began, 2000)
  link.thaw()
  const redeemed = (): Promise<unknown> =>
    tickets.redeem(ticket, null, null).then(({ principal }) => principal.claims.sub, String)
  await expect.poll(redeemed).toBe('alice')
  const lost = new Promise(resolve => away.once('close', resolve))
  link.cut()
  await lost
  await expect(tickets.issue(principal('alice'), null)).rejects.toMatchObject({ code: 'UNAVAILABLE' })
  while ((await codeOf(tickets.issue(principal('alice'), null))) !== 'none')
    await new Promise(resolve => setTimeout(resolve, 20))
})
