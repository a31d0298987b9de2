import { expect, test } from 'vitest'
import { alice, bob, startGateway, TestSocket } from './support/gateway.ts'

test('one encoding serves a whole audience: the frames of two clients are equal, byte for byte', async () => {
  await using node = await startGateway()
  await using first = await TestSocket.open(node, alice)
  await using second = await TestSocket.open(node, bob)
  await first.subscribe(1, 'messages')
  await second.subscribe(22, 'messages')
  node.core.insert('messages', 1)
  expect(await first.frame('delta')).toEqual(await second.frame('delta'))
  const [entry] = node.core.query({ kind: 'live', table: 'messages', filters: [] }).log
  expect(entry!.outgoing.websocketFrame).toBeInstanceOf(Buffer)
})

test('the first frame may bring the token, and frames sent right after it wait for the answer', async () => {
  await using node = await startGateway()
  await using socket = await TestSocket.open(node, null)
  socket.send({ type: 'heartbeat' })
  socket.send({ type: 'auth', token: alice })
  await socket.subscribe(1, 'messages')
  expect(socket.frames.map(frame => frame.type).slice(0, 2)).toEqual(['welcome', 'subscribed'])
})
