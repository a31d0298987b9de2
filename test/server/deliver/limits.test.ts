import { expect, test } from 'vitest'
import { closeCodeOf, type PeerCode, retryOfClose } from '../../../src/protocol/codes.ts'
import { alice, bob, startGateway, TestSocket, TestStream, tokenOf, until } from './support/gateway.ts'
import { clientFrame, RawSocket } from './support/raw-socket.ts'

const text = (value: unknown) => clientFrame(JSON.stringify(value))
const subscribe = { type: 'subscribe', id: 1, kind: 'live', table: 'messages' }

const malformed: [name: string, bytes: Buffer | Buffer[], code: PeerCode][] = [
  ['no JSON', clientFrame('{'), 'BAD_FRAME'],
  ['an empty frame', clientFrame(''), 'BAD_FRAME'],
  ['a number', clientFrame('1'), 'BAD_FRAME'],
  ['null', clientFrame('null'), 'BAD_FRAME'],
  ['an array', clientFrame('[]'), 'BAD_FRAME'],
  ['thirty thousand nested arrays', clientFrame('['.repeat(30_000) + ']'.repeat(30_000)), 'BAD_FRAME'],
  ['no type', text({ id: 1 }), 'BAD_FRAME'],
  ['an unknown type', text({ type: 'publish' }), 'BAD_FRAME'],
  ['a type from the prototype', text({ type: 'constructor' }), 'BAD_FRAME'],
  ['a type that is an object', text({ type: {} }), 'BAD_FRAME'],
  ['a frame of the server', text({ type: 'welcome', connection: 'x', heartbeatMs: 1, expiresAt: null }), 'BAD_FRAME'],
  ['subscribe without a table', text({ type: 'subscribe', id: 1, kind: 'live' }), 'BAD_FRAME'],
  ['an id that is text', text({ ...subscribe, id: '1' }), 'BAD_FRAME'],
  ['an id that is a fraction', text({ ...subscribe, id: 1.5 }), 'BAD_FRAME'],
  ['an id below zero', text({ ...subscribe, id: -1 }), 'BAD_FRAME'],
  ['an id past 2^53', clientFrame('{"type":"unsubscribe","id":9007199254740993}'), 'BAD_FRAME'],
  ['another kind', text({ ...subscribe, kind: 'poll' }), 'BAD_FRAME'],
  ['a filter that is a list', text({ ...subscribe, filter: ['a=eq.1'] }), 'BAD_FRAME'],
  ['a misspelt filter', text({ ...subscribe, filtr: 'a=eq.1' }), 'BAD_FRAME'],
  ['an empty select', text({ ...subscribe, select: [] }), 'BAD_FRAME'],
  ['an unknown operation', text({ ...subscribe, events: ['truncate'] }), 'BAD_FRAME'],
  ['a since of null', text({ ...subscribe, since: null }), 'BAD_FRAME'],
  ['__proto__', clientFrame('{"type":"heartbeat","__proto__":{"x":1}}'), 'BAD_FRAME'],
  ['an auth without a token', text({ type: 'auth' }), 'BAD_FRAME'],
  ['the same id twice', [text(subscribe), text(subscribe)], 'BAD_FRAME'],
  ['binary', clientFrame(JSON.stringify(subscribe), { opcode: 2 }), 'BAD_FRAME'],
  ['text that is no UTF-8', clientFrame(Buffer.from([0x22, 0xff, 0x22])), 'BAD_FRAME'],
  ['no mask', clientFrame('{"type":"heartbeat"}', { masked: false }), 'BAD_FRAME'],
  ['a reserved opcode', clientFrame('x', { opcode: 3 }), 'BAD_FRAME'],
  ['a continuation of nothing', clientFrame('x', { opcode: 0 }), 'BAD_FRAME'],
  ['a ping in two fragments', clientFrame('x', { opcode: 9, fin: false }), 'BAD_FRAME'],
  ['a frame past the limit', clientFrame(`"${'x'.repeat(70_000)}"`), 'FRAME_TOO_LARGE'],
  [
    'a length past the limit, and no bytes',
    Buffer.from([0x81, 0xff, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff]),
    'FRAME_TOO_LARGE',
  ],
  ['a length of 2^63', Buffer.from([0x81, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0]), 'FRAME_TOO_LARGE'],
  [
    'a flood of tiny fragments',
    [
      clientFrame('"', { fin: false }),
      ...Array.from({ length: 5000 }, () => clientFrame('x', { opcode: 0, fin: false })),
    ],
    'FRAME_TOO_LARGE',
  ],
  ['a flood of frames', Array.from({ length: 300 }, () => text({ type: 'heartbeat' })), 'RATE_LIMITED'],
  ['a flood of pings', Array.from({ length: 300 }, () => clientFrame('', { opcode: 9 })), 'RATE_LIMITED'],
]

test.each(malformed)(
  '[P7] %s closes this connection with its code, and a neighbour still gets its rows',
  async (...row) => {
    const [, bytes, code] = row
    await using node = await startGateway({ closeTimeoutMs: 20 })
    await using neighbour = await TestSocket.open(node, bob)
    await neighbour.subscribe(1, 'messages')
    await using raw = await RawSocket.upgrade(node, alice)
    raw.socket.write(Array.isArray(bytes) ? Buffer.concat(bytes) : bytes)
    expect(await raw.closeCode()).toBe(closeCodeOf(code))
    expect(raw.text).toContain(code)
    node.core.insert('messages', 1)
    await neighbour.frame('delta')
    await until(() => node.gateway.connections() === 1)
    expect(node.core.open.size).toBe(1)
  },
)

