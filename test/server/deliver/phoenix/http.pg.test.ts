// Broadcasts over HTTP against a whole node: by Supabase's clients as they are published, and by hand.
import { request as httpRequest } from 'node:http'
import { createClient } from '@supabase/supabase-js'
import { SignJWT } from 'jose'
import { createClient as createOldClient } from 'supabase-js-2025'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import type { Json } from '../../../../src/protocol/messages.ts'
import { ChannelClient, channelPolicies } from '../../../support/channel-client.ts'
import { jwtSecret, person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'

const publishable = 'sb_publishable_0123456789abcdef'
const [ann, bob, stranger] = [person(), person(), person()]

let database: TestDatabase
let node: TestNode
let anonKey: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ann}'), (1, '${bob}'), (2, '${ann}'), (2, '${bob}')`)
  // Open rules let a native client listen to what the other wire sends.
  const rules = [
    { pattern: 'room:2', history: { length: 100, age: '10m' } },
    { pattern: 'small', public: true, maxPayloadBytes: 100 },
    { pattern: '*', public: true, rate: { perSecond: 1000, burst: 2000 } },
  ]
  const settings = { CHANNELS: JSON.stringify(rules), API_KEYS: `${publishable}=anon` }
  node = await TestNode.start(database.url, settings)
  anonKey = await new SignJWT({ role: 'anon' })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime('1h')
    .sign(new TextEncoder().encode(jwtSecret))
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

interface Answer {
  readonly status: number
  readonly headers: Headers
  readonly body: { code?: string; message?: string; errors?: Json; results?: { error?: { code: string } }[] }
  readonly text: string
}

