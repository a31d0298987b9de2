import { expect, test } from 'vitest'
import { alice, startGateway, type TestGateway, TestSocket } from './support/gateway.ts'
import { historyEpoch } from './support/memory-door.ts'

const authorization = { Authorization: `Bearer ${alice}` }

interface Answer {
  status: number
  body: Record<string, unknown> & { results?: Record<string, unknown>[]; code?: string }
}

async function post(
  { url }: TestGateway,
  path: string,
  body: unknown,
  headers: Record<string, string> = {},
): Promise<Answer> {
  const data = typeof body === 'string' || body instanceof Uint8Array ? (body as BodyInit) : JSON.stringify(body)
  const response = await fetch(url + path, { method: 'POST', body: data, headers: { ...authorization, ...headers } })
  return { status: response.status, body: (await response.json()) as Answer['body'] }
}

async function get({ url }: TestGateway, path: string): Promise<Answer> {
  const response = await fetch(url + path, { headers: authorization })
  return { status: response.status, body: (await response.json()) as Answer['body'] }
}

test('a message posted to a topic reaches its members, its sender by user and without a connection', async () => {
  await using node = await startGateway()
  await using ada = await TestSocket.open(node)
  await ada.join(1, 'room:42')
  const answer = await post(node, '/v1/channels/room%3A42', {
    event: 'hi',
    payload: { a: [1, null] },
    to: { user: 'alice' },
  })
  const message = await ada.frame('message')
  expect(message).toMatchObject({
    event: 'hi',
    payload: { a: [1, null] },
    sender: { user: 'alice', connection: null },
    to: { user: 'alice' },
  })
  expect(answer).toEqual({ status: 200, body: { message: message.id, position: `${historyEpoch}-1` } })
  await post(node, '/v1/channels/room%3A42?private=false', { event: 'hi' })
  expect([...node.door.channels.keys()]).toEqual(['private/room:42', 'public/room:42'])
})

test('bytes are posted as they are, with the event in the URL', async () => {
  await using node = await startGateway()
  await using ada = await TestSocket.open(node)
  await ada.join(1, 'room')
  const bytes = new Uint8Array([0, 1, 2, 255])
  const headers = { 'Content-Type': 'application/octet-stream' }
  expect(await post(node, '/v1/channels/room?event=blob', bytes, headers)).toMatchObject({ status: 200 })
  expect(await ada.frame('message')).toMatchObject({ event: 'blob', binary: 'AAEC/w==' })
  expect(await post(node, '/v1/channels/room', bytes, headers)).toMatchObject({
    status: 400,
    body: { code: 'BAD_FRAME' },
  })
  expect(await post(node, '/v1/channels/room?event=blob', {})).toMatchObject({
    status: 400,
    body: { code: 'PARAMETER_INVALID' },
  })
})

test('a list is answered one by one: 200 when any was sent, else as the first that was not', async () => {
  await using node = await startGateway()
  const large = 'x'.repeat(2000)
  const messages = [
    { event: 'e', payload: 1 },
    { event: 'e', payload: large },
    { event: 'e', payload: 3 },
  ]
  const mixed = await post(node, '/v1/channels/room', messages)
  expect(mixed.status).toBe(200)
  expect(mixed.body.results).toMatchObject([
    { position: `${historyEpoch}-1` },
    { error: { code: 'PAYLOAD_TOO_LARGE', retry: false } },
    { position: `${historyEpoch}-2` },
  ])
  const failed = await post(node, '/v1/channels/room', [
    { event: 'e', payload: large },
    { event: 'e', after: 'soon' },
  ])
  expect(failed.status).toBe(413)
  expect(failed.body.results).toMatchObject([
    { error: { code: 'PAYLOAD_TOO_LARGE' } },
    { error: { code: 'TXID_INVALID' } },
  ])
})

test('messages to several topics go in one request, those of one topic in their order', async () => {
  await using node = await startGateway()
  const messages = Array.from({ length: 100 }, (_, n) => ({ topic: `room:${n % 3}`, event: 'e', payload: n }))
  const { status, body } = await post(node, '/v1/channels', {
    messages: [...messages.slice(0, 98), { topic: 'x:1', event: 'e' }, { topic: 'room:0', private: false, event: 'e' }],
  })
  expect(status).toBe(200)
  expect(body.results).toHaveLength(100)
  expect(body.results![98]).toMatchObject({ error: { code: 'SEND_REFUSED' } })
  for (const n of [0, 1, 2]) {
    const sent = node.door.log
      .filter(line => line.startsWith(`send room:${n} `))
      .map(line => Number(line.split(' ')[2]))
    expect(sent.filter(Boolean)).toEqual(sent.filter(Boolean).toSorted((a, b) => a - b))
  }
  expect(node.door.channels.has('public/room:0')).toBe(true)
})

