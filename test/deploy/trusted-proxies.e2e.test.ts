// A gateway behind deploy/nginx.conf as it stands: whose connections it counts, and which pages it lets in.
import { request } from 'node:http'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { parseRanges, TrustedProxies } from '../../src/server/config/trusted-proxies.ts'
import { alice, startGateway, type TestGateway, until } from '../server/deliver/support/gateway.ts'
import { type Nginx, startNginx } from './nginx.ts'

let gateway: TestGateway
let nginx: Nginx

beforeAll(async () => {
  const trustedProxies = new TrustedProxies(parseRanges('loopback')!)
  gateway = await startGateway({ maxConnectionsPerAddress: 1 }, { trustedProxies })
  nginx = await startNginx([gateway.port])
})

afterAll(async () => {
  await nginx?.[Symbol.asyncDispose]()
  await gateway?.[Symbol.asyncDispose]()
})

/** Opens a WebSocket through nginx. @param from one of the addresses of this machine */
function connect(
  from: string,
  headers: Record<string, string> = {},
): Promise<{ ws: WebSocket; status: number; code?: string }> {
  const url = `${nginx.url.replace('http', 'ws')}/v1/socket`
  const ws = new WebSocket(url, { localAddress: from, headers: { Authorization: `Bearer ${alice}`, ...headers } })
  return new Promise((resolve, reject) => {
    ws.on('open', () => resolve({ ws, status: 101 }))
    ws.on('error', reject)
    ws.on('unexpected-response', (_request, response) => {
      let text = ''
      response.on('data', part => (text += part))
      response.on('end', () => resolve({ ws, status: response.statusCode!, code: JSON.parse(text).code }))
    })
  })
}

test('clients behind nginx are counted by their own addresses, whatever they say of themselves', async () => {
  const one = await connect('127.0.0.2')
  expect(one.status).toBe(101)
  for (const headers of [{}, { 'X-Forwarded-For': '1.1.1.1' }, { Forwarded: 'for=1.1.1.1' }] as Record<
    string,
    string
  >[])
    expect(await connect('127.0.0.2', headers)).toMatchObject({ status: 429, code: 'ADDRESS_TOO_MANY' })
  const other = await connect('127.0.0.3')
  expect(other.status).toBe(101)
  for (const { ws } of [one, other]) ws.close()
  await until(() => gateway.gateway.connections() === 0)
  expect(gateway.gateway.listed()).toBe(0)
})

const statusOf = (headers: Record<string, string>): Promise<number> =>
  new Promise((resolve, reject) => {
    const { port } = new URL(nginx.url)
    const all = { Authorization: `Bearer ${alice}`, Accept: 'application/json', ...headers }
    const asking = request({ host: '127.0.0.1', port, path: '/v1/live/messages', headers: all }, response => {
      response.resume().on('end', () => resolve(response.statusCode!))
    })
    asking.on('error', reject).end()
  })

test('a page of the host that the client asked for is let in over TLS that ended before nginx, one that lies about the host is not', async () => {
  expect(await statusOf({ Host: 'app.example', Origin: 'https://app.example' })).toBe(200)
  expect(
    await statusOf({ Host: 'app.example', Origin: 'https://evil.example', 'X-Forwarded-Host': 'evil.example' }),
  ).toBe(403)
  expect(await statusOf({ Host: 'app.example', Origin: 'https://evil.example', Forwarded: 'host=evil.example' })).toBe(
    403,
  )
})
