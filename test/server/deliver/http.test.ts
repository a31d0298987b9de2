import { expect, test } from 'vitest'
import { closeCodeOf } from '../../../src/protocol/codes.ts'
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
import { RawSocket } from './support/raw-socket.ts'

const app = 'https://app.example.com'
const bearer = { Authorization: `Bearer ${alice}` }

async function ticketOf(node: TestGateway, headers: Record<string, string> = {}): Promise<string> {
  const response = await fetch(`${node.url}/v1/tickets`, { method: 'POST', headers: { ...bearer, ...headers } })
  expect(response.status).toBe(200)
  const { ticket, expiresAt } = (await response.json()) as { ticket: string; expiresAt: number }
  expect(expiresAt).toBeGreaterThan(Date.now())
  return ticket
}

async function post(node: TestGateway, path: string, body: BodyInit | null, headers: Record<string, string> = bearer) {
  const response = await fetch(node.url + path, { method: 'POST', body, headers })
  return {
    status: response.status,
    headers: response.headers,
    body: (await response.json()) as Record<string, unknown>,
  }
}

test('health depends on nothing; ready says why not, and by node when asked', async () => {
  await using node = await startGateway()
  const health = await fetch(`${node.url}/health`, { headers: { Origin: 'https://evil.example' } })
  expect([health.status, await health.json()]).toEqual([200, { ok: true }])
  const ready = await fetch(`${node.url}/ready`)
  expect([ready.status, await ready.json()]).toEqual([503, { ready: false, scope: 'service' }])
  const own = await fetch(`${node.url}/ready?scope=node`)
  expect([own.status, await own.json()]).toEqual([200, { ready: true, scope: 'node' }])
})

test('a ticket opens one WebSocket, once', async () => {
  await using node = await startGateway()
  const ticket = await ticketOf(node)
  await using socket = await TestSocket.open(node, null, `?ticket=${ticket}`)
  await socket.subscribe(1, 'messages')
  expect([...node.core.open][0]!.principal.claims.sub).toBe('alice')
  const again = new TestSocket(`ws://127.0.0.1:${node.port}/v1/socket?ticket=${ticket}`)
  // By the close code: a page is shown no status of a refused handshake.
  expect(await again.closed).toMatchObject({ code: closeCodeOf('TICKET_INVALID') })
  expect(again.frames).toMatchObject([{ type: 'error', code: 'TICKET_INVALID', retry: true }])
})

test('[P4] an EventSource comes back with the URL it has: its used ticket and an id of its own stream', async () => {
  await using node = await startGateway({}, { allowedOrigins: [app] })
  const ticket = await ticketOf(node, { Origin: app })
  const path = `/v1/live/messages?ticket=${ticket}`
  let id: string
  {
    await using stream = await TestStream.open(node, path, { Origin: app })
    await stream.event('snapshot')
    node.core.insert('messages', 1)
    id = (await stream.event('delta')).id!
  }
  node.core.insert('messages', 2)
  for (let round = 0; round < 2; round += 1) {
    await using again = await TestStream.open(node, path, { Origin: app, 'Last-Event-ID': id })
    await again.event('delta', event => event.text.includes('"id":2'))
    expect(again.events.map(event => event.event)).toEqual(['subscribed', 'delta'])
  }
  const refused = async (headers: Record<string, string>) => {
    const response = await fetch(node.url + path, { headers })
    return [response.status, ((await response.json()) as { code: string }).code]
  }
  expect(await refused({ Origin: app })).toEqual([401, 'TICKET_INVALID'])
  expect(await refused({ Origin: app, 'Last-Event-ID': '1f2e3d4c-1000.othertag' })).toEqual([401, 'TICKET_INVALID'])
})

test('[P2] who read a used ticket in a log does not come in with a position that others have too', async () => {
  await using node = await startGateway()
  const ticket = await ticketOf(node)
  await using stream = await TestStream.open(node, `/v1/live/messages?ticket=${ticket}`, {})
  await stream.event('snapshot')
  node.core.insert('messages', 1)
  const own = (await stream.event('delta')).id!
  // Whoever follows the same query under the same policies is given the same position, with the same tag.
  const shared = own.replace(/!.*/, '')
  expect(own).not.toBe(shared)
  for (const [id, status] of [
    [shared, 401],
    [`${shared}!${'A'.repeat(22)}`, 401],
    [own, 200],
  ] as const) {
    const response = await fetch(`${node.url}/v1/live/messages?ticket=${ticket}`, { headers: { 'Last-Event-ID': id } })
    expect(response.status).toBe(status)
    await response.body?.cancel()
  }
})

