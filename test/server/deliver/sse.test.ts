import { expect, test } from 'vitest'
import { parseQueryPositions } from '../../../src/protocol/position.ts'
import { alice, startGateway, TestStream, tokenOf, until } from './support/gateway.ts'

const q = (...queries: string[]) => `/v1/live?${queries.map(query => `q=${encodeURIComponent(query)}`).join('&')}`

test('an event stream begins with its headers, the key, a snapshot, and then each commit with an id', async () => {
  await using node = await startGateway({ retryMs: 700 }, { random: () => 0.5 })
  node.core.query({ kind: 'live', table: 'messages', filters: [['room_id', 'eq.42']] }).rows.push({ id: 1 }, { id: 2 })
  node.core.partRows = 1
  await using stream = await TestStream.open(node, '/v1/live/sales.messages?room_id=eq.42&select=id,body')
  const headers = Object.fromEntries(stream.response.headers)
  expect(headers).toMatchObject({
    'content-type': 'text/event-stream; charset=utf-8',
    'cache-control': 'no-cache, no-transform',
    'x-accel-buffering': 'no',
    vary: 'Origin',
  })
  expect(headers).not.toHaveProperty('content-encoding')
  const last = await stream.event('snapshot', event => event.data.done === true)
  expect(stream.retry).toBe('1050')
  const { tag } = node.core.of('messages')[0]!
  expect(stream.events.map(({ event, data, id }) => [event, data, id])).toEqual([
    ['subscribed', { key: ['id'], resumed: false }, null],
    ['snapshot', { rows: [{ id: 1 }], done: false }, null],
    ['snapshot', { rows: [{ id: 2 }], done: true }, `1f2e3d4c-1000.${tag}`],
  ])
  expect(last.id).toBe(`1f2e3d4c-1000.${tag}`)
  node.core.insert('messages', 3, 'a\nb')
  const delta = await stream.event('delta')
  expect(delta.data).toMatchObject({ done: true, changes: [{ op: 'insert', row: { id: 3, body: 'a\nb' } }] })
  expect(delta.id).toBe(`1f2e3d4c-1010.${tag}`)
  expect(node.core.requests[0]).toMatchObject({ schema: 'sales', table: 'messages', select: ['id', 'body'] })
})

test('changes, resync and warnings go the same way', async () => {
  await using node = await startGateway()
  await using stream = await TestStream.open(node, '/v1/changes/open?events=insert,delete')
  const { data } = await stream.event('subscribed')
  expect(data.warnings).toEqual([{ code: 'NO_ROW_SECURITY', message: 'row-level security is off on public.open' }])
  node.core.insert('open', 1)
  expect(await stream.event('change')).toMatchObject({ data: { op: 'insert', new: { id: 1 } } })
  node.core.of('open')[0]!.resync('WINDOW_PASSED', 'too far behind')
  const resync = await stream.event('resync')
  expect(resync).toMatchObject({ data: { code: 'WINDOW_PASSED', reason: 'too far behind' }, id: null })
})