test('what is tried again under its key is sent once; a list under one key too, and a transaction is named for all', async () => {
  await using node = await startGateway()
  const key = { 'Idempotency-Key': 'k' }
  const first = await post(node, '/v1/channels/room?after=735', { event: 'e' }, key)
  expect(await post(node, '/v1/channels/room', { event: 'e' }, key)).toEqual({
    status: 200,
    body: { ...first.body, duplicate: true },
  })
  const list = [{ event: 'e' }, { event: 'e', idempotencyKey: 'own' }]
  await post(node, '/v1/channels/room', list, { 'Idempotency-Key': 'l' })
  const again = await post(node, '/v1/channels/room', list, { 'Idempotency-Key': 'l' })
  expect(again.body.results).toMatchObject([{ duplicate: true }, { duplicate: true }])
  expect([...node.door.keys.keys()]).toEqual(['k', 'l:0', 'own'])
  expect(await post(node, '/v1/channels/room?after=0', { event: 'e' })).toMatchObject({
    status: 400,
    body: { code: 'TXID_INVALID' },
  })
})

const bodies: [
  name: string,
  path: string,
  body: unknown,
  status: number,
  code: string,
  headers?: Record<string, string>,
][] = [
  ['no JSON', '/v1/channels/room', '{', 400, 'BAD_FRAME'],
  ['no event', '/v1/channels/room', {}, 400, 'BAD_FRAME'],
  ['a misspelt field', '/v1/channels/room', { event: 'e', playload: 1 }, 400, 'BAD_FRAME'],
  ['a payload and bytes', '/v1/channels/room', { event: 'e', payload: 1, binary: 'AAAA' }, 400, 'BAD_FRAME'],
  ['bytes that are no base64', '/v1/channels/room', { event: 'e', binary: 'AAA' }, 400, 'BAD_FRAME'],
  ['two whom it is for', '/v1/channels/room', { event: 'e', to: { user: 'a', connection: 'b' } }, 400, 'BAD_FRAME'],
  ['an empty list', '/v1/channels/room', [], 400, 'BAD_FRAME'],
  ['101 messages', '/v1/channels/room', Array(101).fill({ event: 'e' }), 400, 'BAD_FRAME'],
  [
    'a payload nested too deep',
    '/v1/channels/room',
    `{"event":"e","payload":${'['.repeat(65)}${']'.repeat(65)}}`,
    400,
    'BAD_FRAME',
  ],
  ['no topic', '/v1/channels', { messages: [{ event: 'e' }] }, 400, 'BAD_FRAME'],
  ['an unknown parameter', '/v1/channels/room?self=true', { event: 'e' }, 400, 'PARAMETER_INVALID'],
  ['a long key', '/v1/channels/room', { event: 'e' }, 400, 'BAD_FRAME', { 'Idempotency-Key': 'k'.repeat(251) }],
  ['too much', '/v1/channels/room', { event: 'e', payload: 'x'.repeat(70_000) }, 413, 'FRAME_TOO_LARGE'],
  ['a topic that refuses', '/v1/channels/x:1', { event: 'e' }, 403, 'SEND_REFUSED'],
  ['a payload past the rule', '/v1/channels/room', { event: 'e', payload: 'x'.repeat(2000) }, 413, 'PAYLOAD_TOO_LARGE'],
]
test.each(bodies)(
  '[P8] a POST with %s is refused by its code',
  async (_name, path, body, status, code, headers = {}) => {
    await using node = await startGateway()
    const answer = await post(node, path, body, headers)
    expect([answer.status, answer.body.code]).toEqual([status, code])
    expect(node.door.log).toEqual([])
  },
)

