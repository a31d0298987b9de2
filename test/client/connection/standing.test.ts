// What the client says of itself, by a server that says what the test tells it to.
import { createServer } from 'node:net'
import { expect, test } from 'vitest'
import { createClient, type Status } from '../../../src/client/client.ts'
import { eventually } from '../../support/eventually.ts'
import { at, ScriptedServer } from '../scripted-server.ts'

async function follow(options: { transports?: ['websocket'] } = { transports: ['websocket'] }) {
  const server = await ScriptedServer.start()
  const client = createClient(server.url, { token: 'token', ...options })
  const said: Status[] = [client.status]
  client.onStatus(status => said.push(status))
  return {
    server,
    client,
    said,
    names: () => said.map(({ name }) => name),
    async [Symbol.asyncDispose]() {
      client.close()
      await server[Symbol.asyncDispose]()
    },
  }
}

test('from idle to live, away and back: told at each step, and the same object in between', async () => {
  await using run = await follow()
  const stop = run.client
    .from('messages')
    .live()
    .subscribe(() => {})
  const peer = await run.server.peer()
  await peer.welcome()
  await eventually(() => expect(run.client.status).toEqual({ name: 'catching up', transport: 'websocket' }))
  await peer.accept([{ id: 1 }])
  await eventually(() => expect(run.client.status).toEqual({ name: 'live', transport: 'websocket', stale: false }))
  const before = run.client.status
  peer.delta(2, [{ op: 'insert', key: { id: 2 }, row: { id: 2 } }])
  peer.send({ type: 'heartbeat', position: at(2), positions: {}, stale: true, lagMs: 5000 })
  await eventually(() => expect(run.client.status).toEqual({ ...before, stale: true }))
  expect(run.names()).toEqual(['idle', 'connecting', 'catching up', 'live', 'live'])
  peer.cut()
  await eventually(() => expect(run.client.status.name).toBe('offline'))
  expect(run.client.status).toMatchObject({ error: { code: 'CONNECTION_LOST' } })
  const again = await run.server.peer()
  await again.welcome()
  await eventually(() => expect(run.client.status.name).toBe('catching up'))
  await again.accept([{ id: 1 }])
  await eventually(() => expect(run.client.status.name).toBe('live'))
  stop()
  run.client.close()
  expect(run.client.status).toEqual({ name: 'closed' })
})

test('[P4] one that came back is live only when the server has said that it has what it missed', async () => {
  await using run = await follow()
  run.client
    .from('messages')
    .live()
    .subscribe(() => {})
  const peer = await run.server.peer()
  await peer.welcome()
  await peer.accept([{ id: 1 }])
  await eventually(() => expect(run.client.status.name).toBe('live'))
  let held = 0
  run.client
    .from('messages')
    .live()
    .subscribe(({ rows }) => {
      held = rows.length
    })
  peer.cut()
  const again = await run.server.peer()
  await again.welcome()
  const { id } = await again.next('subscribe')
  again.send({ type: 'subscribed', id, query: 7, tag: 'tag', key: ['id'], resumed: true, position: at(1) })
  again.delta(2, [{ op: 'insert', key: { id: 2 }, row: { id: 2 } }])
  await eventually(() => expect(held).toBe(2))
  expect(run.client.status.name).toBe('catching up')
  again.send({ type: 'heartbeat', position: at(3), positions: { [id]: `${at(3)}.tag` }, stale: false, lagMs: 0 })
  await eventually(() => expect(run.client.status.name).toBe('live'))
})

test('[P8] a server that refuses for good ends it with the code and what to do', async () => {
  await using run = await follow()
  run.client
    .from('messages')
    .live()
    .subscribe(() => {})
  const peer = await run.server.peer()
  await peer.next('auth')
  peer.send({ type: 'error', code: 'ROLE_REFUSED', message: 'role x is not in JWT_ROLES', retry: false })
  peer.close(4201)
  const error = { code: 'ROLE_REFUSED', message: 'role x is not in JWT_ROLES' }
  await eventually(() => expect(run.client.status).toEqual({ name: 'refused', error }))
})

