// Who is let in by Supabase's wire, over real sockets: keys, roles, versions, what the log says, and what one anonymous key may cost.
import { request as httpRequest } from 'node:http'
import { inspect } from 'node:util'
import { SignJWT } from 'jose'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { WebSocket } from 'ws'
import { loadConfig } from '../../../../src/server/config/config.ts'
import type { Log } from '../../../../src/server/log/log.ts'
import { startServer, type TidegateServer } from '../../../../src/server/server.ts'
import { channelPolicies } from '../../../support/channel-client.ts'
import { jwtSecret, person, prepareDatabase, roomsSchema, tokenFor } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { relaySettings } from '../../../support/relay.ts'
import { Peer } from './support/peer.ts'

const publishable = 'sb_publishable_Zq7vR2mXw9'
const secretKey = 'sb_secret_Kd83LpWn5tYb'
const orphan = 'sb_secret_Hc64JsVf1uGa'
const ann = person()

let database: TestDatabase
const databases: TestDatabase[] = []
const servers: TidegateServer[] = []
let url: string
let privateUrl: string
const logged: string[] = []
const keep = (...values: unknown[]): void => void logged.push(inspect(values, { depth: 10, maxStringLength: null }))
const log = { debug: keep, info: keep, warn: keep, error: keep } as unknown as Log

async function start(settings: Record<string, string>): Promise<string> {
  database = await TestDatabase.create()
  databases.unshift(database)
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`
    DO $$ BEGIN CREATE ROLE service_role; EXCEPTION WHEN duplicate_object OR unique_violation THEN END $$;
    GRANT SELECT ON rooms TO service_role; GRANT USAGE ON SCHEMA public TO service_role;
    CREATE POLICY all_rooms ON rooms FOR SELECT TO service_role USING (true);
    INSERT INTO members VALUES (1, '${ann}')`)
  const config = loadConfig({
    ...{ DATABASE_URL: database.url, JWT_SECRET: jwtSecret, PORT: '0', BEACON_MS: '1000', DRAIN_DELAY_MS: '0' },
    ...{ JWT_ROLES: 'anon,authenticated,service_role,no_such_role' },
    ...{ API_KEYS: `${publishable}=anon,${secretKey}=service_role,${orphan}=no_such_role` },
    ...(await relaySettings(database.url)),
    ...settings,
  })
  const server = await startServer(config, { log })
  servers.unshift(server)
  await server.ready()
  return `http://127.0.0.1:${server.port}`
}

beforeAll(async () => {
  privateUrl = await start({ SUPABASE_PRIVATE_ONLY: '1' })
  url = await start({})
}, 60_000)

afterEach(() => {
  logged.length = 0
})

afterAll(async () => {
  for (const server of servers) await server.stop()
  for (const each of databases) await each[Symbol.asyncDispose]()
})

const signed = (expires: string, secret: string): Promise<string> =>
  new SignJWT({ role: 'authenticated', sub: ann })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(expires)
    .sign(new TextEncoder().encode(secret))
const forged = (): Promise<string> => signed('1h', jwtSecret.toUpperCase())
const expired = (): Promise<string> => signed('-5s', jwtSecret)

/** Status and body of a refused upgrade. */
function refusal(query: string, headers: Record<string, string> = {}, path = '/realtime/v1/websocket') {
  const ws = new WebSocket(`${url.replace('http', 'ws')}${path}?${query}`, { headers })
  ws.on('error', () => {})
  return new Promise<{ status: number; body: { error: string; code: string } }>((resolve, reject) => {
    ws.on('open', () => reject(new Error('it was let in')))
    ws.on('unexpected-response', (_, response) => {
      let text = ''
      response
        .on('data', chunk => (text += chunk))
        .on('end', () => {
          resolve({ status: response.statusCode!, body: JSON.parse(text) })
        })
    })
  })
}

