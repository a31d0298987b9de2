// What is of an event stream with POSTs alone: its bytes, who may send to it, and what is refused. What it shares with a WebSocket is in
// session-wires, channels-wires and flow.
import { describe, expect, test } from 'vitest'
import { peerCodes } from '../../../src/protocol/codes.ts'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { maxWaits } from '../../../src/server/deliver/session.ts'
import { post, TestFrameStream } from './support/frame-stream.ts'
import { alice, bob, startGateway, TestSocket, tokenOf, until } from './support/gateway.ts'
import { at } from './support/memory-core.ts'
import { RawSocket } from './support/raw-socket.ts'

const subscribe = { type: 'subscribe', id: 1, kind: 'live', table: 'messages' } as const

test('a stream is data lines of frames and nothing else, with the headers of one that nobody may hold back', async () => {
  await using node = await startGateway()
  await using stream = await TestFrameStream.open(node, alice, [subscribe])
  await stream.frame('snapshot')
  node.core.insert('messages', 1, 'two\nlines')
  await stream.frame('delta')
  expect(stream.text).toMatch(/^(data: \{"type":"\w+".*\}\n\n)+$/)
  expect(stream.frames.map(({ type }) => type)).toEqual(['welcome', 'subscribed', 'snapshot', 'delta'])
  expect(stream.response.headers).toMatchObject({
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    connection: 'close',
  })
  expect(stream.response.headers).not.toHaveProperty('transfer-encoding')
})

test('one encoding serves a whole audience: what two streams get is made once', async () => {
  await using node = await startGateway()
  await using first = await TestFrameStream.open(node, alice, [subscribe])
  await using second = await TestFrameStream.open(node, bob, [{ ...subscribe, id: 22 }])
  for (const stream of [first, second]) await stream.frame('snapshot')
  node.core.insert('messages', 1)
  expect(await first.frame('delta')).toEqual(await second.frame('delta'))
  const [entry] = node.core.query({ kind: 'live', table: 'messages', filters: [] }).log
  expect(entry!.outgoing.streamFrame!.toString()).toMatch(/^data: \{"type":"delta","query":1,.*\}\n\n$/)
})

test('where frames go is a secret of its own, and not the name that others see', async () => {
  await using node = await startGateway()
  await using stream = await TestFrameStream.open(node)
  const { connection, stream: key } = stream.of('welcome')[0]!
  expect(key).toMatch(/^[\w-]{22}$/)
  expect(await post(node, `/v1/stream/${connection}`, { seq: 1, frames: [] })).toMatchObject({ status: 404 })
})

const openings: [name: string, body: unknown, token: string | null, code: keyof typeof peerCodes][] = [
  ['no token', { frames: [] }, null, 'TOKEN_MISSING'],
  ['a malformed token', { frames: [] }, 'x.y.z', 'TOKEN_INVALID'],
  ['an expired token', { frames: [] }, tokenOf({ sub: 'alice', exp: 1 }), 'TOKEN_EXPIRED'],
  ['a role that may not be taken', { frames: [] }, tokenOf({ sub: 'alice', role: 'postgres' }), 'ROLE_REFUSED'],
  ['no JSON', '{', alice, 'BAD_FRAME'],
  ['no frames', {}, alice, 'BAD_FRAME'],
  ['a number in its place', { frames: [], seq: 1 }, alice, 'BAD_FRAME'],
  ['a frame of no shape', { frames: [{ type: 'subscribe', id: 1 }] }, alice, 'BAD_FRAME'],
  ['a frame too large', { frames: [{ ...subscribe, filter: 'x'.repeat(70_000) }] }, alice, 'FRAME_TOO_LARGE'],
  ['a body too large', { frames: Array(6000).fill({ ...subscribe }) }, alice, 'FRAME_TOO_LARGE'],
]
test.each(openings)('[P8] a stream that is opened with %s is refused by a status and a code', async (...row) => {
  const [, body, token, code] = row
  await using node = await startGateway()
  const answer = await post(node, '/v1/stream', body, token)
  expect([answer.status, answer.body?.code]).toEqual([peerCodes[code].status, code])
  await until(() => node.gateway.connections() === 0)
  expect(node.core.requests).toEqual([])
})

