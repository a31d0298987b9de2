// What every session does, over a WebSocket and over an event stream with POSTs.
import { describe, expect, test } from 'vitest'
import { closeCodeOf } from '../../../src/protocol/codes.ts'
import { serverFrameSchema } from '../../../src/server/deliver/frame-schema.ts'
import { Outgoing } from '../../../src/server/subscribe/subscription.ts'
import { TestFrameStream } from './support/frame-stream.ts'
import { alice, startGateway, type TestSession, TestSocket, tokenOf, until } from './support/gateway.ts'
import { at } from './support/memory-core.ts'

describe.each([
  ['a WebSocket', TestSocket],
  ['an event stream', TestFrameStream],
])('over %s', (_wire, Client) => {
  test('a live subscription is welcomed, answered, given its rows and then each commit', async () => {
    await using node = await startGateway()
    node.core
      .query({ kind: 'live', table: 'messages', filters: [['room_id', 'eq.42']] })
      .rows.push({ id: 1 }, { id: 2 })
    await using socket = await Client.open(node)
    const subscribed = await socket.subscribe(7, 'messages', { filter: 'room_id=eq.42', select: ['id', 'body'] })
    expect(subscribed).toMatchObject({ query: 1, key: ['id'], resumed: false, position: '1f2e3d4c-1000' })
    const snapshot = await socket.frame('snapshot')
    expect(snapshot).toEqual({
      type: 'snapshot',
      id: 7,
      position: '1f2e3d4c-1000',
      rows: [{ id: 1 }, { id: 2 }],
      done: true,
    })
    node.core.insert('messages', 3, 'hé "llo"\n')
    const delta = await socket.frame('delta')
    expect(delta).toMatchObject({
      query: 1,
      position: '1f2e3d4c-1010',
      done: true,
      changes: [{ op: 'insert', key: { id: 3 }, row: { id: 3, body: 'hé "llo"\n' } }],
    })
    for (const frame of socket.frames) expect(serverFrameSchema.parse(frame)).toEqual(frame)
    expect(node.core.requests[0]).toEqual({
      kind: 'live',
      schema: 'public',
      table: 'messages',
      filters: [['room_id', 'eq.42']],
      select: ['id', 'body'],
      events: null,
      since: null,
    })
  })

  test('[P5] a snapshot of several parts has its position on the last, and rows follow in order', async () => {
    await using node = await startGateway()
    const { rows } = node.core.query({ kind: 'live', table: 'messages', filters: [] })
    for (let id = 0; id < 5; id += 1) rows.push({ id })
    node.core.partRows = 2
    await using socket = await Client.open(node)
    await socket.subscribe(1, 'messages')
    await socket.frame('snapshot', frame => frame.done)
    const parts = socket.of('snapshot')
    expect(parts.map(part => [part.rows.length, part.done, part.position])).toEqual([
      [2, false, undefined],
      [2, false, undefined],
      [1, true, '1f2e3d4c-1000'],
    ])
  })

  test('a changes subscription gets each event with a position of its own', async () => {
    await using node = await startGateway()
    await using socket = await Client.open(node)
    await socket.subscribe(1, 'orders', { kind: 'changes', events: ['insert', 'delete'] })
    expect(node.core.requests[0]!.events).toEqual(new Set(['insert', 'delete']))
    node.core.commit('orders', [
      { op: 'insert', key: { id: 1 }, row: { id: 1 } },
      { op: 'delete', key: { id: 2 } },
    ])
    await socket.frame('change', frame => frame.op === 'delete')
    expect(socket.of('change').map(frame => frame.position)).toEqual(['1f2e3d4c-1010-1', '1f2e3d4c-1010'])
  })

  test('[P4] a client that comes back with position and tag resumes without gap or repeat', async () => {
    await using node = await startGateway()
    let since: string
    {
      await using socket = await Client.open(node)
      const { tag } = await socket.subscribe(1, 'messages')
      node.core.insert('messages', 1)
      since = `${(await socket.frame('delta')).position}.${tag}`
    }
    await until(() => node.core.open.size === 0)
    node.core.insert('messages', 2)
    node.core.insert('messages', 3)
    await using again = await Client.open(node)
    const subscribed = await again.subscribe(9, 'messages', { since })
    expect(subscribed.resumed).toBe(true)
    await again.until(() => again.of('delta').length === 2, 'two deltas')
    expect(again.of('snapshot')).toEqual([])
    expect(again.of('delta').flatMap(frame => frame.changes)).toMatchObject([{ key: { id: 2 } }, { key: { id: 3 } }])
    // And is told within a second that this was all, long before the next heartbeat is due.
    const caughtUp = await again.frame('heartbeat')
    expect(again.frames.at(-1)).toBe(caughtUp)
    expect(caughtUp.positions).toEqual({ 9: `${again.of('delta')[1]!.position}.${subscribed.tag}` })
  })

  test('[P4] a position of another tag is told resync, then a fresh snapshot', async () => {
    await using node = await startGateway()
    await using socket = await Client.open(node)
    await socket.subscribe(1, 'messages', { since: '1f2e3d4c-1000.other' })
    await socket.frame('snapshot')
    expect(socket.frames.slice(1).map(frame => frame.type)).toEqual(['subscribed', 'resync', 'snapshot'])
    expect(socket.of('resync')[0]).toEqual({ type: 'resync', id: 1, code: 'QUERY_CHANGED', reason: 'another tag' })
  })

  test('an event that comes while the answer is on its way waits until the client knows the subscription', async () => {
    await using node = await startGateway()
    let sent = false
    const { subscribe } = node.core
    node.core.subscribe = async (principal, request, outlet) => {
      const subscription = await subscribe.call(node.core, principal, request, outlet)
      outlet.send(new Outgoing('snapshot', '{"rows":[{"id":"early"}],"done":false}', null))
      sent = true
      return subscription
    }
    await using socket = await Client.open(node)
    await socket.subscribe(1, 'messages')
    await socket.frame('snapshot', frame => frame.done)
    expect(sent).toBe(true)
    expect(socket.frames.map(frame => frame.type)).toEqual(['welcome', 'subscribed', 'snapshot', 'snapshot'])
  })

  test('warnings of a subscription come with its answer', async () => {
    await using node = await startGateway()
    await using socket = await Client.open(node)
    const { warnings } = await socket.subscribe(1, 'open')
    expect(warnings).toEqual([{ code: 'NO_ROW_SECURITY', message: 'row-level security is off on public.open' }])
  })

  test('unsubscribe ends the subscription, also one that is not there any more', async () => {
    await using node = await startGateway()
    await using socket = await Client.open(node)
    await socket.subscribe(1, 'messages')
    socket.send({ type: 'unsubscribe', id: 1 })
    socket.send({ type: 'unsubscribe', id: 5 })
    await socket.frame('unsubscribed', frame => frame.id === 5)
    expect(node.core.open.size).toBe(0)
    node.core.insert('messages', 1)
    // The same id is free again, and its first delta is the one after it joined.
    await socket.subscribe(1, 'messages', { filter: 'id=gt.0' })
    node.core.insert('messages', 2)
    await socket.frame('delta')
    expect(socket.of('delta').flatMap(frame => frame.changes)).toMatchObject([{ key: { id: 2 } }])
  })

  test('unsubscribing while the answer is on its way leaves nothing behind', async () => {
    await using node = await startGateway()
    const gate = Promise.withResolvers<void>()
    node.core.gate = gate.promise
    await using socket = await Client.open(node)
    socket.send({ type: 'subscribe', id: 1, kind: 'live', table: 'messages' })
    socket.send({ type: 'unsubscribe', id: 1 })
    socket.send({ type: 'subscribe', id: 1, kind: 'live', table: 'orders' })
    await until(() => node.core.waiting === 2)
    gate.resolve()
    await socket.frame('subscribed')
    await until(() => node.core.open.size === 1)
    expect(node.core.of('orders')).toHaveLength(1)
    expect(socket.of('subscribed')).toHaveLength(1)
  })

  test('[P8] a refused subscription names its id and leaves the connection and its other subscriptions', async () => {
    await using node = await startGateway({ maxSubscriptions: 2 })
    await using socket = await Client.open(node)
    await socket.subscribe(1, 'messages')
    const refusals: [number, Parameters<TestSession['subscribe']>[2] & { table: string }, string, boolean][] = [
      [10, { table: 'nope' }, 'TABLE_UNKNOWN', false],
      [11, { table: 'a.b.c' }, 'TABLE_UNKNOWN', false],
      [12, { table: 'messages', since: 'rubbish' }, 'POSITION_INVALID', false],
      [13, { table: 'messages', since: '1f2e3d4c-1.a~1f2e3d4c-1.b' }, 'POSITION_INVALID', false],
      [14, { table: 'messages', filter: 'limit=5' }, 'FILTER_INVALID', false],
      [15, { table: 'messages', filter: 'select=id' }, 'FILTER_INVALID', false],
      [16, { table: 'messages', events: ['insert'] }, 'FILTER_INVALID', false],
      [17, { table: 'messages' }, 'ALREADY_SUBSCRIBED', false],
      [18, { table: 'broken' }, 'INTERNAL', true],
    ]
    for (const [id, frame, code, retry] of refusals) {
      socket.send({ type: 'subscribe', id, kind: 'live', ...frame })
      const error = await socket.frame('error', one => one.id === id)
      expect(error).toMatchObject({ code, retry })
      expect(error.message).not.toContain('secret')
    }
    expect(node.logged.join()).toContain('a secret of the server')
    await socket.subscribe(2, 'orders')
    socket.send({ type: 'subscribe', id: 3, kind: 'live', table: 'rooms' })
    expect(await socket.frame('error', one => one.id === 3)).toMatchObject({ code: 'TOO_MANY_SUBSCRIPTIONS' })
    node.core.insert('messages', 1)
    await socket.frame('delta')
    expect(node.core.open.size).toBe(2)
  })

  test('a subscription that fails later is told so, and only it ends', async () => {
    await using node = await startGateway()
    await using socket = await Client.open(node)
    await socket.subscribe(1, 'messages')
    await socket.subscribe(2, 'orders')
    const [messages] = node.core.of('messages')
    messages!.outlet.fail(new Error('boom'))
    expect(await socket.frame('error')).toMatchObject({ id: 1, code: 'INTERNAL', retry: true })
    expect(messages!.isClosed).toBe(true)
    node.core.insert('orders', 1)
    await socket.frame('delta')
  })

  test('a resync in mid-stream is followed by a fresh snapshot', async () => {
    await using node = await startGateway()
    await using socket = await Client.open(node)
    await socket.subscribe(4, 'messages')
    await socket.frame('snapshot')
    node.core.of('messages')[0]!.resync('WINDOW_PASSED', 'too far behind')
    await socket.until(() => socket.of('snapshot').length === 2, 'a second snapshot')
    expect(socket.of('resync')[0]).toMatchObject({ id: 4, code: 'WINDOW_PASSED' })
  })

  test('the welcome says when the token expires and how often to beat', async () => {
    await using node = await startGateway({ heartbeatMs: 12_345 })
    const exp = Math.round(Date.now() / 1000) + 3600
    await using socket = await Client.open(node, tokenOf({ sub: 'alice', exp }))
    expect(await socket.frame('welcome')).toMatchObject({ heartbeatMs: 12_345, expiresAt: exp * 1000 })
  })

  test('a renewed token takes the place of the old one: at the old expiry nothing happens', async () => {
    let now = Date.now()
    await using node = await startGateway({}, { now: () => now })
    const exp = Math.round(now / 1000) + 60
    await using socket = await Client.open(node, tokenOf({ sub: 'alice', exp, iat: 1 }))
    await socket.subscribe(1, 'messages')
    socket.send({ type: 'auth', token: tokenOf({ sub: 'alice', exp: exp + 1000, iat: 2 }) })
    expect(await socket.frame('authenticated')).toEqual({ type: 'authenticated', expiresAt: (exp + 1000) * 1000 })
    // The same claims: the subscription goes on as it was.
    expect(node.core.requests).toHaveLength(1)
    now += 20_000
    socket.send({ type: 'heartbeat' })
    now = (exp + 1) * 1000
    socket.send({ type: 'heartbeat' })
    node.core.insert('messages', 1)
    await socket.frame('delta')
    await socket.frame('heartbeat')
    now = (exp + 1000) * 1000
    expect(await socket.closed).toMatchObject({ code: closeCodeOf('TOKEN_EXPIRED') })
    expect(socket.frames.at(-1)).toMatchObject({ type: 'error', code: 'TOKEN_EXPIRED', retry: true })
    expect(node.core.open.size).toBe(0)
  })

  test('[P2] claims that changed in a renewal are what the subscriptions are judged by from then on', async () => {
    await using node = await startGateway()
    await using socket = await Client.open(node, tokenOf({ sub: 'alice', org: 1 }))
    const before = await socket.subscribe(1, 'messages')
    await socket.frame('snapshot')
    socket.send({ type: 'auth', token: tokenOf({ sub: 'alice', org: 2 }) })
    const after = await socket.frame('subscribed', frame => frame.tag !== before.tag)
    expect(after).toMatchObject({ id: 1, resumed: false })
    await socket.frame('resync')
    await socket.until(() => socket.of('snapshot').length === 2, 'a fresh snapshot')
    expect(node.core.requests[1]!.since).toMatchObject({ tag: before.tag, lsn: at(0x1000).lsn })
    expect([...node.core.open].map(one => one.principal.claims.org)).toEqual([2])
  })

  test.each([
    ['another subject', tokenOf({ sub: 'bob' }), 'TOKEN_INVALID'],
    ['another role', tokenOf({ sub: 'alice', role: 'anon' }), 'TOKEN_INVALID'],
    ['a malformed token', 'x.y.z', 'TOKEN_INVALID'],
    ['an expired token', tokenOf({ sub: 'alice', exp: 1 }), 'TOKEN_EXPIRED'],
  ] as const)('a renewal with %s closes the connection', async (_name, token, code) => {
    await using node = await startGateway()
    await using socket = await Client.open(node, alice)
    socket.send({ type: 'auth', token })
    expect(await socket.closed).toMatchObject({ code: closeCodeOf(code) })
    expect(socket.frames.at(-1)).toMatchObject({ type: 'error', code })
  })

  test('a renewal that cannot be checked right now leaves the connection on its old token', async () => {
    await using node = await startGateway()
    await using socket = await Client.open(node, alice)
    socket.send({ type: 'auth', token: tokenOf({ sub: 'alice', down: true }) })
    expect(await socket.frame('error')).toMatchObject({ code: 'UNAVAILABLE', retry: true })
    socket.send({ type: 'auth', token: alice })
    await socket.frame('authenticated')
  })
})
