// What ends with a user, with a client, and with a frame that a later server sends.
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test, vi } from 'vitest'
import { WebSocketServer } from 'ws'
import { type Client, type ClientOptions, createClient, type LiveUpdate } from '../../src/client/client.ts'
import { rememberedRung } from '../../src/client/connection/ladder.ts'
import { remember } from '../../src/client/connection/recall.ts'
import { memoryStore, type Store, storedRows } from '../../src/client/store/stored-queries.ts'
import type { TransportName } from '../../src/client/transports/transport.ts'
import type { JsonRow } from '../../src/protocol/messages.ts'
import { eventually } from '../support/eventually.ts'
import { at, ScriptedServer } from './scripted-server.ts'

const tokenOf = (sub: string): string => `e30.${btoa(JSON.stringify({ sub, role: 'member' }))}.c2ln`

class Following implements AsyncDisposable {
  readonly errors: Error[] = []
  readonly updates: LiveUpdate<JsonRow>[] = []
  readonly client: Client
  readonly server: ScriptedServer

  constructor(server: ScriptedServer, options: Partial<ClientOptions> = {}) {
    this.server = server
    this.client = createClient(server.url, { token: 'token', onError: error => this.errors.push(error), ...options })
  }

  follow(query = this.client.from('messages')): () => void {
    return query.live().subscribe(update => this.updates.push(update))
  }

  get last(): LiveUpdate<JsonRow> | undefined {
    return this.updates.at(-1)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.client.close()
    await this.server[Symbol.asyncDispose]()
  }
}

const following = async (options: Partial<ClientOptions> = {}): Promise<Following> =>
  new Following(await ScriptedServer.start(), options)

test('an order that only a later client can compare ends its query with a code, and no other', async () => {
  await using run = await following()
  run.follow(run.client.from('messages').orderBy('id'))
  const other: LiveUpdate<JsonRow>[] = []
  run.client
    .from('rooms')
    .live()
    .subscribe(update => other.push(update))
  const peer = await run.server.peer()
  await peer.welcome()
  const asked = [await peer.next('subscribe'), await peer.next('subscribe')]
  const ordered = asked.find(({ table }) => table === 'messages')!
  const order = [{ column: 'id', direction: 'asc', nulls: 'last', compare: 'phase of the moon' }]
  const subscribed = { type: 'subscribed', id: ordered.id, query: 1, tag: 'tag', key: ['id'], resumed: false, order }
  peer.sendText(JSON.stringify({ ...subscribed, position: at(1) }))
  await eventually(() => expect(run.last?.error?.code).toBe('ORDER_UNSUPPORTED'))
  expect(run.last).toMatchObject({ status: 'refused', rows: [] })
  expect((await peer.next('unsubscribe')).id).toBe(ordered.id)
  const { id } = asked.find(({ table }) => table === 'rooms')!
  peer.send({ type: 'subscribed', id, query: 2, tag: 'tag', key: ['id'], resumed: false, position: at(1) })
  peer.send({ type: 'snapshot', id, rows: [{ id: 1 }], done: true, position: at(1) })
  await eventually(() => expect(other.at(-1)).toMatchObject({ status: 'live', rows: [{ id: 1 }] }))
  await eventually(() => expect(run.client.status.name).toBe('live'))
})

test.for([
  ['a frame of an unknown type', { type: 'weather' }, false],
  ['a frame of an unknown type that names the query', { type: 'weather', id: 1, query: 7, ref: 1 }, false],
  ['an unknown op', { type: 'delta', query: 7, changes: [{ op: 'merge' }], done: true, position: at(2) }, true],
  [
    'a change without its key',
    { type: 'delta', query: 7, changes: [{ op: 'insert' }], done: true, position: at(2) },
    true,
  ],
  ['a delta without changes', { type: 'delta', query: 7, done: true, position: at(2) }, true],
  ['a snapshot without rows', { type: 'snapshot', id: 1, done: true, position: at(2) }, true],
] as const)('%s of a later server', async ([, frame, startsOver]) => {
  await using run = await following()
  run.follow()
  const peer = await run.server.peer()
  await peer.welcome()
  const { id } = await peer.accept([{ id: 1 }])
  await eventually(() => expect(run.last?.status).toBe('live'))
  peer.sendText(JSON.stringify('id' in frame ? { ...frame, id } : frame))
  if (startsOver) {
    await eventually(() => expect(run.last).toMatchObject({ status: 'catching up', error: { code: 'PROTOCOL_ERROR' } }))
    await peer.accept([{ id: 2 }], { query: 8, position: at(3) })
  } else {
    peer.delta(3, [{ op: 'insert', key: { id: 2 }, row: { id: 2 } }])
  }
  await eventually(() =>
    expect(run.last).toMatchObject({ status: 'live', rows: startsOver ? [{ id: 2 }] : [{ id: 1 }, { id: 2 }] }),
  )
  expect(run.errors).toHaveLength(startsOver ? 1 : 0)
})

