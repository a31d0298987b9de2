// The corners of the wire: what a channel's client does when links break between a question and its answer, when answers come twice or
// never, when it is refused and let in again.
import { expect, test } from 'vitest'
import type { Gap, Message } from '../../../src/client/client.ts'
import { eventually } from '../../support/eventually.ts'
import { at } from '../scripted-server.ts'
import { letIn, message, start, welcomed } from './scripted-room.ts'

test('all that one turn asks for goes into one join; a place is left a moment after the last listener', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1', { last: 3 })
  const other = run.tide.channel('room:1', { self: true, last: 7 })
  expect(room.status).toBe('idle')
  const ends = [room.on('say', () => {}), other.on('*', () => {}), room.presence.subscribe(() => {})]
  const peer = await welcomed(run)
  expect(await letIn(peer)).toEqual({ type: 'join', id: 1, topic: 'room:1', self: true, presence: true, last: 7 })
  await eventually(() => expect(room.status).toBe('live'))
  const clock = run.tide.channel('clock').join()
  await letIn(peer, { channel: 13 })
  for (const end of ends) end()
  clock()
  // As a page does that draws itself anew.
  const again = room.on('say', () => {})
  expect(await peer.next('unsubscribe')).toMatchObject({ id: 2 })
  expect([room.status, peer.frames.map(({ type }) => type)]).toEqual(['live', ['auth', 'join', 'join', 'unsubscribe']])
  again()
  expect(await peer.next('unsubscribe')).toMatchObject({ id: 1 })
  expect([room.status, other.status]).toEqual(['idle', 'idle'])
})

test('what wants more than was joined with enters again from where it stands, and what is asked in between is not lost', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const heard: unknown[] = []
  room.on('say', ({ payload }) => heard.push(payload))
  const peer = await welcomed(run)
  await letIn(peer)
  peer.send(message(5, 5))
  await eventually(() => expect(heard).toEqual([5]))
  const sent = room.send('say', 'asked under the old place')
  const first = await peer.next('send')
  room.presence.subscribe(() => {})
  expect(await peer.next('unsubscribe')).toMatchObject({ id: 1 })
  // The old place's answer comes to nobody.
  peer.send({ type: 'sent', id: 1, ref: first.ref!, message: 'm', position: at(6) })
  peer.send({ type: 'unsubscribed', id: 1 })
  expect(await letIn(peer, { resumed: true })).toMatchObject({ id: 2, presence: true, since: `${at(5)}.tag` })
  const again = await peer.next('send')
  expect(again.idempotencyKey).toBe(first.idempotencyKey)
  peer.send({ type: 'sent', id: 2, ref: again.ref!, message: 'm', position: at(6), duplicate: true })
  await expect(sent).resolves.toEqual({ id: 'm', position: at(6), duplicate: true })
})

test('[P4] a link lost between a send and its answer: sent again under its key, in order, before what came later', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  room.join()
  const sent = [1, 2, 3].map(n => room.send('say', n))
  const first = await welcomed(run)
  await letIn(first)
  const before = [await first.next('send'), await first.next('send'), await first.next('send')]
  expect(before.map(({ payload }) => payload)).toEqual([1, 2, 3])
  first.send({ type: 'sent', id: 1, ref: before[0]!.ref!, message: 'one', position: at(2) })
  await sent[0]
  first.cut()
  sent.push(room.send('say', 4))
  const second = await welcomed(run)
  await letIn(second)
  const after = [await second.next('send'), await second.next('send'), await second.next('send')]
  expect(after.map(({ payload, idempotencyKey }) => [payload, idempotencyKey])).toEqual([
    [2, before[1]!.idempotencyKey],
    [3, before[2]!.idempotencyKey],
    [4, expect.any(String)],
  ])
  for (const { ref } of after) second.send({ type: 'sent', id: 1, ref: ref!, message: `of ${ref}`, position: at(3) })
  // An answer that comes twice, or to nothing that was asked, is heard by nobody.
  second.send({ type: 'sent', id: 1, ref: after[0]!.ref!, message: 'again', position: at(3) })
  second.send({ type: 'sent', id: 1, ref: 999, message: 'unknown', position: at(3) })
  expect((await Promise.all(sent)).map(({ id }) => id)).toEqual(['one', ...after.map(({ ref }) => `of ${ref}`)])
  expect(run.errors).toEqual([])
})

test('[P8] what was asked longer ago than the channel knows keys is not sent again, and says so', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const sent = room.send('say', 1)
  const first = await welcomed(run)
  await letIn(first, { idempotencyMs: 1 })
  await first.next('send')
  first.cut()
  const second = await welcomed(run)
  await letIn(second, { idempotencyMs: 1 })
  await expect(sent).rejects.toMatchObject({ code: 'SEND_UNCERTAIN' })
  expect(second.frames.map(({ type }) => type)).not.toContain('send')
})

