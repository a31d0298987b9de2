import { expect, test } from 'vitest'
import { Outgoing } from '../../../src/server/subscribe/subscription.ts'
import { expectWithin } from '../../support/within.ts'
import { alice, startGateway, type TestGateway, tokenOf, until } from './support/gateway.ts'
import { at } from './support/memory-core.ts'

interface Body {
  events: { event: string; data: Record<string, unknown>; id?: string }[]
  position: string
  queries: object[]
}

async function poll(node: TestGateway, path: string, token = alice) {
  const response = await fetch(node.url + path, {
    headers: { Authorization: `Bearer ${token}`, Accept: 'application/json' },
  })
  const text = await response.text()
  const body: Body = text === '' ? { events: [], position: '', queries: [] } : JSON.parse(text)
  return { status: response.status, headers: response.headers, body, text }
}

test('without after, the answer is the whole first snapshot and the position to go on from', async () => {
  await using node = await startGateway()
  const { rows } = node.core.query({ kind: 'live', table: 'messages', filters: [] })
  rows.push({ id: 1 }, { id: 2 }, { id: 3 })
  node.core.partRows = 2
  const { status, headers, body } = await poll(node, '/v1/live/messages?wait=30')
  expect(status).toBe(200)
  expect(body.events.map(({ event, data }) => [event, data])).toEqual([
    ['snapshot', { rows: [{ id: 1 }, { id: 2 }], done: false }],
    ['snapshot', { rows: [{ id: 3 }], done: true }],
  ])
  expect(body.events.map(event => event.id)).toEqual([undefined, body.position])
  expect(body.queries).toEqual([{ key: ['id'], resumed: false }])
  expect(headers.get('tidegate-position')).toBe(body.position)
  expect(headers.get('cache-control')).toBe('no-store')
  expect(node.core.open.size).toBe(0)
})

test('[P4] with after, the answer is what came since, without gap or repeat', async () => {
  await using node = await startGateway()
  let { position } = (await poll(node, '/v1/live/messages')).body
  const seen: unknown[] = []
  for (let id = 1; id <= 6; id += 1) {
    node.core.insert('messages', id)
    if (id % 2 === 1) continue
    const { body } = await poll(node, `/v1/live/messages?after=${position}`)
    expect(body.queries).toEqual([{ key: ['id'], resumed: true }])
    seen.push(...body.events.map(event => (event.data.changes as { key: { id: number } }[])[0]!.key.id))
    position = body.position
  }
  expect(seen).toEqual([1, 2, 3, 4, 5, 6])
})

test('with wait, the answer comes as soon as there is something, with all of its turn', async () => {
  await using node = await startGateway()
  const { position } = (await poll(node, '/v1/live/messages')).body
  const answer = poll(node, `/v1/live/messages?after=${position}&wait=60`)
  await until(() => node.core.open.size === 1)
  await new Promise(resolve => setTimeout(resolve, 20))
  node.core.insert('messages', 1)
  node.core.insert('messages', 2)
  const { status, body } = await answer
  expect(status).toBe(200)
  expect(body.events).toHaveLength(2)
  expect(node.core.open.size).toBe(0)
})

test('nothing new is a 304 without a body, and its position keeps a quiet query within the window', async () => {
  await using node = await startGateway()
  const { position } = (await poll(node, '/v1/live/messages')).body
  const startedAt = Date.now()
  const now = await poll(node, `/v1/live/messages?after=${position}&wait=0`)
  expect(now.status).toBe(304)
  expect(now.text).toBe('')
  expectWithin(Date.now() - startedAt, 1500)
  expect(now.headers.get('tidegate-position')).toBe(position)
  node.core.lsn += 0x100
  const later = await poll(node, `/v1/live/messages?after=${position}&wait=0.05`)
  expect(later.status).toBe(304)
  expect(later.headers.get('tidegate-position')).toContain('1f2e3d4c-1100.')
  expect(node.core.open.size).toBe(0)
})

test('a delta goes whole or not at all: the answer waits for its last part', async () => {
  await using node = await startGateway()
  const { position } = (await poll(node, '/v1/live/messages')).body
  const answer = poll(node, `/v1/live/messages?after=${position}&wait=60`)
  await until(() => node.core.open.size === 1)
  const [subscription] = node.core.of('messages')
  await new Promise(resolve => setTimeout(resolve, 20))
  subscription!.send(new Outgoing('delta', '{"changes":[],"done":false}', null))
  await new Promise(resolve => setTimeout(resolve, 50))
  subscription!.send(new Outgoing('delta', '{"changes":[],"done":true}', at(0x1010)))
  const { body } = await answer
  expect(body.events.map(event => event.data.done)).toEqual([false, true])
  expect(body.position).toContain('1f2e3d4c-1010.')
})

