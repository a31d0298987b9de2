import { describe, expect, test } from 'vitest'
import { closeCodeOf } from '../../../src/protocol/codes.ts'
import { TestFrameStream } from './support/frame-stream.ts'
import { alice, bob, startGateway, TestSocket, TestStream, until } from './support/gateway.ts'
import type { MemoryCore } from './support/memory-core.ts'
import { clientFrame, framesOf, RawSocket } from './support/raw-socket.ts'

const big = 'x'.repeat(50_000)

/** Commits until the kernel's buffers are full too: the subscription then stands still for good, not for a turn.
 *  @returns how many commits that took */
async function fill(core: MemoryCore, table: string): Promise<number> {
  const [held] = core.of(table)
  let commits = 0
  for (let standing = 0; standing < 30; standing = held!.isBlocked ? standing + 1 : 0) {
    if (!held!.isBlocked) core.insert(table, commits++, big)
    await new Promise(resolve => setTimeout(resolve, held!.isBlocked ? 2 : 0))
  }
  return commits
}

describe.each([
  ['a WebSocket', TestSocket],
  ['an event stream', TestFrameStream],
])('over %s', (_wire, Client) => {
  test('[P7] a slow reader stands still, its neighbour does not, and it goes on where it stood', async () => {
    await using node = await startGateway({ sendQueueBytes: 200_000 })
    await using slow = await Client.open(node, alice)
    await using quick = await Client.open(node, bob)
    await slow.subscribe(1, 'messages')
    await quick.subscribe(1, 'messages')
    const [held] = node.core.of('messages')
    slow.pause()
    const commits = await fill(node.core, 'messages')
    for (let more = 0; more < 20; more += 1) node.core.insert('messages', commits + more, big)
    await quick.until(() => quick.of('delta').length === commits + 20, 'every delta')
    expect(held!.isBlocked).toBe(true)
    const { resumes } = held!
    slow.resume()
    await slow.until(() => slow.of('delta').length === commits + 20, 'every delta')
    expect(held!.resumes).toBeGreaterThan(resumes)
    const ids = slow
      .of('delta')
      .map(frame => frame.changes[0]!)
      .map(change => 'key' in change && change.key.id)
    expect(ids).toEqual(Array.from({ length: commits + 20 }, (_, id) => id))
  })

  test('[P7] a peer that takes nothing is closed, and everything of it is gone', async () => {
    await using node = await startGateway({ sendQueueBytes: 50_000, slowConsumerMs: 150, closeTimeoutMs: 60_000 })
    await using slow = await Client.open(node, alice)
    await slow.subscribe(1, 'messages')
    const [held] = node.core.of('messages')
    slow.pause()
    await fill(node.core, 'messages')
    await until(() => held!.isClosed)
    // It may read what was under way, and is told why: what waited behind is dropped.
    slow.resume()
    expect(await slow.closed).toMatchObject({ code: closeCodeOf('SLOW_CONSUMER') })
    expect(node.core.open.size).toBe(0)
  })

  test('while a peer takes nothing, what it sends is not read either', async () => {
    await using node = await startGateway({ sendQueueBytes: 50_000, framesPerSecond: 1e6, frameBurst: 1e6 })
    await using slow = await Client.open(node, alice)
    await slow.subscribe(1, 'messages')
    slow.pause()
    await fill(node.core, 'messages')
    slow.send({ type: 'subscribe', id: 2, kind: 'live', table: 'orders' })
    // The neighbour's round trips give the server every chance to read it.
    await using quick = await Client.open(node, bob)
    for (let id = 1; id < 20; id += 1) await quick.subscribe(id, `table${id}`)
    expect(node.core.of('orders')).toHaveLength(0)
    slow.resume()
    await slow.frame('subscribed', frame => frame.id === 2)
  })

  test('heartbeats carry where each subscription stands, also for one that hears of no change', async () => {
    await using node = await startGateway({ heartbeatMs: 100 })
    await using socket = await Client.open(node)
    const empty = await socket.frame('heartbeat')
    expect(empty).toMatchObject({ position: null, positions: {}, stale: false, lagMs: 3 })
    const messages = await socket.subscribe(1, 'messages')
    const orders = await socket.subscribe(2, 'orders')
    await socket.frame('snapshot', frame => frame.id === 2)
    node.core.of('orders')[0]!.isBlocked = true
    node.core.insert('messages', 1)
    node.core.stale = true
    const beat = await socket.frame('heartbeat', frame => frame.stale)
    expect(beat).toEqual({
      type: 'heartbeat',
      stale: true,
      lagMs: 3,
      position: '1f2e3d4c-1000',
      positions: { 1: `1f2e3d4c-1010.${messages.tag}`, 2: `1f2e3d4c-1000.${orders.tag}` },
    })
  })

  test('[P4] a subscription whose snapshot is not complete has no position to come back with', async () => {
    await using node = await startGateway({ heartbeatMs: 100 })
    await using socket = await Client.open(node)
    node.core.query({ kind: 'live', table: 'messages', filters: [] })
    const { subscribe } = node.core
    node.core.subscribe = async (...given) => {
      const subscription = await subscribe.apply(node.core, given)
      ;(subscription as unknown as { begin(): void }).begin = () => {}
      return subscription
    }
    await socket.subscribe(1, 'messages')
    const before = socket.of('heartbeat').length
    await socket.until(() => socket.of('heartbeat').length > before + 1, 'heartbeats')
    expect(socket.of('heartbeat').at(-1)).toMatchObject({ position: null, positions: {} })
  })
})

