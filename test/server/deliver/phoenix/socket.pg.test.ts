// The wire of Phoenix on a real node: what clients do that no library does, and what ends a channel so that its client comes back.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { eventually } from '../../../support/eventually.ts'
import {
  jwtSecret,
  person,
  prepareDatabase,
  roomsSchema,
  TestNode,
  tokenFor,
  trackTables,
} from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { Peer } from './support/peer.ts'

const stack = new AsyncDisposableStack()
let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = stack.use(await TestDatabase.create())
  const notes = `CREATE TABLE public.notes (id int PRIMARY KEY, body text); GRANT SELECT ON public.notes TO authenticated;`
  await prepareDatabase(database, roomsSchema + notes, ['public.rooms', 'public.members', 'public.messages'])
  const rules = [
    { pattern: 'fast:*', public: true, rate: { perSecond: 2, burst: 2 } },
    { pattern: 'kept:*', public: true, history: { length: 100, age: '60s' } },
  ]
  node = stack.use(
    await TestNode.start(database.url, {
      CHANNELS: JSON.stringify(rules),
      MAX_FRAMES_PER_SECOND: '1000',
      OPERATOR_TOKEN: 'operator-of-the-tests-32-bytes-long',
    }),
  )
}, 120_000)

afterAll(() => stack.disposeAsync(), 60_000)

let alice: string
let bob: string
let aliceToken: string
let bobToken: string

beforeEach(async () => {
  alice = person()
  bob = person()
  ;[aliceToken, bobToken] = await Promise.all([tokenFor(alice), tokenFor(bob)])
  await database.query(`TRUNCATE members; DELETE FROM messages;
    INSERT INTO members VALUES (1, '${alice}'), (2, '${bob}'), (3, '${alice}'), (3, '${bob}')`)
})

const messages = (event = '*') => ({ postgres_changes: [{ event, schema: 'public', table: 'messages' }] })
const insert = (id: number, room: number): Promise<unknown> =>
  database.query(`INSERT INTO messages VALUES (${id}, ${room}, 'a', 'text')`)

test('a socket answers heartbeats, and whoever speaks to no channel', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  expect(await peer.ask('phoenix', 'heartbeat')).toEqual({ status: 'ok', response: {} })
  const unmatched = { status: 'error', response: { reason: 'unmatched topic' } }
  expect(await peer.ask('elsewhere', 'phx_join')).toEqual(unmatched)
  expect(await peer.ask('realtime:none', 'broadcast', {})).toEqual(unmatched)
  expect(await peer.ask('phoenix', 'anything')).toEqual(unmatched)
  expect(await peer.ask('realtime:none', 'phx_leave')).toEqual({ status: 'ok', response: {} })
  expect(await peer.ask('realtime:', 'phx_join', { config: {} })).toEqual({
    status: 'error',
    response: { reason: 'TopicNameRequired: You must provide a topic name' },
  })
})

test('frames that are none are passed over, and the connection stays', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  for (const text of ['', '{', '[]', '[1,2]', 'null', '["1","1",7,"phx_join",{}]', '{"topic":"phoenix"}'])
    peer.ws.send(text)
  peer.ws.send(Buffer.from([3, 200, 200, 200, 200]))
  peer.ws.send(Buffer.from([9]))
  expect((await peer.join('realtime:a')).status).toBe('ok')
})

test('a push is taken with any join_ref, or none; a leave of an earlier join ends nothing', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', { broadcast: { self: true, ack: true } })
  const hello = { type: 'broadcast', event: 'hello', payload: { a: 1 } }
  for (const joinRef of [null, '999', '1'])
    expect(await peer.ask('realtime:a', 'broadcast', hello, joinRef)).toEqual({ status: 'ok', response: {} })
  expect(await peer.ask('realtime:a', 'phx_leave', {}, '999')).toEqual({ status: 'ok', response: {} })
  expect(await peer.ask('realtime:a', 'broadcast', hello)).toEqual({ status: 'ok', response: {} })
  await eventually(() => expect(peer.of('broadcast')).toHaveLength(4))
  expect(peer.of('phx_close')).toEqual([])
})