test('[P2] [P4] what is taken back before the answer goes is not in it, and its position is where the queries stand', async () => {
  await using node = await startGateway()
  const path = '/v1/live?q=messages&q=orders'
  const { position } = (await poll(node, path)).body
  const answer = poll(node, `${path}&after=${encodeURIComponent(position)}&wait=60`)
  await until(() => node.core.open.size === 2)
  const [[messages], [orders]] = [node.core.of('messages'), node.core.of('orders')]
  await new Promise(resolve => setTimeout(resolve, 20))
  // Its second part is long in coming, and the answer waits for it.
  orders!.send(new Outgoing('delta', '{"changes":[],"done":false}', null, 0x1000n))
  node.core.insert('messages', 1, 'the secret')
  const { log } = node.core.query(messages!.request)
  // It is told again from there, and what it is told then has no secret.
  const secret = log.pop()!
  log.push({ ...secret, outgoing: new Outgoing('delta', '{"changes":[],"done":true}', at(0x1010), 0x1000n) })
  messages!.outlet.takeBack('firmly')
  orders!.send(new Outgoing('delta', '{"changes":[],"done":true}', at(0x1010)))
  const { body } = await answer
  expect(JSON.stringify(body)).not.toContain('the secret')
  expect(body.events.map(event => event.data.q)).toEqual([1, 0, 1])
  expect(body.position.match(/1010/g)).toHaveLength(2)
})

test('a position of another query is told resync, with the fresh snapshot in the same answer', async () => {
  await using node = await startGateway()
  const { body } = await poll(node, '/v1/live/messages?after=1f2e3d4c-1000.other&wait=60')
  expect(body.events.map(event => event.event)).toEqual(['resync', 'snapshot'])
  expect(body.queries).toEqual([{ key: ['id'], resumed: false }])
})

test('[P4] changes that cannot resume are told resync in the same answer, also without wait', async () => {
  await using node = await startGateway()
  const { status, body } = await poll(node, '/v1/changes/orders?after=1f2e3d4c-1000.other')
  expect(status).toBe(200)
  expect(body.events.map(event => event.event)).toEqual(['resync'])
})

test('changes begin with a position, and several queries say whose each event is', async () => {
  await using node = await startGateway()
  const path = '/v1/changes?q=orders&q=open'
  const first = (await poll(node, path)).body
  expect(first).toMatchObject({ events: [], queries: [{}, { warnings: [{ code: 'NO_ROW_SECURITY' }] }] })
  expect(first.position.split('~')).toHaveLength(2)
  node.core.insert('open', 7)
  const second = (await poll(node, `${path}&after=${encodeURIComponent(first.position)}`)).body
  expect(second.events).toMatchObject([{ event: 'change', data: { q: 1, op: 'insert', new: { id: 7 } } }])
  expect(second.events[0]!.id).toBe(second.position)
})

test('[P7] what has gone past the bound of a queue stays behind for the next poll', async () => {
  await using node = await startGateway({ sendQueueBytes: 10_000 })
  let { position } = (await poll(node, '/v1/live/messages')).body
  for (let id = 1; id <= 10; id += 1) node.core.insert('messages', id, 'x'.repeat(4000))
  const seen: number[] = []
  let polls = 0
  while (seen.length < 10) {
    const { body } = await poll(node, `/v1/live/messages?after=${position}`)
    seen.push(...body.events.map(event => (event.data.changes as { key: { id: number } }[])[0]!.key.id))
    position = body.position
    polls += 1
  }
  expect(seen).toEqual([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
  expect(polls).toBeGreaterThan(2)
})

test('[P7] a snapshot larger than an answer may be is refused with its code', async () => {
  await using node = await startGateway({ longPollMaxBytes: 5000 })
  const { rows } = node.core.query({ kind: 'live', table: 'messages', filters: [] })
  for (let id = 0; id < 10; id += 1) rows.push({ id, body: 'x'.repeat(1000) })
  node.core.partRows = 2
  const { status, text } = await poll(node, '/v1/live/messages')
  expect(status).toBe(413)
  expect(JSON.parse(text)).toMatchObject({ code: 'SNAPSHOT_TOO_LARGE', retry: false })
  expect(node.core.open.size).toBe(0)
})

test('a wait ends when the token does', async () => {
  await using node = await startGateway()
  const token = tokenOf({ sub: 'alice', exp: Date.now() / 1000 + 1.5 })
  const { position } = (await poll(node, '/v1/live/messages', token)).body
  expect((await poll(node, `/v1/live/messages?after=${position}&wait=60`, token)).status).toBe(304)
  const late = await poll(node, `/v1/live/messages?after=${position}&wait=60`, token)
  expect(JSON.parse(late.text)).toMatchObject({ code: 'TOKEN_EXPIRED' })
})

test('a client that leaves while it waits leaves nothing behind', async () => {
  await using node = await startGateway()
  const { position } = (await poll(node, '/v1/live/messages')).body
  const abort = new AbortController()
  const gone = fetch(`${node.url}/v1/live/messages?after=${position}&wait=60`, {
    headers: { Authorization: `Bearer ${alice}`, Accept: 'application/json' },
    signal: abort.signal,
  }).catch(() => {})
  await until(() => node.core.open.size === 1)
  abort.abort()
  await gone
  await until(() => node.core.open.size === 0 && node.gateway.connections() === 0)
})

test('a client that leaves while its queries are joined is no error of ours', async () => {
  await using node = await startGateway()
  const { promise, resolve } = Promise.withResolvers<void>()
  node.core.gate = promise
  const abort = new AbortController()
  const gone = fetch(`${node.url}/v1/live/messages`, {
    headers: { Authorization: `Bearer ${alice}`, Accept: 'application/json' },
    signal: abort.signal,
  }).catch(() => {})
  await until(() => node.core.waiting === 1)
  abort.abort()
  await gone
  await until(() => node.gateway.connections() === 0)
  resolve()
  await until(() => node.core.waiting === 0)
  await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
  expect(node.logged).toEqual([])
})
