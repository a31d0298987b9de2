// The operators' door over real sockets: who passes, from where, how many at once, and what the answers carry.
import { request as httpRequest } from 'node:http'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { noProxies, parseRanges, TrustedProxies } from '../../../src/server/config/trusted-proxies.ts'
import { answerJson, type Exchange } from '../../../src/server/deliver/exchange.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { AdminServer } from '../../../src/server/operator/admin-server.ts'
import { OperatorDoor } from '../../../src/server/operator/door.ts'

const newest = 'the-newest-token-of-the-operators'
const older = 'an-older-token-of-the-operators'
const probes = { health: () => ({ ok: true }), ready: () => ({ ready: false, body: { why: 'a test' } }) }
const log = createLog('silent')
const random = () => 0.5

/** Those that wait until a test answers them. */
const waiting: Exchange[] = []
const say = async (exchange: Exchange): Promise<void> => answerJson(exchange, 200, '{"said":true}')
const hold = async (exchange: Exchange): Promise<void> => void waiting.push(exchange)

const openDoor = (): OperatorDoor =>
  new OperatorDoor({
    tokens: [newest, older],
    log,
    random,
    routes: [
      { method: 'GET', path: '/say', answer: say },
      { method: 'POST', path: '/say', answer: say },
      { method: 'GET', path: '/page', isOpen: true, answer: say },
      { method: 'GET', path: '/wait', answer: hold },
      { method: 'POST', path: '/do', answer: hold },
      { method: 'GET', path: '/open-wait', isOpen: true, answer: hold },
    ],
  })

let door: OperatorDoor
let server: AdminServer
let url: string

beforeAll(async () => {
  door = openDoor()
  server = new AdminServer({ probes, door, log, random })
  url = `http://127.0.0.1:${await server.listen('127.0.0.1', 0)}`
})

afterAll(() => server.close())

afterEach(() => {
  for (const exchange of waiting.splice(0)) exchange.request.socket.destroy()
})

const codeOf = async (response: Response): Promise<string> => {
  const text = await response.text()
  return response.ok ? 'ok' : (JSON.parse(text) as { code: string }).code
}

interface Asked {
  readonly at?: string
  readonly token?: string | null
  readonly method?: string
  readonly headers?: Record<string, string>
}

const ask = ({ at = url, token = newest, method = 'GET', headers = {} }: Asked, path: string): Promise<Response> =>
  fetch(`${at}${path}`, {
    method,
    headers: { ...(token === null ? {} : { authorization: `Bearer ${token}` }), ...headers },
  })

/** As a browser sends it: fetch of Node does not let a caller name the Host. @returns status, code and headers */
function askRaw(path: string, headers: Record<string, string>, method = 'GET') {
  return new Promise<{ status: number; code: string; headers: Record<string, unknown> }>((resolve, reject) => {
    const sent = httpRequest(`${url}${path}`, { method, headers, agent: false }, response => {
      const parts: Buffer[] = []
      response.on('data', part => parts.push(part))
      response.on('end', () => {
        const body = JSON.parse(Buffer.concat(parts).toString())
        resolve({ status: response.statusCode!, code: body.code ?? 'ok', headers: response.headers })
      })
    })
    sent.on('error', reject)
    sent.end()
  })
}

test.each([
  ['the newest token', newest, 'ok'],
  ['an older one', older, 'ok'],
  ['no token', null, 'TOKEN_MISSING'],
  ['another', 'the-newest-token-of-the-operator?', 'TOKEN_INVALID'],
  ['a prefix', newest.slice(0, -1), 'TOKEN_INVALID'],
  ['more than a token', `${newest}x`, 'TOKEN_INVALID'],
  ['both at once', `${newest}${older}`, 'TOKEN_INVALID'],
  ['the other case', newest.toUpperCase(), 'TOKEN_INVALID'],
])('[P2] %s', async (_, token, code) => {
  expect(await ask({ token }, '/say').then(codeOf)).toBe(code)
  expect(await ask({ token, method: 'POST' }, '/say').then(codeOf)).toBe(code)
})