const postings: [name: string, body: unknown, token: string | null, code: keyof typeof peerCodes][] = [
  ['no token', { seq: 1, frames: [] }, null, 'TOKEN_MISSING'],
  ['an expired token', { seq: 1, frames: [] }, tokenOf({ sub: 'alice', exp: 1 }), 'TOKEN_EXPIRED'],
  ['a token of another subject', { seq: 1, frames: [] }, bob, 'STREAM_UNKNOWN'],
  ['a token of another role', { seq: 1, frames: [] }, tokenOf({ sub: 'alice', role: 'anon' }), 'STREAM_UNKNOWN'],
  ['a token without a subject', { seq: 1, frames: [] }, tokenOf({}), 'STREAM_UNKNOWN'],
  ['no JSON', '{', alice, 'BAD_FRAME'],
  ['no number', { frames: [] }, alice, 'BAD_FRAME'],
  ['a number below the first', { seq: 0, frames: [] }, alice, 'BAD_FRAME'],
  ['a number behind one that is missing', { seq: 2, frames: [] }, alice, 'BAD_FRAME'],
  ['a frame of no shape', { seq: 1, frames: [{ type: 'hello' }] }, alice, 'BAD_FRAME'],
  ['a frame too large', { seq: 1, frames: [{ ...subscribe, table: 'x'.repeat(70_000) }] }, alice, 'FRAME_TOO_LARGE'],
  ['a body too large', { seq: 1, frames: Array(6000).fill(subscribe) }, alice, 'FRAME_TOO_LARGE'],
]
test.each(postings)('[P8] a POST to a stream with %s is refused, and the stream goes on', async (...row) => {
  const [, body, token, code] = row
  await using node = await startGateway()
  await using stream = await TestFrameStream.open(node)
  const answer = await post(node, `/v1/stream/${stream.key}`, body, token)
  expect([answer.status, answer.body?.code]).toEqual([peerCodes[code].status, code])
  await stream.subscribe(1, 'messages')
})

test('only POST is taken, from pages that are allowed, and a browser may ask first', async () => {
  await using node = await startGateway({}, { allowedOrigins: ['https://app.example.com'] })
  for (const path of ['/v1/stream', '/v1/stream/abc', '/v1/poll']) {
    expect((await fetch(node.url + path)).status).toBe(405)
    const ask = (Origin: string) =>
      fetch(node.url + path, {
        method: 'OPTIONS',
        headers: {
          Origin,
          'Access-Control-Request-Method': 'POST',
          'Access-Control-Request-Headers': 'authorization, content-type',
        },
      })
    expect((await ask('https://evil.example')).status).toBe(403)
    const allowed = await ask('https://app.example.com')
    expect(allowed.status).toBe(204)
    expect(allowed.headers.get('access-control-allow-origin')).toBe('https://app.example.com')
    expect(allowed.headers.get('access-control-allow-methods')).toContain('POST')
    expect(allowed.headers.get('access-control-allow-headers')).toMatch(/Authorization, Content-Type/)
  }
  const headers = { Authorization: `Bearer ${alice}`, Origin: 'https://app.example.com' }
  const abort = new AbortController()
  const body = '{"frames":[]}'
  const stream = await fetch(`${node.url}/v1/stream`, { method: 'POST', headers, body, signal: abort.signal })
  expect(stream.headers.get('access-control-allow-origin')).toBe('https://app.example.com')
  abort.abort()
})

test('[P8] what breaks the session ends the stream with its code: an id in use, more frames than may come', async () => {
  await using node = await startGateway({ frameBurst: 20 })
  await using twice = await TestFrameStream.open(node, alice, [subscribe, subscribe])
  expect((await twice.closed).reason).toBe('BAD_FRAME')
  await using flood = await TestFrameStream.open(node)
  const beats = Array.from({ length: 30 }, () => ({ type: 'heartbeat' }))
  await flood.post({ seq: 1, frames: beats })
  expect((await flood.closed).reason).toBe('RATE_LIMITED')
  expect(await flood.post({ seq: 2, frames: [] })).toMatchObject({ status: 404, body: { code: 'STREAM_UNKNOWN' } })
  await until(() => node.gateway.connections() === 0 && node.core.open.size === 0)
})

test('[P7] while nobody reads it a POST waits, is refused to be sent again, and is then done once', async () => {
  await using node = await startGateway({ sendQueueBytes: 50_000, postWaitMs: 100 })
  await using stream = await TestFrameStream.open(node, alice, [subscribe])
  await stream.frame('snapshot')
  const [held] = node.core.of('messages')
  stream.pause()
  for (let standing = 0, id = 0; standing < 30; standing = held!.isBlocked ? standing + 1 : 0) {
    if (!held!.isBlocked) node.core.insert('messages', id++, 'x'.repeat(50_000))
    await new Promise(resolve => setTimeout(resolve, held!.isBlocked ? 2 : 0))
  }
  const frames = [{ ...subscribe, id: 2, table: 'orders' }]
  for (let attempt = 0; attempt < 2; attempt += 1)
    expect(await stream.post({ seq: 1, frames })).toMatchObject({
      status: 503,
      body: { code: 'UNAVAILABLE', retry: true, retryAfterMs: 1000 },
    })
  expect(node.core.of('orders')).toHaveLength(0)
  stream.resume()
  await stream.frame('subscribed', frame => frame.id === 2)
  expect((await stream.post({ seq: 1, frames })).status).toBe(204)
  expect(node.core.requests).toHaveLength(2)
})