test('a query that is taken up and refused for now, over and over, is tried ever more seldom', async () => {
  const random = vi.spyOn(Math, 'random').mockReturnValue(0.999)
  try {
    await using run = await following()
    run.follow()
    const peer = await run.server.peer()
    await peer.welcome()
    const times: number[] = []
    for (let i = 0; i < 3; i++) {
      const { id } = await peer.accept([{ id: 1 }], { query: i + 1, position: at(i + 1) })
      times.push(Date.now())
      peer.send({ type: 'error', id, code: 'UNAVAILABLE', message: 'not now', retry: true })
    }
    await peer.next('subscribe')
    times.push(Date.now())
    const pauses = times.slice(1).map((time, i) => time - times[i]!)
    expect(pauses[2]).toBeGreaterThan(2 * pauses[0]!)
  } finally {
    random.mockRestore()
  }
})

test('waiting for a transaction ends at once where the client is closed, or is refused', async () => {
  await using closed = await following()
  closed.client.close()
  await expect(closed.client.waitFor('1')).rejects.toMatchObject({ code: 'CLIENT_CLOSED' })
  await using refused = await following()
  refused.follow()
  const peer = await refused.server.peer()
  peer.close(4200)
  await eventually(() => expect(refused.client.status.name).toBe('refused'))
  await expect(refused.client.waitFor('1')).rejects.toMatchObject({ code: 'CLIENT_CLOSED' })
})

test.for(['logout', 'close'] as const)('%s ends what waits for code to be fetched', async end => {
  vi.resetModules()
  const { createClient } = await import('../../src/client/client.ts')
  await using server = await ScriptedServer.start()
  let user = 0
  const client = createClient(server.url, { token: () => `token ${++user}`, onError: () => {} })
  const states: string[] = []
  client
    .from('messages')
    .orderBy('id')
    .live()
    .subscribe(({ status }) => states.push(status))
  const said: string[] = []
  const room = client.channel('room')
  room.onStatus(status => said.push(status))
  const messages = room.messages('*')
  const next = messages.next()
  await client[end]()
  await eventually(() => expect(states.at(-1)).toBe('closed'))
  expect(await next).toEqual({ done: true, value: undefined })
  // Nothing of it is asked for the next user.
  if (end === 'logout') {
    client
      .from('rooms')
      .live()
      .subscribe(() => {})
    const peer = await server.peer()
    await peer.welcome()
    await peer.next('subscribe')
    peer.send({ type: 'heartbeat', position: null, positions: {}, stale: false, lagMs: 0 })
    await new Promise(resolve => setTimeout(resolve, 100))
    expect(peer.frames.filter(({ type }) => type === 'subscribe' || type === 'join')).toHaveLength(1)
  }
  client.close()
})

test('a loop over messages ends with the user', async () => {
  await using run = await following()
  const messages = run.client.channel('room').messages('*')
  const next = messages.next()
  const peer = await run.server.peer()
  await peer.welcome()
  await peer.next('join')
  await run.client.logout()
  expect(await next).toEqual({ done: true, value: undefined })
})

test('a client that is closed while it looks for a better transport leaves no timer behind', async () => {
  // Takes WebSockets, and answers nothing else.
  let asked = 0
  const http = createServer(() => asked++)
  const sockets = new WebSocketServer({ server: http })
  sockets.on('connection', socket =>
    socket.once('message', () =>
      socket.send(JSON.stringify({ type: 'welcome', connection: 'c', heartbeatMs: 25_000, expiresAt: null })),
    ),
  )
  http.listen(0, '127.0.0.1')
  await once(http, 'listening')
  const url = `http://127.0.0.1:${(http.address() as AddressInfo).port}/`
  const transports: TransportName[] = ['sse', 'websocket']
  remember(new URL(url), transports, rememberedRung(1, { code: 'CONNECTION_LOST', message: 'it broke' }))
  vi.spyOn(Math, 'random').mockReturnValue(0.999)
  const set = vi.spyOn(globalThis, 'setTimeout')
  const clear = vi.spyOn(globalThis, 'clearTimeout')
  try {
    const client = createClient(url, { token: 'token', transports })
    client
      .from('messages')
      .live()
      .subscribe(() => {})
    await eventually(() => expect(asked).toBe(1))
    const probing = set.mock.calls.findLastIndex(([, ms]) => ms === 10_000)
    client.close()
    expect(clear.mock.calls).toContainEqual([set.mock.results[probing]!.value])
  } finally {
    vi.restoreAllMocks()
    for (const socket of sockets.clients) socket.terminate()
    http.closeAllConnections()
    http.close()
  }
})

