import { expect, test } from 'vitest'
import { type Change, type ClientOptions, createClient } from '../../../src/client/client.ts'
import { eventually } from '../../support/eventually.ts'
import { at, type Peer, ScriptedServer, type Subscribe } from '../scripted-server.ts'

interface Database {
  orders: { id: number; state: string }
}

function clientOf(server: ScriptedServer, options: Partial<ClientOptions> = {}) {
  const errors: Error[] = []
  const onError = (error: Error): void => void errors.push(error)
  const tide = createClient<Database>(server.url, { token: 't', transports: ['websocket'], onError, ...options })
  return { tide, errors, [Symbol.dispose]: () => tide.close() }
}

/** Takes the next subscription, and gives what sends its changes. */
async function accept(peer: Peer): Promise<{ subscribe: Subscribe; change: (id: number) => void }> {
  const subscribe = await peer.next('subscribe')
  const { id } = subscribe
  peer.send({ type: 'subscribed', id, query: 7, tag: 'tag', key: ['id'], resumed: false, position: at(0) })
  const change = (key: number): void =>
    peer.send({
      type: 'change',
      query: 7,
      position: at(key),
      op: 'insert',
      schema: 'public',
      table: 'orders',
      key: { id: key },
      new: { id: key },
      committedAt: '2026-01-01T00:00:00Z',
    })
  return { subscribe, change }
}

async function peerOf(server: ScriptedServer): Promise<Peer> {
  const peer = await server.peer()
  await peer.welcome()
  return peer
}

const idOf = (change: Change<{ id: number }>): unknown => change.new?.id

test('[P4] listeners of the same changes share one subscription, and each is told everything once', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const [one, two]: [unknown[], unknown[]] = [[], []]
  const orders = run.tide.from('orders')
  orders.changes({ event: 'INSERT' }, change => one.push(idOf(change)))
  const peer = await peerOf(server)
  const { subscribe, change } = await accept(peer)
  expect(subscribe).toMatchObject({ kind: 'changes', table: 'orders', events: ['insert'] })
  change(1)
  await eventually(() => expect(one).toEqual([1]))
  const statuses: string[] = []
  const onStatus = (status: string): void => void statuses.push(status)
  const end = orders.changes({ event: 'INSERT', onStatus }, change => two.push(idOf(change)))
  expect(statuses).toEqual(['live'])
  change(2)
  await eventually(() => expect([one, two]).toEqual([[1, 2], [2]]))
  end()
  change(3)
  await eventually(() => expect(one).toEqual([1, 2, 3]))
  expect(two).toEqual([2])
  expect(peer.frames.filter(({ type }) => type === 'subscribe')).toHaveLength(1)
})

test('a loop gets the changes one after another, from the moment it was made; leaving it ends the subscription', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const changes = run.tide.from('orders').changes()
  const peer = await peerOf(server)
  const { subscribe, change } = await accept(peer)
  expect(subscribe).not.toHaveProperty('events')
  change(1)
  change(2)
  const seen: unknown[] = []
  for await (const each of changes) {
    seen.push(idOf(each))
    if (seen.length === 2) change(3)
    if (seen.length === 3) break
  }
  expect(seen).toEqual([1, 2, 3])
  await peer.next('unsubscribe')
  expect(await changes.next()).toEqual({ done: true, value: undefined })
})

test('[P7] a loop that is too far behind gets what is there, then is told', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const others: unknown[] = []
  run.tide.from('orders').changes({}, change => others.push(idOf(change)))
  const changes = run.tide.from('orders').changes({ buffer: 2 })
  const { change } = await accept(await peerOf(server))
  for (const id of [1, 2, 3, 4]) change(id)
  await eventually(() => expect(others).toEqual([1, 2, 3, 4]))
  expect(idOf((await changes.next()).value)).toBe(1)
  expect(idOf((await changes.next()).value)).toBe(2)
  await expect(changes.next()).rejects.toMatchObject({ code: 'SLOW_CONSUMER' })
  expect(await changes.next()).toEqual({ done: true, value: undefined })
})

test('a loop throws when the query is refused, and ends when the client is closed; several `next` may wait', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const refused = expect(run.tide.from('orders').changes().next()).rejects.toMatchObject({ code: 'TABLE_REFUSED' })
  const peer = await peerOf(server)
  const { id } = await peer.next('subscribe')
  peer.send({ type: 'error', id, code: 'TABLE_REFUSED', message: 'no', retry: false })
  await refused
  const changes = run.tide.from('orders').changes()
  const waiting = [changes.next(), changes.next(), changes.next()]
  const { change } = await accept(peer)
  change(1)
  expect(idOf((await waiting[0]!).value)).toBe(1)
  run.tide.close()
  expect(await Promise.all(waiting.slice(1))).toEqual([
    { done: true, value: undefined },
    { done: true, value: undefined },
  ])
})

test('[P4] events that were missed are told to each listener; without onResync to onError', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  const resyncs: unknown[] = []
  run.tide.from('orders').changes({ onResync: ({ code }) => resyncs.push(code) }, () => {})
  run.tide.from('orders').changes({}, () => {})
  const peer = await peerOf(server)
  const { subscribe } = await accept(peer)
  peer.send({ type: 'resync', id: subscribe.id, code: 'WINDOW_PASSED', reason: 'too long' })
  await eventually(() => expect(resyncs).toEqual(['WINDOW_PASSED']))
  await eventually(() =>
    expect(run.errors.map(String)).toEqual([expect.stringContaining('orders were missed: too long')]),
  )
})

test('changes have no order and no limit', async () => {
  await using server = await ScriptedServer.start()
  using run = clientOf(server)
  for (const query of [run.tide.from('orders').orderBy('id'), run.tide.from('orders').limit(1)]) {
    expect(() => query.changes()).toThrow(expect.objectContaining({ code: 'ORDER_UNSUPPORTED' }))
  }
  for (const rows of [0, -1, 1.5, Number.NaN, '3' as unknown as number]) {
    expect(() => run.tide.from('orders').limit(rows)).toThrow(expect.objectContaining({ code: 'PARAMETER_INVALID' }))
  }
})
