import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { closeCodeOf, type PeerCode } from '../../../src/protocol/codes.ts'
import { parseRanges, TrustedProxies } from '../../../src/server/config/trusted-proxies.ts'
import type { GatewayLimits } from '../../../src/server/deliver/limits.ts'
import { Figures } from '../../../src/server/figures/figures.ts'
import { post, TestFrameStream } from './support/frame-stream.ts'
import {
  alice,
  bob,
  startGateway,
  type TestGateway,
  TestSocket,
  TestStream,
  tokenOf,
  until,
} from './support/gateway.ts'

const trustedProxies = new TrustedProxies(parseRanges('loopback')!)
const behindProxy = (limits: Partial<GatewayLimits>): Promise<TestGateway> => startGateway(limits, { trustedProxies })
const of = (token: string, address?: string): Record<string, string> => ({
  Authorization: `Bearer ${token}`,
  ...(address === undefined ? {} : { 'X-Forwarded-For': address }),
})

interface Refused {
  readonly status: number
  readonly retryAfter: number
  readonly body: { code?: PeerCode; retry?: boolean; retryAfterMs?: number; error?: string }
}

/** What a WebSocket's handshake is refused with. */
function refusedUpgrade({ port }: TestGateway, path: string, headers: Record<string, string> = {}): Promise<Refused> {
  const ws = new WebSocket(`ws://127.0.0.1:${port}${path}`, { headers })
  return new Promise((resolve, reject) => {
    ws.on('open', () => reject(new Error('it was let in')))
    ws.on('error', () => {})
    ws.on('unexpected-response', (_request, response) => {
      let text = ''
      response.on('data', part => (text += part))
      response.on('end', () =>
        resolve({
          status: response.statusCode!,
          retryAfter: Number(response.headers['retry-after']),
          body: JSON.parse(text),
        }),
      )
    })
  })
}

async function refusedFetch(node: TestGateway, path: string, init: RequestInit): Promise<Refused> {
  const response = await fetch(node.url + path, init)
  const retryAfter = Number(response.headers.get('retry-after'))
  return { status: response.status, retryAfter, body: (await response.json()) as Refused['body'] }
}

const json = { Accept: 'application/json' }
/** Each way in, and how it is refused. */
const wires: Record<string, (node: TestGateway, headers: Record<string, string>) => Promise<Refused>> = {
  WebSocket: (node, headers) => refusedUpgrade(node, '/v1/socket', headers),
  SSE: (node, headers) => refusedFetch(node, '/v1/live/messages', { headers }),
  'long-poll': (node, headers) => refusedFetch(node, '/v1/live/messages', { headers: { ...headers, ...json } }),
  'stream of frames': (node, headers) =>
    refusedFetch(node, '/v1/stream', { method: 'POST', headers, body: '{"frames":[]}' }),
  'poll of frames': (node, headers) =>
    refusedFetch(node, '/v1/poll', { method: 'POST', headers, body: '{"frames":[]}' }),
}

test.each(Object.entries(wires))(
  '[P8] past the limit of its user a connection over %s is told so, and when to come back; the oldest stay',
  async (_name, refused) => {
    await using node = await startGateway({ maxConnectionsPerUser: 2 })
    await using first = await TestSocket.open(node)
    await using second = await TestStream.open(node, '/v1/live/messages')
    const { status, retryAfter, body } = await refused(node, of(alice))
    expect(status).toBe(429)
    expect(body).toMatchObject({ code: 'USER_TOO_MANY', retry: true })
    expect(body.retryAfterMs).toBeGreaterThanOrEqual(5000)
    expect(retryAfter).toBeGreaterThanOrEqual(5)
    // Others, and those that were there, notice nothing.
    await using neighbour = await TestSocket.open(node, bob)
    await neighbour.subscribe(1, 'messages')
    await first.subscribe(1, 'messages')
    node.core.insert('messages', 1)
    await Promise.all([neighbour.frame('delta'), first.frame('delta'), second.event('delta')])
  },
)

test.each(Object.entries(wires))(
  '[P8] past the limit of its address a connection over %s is told so; one from elsewhere is let in',
  async (_name, refused) => {
    await using node = await behindProxy({ maxConnectionsPerAddress: 1 })
    await using _there = await TestStream.open(node, '/v1/live/messages', of(bob, '2001:db8::1'))
    const { status, body } = await refused(node, of(alice, '2001:db8::ffff:1'))
    expect(status).toBe(429)
    expect(body).toMatchObject({ code: 'ADDRESS_TOO_MANY', retry: true })
    await using _elsewhere = await TestStream.open(node, '/v1/live/messages', of(alice, '2001:db8:0:1::1'))
  },
)

