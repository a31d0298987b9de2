// Postgres away for longer than anything that is asked of it waits: a node with its clients, before, meanwhile, and after.
import { once } from 'node:events'
import { expect, test } from 'vitest'
import { WebSocket } from 'ws'
import type { ServerFrame } from '../../src/protocol/messages.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { LiveSse, person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { until } from '../support/stalled.ts'

/** Longer than a connection, a query, and a wait for one of the node's connections may take. */
const awayMs = 12_000
const heartbeatMs = 500

/** A live query over a WebSocket, with all that was ever said. */
async function follow({ url }: TestNode, token: string) {
  const socket = new WebSocket(`${url.replace('http', 'ws')}/v1/socket`, {
    headers: { authorization: `Bearer ${token}` },
  })
  const frames: ServerFrame[] = []
  socket.on('message', data => frames.push(JSON.parse(String(data))))
  await once(socket, 'open')
  socket.send(JSON.stringify({ type: 'subscribe', id: 1, kind: 'live', table: 'messages' }))
  await until(() => frames.some(frame => frame.type === 'snapshot' && frame.done))
  return { socket, frames, [Symbol.dispose]: () => socket.terminate() }
}

test('[P4] [P8] Postgres away for long: no socket closed, everybody told stale, and all go on where they stood', {
  timeout: 90_000,
}, async () => {
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const ada = person()
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'a', 'before')`)
  await using link = await FaultyLink.to(database.url)
  await using node = await TestNode.start(link.url, { HEARTBEAT_MS: String(heartbeatMs) })
  const token = await tokenFor(ada)
  using socket = await follow(node, token)
  using live = await (await LiveSse.open(node, '/v1/live/messages', token)).exact()
  const poll = async (after: string): Promise<Response> =>
    fetch(`${node.url}/v1/live/messages?wait=60&after=${encodeURIComponent(after)}`, {
      headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
    })
  const position = live.stream.lastEventId
  const polled = poll(position)
  const count = (): number => node.server.connections()
  await until(() => count() === 3)

  link.isolate()
  const answer = await polled
  expect([answer.status, answer.headers.get('tidegate-stale')]).toEqual([304, 'true'])
  await live.stream.until(({ event, data }) => event === 'heartbeat' && (data as { stale: boolean }).stale)
  await until(() => socket.frames.some(frame => frame.type === 'heartbeat' && frame.stale))
  const beats = (): number => socket.frames.filter(frame => frame.type === 'heartbeat').length
  const before = beats()
  // Heartbeats go on meanwhile, and say so.
  await until(() => beats() - before > awayMs / heartbeatMs, 3 * awayMs)
  expect(socket.frames.findLast(frame => frame.type === 'heartbeat')).toMatchObject({ stale: true })
  expect([(await fetch(`${node.url}/health`)).status, (await fetch(`${node.url}/ready`)).status]).toEqual([200, 503])
  expect((await fetch(`${node.url}/ready?scope=node`)).status).toBe(200)
  expect(count()).toBe(2)

  await database.query(`INSERT INTO messages VALUES (2, 1, 'a', 'meanwhile')`)
  const late = poll(answer.headers.get('tidegate-position')!)
  link.thaw()
  await live.stream.waitFor(() => live.rows.list().length === 2, 30_000)
  await until(() => socket.frames.some(frame => frame.type === 'delta'))
  const { events } = (await (await late).json()) as { events: { event: string }[] }
  expect(events.map(({ event }) => event)).toEqual(['delta'])
  const lastBeat = () => live.stream.events.findLast(({ event }) => event === 'heartbeat')?.data
  await live.stream.waitFor(() => (lastBeat() as { stale: boolean }).stale === false, 20_000)
  await until(async () => (await fetch(`${node.url}/ready`)).status === 200)
  expect([live.failure, live.rows.resyncs, live.stream.ended]).toEqual([null, [], false])
  expect(socket.frames.filter(frame => ['error', 'resync'].includes(frame.type))).toEqual([])
  expect(socket.socket.readyState).toBe(WebSocket.OPEN)
})