test('a member is gone where its client says so, and broken where the stream breaks; what was asked before is done', async () => {
  await using node = await startGateway()
  const end = async (act: (stream: TestFrameStream) => unknown): Promise<string[]> => {
    const stream = await TestFrameStream.open(node)
    await stream.join(1, 'room:42')
    await act(stream)
    await stream.closed
    await until(() => node.door.members.size === 0)
    return node.door.log.slice(-2)
  }
  const frames = [{ type: 'send', id: 1, event: 'e', payload: 'last' }]
  expect(await end(stream => stream.post({ seq: 2, frames, close: true }))).toEqual([
    'send room:42 "last"',
    'close room:42 gone',
  ])
  expect((await end(stream => stream.response.destroy())).at(-1)).toBe('close room:42 broken')
  await until(() => node.gateway.connections() === 0)
})

test('a client that sends heartbeats is gone when they cease; one that never sent any is not asked for them', async () => {
  await using node = await startGateway({ heartbeatMs: 100 })
  await using silent = await TestFrameStream.open(node, bob)
  await using beating = await TestFrameStream.open(node)
  const beat = setInterval(() => beating.send({ type: 'heartbeat' }), 40)
  await beating.until(() => beating.of('heartbeat').length >= 6, 'six heartbeats')
  clearInterval(beat)
  expect((await beating.closed).reason).toBe('HEARTBEAT_MISSED')
  await silent.subscribe(1, 'messages')
})

test('a stream behind a request that is not answered is refused: its bytes would stand in front of that answer', async () => {
  await using node = await startGateway()
  const head = `Host: x\r\nAuthorization: Bearer ${alice}\r\nContent-Length:`
  const opening = '{"frames":[]}'
  await using raw = await RawSocket.connect(
    node,
    `POST /v1/wait HTTP/1.1\r\n${head} 14\r\n\r\n{"txid":"500"}POST /v1/stream HTTP/1.1\r\n${head} ${opening.length}\r\n\r\n${opening}`,
  )
  await until(() => node.gateway.connections() === 2)
  await new Promise(resolve => setTimeout(resolve, 50))
  expect(raw.text).toBe('')
  expect(node.gateway.connections()).toBe(2)
})

