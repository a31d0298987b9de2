import { expect, test } from 'vitest'
import { alice, startGateway, tokenOf, until } from './support/gateway.ts'
import { RawSocket } from './support/raw-socket.ts'

const told = (logged: readonly string[]): unknown[] => logged.map(line => JSON.parse(line)).map(({ code }) => code)

test('[P8] many clients that fall silent together are one line, and a number', async () => {
  await using node = await startGateway({ heartbeatMs: 50 })
  const sockets = await Promise.all(Array.from({ length: 5 }, () => RawSocket.upgrade(node, alice)))
  await Promise.all(sockets.map(socket => socket.closed))
  expect(told(node.logged)).toEqual(['HEARTBEAT_MISSED'])
  expect(node.logged[0]).toContain('silent for two heartbeats')
})

const authorization = `Authorization: Bearer ${tokenOf({ sub: 'slow' })}`
const frames = '{"frames":[{"type":"subscribe","id":1,"kind":"live","table":"messages"}]}'
test.each([
  ['a poll', `GET /v1/live/messages HTTP/1.1\r\nHost: x\r\nAccept: application/json\r\n${authorization}\r\n\r\n`],
  [
    'a poll of frames',
    `POST /v1/poll HTTP/1.1\r\nHost: x\r\nContent-Length: ${frames.length}\r\n${authorization}\r\n\r\n${frames}`,
  ],
])('[P7] an answer to %s that nobody takes is given up, and its place with it', async (_name, request) => {
  await using node = await startGateway({ slowConsumerMs: 200 })
  const { rows } = node.core.query({ kind: 'live', table: 'messages', filters: [] })
  for (let id = 0; id < 300; id += 1) rows.push({ id, body: 'x'.repeat(50_000) })
  await using raw = await RawSocket.connect(node, request)
  raw.socket.pause()
  await until(() => node.gateway.connections() === 1)
  await until(() => node.gateway.connections() === 0)
  expect(told(node.logged)).toEqual(['SLOW_CONSUMER'])
})
