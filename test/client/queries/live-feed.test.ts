import { expect, test, vi } from 'vitest'
import { type ClientOptions, createClient, type LiveUpdate } from '../../../src/client/client.ts'
import { memoryStore, type Store, storedRows } from '../../../src/client/store/stored-queries.ts'
import type { JsonRow, OrderTerm, RowChange } from '../../../src/protocol/messages.ts'
import { eventually } from '../../support/eventually.ts'
import { at, type Peer, ScriptedServer, type Subscribe } from '../scripted-server.ts'

interface Message {
  id: number
  body: string
  created_at: string
}
interface Database {
  messages: Message
}

const tokenOf = (sub: string): string => `h.${btoa(JSON.stringify({ role: 'member', sub }))}.s`

/** A client of the server, gone with the test. */
function clientOf(server: ScriptedServer, options: Partial<ClientOptions> = {}) {
  const errors: Error[] = []
  const tide = createClient<Database>(server.url, {
    token: tokenOf('alice'),
    transports: ['websocket'],
    onError: error => errors.push(error),
    ...options,
  })
  return { tide, errors, [Symbol.dispose]: () => tide.close() }
}

async function welcomed(server: ScriptedServer): Promise<Peer> {
  const peer = await server.peer()
  await peer.welcome()
  return peer
}

/** Takes the next subscription up from where it stands; it missed nothing. */
async function resume(peer: Peer): Promise<Subscribe> {
  const subscribe = await peer.next('subscribe')
  const { id, since = '' } = subscribe
  const [position = ''] = since.split('.')
  peer.send({ type: 'subscribed', id, query: 7, tag: 'tag', key: ['id'], resumed: true, position })
  peer.send({ type: 'heartbeat', position, positions: { [id]: since }, stale: false, lagMs: 1 })
  return subscribe
}

const insert = (id: number): RowChange => ({ op: 'insert', key: { id }, row: { id } })
const ids = (update: LiveUpdate<unknown> | undefined): unknown[] | undefined =>
  update?.rows.map(row => (row as JsonRow).id)

/** A client that has stored two rows at position 2, and is closed. */
async function stored(server: ScriptedServer, options: Partial<ClientOptions> = {}): Promise<Store> {
  const store = memoryStore()
  using run = clientOf(server, { store: storedRows(store), ...options })
  const updates: LiveUpdate<Message>[] = []
  run.tide
    .from('messages')
    .live()
    .subscribe(update => updates.push(update))
  const peer = await welcomed(server)
  await peer.accept([{ id: 1 }])
  peer.delta(2, [insert(2)])
  await eventually(() => expect(updates.at(-1)?.rows).toHaveLength(2))
  run.tide.close()
  await eventually(async () => expect(await store.keys('')).toHaveLength(1))
  return store
}

test('[P4] a page that is loaded again shows its rows before the server is there, and takes up where it stood', async () => {
  await using server = await ScriptedServer.start()
  const store = await stored(server)
  using run = clientOf(server, { store: storedRows(store) })
  const query = run.tide.from('messages').live()
  query.subscribe(() => {})
  await eventually(() => expect(ids(query.current)).toEqual([1, 2]))
  expect(query.current.status).toBe('connecting')
  const peer = await welcomed(server)
  expect((await resume(peer)).since).toBe(`${at(2)}.tag`)
  await eventually(() => expect(query.current.status).toBe('live'))
  peer.delta(3, [insert(3)])
  await eventually(() => expect(ids(query.current)).toEqual([1, 2, 3]))
  expect(run.errors).toEqual([])
})

test('a query that is asked for once the user is known has its stored rows from the first moment', async () => {
  await using server = await ScriptedServer.start()
  const store = await stored(server)
  using run = clientOf(server, { store: storedRows(store) })
  const ended = run.tide
    .from('messages')
    .where('id', '=', 9)
    .live()
    .subscribe(() => {})
  const peer = await welcomed(server)
  await peer.next('subscribe')
  const first: unknown[] = []
  run.tide
    .from('messages')
    .live()
    .subscribe(update => first.push([update.status, ids(update)]))
  expect(first[0]).toEqual(['connecting', [1, 2]])
  expect((await resume(peer)).since).toBe(`${at(2)}.tag`)
  ended()
})

test('[P2] stored rows of one user are never seen by another', async () => {
  await using server = await ScriptedServer.start()
  const store = await stored(server)
  using run = clientOf(server, { store: storedRows(store), token: tokenOf('bob') })
  const updates: LiveUpdate<Message>[] = []
  run.tide
    .from('messages')
    .live()
    .subscribe(update => updates.push(update))
  const peer = await welcomed(server)
  expect(await peer.accept([])).not.toHaveProperty('since')
  await eventually(() => expect(updates.at(-1)?.status).toBe('live'))
  expect(updates.every(({ rows }) => rows.length === 0)).toBe(true)
})

