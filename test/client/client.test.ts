import { expect, test } from 'vitest'
import { type Client, type ClientOptions, createClient, type LiveUpdate } from '../../src/client/client.ts'
import type { ChangeEvent, JsonRow } from '../../src/protocol/messages.ts'
import { eventually } from '../support/eventually.ts'
import { at, type Peer, ScriptedServer } from './scripted-server.ts'

/** A server, a client, and the updates of one live query on `messages`. */
async function live(options: Partial<ClientOptions> = {}): Promise<{
  server: ScriptedServer
  client: Client
  errors: Error[]
  updates: LiveUpdate<JsonRow>[]
  unsubscribe: () => void
  rows: () => readonly JsonRow[] | undefined
  status: () => string | undefined
  [Symbol.asyncDispose]: () => Promise<void>
}> {
  const server = await ScriptedServer.start()
  const errors: Error[] = []
  const client = createClient(server.url, { token: 'token', onError: error => errors.push(error), ...options })
  const updates: LiveUpdate<JsonRow>[] = []
  const unsubscribe = client
    .from('messages')
    .where('room_id', '=', 42)
    .live()
    .subscribe(update => updates.push(update))
  return {
    server,
    client,
    errors,
    updates,
    unsubscribe,
    rows: () => updates.at(-1)?.rows,
    status: () => updates.at(-1)?.status,
    async [Symbol.asyncDispose]() {
      client.close()
      await server[Symbol.asyncDispose]()
    },
  }
}

const insert = (id: number) => ({ op: 'insert' as const, key: { id }, row: { id } })

async function resume(peer: Peer): Promise<string | undefined> {
  const { id, since } = await peer.next('subscribe')
  peer.send({ type: 'subscribed', id, query: 8, tag: 'tag', key: ['id'], resumed: true, position: at(99) })
  peer.hasAll(id, since!)
  // That was all it missed.
  if (since !== undefined)
    peer.send({ type: 'heartbeat', position: null, positions: { [id]: since }, stale: false, lagMs: 1 })
  return since
}

test('token first, then the query; the snapshot and each delta reach the listener', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  expect(await peer.welcome()).toBe('token')
  const subscribe = await peer.accept([{ id: 1 }])
  expect(subscribe).toMatchObject({ kind: 'live', table: 'messages', filter: 'room_id=eq.42' })
  expect(subscribe).not.toHaveProperty('since')
  await eventually(() => expect(run.status()).toBe('live'))
  peer.delta(2, [insert(2)])
  await eventually(() => expect(run.rows()).toEqual([{ id: 1 }, { id: 2 }]))
  expect(run.updates.at(-1)?.delta?.changes).toEqual([insert(2)])
  expect(run.updates.map(update => update.status)).toEqual(
    expect.arrayContaining(['connecting', 'catching up', 'live']),
  )
})

test('[P8] a query whose rows Postgres is asked for says that it is not exact, until the server says otherwise', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  await peer.welcome()
  const { id } = await peer.next('subscribe')
  expect(run.updates.at(-1)?.exact).toBe(true)
  const warnings = [{ code: 'POLICY_ASKED', message: 'Postgres is asked' }]
  const subscribed = {
    type: 'subscribed' as const,
    id,
    query: 7,
    tag: 'tag',
    key: ['id'],
    resumed: false,
    position: at(1),
  }
  peer.send({ ...subscribed, exact: false, warnings })
  await eventually(() => expect(run.updates.at(-1)).toMatchObject({ exact: false, warnings }))
  peer.send({ ...subscribed, query: 8 })
  await eventually(() => expect(run.updates.at(-1)).toMatchObject({ exact: true, warnings: [] }))
})

