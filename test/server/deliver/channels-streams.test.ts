import { expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { alice, bob, startGateway, type TestGateway, TestStream, tokenOf, until } from './support/gateway.ts'
import { historyEpoch } from './support/memory-door.ts'

const nobody = { principal: { role: 'a', claims: {}, expiresAt: null }, connection: null }
const privately = (topic: string) => ({ topic, isPrivate: true })
const say = (node: TestGateway, topic: string, payload: unknown) =>
  node.door.publish(nobody, privately(topic), {
    event: 'e',
    payload: JSON.stringify(payload),
    isBinary: false,
    to: null,
    idempotencyKey: null,
    after: null,
  })
const several = (...channels: string[]) =>
  `/v1/channels?${channels.map(channel => `c=${encodeURIComponent(channel)}`).join('&')}`
const headers = { Authorization: `Bearer ${alice}` }
const json = { ...headers, Accept: 'application/json' }

test('a stream begins with what was joined, and its name; then come messages, with ids, and who is there', async () => {
  await using node = await startGateway()
  const track = encodeURIComponent('{"name":"ada"}')
  await using stream = await TestStream.open(
    node,
    `/v1/channels/room%2F42?presence=true&self=true&track=${track}&key=k`,
  )
  const joined = await stream.event('joined')
  expect(stream.events[0]).toBe(joined)
  expect(joined.data).toEqual({ connection: expect.any(String), resumed: false, history: false, maySend: true })
  expect(await stream.event('presence')).toMatchObject({ data: { here: [], count: 0 }, id: null })
  await say(node, 'room/42', 1)
  const message = await stream.event('message')
  expect(message).toMatchObject({ data: { event: 'e', payload: 1, sender: null }, id: '1f2e3d4c-1000-1.t1' })
  const { request, caller } = node.door.joined[0]!
  expect(request).toMatchObject({
    channel: { topic: 'room/42', isPrivate: true },
    presence: true,
    self: true,
    track: { meta: '{"name":"ada"}', key: 'k' },
  })
  expect(caller.connection).toBe(joined.data.connection)
})

test('[P4] a stream that comes back by its last id gets what it missed, and is told what cannot be had', async () => {
  await using node = await startGateway()
  const stream = await TestStream.open(node, '/v1/channels/h:1?private=false')
  await stream.event('joined')
  const publish = (payload: number) =>
    node.door.publish(
      nobody,
      { topic: 'h:1', isPrivate: false },
      {
        event: 'e',
        payload: String(payload),
        isBinary: false,
        to: null,
        idempotencyKey: null,
        after: null,
      },
    )
  await publish(1)
  await stream.event('message')
  await stream[Symbol.asyncDispose]()
  await until(() => node.door.members.size === 0)
  expect(node.door.log.at(-1)).toBe('close h:1 broken')
  await publish(2)
  await using again = await TestStream.open(node, '/v1/channels/h:1?private=false', {
    ...headers,
    'Last-Event-ID': stream.lastId,
  })
  expect((await again.event('joined')).data).toMatchObject({ resumed: true, history: true })
  expect(await again.event('message')).toMatchObject({ data: { payload: 2 }, id: `${historyEpoch}-2.t1` })
  await using lost = await TestStream.open(node, `/v1/channels/h:1?private=false&after=00000000-2.t1`)
  expect((await lost.event('resync')).data).toMatchObject({ code: 'HISTORY_LOST' })
  await say(node, 'room', 1)
  await using gone = await TestStream.open(node, '/v1/channels/room?after=1f2e3d4c-1000-0.t2')
  expect(await gone.event('gap')).toMatchObject({ data: { code: 'MESSAGES_LOST', missed: 1 } })
})

test('several channels share a stream; each event names the place of its own, each id says where all stand', async () => {
  await using node = await startGateway()
  await using stream = await TestStream.open(node, several('h:1', 'room%3A42?presence=true'))
  await stream.event('joined', ({ data }) => data.c === 1)
  await say(node, 'room:42', 'a')
  expect(await stream.event('message')).toMatchObject({ data: { c: 1 }, id: `${historyEpoch}-0.t1~1f2e3d4c-1000-1.t2` })
  await say(node, 'h:1', 'b')
  await stream.event('message', ({ data }) => data.c === 0)
  expect(stream.lastId).toBe(`${historyEpoch}-1.t1~1f2e3d4c-1000-1.t2`)
  expect((await stream.event('presence')).data).toMatchObject({ c: 1, count: 0 })
  node.door.of('room:42')[0]!.end(new TidegateError('CHANNEL_CLOSED', 'no more'))
  expect((await stream.event('error')).data).toMatchObject({ c: 1, code: 'CHANNEL_CLOSED' })
  await stream.ended()
  await until(() => node.door.members.size === 0)
  expect(node.door.log.slice(-2).sort()).toEqual(['close h:1 gone', 'close room:42 gone'])
})

test('a ticket opens a stream of channels, and opens it again by an id of its own', async () => {
  await using node = await startGateway()
  const { ticket } = (await (await fetch(`${node.url}/v1/tickets`, { method: 'POST', headers })).json()) as {
    ticket: string
  }
  const path = `/v1/channels/h:1?ticket=${ticket}`
  const stream = await TestStream.open(node, path, {})
  await stream.event('joined')
  await say(node, 'h:1', 1)
  await stream.event('message')
  await stream[Symbol.asyncDispose]()
  expect(stream.lastId).toMatch(/^abcdef01-1\.t1![\w-]{22}$/)
  await using again = await TestStream.open(node, path, { 'Last-Event-ID': stream.lastId })
  expect((await again.event('joined')).data).toMatchObject({ resumed: true })
})

const refused: [path: string, status: number, code: string][] = [
  ['/v1/channels', 400, 'PARAMETER_INVALID'],
  ['/v1/channels/x:1', 403, 'CHANNEL_REFUSED'],
  ['/v1/channels/%zz', 400, 'TOPIC_INVALID'],
  ['/v1/channels/room?presence=maybe', 400, 'PARAMETER_INVALID'],
  ['/v1/channels/room?last=0', 400, 'PARAMETER_INVALID'],
  ['/v1/channels/room?last=5&last=6', 400, 'PARAMETER_INVALID'],
  ['/v1/channels/room?track={', 400, 'PARAMETER_INVALID'],
  ['/v1/channels/room?key=k', 400, 'PARAMETER_INVALID'],
  ['/v1/channels/room?prviate=false', 400, 'PARAMETER_INVALID'],
  ['/v1/channels/room?wait=long', 400, 'PARAMETER_INVALID'],
  ['/v1/channels/room?c=room', 400, 'PARAMETER_INVALID'],
  ['/v1/channels?c=room&presence=true', 400, 'PARAMETER_INVALID'],
  ['/v1/channels?c=room&c=room', 409, 'ALREADY_SUBSCRIBED'],
  ['/v1/channels?c=a&c=b&c=c', 429, 'TOO_MANY_SUBSCRIPTIONS'],
  ['/v1/channels/room?after=there', 400, 'POSITION_INVALID'],
  ['/v1/channels/room/members', 404, 'NOT_FOUND'],
]
test.each(refused)('[P8] %s is refused with %d %s', async (path, status, code) => {
  await using node = await startGateway({ maxSubscriptions: 2 })
  for (const asked of [headers, json]) {
    const response = await fetch(node.url + path, { headers: asked })
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([status, code])
  }
  expect(node.door.members.size).toBe(0)
})

interface Polled {
  events: { event: string; data: Record<string, unknown>; id?: string }[]
  position: string
  channels: { resumed: boolean; history: boolean; maySend: boolean }[]
  connection: string
  poll: string
  here?: string
}

async function poll(node: TestGateway, path: string, more: Record<string, string> = {}, token = alice) {
  const query = new URLSearchParams(more).toString()
  const response = await fetch(`${node.url}${path}${path.includes('?') ? '&' : '?'}${query}`, {
    headers: { Authorization: `Bearer ${token}`, Accept: 'application/json' },
  })
  const text = await response.text()
  return {
    status: response.status,
    position: response.headers.get('Tidegate-Position')!,
    body: (text === '' ? null : JSON.parse(text)) as Polled | null,
  }
}

test('[P4] polls of a channel with a history lose nothing between them and repeat nothing', async () => {
  await using node = await startGateway()
  await say(node, 'h:1', 0)
  await say(node, 'h:1', 1)
  const first = await poll(node, '/v1/channels/h:1', { last: '1' })
  expect(first.body).toMatchObject({
    channels: [{ resumed: false, history: true, maySend: true }],
    position: 'abcdef01-2.t1',
  })
  const told = first.body!.events.map(({ data }) => data.payload)
  let after = first.body!.position
  for (let round = 0; round < 30; round++) {
    if (round % 3 === 0) await say(node, 'h:1', told.length + 1)
    const { status, body, position } = await poll(node, '/v1/channels/h:1', { after })
    expect(status).toBe(round % 3 === 0 ? 200 : 304)
    told.push(...(body?.events ?? []).map(({ data }) => data.payload))
    after = position
  }
  expect(told).toEqual(Array.from({ length: 11 }, (_, place) => place + 1))
  await until(() => node.door.members.size === 0)
})

test('a poll waits for a message, or as long as it says; without a history it is told what it missed', async () => {
  await using node = await startGateway()
  const first = await poll(node, '/v1/channels/room')
  expect(first).toMatchObject({ status: 200, body: { events: [], position: '1f2e3d4c-1000-0.t1' } })
  const waiting = poll(node, '/v1/channels/room', { after: first.position, wait: '20' })
  await until(() => node.door.members.size === 1)
  await say(node, 'room', 'hi')
  const second = await waiting
  expect(second.body!.events).toMatchObject([{ event: 'message', data: { payload: 'hi' }, id: '1f2e3d4c-1000-1.t1' }])
  await say(node, 'room', 'missed')
  const third = await poll(node, '/v1/channels/room', { after: second.position, wait: '20' })
  expect(third.body!.events).toMatchObject([{ event: 'gap', data: { code: 'MESSAGES_LOST', missed: 1 } }])
  expect(await poll(node, '/v1/channels/room', { after: third.position, wait: '0.05' })).toMatchObject({
    status: 304,
    body: null,
  })
})

test('the polls of a client are one connection to others, by a key that nobody else has a use for', async () => {
  await using node = await startGateway()
  const track = '{"name":"ada"}'
  const first = await poll(node, '/v1/channels/room', { track })
  const { connection, poll: key } = first.body!
  const again = await poll(node, '/v1/channels/room', { track, poll: key, last: '1' })
  expect(again.body!.connection).toBe(connection)
  expect(node.door.joined.map(({ caller }) => caller.connection)).toEqual([connection, connection])
  expect(node.door.log.filter(line => line.startsWith('close'))).toEqual(['close room broken', 'close room broken'])
  const stranger = await poll(node, '/v1/channels/room', { poll: key }, bob)
  expect(stranger.body!.connection).not.toBe(connection)
  const guessed = await poll(node, '/v1/channels/room', { poll: connection })
  expect(guessed.body!.connection).not.toBe(connection)
})

test('a poll is answered at once when others are there than at the last one, and else tells who is there only with other news', async () => {
  await using node = await startGateway()
  const path = '/v1/channels/room?presence=true'
  const first = await poll(node, path)
  expect(first.body!.events).toMatchObject([{ event: 'presence', data: { here: [], count: 0 } }])
  const { here } = first.body!
  const quiet = await poll(node, path, { after: first.position, here: here!, wait: '0.05' })
  expect(quiet.status).toBe(304)
  await using ada = await TestStream.open(node, '/v1/channels/room?track=1')
  await ada.event('joined')
  await until(() => node.door.channel(privately('room')).entries.length === 1)
  const second = await poll(node, path, { after: first.position, here: here!, wait: '20' })
  expect(second.body!.events).toMatchObject([
    { event: 'presence', data: { here: [{ key: 'alice', meta: 1 }], count: 1 } },
  ])
  expect(second.body!.here).not.toBe(here)
  const third = await poll(node, path, { after: second.position, here: second.body!.here!, wait: '0.05' })
  expect(third.status).toBe(304)
  const without = await poll(node, path, { after: second.position, wait: '0.05' })
  expect(without.status).toBe(304)
})

test('[P7] more of a history than one answer holds comes in several, each to be gone on from', async () => {
  await using node = await startGateway({ sendQueueBytes: 20_000 })
  const count = 100
  for (let n = 0; n < count; n++) await say(node, 'h:1', 'x'.repeat(900))
  const told: unknown[] = []
  let after = `${historyEpoch}-0.t1`
  let polls = 0
  for (; told.length < count; polls++) {
    const { body, position } = await poll(node, '/v1/channels/h:1', { after })
    told.push(...body!.events)
    after = position
  }
  expect(told).toHaveLength(count)
  expect(polls).toBeGreaterThan(3)
})

test('a stream of an expired token breaks its members off, and a poll that fails leaves them', async () => {
  await using node = await startGateway()
  const token = tokenOf({ sub: 'alice', exp: Date.now() / 1000 + 1.5 })
  await using stream = await TestStream.open(node, '/v1/channels/room', { Authorization: `Bearer ${token}` })
  expect((await stream.event('error')).data).toMatchObject({ code: 'TOKEN_EXPIRED' })
  expect(node.door.log).toEqual(['join room', 'close room broken'])
  const failing = poll(node, '/v1/channels/other', { after: '1f2e3d4c-1000-0.t2', wait: '20' })
  await until(() => node.door.of('other').length === 1)
  await until(() => node.door.of('other')[0]!.hasCaughtUp)
  node.door.of('other')[0]!.end(new TidegateError('CHANNEL_CLOSED', 'no more'))
  expect(await failing).toMatchObject({ status: 403, body: { code: 'CHANNEL_CLOSED' } })
})