test.each([
  ['Basic b3BlcmF0b3I6b3BlcmF0b3I=', 'TOKEN_INVALID'],
  [`Token ${newest}`, 'TOKEN_INVALID'],
  [`${newest}`, 'TOKEN_INVALID'],
  ['Bearer', 'TOKEN_INVALID'],
  [`bearer ${newest}`, 'ok'],
])('the header %s', async (authorization, code) => {
  expect(await ask({ token: null, headers: { authorization } }, '/say').then(codeOf)).toBe(code)
})

test('a token in the URL, in a cookie or in another header opens nothing', async () => {
  const headers = { cookie: `token=${newest}`, 'x-operator-token': newest }
  for (const name of ['token', 'ticket', 'access_token', 'apikey'])
    expect(await ask({ token: null, headers }, `/say?${name}=${newest}`).then(codeOf)).toBe('TOKEN_MISSING')
})

test('an open page needs no token, and tells nothing of one', async () => {
  expect(await ask({ token: null }, '/page').then(codeOf)).toBe('ok')
  expect(await ask({ token: 'wrong-all-the-way-through' }, '/page').then(codeOf)).toBe('ok')
})

test.each([
  ['/say', 'PUT', 405, 'METHOD_NOT_ALLOWED'],
  ['/page', 'POST', 405, 'METHOD_NOT_ALLOWED'],
  ['/nothing', 'GET', 404, 'NOT_FOUND'],
  ['/say/', 'GET', 404, 'NOT_FOUND'],
  ['//say', 'GET', 404, 'NOT_FOUND'],
  ['/%73ay', 'GET', 404, 'NOT_FOUND'],
  ['/SAY', 'GET', 404, 'NOT_FOUND'],
])('[P8] %s takes no %s', async (path, method, status, code) => {
  const response = await ask({ method }, path)
  expect([response.status, await codeOf(response)]).toEqual([status, code])
})

test('pages of other origins are refused whatever they send, and no answer lets them read it', async () => {
  const host = new URL(url).host
  const authorization = `Bearer ${newest}`
  for (const origin of ['https://evil.example', 'null', `https://${host}.evil.example`, 'http://127.0.0.1:1'])
    for (const method of ['GET', 'POST', 'OPTIONS']) {
      const answer = await askRaw('/say', { origin, authorization, host }, method)
      expect([origin, answer.status, answer.code]).toEqual([origin, 403, 'ORIGIN_REFUSED'])
      expect(Object.keys(answer.headers).filter(name => name.startsWith('access-control'))).toEqual([])
    }
  const own = await askRaw('/say', { origin: `http://${host}`, authorization, host })
  expect([own.status, own.headers['access-control-allow-origin']]).toEqual([200, undefined])
})

test('behind a proxy that is trusted an own page is one of the host that it names, and of no other', async () => {
  const behind = async (trustedProxies: TrustedProxies, host: string): Promise<string> => {
    const other = new AdminServer({ probes, door, log, random, trustedProxies })
    const at = `http://127.0.0.1:${await other.listen('127.0.0.1', 0)}`
    const headers = {
      origin: 'https://ops.example',
      'x-forwarded-host': host,
      'x-forwarded-proto': 'https',
      'x-forwarded-for': '192.0.2.7',
    }
    const code = await ask({ at, headers }, '/say').then(codeOf)
    await other.close()
    return code
  }
  const trusted = new TrustedProxies(parseRanges('127.0.0.1')!)
  expect(await behind(trusted, 'ops.example')).toBe('ok')
  expect(await behind(trusted, 'another.example')).toBe('ORIGIN_REFUSED')
  expect(await behind(noProxies, 'ops.example')).toBe('ORIGIN_REFUSED')
})

test.each(['/say', '/page', '/nothing-like-it', '/say?refused'])(
  'every answer of %s carries the headers',
  async path => {
    const response = await ask({ token: path.endsWith('refused') ? null : newest }, path)
    await response.arrayBuffer()
    const sent = Object.fromEntries(response.headers)
    expect(sent).toMatchObject({ 'cache-control': 'no-store' })
    if (path === '/nothing-like-it') return
    expect(sent).toMatchObject({
      'content-security-policy': "default-src 'none'; frame-ancestors 'none'",
      'cross-origin-resource-policy': 'same-origin',
      'referrer-policy': 'no-referrer',
      'x-content-type-options': 'nosniff',
      'x-frame-options': 'DENY',
    })
  },
)