test('a second join of a topic closes the first, and a leave closes the channel', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', messages())
  const first = String(peer.lastRef)
  await peer.join('realtime:a', messages())
  const second = String(peer.lastRef)
  const closed = { joinRef: first, ref: first, topic: 'realtime:a', event: 'phx_close', payload: {} }
  expect(peer.of('phx_close')).toEqual([closed])
  await insert(1, 1)
  await eventually(() => expect(peer.ids()).toEqual([1]))
  expect(await peer.ask('realtime:a', 'phx_leave', {}, second)).toEqual({ status: 'ok', response: {} })
  await eventually(() => expect(peer.of('phx_close')).toHaveLength(2))
  await peer.join('realtime:b', messages())
  await insert(2, 1)
  await eventually(() => expect(peer.ids('realtime:b')).toEqual([2]))
  expect(peer.ids('realtime:a')).toEqual([1])
})

test('a socket holds a hundred channels, and refuses one more alone', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  for (let i = 0; i < 100; i += 1) peer.push(`realtime:${i}`, 'phx_join', { config: {} })
  await eventually(() => expect(peer.of('phx_reply')).toHaveLength(100))
  expect(await peer.join('realtime:100')).toEqual({
    status: 'error',
    response: { reason: 'ChannelRateLimitReached: Too many channels' },
  })
  await peer.ask('realtime:7', 'phx_leave')
  expect((await peer.join('realtime:100')).status).toBe('ok')
})

test('[P4] whoever becomes another user in an open channel misses and repeats nothing', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', messages(), aliceToken)
  let id = 0
  let isOver = false
  const writing = (async () => {
    while (!isOver) {
      id += 1
      await insert(id, 3)
    }
  })()
  for (let turn = 0; turn < 12; turn += 1) {
    const seen = peer.ids().length
    peer.push('realtime:a', 'access_token', { access_token: turn % 2 === 0 ? bobToken : aliceToken })
    await eventually(() => expect(peer.ids().length).toBeGreaterThan(seen + 5))
  }
  isOver = true
  await writing
  await eventually(() => expect(peer.ids().at(-1)).toBe(id))
  expect(peer.ids()).toEqual(Array.from({ length: id }, (_, i) => i + 1))
  expect(peer.of('phx_error')).toEqual([])
  // And it is another user.
  peer.push('realtime:a', 'access_token', { access_token: bobToken })
  const first = id + 1
  await eventually(async () => {
    id += 1
    await insert(id, 2)
    expect(peer.ids().some(seen => Number(seen) >= first)).toBe(true)
  })
  await insert(-1, 1)
  await insert(id + 1, 3)
  await eventually(() => expect(peer.ids().at(-1)).toBe(id + 1))
  expect(peer.ids()).not.toContain(-1)
})

test('[P4] messages too are told once to whoever becomes another user', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await using other = await Peer.open(node.url, bobToken)
  await peer.join('realtime:room', {}, aliceToken)
  await other.join('realtime:room', { broadcast: { ack: true } })
  const numbers = (): unknown[] => peer.of('broadcast').map(({ payload }) => payload.payload.n)
  let n = 0
  for (let turn = 0; turn < 10; turn += 1) {
    peer.push('realtime:room', 'access_token', { access_token: turn % 2 === 0 ? bobToken : aliceToken })
    for (let i = 0; i < 6; i += 1) {
      n += 1
      await other.ask('realtime:room', 'broadcast', { type: 'broadcast', event: 'n', payload: { n } })
    }
  }
  await eventually(() => expect(numbers()).toHaveLength(n))
  expect(numbers()).toEqual(Array.from({ length: n }, (_, i) => i + 1))
})

test('a token that has expired ends the channel so that its client comes back with another', async () => {
  const { SignJWT } = await import('jose')
  const short = await new SignJWT({ role: 'authenticated', sub: alice })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(new Date(Date.now() + 3000))
    .sign(new TextEncoder().encode(jwtSecret))
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', messages(), short)
  const joinRef = String(peer.lastRef)
  const ended = await peer.until(({ event }) => event === 'phx_error')
  expect(ended).toMatchObject({ ref: joinRef, joinRef })
  expect(peer.of('system').at(-1)?.payload).toMatchObject({ extension: 'system', status: 'error', channel: 'a' })
  expect(peer.of('system').at(-1)?.payload.message).toContain('expired')
  const refused = await peer.join('realtime:a', messages(), short)
  expect(refused.response.reason).toContain('InvalidJWTToken')
  // What came meanwhile was missed by nobody who comes back.
  await insert(1, 1)
  expect((await peer.join('realtime:a', messages(), aliceToken)).status).toBe('ok')
  await eventually(() => expect(peer.ids()).toEqual([1]))
})

