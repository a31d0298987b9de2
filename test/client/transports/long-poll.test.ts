import { expect, test } from 'vitest'
import { openLongPoll } from '../../../src/client/transports/long-poll.ts'
import type { ClientFrame, ServerFrame } from '../../../src/protocol/messages.ts'
import { Hearing } from './hearing.ts'
import { type Asked, ScriptedRequests } from './scripted-requests.ts'

type Poll = { frames: ClientFrame[]; wait: number; poll?: string; here?: string }

const welcome = { type: 'welcome', connection: 'c', heartbeatMs: 20_000, expiresAt: null } as const
const heartbeat: ServerFrame = { type: 'heartbeat', position: null, positions: {}, stale: false, lagMs: 0 }
const subscribe = (id: number, since?: string): ClientFrame => ({
  type: 'subscribe',
  id,
  kind: 'live',
  table: `t${id}`,
  ...(since === undefined ? {} : { since }),
})
const subscribed = (id: number, query: number, resumed = true): ServerFrame => ({
  type: 'subscribed',
  id,
  query,
  tag: 'tag',
  key: ['id'],
  resumed,
  position: `${query}-0`,
})
const joined = (id: number, channel: number, resumed = true): ServerFrame => ({
  type: 'joined',
  id,
  channel,
  tag: 'tag',
  resumed,
  position: `${channel}-0`,
  history: false,
  maySend: true,
})
const delta = (query: number): ServerFrame => ({ type: 'delta', query, changes: [], done: true, committedAt: '' })
const bodyOf = (asked: Asked): Poll => asked.body as Poll
const answer = (asked: Asked, frames: ServerFrame[], more: object = {}): void =>
  asked.answer(200, { frames: [welcome, ...frames, heartbeat], poll: 'key', ...more })

/** Welcomed, with these entered from now on. */
async function connected(server: ScriptedRequests, entries: ClientFrame[] = []): Promise<Hearing> {
  const hearing = new Hearing(openLongPoll, server.url)
  const first = await server.next('/v1/poll')
  expect([first.token, first.body]).toEqual(['token', { frames: [], wait: 0 }])
  hearing.entries = entries
  answer(first, [])
  await hearing.frame('welcome')
  return hearing
}

test('welcomes once; then waits as long as a heartbeat, again and again, and brings along what it was given', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = await connected(server)
  const second = await server.next('/v1/poll')
  expect(second.body).toEqual({ frames: [], wait: 20, poll: 'key' })
  answer(second, [], { here: 'word' })
  const third = await server.next('/v1/poll')
  expect(third.body).toEqual({ frames: [], wait: 20, poll: 'key', here: 'word' })
  expect(hearing.types).toEqual(['welcome', 'heartbeat', 'heartbeat'])
})

test('whoever answers at once, with nothing, is not asked in a tight loop; what is asked meanwhile does not wait', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = await connected(server, [subscribe(1)])
  answer(await server.next('/v1/poll'), [subscribed(1, 7)])
  const times: number[] = []
  for (let i = 0; i < 3; i++) {
    const asked = await server.next('/v1/poll')
    times.push(Date.now())
    answer(asked, [subscribed(1, 7)])
  }
  expect(times[2]! - times[0]!).toBeGreaterThan(900)
  hearing.transport.send({ type: 'unsubscribe', id: 1 })
  const asked = await server.next('/v1/poll')
  expect(asked.body).toMatchObject({ wait: 0 })
  expect(Date.now() - times[2]!).toBeLessThan(900)
})

test('does not wait for longer than proxies do, whatever the server says', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = new Hearing(openLongPoll, `${server.url}/base`)
  ;(await server.next('/base/v1/poll')).answer(200, { frames: [{ ...welcome, heartbeatMs: 60_000 }], poll: 'key' })
  expect(await hearing.frame('welcome')).toMatchObject({ heartbeatMs: 25_000 })
  expect((await server.next('/base/v1/poll')).body).toMatchObject({ wait: 25 })
})

