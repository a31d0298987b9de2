import { once } from 'node:events'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { expect, test } from 'vitest'
import { startCli } from '../support/run-cli.ts'

type Answer = (response: ServerResponse) => void

/** A server that gives these answers one after the other, and remembers what it was asked. */
async function answering(...answers: readonly Answer[]) {
  const requests: IncomingMessage[] = []
  const server = createServer((request, response) => {
    requests.push(request)
    const answer = answers[requests.length - 1]
    if (answer === undefined) response.writeHead(500).end()
    else answer(response)
  })
  await once(server.listen(0, '127.0.0.1'), 'listening')
  return {
    requests,
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      await new Promise(resolve => server.close(resolve))
    },
  }
}

const stream =
  (text: string, ends: boolean): Answer =>
  response => {
    response.writeHead(200, { 'content-type': 'text/event-stream' }).write(text)
    if (ends) response.end()
  }
const refusal =
  (status: number, body: Record<string, unknown>): Answer =>
  response =>
    response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))

const snapshot =
  'event: snapshot\ndata: {"rows":[{"id":1}],"done":false}\n\n' +
  'event: snapshot\nid: p1.tag\ndata: {"rows":[{"id":2}],"done":true}\n\n'
const delta = `event: delta\nid: p2.tag\ndata: ${JSON.stringify({
  changes: [
    { op: 'insert', key: { id: 3 }, row: { id: 3, body: 'hi' } },
    { op: 'update', key: { id: 2 }, set: { body: 'ho' } },
    { op: 'delete', key: { id: 1 } },
  ],
  done: true,
  committedAt: '2026-01-01T00:00:00.000000Z',
})}\n\n`

test('tail shows rows, then what came, changed and left', async () => {
  await using server = await answering(stream(snapshot + delta, false))
  const filters = ['--filter', 'room_id=eq.1', '--filter', 'body=like.*a+b&c*', '--select', 'id,body']
  await using tail = startCli(['tail', 'messages', '--url', server.url, '--token', 'abc', ...filters])
  await tail.until(({ out }) => out.includes('- {'))
  expect(tail.out.trimEnd().split('\n')).toEqual([
    '= {"id":1}',
    '= {"id":2}',
    '= that is all; changes follow',
    '+ {"id":3,"body":"hi"}',
    '~ {"id":2} {"body":"ho"}',
    '- {"id":1}',
  ])
  const { pathname, searchParams } = new URL(server.requests[0]!.url!, server.url)
  expect(pathname).toBe('/v1/live/messages')
  expect([...searchParams]).toEqual([
    ['room_id', 'eq.1'],
    ['body', 'like.*a+b&c*'],
    ['select', 'id,body'],
  ])
  expect(server.requests[0]!.headers).toMatchObject({ authorization: 'Bearer abc', accept: 'text/event-stream' })
  tail.child.kill('SIGINT')
  expect((await tail.end()).code).toBe(0)
})

test('tail --as json gives one line for each event', async () => {
  await using server = await answering(stream(delta, false))
  await using tail = startCli(['tail', 'sales.orders', '--changes', '--as', 'json', '--url', server.url])
  await tail.until(({ out }) => out.endsWith('\n'))
  expect(JSON.parse(tail.out)).toMatchObject({ event: 'delta', id: 'p2.tag', data: { done: true } })
  expect(server.requests[0]!.url).toBe('/v1/changes/sales.orders')
})

test('[P4] tail comes back with the id of the last whole event', async () => {
  const busy = refusal(503, { code: 'BUSY', message: 'too many', retry: true, retryAfterMs: 10 })
  const cutOff = `retry: 20\n\n${snapshot}event: delta\nid: p9.tag\ndata: {"cha`
  await using server = await answering(stream(cutOff, true), busy, stream(delta, false))
  await using tail = startCli(['tail', 'messages', '--url', server.url])
  await tail.until(({ out }) => out.includes('- {"id":1}'))
  expect(server.requests.map(request => request.headers['last-event-id'])).toEqual([undefined, 'p1.tag', 'p1.tag'])
  expect(tail.err).toContain('BUSY: too many; back in')
  expect(tail.err).toContain('connected again')
})

test('[P4] after a resync tail asks for a fresh snapshot, not for the void position', async () => {
  const resync = 'event: resync\ndata: {"code":"WINDOW_PASSED","reason":"away too long"}\n\n'
  await using server = await answering(stream(snapshot + resync, true), stream(delta, false))
  await using tail = startCli(['tail', 'messages', '--url', server.url])
  await tail.until(({ out }) => out.includes('- {"id":1}'))
  expect(tail.out).toContain('! start over: away too long (WINDOW_PASSED)')
  expect(server.requests[1]!.headers['last-event-id']).toBeUndefined()
})

test.each([
  ['an answer', refusal(404, { code: 'TABLE_UNKNOWN', message: 'public.x is not there', retry: false })],
  [
    'an event',
    stream('event: error\ndata: {"code":"TABLE_UNKNOWN","message":"public.x is not there","retry":false}\n\n', false),
  ],
])('[P8] tail ends at %s that says never, with code and remedy', async (_, answer) => {
  await using server = await answering(answer)
  await using tail = startCli(['tail', 'x', '--url', server.url])
  const { code, err } = await tail.end()
  expect(code).toBe(1)
  expect(err).toContain('TABLE_UNKNOWN\n  public.x is not there\n  Remedy: Check the name')
})

test('tail ends when its only token has expired', async () => {
  await using server = await answering(refusal(401, { code: 'TOKEN_EXPIRED', message: 'expired', retry: true }))
  await using tail = startCli(['tail', 'x', '--url', server.url, '--token', 'old'])
  expect((await tail.end()).code).toBe(1)
})
