import { expect, onTestFinished, test, vi } from 'vitest'
import { openWebSocket } from '../../../src/client/transports/websocket.ts'
import type { ServerFrame } from '../../../src/protocol/messages.ts'
import { FaultyLink } from '../../support/faulty-link.ts'
import { type Peer, ScriptedServer } from '../scripted-server.ts'
import { Hearing } from './hearing.ts'

const heartbeat: ServerFrame = { type: 'heartbeat', position: null, positions: {}, stale: false, lagMs: 0 }

async function connected(server: ScriptedServer, url = server.url): Promise<{ hearing: Hearing; peer: Peer }> {
  const hearing = new Hearing(openWebSocket, url)
  const peer = await server.peer()
  expect(await peer.welcome()).toBe('token')
  await hearing.frame('welcome')
  return { hearing, peer }
}

test('the token goes first, then what is sent, in order; the frames of the server come up in order', async () => {
  await using server = await ScriptedServer.start()
  const { hearing, peer } = await connected(server)
  hearing.transport.send({ type: 'subscribe', id: 1, kind: 'live', table: 'messages' })
  hearing.transport.send({ type: 'unsubscribe', id: 1 })
  await peer.next('unsubscribe')
  expect(peer.frames.map(({ type }) => type)).toEqual(['auth', 'subscribe', 'unsubscribe'])
  peer.send(heartbeat)
  peer.send({ type: 'unsubscribed', id: 1 })
  await hearing.frame('unsubscribed')
  expect(hearing.types).toEqual(['welcome', 'heartbeat', 'unsubscribed'])
  hearing.transport.close()
  expect(await peer.closed).toBe(1000)
})

test('what is no JSON object with a type is dropped; a frame of a later server passes', async () => {
  await using server = await ScriptedServer.start()
  const { hearing, peer } = await connected(server)
  for (const text of ['', '{', 'null', '7', '"text"', '[]', '{}', '{"type":"later","x":1}']) peer.sendText(text)
  peer.sendText(Buffer.from([1, 2, 3]))
  peer.send(heartbeat)
  await hearing.frame('heartbeat')
  expect(hearing.types).toEqual(['welcome', 'later', 'heartbeat'])
})

test.each([
  [4003, 'now'],
  [4102, 'later'],
  [4209, 'never'],
  [4302, 'token'],
  [1011, 'now'],
] as const)('[P8] a close with %i asks for: %s, and brings what the server said before', async (code, retry) => {
  await using server = await ScriptedServer.start()
  const { hearing, peer } = await connected(server)
  const error = { code: 'GOING_AWAY', message: 'come again', retry: true, retryAfterMs: 20 }
  peer.send({ type: 'error', id: 3, code: 'TABLE_UNKNOWN', message: 'of one subscription', retry: false })
  peer.send({ type: 'error', ...error })
  peer.close(code)
  expect(await hearing.lost()).toEqual({ error: { type: 'error', ...error }, retry })
  hearing.transport.send({ type: 'heartbeat' })
  hearing.transport.close()
  expect(hearing.losses).toHaveLength(1)
})

test('a link that breaks says nothing, also when a renewal could not be checked long before', async () => {
  await using server = await ScriptedServer.start()
  const { hearing, peer } = await connected(server)
  peer.send({ type: 'error', code: 'UNAVAILABLE', message: 'the keys cannot be had', retry: true })
  peer.send({ type: 'authenticated', expiresAt: null })
  await hearing.frame('authenticated')
  peer.cut()
  expect(await hearing.lost()).toEqual({ error: null, retry: 'now' })
})

test('nobody there, and an address that is none: both are a loss, and nothing is thrown', async () => {
  const server = await ScriptedServer.start()
  const { url } = server
  await server[Symbol.asyncDispose]()
  expect(await new Hearing(openWebSocket, url).lost()).toEqual({ error: null, retry: 'now' })
  const hearing = new Hearing(openWebSocket, 'ftp://127.0.0.1')
  expect(hearing.losses).toEqual([])
  hearing.transport.send({ type: 'heartbeat' })
  expect(await hearing.lost()).toMatchObject({ error: { code: 'URL_INVALID' }, retry: 'never' })
  hearing.transport.close()
})

test('where there are no WebSockets, it says that others may carry', async () => {
  vi.stubGlobal('WebSocket', undefined)
  onTestFinished(() => void vi.unstubAllGlobals())
  const hearing = new Hearing(openWebSocket, 'http://127.0.0.1')
  expect(hearing.losses).toEqual([])
  expect(await hearing.lost()).toMatchObject({ error: { code: 'TRANSPORT_BLOCKED' }, retry: 'now' })
})

test('after close nothing comes up any more, and a close before it is open is no loss', async () => {
  await using server = await ScriptedServer.start()
  const { hearing, peer } = await connected(server)
  hearing.transport.close()
  peer.send(heartbeat)
  await peer.closed
  const early = new Hearing(openWebSocket, server.url)
  early.transport.close()
  // Another one comes all the way, so that what the first two had to say has been said.
  await connected(server)
  expect([hearing.types, hearing.losses, early.losses]).toEqual([['welcome'], [], []])
})

test('[P7] a link that takes nothing is taken for lost when too much waits for it', async () => {
  await using server = await ScriptedServer.start()
  await using link = await FaultyLink.to(server.url)
  const { hearing } = await connected(server, link.url)
  link.freeze()
  const payload = 'x'.repeat(1024 * 1024)
  for (let i = 0; i < 40 && hearing.losses.length === 0; i++)
    hearing.transport.send({ type: 'send', id: 1, event: 'large', payload })
  expect(await hearing.lost()).toEqual({ error: null, retry: 'now' })
})

test('the base path is kept, a query and a fragment are not', async () => {
  await using server = await ScriptedServer.start({ path: '/base/v1/socket' })
  await connected(server, `${server.url}/base/?a=1#b`)
})