test('[P7] 32 are answered at once, and the next is told BUSY until one is over; open pages have places of their own', async () => {
  const abort = new AbortController()
  const held = Array.from({ length: 32 }, () =>
    fetch(`${url}/wait`, { headers: { authorization: `Bearer ${newest}` }, signal: abort.signal }).catch(() => null),
  )
  await expect.poll(() => waiting.length).toBe(32)
  const busy = await ask({}, '/say')
  expect([busy.status, Number(busy.headers.get('retry-after')) > 0, await codeOf(busy)]).toEqual([503, true, 'BUSY'])
  expect(await ask({ token: null }, '/page').then(codeOf)).toBe('ok')
  expect(await ask({ token: null }, '/say').then(codeOf)).toBe('TOKEN_MISSING')
  abort.abort()
  await Promise.all(held)
  await expect.poll(() => ask({}, '/say').then(codeOf)).toBe('ok')
})

test('[P7] whoever has no token and holds open pages keeps no operator out', async () => {
  const abort = new AbortController()
  const held = Array.from({ length: 16 }, () => fetch(`${url}/open-wait`, { signal: abort.signal }).catch(() => null))
  await expect.poll(() => waiting.length).toBe(16)
  expect(await ask({ token: null }, '/page').then(codeOf)).toBe('BUSY')
  expect(await ask({}, '/say').then(codeOf)).toBe('ok')
  abort.abort()
  await Promise.all(held)
})

test('while the node leaves, who waits is told so, who looks may look on, and nothing more is carried out', async () => {
  const leaving = openDoor()
  const other = new AdminServer({ probes, door: leaving, log, random })
  const at = `http://127.0.0.1:${await other.listen('127.0.0.1', 0)}`
  const waits = ask({ at, method: 'POST' }, '/do')
  await expect.poll(() => waiting.length).toBe(1)
  leaving.drain()
  expect(await waits.then(codeOf)).toBe('GOING_AWAY')
  expect(await ask({ at, method: 'POST' }, '/say').then(codeOf)).toBe('GOING_AWAY')
  expect(await ask({ at }, '/say').then(codeOf)).toBe('ok')
  await other.close()
})

test('an answer that is made while the node leaves comes too late, and is no fault that the log tells', async () => {
  const goOn = Promise.withResolvers<void>()
  const isOver = Promise.withResolvers<void>()
  const told: unknown[] = []
  const telling = { ...log, error: (...line: unknown[]) => void told.push(line) } as typeof log
  const late = async ({ response }: Exchange): Promise<void> => {
    waiting.push({} as Exchange)
    await goOn.promise
    setImmediate(isOver.resolve)
    response.writeHead(200).end('late')
  }
  const leaving = new OperatorDoor({
    tokens: [newest],
    log: telling,
    random,
    routes: [{ method: 'GET', path: '/late', answer: late }],
  })
  const other = new AdminServer({ probes, door: leaving, log: telling, random })
  const at = `http://127.0.0.1:${await other.listen('127.0.0.1', 0)}`
  const asked = ask({ at }, '/late')
  await expect.poll(() => waiting.splice(0).length).toBe(1)
  leaving.drain()
  goOn.resolve()
  expect(await asked.then(codeOf)).toBe('GOING_AWAY')
  await isOver.promise
  expect(told).toEqual([])
  await other.close()
})

test('a port of its own answers probes to whoever asks, and nothing else without a token to open it', async () => {
  expect((await ask({ token: null }, '/health')).status).toBe(200)
  const ready = await ask({ token: null }, '/ready')
  expect([ready.status, await ready.json()]).toEqual([503, { why: 'a test' }])
  const closed = new AdminServer({ probes, door: null, log, random })
  const at = `http://127.0.0.1:${await closed.listen('127.0.0.1', 0)}`
  expect((await ask({ at, token: null }, '/health')).status).toBe(200)
  for (const token of [newest, null]) expect(await ask({ at, token }, '/say').then(codeOf)).toBe('NOT_FOUND')
  await closed.close()
})