async function post(path: string, body: BodyInit, headers: Record<string, string>, on = node): Promise<Answer> {
  const response = await fetch(`${on.url}/realtime/v1/api/broadcast${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body,
  })
  const text = await response.text()
  return { status: response.status, headers: response.headers, body: text === '' ? {} : JSON.parse(text), text }
}

const keyed = (key: string): Record<string, string> => ({ apikey: key })

const batchOf = (...messages: object[]): string => JSON.stringify({ messages })

describe.each([
  ['of today', createClient as unknown as typeof createOldClient],
  ['of a year ago', createOldClient],
])('the client %s', (_, create) => {
  const clientOf = async (key: string, token: string | null) => {
    const client = create(node.url, key, { auth: { persistSession: false, autoRefreshToken: false } })
    if (token !== null) await client.realtime.setAuth(token)
    return client
  }

  test('sends with httpSend to a private channel as the user whose token it holds', async () => {
    using listener = await ChannelClient.open(node, await tokenFor(bob))
    const room = await listener.join('room:1')
    const client = await clientOf(anonKey, await tokenFor(ann))
    const channel = client.channel('room:1', { config: { private: true } })
    expect(await channel.httpSend('shout', { text: 'héllo "you"', list: [1, { a: null }] })).toEqual({ success: true })
    await room.waitFor(() => room.messages.length === 1)
    expect(room.messages[0]).toMatchObject({
      event: 'shout',
      payload: { text: 'héllo "you"', list: [1, { a: null }] },
      sender: { user: ann, connection: null },
    })
  })

  test('is told why httpSend did not send, where no policy lets its user', async () => {
    const client = await clientOf(anonKey, await tokenFor(stranger))
    const channel = client.channel('room:1', { config: { private: true } })
    await expect(channel.httpSend('shout', {})).rejects.toThrow(
      /no policy lets this sender INSERT into the topic "room:1"/,
    )
  })

  test('sends to public channels with nothing but its key, a token or one of API_KEYS', async () => {
    using listener = await ChannelClient.open(node, await tokenFor(bob))
    const lobby = await listener.join('lobby', { private: false })
    for (const key of [anonKey, publishable]) {
      const client = await clientOf(key, null)
      expect(await client.channel('lobby').httpSend('e', { key: key.slice(0, 3) })).toEqual({ success: true })
    }
    await lobby.waitFor(() => lobby.messages.length === 2)
    expect(lobby.payloads).toEqual([{ key: anonKey.slice(0, 3) }, { key: 'sb_' }])
    expect(lobby.messages.map(({ sender }) => sender)).toEqual([null, null])
  })

  test('falls back to HTTP with send() while it has not joined, and is told ok or error', async () => {
    const warned = vi.spyOn(console, 'warn').mockImplementation(() => {})
    using listener = await ChannelClient.open(node, await tokenFor(bob))
    const room = await listener.join('room:1')
    const message = { type: 'broadcast', event: 'e', payload: { n: 1 } } as const
    const member = await clientOf(anonKey, await tokenFor(ann))
    expect(await member.channel('room:1', { config: { private: true } }).send(message)).toBe('ok')
    const other = await clientOf(anonKey, await tokenFor(stranger))
    expect(await other.channel('room:1', { config: { private: true } }).send({ ...message, payload: { n: 2 } })).toBe(
      'error',
    )
    expect(await member.channel('room:1', { config: { private: true } }).send({ ...message, payload: { n: 3 } })).toBe(
      'ok',
    )
    await room.waitFor(() => room.messages.length === 2)
    expect(room.payloads).toEqual([{ n: 1 }, { n: 3 }])
    expect(warned).toHaveBeenCalled()
    warned.mockRestore()
  })
})

test('bytes arrive as they were sent, of any length and value', async () => {
  using listener = await ChannelClient.open(node, await tokenFor(bob))
  const room = await listener.join('lobby', { private: false })
  const client = createClient(node.url, anonKey)
  const bytes = Uint8Array.from({ length: 300 }, (_, n) => n % 256)
  expect(await client.channel('lobby').httpSend('raw', bytes.buffer)).toEqual({ success: true })
  await room.waitFor(() => room.messages.length === 1)
  expect(Buffer.from(room.messages[0]!.binary!, 'base64')).toEqual(Buffer.from(bytes))
})

test('topics and events with any characters are taken as they are', async () => {
  const topic = 'a/b:ü?#% "q"'
  using listener = await ChannelClient.open(node, await tokenFor(bob))
  const room = await listener.join(topic, { private: false })
  const client = createClient(node.url, anonKey)
  await client.channel(topic).httpSend('e/ü %', {})
  await room.waitFor(() => room.messages.length === 1)
  expect(room.messages[0]!.event).toBe('e/ü %')
})

test('the address is there as gateways rewrite it, and extra parameters do no harm', async () => {
  for (const base of ['/realtime/v1/api/broadcast', '/api/broadcast']) {
    const headers = { 'content-type': 'application/json', apikey: anonKey }
    const one = { method: 'POST', headers, body: '{}' }
    expect((await fetch(`${node.url}${base}/lobby/events/e?apikey=x&vsn=2.0.0`, one)).status).toBe(202)
    const batch = { ...one, body: batchOf({ topic: 'lobby', event: 'e', payload: {} }) }
    const answer = await fetch(`${node.url}${base}?apikey=x&vsn=2.0.0`, batch)
    expect([answer.status, await answer.text()]).toEqual([202, ''])
  }
})

test('a batch keeps its order in each channel', async () => {
  using listener = await ChannelClient.open(node, await tokenFor(bob))
  const [room, lobby] = [await listener.join('room:1'), await listener.join('ordered', { private: false })]
  const messages = Array.from({ length: 60 }, (_, n) => ({
    topic: n % 2 ? 'room:1' : 'ordered',
    event: 'e',
    payload: { n },
    private: n % 2 === 1,
  }))
  expect((await post('', batchOf(...messages), { authorization: `Bearer ${await tokenFor(ann)}` })).status).toBe(202)
  await room.waitFor(() => room.messages.length + lobby.messages.length === 60)
  const numbers = (payloads: unknown[]) => payloads.map(payload => (payload as { n: number }).n)
  expect(numbers(room.payloads)).toEqual(Array.from({ length: 30 }, (_, n) => 2 * n + 1))
  expect(numbers(lobby.payloads)).toEqual(Array.from({ length: 30 }, (_, n) => 2 * n))
})

test('a batch of which a message may not be sent is no 202, and says which; tried again under its key, nothing is sent twice', async () => {
  using listener = await ChannelClient.open(node, await tokenFor(bob))
  const lobby = await listener.join('denied', { private: false })
  const body = batchOf(
    { topic: 'denied', event: 'e', payload: { n: 1 } },
    { topic: 'room:1', event: 'e', payload: { n: 2 }, private: true },
    { topic: 'denied', event: 'e', payload: { n: 3 }, private: null },
  )
  const headers = { authorization: `Bearer ${await tokenFor(stranger)}`, 'idempotency-key': 'once' }
  for (let tries = 0; tries < 2; tries++) {
    const answer = await post('', body, headers)
    expect(answer.status).toBe(403)
    expect(answer.body).toMatchObject({ code: 'SEND_REFUSED', message: expect.stringMatching(/^1 of 3 messages/) })
    expect(answer.body.results!.map(({ error }) => error?.code ?? null)).toEqual([null, 'SEND_REFUSED', null])
  }
  expect((await post('', batchOf({ topic: 'denied', event: 'last', payload: {} }), keyed(anonKey))).status).toBe(202)
  await lobby.waitFor(() => lobby.messages.some(({ event }) => event === 'last'))
  expect(lobby.payloads.slice(0, -1)).toEqual([{ n: 1 }, { n: 3 }])
})

test.each([
  ['a payload that is no map', { topic: 't', event: 'e', payload: [1] }, { payload: [expect.any(String)] }],
  ['no payload', { topic: 't', event: 'e' }, { payload: [expect.any(String)] }],
  ['no event', { topic: 't', payload: {} }, { event: [expect.any(String)] }],
  ['an empty topic', { topic: '', event: 'e', payload: {} }, { topic: [expect.any(String)] }],
])('a batch with %s is refused whole, with its fault at its place', async (_, wrong, errors) => {
  using listener = await ChannelClient.open(node, await tokenFor(bob))
  const topic = `whole:${Object.keys(errors)[0]}:${'payload' in wrong}`
  const lobby = await listener.join(topic, { private: false })
  const answer = await post('', batchOf({ topic, event: 'e', payload: {} }, wrong), keyed(anonKey))
  expect(answer.status).toBe(422)
  expect(answer.body).toMatchObject({ code: 'BAD_FRAME', errors: { messages: [{}, errors] } })
  expect(answer.body.message).toContain('messages.1.')
  await post('', batchOf({ topic, event: 'last', payload: {} }), keyed(anonKey))
  await lobby.waitFor(() => lobby.messages.length > 0)
  expect(lobby.messages.map(({ event }) => event)).toEqual(['last'])
})

test.each([
  ['no messages', '{}', 422, { messages: [expect.any(String)] }],
  ['an empty batch', '{"messages":[]}', 422, { messages: [expect.any(String)] }],
  ['a batch that is a list', '[]', 422, { body: [expect.any(String)] }],
  ['no JSON', '{', 400, undefined],
])('%s is told as such', async (_, body, status, errors) => {
  const answer = await post('', body, keyed(anonKey))
  expect(answer.status).toBe(status)
  expect(answer.body.code).toBe('BAD_FRAME')
  expect(answer.body.errors).toEqual(errors)
})

test('a body of another type is 415', async () => {
  const bytes = { ...keyed(anonKey), 'content-type': 'application/octet-stream' }
  expect((await post('', 'x', bytes)).status).toBe(415)
  const text = { ...keyed(anonKey), 'content-type': 'text/plain' }
  const answer = await post('/t/events/e', 'x', text)
  expect(answer.status).toBe(415)
  expect(answer.body.message).toContain('application/octet-stream')
})

test('what is too large is 413, by the limit of bodies and by the rule of the channel', async () => {
  const long = JSON.stringify({ text: 'x'.repeat(70_000) })
  const tooLong = await post('/t/events/e', long, keyed(anonKey))
  expect([tooLong.status, tooLong.body.code]).toEqual([413, 'FRAME_TOO_LARGE'])
  const small = await post('/small/events/e', JSON.stringify({ text: 'x'.repeat(200) }), keyed(anonKey))
  expect([small.status, small.body.code]).toEqual([413, 'PAYLOAD_TOO_LARGE'])
})

describe('who asks', () => {
  const send = (headers: Record<string, string>) => post('/lobby/events/e', '{}', headers)

  test('is told 401 without a token, with a strange one, and with one that has expired', async () => {
    const expired = await new SignJWT({ role: 'authenticated', sub: ann })
      .setProtectedHeader({ alg: 'HS256' })
      .setExpirationTime(1)
      .sign(new TextEncoder().encode(jwtSecret))
    const cases: [Record<string, string>, string][] = [
      [{}, 'TOKEN_MISSING'],
      [{ authorization: '', apikey: '' }, 'TOKEN_MISSING'],
      [{ authorization: 'Bearer nonsense', apikey: anonKey }, 'TOKEN_INVALID'],
      [{ authorization: 'Basic YTpi', apikey: anonKey }, 'TOKEN_INVALID'],
      [{ apikey: 'sb_publishable_someone_elses' }, 'TOKEN_INVALID'],
      [{ authorization: `Bearer ${expired}` }, 'TOKEN_EXPIRED'],
    ]
    for (const [headers, code] of cases) {
      const answer = await send(headers)
      expect([answer.status, answer.body.code]).toEqual([401, code])
      expect(answer.body.message).toEqual(expect.any(String))
    }
  })

  test('is known by its key where the Authorization header is empty', async () => {
    expect((await send({ authorization: '', apikey: anonKey })).status).toBe(202)
    expect(await statusWith({ authorization: 'Bearer ', apikey: anonKey })).toBe(202)
  })

  test('is the user of the token, whatever its key', async () => {
    const token = await tokenFor(ann)
    const inside = { authorization: `Bearer ${token}`, apikey: publishable }
    expect((await post('/room:1/events/e?private=true', '{}', inside)).status).toBe(202)
    expect((await post('/room:1/events/e?private=true', '{}', { apikey: publishable })).status).toBe(403)
  })

  /** With headers as they stand: fetch trims them. */
  const statusWith = (headers: Record<string, string>): Promise<number> =>
    new Promise((resolve, reject) => {
      const options = { method: 'POST', headers: { 'content-type': 'application/json', ...headers } }
      httpRequest(`${node.url}/api/broadcast/lobby/events/e`, options, response => {
        response.resume()
        resolve(response.statusCode!)
      })
        .on('error', reject)
        .end('{}')
    })
})

test('a message that is to be stored is refused where nothing is kept, and comes back from the history where it is', async () => {
  const headers = { authorization: `Bearer ${await tokenFor(ann)}` }
  const refused = await post('/room:1/events/e?private=true&persist=true', '{}', headers)
  expect([refused.status, refused.body.code]).toEqual([400, 'HISTORY_OFF'])
  const kept = await post('/room:2/events/kept?private=true&persist%5Bttl%5D=60', '{}', headers)
  expect(kept.status).toBe(202)
  using late = await ChannelClient.open(node, await tokenFor(bob))
  const room = await late.join('room:2', { last: 1 })
  await room.waitFor(() => room.messages.length === 1)
  expect(room.messages[0]!.event).toBe('kept')
})

describe('a page of another origin', () => {
  const origin = 'https://app.example.com'

  test('may send, with whatever headers its client adds', async () => {
    const asked = 'apikey, authorization, content-type, x-client-info, x-my-own'
    const preflight = await fetch(`${node.url}/realtime/v1/api/broadcast`, {
      method: 'OPTIONS',
      headers: { origin, 'access-control-request-method': 'POST', 'access-control-request-headers': asked },
    })
    expect(preflight.status).toBe(204)
    expect(preflight.headers.get('access-control-allow-origin')).toBe(origin)
    expect(preflight.headers.get('access-control-allow-headers')).toBe(asked)
    expect(preflight.headers.get('access-control-allow-methods')).toContain('POST')
    expect(preflight.headers.get('access-control-allow-credentials')).toBeNull()
    const sent = await post('/lobby/events/e', '{}', { apikey: anonKey, origin })
    expect([sent.status, sent.headers.get('access-control-allow-origin')]).toEqual([202, origin])
    const refused = await post('/lobby/events/e', '{}', { origin })
    expect([refused.status, refused.headers.get('access-control-allow-origin')]).toEqual([401, origin])
  })
})

test('other methods are refused, and other addresses below are none', async () => {
  const get = await fetch(`${node.url}/realtime/v1/api/broadcast`)
  expect(get.status).toBe(405)
  expect((await fetch(`${node.url}/realtime/v1/api/broadcast/lobby`, { method: 'POST' })).status).toBe(404)
})

test('a private message goes to no public channel of its topic, nor a public one to the private', async () => {
  using listener = await ChannelClient.open(node, await tokenFor(bob))
  const [inside, outside] = [await listener.join('room:1'), await listener.join('room:1', { private: false })]
  const headers = { authorization: `Bearer ${await tokenFor(ann)}` }
  const messages = [true, false].map(isPrivate => ({
    topic: 'room:1',
    event: 'e',
    payload: { isPrivate },
    private: isPrivate,
  }))
  expect((await post('', batchOf(...messages), headers)).status).toBe(202)
  await inside.waitFor(() => inside.messages.length > 0 && outside.messages.length > 0)
  expect([inside.payloads, outside.payloads]).toEqual([[{ isPrivate: true }], [{ isPrivate: false }]])
})

describe('a service that is stricter', () => {
  let others: TestDatabase
  let strict: TestNode

  beforeAll(async () => {
    others = await TestDatabase.create()
    await prepareDatabase(others, roomsSchema + channelPolicies, ['rooms', 'members', 'messages'])
    await others.query(`INSERT INTO members VALUES (1, '${ann}')`)
    const settings = { ALLOWED_ORIGINS: 'https://other.example.com', SUPABASE_PRIVATE_ONLY: '1' }
    strict = await TestNode.start(others.url, settings)
  })

  afterAll(async () => {
    await strict?.[Symbol.asyncDispose]()
    await others?.[Symbol.asyncDispose]()
  })

  test('takes nothing for public channels', async () => {
    const headers = { authorization: `Bearer ${await tokenFor(ann)}` }
    const answer = await post('/lobby/events/e', '{}', headers, strict)
    expect([answer.status, answer.body.code]).toEqual([403, 'PRIVATE_ONLY'])
    expect((await post('/room:1/events/e?private=true', '{}', headers, strict)).status).toBe(202)
  })

  test('takes nothing from pages that are not listed', async () => {
    const headers = { authorization: `Bearer ${await tokenFor(ann)}`, origin: 'https://app.example.com' }
    const answer = await post('/room:1/events/e?private=true', '{}', headers, strict)
    expect([answer.status, answer.body.code]).toEqual([403, 'ORIGIN_REFUSED'])
    const listed = { ...headers, origin: 'https://other.example.com' }
    expect((await post('/room:1/events/e?private=true', '{}', listed, strict)).status).toBe(202)
  })
})