test('[P4] Last-Event-ID resumes without gap or repeat, and goes before the after of the first URL', async () => {
  await using node = await startGateway()
  let id: string
  let old: string
  {
    await using stream = await TestStream.open(node, '/v1/live/messages')
    old = (await stream.event('snapshot')).id!
    node.core.insert('messages', 1)
    id = (await stream.event('delta')).id!
  }
  await until(() => node.core.open.size === 0)
  node.core.insert('messages', 2)
  const authorization = { Authorization: `Bearer ${alice}` }
  await using again = await TestStream.open(node, `/v1/live/messages?after=${old}`, {
    ...authorization,
    'Last-Event-ID': id,
  })
  await again.event('delta')
  await using byUrl = await TestStream.open(node, `/v1/live/messages?after=${old}`, authorization)
  await byUrl.event('delta', event => JSON.stringify(event.data).includes('"id":2'))
  node.core.insert('messages', 3)
  const ids = async (stream: TestStream) => {
    await stream.event('delta', event => JSON.stringify(event.data).includes('"id":3'))
    return stream.events.flatMap(event => JSON.stringify(event.data.changes)?.match(/(?<="key":\{"id":)\d+/g) ?? [])
  }
  expect(await ids(again)).toEqual(['2', '3'])
  expect(await ids(byUrl)).toEqual(['1', '2', '3'])
  for (const stream of [again, byUrl]) {
    expect(stream.events[0]).toMatchObject({ event: 'subscribed', data: { resumed: true } })
    expect(stream.events.some(event => event.event === 'snapshot')).toBe(false)
  }
})

test('several queries share a stream: each event says whose it is, and the id holds the position of all', async () => {
  await using node = await startGateway()
  await using stream = await TestStream.open(node, q('messages?room_id=eq.42&body=like.a%26b', 'sales.orders'))
  await stream.event('snapshot', event => event.data.q === 1)
  expect(node.core.requests.map(request => [request.schema, request.table, request.filters])).toEqual([
    [
      'public',
      'messages',
      [
        ['room_id', 'eq.42'],
        ['body', 'like.a&b'],
      ],
    ],
    ['sales', 'orders', []],
  ])
  const [messages, orders] = [node.core.of('messages')[0]!, node.core.of('orders')[0]!]
  expect(stream.events.map(event => [event.event, event.data.q, event.id])).toEqual([
    ['subscribed', 0, null],
    ['subscribed', 1, null],
    // Nobody can come back to the second query yet: with this id it would begin fresh.
    ['snapshot', 0, `1f2e3d4c-1000.${messages.tag}~-`],
    ['snapshot', 1, `1f2e3d4c-1000.${messages.tag}~1f2e3d4c-1000.${orders.tag}`],
  ])
  node.core.insert('orders', 5)
  const delta = await stream.event('delta')
  expect(delta.text).toContain('data: {"q":1,"changes":[')
  const positions = parseQueryPositions(delta.id!)!
  expect(positions.map(position => position.tag)).toEqual([messages.tag, orders.tag])
  expect(positions[1]!.lsn).toBe(0x1010n)
})

test('[P4] an id names no query past events of it that have not been sent yet', async () => {
  await using node = await startGateway()
  const path = q('messages', 'orders', 'slow')
  let whole: string
  {
    await using stream = await TestStream.open(node, path)
    whole = (await stream.event('snapshot', event => event.data.q === 2)).id!
  }
  await until(() => node.core.open.size === 0)
  node.core.insert('messages', 1)
  node.core.insert('orders', 2)
  // The last query joins late: what the others have to tell meanwhile is held until the headers are sent.
  const { promise, resolve } = Promise.withResolvers<void>()
  const joined = node.core.requests.length
  Object.defineProperty(node.core, 'gate', {
    get: () => (node.core.requests.length === joined + 3 ? promise : Promise.resolve()),
  })
  const opening = TestStream.open(node, path, { Authorization: `Bearer ${alice}`, 'Last-Event-ID': whole })
  await until(() => node.core.requests.length === joined + 3)
  await new Promise(resolve => setImmediate(() => setImmediate(resolve)))
  resolve()
  await using stream = await opening
  await stream.event('delta', event => event.data.q === 1)
  const before = parseQueryPositions(whole)!
  const [first, second] = stream.events.filter(event => event.event === 'delta')
  expect(first!.data.q).toBe(0)
  expect(parseQueryPositions(first!.id!)![1]).toEqual(before[1])
  expect(parseQueryPositions(second!.id!)![1]!.lsn).toBeGreaterThan(before[1]!.lsn)
})

test('[P4] an id names no query past a resync that it has not been told yet', async () => {
  await using node = await startGateway()
  const path = '/v1/changes?q=messages&q=orders'
  let stood: string
  {
    await using stream = await TestStream.open(node, path)
    await stream.event('subscribed', event => event.data.q === 1)
    node.core.insert('messages', 0)
    const [messages] = (await stream.event('change')).id!.split('~')
    stood = `${messages}~1f2e3d4c-1000.other`
  }
  await until(() => node.core.open.size === 0)
  node.core.insert('messages', 1)
  await using stream = await TestStream.open(node, path, {
    Authorization: `Bearer ${alice}`,
    'Last-Event-ID': stood,
  })
  await stream.event('resync')
  node.core.insert('messages', 2)
  await stream.event('change', event => JSON.stringify(event.data).includes('"id":2'))
  expect(stream.events.map(({ event, data }) => [event, data.q])).toEqual([
    ['subscribed', 0],
    ['subscribed', 1],
    ['change', 0],
    ['resync', 1],
    ['change', 0],
  ])
  const [before, after] = stream.events.filter(({ event }) => event === 'change')
  // Whoever breaks off here comes back with what it held, and is told then.
  expect(before!.id!.split('~')[1]).toBe('1f2e3d4c-1000.other')
  expect(after!.id!.split('~')[1]).not.toContain('other')
})

test('[P4] a stream of several queries resumes each where it stood, and begins those anew that were not complete', async () => {
  await using node = await startGateway()
  const path = q('messages', 'orders')
  let whole: string
  let half: string
  {
    await using stream = await TestStream.open(node, path)
    half = (await stream.event('snapshot', event => event.data.q === 0)).id!
    whole = (await stream.event('snapshot', event => event.data.q === 1)).id!
  }
  await until(() => node.core.open.size === 0)
  node.core.insert('messages', 1)
  node.core.insert('orders', 2)
  const headers = { Authorization: `Bearer ${alice}` }
  await using again = await TestStream.open(node, path, { ...headers, 'Last-Event-ID': whole })
  await again.event('delta', event => event.data.q === 1)
  expect(again.events.map(event => [event.event, event.data.q])).toEqual([
    ['subscribed', 0],
    ['subscribed', 1],
    ['delta', 0],
    ['delta', 1],
  ])
  await using partly = await TestStream.open(node, `${path}&after=${encodeURIComponent(half)}`, headers)
  await partly.event('snapshot', event => event.data.q === 1)
  await partly.event('delta', event => event.data.q === 0)
  expect(partly.events.filter(event => event.event === 'resync')).toEqual([])
  expect(partly.events.filter(event => event.event === 'snapshot').map(event => event.data.q)).toEqual([1])
})

test('heartbeats keep the id of a quiet stream fresh', async () => {
  await using node = await startGateway({ heartbeatMs: 100 })
  await using stream = await TestStream.open(node, q('messages', 'orders'))
  await stream.event('snapshot', event => event.data.q === 1)
  node.core.lsn += 160
  for (const subscription of node.core.open) subscription.pump()
  const beat = await stream.event('heartbeat', event => event.id?.includes('10a0') ?? false)
  expect(beat.data).toEqual({ stale: false, lagMs: 3 })
  expect(parseQueryPositions(beat.id!)!.map(position => position.lsn)).toEqual([0x10a0n, 0x10a0n])
})

test('[P8] a token that expires ends the stream with its code', async () => {
  let now = Date.now()
  await using node = await startGateway({}, { now: () => now })
  const exp = Math.round(now / 1000) + 60
  await using stream = await TestStream.open(node, '/v1/live/messages', {
    Authorization: `Bearer ${tokenOf({ sub: 'alice', exp })}`,
  })
  await stream.event('snapshot')
  now = exp * 1000
  expect(await stream.event('error')).toMatchObject({ data: { code: 'TOKEN_EXPIRED', retry: true }, id: null })
  await stream.ended()
  expect(node.core.open.size).toBe(0)
  await until(() => node.gateway.connections() === 0)
})

test('[P8] a query that fails later ends the stream with an error event that says which', async () => {
  await using node = await startGateway()
  await using stream = await TestStream.open(node, q('messages', 'orders'))
  await stream.event('snapshot', event => event.data.q === 1)
  node.core.of('orders')[0]!.outlet.fail(new Error('a secret of the server'))
  expect((await stream.event('error')).data).toMatchObject({ q: 1, code: 'INTERNAL', retry: true })
  await stream.ended()
  expect(node.core.open.size).toBe(0)
  expect(JSON.stringify(stream.events)).not.toContain('secret')
})

test('a client that leaves takes its subscriptions with it, also while they are being joined', async () => {
  await using node = await startGateway()
  {
    await using stream = await TestStream.open(node, '/v1/live/messages')
    await stream.event('snapshot')
  }
  await until(() => node.core.open.size === 0 && node.gateway.connections() === 0)
  const gate = Promise.withResolvers<void>()
  node.core.gate = gate.promise
  const abort = new AbortController()
  const gone = fetch(`${node.url}/v1/live/messages`, {
    headers: { Authorization: `Bearer ${alice}` },
    signal: abort.signal,
  }).catch(() => {})
  await until(() => node.core.waiting === 1)
  abort.abort()
  await gone
  await until(() => node.gateway.connections() === 0)
  gate.resolve()
  await until(() => node.core.waiting === 0)
  await until(() => node.core.open.size === 0)
})

test.each([
  ['/v1/live/nope', 404, 'TABLE_UNKNOWN'],
  ['/v1/live/a.b.c', 404, 'TABLE_UNKNOWN'],
  ['/v1/live/%ff', 404, 'TABLE_UNKNOWN'],
  ['/v1/live/broken', 500, 'INTERNAL'],
  ['/v1/live', 400, 'FILTER_INVALID'],
  ['/v1/live?room_id=eq.42', 400, 'FILTER_INVALID'],
  ['/v1/live?q=messages&room_id=eq.42', 400, 'FILTER_INVALID'],
  ['/v1/live?q=messages%3Fafter%3Dx', 400, 'FILTER_INVALID'],
  ['/v1/live/messages?q=orders', 400, 'FILTER_INVALID'],
  ['/v1/live/messages?limit=0', 400, 'FILTER_INVALID'],
  ['/v1/live/messages?order=id.up', 400, 'FILTER_INVALID'],
  ['/v1/live/messages?select=', 400, 'FILTER_INVALID'],
  ['/v1/live/messages?select=a,,b', 400, 'FILTER_INVALID'],
  ['/v1/live/messages?select=a&select=b', 400, 'FILTER_INVALID'],
  ['/v1/changes/messages?events=truncate', 400, 'FILTER_INVALID'],
  ['/v1/live/messages?wait=soon', 400, 'FILTER_INVALID'],
  ['/v1/live/messages?after=rubbish', 400, 'POSITION_INVALID'],
  ['/v1/live/messages?after=-', 400, 'POSITION_INVALID'],
  ['/v1/live/messages?after=1f2e3d4c-1.a~1f2e3d4c-1.b', 400, 'POSITION_INVALID'],
  ['/v1/live?q=messages&q=orders&after=1f2e3d4c-1.a', 400, 'POSITION_INVALID'],
  [`/v1/live?${'q=messages&'.repeat(5)}`, 429, 'TOO_MANY_SUBSCRIPTIONS'],
] as const)('[P8] %s is refused before the stream begins: %i %s', async (path, status, code) => {
  await using node = await startGateway({ maxSubscriptions: 4 })
  for (const accept of ['text/event-stream', 'application/json']) {
    const headers = { Authorization: `Bearer ${alice}`, Accept: accept }
    const response = await fetch(node.url + path, { headers })
    expect(response.status).toBe(status)
    expect(response.headers.get('content-type')).toBe('application/json; charset=utf-8')
    const body = (await response.json()) as { message: string }
    expect(body).toMatchObject({ code, retry: status === 500 })
    expect(body.message).not.toContain('secret')
  }
  expect(node.core.open.size).toBe(0)
})

test('a query that is refused leaves none of its stream joined', async () => {
  await using node = await startGateway()
  const response = await fetch(node.url + q('messages', 'nope'), { headers: { Authorization: `Bearer ${alice}` } })
  expect(response.status).toBe(404)
  expect(node.core.open.size).toBe(0)
})
