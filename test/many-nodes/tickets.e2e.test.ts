// Tickets of many nodes: asked for here, presented there.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'

let database: TestDatabase
let redis: TestRedis
const nodes: TestNode[] = []
const ada = person()

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await findRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`)
  for (let i = 0; i < 3; i++) nodes.push(await TestNode.start(database.url, { REDIS_URL: redis.url }))
})

afterAll(async () => {
  for (const node of nodes) await node[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

async function ticketOf(node: TestNode): Promise<string> {
  const headers = { authorization: `Bearer ${await tokenFor(ada)}` }
  const response = await fetch(`${node.url}/v1/tickets`, { method: 'POST', headers })
  return ((await response.json()) as { ticket: string }).ticket
}

/** As an EventSource: it has its URL, and the last id, and no token. */
const eventSource = (node: TestNode, ticket: string, lastEventId?: string): Promise<SseStream> =>
  SseStream.open(node, `/v1/live/messages?ticket=${ticket}`, null, lastEventId)

test('[P4] an EventSource comes back on any node, the moment it got an id; nobody else does', async () => {
  const [a, b, c] = nodes as [TestNode, TestNode, TestNode]
  const ticket = await ticketOf(a)
  const first = await eventSource(b, ticket)
  expect(first.status).toBe(200)
  await first.until(({ event }) => event === 'snapshot')
  let stream = first
  let id = 0
  const told: number[] = []
  // From node to node, each time right behind an event that nobody had time to note.
  for (const node of [c, a, b, a, c, b]) {
    await database.query(`INSERT INTO messages VALUES (${++id}, 1, 'a', 'b')`)
    await stream.until(({ event }) => event === 'delta')
    told.push(...idsOf(stream))
    stream.close()
    const next = await eventSource(node, ticket, stream.lastEventId)
    expect([next.status, next.errorBody]).toEqual([200, {}])
    await next.until(({ event }) => event === 'subscribed')
    expect(next.events.find(({ event }) => event === 'subscribed')!.data).toMatchObject({ resumed: true })
    stream = next
  }
  expect(told).toEqual([1, 2, 3, 4, 5, 6])
  const shared = stream.lastEventId.replace(/!.*/, '')
  for (const node of nodes)
    for (const lastEventId of [undefined, shared, `${shared}!${'A'.repeat(22)}`]) {
      const refused = await eventSource(node, ticket, lastEventId)
      expect([refused.status, refused.errorBody.code]).toEqual([401, 'TICKET_INVALID'])
    }
  stream.close()
})

test('a ticket opens one connection, on one node, over whichever wire', async () => {
  const [a, b, c] = nodes as [TestNode, TestNode, TestNode]
  const ticket = await ticketOf(a)
  const socket = new WebSocket(`${c.url.replace('http', 'ws')}/v1/socket?ticket=${ticket}`)
  const frame = await new Promise<string>(resolve =>
    socket.addEventListener('message', ({ data }) => resolve(String(data)), { once: true }),
  )
  expect(JSON.parse(frame)).toMatchObject({ type: 'welcome' })
  socket.close()
  for (const node of [a, b]) expect((await eventSource(node, ticket)).errorBody.code).toBe('TICKET_INVALID')
})

const idsOf = (stream: SseStream): number[] =>
  stream.events
    .filter(({ event }) => event === 'delta')
    .flatMap(({ data }) => (data as { changes: { key: { id: number } }[] }).changes.map(({ key }) => key.id))