test('what is entered is asked for at once, and then with each poll from where it stands, as one connection', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = await connected(server, [subscribe(1), subscribe(2), { type: 'join', id: 3, topic: 'x' }])
  let asked = await server.next('/v1/poll')
  expect(bodyOf(asked)).toMatchObject({ wait: 0, frames: hearing.entries })
  const frames = [subscribed(1, 71, false), subscribed(2, 72, false), joined(3, 71, false), delta(72), delta(71)]
  answer(asked, frames)
  asked = await server.next('/v1/poll')
  expect(bodyOf(asked).wait).toBe(20)
  // Of one that waits to be tried again nothing was sent.
  const standing: ClientFrame[] = [
    subscribe(1, 'a'),
    subscribe(2, 'b'),
    { type: 'join', id: 3, topic: 'x', since: 'c' },
  ]
  hearing.entries = [...standing, subscribe(4)]
  // Another node calls them otherwise.
  answer(asked, [subscribed(1, 5), subscribed(2, 71), joined(3, 6), delta(71)])
  asked = await server.next('/v1/poll')
  expect(bodyOf(asked)).toMatchObject({ wait: 20, frames: standing })
  const news: ServerFrame[] = [subscribed(1, 5, false), { ...subscribed(2, 6), tag: 'other' } as ServerFrame]
  const gap: ServerFrame = { type: 'gap', channel: 9, code: 'MESSAGES_LOST', reason: 'lost', missed: 1 }
  answer(asked, [...news, joined(3, 9), gap, delta(5)])
  await server.next('/v1/poll')
  const told = hearing.frames.filter(({ type }) => type !== 'heartbeat').slice(1)
  expect(told.map(frame => ({ ...frame, position: 0 }))).toEqual(
    [
      subscribed(1, 1, false),
      subscribed(2, 2, false),
      joined(3, 3, false),
      delta(2),
      delta(1),
      delta(2),
      subscribed(1, 1, false),
      { ...subscribed(2, 2), tag: 'other' },
      { ...gap, channel: 3 },
      delta(1),
    ].map(frame => ({ ...frame, position: 0 })),
  )
})

test('a poll that waits is ended when something else is asked for, once for all of one moment', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = await connected(server)
  const waiting = await server.next('/v1/poll')
  expect(bodyOf(waiting).wait).toBe(20)
  hearing.entries = [subscribe(1), subscribe(2)]
  for (const entry of hearing.entries) hearing.transport.send(entry)
  await waiting.over
  const next = await server.next('/v1/poll')
  expect(next.body).toEqual({ frames: hearing.entries, wait: 0, poll: 'key' })
  // One that does not wait is not ended: what is asked meanwhile comes with the one after it.
  hearing.transport.send({ type: 'unsubscribe', id: 1 })
  answer(next, [subscribed(1, 7, false), subscribed(2, 8, false)])
  const last = await server.next('/v1/poll')
  expect(last.body).toEqual({ frames: [subscribe(2)], wait: 0, poll: 'key' })
  answer(last, [subscribed(2, 8)])
  expect(await hearing.frame('unsubscribed')).toEqual({ type: 'unsubscribed', id: 1 })
  expect(hearing.types.filter(type => type === 'subscribed')).toHaveLength(1)
  expect(hearing.losses).toEqual([])
})

test('one that was refused is not asked for again by itself, and its neighbour is', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = await connected(server, [subscribe(1), subscribe(2)])
  answer(await server.next('/v1/poll'), [
    { type: 'error', id: 1, code: 'BUSY', message: 'later', retry: true },
    subscribed(2, 8, false),
  ])
  const next = await server.next('/v1/poll')
  expect(bodyOf(next).frames).toEqual([subscribe(2)])
  expect(await hearing.frame('error')).toMatchObject({ id: 1, code: 'BUSY' })
  hearing.transport.send(subscribe(1))
  expect(bodyOf(await server.next('/v1/poll')).frames).toEqual([subscribe(1), subscribe(2)])
})