test('[P4] a client whose socket broke is given what it missed, once, and a fresh page is not', async () => {
  const broken = await Peer.open(node.url, aliceToken)
  await broken.join('realtime:a', messages())
  // Its client has the change: an acknowledgement has come for it.
  const pinged = new Promise<void>(resolve => broken.ws.on('ping', () => broken.ids().includes(1) && resolve()))
  await insert(1, 1)
  await eventually(() => expect(broken.ids()).toEqual([1]))
  await pinged
  await broken.ask('phoenix', 'heartbeat')
  await broken[Symbol.asyncDispose]()
  await eventually(() => expect(node.server.connections()).toBe(0))
  await using witness = await Peer.open(node.url, bobToken)
  await witness.join('realtime:a', messages(), aliceToken)
  await insert(2, 1)
  await eventually(() => expect(witness.ids()).toEqual([2]))
  await using fresh = await Peer.open(node.url, aliceToken)
  await fresh.join('realtime:a', messages())
  await using back = await Peer.open(node.url, aliceToken, broken.lastRef)
  await back.join('realtime:a', messages())
  await insert(3, 1)
  await eventually(() => expect(back.ids()).toEqual([2, 3]))
  await eventually(() => expect(fresh.ids()).toEqual([3]))
})

test('[P7] whoever sends too fast is slowed down, and is in its channel for good', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await using other = await Peer.open(node.url, bobToken)
  await peer.join('realtime:fast:1', { broadcast: { ack: true } })
  await other.join('realtime:fast:1')
  const replies = await Promise.all(
    Array.from({ length: 6 }, (_, n) =>
      peer.ask('realtime:fast:1', 'broadcast', { type: 'broadcast', event: 'n', payload: { n } }),
    ),
  )
  const sent = replies.filter(({ status }) => status === 'ok')
  expect(sent.length).toBeGreaterThanOrEqual(2)
  await eventually(() => expect(other.of('broadcast')).toHaveLength(sent.length))
  expect(peer.of('phx_close')).toEqual([])
})

test('a truncated table is told as a gap: the channel errs, and stands again when it is joined', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', messages())
  await insert(1, 1)
  await eventually(() => expect(peer.ids()).toEqual([1]))
  await database.query('TRUNCATE messages')
  await peer.until(({ event }) => event === 'phx_error')
  await peer.join('realtime:a', messages())
  await insert(2, 1)
  await eventually(() => expect(peer.ids()).toEqual([1, 2]))
})

test('a binding that can never stand leaves the others, and says why', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  const bindings = [
    { event: '*', schema: 'public', table: 'nowhere' },
    { event: '*', schema: 'public', table: 'messages', filter: 'nothing=eq.1' },
    ...messages().postgres_changes,
  ]
  const { status, response } = await peer.join('realtime:a', { postgres_changes: bindings })
  expect(status).toBe('ok')
  expect(response.postgres_changes).toEqual(bindings.map(binding => ({ ...binding, id: expect.any(Number) })))
  const systems = () =>
    peer.of('system').map(({ payload: { status, message } }) => `${status} ${message.split(':')[0]}`)
  await eventually(() =>
    expect(systems()).toEqual(['error TABLE_UNKNOWN', 'error COLUMN_UNKNOWN', 'ok Subscribed to PostgreSQL']),
  )
  await insert(1, 1)
  await eventually(() => expect(peer.ids()).toEqual([1]))
})

test('a binding of all tables hears of one that is tracked later', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', { postgres_changes: [{ event: '*', schema: 'public' }] })
  await trackTables(database, ['public.notes'])
  let id = 0
  await eventually(async () => {
    id += 1
    await database.query(`INSERT INTO notes VALUES (${id}, 'a')`)
    expect(peer.of('postgres_changes').some(({ payload }) => payload.data.table === 'notes')).toBe(true)
  })
  await insert(1000, 1)
  await eventually(() => expect(peer.ids()).toContain(1000))
})