test('[P4] after a lost link it resumes from the last delta, and nothing is applied twice', async () => {
  await using run = await live()
  const first = await run.server.peer()
  await first.welcome()
  await first.accept([{ id: 1 }])
  first.delta(2, [insert(2)])
  // A part of a commit that the link cuts off.
  first.send({ type: 'delta', query: 7, changes: [insert(3)], done: false, committedAt: '' })
  await eventually(() => expect(run.rows()).toHaveLength(2))
  first.cut()
  const second = await run.server.peer()
  expect(run.status()).toBe('offline')
  expect(run.rows()).toHaveLength(2)
  await second.welcome()
  expect(await resume(second)).toBe(`${at(2)}.tag`)
  second.delta(3, [insert(3), insert(4)], 8)
  await eventually(() => expect(run.rows()).toEqual([{ id: 1 }, { id: 2 }, { id: 3 }, { id: 4 }]))
  expect(run.errors).toEqual([])
})

test('[P4] a heartbeat moves the position of a quiet query', async () => {
  await using run = await live()
  const first = await run.server.peer()
  await first.welcome()
  const { id } = await first.accept([])
  first.send({ type: 'heartbeat', position: at(9), positions: { [id]: `${at(9)}.tag` }, stale: true, lagMs: 1 })
  await eventually(() => expect(run.updates.at(-1)?.stale).toBe(true))
  first.cut()
  const second = await run.server.peer()
  await second.welcome()
  expect(await resume(second)).toBe(`${at(9)}.tag`)
})

test('[P4] a connection lost in the middle of the first snapshot begins fresh', async () => {
  await using run = await live()
  const first = await run.server.peer()
  await first.welcome()
  const { id } = await first.next('subscribe')
  first.send({ type: 'subscribed', id, query: 7, tag: 'tag', key: ['id'], resumed: false, position: at(1) })
  first.send({ type: 'snapshot', id, rows: [{ id: 1 }], done: false })
  await eventually(() => expect(run.status()).toBe('catching up'))
  first.cut()
  const second = await run.server.peer()
  await second.welcome()
  expect(await second.accept([{ id: 5 }])).not.toHaveProperty('since')
  await eventually(() => expect(run.rows()).toEqual([{ id: 5 }]))
})

test('[P4] resync clears what is held and takes the fresh snapshot', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  await peer.welcome()
  const { id } = await peer.accept([{ id: 1 }])
  await eventually(() => expect(run.status()).toBe('live'))
  peer.send({ type: 'resync', id, code: 'INPUTS_CHANGED', reason: 'memberships changed' })
  await eventually(() => expect(run.updates.at(-1)).toMatchObject({ rows: [], status: 'catching up' }))
  expect(run.updates.at(-1)?.error?.code).toBe('INPUTS_CHANGED')
  peer.send({ type: 'snapshot', id, rows: [{ id: 2 }], done: true, position: at(5) })
  await eventually(() => expect(run.updates.at(-1)).toMatchObject({ rows: [{ id: 2 }], status: 'live', error: null }))
})

test('[P4] a subscription that is told anew goes on under its new number, from a fresh snapshot', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  await peer.welcome()
  const { id } = await peer.accept([{ id: 1 }])
  await eventually(() => expect(run.status()).toBe('live'))
  peer.send({ type: 'subscribed', id, query: 9, tag: 'new', key: ['id'], resumed: false, position: at(0) })
  peer.send({ type: 'resync', id, code: 'POLICY_CHANGED', reason: 'a policy changed' })
  peer.send({ type: 'snapshot', id, rows: [{ id: 5 }], done: true, position: at(5) })
  peer.delta(6, [insert(6)], 9)
  await eventually(() => expect(run.updates.at(-1)).toMatchObject({ rows: [{ id: 5 }, { id: 6 }], status: 'live' }))
  expect(run.errors).toEqual([])
  peer.cut()
  const second = await run.server.peer()
  await second.welcome()
  expect(await resume(second)).toBe(`${at(6)}.new`)
})

test('[P4] a delta that does not fit is reported, and the query starts over', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  await peer.welcome()
  const { id } = await peer.accept([{ id: 1 }])
  peer.delta(2, [insert(1)])
  expect((await peer.next('unsubscribe')).id).toBe(id)
  expect(run.errors.map(String)).toEqual([expect.stringContaining('insert of the known key')])
  const again = await peer.accept([{ id: 1 }, { id: 2 }], { query: 9, position: at(3) })
  expect(again.id).not.toBe(id)
  await eventually(() => expect(run.rows()).toHaveLength(2))
})