test('[P8] the error frame before the close says why, and the close reason fits the standard', async () => {
  await using node = await startGateway()
  await using socket = await TestSocket.open(node)
  socket.ws.send(JSON.stringify({ ...subscribe, [`ж${'y'.repeat(300)}`]: 1 }))
  const { code, reason } = await socket.closed
  expect(retryOfClose(code)).toBe('never')
  expect(reason).toMatch(/^BAD_FRAME: /)
  expect(Buffer.byteLength(reason)).toBeLessThan(123)
  expect(socket.frames.at(-1)).toMatchObject({ type: 'error', code: 'BAD_FRAME', retry: false })
})

test('a frame in a few fragments, at one byte a time, is one frame', async () => {
  await using node = await startGateway()
  await using raw = await RawSocket.upgrade(node, alice)
  const bytes = Buffer.concat([
    clientFrame('{"type":"unsub', { fin: false }),
    clientFrame('', { opcode: 9 }),
    clientFrame('scribe","id"', { opcode: 0, fin: false }),
    clientFrame(':3}', { opcode: 0 }),
  ])
  raw.socket.setNoDelay()
  for (const byte of bytes) {
    raw.socket.write(Buffer.from([byte]))
    await new Promise(resolve => setImmediate(resolve))
  }
  await raw.until(received => received.includes('{"type":"unsubscribed","id":3}'))
})

test('a token that does not come in time closes the connection', async () => {
  await using node = await startGateway({ handshakeMs: 50 })
  await using socket = await TestSocket.open(node, null)
  expect(await socket.closed).toMatchObject({ code: closeCodeOf('TOKEN_MISSING') })
  expect(retryOfClose(closeCodeOf('TOKEN_MISSING'))).toBe('token')
})

test.each([
  ['a subscribe frame', { type: 'subscribe', id: 1, kind: 'live', table: 'messages' }, 'TOKEN_MISSING'],
  ['a bad token', { type: 'auth', token: 'x.y' }, 'TOKEN_INVALID'],
  ['an expired token', { type: 'auth', token: tokenOf({ sub: 'alice', exp: 1 }) }, 'TOKEN_EXPIRED'],
  ['a role that is not listed', { type: 'auth', token: tokenOf({ role: 'postgres' }) }, 'ROLE_REFUSED'],
  ['keys that cannot be fetched', { type: 'auth', token: tokenOf({ down: true }) }, 'UNAVAILABLE'],
] as const)('%s as the first frame closes the connection with its code', async (_name, frame, code) => {
  await using node = await startGateway()
  await using socket = await TestSocket.open(node, null)
  socket.send(frame)
  expect(await socket.closed).toMatchObject({ code: closeCodeOf(code) })
})

test.each([
  ['a bad token', { Authorization: 'Bearer x.y' }, '', 401, 'TOKEN_INVALID'],
  ['another scheme', { Authorization: 'Basic abc' }, '', 401, 'TOKEN_INVALID'],
  ['a role that is not listed', { Authorization: `Bearer ${tokenOf({ role: 'postgres' })}` }, '', 403, 'ROLE_REFUSED'],
  ['a page of elsewhere', { Origin: 'https://evil.example' }, '', 403, 'ORIGIN_REFUSED'],
  ['another path', {}, '/v1/sockets', 404, 'NOT_FOUND'],
] as const)(
  '%s is refused before the upgrade, with a status and a body',
  async (_name, headers, path, status, code) => {
    await using node = await startGateway()
    const socket = new TestSocket(`ws://127.0.0.1:${node.port}${path || '/v1/socket'}`, { headers })
    const answer = await new Promise<{ status: number; body: string }>(resolve => {
      socket.ws.on('unexpected-response', (_request, response) => {
        let body = ''
        response.on('data', part => {
          body += part
        })
        response.on('end', () => resolve({ status: response.statusCode!, body }))
      })
    })
    expect(answer.status).toBe(status)
    expect(JSON.parse(answer.body)).toMatchObject({ code, retry: status === 401 })
    await until(() => node.gateway.connections() === 0)
  },
)

test('more connections than the limit are refused, and a place is free again when one leaves', async () => {
  await using node = await startGateway({ maxConnections: 2 })
  const first = await TestSocket.open(node)
  await using stream = await TestStream.open(node, '/v1/live/messages')
  expect(node.gateway.connections()).toBe(2)
  const refused = await fetch(`${node.url}/v1/live/messages`, { headers: { Authorization: `Bearer ${alice}` } })
  expect(refused.status).toBe(503)
  expect(Number(refused.headers.get('retry-after'))).toBeGreaterThan(0)
  expect(await refused.json()).toMatchObject({ code: 'TOO_MANY_CONNECTIONS', retry: true })
  const second = new TestSocket(`ws://127.0.0.1:${node.port}/v1/socket`)
  const status = await new Promise(resolve =>
    second.ws.on('unexpected-response', (_request, response) => resolve(response.statusCode)),
  )
  expect(status).toBe(503)
  await first[Symbol.asyncDispose]()
  await until(() => node.gateway.connections() === 1)
  await using third = await TestSocket.open(node)
  await third.subscribe(1, 'messages')
  await stream.event('snapshot')
})

test('a client that drips its headers is closed', async () => {
  await using node = await startGateway({ handshakeMs: 100 })
  await using raw = await RawSocket.connect(node, 'GET /v1/live/messages HTTP/1.1\r\nHost: x\r\n')
  await raw.closed
  expect(raw.text).toMatch(/^HTTP\/1\.1 4/)
})
