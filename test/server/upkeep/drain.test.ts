// A node that leaves, and one whose stream stands still, as its clients see it: over real sockets, around a core in memory.
import { expect, test, vi } from 'vitest'
import { closeCodeOf } from '../../../src/protocol/codes.ts'
import { delayOf } from '../../../src/server/upkeep/drain.ts'
import {
  alice,
  bob,
  startGateway,
  type TestGateway,
  TestSocket,
  TestStream,
  tokenOf,
  until,
} from '../deliver/support/gateway.ts'

interface Answer {
  readonly status: number
  readonly position: string | null
  readonly stale: string | null
  readonly retryAfter: string | null
  readonly body: Record<string, unknown>
}

async function ask({ url }: TestGateway, path: string, init: RequestInit = {}): Promise<Answer> {
  const headers = { Authorization: `Bearer ${alice}`, Accept: 'application/json' }
  const response = await fetch(url + path, { headers, ...init })
  const text = await response.text()
  return {
    status: response.status,
    position: response.headers.get('tidegate-position'),
    stale: response.headers.get('tidegate-stale'),
    retryAfter: response.headers.get('retry-after'),
    body: text === '' ? {} : JSON.parse(text),
  }
}

const hintOf = (error: { retryAfterMs?: number }): number => error.retryAfterMs!

test('[P8] on a drain everybody is told where it stands and when to come back, evenly spread, over every wire', async () => {
  await using node = await startGateway()
  await using first = await TestSocket.open(node, alice)
  await using second = await TestSocket.open(node, bob)
  const { tag } = await first.subscribe(1, 'messages')
  await first.frame('snapshot')
  await using stream = await TestStream.open(node, '/v1/live/messages')
  await stream.event('snapshot')
  const { position } = await ask(node, '/v1/live/orders')
  const poll = ask(node, `/v1/live/orders?after=${position}&wait=60`)
  const held = ask(node, '/v1/wait', { method: 'POST', body: '{"txid":"500"}' })
  await until(() => node.gateway.connections() === 5)
  // Of another table: nobody is told of it, but everybody is past it.
  node.core.lsn += 16

  const drained = node.gateway.drain({ spreadMs: 10_000, timeoutMs: 5000 })
  for (const socket of [first, second]) expect(await socket.closed).toMatchObject({ code: closeCodeOf('GOING_AWAY') })
  await stream.ended()
  const [polled, waited] = await Promise.all([poll, held])
  await drained

  for (const subscription of node.core.open) expect(subscription.isClosed).toBe(true)
  expect(first.frames.slice(-2)).toMatchObject([
    { type: 'heartbeat', positions: { 1: `1f2e3d4c-1000.${tag}` } },
    { type: 'error', code: 'GOING_AWAY', retry: true },
  ])
  expect(stream.events.slice(-2).map(({ event }) => event)).toEqual(['heartbeat', 'error'])
  const error = stream.events.at(-1)!.data as { retryAfterMs: number }
  expect(stream.retry).toBe(String(error.retryAfterMs))
  for (const answer of [polled, waited]) expect(answer).toMatchObject({ status: 503, body: { code: 'GOING_AWAY' } })
  expect(polled.position).toBe(position)
  const hints = [...[first, second].map(socket => socket.of('error').at(-1)!), error, polled.body, waited.body].map(
    hintOf,
  )
  expect(hints.toSorted((a, b) => a - b)).toEqual([2000, 4000, 6000, 8000, 10_000])
  expect(polled.retryAfter).toBe(String(Math.ceil(hintOf(polled.body) / 1000)))
  expect([node.gateway.connections(), node.core.open.size]).toEqual([0, 0])
  await expect(fetch(`${node.url}/health`)).rejects.toThrow()
})

test('a node serves on for five seconds where somebody asks whether it is ready, and no longer where nobody does', () => {
  expect(delayOf({ drainDelayMs: null }, 1000)).toBe(5000)
  expect(delayOf({ drainDelayMs: null }, 61_000)).toBe(0)
  expect(delayOf({ drainDelayMs: null }, null)).toBe(0)
  expect(delayOf({ drainDelayMs: 700 }, null)).toBe(700)
  expect(delayOf({ drainDelayMs: 0 }, 1000)).toBe(0)
})

test('[P8] left to itself, a drain spreads them over a millisecond each, and a second at least', async () => {
  await using node = await startGateway()
  await using socket = await TestSocket.open(node)
  await node.gateway.drain({ spreadMs: null, timeoutMs: 5000 })
  expect(socket.of('error').map(hintOf)).toEqual([1000])
})

test('[P4] what waits for a client is sent before the goodbye, whole, and its position with it', async () => {
  await using node = await startGateway({ sendQueueBytes: 50_000 })
  await using socket = await TestSocket.open(node)
  const { tag } = await socket.subscribe(1, 'messages')
  await socket.frame('snapshot')
  socket.ws.pause()
  const body = 'x'.repeat(2000)
  for (let id = 1; !node.core.of('messages')[0]!.isBlocked; id += 1) node.core.insert('messages', id, body)
  const stands = node.core.of('messages')[0]!.position()
  const drained = node.gateway.drain({ spreadMs: 1000, timeoutMs: 5000 })
  socket.ws.resume()
  expect(await socket.closed).toMatchObject({ code: closeCodeOf('GOING_AWAY') })
  await drained
  const deltas = socket.of('delta')
  expect(deltas.length).toBeGreaterThan(20)
  expect(deltas.at(-1)!.position).toBe(`1f2e3d4c-${stands.lsn.toString(16)}`)
  expect(socket.of('heartbeat').at(-1)!.positions).toEqual({ 1: `${deltas.at(-1)!.position}.${tag}` })
})