test('where no WebSocket comes about, the next transport is tried and the reason kept', async () => {
  // Takes connections, and answers nothing.
  const held = createServer(() => {}).listen(0, '127.0.0.1')
  await new Promise(resolve => held.once('listening', resolve))
  const { port } = held.address() as { port: number }
  held.on('connection', socket => setTimeout(() => socket.destroy(), 10))
  const client = createClient(`http://127.0.0.1:${port}`, { token: 't', transports: ['websocket', 'sse'] })
  const said: Status[] = []
  client.onStatus(status => said.push(status))
  client
    .from('messages')
    .live()
    .subscribe(() => {})
  await eventually(() => expect(said.filter(({ name }) => name === 'offline').length).toBeGreaterThan(3))
  expect(said.every(({ name }) => name === 'connecting' || name === 'offline')).toBe(true)
  client.close()
  held.close()
})

test('logging out ends what was, forgets the token, and the next user begins anew', async () => {
  await using server = await ScriptedServer.start()
  let user = 'ana'
  const client = createClient(server.url, { token: () => user, transports: ['websocket'] })
  const seen: string[] = []
  client
    .from('messages')
    .live()
    .subscribe(({ status, rows }) => seen.push(`${status} ${rows.length}`))
  const peer = await server.peer()
  expect(await peer.welcome()).toBe('ana')
  await peer.accept([{ id: 1 }])
  await eventually(() => expect(seen.at(-1)).toBe('live 1'))
  const waiting = expect(client.waitFor('735')).rejects.toMatchObject({ code: 'CLIENT_CLOSED' })
  await client.logout()
  await waiting
  expect(seen.at(-1)).toBe('closed 0')
  expect(client.status).toEqual({ name: 'idle' })
  user = 'ben'
  client
    .from('messages')
    .live()
    .subscribe(() => {})
  const second = await server.peer()
  expect(await second.welcome()).toBe('ben')
  expect(await second.next('subscribe')).not.toHaveProperty('since')
  client.close()
})

test('waiting for a transaction ends when every query stands at its commit', async () => {
  await using run = await follow()
  const tables = ['messages', 'members']
  for (const table of tables)
    run.client
      .from(table)
      .live()
      .subscribe(() => {})
  const done: string[] = []
  const waiting = run.client.waitFor(735n).then(() => done.push('735'))
  const lost = await run.server.peer()
  await lost.welcome()
  await lost.next('wait')
  lost.cut()
  const peer = await run.server.peer()
  await peer.welcome()
  const first = await peer.accept([{ id: 1 }], { query: 7 })
  const second = await peer.accept([{ id: 1 }], { query: 8 })
  expect(await peer.next('wait')).toEqual({ type: 'wait', ref: 1, txid: '735' })
  const position = at(5)
  const heartbeat = { type: 'heartbeat', position, stale: false, lagMs: 0 } as const
  peer.send({ ...heartbeat, positions: { [first.id]: `${at(5)}.tag`, [second.id]: `${at(4)}.tag` } })
  peer.send({ type: 'waited', ref: 1, position })
  await eventually(() => expect(run.client.status.name).toBe('live'))
  expect(done).toEqual([])
  peer.delta(5, [{ op: 'insert', key: { id: 2 }, row: { id: 2 } }], 8)
  await waiting
  await expect(run.client.waitFor('7', { timeoutMs: 20 })).rejects.toMatchObject({ code: 'WAIT_TIMEOUT' })
  const refused = run.client.waitFor('1')
  const { ref } = await peer.next('wait').then(() => peer.next('wait'))
  peer.send({ type: 'error', ref, code: 'TXID_INVALID', message: '"1" is no transaction id', retry: false })
  await expect(refused).rejects.toMatchObject({ code: 'TXID_INVALID' })
})