test('an operator ends what a user is in, and their client is told', async () => {
  await using peer = await Peer.open(node.url, bobToken)
  await peer.join('realtime:a', messages(), aliceToken)
  await peer.join('realtime:b', messages(), bobToken)
  const response = await fetch(`${node.url}/v1/orders`, {
    method: 'POST',
    headers: { authorization: 'Bearer operator-of-the-tests-32-bytes-long' },
    body: JSON.stringify({ kick: { sub: alice } }),
  })
  expect(await response.text()).not.toContain('code')
  await eventually(() => expect(peer.of('phx_error').map(({ topic }) => topic)).toEqual(['realtime:a']))
  expect(peer.of('system', 'realtime:a').at(-1)?.payload.message).toContain('KICKED')
})

test('a transaction over several tables is told in the order of its changes', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await database.query('DELETE FROM rooms')
  await peer.join('realtime:a', { postgres_changes: [{ event: '*', schema: 'public' }] })
  const told = () =>
    peer
      .of('postgres_changes')
      .filter(({ payload: { data } }) => data.table !== 'members' && data.type !== 'DELETE')
      .map(({ payload: { data } }) => `${data.table} ${data.record.id}`)
  await database.query(`BEGIN;
    INSERT INTO messages VALUES (10, 1, 'a', 'b'); INSERT INTO rooms VALUES (1, 'one'); INSERT INTO messages VALUES (11, 1, 'a', 'b');
    INSERT INTO rooms VALUES (3, 'three'); INSERT INTO messages VALUES (12, 1, 'a', 'b'); COMMIT`)
  await database.query(`BEGIN; INSERT INTO messages VALUES (13, 1, 'a', 'b'); UPDATE rooms SET name = 'uno' WHERE id = 1;
    INSERT INTO messages VALUES (14, 1, 'a', 'b'); COMMIT`)
  const first = ['messages 10', 'rooms 1', 'messages 11', 'rooms 3', 'messages 12']
  await eventually(() => expect(told()).toEqual([...first, 'messages 13', 'rooms 1', 'messages 14']))
})

test('a broadcast that is too large is refused by an answer, and the socket stays', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  await peer.join('realtime:a', { broadcast: { ack: true } })
  const payload = { text: 'x'.repeat(100_000) }
  const answer = await peer.ask('realtime:a', 'broadcast', { type: 'broadcast', event: 'e', payload })
  expect(answer).toMatchObject({ status: 'error' })
  expect(answer.response.reason).toContain('PAYLOAD_TOO_LARGE')
  const small = await peer.ask('realtime:a', 'broadcast', { type: 'broadcast', event: 'e', payload: {} })
  expect(small).toEqual({ status: 'ok', response: {} })
})

test('[P7] whoever sends frames without end is read more slowly, and answered every one', async () => {
  await using peer = await Peer.open(node.url, aliceToken)
  const count = 1500
  const begun = performance.now()
  // So long that few of them are of one read of the socket, which is not waited for.
  for (let i = 0; i < count; i += 1) peer.push('phoenix', 'heartbeat', { text: 'x'.repeat(400) })
  await eventually(() => expect(peer.of('phx_reply')).toHaveLength(count))
  // 1000 a second, and 200 at once.
  expect(performance.now() - begun).toBeGreaterThan(700)
})

test('whoever becomes another user under a presence key of their own is told that it is refused, and stays', async () => {
  await database.query(
    `CREATE POLICY "lobby" ON realtime.messages FOR ALL TO authenticated USING ((SELECT realtime.topic()) = 'lobby')`,
  )
  await using peer = await Peer.open(node.url, aliceToken)
  const config = { private: true, presence: { key: alice, enabled: true } }
  await peer.join('realtime:lobby', config, aliceToken)
  const track = { type: 'presence', event: 'track', payload: { name: 'a' } }
  expect(await peer.ask('realtime:lobby', 'presence', track)).toEqual({ status: 'ok', response: {} })
  peer.push('realtime:lobby', 'access_token', { access_token: bobToken })
  const told = await peer.until(({ event, payload }) => event === 'system' && payload.extension === 'presence')
  expect(told.payload).toMatchObject({ status: 'error', message: expect.stringContaining('SEND_REFUSED') })
  expect(peer.of('phx_error')).toEqual([])
})