describe.each([
  ['a WebSocket', TestSocket],
  ['an event stream', TestFrameStream],
])('over %s', (_wire, Client) => {
  test('a transaction is waited for: where everything stands comes right before that it has passed', async () => {
    await using node = await startGateway()
    await using client = await Client.open(node)
    await client.subscribe(1, 'messages')
    await client.frame('snapshot')
    node.core.insert('messages', 1)
    client.send({ type: 'wait', ref: 5, txid: '4112' })
    expect(await client.frame('waited')).toEqual({ type: 'waited', ref: 5, position: '1f2e3d4c-1010' })
    expect(client.frames.slice(-3)).toMatchObject([
      { type: 'delta' },
      { type: 'heartbeat', positions: { 1: expect.stringMatching(/^1f2e3d4c-1010\./) } },
      { type: 'waited' },
    ])
  })

  test('[P8] a transaction that cannot be waited for is refused under its ref, and everything else goes on', async () => {
    await using node = await startGateway()
    await using client = await Client.open(node)
    const before: Promise<unknown>[] = []
    for (const [ref, txid, code] of [
      [1, '404', 'WAIT_TIMEOUT'],
      [2, 'x', 'TXID_INVALID'],
      [3, '0', 'TXID_INVALID'],
    ] as const) {
      client.send({ type: 'wait', ref, txid })
      before.push(expect(client.frame('error', frame => frame.ref === ref)).resolves.toMatchObject({ code }))
    }
    await Promise.all(before)
    for (const error of client.of('error')) expect(error).not.toHaveProperty('id')
    for (let ref = 10; ref <= 10 + maxWaits; ref += 1) client.send({ type: 'wait', ref, txid: '500' })
    expect(await client.frame('error', frame => frame.ref === 10 + maxWaits)).toMatchObject({ code: 'RATE_LIMITED' })
    await client.subscribe(1, 'messages')
  })

  test('[P3] of rows that are hidden while they wait for a slow reader, nothing is sent', async () => {
    await using node = await startGateway({ sendQueueBytes: 64 * 1024 * 1024 })
    await using client = await Client.open(node)
    await client.subscribe(1, 'messages')
    await client.frame('snapshot')
    const [held] = node.core.of('messages')
    client.pause()
    // More than the kernel takes, a turn each.
    for (let id = 0; id < 400; id += 1) {
      node.core.insert('messages', id, 'x'.repeat(60_000))
      await new Promise(resolve => setImmediate(resolve))
    }
    for (let id = 400; id < 450; id += 1) node.core.insert('messages', id, 'secret')
    await new Promise(resolve => setTimeout(resolve, 30))
    held!.outlet.fail(new TidegateError('TABLE_REFUSED', 'the role may not SELECT this table'))
    client.resume()
    await client.frame('error', frame => frame.id === 1)
    expect(JSON.stringify(client.of('delta')).includes('secret')).toBe(false)
    expect(client.of('delta').length).toBeGreaterThan(0)
    expect(client.of('delta').length).toBeLessThan(400)
  })

  test('whoever is kicked is told so, with nothing behind it', async () => {
    await using node = await startGateway()
    await using client = await Client.open(node)
    await client.subscribe(1, 'messages')
    for (const one of node.gateway.ordered.ofUser('alice')) one.cutOff(new TidegateError('KICKED', 'an operator'))
    expect((await client.closed).reason).toMatch(/^KICKED/)
    expect(client.frames.at(-1)).toMatchObject({ type: 'error', code: 'KICKED' })
    await until(() => node.gateway.connections() === 0 && node.core.open.size === 0)
  })

  test('whoever is to bring newer claims is told within which time, and brings them by a frame', async () => {
    await using node = await startGateway()
    await using client = await Client.open(node)
    for (const one of node.gateway.ordered.ofUser('alice')) one.refresh(5000)
    expect(await client.frame('refresh')).toEqual({ type: 'refresh', withinMs: 5000 })
    client.send({ type: 'auth', token: tokenOf({ sub: 'alice', org: 2 }) })
    await client.frame('authenticated')
    const claims = [...node.gateway.ordered.ofUser('alice')].map(one => one.principal?.claims)
    expect(claims).toEqual([{ sub: 'alice', org: 2 }])
  })

  test('[P4] a node that leaves, or sends connections away, says where everything stands and when to come back', async () => {
    await using leaving = await startGateway()
    await using client = await Client.open(leaving)
    await client.subscribe(1, 'messages')
    await client.frame('snapshot')
    leaving.core.insert('messages', 1)
    void leaving.gateway.drain({ spreadMs: 100, timeoutMs: 2000 })
    await client.closed
    expect(client.frames.slice(-3)).toMatchObject([
      { type: 'delta' },
      { type: 'heartbeat', positions: { 1: expect.anything() } },
      { type: 'error', code: 'GOING_AWAY', retryAfterMs: 100 },
    ])
    await using full = await startGateway()
    await using moved = await Client.open(full)
    const soon = performance.now() + 2
    await until(() => performance.now() > soon)
    full.gateway.sendSurplusAway({ rebalancing: 'r', keep: 0, overMs: 0, nodes: 2, ageMs: 0 })
    await moved.closed
    expect(moved.frames.at(-1)).toMatchObject({ type: 'error', code: 'REBALANCED', retryAfterMs: 0 })
  })

  test('a stream that stands still is told at once, and to whoever comes', async () => {
    await using node = await startGateway({ handshakeMs: 200 })
    await using client = await Client.open(node)
    await client.subscribe(1, 'messages')
    node.core.stale = true
    expect(await client.frame('heartbeat', frame => frame.stale)).toMatchObject({ positions: { 1: expect.anything() } })
    await using late = await Client.open(node, bob)
    await late.subscribe(1, 'messages')
    await late.frame('heartbeat', frame => frame.stale)
  })

  test('[P4] who comes back is told at once where it stands when it has all that it missed', async () => {
    await using node = await startGateway()
    const since = await (async () => {
      await using client = await Client.open(node)
      const { tag } = await client.subscribe(1, 'messages')
      await client.frame('snapshot')
      return `1f2e3d4c-${at(node.core.lsn).lsn.toString(16)}.${tag}`
    })()
    node.core.insert('messages', 1)
    await using again = await Client.open(node)
    await again.subscribe(1, 'messages', { since })
    await again.frame('heartbeat')
    expect(again.frames.map(({ type }) => type)).toEqual(['welcome', 'subscribed', 'delta', 'heartbeat'])
  })
})