test('each refusal is counted once, by its code, over every wire', async () => {
  const figures = new Figures()
  await using node = await startGateway({ maxConnectionsPerUser: 1 }, { figures })
  await using _first = await TestSocket.open(node)
  for (const [place, refused] of Object.values(wires).entries()) {
    await refused(node, of(alice))
    expect([...figures.refusals.entries()]).toEqual([['USER_TOO_MANY', place + 1]])
  }
  const count = Object.keys(wires).length
  await refusedUpgrade(node, `/realtime/v1/websocket?apikey=${alice}&vsn=1.0.0`)
  expect(figures.refusals.of('USER_TOO_MANY')).toBe(count + 1)
})

test('[P8] a page that sends its token as a frame, or came by a ticket, is told by the close code', async () => {
  await using node = await startGateway({ maxConnectionsPerUser: 1 })
  await using _first = await TestSocket.open(node)
  await using late = await TestSocket.open(node, null)
  late.send({ type: 'auth', token: alice })
  expect(await late.closed).toMatchObject({ code: closeCodeOf('USER_TOO_MANY') })
  expect(late.of('error')[0]).toMatchObject({ code: 'USER_TOO_MANY', retry: true })
  const { ticket } = (await post(node, '/v1/tickets', '')).body as unknown as { ticket: string }
  await using page = new TestSocket(`ws://127.0.0.1:${node.port}/v1/socket?ticket=${ticket}`)
  expect(await page.closed).toMatchObject({ code: closeCodeOf('USER_TOO_MANY') })
})

test('[P8] a client of Supabase is refused at the door by its key, and by its own token at the channel', async () => {
  await using node = await behindProxy({ maxConnectionsPerUser: 1, maxConnectionsPerAddress: 2 })
  const anybody = tokenOf({ role: 'anon' })
  await using _alice = await TestSocket.open(node)
  const atTheDoor = await refusedUpgrade(node, `/realtime/v1/websocket?apikey=${alice}&vsn=1.0.0`)
  expect(atTheDoor).toMatchObject({ status: 429, body: { code: 'USER_TOO_MANY' } })
  const ws = new WebSocket(`ws://127.0.0.1:${node.port}/realtime/v1/websocket?apikey=${anybody}&vsn=1.0.0`)
  const answers: { event: string; payload: { status: string; response: { reason?: string } } }[] = []
  ws.on('message', data => answers.push(JSON.parse(String(data))))
  await new Promise(resolve => ws.on('open', resolve))
  const join = (name: string, token: string) => {
    const payload = { config: {}, access_token: token }
    ws.send(JSON.stringify({ topic: `realtime:${name}`, event: 'phx_join', payload, ref: name, join_ref: name }))
  }
  const replies = () => answers.filter(({ event }) => event === 'phx_reply')
  join('1', alice)
  await until(() => replies().length === 1)
  expect(replies()[0]!.payload.status).toBe('error')
  expect(replies()[0]!.payload.response.reason).toContain('ConnectionRateLimitReached')
  // Two channels of one user over one socket are one connection.
  join('2', bob)
  join('3', bob)
  await until(() => replies().length === 3)
  expect(replies().map(({ payload }) => payload.status)).toEqual(['error', 'ok', 'ok'])
  expect(await refusedUpgrade(node, '/v1/socket', of(bob, '9.9.9.9'))).toMatchObject({
    body: { code: 'USER_TOO_MANY' },
  })
  const sameAddress = await refusedUpgrade(node, `/realtime/v1/websocket?apikey=${anybody}&vsn=1.0.0`)
  expect(sameAddress).toMatchObject({ status: 429, body: { code: 'ADDRESS_TOO_MANY' } })
  ws.close()
  await until(() => node.gateway.connections() === 1)
  await using _bob = await TestSocket.open(node, bob)
})

test('renewing, a second role, a token without a subject and requests beside a stream cost a user nothing', async () => {
  await using node = await startGateway({ maxConnectionsPerUser: 1 })
  await using stream = await TestFrameStream.open(node)
  stream.send({ type: 'auth', token: tokenOf({ sub: 'alice', again: true }) })
  await stream.sent()
  await stream.subscribe(1, 'messages')
  expect(stream.answers.map(({ status }) => status)).toEqual([204, 204])
  await using _admin = await TestSocket.open(node, tokenOf({ sub: 'alice', role: 'admin' }))
  const nobody = tokenOf({ role: 'anon' })
  await using _one = await TestSocket.open(node, nobody)
  await using _two = await TestSocket.open(node, nobody)
  expect(node.gateway.connections()).toBe(4)
})