test('a JWT in a URL is no token', async () => {
  await using node = await startGateway()
  for (const name of ['token', 'access_token', 'jwt', 'ticket']) {
    const response = await fetch(`${node.url}/v1/live?q=messages&${name}=${alice}`)
    expect(response.status).toBe(401)
    await response.body?.cancel()
  }
})

test.each([
  ['no token', {}, 401, 'TOKEN_MISSING', true],
  ['another scheme', { Authorization: 'Basic YTpi' }, 401, 'TOKEN_INVALID', true],
  ['a malformed token', { Authorization: 'Bearer x.y' }, 401, 'TOKEN_INVALID', true],
  ['an expired token', { Authorization: `Bearer ${tokenOf({ exp: 1 })}` }, 401, 'TOKEN_EXPIRED', true],
  [
    'a role that is not listed',
    { Authorization: `Bearer ${tokenOf({ role: 'postgres' })}` },
    403,
    'ROLE_REFUSED',
    false,
  ],
  ['keys that cannot be fetched', { Authorization: `Bearer ${tokenOf({ down: true })}` }, 503, 'UNAVAILABLE', true],
] as const)('[P8] %s is refused on every address with its code', async (_name, headers, status, code, retry) => {
  await using node = await startGateway()
  const requests: [string, RequestInit][] = [
    ['/v1/live/messages', { headers }],
    ['/v1/changes/messages', { headers: { ...headers, Accept: 'application/json' } }],
    ['/v1/tickets', { headers, method: 'POST' }],
    ['/v1/wait', { headers, method: 'POST', body: '{"txid":"1"}' }],
  ]
  for (const [path, init] of requests) {
    const response = await fetch(node.url + path, init)
    expect(response.status).toBe(status)
    expect(await response.json()).toMatchObject({ code, retry })
  }
  expect(node.core.requests).toEqual([])
})

test('own writes: the position of a transaction, or why there is none', async () => {
  await using node = await startGateway()
  expect((await post(node, '/v1/wait', '{"txid":"4096"}')).body).toEqual({ position: '1f2e3d4c-1000' })
  expect((await post(node, '/v1/wait', '{"txid":4096}')).body).toEqual({ position: '1f2e3d4c-1000' })
  const refusals: [string, number, string][] = [
    ['{"txid":"404"}', 504, 'WAIT_TIMEOUT'],
    ['{"txid":"12x"}', 400, 'TXID_INVALID'],
    ['{"txid":"-1"}', 400, 'TXID_INVALID'],
    ['{"txid":"18446744073709551616"}', 400, 'TXID_INVALID'],
    ['{"txid":""}', 400, 'TXID_INVALID'],
    ['{"txid":null}', 400, 'BAD_FRAME'],
    ['{"txid":"1","more":1}', 400, 'BAD_FRAME'],
    ['{', 400, 'BAD_FRAME'],
    ['', 400, 'BAD_FRAME'],
  ]
  for (const [body, status, code] of refusals) {
    expect(await post(node, '/v1/wait', body)).toMatchObject({ status, body: { code } })
  }
})

test('[P7] a body past the limit is refused, whether its length is said or not', async () => {
  await using node = await startGateway({ maxFrameBytes: 1000 })
  const said = await post(node, '/v1/wait', `{"txid":"${'1'.repeat(2000)}"}`)
  expect(said).toMatchObject({ status: 413, body: { code: 'FRAME_TOO_LARGE', retry: false } })
  const head = `POST /v1/wait HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer ${alice}\r\nTransfer-Encoding: chunked\r\n\r\n`
  await using raw = await RawSocket.connect(node, `${head}7d0\r\n${'1'.repeat(2000)}\r\n`)
  await raw.until(text => text.includes('FRAME_TOO_LARGE'))
  await raw.closed
  expect(raw.text).toMatch(/^HTTP\/1\.1 413 /)
})

test('what is no HTTP, or has headers without end, gets an answer and no more', async () => {
  await using node = await startGateway()
  await using rubbish = await RawSocket.connect(node, 'HELLO\r\n\r\n')
  await rubbish.closed
  expect(rubbish.text).toMatch(/^HTTP\/1\.1 400 [\s\S]*BAD_FRAME/)
  await using endless = await RawSocket.connect(node, `GET /v1/live/x?a=${'y'.repeat(20_000)} HTTP/1.1\r\n`)
  await endless.closed
  expect(endless.text).toMatch(/^HTTP\/1\.1 431 [\s\S]*FRAME_TOO_LARGE/)
  expect((await fetch(`${node.url}/health`)).status).toBe(200)
})

