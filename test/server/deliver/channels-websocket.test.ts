import { expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { alice, startGateway, TestSocket, until } from './support/gateway.ts'
import { clientFrame, RawSocket } from './support/raw-socket.ts'

const room = { topic: 'room:42', isPrivate: true }
/** Lets what is under way on this machine happen. */
const aMoment = () => new Promise(resolve => setTimeout(resolve, 30))

const send = (payload: string) => ({
  event: 'e',
  payload,
  isBinary: false,
  to: null,
  idempotencyKey: null,
  after: null,
})

test('[P7] while a channel takes no sends, 64 of them wait and the socket is not read; then all go, and nobody was closed', async () => {
  await using node = await startGateway({ framesPerSecond: 1e6, frameBurst: 1e6 })
  await using ada = await TestSocket.open(node)
  await ada.join(1, 'slow:1')
  let open: (value?: unknown) => void = () => {}
  node.door.gate = new Promise(resolve => {
    open = () => resolve()
  })
  const padding = 'x'.repeat(900)
  const count = 20_000
  for (let ref = 0; ref < count; ref++) ada.send({ type: 'send', id: 1, ref, event: 'e', payload: padding })
  // The socket is full to the client's own buffer: nothing of it is read any more.
  await until(() => ada.ws.bufferedAmount > 1_000_000)
  let waiting = Number.NaN
  while (ada.ws.bufferedAmount !== waiting) {
    waiting = ada.ws.bufferedAmount
    await aMoment()
    await aMoment()
  }
  expect(waiting).toBeGreaterThan((count * 900) / 2)
  open()
  await ada.frame('sent', frame => frame.ref === count - 1)
  expect(ada.of('sent').map(({ ref }) => ref)).toEqual(Array.from({ length: count }, (_, ref) => ref))
})

test('a member is gone where its client says so by a close frame of 1000, and broken where the socket goes away', async () => {
  await using node = await startGateway()
  const close = async (end: (socket: TestSocket) => void): Promise<string | undefined> => {
    const socket = await TestSocket.open(node)
    await socket.join(1, 'room:42')
    end(socket)
    await socket.closed
    await until(() => node.door.members.size === 0)
    return node.door.log.at(-1)
  }
  expect(await close(socket => socket.ws.close(1000))).toBe('close room:42 gone')
  expect(await close(socket => socket.ws.close(1001))).toBe('close room:42 broken')
  expect(await close(socket => socket.ws.close())).toBe('close room:42 broken')
  expect(await close(socket => socket.ws.terminate())).toBe('close room:42 broken')
  expect(await close(socket => socket.ws.send('{'))).toBe('close room:42 gone')
})

test('what was asked before the connection ended is done first', async () => {
  await using node = await startGateway()
  await using ada = await TestSocket.open(node)
  await ada.join(1, 'slow:1')
  for (const payload of [1, 2]) ada.send({ type: 'send', id: 1, event: 'e', payload })
  ada.ws.close(1000)
  await ada.closed
  await until(() => node.door.members.size === 0)
  expect(node.door.log).toEqual(['join slow:1', 'send slow:1 1', 'send slow:1 2', 'close slow:1 gone'])
})

test('[P3] of a channel that closes, what waits behind a slow socket is never sent', async () => {
  await using node = await startGateway({ sendQueueBytes: 64 * 1024 * 1024 })
  await using raw = await RawSocket.upgrade(node, alice)
  raw.socket.write(clientFrame(JSON.stringify({ type: 'join', id: 1, topic: 'room:42' })))
  await raw.until(text => text.includes('"joined"'))
  raw.socket.pause()
  const caller = { principal: { role: 'a', claims: {}, expiresAt: null }, connection: null }
  node.door.maxPayload = 100_000
  const padding = JSON.stringify('x'.repeat(60_000))
  // More than the kernel takes, a turn each.
  for (let round = 0; round < 400; round++) {
    await node.door.publish(caller, room, send(padding))
    await new Promise(resolve => setImmediate(resolve))
  }
  for (let count = 0; count < 50; count++) await node.door.publish(caller, room, send('"secret"'))
  await aMoment()
  node.door.of('room:42')[0]!.end(new TidegateError('CHANNEL_CLOSED', 'no more'))
  raw.socket.resume()
  await raw.until(text => text.endsWith('"retry":false}'))
  expect(raw.text.includes('"secret"')).toBe(false)
  const told = raw.text.match(/"type":"message"/g)?.length ?? 0
  expect(told).toBeGreaterThan(0)
  expect(told).toBeLessThan(400)
})