test('[P4] a delta sent twice is an error of the server, not applied twice', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  await peer.welcome()
  await peer.accept([])
  peer.delta(2, [insert(2)])
  peer.delta(2, [{ op: 'update', key: { id: 2 }, set: {} }])
  await peer.next('unsubscribe')
  expect(run.errors.map(String)).toEqual([expect.stringContaining('came again')])
})

test('two listeners of one query share one subscription, which ends with the last', async () => {
  await using run = await live()
  const seen: number[] = []
  const second = run.client
    .from('messages')
    .where('room_id', '=', 42)
    .live()
    .subscribe(({ rows }) => seen.push(rows.length))
  const peer = await run.server.peer()
  await peer.welcome()
  const { id } = await peer.accept([{ id: 1 }])
  await eventually(() => expect(seen.at(-1)).toBe(1))
  run.unsubscribe()
  peer.delta(2, [insert(2)])
  await eventually(() => expect(seen.at(-1)).toBe(2))
  second()
  expect((await peer.next('unsubscribe')).id).toBe(id)
  expect(peer.frames.filter(frame => frame.type === 'subscribe')).toHaveLength(1)
})

test('two spellings of one query share its frames, each from its own position', async () => {
  await using run = await live()
  const others: (readonly JsonRow[])[] = []
  const peer = await run.server.peer()
  await peer.welcome()
  await peer.accept([{ id: 1 }])
  peer.delta(2, [insert(2)])
  run.client
    .from('messages')
    .filter('room_id=in.(42)')
    .live()
    .subscribe(({ rows }) => others.push(rows))
  const { id } = await peer.next('subscribe')
  peer.send({ type: 'subscribed', id, query: 7, tag: 'tag', key: ['id'], resumed: false, position: at(1) })
  peer.delta(3, [insert(3)])
  peer.send({ type: 'snapshot', id, rows: [{ id: 1 }, { id: 2 }, { id: 3 }], done: true, position: at(3) })
  peer.delta(4, [insert(4)])
  peer.delta(4, [insert(4)])
  await eventually(() => expect(others.at(-1)).toHaveLength(4))
  expect(run.rows()).toHaveLength(4)
  expect(run.errors).toEqual([])
})

test('[P8] a refused query says why and shows nothing; its neighbour goes on', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  await peer.welcome()
  const { id } = await peer.accept([{ id: 1 }])
  const other: LiveUpdate<JsonRow>[] = []
  run.client
    .from('secrets')
    .live()
    .subscribe(update => other.push(update))
  const refused = await peer.next('subscribe')
  peer.send({ type: 'error', id: refused.id, code: 'TABLE_REFUSED', message: 'no SELECT on secrets', retry: false })
  await eventually(() => expect(other.at(-1)?.status).toBe('refused'))
  expect(other.at(-1)?.error).toEqual({ code: 'TABLE_REFUSED', message: 'no SELECT on secrets' })
  peer.delta(2, [insert(2)])
  await eventually(() => expect(run.rows()).toHaveLength(2))
  peer.send({ type: 'error', id, code: 'TABLE_REFUSED', message: 'revoked', retry: false })
  await eventually(() => expect(run.updates.at(-1)).toMatchObject({ status: 'refused', rows: [] }))
})

test('[P8] a query the server cannot take now is asked again after its hint, from where it stood', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  await peer.welcome()
  const { id } = await peer.accept([{ id: 1 }])
  peer.send({ type: 'error', id, code: 'BUSY', message: 'later', retry: true, retryAfterMs: 10 })
  expect(await resume(peer)).toBe(`${at(1)}.tag`)
  await eventually(() => expect(run.updates.at(-1)).toMatchObject({ status: 'live', rows: [{ id: 1 }] }))
})

test('a 43xx close code asks the token callback again; the new token goes in the next connection', async () => {
  let count = 0
  await using run = await live({ token: async () => `token ${++count}` })
  const first = await run.server.peer()
  expect(await first.welcome()).toBe('token 1')
  first.close(4302)
  expect(await (await run.server.peer()).welcome()).toBe('token 2')
})