const get = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${alice}\r\n`
const handshake = 'Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n'
const key = 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n'

test.each([
  ['a request without Host', 'GET /v1/live/messages HTTP/1.1\r\n', 400, 'BAD_FRAME'],
  ['CONNECT', 'CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\n', 405, 'METHOD_NOT_ALLOWED'],
  ['an expectation nobody knows', 'GET /nothing HTTP/1.1\r\nHost: a\r\nExpect: more\r\n', 404, 'NOT_FOUND'],
  ['a handshake without a key', `GET /v1/socket HTTP/1.1\r\n${handshake}`, 400, 'BAD_FRAME'],
  ['a handshake of an old version', `GET /v1/socket HTTP/1.1\r\n${handshake}${key}`, 400, 'BAD_FRAME'],
  ['a handshake by POST', `POST /v1/socket HTTP/1.1\r\n${handshake}${key}`, 405, 'METHOD_NOT_ALLOWED'],
  [
    'two lengths of one body',
    'POST /v1/wait HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n',
    400,
    'BAD_FRAME',
  ],
] as const)('[P8] %s is refused by a code', async (_, text, status, code) => {
  await using node = await startGateway()
  await using raw = await RawSocket.connect(node, `${text}\r\n`)
  await raw.until(answer => answer.endsWith('}'))
  expect(raw.text).toMatch(new RegExp(`^HTTP/1\\.1 ${status} [\\s\\S]*"code":"${code}","message":"[^"]{10,}"`))
})

test('[P8] what is no HTTP behind a stream that is being answered cuts it off, and puts no second answer into it', async () => {
  await using node = await startGateway()
  await using raw = await RawSocket.connect(
    node,
    `GET /v1/live/messages HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer ${alice}\r\n\r\n`,
  )
  await raw.until(text => text.includes('event: '))
  // Behind one that waits, too.
  raw.socket.write(`${get('/v1/live/rooms')}\r\nHELLO\r\n\r\n`)
  await raw.closed
  expect(raw.text.match(/HTTP\/1\.1/g)).toHaveLength(1)
})

test('[P7] clients that go in the middle of a body, or of a poll that is being joined, leave no error in the log', async () => {
  await using node = await startGateway()
  let open = (): void => {}
  node.core.gate = new Promise<void>(resolve => {
    open = resolve
  })
  const half = await RawSocket.connect(
    node,
    `${get('/v1/wait').replace('GET', 'POST')}Content-Length: 20\r\n\r\n{"txid"`,
  )
  const poll = await RawSocket.connect(node, `${get('/v1/live/messages')}Accept: application/json\r\n\r\n`)
  await until(() => node.gateway.connections() === 2 && node.core.waiting === 1)
  await Promise.all([half[Symbol.asyncDispose](), poll[Symbol.asyncDispose]()])
  await until(() => node.gateway.connections() === 0)
  open()
  await until(() => node.core.waiting === 0)
  expect((await fetch(`${node.url}/health`)).status).toBe(200)
  expect(node.logged).toEqual([])
})