test('[P8] a refused send is rejected with the code and the time; the next one goes on', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const sent = [room.send('say', 1), room.send('say', 2)]
  const rejected = expect(sent[0]).rejects.toMatchObject({ code: 'RATE_LIMITED', retryAfterMs: 700 })
  const peer = await welcomed(run)
  await letIn(peer)
  const [one, two] = [await peer.next('send'), await peer.next('send')]
  peer.send({
    type: 'error',
    id: 1,
    ref: one.ref!,
    code: 'RATE_LIMITED',
    message: 'slower',
    retry: true,
    retryAfterMs: 700,
  })
  peer.send({ type: 'sent', id: 1, ref: two.ref!, message: 'm', position: at(2) })
  await rejected
  await expect(sent[1]).resolves.toMatchObject({ id: 'm' })
  expect(room.status).toBe('live')
})

test('eight are asked at a time, and a time-out ends one of them', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const sent = Array.from({ length: 12 }, (_, n) => room.send('say', n, n === 10 ? { timeoutMs: 50 } : {}))
  const late = expect(sent[10]).rejects.toMatchObject({ code: 'SEND_TIMEOUT' })
  const peer = await welcomed(run)
  await letIn(peer)
  const asked = [await peer.next('send')]
  while (asked.length < 8) asked.push(await peer.next('send'))
  await late
  expect(peer.frames.filter(({ type }) => type === 'send')).toHaveLength(8)
  for (let n = 0; n < 11; n++) {
    const { ref } = asked[n]!
    peer.send({ type: 'sent', id: 1, ref: ref!, message: `m${n}`, position: at(n) })
    if (asked.length < 11) asked.push(await peer.next('send'))
  }
  const settled = await Promise.allSettled(sent)
  expect(asked.map(({ payload }) => payload)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11])
  expect(settled.filter(({ status }) => status === 'fulfilled')).toHaveLength(11)
})

test('[P8] frames that would end the connection are refused before they are sent', async () => {
  await using run = await start({ maxFrameBytes: 1000 })
  const room = run.tide.channel('room:1')
  const deep = (depth: number): [] => (depth === 0 ? [] : ([deep(depth - 1)] as unknown as []))
  const loop: { self?: object } = {}
  loop.self = loop
  await expect(room.send('say', 'ä'.repeat(480))).rejects.toMatchObject({ code: 'PAYLOAD_TOO_LARGE' })
  await expect(room.send('say', deep(70))).rejects.toMatchObject({ code: 'BAD_FRAME' })
  await expect(room.send('say', loop as never)).rejects.toMatchObject({ code: 'BAD_FRAME' })
  await expect(room.send('say', 1n as never)).rejects.toMatchObject({ code: 'BAD_FRAME' })
  await expect(room.send('', 1)).rejects.toMatchObject({ code: 'BAD_FRAME' })
  await expect(room.send('say', 1, { to: { user: '' } })).rejects.toMatchObject({ code: 'BAD_FRAME' })
  await expect(room.send('say', 1, { idempotencyKey: 'k'.repeat(256) })).rejects.toMatchObject({ code: 'BAD_FRAME' })
  await expect(room.presence.track('m'.repeat(1000))).rejects.toMatchObject({ code: 'PAYLOAD_TOO_LARGE' })
  expect(() => run.tide.channel('room:1', { last: 1.5 })).toThrow(
    expect.objectContaining({ code: 'PARAMETER_INVALID' }),
  )
  expect(room.status).toBe('idle')
})

test('what is sent is what the object was then; bytes of a view are those of the view', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const payload = { n: 1 }
  const sent = room.send('say', payload)
  payload.n = 2
  void room.send('ice', new Uint8Array([9, 0, 1, 2, 9]).subarray(1, 4)).catch(() => {})
  const peer = await welcomed(run)
  await letIn(peer)
  const first = await peer.next('send')
  expect(first.payload).toEqual({ n: 1 })
  expect(await peer.next('send')).toMatchObject({ event: 'ice', binary: 'AAEC' })
  peer.send({ type: 'sent', id: 1, ref: first.ref!, message: 'm', position: at(2) })
  await sent
})