test('a key of API_KEYS reads what its role reads, and a token of a join what its user reads', async () => {
  await using anon = await Peer.open(url, publishable)
  await using service = await Peer.open(url, secretKey)
  const rooms = { postgres_changes: [{ event: '*', schema: 'public', table: 'rooms' }] }
  expect(await service.join('realtime:rooms', rooms)).toMatchObject({ status: 'ok' })
  expect(await anon.join('realtime:rooms', rooms)).toMatchObject({ status: 'ok' })
  const { payload } = await anon.until(({ event }) => event === 'system')
  expect(payload).toMatchObject({ status: 'error', extension: 'postgres_changes', channel: 'rooms' })
  expect(payload.message).toMatch(/^TABLE_REFUSED: /)
  await database.query(`INSERT INTO rooms VALUES (7, 'seven')`)
  await service.until(({ event }) => event === 'postgres_changes')
  expect(service.ids('realtime:rooms')).toEqual([7])

  expect(await anon.join('realtime:room:1', { private: true })).toEqual({
    status: 'error',
    response: { reason: 'Unauthorized: You do not have permissions to read from this Channel topic: room:1' },
  })
  expect(await anon.join('realtime:room:1', { private: true }, await tokenFor(ann))).toMatchObject({ status: 'ok' })
  // What supabase-js sends where nobody is signed in.
  expect(await anon.join('realtime:square', {}, publishable)).toMatchObject({ status: 'ok' })
  expect(anon.ids()).toEqual([])
})

test.each<[string, () => Promise<string> | string, number, string]>([
  ['no key', () => 'vsn=2.0.0', 401, 'TOKEN_MISSING'],
  ['another key', () => `apikey=${publishable}1`, 401, 'TOKEN_INVALID'],
  ['a forged token', async () => `apikey=${await forged()}`, 401, 'TOKEN_INVALID'],
  ['an expired token', async () => `apikey=${await expired()}`, 401, 'TOKEN_EXPIRED'],
  ['a key of a role that there is not', () => `apikey=${orphan}`, 403, 'ROLE_REFUSED'],
  ['another version', () => `apikey=${publishable}&vsn=3.0.0`, 403, 'PARAMETER_INVALID'],
])('[P8] %s is refused with a status that says why', async (_, query, status, code) => {
  expect(await refusal(await query())).toEqual({ status, body: { error: expect.any(String), code } })
})

test.each<[string, () => Promise<string>, RegExp]>([
  ['an expired token', expired, /^InvalidJWTToken: Token has expired/],
  ['a forged one', forged, /^JwtSignatureError: Failed to validate JWT signature/],
  ['none at all', async () => 'nonsense', /^MalformedJWT: The token provided is not a valid JWT/],
])('[P8] a join with %s is refused by the name that Supabase has for it', async (_, token, reason) => {
  await using peer = await Peer.open(url, publishable)
  const { status, response } = await peer.join('realtime:square', {}, await token())
  expect([status, response.reason]).toEqual(['error', expect.stringMatching(reason)])
})

test('[P2] private only: a public join is refused, a private one is not', async () => {
  await using peer = await Peer.open(privateUrl, await tokenFor(ann))
  expect(await peer.join('realtime:room:1')).toEqual({
    status: 'error',
    response: { reason: 'PrivateOnly: This project only allows private channels' },
  })
  expect(await peer.join('realtime:room:1', { private: true })).toMatchObject({ status: 'ok' })
})