test('[P2] a token of another user hides the rows of the one before, and what of theirs was not stored', async () => {
  await using server = await ScriptedServer.start()
  const store = memoryStore()
  const subjects = ['alice', 'bob']
  using run = clientOf(server, { store: storedRows(store), token: async () => tokenOf(subjects.shift()!) })
  const query = run.tide.from('messages').live()
  const seen: unknown[] = []
  query.subscribe(update => seen.push([update.status, ids(update)]))
  const first = await welcomed(server)
  await first.accept([{ id: 1 }])
  await eventually(() => expect(query.current.status).toBe('live'))
  first.close(4301)
  const second = await welcomed(server)
  expect(query.current.rows).toEqual([])
  expect(await second.accept([{ id: 5 }])).not.toHaveProperty('since')
  await eventually(() => expect(query.current.rows).toEqual([{ id: 5 }]))
  await run.tide.logout()
  expect(await store.keys('')).toEqual([])
})

test.each([
  [
    'a resync',
    (peer: Peer, id: number) => peer.send({ type: 'resync', id, code: 'INPUTS_CHANGED', reason: 'memberships' }),
  ],
  [
    'another tag',
    (peer: Peer, id: number) =>
      peer.send({ type: 'subscribed', id, query: 7, tag: 'other', key: ['id'], resumed: false, position: at(9) }),
  ],
  [
    'a refusal',
    (peer: Peer, id: number) => peer.send({ type: 'error', id, code: 'TABLE_REFUSED', message: 'no', retry: false }),
  ],
])('[P4] %s deletes what is stored, and its rows are not seen any longer', async (_, answer) => {
  await using server = await ScriptedServer.start()
  const store = await stored(server)
  using run = clientOf(server, { store: storedRows(store) })
  const query = run.tide.from('messages').live()
  query.subscribe(() => {})
  const peer = await welcomed(server)
  const { id } = await peer.next('subscribe')
  expect(ids(query.current)).toEqual([1, 2])
  answer(peer, id)
  await eventually(async () => expect(await store.keys('')).toEqual([]))
  expect(query.current.rows).toEqual([])
  run.tide.close()
  expect(await store.keys('')).toEqual([])
})

test('a logout deletes the user’s rows, in the store and on the page', async () => {
  await using server = await ScriptedServer.start()
  const store = await stored(server)
  using run = clientOf(server, { store: storedRows(store) })
  const updates: LiveUpdate<Message>[] = []
  run.tide
    .from('messages')
    .live()
    .subscribe(update => updates.push(update))
  const peer = await welcomed(server)
  await resume(peer)
  peer.delta(3, [insert(3)])
  await eventually(() => expect(updates.at(-1)?.rows).toHaveLength(3))
  await run.tide.logout()
  expect(await store.keys('')).toEqual([])
  expect(updates.at(-1)).toMatchObject({ status: 'closed', rows: [] })
})

test('a token that is no JWT needs the option `user`; without it nothing is stored, and that is said', async () => {
  await using server = await ScriptedServer.start()
  const store = await stored(server, { token: 'opaque', user: 'alice' })
  using run = clientOf(server, { store: storedRows(store), token: 'opaque' })
  const query = run.tide.from('messages').live()
  query.subscribe(() => {})
  const peer = await welcomed(server)
  expect(await peer.next('subscribe')).not.toHaveProperty('since')
  expect(run.errors.map(String)).toEqual([expect.stringContaining('option `user`')])
})

test('a query that nobody listened to for a while is taken up from the store', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server, { store: storedRows(memoryStore()) })
  const query = run.tide.from('messages').live()
  const unsubscribe = query.subscribe(() => {})
  const peer = await welcomed(server)
  await peer.accept([{ id: 1 }], { position: at(5) })
  await eventually(() => expect(query.current.status).toBe('live'))
  unsubscribe()
  await peer.next('unsubscribe')
  expect(query.current.rows).toEqual([])
  query.subscribe(() => {})
  expect(query.current.rows).toEqual([{ id: 1 }])
  expect((await resume(peer)).since).toBe(`${at(5)}.tag`)
})