test('[P4] a channel that resumes is live once the server has said that it has all, and a message that comes again starts it over', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const heard: unknown[] = []
  room.on('say', ({ payload }) => heard.push(payload))
  const first = await welcomed(run)
  expect(await letIn(first)).not.toHaveProperty('since')
  first.send(message(5, 5))
  first.send({ type: 'heartbeat', position: null, positions: { 1: `${at(7)}.tag` }, stale: false, lagMs: 1 })
  await eventually(() => expect(heard).toEqual([5]))
  first.cut()
  await eventually(() => expect(room.status).toBe('offline'))
  const second = await welcomed(run)
  expect((await letIn(second, { resumed: true, position: at(7) })).since).toBe(`${at(7)}.tag`)
  second.send(message(8, 8))
  await eventually(() => expect(heard).toEqual([5, 8]))
  expect([room.status, run.tide.status.name]).toEqual(['catching up', 'catching up'])
  second.send({ type: 'heartbeat', position: null, positions: { 1: `${at(8)}.tag` }, stale: false, lagMs: 1 })
  await eventually(() => expect([room.status, run.tide.status.name]).toEqual(['live', 'live']))
  second.send(message(8, 8))
  await second.next('unsubscribe')
  expect(await letIn(second, { resumed: true })).toMatchObject({ id: 2, since: `${at(8)}.tag` })
  second.send(message(9, 9))
  await eventually(() => expect(heard).toEqual([5, 8, 9]))
  expect(String(run.errors)).toContain('came again')
})

test('without a history a position is what the server said last, also when it is a smaller one', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const heard: unknown[] = []
  room.on('say', ({ payload }) => heard.push(payload))
  const first = await welcomed(run)
  await letIn(first, { history: false })
  for (const lsn of [9, 9, 4]) first.send(message(lsn, lsn))
  await eventually(() => expect(heard).toEqual([9, 9, 4]))
  first.cut()
  const second = await welcomed(run)
  expect((await letIn(second)).since).toBe(`${at(4)}.tag`)
  expect(run.errors).toEqual([])
})

test('[P4] a gap and a resync are told, and after a resync without a new position the old one is asked for once more', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const gaps: Gap[] = []
  room.on('say', () => {})
  const first = await welcomed(run)
  await letIn(first)
  first.send({ type: 'gap', channel: 12, position: at(6), code: 'MESSAGES_DROPPED', reason: 'too slow', missed: 4 })
  await eventually(() => expect(String(run.errors)).toContain('messages of room:1 were missed: too slow'))
  room.onGap(gap => gaps.push(gap))
  first.send({ type: 'resync', id: 1, code: 'HISTORY_LOST', reason: 'begun anew' })
  await eventually(() => expect(gaps).toEqual([{ code: 'HISTORY_LOST', message: 'begun anew', missed: null }]))
  first.cut()
  expect((await letIn(await welcomed(run))).since).toBe(`${at(6)}.tag`)
  expect(run.errors).toHaveLength(1)
})

test('[P8] a refused channel says why, is not asked for again by itself, and is when somebody comes anew', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const statuses: unknown[] = []
  room.onStatus((status, error) => statuses.push([status, error?.code]))
  room.on('say', () => {})
  const sent = expect(room.send('say', 1)).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
  const tracked = expect(room.presence.track(null)).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
  const peer = await welcomed(run)
  const { id } = await peer.next('join')
  peer.send({ type: 'error', id, code: 'CHANNEL_REFUSED', message: 'no policy', retry: false })
  await Promise.all([sent, tracked])
  expect(statuses.at(-1)).toEqual(['refused', 'CHANNEL_REFUSED'])
  expect(run.tide.status.name).toBe('live')
  const heard: unknown[] = []
  room.on('say', ({ payload }) => heard.push(payload))
  expect(await letIn(peer)).not.toHaveProperty('since')
  peer.send(message(5, 5))
  await eventually(() => expect(heard).toEqual([5]))
})

test('a channel that may come back later does, by itself', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  room.join()
  const peer = await welcomed(run)
  const { id } = await peer.next('join')
  peer.send({ type: 'error', id, code: 'UNAVAILABLE', message: 'soon', retry: true, retryAfterMs: 10 })
  await eventually(() => expect([room.status, room.error?.code]).toEqual(['catching up', 'UNAVAILABLE']))
  expect((await letIn(peer)).id).toBe(2)
  await eventually(() => expect([room.status, room.error]).toEqual(['live', null]))
})