test('[P7] nothing is left of addresses and users when all have gone, however they went', async () => {
  await using node = await behindProxy({ maxConnectionsPerUser: 2, maxConnectionsPerAddress: 2 })
  for (let round = 0; round < 3; round++) {
    await using one = await TestSocket.open(node)
    await using _two = await TestStream.open(node, '/v1/live/messages')
    await one.subscribe(1, 'messages')
    for (const refused of Object.values(wires)) expect((await refused(node, of(bob))).status).toBe(429)
    expect((await fetch(`${node.url}/v1/live/messages`, { headers: of('rubbish', '1.1.1.1') })).status).toBe(401)
    expect(node.gateway.listed()).toBeGreaterThan(0)
  }
  await until(() => node.gateway.connections() === 0)
  expect(node.gateway.listed()).toBe(0)
})

const request = (line: string, headers: string): string => `${line} HTTP/1.1\r\nHost: a\r\n${headers}\r\n`
const owned = `Authorization: Bearer ${alice}\r\n`
const streamed = request('GET /v1/live/messages', owned)
const polled = request('GET /v1/live/messages', `${owned}Accept: application/json\r\n`)
const upgraded = request(
  'GET /v1/socket',
  `${owned}Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n`,
)

test.each<[string, string]>([
  ['three streams in one go', streamed + streamed + streamed],
  ['a stream, polls and an upgrade behind it', streamed + polled + polled + upgraded],
  ['an upgrade, and a request behind it', upgraded + polled],
  ['a stream, and what is no HTTP', `${streamed}\u0000\u0001nonsense\r\n\r\n`],
  ['an upgrade of no version', upgraded.replace('Version: 13', 'Version: 1')],
  ['a body that never comes', request('POST /v1/poll', `${owned}Content-Length: 9\r\n`)],
])('[P7] places come back from sockets that end, are reset or half closed: %s', async (_, bytes) => {
  await using node = await behindProxy({ maxConnectionsPerUser: 5, maxConnectionsPerAddress: 5 })
  for (const leave of [
    (socket: Socket) => socket.destroy(),
    (socket: Socket) => socket.resetAndDestroy(),
    (socket: Socket) => void socket.end(() => setImmediate(() => socket.destroy())),
  ])
    for (const isHasty of [true, false]) {
      const socket = connect(node.port, '127.0.0.1')
      socket.on('error', () => {})
      await once(socket, 'connect')
      socket.write(bytes)
      if (!isHasty) await Promise.race([once(socket, 'data'), until(() => node.gateway.connections() > 0)])
      leave(socket)
      await until(() => node.gateway.connections() === 0)
      expect(node.gateway.listed()).toBe(0)
    }
})

test('what a peer that is not trusted says of its client is passed over', async () => {
  await using node = await startGateway({ maxConnectionsPerAddress: 1 })
  await using _there = await TestStream.open(node, '/v1/live/messages', of(alice, '1.1.1.1'))
  const { body } = await wires.SSE!(node, of(alice, '2.2.2.2'))
  expect(body.code).toBe('ADDRESS_TOO_MANY')
  const page = { ...of(alice), Origin: 'https://app.example', 'X-Forwarded-Host': 'app.example' }
  expect((await wires.SSE!(node, page)).body.code).toBe('ORIGIN_REFUSED')
})

test.each([
  ['https://app.example', { 'X-Forwarded-Host': 'app.example', 'X-Forwarded-Proto': 'https' }, true],
  ['https://app.example', { Forwarded: 'for=1.2.3.4;host=app.example;proto=https' }, true],
  ['https://app.example:8443', { 'X-Forwarded-Host': 'app.example:8443', 'X-Forwarded-Proto': 'https' }, true],
  // Nobody but somebody in between serves a page of this host without TLS.
  ['http://app.example', { 'X-Forwarded-Host': 'app.example', 'X-Forwarded-Proto': 'https' }, false],
  // A proxy behind another one that ends TLS tells how it was reached itself.
  ['https://app.example', { 'X-Forwarded-Host': 'app.example', 'X-Forwarded-Proto': 'http' }, true],
  ['https://evil.example', { 'X-Forwarded-Host': 'app.example', 'X-Forwarded-Proto': 'https' }, false],
])('a page of %s behind a proxy with %j: let in %s', async (origin, headers, isLetIn) => {
  await using node = await behindProxy({})
  const response = await fetch(`${node.url}/v1/live/messages`, {
    headers: { ...of(alice), ...json, ...headers, Origin: origin },
  })
  expect(response.status).toBe(isLetIn ? 200 : 403)
  await response.arrayBuffer()
})