test('a token is renewed in place ahead of its expiry, on the same connection', async () => {
  let count = 0
  await using run = await live({ token: () => `token ${++count}` })
  const peer = await run.server.peer()
  await peer.welcome({ expiresAt: Date.now() + 1200 })
  await peer.accept([{ id: 1 }])
  expect((await peer.next('auth')).token).toBe('token 2')
  peer.send({ type: 'authenticated', expiresAt: null })
  peer.delta(2, [insert(2)])
  await eventually(() => expect(run.rows()).toHaveLength(2))
  // The renewal is nothing a listener need see.
  expect(run.updates.filter(update => update.status === 'catching up').length).toBeLessThanOrEqual(2)
})

test('a server silent for two heartbeats is left; the client beats too', async () => {
  await using run = await live()
  const first = await run.server.peer()
  await first.welcome({ heartbeatMs: 50 })
  await first.accept([])
  await first.next('heartbeat')
  const second = await run.server.peer()
  await second.welcome()
  expect(await resume(second)).toBe(`${at(1)}.tag`)
})

test('a 42xx close code ends it: refused, nothing shown, no further connection', async () => {
  await using run = await live()
  const peer = await run.server.peer()
  await peer.welcome()
  await peer.accept([{ id: 1 }])
  peer.send({ type: 'error', code: 'ROLE_REFUSED', message: 'role "boss" is not listed', retry: false })
  peer.close(4209)
  await eventually(() => expect(run.updates.at(-1)).toMatchObject({ status: 'refused', rows: [] }))
  expect(run.updates.at(-1)?.error).toEqual({ code: 'ROLE_REFUSED', message: 'role "boss" is not listed' })
})

test('a loop over a query sees the rows, and leaving it ends the subscription', async () => {
  await using server = await ScriptedServer.start()
  const client = createClient(server.url, { token: 'token' })
  const rows = (async () => {
    for await (const update of client.from('messages').select(['id']).live()) {
      if (update.rows.length === 2) return update.rows
    }
  })()
  const peer = await server.peer()
  await peer.welcome()
  expect(await peer.accept([{ id: 1 }])).toMatchObject({ select: ['id'] })
  peer.delta(2, [insert(2)])
  expect(await rows).toEqual([{ id: 1 }, { id: 2 }])
  await peer.next('unsubscribe')
  client.close()
})

test('[P4] changes come once each, resume inside a commit, and say so when some were missed', async () => {
  await using server = await ScriptedServer.start()
  const client = createClient(server.url, { token: 'token' })
  const seen: (string | number)[] = []
  client
    .from('orders')
    .changes({ event: 'INSERT', onResync: reason => seen.push(reason.code) }, change =>
      seen.push(Number(change.new?.id)),
    )
  const change = (id: number): ChangeEvent => ({
    op: 'insert',
    schema: 'public',
    table: 'orders',
    key: { id },
    new: { id },
    committedAt: '',
  })
  const first = await server.peer()
  await first.welcome()
  const subscribe = await first.next('subscribe')
  expect(subscribe).toMatchObject({ kind: 'changes', table: 'orders', events: ['insert'] })
  const subscribed = { type: 'subscribed' as const, tag: 'tag', key: ['id'] }
  first.send({ ...subscribed, id: subscribe.id, query: 1, resumed: false, position: at(1) })
  first.send({ type: 'change', query: 1, position: `${at(2)}-1`, ...change(1) })
  await eventually(() => expect(seen).toEqual([1]))
  first.cut()
  const second = await server.peer()
  await second.welcome()
  const resumed = await second.next('subscribe')
  expect(resumed.since).toBe(`${at(2)}-1.tag`)
  second.send({ ...subscribed, id: resumed.id, query: 1, resumed: true, position: at(9) })
  second.hasAll(resumed.id, resumed.since!)
  second.send({ type: 'change', query: 1, position: at(2), ...change(2) })
  await eventually(() => expect(seen).toEqual([1, 2]))
  second.send({ type: 'resync', id: resumed.id, code: 'WINDOW_PASSED', reason: 'too long' })
  await eventually(() => expect(seen).toEqual([1, 2, 'WINDOW_PASSED']))
  client.close()
})