test('a client that nobody has asked anything listens to nothing of the page, and one that is closed no more', async () => {
  const heard = new Map<string, Set<unknown>>()
  const target = {
    addEventListener: (type: string, listener: unknown) => {
      heard.set(type, (heard.get(type) ?? new Set()).add(listener))
    },
    removeEventListener: (type: string, listener: unknown) => heard.get(type)?.delete(listener),
  }
  for (const [name, value] of Object.entries(target)) vi.stubGlobal(name, value)
  vi.stubGlobal('document', { ...target, visibilityState: 'visible' })
  const count = (): number => [...heard.values()].reduce((sum, { size }) => sum + size, 0)
  try {
    const options = (): Partial<ClientOptions> => ({ token: tokenOf('ada'), store: storedRows(memoryStore()) })
    await using run = await following(options())
    await using other = await following(options())
    expect(count()).toBe(0)
    for (const each of [run, other]) {
      each.follow()
      await (await each.server.peer()).welcome()
    }
    const ofTwo = count()
    expect(ofTwo).toBeGreaterThan(0)
    other.client.close()
    expect(count()).toBe(ofTwo / 2)
    run.client.close()
    expect(count()).toBe(0)
  } finally {
    vi.unstubAllGlobals()
  }
})

test('a token of another user that comes while the first one’s is being connected waits for the next question', async () => {
  let asked = 0
  const late = Promise.withResolvers<string>()
  await using run = await following({
    token: () => (++asked === 2 ? late.promise : tokenOf(asked === 1 ? 'ada' : 'bob')),
  })
  run.follow()
  const peer = await run.server.peer()
  await peer.welcome()
  await peer.accept([{ id: 1 }])
  await eventually(() => expect(run.last?.status).toBe('live'))
  peer.send({ type: 'refresh', withinMs: 1 })
  await eventually(() => expect(asked).toBe(2))
  peer.cut()
  const next = await run.server.peer()
  late.resolve(tokenOf('bob'))
  expect(await next.welcome()).toBe(tokenOf('ada'))
  await next.accept([{ id: 1 }])
  await eventually(() => expect(run.last?.status).toBe('live'))
  next.send({ type: 'refresh', withinMs: 1 })
  expect(await next.closed).toBe(4000)
  expect(run.last?.rows).toEqual([])
  expect(await (await run.server.peer()).welcome()).toBe(tokenOf('bob'))
})

test('a clock that is set back does not keep a dead link for live', async () => {
  await using run = await following()
  run.follow()
  const peer = await run.server.peer()
  await peer.welcome({ heartbeatMs: 200 })
  await peer.accept([])
  await eventually(() => expect(run.client.status.name).toBe('live'))
  const now = Date.now
  const clock = vi.spyOn(Date, 'now').mockImplementation(() => now() - 3_600_000)
  try {
    await eventually(() => expect(run.client.status.name).not.toBe('live'))
  } finally {
    clock.mockRestore()
  }
})

test('a token of another user ends the connection before anything is taken for theirs', async () => {
  let release = (): void => {}
  const gate = new Promise<void>(resolve => {
    release = resolve
  })
  const inner = memoryStore()
  let isSecond = false
  const store: Store = {
    ...inner,
    keys: async prefix => {
      if (isSecond) await gate
      return inner.keys(prefix)
    },
  }
  let sub = 'ada'
  await using run = await following({ token: () => tokenOf(sub), store: storedRows(store) })
  run.follow()
  const peer = await run.server.peer()
  await peer.welcome()
  await peer.accept([{ id: 1 }])
  await eventually(() => expect(run.last?.status).toBe('live'))
  sub = 'bob'
  isSecond = true
  peer.send({ type: 'refresh', withinMs: 1 })
  expect(await peer.closed).toBe(4000)
  expect(run.last?.rows).toEqual([])
  release()
  const next = await run.server.peer()
  expect(await next.welcome()).toBe(tokenOf('bob'))
  expect(await next.accept([{ id: 2 }])).not.toHaveProperty('since')
  await eventually(() => expect(run.last).toMatchObject({ status: 'live', rows: [{ id: 2 }] }))
})