test('while clients leave, a newcomer is told to go elsewhere, and a probe that this node lives', async () => {
  await using node = await startGateway()
  await using slow = await TestSocket.open(node)
  // It does not answer the close frame.
  slow.ws.pause()
  let isDrained = false
  const drained = node.gateway.drain({ spreadMs: 1000, timeoutMs: 60_000 }).then(() => {
    isDrained = true
  })
  for (const path of ['/v1/live/messages', '/v1/tickets']) {
    const answer = await ask(node, path, path === '/v1/tickets' ? { method: 'POST' } : {})
    expect(answer).toMatchObject({ status: 503, body: { code: 'GOING_AWAY', retry: true } })
    expect(answer.body.retryAfterMs).toBeLessThanOrEqual(1000)
  }
  const refused = new TestSocket(`ws://127.0.0.1:${node.port}/v1/socket`, {
    headers: { Authorization: `Bearer ${bob}` },
  })
  expect((await refused.closed).code).toBe(1006)
  expect((await ask(node, '/health')).status).toBe(200)
  expect((await fetch(`${node.url}/ready?scope=node`)).headers.get('connection')).toBe('close')
  expect(isDrained).toBe(false)
  slow.ws.resume()
  await drained
})

test('[P7] whoever does not go within the time is cut off', async () => {
  await using node = await startGateway({ closeTimeoutMs: 60_000 })
  await using slow = await TestSocket.open(node)
  slow.ws.pause()
  await node.gateway.drain({ spreadMs: 0, timeoutMs: 50 })
  await until(() => node.gateway.connections() === 0)
})

test('[P8] that the stream stands still, and that it moves again, is told at once over every wire, also to whoever comes', async () => {
  await using node = await startGateway({ heartbeatMs: 600_000, handshakeMs: 100 }, { now: () => 1_000_000 })
  await using socket = await TestSocket.open(node)
  await socket.subscribe(1, 'messages')
  await using stream = await TestStream.open(node, '/v1/live/messages')
  await stream.event('snapshot')
  const { position } = await ask(node, '/v1/live/messages')
  const hold = (): Promise<Answer> => ask(node, `/v1/live/messages?after=${position}&wait=60`)
  const isOf = (stale: boolean) => (event: { data: Record<string, unknown> }) => event.data.stale === stale
  for (const stale of [true, false]) {
    const poll = hold()
    await until(() => node.gateway.connections() === 3)
    node.core.stale = stale
    expect(await socket.frame('heartbeat', frame => frame.stale === stale)).toMatchObject({ lagMs: 3 })
    await stream.event('heartbeat', isOf(stale))
    expect(await poll).toMatchObject({ status: 304, position, stale: String(stale) })
  }
  // Once each: between two changes nobody is woken.
  expect([socket.of('heartbeat').length, stream.events.filter(({ event }) => event === 'heartbeat').length]).toEqual([
    2, 2,
  ])

  node.core.stale = true
  await until(() => socket.of('heartbeat').length === 3)
  await using late = await TestSocket.open(node, bob)
  await late.subscribe(1, 'messages')
  await late.frame('heartbeat', frame => frame.stale)
  await using lateStream = await TestStream.open(node, '/v1/live/messages')
  await lateStream.event('heartbeat', isOf(true))
  expect((await ask(node, `/v1/live/messages?after=${position}`)).stale).toBe('true')
})

test('[P7] many are told of it a few at a time, spread over a second', async () => {
  await using node = await startGateway({ heartbeatMs: 600_000 }, { random: () => 0.9 })
  const sockets = await Promise.all(Array.from({ length: 60 }, () => TestSocket.open(node)))
  const toldAt: number[] = []
  for (const socket of sockets) void socket.frame('heartbeat').then(() => toldAt.push(performance.now()))
  node.core.stale = true
  await until(() => toldAt.length === sockets.length)
  const within = (ms: number) => toldAt.filter(at => at - toldAt[0]! < ms).length
  // 3 every 50 ms. A busy machine may bring a few of these turns together, not all of them.
  expect(within(400)).toBeLessThan(50)
  for (const socket of sockets) await socket[Symbol.asyncDispose]()
})

test('[P7] a wall clock that is set ends those whose token it ends, and nobody else', async () => {
  vi.useFakeTimers({ toFake: ['Date'] })
  try {
    await using node = await startGateway({ heartbeatMs: 200, handshakeMs: 100 })
    const expiring = tokenOf({ sub: 'alice', exp: Math.floor(Date.now() / 1000) + 60 })
    await using stays = await TestSocket.open(node, bob)
    await using ends = await TestSocket.open(node, expiring)
    await using stream = await TestStream.open(node, '/v1/live/messages')
    await stream.event('snapshot')
    vi.setSystemTime(Date.now() + 3_600_000)
    expect(await ends.closed).toMatchObject({ code: closeCodeOf('TOKEN_EXPIRED') })
    const beats = (): number => stays.of('heartbeat').length
    const before = beats()
    await stays.until(() => beats() > before + 3, 'heartbeats')
    vi.setSystemTime(Date.now() - 7_200_000)
    const later = beats()
    await stays.until(() => beats() > later + 3, 'heartbeats')
    expect(stream.isEnded).toBe(false)
  } finally {
    vi.useRealTimers()
  }
})