test('what is sent goes by a request of its own, in order, as this connection, and is answered or refused by its ref', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = await connected(server, [
    { type: 'join', id: 1, topic: 'a/b c' },
    { type: 'join', id: 2, topic: 'open', private: false },
  ])
  answer(await server.next('/v1/poll'), [joined(1, 1, false), joined(2, 2, false)])
  await server.next('/v1/poll')
  hearing.transport.send({ type: 'send', id: 1, ref: 5, event: 'e', payload: { a: 1 }, idempotencyKey: 'k' })
  hearing.transport.send({ type: 'send', id: 2, event: 'f' })
  hearing.transport.send({ type: 'send', id: 2, ref: 7, event: 'g' })
  hearing.transport.send({ type: 'send', id: 9, ref: 8, event: 'h' })
  const first = await server.next('/v1/channels/a%2Fb%20c?poll=key')
  expect([first.token, first.body]).toEqual(['token', { event: 'e', payload: { a: 1 }, idempotencyKey: 'k' }])
  expect(server.waiting).toEqual([])
  first.answer(200, { message: 'm', position: 'p', duplicate: true })
  ;(await server.next('/v1/channels/open?poll=key&private=false')).answer(200, { message: 'n', position: 'q' })
  const refusal = { code: 'SEND_REFUSED', message: 'no', retry: false }
  ;(await server.next('/v1/channels/open?poll=key&private=false')).answer(403, refusal)
  await hearing.frame('error')
  expect(hearing.frames.filter(({ type }) => type === 'sent' || type === 'error')).toEqual([
    { type: 'sent', id: 1, ref: 5, message: 'm', position: 'p', duplicate: true },
    { type: 'error', id: 2, ref: 7, ...refusal },
    { type: 'error', id: 9, ref: 8, code: 'NOT_JOINED', message: expect.any(String), retry: false },
  ])
  expect(hearing.losses).toEqual([])
})

test('what a member tells of itself goes with the next polls, and is answered when one was', async () => {
  await using server = await ScriptedRequests.start()
  const join: ClientFrame = { type: 'join', id: 1, topic: 'x', presence: true }
  using hearing = await connected(server, [join])
  answer(await server.next('/v1/poll'), [joined(1, 1, false)])
  await server.next('/v1/poll')
  hearing.transport.send({ type: 'track', id: 1, ref: 4, meta: { name: 'me' } })
  let asked = await server.next('/v1/poll')
  expect(bodyOf(asked)).toMatchObject({ wait: 0, frames: [{ ...join, track: { meta: { name: 'me' } } }] })
  expect(hearing.types).not.toContain('tracked')
  answer(asked, [joined(1, 1)])
  asked = await server.next('/v1/poll')
  expect(await hearing.frame('tracked')).toEqual({ type: 'tracked', id: 1, ref: 4 })
  expect(bodyOf(asked).frames).toEqual([{ ...join, track: { meta: { name: 'me' } } }])
  hearing.transport.send({ type: 'untrack', id: 1, ref: 5 })
  asked = await server.next('/v1/poll')
  expect(bodyOf(asked).frames).toEqual([join])
  answer(asked, [{ type: 'error', id: 1, code: 'CHANNEL_CLOSED', message: 'no more', retry: false }])
  expect(bodyOf(await server.next('/v1/poll')).frames).toEqual([])
  // Its place is gone, and nothing more is said of it.
  expect(hearing.types.filter(type => type === 'tracked')).toHaveLength(1)
})