test('the frames of one turn reach a socket in one piece, across its subscriptions', async () => {
  await using node = await startGateway()
  await using raw = await RawSocket.upgrade(node, alice)
  for (const [id, table] of ['messages', 'orders'].entries()) {
    raw.socket.write(clientFrame(JSON.stringify({ type: 'subscribe', id, kind: 'live', table })))
  }
  await raw.until(text => text.split('"snapshot"').length === 3)
  raw.chunks.length = 0
  for (let id = 0; id < 5; id += 1) {
    node.core.insert('messages', id)
    node.core.insert('orders', id)
  }
  await raw.until(text => text.split('"delta"').length === 11)
  expect(raw.chunks).toHaveLength(1)
  expect(framesOf(raw.chunks[0]!)).toHaveLength(10)
})

test('[P7] an event stream that nobody reads is cut off', async () => {
  await using node = await startGateway({ sendQueueBytes: 50_000, slowConsumerMs: 150 })
  await using raw = await RawSocket.connect(
    node,
    `GET /v1/live/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${alice}\r\n\r\n`,
  )
  await raw.until(text => text.includes('snapshot'))
  raw.socket.pause()
  const [held] = node.core.of('messages')
  await fill(node.core, 'messages')
  await until(() => held!.isClosed && node.gateway.connections() === 0)
})

test('[P7] an event stream whose reader is slow stands still, and goes on where it stood', async () => {
  await using node = await startGateway({ sendQueueBytes: 100_000 })
  await using raw = await RawSocket.connect(
    node,
    `GET /v1/live/messages HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${alice}\r\n\r\n`,
  )
  await raw.until(text => text.includes('snapshot'))
  raw.socket.pause()
  const commits = await fill(node.core, 'messages')
  for (let more = 0; more < 5; more += 1) node.core.insert('messages', commits + more, big)
  raw.socket.resume()
  const isLast = `"key":{"id":${commits + 4}}`
  // Searched in the last chunks only: the whole text is tens of megabytes.
  while (!Buffer.concat(raw.chunks.slice(-40)).includes(isLast)) await new Promise(resolve => setTimeout(resolve, 5))
  const ids = [...raw.text.matchAll(/"key":\{"id":(\d+)\}/g)].map(match => Number(match[1]))
  expect(ids).toEqual(Array.from({ length: commits + 5 }, (_, id) => id))
})

test('a peer that answers no ping and sends nothing is gone after two heartbeats, with all it held', async () => {
  await using node = await startGateway({ heartbeatMs: 150 })
  await using raw = await RawSocket.upgrade(node, alice)
  raw.socket.write(clientFrame(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'messages' })))
  await until(() => node.core.open.size === 1)
  expect(await raw.closeCode()).toBe(closeCodeOf('HEARTBEAT_MISSED'))
  expect(node.core.open.size).toBe(0)
  await until(() => node.gateway.connections() === 0)
})

test('a heartbeat frame alone keeps a peer alive, and so does a pong alone', async () => {
  await using node = await startGateway({ heartbeatMs: 150 })
  const beating = await RawSocket.upgrade(node, alice)
  await using ponging = await TestSocket.open(node, bob)
  const timer = setInterval(() => beating.socket.write(clientFrame('{"type":"heartbeat"}')), 50)
  await ponging.until(() => ponging.of('heartbeat').length >= 8, 'eight heartbeats')
  expect(beating.socket.destroyed).toBe(false)
  clearInterval(timer)
  expect(await beating.closeCode()).toBe(closeCodeOf('HEARTBEAT_MISSED'))
})

test('the first heartbeat comes at a random fraction of the interval', async () => {
  let now = 1_000_000
  await using node = await startGateway(
    { heartbeatMs: 10_000, handshakeMs: 100 },
    { now: () => now, random: () => 0.25 },
  )
  await using socket = await TestSocket.open(node)
  await using stream = await TestStream.open(node, '/v1/live/messages')
  await stream.event('snapshot')
  now += 2400
  await socket.subscribe(1, 'messages')
  expect(socket.of('heartbeat')).toEqual([])
  now += 200
  await socket.frame('heartbeat')
  await stream.event('heartbeat')
})
