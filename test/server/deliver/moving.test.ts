// Connections that are to move to another node: what each wire's client is told, and who stays.
import { expect, test } from 'vitest'
import { closeCodeOf, retryOfClose } from '../../../src/protocol/codes.ts'
import type { MoveOrder } from '../../../src/server/nodes/node-state.ts'
import { alice, startGateway, type TestGateway, TestSocket, TestStream, until } from './support/gateway.ts'

const order: MoveOrder = { rebalancing: 'r', keep: 0, overMs: 0, nodes: 2, ageMs: 0 }
const later = (): Promise<void> => until(() => performance.now() > soon)
let soon = 0

/** Whoever came in this very millisecond could have been sent away by it. */
async function send(node: TestGateway, change: Partial<MoveOrder> = {}): Promise<void> {
  soon = performance.now() + 2
  await later()
  node.gateway.sendSurplusAway({ ...order, ...change })
}

const poll = async (node: TestGateway, query: string) => {
  const response = await fetch(`${node.url}/v1/live/orders${query}`, {
    headers: { Authorization: `Bearer ${alice}`, Accept: 'application/json' },
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, text }
}

test('[P4] [P8] a WebSocket and an event stream are told to come back at once, with where they stand', async () => {
  await using node = await startGateway()
  await using socket = await TestSocket.open(node)
  await socket.subscribe(1, 'messages')
  await socket.frame('snapshot')
  await using stream = await TestStream.open(node, '/v1/live/messages')
  await stream.event('snapshot')
  node.core.insert('messages', 1)
  await send(node)
  const { code, reason } = await socket.closed
  expect([code, retryOfClose(code)]).toEqual([closeCodeOf('REBALANCED'), 'now'])
  expect(reason).toMatch(/^REBALANCED: /)
  expect(socket.frames.at(-1)).toMatchObject({ type: 'error', code: 'REBALANCED', retry: true, retryAfterMs: 0 })
  // What was under way came before.
  expect(socket.of('delta')).toHaveLength(1)
  await stream.ended()
  expect(stream.events.at(-1)).toMatchObject({
    event: 'error',
    data: { code: 'REBALANCED', retry: true, retryAfterMs: 0 },
  })
  expect(stream.retry).toBe('0')
  const id = stream.lastId
  expect(node.gateway.moving()).toEqual({ rebalancing: 'r', moved: 2, isOver: true })
  // This node is not leaving: whoever comes back here is served, and stays.
  await using again = await TestStream.open(node, '/v1/live/messages', {
    Authorization: `Bearer ${alice}`,
    'Last-Event-ID': id,
  })
  node.core.insert('messages', 2)
  expect((await again.event('delta')).text).toContain('"id":2')
  expect(again.events.filter(({ event }) => event === 'delta')).toHaveLength(1)
})

test('[P4] a long-poll that waits is answered at once with where it stands, and its connection ends', async () => {
  await using node = await startGateway()
  const first = await poll(node, '')
  const { position } = JSON.parse(first.text) as { position: string }
  const waiting = poll(node, `?after=${position}&wait=60`)
  await until(() => node.gateway.connections() === 1)
  await send(node)
  const answer = await waiting
  expect([answer.status, answer.text]).toEqual([304, ''])
  expect(answer.headers.get('tidegate-position')).toBe(position)
  expect(answer.headers.get('connection')).toBe('close')
  // The next one waits again.
  const next = poll(node, `?after=${position}&wait=60`)
  await until(() => node.gateway.connections() === 1)
  node.core.insert('orders', 1)
  const news = await next
  expect([news.status, news.headers.get('connection')]).toEqual([200, 'keep-alive'])
})

test('[P4] a poll of frames that waits is answered at once with where it stands, and its connection ends', async () => {
  await using node = await startGateway()
  const ask = async (since?: string) => {
    const frames = [{ type: 'subscribe', id: 1, kind: 'live', table: 'orders', since }]
    const response = await fetch(`${node.url}/v1/poll`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${alice}` },
      body: JSON.stringify({ frames, wait: 60 }),
    })
    const answer = (await response.json()) as { frames: { type: string; positions?: { 1: string } }[] }
    return { connection: response.headers.get('connection'), last: answer.frames.at(-1)! }
  }
  const since = (await ask()).last.positions![1]
  const waiting = ask(since)
  await until(() => node.core.open.size === 1)
  await send(node)
  expect(await waiting).toMatchObject({ connection: 'close', last: { type: 'heartbeat', positions: { 1: since } } })
})

test('a request that has its one answer still to come is left alone', async () => {
  await using node = await startGateway()
  const headers = { Authorization: `Bearer ${alice}` }
  const asked = fetch(`${node.url}/v1/wait`, { method: 'POST', headers, body: '{"txid":"500"}' })
  await until(() => node.gateway.connections() === 1)
  await send(node)
  await until(() => node.gateway.moving()?.isOver === true)
  expect(node.gateway.moving()?.moved).toBe(0)
  expect(node.gateway.connections()).toBe(1)
  await node.gateway.close()
  await expect(asked).rejects.toThrow()
})

test('as many stay as are to be kept, and whoever came since the rebalancing began', async () => {
  await using node = await startGateway()
  const sockets = await Promise.all(Array.from({ length: 12 }, () => TestSocket.open(node)))
  await send(node, { keep: 4 })
  await until(() => node.gateway.moving()?.isOver === true)
  await until(() => node.gateway.connections() === 4)
  expect(node.gateway.moving()?.moved).toBe(8)
  // The same once more, as two operators would ask it: nobody goes.
  await send(node, { keep: 4 })
  await until(() => node.gateway.moving()?.isOver === true)
  expect(node.gateway.moving()?.moved).toBe(0)
  await using newcomer = await TestSocket.open(node)
  // It began a minute ago: these four and the newcomer came since.
  await send(node, { rebalancing: 'another', keep: 0, ageMs: 60_000 })
  await until(() => node.gateway.moving()?.isOver === true)
  expect(node.gateway.moving()).toEqual({ rebalancing: 'another', moved: 0, isOver: true })
  expect(node.gateway.connections()).toBe(5)
  for (const socket of [...sockets, newcomer]) await socket[Symbol.asyncDispose]()
})