test('what is waited for goes along until it is answered, and another token at once', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = await connected(server)
  await server.next('/v1/poll')
  const wait = { type: 'wait' as const, ref: 3, txid: '735' }
  hearing.transport.send(wait)
  hearing.transport.send({ type: 'wait', ref: 4, txid: '0' })
  let asked = await server.next('/v1/poll')
  expect(bodyOf(asked)).toMatchObject({ wait: 20, frames: [wait, { type: 'wait', ref: 4 }] })
  answer(asked, [{ type: 'error', ref: 4, code: 'TXID_INVALID', message: 'no', retry: false }])
  asked = await server.next('/v1/poll')
  expect(bodyOf(asked).frames).toEqual([wait])
  hearing.transport.send({ type: 'auth', token: 'renewed' })
  asked = await server.next('/v1/poll')
  expect([asked.token, asked.body]).toEqual(['renewed', { frames: [wait], wait: 0, poll: 'key' }])
  asked.answer(200, {
    frames: [{ ...welcome, expiresAt: 7 }, heartbeat, { type: 'waited', ref: 3, position: 'p' }],
    poll: 'key',
  })
  expect(await hearing.frame('waited')).toEqual({ type: 'waited', ref: 3, position: 'p' })
  expect(hearing.types.slice(-3)).toEqual(['authenticated', 'heartbeat', 'waited'])
  expect(await hearing.frame('authenticated')).toMatchObject({ expiresAt: 7 })
  expect(bodyOf(await server.next('/v1/poll'))).toMatchObject({ frames: [], wait: 20 })
  expect(hearing.types.filter(type => type === 'welcome')).toHaveLength(1)
})

test('[P8] what ends a poll ends the connection: a refusal, the last word of an answer, a cut, a page of somebody else', async () => {
  await using server = await ScriptedRequests.start()
  const expired = { code: 'TOKEN_EXPIRED', message: 'expired', retry: true }
  const leaving = { code: 'GOING_AWAY', message: 'goes', retry: true, retryAfterMs: 30 }
  const cases: [(asked: Asked) => void, unknown][] = [
    [asked => asked.answer(401, expired), { error: expired, retry: 'token' }],
    [asked => asked.answer(503, leaving), { error: leaving, retry: 'later' }],
    [asked => answer(asked, [{ type: 'error', ...leaving }]), { error: { type: 'error', ...leaving }, retry: 'later' }],
    [asked => answer(asked, [{ type: 'error', ...expired }]), { error: { type: 'error', ...expired }, retry: 'token' }],
    [asked => asked.cut(), { error: null, retry: 'now' }],
    [asked => asked.answerPage(504), { error: null, retry: 'now' }],
    [asked => asked.answerPage(200), { error: null, retry: 'now' }],
  ]
  for (const [end, loss] of cases) {
    const hearing = await connected(server)
    end(await server.next('/v1/poll'))
    expect(await hearing.lost()).toEqual(loss)
    hearing.transport.send(subscribe(1))
    hearing.transport.close()
    expect(hearing.losses).toHaveLength(1)
  }
})

test('a send that nothing would have answered is a loss, and not refused', async () => {
  await using server = await ScriptedRequests.start()
  const hearing = await connected(server, [{ type: 'join', id: 1, topic: 'x' }])
  const poll = await server.next('/v1/poll')
  hearing.transport.send({ type: 'send', id: 1, ref: 1, event: 'e' })
  ;(await server.next('/v1/channels/x?poll=key')).cut()
  expect(await hearing.lost()).toEqual({ error: null, retry: 'now' })
  await poll.over
})

test('[P7] more than may wait for a way that takes nothing is a loss', async () => {
  await using server = await ScriptedRequests.start()
  const hearing = await connected(server, [{ type: 'join', id: 1, topic: 'x' }])
  for (let ref = 0; ref <= 1001; ref++) hearing.transport.send({ type: 'send', id: 1, ref, event: 'e' })
  expect(await hearing.lost()).toEqual({ error: null, retry: 'now' })
})

test('after close nothing is asked, nothing comes up, and nothing is lost', async () => {
  await using server = await ScriptedRequests.start()
  const hearing = await connected(server)
  const waiting = await server.next('/v1/poll')
  hearing.transport.close()
  hearing.transport.send(subscribe(1))
  await waiting.over
  const early = new Hearing(openLongPoll, server.url)
  early.transport.close()
  // Another one comes all the way: what the first two had to say would have come before.
  using other = await connected(server)
  await server.next('/v1/poll')
  expect(other.losses).toEqual([])
  expect([hearing.types, hearing.losses, early.losses]).toEqual([['welcome', 'heartbeat'], [], []])
})