test('[P4] away past the window: the rows stay until the fresh ones are whole, then the difference is told', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const query = run.tide.from('messages').live()
  const updates: LiveUpdate<Message>[] = []
  query.subscribe(update => updates.push(update))
  const first = await welcomed(server)
  await first.accept([
    { id: 1, body: 'a' },
    { id: 2, body: 'b' },
    { id: 3, body: 'c' },
  ])
  await eventually(() => expect(query.current.status).toBe('live'))
  const [one] = query.current.rows
  first.cut()
  const second = await welcomed(server)
  const { id } = await second.next('subscribe')
  second.send({ type: 'subscribed', id, query: 7, tag: 'tag', key: ['id'], resumed: false, position: at(0) })
  second.send({ type: 'resync', id, code: 'WINDOW_PASSED', reason: 'too long' })
  second.send({ type: 'snapshot', id, rows: [{ id: 1, body: 'a' }], done: false })
  await eventually(() =>
    expect(query.current).toMatchObject({ status: 'catching up', error: { code: 'WINDOW_PASSED' } }),
  )
  expect(ids(query.current)).toEqual([1, 2, 3])
  second.send({
    type: 'snapshot',
    id,
    rows: [
      { id: 3, body: 'C' },
      { id: 4, body: 'd' },
    ],
    done: true,
    position: at(9),
  })
  await eventually(() => expect(query.current.status).toBe('live'))
  expect(query.current.delta).toEqual({
    committedAt: null,
    changes: [
      { op: 'delete', key: { id: 2 } },
      { op: 'update', key: { id: 3 }, set: { body: 'C' } },
      { op: 'insert', key: { id: 4 }, row: { id: 4, body: 'd' } },
    ],
  })
  expect(query.current.rows[0]).toBe(one)
  expect(updates.every(({ status, rows }) => status !== 'live' || rows.length === 3)).toBe(true)
})

test('[P4] a delta that does not fit: the rows that were right stay, and the difference follows', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const query = run.tide.from('messages').live()
  query.subscribe(() => {})
  const peer = await welcomed(server)
  await peer.accept([{ id: 1 }])
  peer.delta(2, [insert(2), insert(1)])
  await eventually(() => expect(query.current.error?.code).toBe('PROTOCOL_ERROR'))
  expect(query.current.rows).toEqual([{ id: 1 }])
  await peer.accept([{ id: 1 }, { id: 2 }], { query: 8, position: at(3) })
  await eventually(() => expect(query.current.rows).toEqual([{ id: 1 }, { id: 2 }]))
  expect(query.current.delta?.changes).toEqual([insert(2)])
  expect(run.errors).toHaveLength(1)
})

const order: OrderTerm[] = [
  { column: 'created_at', direction: 'desc', nulls: 'last', compare: 'time' },
  { column: 'id', direction: 'asc', nulls: 'last', compare: 'number' },
]
const message = (id: number, second: number) => ({ id, body: '', created_at: `2026-01-01T00:00:0${second}+00:00` })

test('[P1] an order is asked for with its columns, and kept from commit to commit', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const query = run.tide.from('messages').select(['body']).orderBy('created_at', 'desc', { nulls: 'last' }).live()
  query.subscribe(() => {})
  const peer = await welcomed(server)
  const subscribe = await peer.next('subscribe')
  expect(subscribe).toMatchObject({ order: 'created_at.desc.nullslast', select: ['body', 'created_at'] })
  const { id } = subscribe
  peer.send({ type: 'subscribed', id, query: 7, tag: 't', key: ['id'], resumed: false, position: at(1), order })
  peer.send({ type: 'snapshot', id, rows: [message(1, 1), message(2, 3)], done: true, position: at(1) })
  await eventually(() => expect(ids(query.current)).toEqual([2, 1]))
  peer.delta(2, [
    { op: 'insert', key: { id: 3 }, row: message(3, 2) },
    { op: 'update', key: { id: 2 }, set: { created_at: null } },
  ])
  await eventually(() => expect(ids(query.current)).toEqual([3, 1, 2]))
})

test('[P1] a window is held in the order that the server gives, and filled up as rows leave', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const query = run.tide.from('messages').orderBy('body').limit(2).live()
  query.subscribe(() => {})
  const peer = await welcomed(server)
  const subscribe = await peer.next('subscribe')
  expect(subscribe).toMatchObject({ order: 'body.asc', limit: 2 })
  const { id } = subscribe
  const terms: OrderTerm[] = [{ column: 'body', direction: 'asc', nulls: 'last', compare: 'server' }, order[1]!]
  peer.send({
    type: 'subscribed',
    id,
    query: 7,
    tag: 't',
    key: ['id'],
    resumed: false,
    position: at(1),
    order: terms,
    limit: 2,
  })
  peer.send({ type: 'snapshot', id, rows: [message(5, 1), message(2, 1)], done: true, position: at(1) })
  await eventually(() => expect(ids(query.current)).toEqual([5, 2]))
  peer.delta(2, [
    { op: 'delete', key: { id: 5 } },
    { op: 'insert', key: { id: 1 }, row: message(1, 1), after: { id: 2 } },
  ])
  await eventually(() => expect(ids(query.current)).toEqual([2, 1]))
  peer.delta(3, [{ op: 'update', key: { id: 1 }, set: { body: 'A' }, after: null }])
  await eventually(() => expect(ids(query.current)).toEqual([1, 2]))
})