test('what was said over an earlier connection of this client is its own', async () => {
  await using run = await start()
  const [plain, self] = [run.tide.channel('room:1'), run.tide.channel('room:1', { self: true })]
  const [plainHears, selfHears]: unknown[][] = [[], []]
  plain.on('say', ({ payload }) => plainHears!.push(payload))
  self.on('say', ({ payload }) => selfHears!.push(payload))
  const first = await welcomed(run)
  await letIn(first)
  first.cut()
  const second = await run.server.peer()
  await second.next('auth')
  second.send({ type: 'welcome', connection: 'd', heartbeatMs: 25_000, expiresAt: null })
  await letIn(second, { resumed: true })
  second.send(message(5, 5, { sender: { user: 'me', connection: 'c' } }))
  // Over HTTP there is no connection: there it is its id that tells.
  const sent = plain.send('say', 6)
  const { ref } = await second.next('send')
  second.send({ type: 'sent', id: 1, ref: ref!, message: 'id 6', position: at(6) })
  await sent
  second.send(message(6, 6, { sender: { user: 'me', connection: null } }))
  second.send(message(7, 7))
  await eventually(() => expect([plainHears, selfHears]).toEqual([[7], [5, 6, 7]]))
  expect(plain.connection).toBe('d')
})

test('messages one after another: a slow loop is told what it missed, a refusal ends it with its code, closing ends it', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const loop = room.messages('say', { max: 3 })
  const got = loop.next()
  const peer = await welcomed(run)
  await letIn(peer)
  peer.send(message(2, 2))
  expect((await got).value).toMatchObject({ payload: 2, dropped: 0 })
  for (let n = 3; n < 10; n++) peer.send(message(n, n))
  const seen = new Promise<void>(resolve => room.on('say', ({ payload }) => payload === 10 && resolve()))
  peer.send(message(10, 10))
  await seen
  const rest: unknown[] = []
  for (let n = 0; n < 3; n++) {
    const { payload, dropped } = (await loop.next()).value as Message & { dropped: number }
    rest.push([payload, dropped])
  }
  expect(rest).toEqual([
    [8, 5],
    [9, 0],
    [10, 0],
  ])
  const refused = expect(loop.next()).rejects.toMatchObject({ code: 'CHANNEL_CLOSED' })
  peer.send({ type: 'error', id: 1, code: 'CHANNEL_CLOSED', message: 'a membership went', retry: false })
  await refused
  const closing = run.tide.channel('room:2').messages('*').next()
  await peer.next('join')
  run.tide.close()
  expect(await closing).toEqual({ value: undefined, done: true })
})

test('offline nothing waits where it is not to: what was asked is repeated, what was not is rejected', async () => {
  await using run = await start({ offlineSends: 'refuse' })
  const room = run.tide.channel('room:1')
  const sent = Array.from({ length: 10 }, (_, n) => room.send('say', n))
  const rejected = [8, 9].map(n => expect(sent[n]).rejects.toMatchObject({ code: 'CLIENT_OFFLINE' }))
  const first = await welcomed(run)
  await letIn(first)
  for (let n = 0; n < 8; n++) await first.next('send')
  first.cut()
  await Promise.all(rejected)
  await expect(room.send('say', 10)).rejects.toMatchObject({ code: 'CLIENT_OFFLINE' })
  const waits = room.send('say', 11, { offline: 'wait' })
  const second = await welcomed(run)
  await letIn(second)
  for (let n = 0; n < 9; n++) {
    const { ref, payload } = await second.next('send')
    second.send({ type: 'sent', id: 1, ref: ref!, message: `m${payload}`, position: at(n + 2) })
  }
  const ids = (await Promise.all([...sent.slice(0, 8), waits])).map(({ id }) => id)
  expect(ids).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 11].map(n => `m${n}`))
})

test('what is sent now is not answered, and its refusal is told once, not sixty times a second', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  room.join()
  expect(room.sendNow('cursor', 1)).toBe(false)
  const peer = await welcomed(run)
  await letIn(peer)
  await eventually(() => expect(room.status).toBe('live'))
  expect(room.sendNow('cursor', [1, 2], { to: { user: 'bob' } })).toBe(true)
  expect(await peer.next('send')).toEqual({
    type: 'send',
    id: 1,
    event: 'cursor',
    payload: [1, 2],
    to: { user: 'bob' },
  })
  for (let n = 0; n < 3; n++)
    peer.send({ type: 'error', id: 1, ref: null, code: 'SEND_REFUSED', message: 'no policy', retry: false })
  peer.send(message(5, 5))
  await eventually(() => expect(run.errors).toMatchObject([{ code: 'SEND_REFUSED' }]))
})

test('a listener that throws harms no other', async () => {
  await using run = await start()
  const room = run.tide.channel('room:1')
  const heard: unknown[] = []
  room.on('say', () => {
    throw new Error('mine')
  })
  room.on('say', ({ payload }) => heard.push(payload))
  const peer = await welcomed(run)
  await letIn(peer)
  peer.send(message(5, 5))
  peer.send(message(6, 6))
  await eventually(() => expect(heard).toEqual([5, 6]))
  expect(run.errors.map(({ message: text }) => text)).toEqual(['mine', 'mine'])
})