test.each([
  ['CONNECT', 'CONNECT a.example:443 HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['an Upgrade', `GET /v1/socket HTTP/1.1\r\n${handshake}${key}Sec-WebSocket-Version: 13\r\n\r\n`],
])('[P7] requests that wait behind a stream are let go when %s comes behind them', async (_, text) => {
  await using node = await startGateway()
  const raw = await RawSocket.connect(node, `${get('/v1/live/messages')}\r\n`)
  await raw.until(answer => answer.includes('event: subscribed'))
  raw.socket.write(`${get('/v1/changes/messages')}\r\n${get('/v1/live/rooms')}Accept: application/json\r\n\r\n${text}`)
  await raw.closed
  await until(() => node.gateway.connections() === 0 && node.core.open.size === 0)
})

test('[P7] requests that wait behind another of their connection are answered in order, and let go with it', async () => {
  await using node = await startGateway()
  const poll = `${get('/v1/live/messages')}Accept: application/json\r\n\r\n`
  const raw = await RawSocket.connect(node, `${poll}${get('/v1/live/messages')}\r\n${get('/v1/changes/messages')}\r\n`)
  await raw.until(text => text.includes('event: subscribed'))
  // The stream's bytes go below its response: they may not stand in front of the poll's answer.
  expect(raw.text).toMatch(/^HTTP\/1\.1 (200|304)[\s\S]*HTTP\/1\.1 200[\s\S]*event: subscribed/)
  expect(raw.text.match(/HTTP\/1\.1/g)).toHaveLength(2)
  expect(node.gateway.connections()).toBe(2)
  await raw[Symbol.asyncDispose]()
  await until(() => node.gateway.connections() === 0)
})

test.each([
  ['GET', '/nothing', 404, 'NOT_FOUND'],
  ['GET', '/v1/', 404, 'NOT_FOUND'],
  ['GET', '/v1/live/a/b', 404, 'NOT_FOUND'],
  ['GET', '//v1/live/messages', 404, 'NOT_FOUND'],
  ['POST', '/v1/live/messages', 405, 'METHOD_NOT_ALLOWED'],
  ['GET', '/v1/tickets', 405, 'METHOD_NOT_ALLOWED'],
  ['DELETE', '/v1/wait', 405, 'METHOD_NOT_ALLOWED'],
  ['GET', '/v1/socket', 405, 'METHOD_NOT_ALLOWED'],
] as const)('[P8] %s %s is refused: %i %s', async (method, path, status, code) => {
  await using node = await startGateway()
  const response = await fetch(node.url + path, { method, headers: bearer })
  expect(response.status).toBe(status)
  expect(await response.json()).toMatchObject({ code })
})

test('routes given in answer for themselves, and what they leave is not found', async () => {
  await using node = await startGateway(
    {},
    {
      extraRoutes: (request, response) => {
        if (request.url !== '/page') return false
        response.end('the page')
        return true
      },
    },
  )
  expect(await (await fetch(`${node.url}/page`)).text()).toBe('the page')
  expect((await fetch(`${node.url}/other`)).status).toBe(404)
})

test('only pages on the allow-list may connect, on every wire; by default those of the same host', async () => {
  await using listed = await startGateway({}, { allowedOrigins: [app] })
  await using same = await startGateway()
  const cases: [TestGateway, string, boolean][] = [
    [listed, app, true],
    [listed, 'https://app.example.com.evil.example', false],
    [listed, `http://127.0.0.1:${listed.port}`, false],
    [listed, 'null', false],
    [same, `http://127.0.0.1:${same.port}`, true],
    [same, `http://127.0.0.1:${same.port + 1}`, false],
    [same, 'http://localhost', false],
    [same, 'null', false],
    [same, 'rubbish', false],
  ]
  for (const [node, origin, isAllowed] of cases) {
    const preflight = await fetch(`${node.url}/v1/live/messages`, {
      method: 'OPTIONS',
      headers: { Origin: origin, 'Access-Control-Request-Method': 'GET' },
    })
    expect(preflight.status).toBe(isAllowed ? 204 : 403)
    expect(preflight.headers.get('access-control-allow-origin')).toBe(isAllowed ? origin : null)
    expect(preflight.headers.get('access-control-allow-credentials')).toBe(null)
    const poll = await fetch(`${node.url}/v1/live/messages`, {
      headers: { ...bearer, Origin: origin, Accept: 'application/json' },
    })
    expect(poll.status).toBe(isAllowed ? 200 : 403)
    const body = (await poll.json()) as { code?: string }
    expect(body.code).toBe(isAllowed ? undefined : 'ORIGIN_REFUSED')
    expect(poll.headers.get('vary')).toContain('Origin')
    const socket = new TestSocket(`ws://127.0.0.1:${node.port}/v1/socket`, { headers: { ...bearer, Origin: origin } })
    if (isAllowed) await socket.frame('welcome')
    else expect((await socket.closed).code).toBe(1006)
    await socket[Symbol.asyncDispose]()
  }
  const preflight = await fetch(`${listed.url}/v1/wait`, { method: 'OPTIONS', headers: { Origin: app } })
  expect(preflight.headers.get('access-control-allow-headers')).toContain('Last-Event-ID')
  expect(preflight.headers.get('access-control-allow-methods')).toContain('POST')
})

test('a refusal reaches the page that is allowed: it carries CORS headers too', async () => {
  await using node = await startGateway({}, { allowedOrigins: [app] })
  const response = await fetch(`${node.url}/v1/live/nope`, { headers: { ...bearer, Origin: app } })
  expect(response.status).toBe(404)
  expect(response.headers.get('access-control-allow-origin')).toBe(app)
  expect(response.headers.get('access-control-expose-headers')).toContain('Tidegate-Position')
})

test('an upgrade to HTTP/2 is answered over HTTP/1.1', async () => {
  await using node = await startGateway()
  await using raw = await RawSocket.connect(
    node,
    'GET /health HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n\r\n',
  )
  await raw.until(text => text.includes('{"ok":true}'))
})

test('two requests on one connection, the second after a stream was refused, are both answered', async () => {
  await using node = await startGateway()
  const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${bob}\r\n\r\n`
  await using raw = await RawSocket.connect(node, get('/v1/live/nope') + get('/health'))
  await raw.until(text => text.includes('TABLE_UNKNOWN') && text.includes('{"ok":true}'))
})