test('[P8] without a token, from a foreign page, by another method, or without channels: each by its code', async () => {
  await using node = await startGateway()
  const ask = async (init: RequestInit, path = '/v1/channels/room') => {
    const response = await fetch(node.url + path, init)
    return [response.status, ((await response.json()) as { code: string }).code]
  }
  const body = '{"event":"e"}'
  expect(await ask({ method: 'POST', body })).toEqual([401, 'TOKEN_MISSING'])
  const headers = { ...authorization, Origin: 'https://evil.example' }
  expect(await ask({ method: 'POST', body, headers })).toEqual([403, 'ORIGIN_REFUSED'])
  expect(await ask({ method: 'PUT', body, headers: authorization })).toEqual([405, 'METHOD_NOT_ALLOWED'])
  expect(await ask({ method: 'POST', headers: authorization }, '/v1/channels/room/presence')).toEqual([
    405,
    'METHOD_NOT_ALLOWED',
  ])
  await using without = await startGateway({}, { channels: null })
  expect((await post(without, '/v1/channels/room', { event: 'e' })).body.code).toBe('CHANNELS_OFF')
})

test('a page of an allowed origin may send a key, and is told which methods there are', async () => {
  await using node = await startGateway({}, { allowedOrigins: ['https://app.example'] })
  const response = await fetch(`${node.url}/v1/channels/room`, {
    method: 'OPTIONS',
    headers: { Origin: 'https://app.example', 'Access-Control-Request-Method': 'POST' },
  })
  expect(response.status).toBe(204)
  expect(response.headers.get('Allow')).toBe('GET, POST, OPTIONS')
  expect(response.headers.get('Access-Control-Allow-Headers')).toContain('Idempotency-Key')
})

test('a history is read from its end backwards and from a position on, to where there is no more', async () => {
  await using node = await startGateway()
  for (let n = 1; n <= 5; n++) await post(node, '/v1/channels/h:1', { event: 'e', payload: n })
  const read = async (query: string) => {
    const { body } = await get(node, `/v1/channels/h:1/history?${query}`)
    const { messages, ...rest } = body as { messages: { payload: number; position: string }[] }
    return { payloads: messages.map(({ payload }) => payload), ...rest }
  }
  const at = (n: number) => `${historyEpoch}-${n}`
  expect(await read('last=2')).toEqual({ payloads: [4, 5], position: at(5), next: at(4) })
  expect(await read(`before=${at(4)}&limit=2`)).toEqual({ payloads: [2, 3], position: at(5), next: at(2) })
  expect(await read(`before=${at(2)}`)).toEqual({ payloads: [1], position: at(5), next: null })
  expect(await read(`after=${at(1)}&limit=2`)).toEqual({ payloads: [2, 3], position: at(5), next: at(3) })
  expect(await read(`after=${at(3)}.t1`)).toEqual({ payloads: [4, 5], position: at(5), next: null })
  expect(await read('')).toMatchObject({ payloads: [1, 2, 3, 4, 5], next: null })
  expect(await read('after=00000000-3')).toMatchObject({ payloads: [], next: null, resync: { code: 'HISTORY_LOST' } })
  const { body } = await get(node, '/v1/channels/h:1/history?last=1')
  expect(body).toMatchObject({ messages: [{ position: at(5), event: 'e', sender: { user: 'alice' } }] })
  expect((await get(node, '/v1/channels/room/history')).body.code).toBe('HISTORY_OFF')
  expect((await get(node, `/v1/channels/h:1/history?last=1&after=${at(1)}`)).body.code).toBe('PARAMETER_INVALID')
  expect((await get(node, '/v1/channels/h:1/history?after=there')).body.code).toBe('POSITION_INVALID')
  expect((await get(node, '/v1/channels/h:1/history?limit=1001')).body.code).toBe('PARAMETER_INVALID')
})

test('who is there is told in pages', async () => {
  await using node = await startGateway()
  const { entries } = node.door.channel({ topic: 'room', isPrivate: true })
  for (const n of [1, 2, 3]) {
    entries.push({
      ref: `r${n}`,
      key: 'k',
      user: null,
      connection: `c${n}`,
      meta: '{"n":1}',
      sinceMs: 1_767_323_045_678,
    })
  }
  const first = await get(node, '/v1/channels/room/presence?limit=2')
  expect(first.body).toEqual({
    count: 3,
    members: ['1', '2'].map(n => ({
      ref: `r${n}`,
      key: 'k',
      user: null,
      connection: `c${n}`,
      meta: { n: 1 },
      since: '2026-01-02T03:04:05.678Z',
    })),
    next: 'r2',
  })
  expect((await get(node, '/v1/channels/room/presence?limit=2&after=r2')).body).toMatchObject({
    next: null,
    members: [{ ref: 'r3' }],
  })
})