test('a listener that leaves and comes back at once is not seen on the wire', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const query = (): ReturnType<ReturnType<typeof run.tide.from<'messages'>>['live']> => run.tide.from('messages').live()
  query().subscribe(() => {})()
  const unsubscribe = query().subscribe(() => {})
  const peer = await welcomed(server)
  await peer.accept([{ id: 1 }])
  await eventually(() => expect(query().current.status).toBe('live'))
  unsubscribe()
  expect(query().current.rows).toEqual([{ id: 1 }])
  const last = query().subscribe(() => {})
  last()
  await peer.next('unsubscribe')
  const said = peer.frames.map(({ type }) => type).filter(type => type !== 'heartbeat')
  expect(said).toEqual(['auth', 'subscribe', 'unsubscribe'])
  expect(query().current).toMatchObject({ status: 'connecting', rows: [] })
})

test('a query put together in another order is the same query', () => {
  using run = {
    tide: createClient<Database & { 'public.messages': Message }>('http://127.0.0.1:1', { token: 't' }),
    [Symbol.dispose]() {},
  }
  const one = run.tide.from('messages').where('id', '>', 1).where('body', '=', 'x').select(['id', 'body']).live()
  const two = run.tide
    .from('public.messages')
    .select(['body', 'id'])
    .where('body', '=', 'x')
    .where('id', '>', 1)
    .where('id', '>', 1)
    .live()
  expect(two.key).toBe(one.key)
  expect(two.client).toBe(one.client)
  const ordered = run.tide.from('messages').orderBy('id').orderBy('body', 'desc')
  const spelledOut = run.tide
    .from('messages')
    .orderBy('id', 'asc', { nulls: 'last' })
    .orderBy('body', 'desc', { nulls: 'first' })
  expect(spelledOut.live().key).toBe(ordered.live().key)
  expect(run.tide.from('messages').orderBy('id', 'asc', { nulls: 'first' }).live().key).not.toBe(
    run.tide.from('messages').orderBy('id').live().key,
  )
  expect(run.tide.from('messages').orderBy('id').live().key).not.toBe(run.tide.from('messages').live().key)
})

test('what is current stays the same object until something changes, and before anybody listens', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const query = run.tide.from('messages').live()
  expect(query.current).toBe(run.tide.from('messages').live().current)
  const told: unknown[] = []
  query.subscribe(update => told.push(update))
  const peer = await welcomed(server)
  await peer.accept([{ id: 1 }])
  await eventually(() => expect(query.current.status).toBe('live'))
  expect(query.current).toBe(told.at(-1))
  expect(query.current).toBe(query.current)
})

test('once() gives the first live rows and leaves; a refusal, a close or a signal rejects it', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const query = run.tide.from('messages').live()
  const rows = query.once()
  const peer = await welcomed(server)
  await peer.accept([{ id: 1 }])
  expect(await rows).toEqual([{ id: 1 }])
  await peer.next('unsubscribe')
  const refused = expect(query.once()).rejects.toMatchObject({ code: 'TABLE_REFUSED', message: 'no' })
  peer.send({
    type: 'error',
    id: (await peer.next('subscribe')).id,
    code: 'TABLE_REFUSED',
    message: 'no',
    retry: false,
  })
  await refused
  const abort = new AbortController()
  const aborted = expect(query.once({ signal: abort.signal })).rejects.toThrow('enough')
  abort.abort(new Error('enough'))
  await aborted
  await expect(query.once({ signal: abort.signal })).rejects.toThrow('enough')
  const closed = expect(query.once()).rejects.toMatchObject({ code: 'CLIENT_CLOSED' })
  run.tide.close()
  await closed
})

test('a listener that throws harms no other, and is told to onError', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const query = run.tide.from('messages').live()
  const listener = vi.fn()
  query.subscribe(() => {
    throw new Error('mine')
  })
  query.subscribe(listener)
  await (await welcomed(server)).accept([{ id: 1 }])
  await eventually(() => expect(listener).toHaveBeenLastCalledWith(expect.objectContaining({ status: 'live' })))
  expect(run.errors.every(error => error.message === 'mine')).toBe(true)
})