test('[P2] no key and no token is in the log, however loud it is and whatever goes wrong', async () => {
  const token = await tokenFor(ann)
  const bad = await forged()
  const old = await expired()
  const keys = [publishable, secretKey, orphan, token, bad, old]
  for (const key of [bad, old, orphan, `${publishable}1`]) await refusal(`apikey=${key}`)
  for (const path of ['/realtime/v1/websockets', '/v1/socket', '/realtime/v1'])
    await refusal(`apikey=${secretKey}`, { Authorization: `Bearer ${bad}` }, path)
  await refusal(`apikey=${publishable}&vsn=9`, { 'x-api-key': secretKey })
  for (const path of ['/realtime/v1/websocket', '/realtime/v1/nothing', '/realtime/v1/api/broadcast'])
    for (const method of ['GET', 'POST'])
      await fetch(`${url}${path}?apikey=${secretKey}&vsn=2.0.0`, { method, headers: { apikey: bad } })
  // Half a request, and one that is no HTTP.
  for (const text of [`GET /realtime/v1/websocket?apikey=${secretKey} HTTP/1.1\r\nA b`, `apikey=${secretKey}\r\n\r\n`])
    await new Promise<void>(resolve => {
      const request = httpRequest(url)
      request.on('error', () => resolve())
      request.on('socket', socket => socket.on('connect', () => socket.end(text)).on('close', () => resolve()))
    })
  {
    await using peer = await Peer.open(url, secretKey)
    await peer.join('realtime:square', {}, token)
    await peer.join('realtime:other', {}, bad)
    peer.push('realtime:square', 'access_token', { access_token: old })
    peer.push('realtime:square', 'access_token', { access_token: { in: secretKey } })
    // Cut off in the middle of a token, where an error of JSON.parse would quote it.
    for (const key of [token, secretKey]) {
      const text = JSON.stringify(['9', '9', 'realtime:third', 'phx_join', { access_token: key }])
      for (const cut of [text.slice(0, -4), text.slice(0, -10), text.replace('"}', '\u0001"}'), `${text}${key}`])
        peer.ws.send(cut)
      peer.ws.send(Buffer.from(`\u0007${text}`))
    }
    await peer.until(({ event }) => event === 'phx_error')
    await peer.ask('phoenix', 'heartbeat')
  }
  const text = logged.join('\n')
  expect(text).toContain('a frame of a Phoenix client cannot be read')
  // Not even a piece of one: an error of JSON.parse quotes ten characters. All tokens begin alike.
  for (const key of keys) {
    const own = key.startsWith('sb_') ? key.slice(key.lastIndexOf('_') + 1) : key.slice(40)
    for (let at = 0; at + 7 <= own.length; at += 1) expect(text).not.toContain(own.slice(at, at + 7))
  }
})

test('[P7] one anonymous key: as many channels as a socket may have, topics as long as they may be, and no more', async () => {
  await using peer = await Peer.open(url, publishable)
  const refusedFor = async (topic: string, config: object = {}) => {
    const { status, response } = await peer.join(topic, config)
    expect(status).toBe('error')
    return response.reason as string
  }
  expect(await refusedFor('realtime:')).toBe('TopicNameRequired: You must provide a topic name')
  expect(await refusedFor(`realtime:${'x'.repeat(256)}`)).toMatch(/^TOPIC_INVALID: /)
  expect(await refusedFor('realtime:a\nb')).toMatch(/^TOPIC_INVALID: /)
  const { holdings } = servers[0]!
  const before = holdings()
  for (let n = 0; n < 100; n += 1)
    expect(await peer.join(`realtime:${`${n}`.padStart(255, 'x')}`, { presence: { enabled: true } })).toMatchObject({
      status: 'ok',
    })
  expect(await refusedFor('realtime:one more')).toMatch(/^ChannelRateLimitReached: /)
  expect(holdings().channels - before.channels).toBe(100)
  peer.ws.terminate()
  await expect
    .poll(() => holdings(), { timeout: 30_000 })
    .toMatchObject({
      ...{ channels: before.channels, members: before.members, rooms: before.rooms },
    })
})

test('[P7] [P8] a join of more bindings than a session takes stands with those that fit, and the others are told', async () => {
  await using peer = await Peer.open(url, secretKey)
  const bindings = Array.from({ length: 1200 }, (_, n) => ({ table: 'rooms', filter: `id=eq.${1000 + n}` }))
  const { status, response } = await peer.join('realtime:many', { postgres_changes: bindings })
  expect([status, response.postgres_changes.length]).toEqual(['ok', 1200])
  const told = () => peer.of('system').filter(({ payload }) => payload.status === 'error')
  await expect.poll(() => told().length).toBe(1200 - 99)
  for (const { payload } of told())
    expect(payload).toMatchObject({
      extension: 'postgres_changes',
      message: expect.stringMatching(/^ChannelRateLimitReached: .* at most 99 tables/),
    })
  await database.query(`INSERT INTO rooms VALUES (1098, 'the last that fits'), (1099, 'one more'), (1000, 'first')`)
  await expect.poll(() => peer.ids()).toEqual([1098, 1000])
})
