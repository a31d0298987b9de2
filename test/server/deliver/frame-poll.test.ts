import { expect, test } from 'vitest'
import type { ClientFrame, ServerFrame } from '../../../src/protocol/messages.ts'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { serverFrameSchema } from '../../../src/server/deliver/frame-schema.ts'
import { alice, bob, startGateway, type TestGateway, TestSocket, tokenOf, until } from './support/gateway.ts'
import { RawSocket } from './support/raw-socket.ts'

interface Polled {
  readonly status: number
  readonly frames: ServerFrame[]
  readonly poll: string
  readonly here?: string
  readonly code?: string
}

async function poll(node: TestGateway, body: object, token = alice): Promise<Polled> {
  const response = await fetch(`${node.url}/v1/poll`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${token}` },
    body: JSON.stringify(body),
  })
  const answer = (await response.json()) as Polled
  for (const frame of answer.frames ?? []) expect(serverFrameSchema.parse(frame)).toEqual(frame)
  return { ...answer, status: response.status }
}

const typesOf = ({ frames }: Polled): string[] => frames.map(({ type }) => type)
const subscribe = (id: number, table: string, since?: string): ClientFrame => ({
  type: 'subscribe',
  id,
  kind: 'live',
  table,
  ...(since === undefined ? {} : { since }),
})
const join = (id: number, topic: string, more: object = {}): ClientFrame => ({ type: 'join', id, topic, ...more })
/** What to come back with, by id. */
function positionsOf({ frames }: Polled): { [id: string]: string } {
  const beat = frames.find(frame => frame.type === 'heartbeat')
  return beat === undefined ? {} : beat.positions
}

test('a first poll is answered with who it is, the whole state and where that stands; the next ones from there', async () => {
  await using node = await startGateway()
  node.core.query({ kind: 'live', table: 'messages', filters: [] }).rows.push({ id: 1 }, { id: 2 }, { id: 3 })
  node.core.partRows = 2
  const first = await poll(node, { frames: [subscribe(7, 'messages')], wait: 30 })
  expect(typesOf(first)).toEqual(['welcome', 'subscribed', 'snapshot', 'snapshot', 'heartbeat'])
  expect(first.frames[0]).toMatchObject({ heartbeatMs: 25_000, expiresAt: null })
  const since = positionsOf(first)[7]!
  expect(since).toMatch(/^1f2e3d4c-1000\./)
  node.core.insert('messages', 4)
  node.core.insert('messages', 5)
  const second = await poll(node, { frames: [subscribe(7, 'messages', since)], wait: 30, poll: first.poll })
  expect(typesOf(second)).toEqual(['welcome', 'subscribed', 'delta', 'delta', 'heartbeat'])
  expect(second.frames[1]).toMatchObject({ id: 7, resumed: true })
  expect(second.frames[0]).toEqual(first.frames[0])
  expect(second.poll).toBe(first.poll)
  expect(positionsOf(second)[7]).toMatch(/^1f2e3d4c-1020\./)
  expect(node.core.open.size).toBe(0)
})

test('a poll with nothing new waits for it, and is answered the moment it is there', async () => {
  await using node = await startGateway()
  const first = await poll(node, { frames: [subscribe(1, 'messages')] })
  const waiting = poll(node, { frames: [subscribe(1, 'messages', positionsOf(first)[1])], wait: 30 })
  await until(() => node.core.open.size === 1)
  node.core.insert('messages', 9)
  expect(typesOf(await waiting)).toEqual(['welcome', 'subscribed', 'delta', 'heartbeat'])
})

test('nothing new within the wait is a small answer with where everything stands', async () => {
  await using node = await startGateway()
  const first = await poll(node, { frames: [subscribe(1, 'messages'), join(2, 'h:room')] })
  const { 1: query, 2: channel } = positionsOf(first)
  node.core.insert('orders', 1)
  for (const wait of [0, 0.1, undefined]) {
    const frames = [subscribe(1, 'messages', query), join(2, 'h:room', { since: channel })]
    const again = await poll(node, { frames, wait, poll: first.poll })
    expect(typesOf(again)).toEqual(['welcome', 'subscribed', 'joined', 'heartbeat'])
    expect(again.frames.at(-1)).toMatchObject({ type: 'heartbeat', stale: false })
    // It moved on with what it does not see, and stays within the window.
    expect(positionsOf(again)[1]).toMatch(/^1f2e3d4c-1010\./)
  }
})

test('[P8] what is refused is told under its id, at once, and the others are served', async () => {
  await using node = await startGateway({ maxSubscriptions: 5 })
  const first = await poll(node, { frames: [subscribe(2, 'messages')] })
  const { frames } = await poll(node, {
    frames: [
      subscribe(1, 'nope'),
      subscribe(2, 'messages', positionsOf(first)[2]),
      join(3, 'x:secret'),
      subscribe(4, 'orders', 'rubbish'),
      subscribe(5, 'messages'),
      subscribe(6, 'rooms'),
      subscribe(7, 'broken'),
      subscribe(8, 'more'),
    ],
    wait: 30,
  })
  const errors = frames.flatMap(frame => (frame.type === 'error' ? [[frame.id, frame.code]] : []))
  expect(errors.toSorted()).toEqual([
    [1, 'TABLE_UNKNOWN'],
    [3, 'CHANNEL_REFUSED'],
    [4, 'POSITION_INVALID'],
    [5, 'ALREADY_SUBSCRIBED'],
    [7, 'TOO_MANY_SUBSCRIPTIONS'],
    [8, 'TOO_MANY_SUBSCRIPTIONS'],
  ])
  expect(frames.flatMap(frame => (frame.type === 'subscribed' ? [frame.id] : []))).toEqual([2, 6])
  expect(frames.at(-1)).toMatchObject({ type: 'heartbeat', positions: { 2: expect.anything(), 6: expect.anything() } })
})

const broken: [name: string, body: unknown, code: string, status: number][] = [
  ['no JSON', '{', 'BAD_FRAME', 400],
  ['no frames', {}, 'BAD_FRAME', 400],
  ['a frame that no poll has', { frames: [{ type: 'unsubscribe', id: 1 }] }, 'BAD_FRAME', 400],
  ['a frame of no shape', { frames: [{ type: 'subscribe', id: 1 }] }, 'BAD_FRAME', 400],
  ['an id twice', { frames: [subscribe(1, 'a'), join(1, 'b')] }, 'BAD_FRAME', 400],
  ['a misspelt field', { frames: [], waits: 1 }, 'BAD_FRAME', 400],
  ['a wait of no length', { frames: [], wait: -1 }, 'BAD_FRAME', 400],
  ['a frame too large', { frames: [join(1, 'x'.repeat(70_000))] }, 'FRAME_TOO_LARGE', 413],
  ['a body too large', { frames: [], here: 'x'.repeat(300_000) }, 'FRAME_TOO_LARGE', 413],
]
test.each(broken)('[P8] a poll with %s is refused as a whole', async (_name, body, code, status) => {
  await using node = await startGateway()
  const response = await fetch(`${node.url}/v1/poll`, {
    method: 'POST',
    headers: { Authorization: `Bearer ${alice}` },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  })
  expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([status, code])
  expect(node.core.requests).toEqual([])
})

test('[P4] a position that is not taken up is told resync, with the fresh state behind it', async () => {
  await using node = await startGateway()
  const answer = await poll(node, { frames: [subscribe(1, 'messages', '1f2e3d4c-1000.other')], wait: 30 })
  expect(typesOf(answer)).toEqual(['welcome', 'subscribed', 'resync', 'snapshot', 'heartbeat'])
  const changes = { type: 'subscribe', id: 1, kind: 'changes', table: 'orders', since: '1f2e3d4c-1000.other' }
  const lost = await poll(node, { frames: [changes], wait: 30 })
  expect(typesOf(lost).slice(0, 3)).toEqual(['welcome', 'subscribed', 'resync'])
})

test('changes that begin now are answered at once, so that their client has a place to come back to', async () => {
  await using node = await startGateway()
  const changes = { type: 'subscribe', id: 1, kind: 'changes', table: 'orders' }
  const first = await poll(node, { frames: [changes], wait: 30 })
  expect(typesOf(first)).toEqual(['welcome', 'subscribed', 'heartbeat'])
  node.core.insert('orders', 1)
  const second = await poll(node, { frames: [{ ...changes, since: positionsOf(first)[1] }], wait: 30 })
  expect(typesOf(second)).toEqual(['welcome', 'subscribed', 'change', 'heartbeat'])
})

test('a transaction is waited for: where its client stands comes before that it has passed', async () => {
  await using node = await startGateway()
  const first = await poll(node, { frames: [subscribe(1, 'messages')] })
  const since = positionsOf(first)[1]
  node.core.insert('orders', 1)
  const answer = await poll(node, {
    frames: [subscribe(1, 'messages', since), { type: 'wait', ref: 4, txid: '4112' }],
    wait: 30,
  })
  expect(typesOf(answer)).toEqual(['welcome', 'subscribed', 'heartbeat', 'waited'])
  expect(answer.frames.at(-1)).toEqual({ type: 'waited', ref: 4, position: '1f2e3d4c-1010' })
  const refused = await poll(node, { frames: [{ type: 'wait', ref: 5, txid: '404' }], wait: 30 })
  expect(refused.frames).toContainEqual(expect.objectContaining({ type: 'error', ref: 5, code: 'WAIT_TIMEOUT' }))
  // One that is not over within the wait is asked about again.
  const open = await poll(node, { frames: [{ type: 'wait', ref: 6, txid: '500' }], wait: 0.1 })
  expect(typesOf(open)).toEqual(['welcome', 'heartbeat'])
})

test('queries that lag behind a transaction are waited for, so that the answer says that they are past it', async () => {
  await using node = await startGateway()
  const first = await poll(node, { frames: [subscribe(1, 'messages')] })
  const frames = [subscribe(1, 'messages', positionsOf(first)[1]), { type: 'wait', ref: 4, txid: '4112' }]
  const waiting = poll(node, { frames, wait: 30 })
  await until(() => node.core.open.size === 1)
  await new Promise(resolve => setTimeout(resolve, 50))
  node.core.insert('orders', 1)
  const answer = await waiting
  expect(typesOf(answer)).toEqual(['welcome', 'subscribed', 'heartbeat', 'waited'])
  expect(positionsOf(answer)[1]).toMatch(/^1f2e3d4c-1010\./)
})

test('in channels a client that polls is one connection, which gets nothing of its own, and misses nothing of a history', async () => {
  await using node = await startGateway()
  await using ben = await TestSocket.open(node, bob)
  await ben.join(1, 'h:room')
  const first = await poll(node, { frames: [join(2, 'h:room', { track: { meta: { at: 'desk' } } })], wait: 30 })
  const { connection } = first.frames.find(frame => frame.type === 'welcome')!
  const say = (key: string) =>
    fetch(`${node.url}/v1/channels/h:room?poll=${key}`, {
      method: 'POST',
      headers: { Authorization: `Bearer ${alice}` },
      body: JSON.stringify({ event: 'typing', payload: key }),
    })
  expect((await say(first.poll)).status).toBe(200)
  expect(await ben.frame('message')).toMatchObject({ sender: { user: 'alice', connection } })
  expect(node.door.joined.at(-1)!.caller.connection).toBe(connection)
  ben.send({ type: 'send', id: 1, event: 'typing', payload: 'ben' })
  await until(() => node.door.log.includes('send h:room "ben"'))
  const since = positionsOf(first)[2]
  const second = await poll(node, { frames: [join(2, 'h:room', { since })], wait: 30, poll: first.poll })
  expect(second.frames[0]).toMatchObject({ connection })
  const heard = second.frames.flatMap(frame => (frame.type === 'message' ? [frame.payload] : []))
  expect(heard).toContain('ben')
  // The same key with another subject's token is another connection.
  const other = await poll(node, { frames: [], poll: first.poll }, bob)
  expect(other.frames[0]).not.toMatchObject({ connection })
})

test('who is there is told once, and again when others are there', async () => {
  await using node = await startGateway()
  await using ben = await TestSocket.open(node, bob)
  const channel = (since?: string) => [join(2, 'h:room', { presence: true, ...(since ? { since } : {}) })]
  const first = await poll(node, { frames: channel() })
  expect(typesOf(first)).toEqual(['welcome', 'joined', 'presence', 'heartbeat'])
  const since = positionsOf(first)[2]
  const again = { poll: first.poll, here: first.here }
  expect(typesOf(await poll(node, { frames: channel(since), wait: 0.05, ...again }))).not.toContain('presence')
  await ben.join(1, 'h:room', { track: { meta: 1 } })
  await until(() => node.door.log.includes('track h:room 1'))
  const other = await poll(node, { frames: channel(since), wait: 30, ...again })
  expect(other.frames.find(frame => frame.type === 'presence')).toMatchObject({ count: 1, here: [{ user: 'bob' }] })
  expect(other.here).not.toBe(first.here)
  // Whoever brings nothing back is told.
  expect(typesOf(await poll(node, { frames: channel(since), wait: 30 }))).toContain('presence')
})

test('a change of who is there during a poll leaves no word behind: the list is told anew', async () => {
  await using node = await startGateway()
  const frames = [join(2, 'h:room', { presence: true })]
  const first = await poll(node, { frames })
  const since = positionsOf(first)[2]
  const waiting = poll(node, { frames: [join(2, 'h:room', { presence: true, since })], wait: 30, here: first.here })
  await until(() => node.door.of('h:room')[0]?.hasCaughtUp === true)
  node.door.of('h:room')[0]!.change()
  const changed = await waiting
  expect(typesOf(changed)).toEqual(['welcome', 'joined', 'presence', 'heartbeat'])
  expect(changed.here).toBe(undefined)
})

test('a stream that stands still answers a poll that waits', async () => {
  await using node = await startGateway({ handshakeMs: 200 })
  const first = await poll(node, { frames: [subscribe(1, 'messages')] })
  const waiting = poll(node, { frames: [subscribe(1, 'messages', positionsOf(first)[1])], wait: 30 })
  await until(() => node.core.open.size === 1)
  node.core.stale = true
  expect((await waiting).frames.at(-1)).toMatchObject({ type: 'heartbeat', stale: true })
})

test('[P3] of rows that are hidden while a poll collects, nothing is sent', async () => {
  await using node = await startGateway()
  const first = await poll(node, { frames: [subscribe(1, 'messages'), subscribe(2, 'orders')] })
  const { 1: messages, 2: orders } = positionsOf(first)
  const waiting = poll(node, { frames: [subscribe(1, 'messages', messages), subscribe(2, 'orders', orders)], wait: 30 })
  await until(() => node.core.open.size === 2)
  const [hidden] = node.core.of('messages')
  node.core.insert('messages', 1, 'secret')
  node.core.insert('orders', 2)
  hidden!.outlet.takeBack('firmly')
  hidden!.isClosed = true
  hidden!.outlet.fail(new TidegateError('TABLE_REFUSED', 'the role may not SELECT this table'))
  const { frames } = await waiting
  expect(JSON.stringify(frames)).not.toContain('secret')
  expect(frames.flatMap(frame => (frame.type === 'error' ? [[frame.id, frame.code]] : []))).toEqual([
    [1, 'TABLE_REFUSED'],
  ])
  expect(frames.filter(({ type }) => type === 'delta')).toHaveLength(1)
})

test('[P7] a state larger than an answer is refused under its id, and the others are served', async () => {
  await using node = await startGateway({ longPollMaxBytes: 100_000, sendQueueBytes: 10_000 })
  const { rows } = node.core.query({ kind: 'live', table: 'messages', filters: [] })
  for (let id = 0; id < 40; id += 1) rows.push({ id, body: 'x'.repeat(5000) })
  node.core.partRows = 5
  node.core.query({ kind: 'live', table: 'orders', filters: [] }).rows.push({ id: 1 })
  const { frames } = await poll(node, { frames: [subscribe(1, 'orders'), subscribe(2, 'messages')], wait: 30 })
  expect(frames.find(frame => frame.type === 'error')).toMatchObject({ id: 2, code: 'SNAPSHOT_TOO_LARGE' })
  expect(frames.flatMap(frame => (frame.type === 'snapshot' ? [frame.id] : []))).toEqual([1])
  expect(Buffer.byteLength(JSON.stringify(frames))).toBeLessThan(10_000)
})

test('[P4] [P7] more than an answer takes comes in several, without gap or repeat', async () => {
  await using node = await startGateway({ sendQueueBytes: 20_000 })
  const first = await poll(node, { frames: [subscribe(1, 'messages')] })
  let since = positionsOf(first)[1]!
  for (let id = 0; id < 30; id += 1) node.core.insert('messages', id, 'x'.repeat(2000))
  const ids: unknown[] = []
  let polls = 0
  while (ids.length < 30) {
    const answer = await poll(node, { frames: [subscribe(1, 'messages', since)], wait: 30 })
    for (const frame of answer.frames)
      if (frame.type === 'delta') ids.push(...frame.changes.map(change => 'key' in change && change.key.id))
    since = positionsOf(answer)[1]!
    polls += 1
  }
  expect(ids).toEqual(Array.from({ length: 30 }, (_, id) => id))
  expect(polls).toBeGreaterThan(1)
})

test('a node that leaves answers with what there is, where its client stands, and when to come back', async () => {
  await using node = await startGateway()
  const first = await poll(node, { frames: [subscribe(1, 'messages')] })
  const waiting = poll(node, { frames: [subscribe(1, 'messages', positionsOf(first)[1])], wait: 30 })
  await until(() => node.core.open.size === 1)
  void node.gateway.drain({ spreadMs: 100, timeoutMs: 2000 })
  const { frames } = await waiting
  expect(frames.map(({ type }) => type)).toEqual(['welcome', 'subscribed', 'heartbeat', 'error'])
  expect(frames.at(-1)).toMatchObject({ code: 'GOING_AWAY', retryAfterMs: 100 })
  expect(frames.at(-2)).toMatchObject({ positions: { 1: expect.anything() } })
})

test('whoever is kicked while a poll waits is told so, and asked for newer claims too', async () => {
  await using node = await startGateway()
  const begin = async (): Promise<{ answer: Promise<Polled> }> => {
    await until(() => node.gateway.connections() === 0)
    const first = await poll(node, { frames: [subscribe(1, 'messages')] })
    const answer = poll(node, { frames: [subscribe(1, 'messages', positionsOf(first)[1])], wait: 30 })
    await until(() => node.core.open.size === 1)
    return { answer }
  }
  const kicked = await begin()
  for (const connection of node.gateway.ordered.ofUser('alice')) connection.cutOff(new TidegateError('KICKED', 'x'))
  expect((await kicked.answer).frames.at(-1)).toMatchObject({ type: 'error', code: 'KICKED' })
  const asked = await begin()
  for (const connection of node.gateway.ordered.ofUser('alice')) connection.refresh(5000)
  expect((await asked.answer).frames).toContainEqual({ type: 'refresh', withinMs: 5000 })
})

test('a wait ends when the token does', async () => {
  await using node = await startGateway()
  const exp = Date.now() / 1000 + 1.5
  const first = await poll(node, { frames: [subscribe(1, 'messages')] }, tokenOf({ sub: 'alice', exp }))
  const frames = [subscribe(1, 'messages', positionsOf(first)[1])]
  expect((await poll(node, { frames, wait: 30 }, tokenOf({ sub: 'alice', exp }))).status).toBe(200)
  expect(Date.now() / 1000).toBeGreaterThanOrEqual(exp)
  expect(await poll(node, { frames, wait: 30 }, tokenOf({ sub: 'alice', exp }))).toMatchObject({
    code: 'TOKEN_EXPIRED',
  })
})

test('[P7] a client that goes while its poll waits leaves nothing behind', async () => {
  await using node = await startGateway()
  const first = await poll(node, { frames: [subscribe(1, 'messages')] })
  const body = JSON.stringify({ frames: [subscribe(1, 'messages', positionsOf(first)[1])], wait: 30 })
  {
    await using raw = await RawSocket.connect(
      node,
      `POST /v1/poll HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${alice}\r\nContent-Length: ${body.length}\r\n\r\n${body}`,
    )
    await until(() => node.core.open.size === 1)
    expect(raw.text).toBe('')
  }
  await until(() => node.core.open.size === 0 && node.gateway.connections() === 0)
})
