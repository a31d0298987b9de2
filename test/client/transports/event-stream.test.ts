import fc from 'fast-check'
import { expect, test } from 'vitest'
import { eventsOf, openEventStream } from '../../../src/client/transports/event-stream.ts'
import type { ServerFrame } from '../../../src/protocol/messages.ts'
import { eventually } from '../../support/eventually.ts'
import { Hearing } from './hearing.ts'
import { type Asked, ScriptedRequests } from './scripted-requests.ts'

const welcome: ServerFrame = { type: 'welcome', connection: 'c', heartbeatMs: 25_000, expiresAt: null, stream: 'abc' }
const heartbeat: ServerFrame = { type: 'heartbeat', position: null, positions: {}, stale: false, lagMs: 0 }
const leave = (id: number) => ({ type: 'unsubscribe' as const, id })

async function connected(server: ScriptedRequests): Promise<{ hearing: Hearing; stream: Asked }> {
  const hearing = new Hearing(openEventStream, server.url)
  const stream = await server.next('/v1/stream')
  stream.say(welcome)
  await hearing.frame('welcome')
  return { hearing, stream }
}

const streamOf = (chunks: readonly Uint8Array[]): ReadableStream<Uint8Array> =>
  new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk)
      controller.close()
    },
  })

test('any split of the bytes gives the same events', async () => {
  const events = fc.array(fc.array(fc.string({ unit: 'grapheme' }), { minLength: 1, maxLength: 3 }), { maxLength: 6 })
  await fc.assert(
    fc.asyncProperty(events, fc.constantFrom('\n', '\r\n'), fc.array(fc.nat(12)), async (all, newline, sizes) => {
      const wanted = all.map(lines => lines.map(line => line.replace(/[\r\n]/g, '')).join('\n'))
      const blocks = wanted.map(data => [
        ': a comment',
        'event: any',
        ...data.split('\n').map(line => `data: ${line}`),
        'id: 7',
        '',
        '',
      ])
      const bytes = new TextEncoder().encode(blocks.map(lines => lines.join(newline)).join(''))
      const chunks: Uint8Array[] = []
      for (let at = 0, i = 0; at < bytes.length; i++) {
        const size = (sizes[i % Math.max(sizes.length, 1)] ?? 3) + 1
        chunks.push(bytes.slice(at, at + size))
        at += size
      }
      const seen: string[] = []
      for await (const data of eventsOf(streamOf(chunks))) seen.push(data)
      expect(seen).toEqual(wanted)
    }),
  )
})

test('a field may lack its space; what is no data is no event, and neither is one that was cut off', async () => {
  const text = 'data:a\n\n: alone\n\nretry: 5\n\ndata\n\ndatabase: x\n\ndata: b\ndata:  c\n\ndata: cut\n'
  const seen: string[] = []
  for await (const data of eventsOf(streamOf([new TextEncoder().encode(text)]))) seen.push(data)
  expect(seen).toEqual(['a', 'b\n c'])
})

test('opens with the token and no frames; what comes is handed up as it comes', async () => {
  await using server = await ScriptedRequests.start()
  using hearing = new Hearing(openEventStream, `${server.url}/base/?a=1`)
  const stream = await server.next('/base/v1/stream')
  expect([stream.token, stream.body]).toEqual(['token', { frames: [] }])
  stream.say(welcome)
  await hearing.frame('welcome')
  stream.write('data: {"type":"lat')
  stream.write('er"}\n\ndata: no JSON\n\n')
  stream.say(heartbeat)
  await hearing.frame('heartbeat')
  expect(hearing.types).toEqual(['welcome', 'later', 'heartbeat'])
  hearing.transport.close()
  expect((await server.next('/base/v1/stream/abc')).body).toEqual({ seq: 1, frames: [], close: true })
  expect(hearing.losses).toEqual([])
})

test('frames of one moment go together, one POST at a time, numbered, in order', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing } = await connected(server)
  using _ = hearing
  hearing.transport.send(leave(1))
  hearing.transport.send(leave(2))
  const first = await server.next('/v1/stream/abc')
  expect([first.token, first.body]).toEqual(['token', { seq: 1, frames: [leave(1), leave(2)] }])
  hearing.transport.send(leave(3))
  hearing.transport.send({ type: 'auth', token: 'renewed' })
  hearing.transport.send(leave(4))
  expect(server.waiting).toEqual([])
  first.answer(204, null)
  const second = await server.next('/v1/stream/abc')
  expect(second.body).toEqual({ seq: 2, frames: [leave(3), { type: 'auth', token: 'renewed' }, leave(4)] })
  second.answer(204, null)
  hearing.transport.send(leave(5))
  const third = await server.next('/v1/stream/abc')
  expect([third.token, third.body]).toEqual(['renewed', { seq: 3, frames: [leave(5)] }])
})

test('[P4] a POST whose answer was lost is tried once more under the same number, and then the connection is lost', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing, stream } = await connected(server)
  hearing.transport.send(leave(1))
  const first = await server.next('/v1/stream/abc')
  first.cut()
  const again = await server.next('/v1/stream/abc')
  expect(again.body).toEqual(first.body)
  again.answer(204, null)
  hearing.transport.send(leave(2))
  ;(await server.next('/v1/stream/abc')).cut()
  ;(await server.next('/v1/stream/abc')).cut()
  expect(await hearing.lost()).toEqual({ error: null, retry: 'now' })
  await stream.over
})

test.each([
  [401, { code: 'TOKEN_EXPIRED', message: 'expired', retry: true }, 'token'],
  [403, { code: 'ROLE_REFUSED', message: 'no', retry: false }, 'never'],
  [503, { code: 'TOO_MANY_CONNECTIONS', message: 'full', retry: true, retryAfterMs: 1200 }, 'later'],
  [503, { code: 'GOING_AWAY', message: 'goes', retry: true }, 'now'],
] as const)('[P8] a stream refused with %i and %o asks for: %s', async (status, error, retry) => {
  await using server = await ScriptedRequests.start()
  const hearing = new Hearing(openEventStream, server.url)
  ;(await server.next('/v1/stream')).answer(status, error)
  expect(await hearing.lost()).toEqual({ error, retry })
})

test('a refusal that is nobody of ours is a broken link: a proxy, a page to sign in', async () => {
  await using server = await ScriptedRequests.start()
  for (const [status, retry] of [
    [502, 'now'],
    [403, 'now'],
    [401, 'token'],
  ] as const) {
    const hearing = new Hearing(openEventStream, server.url)
    ;(await server.next('/v1/stream')).answerPage(status)
    expect(await hearing.lost()).toEqual({ error: null, retry })
  }
  const hearing = new Hearing(openEventStream, server.url)
  ;(await server.next('/v1/stream')).answerPage(200)
  expect(await hearing.lost()).toEqual({ error: null, retry: 'now' })
})

test('[P8] a stream that ends brings what the server said of all of it, not of a part', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing, stream } = await connected(server)
  const error = { code: 'REBALANCED', message: 'go', retry: true, retryAfterMs: 0 }
  stream.say({ type: 'error', ...error })
  stream.say({ type: 'error', ref: 4, code: 'TXID_INVALID', message: 'of one wait', retry: false })
  stream.say({ type: 'error', id: 4, code: 'TABLE_UNKNOWN', message: 'of one subscription', retry: false })
  stream.end()
  expect(await hearing.lost()).toEqual({ error: { type: 'error', ...error }, retry: 'now' })
})

test('[P8] frames that are refused for good end it, and the status says why', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing } = await connected(server)
  hearing.transport.send(leave(1))
  const error = { code: 'FRAME_TOO_LARGE', message: 'too large', retry: false }
  ;(await server.next('/v1/stream/abc')).answer(413, error)
  expect(await hearing.lost()).toEqual({ error, retry: 'never' })
})

test('[P8] frames for a stream that the server does not know: connect again at once', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing, stream } = await connected(server)
  hearing.transport.send(leave(1))
  const error = { code: 'STREAM_UNKNOWN', message: 'no such stream', retry: true, retryAfterMs: 700 }
  ;(await server.next('/v1/stream/abc')).answer(404, error)
  expect(await hearing.lost()).toEqual({ error, retry: 'now' })
  await stream.over
})

test('[P7] more than may wait for a way that takes nothing is a loss', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing } = await connected(server)
  hearing.transport.send(leave(0))
  await server.next('/v1/stream/abc')
  for (let id = 1; id <= 10_001; id++) hearing.transport.send(leave(id))
  expect(hearing.losses).toEqual([{ error: null, retry: 'now' }])
  await eventually(() => expect(server.waiting).toEqual([]))
})

test('a client that goes says so with what it had still to say, behind what it is saying, and waits for no answer for ever', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing, stream } = await connected(server)
  hearing.transport.send(leave(1))
  const first = await server.next('/v1/stream/abc')
  hearing.transport.send(leave(2))
  hearing.transport.close()
  hearing.transport.send(leave(3))
  first.answer(204, null)
  const last = await server.next('/v1/stream/abc')
  expect(last.body).toEqual({ seq: 2, frames: [leave(2)], close: true })
  stream.say(heartbeat)
  // It is not answered: the stream ends all the same.
  await Promise.all([stream.over, last.over])
  expect([hearing.types, hearing.losses]).toEqual([['welcome'], []])
})

test('a client that comes back only ends its stream', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing, stream } = await connected(server)
  hearing.transport.send(leave(1))
  hearing.transport.close(true)
  await stream.over
  const early = new Hearing(openEventStream, server.url)
  early.transport.close()
  // Another one goes all the way: what the first two had to say would have come before.
  const { hearing: other } = await connected(server)
  other.transport.send(leave(3))
  expect((await server.next('/v1/stream/abc')).body).toEqual({ seq: 1, frames: [leave(3)] })
  other.transport.close(true)
  expect([hearing.losses, early.losses]).toEqual([[], []])
})

test.each(['UNAVAILABLE', 'GOING_AWAY'])(
  'frames that the server cannot take yet (%s) come again under the same number',
  async code => {
    await using server = await ScriptedRequests.start()
    const { hearing } = await connected(server)
    hearing.transport.send(leave(1))
    const error = { code, message: 'not now', retry: true, retryAfterMs: 10 }
    const bodies: unknown[] = []
    for (let i = 0; i < 3; i++) {
      const asked = await server.next('/v1/stream/abc')
      bodies.push(asked.body)
      if (i < 2) asked.answer(503, error)
      else asked.answer(204, null)
    }
    expect(bodies).toEqual(bodies.map(() => ({ seq: 1, frames: [leave(1)] })))
    hearing.transport.send(leave(2))
    expect((await server.next('/v1/stream/abc')).body).toEqual({ seq: 2, frames: [leave(2)] })
    expect(hearing.losses).toEqual([])
    hearing.transport.close(true)
  },
)

test('many frames go in several POSTs, none larger than a server takes, and a heartbeat goes along', async () => {
  await using server = await ScriptedRequests.start()
  const { hearing } = await connected(server)
  const payload = 'x'.repeat(30_000)
  const sends = Array.from({ length: 7 }, (_, ref) => ({ type: 'send' as const, id: 1, ref, event: 'large', payload }))
  hearing.transport.send({ type: 'heartbeat' })
  for (const send of sends) hearing.transport.send(send)
  const taken: unknown[] = []
  for (let seq = 1; taken.length <= sends.length; seq++) {
    const asked = await server.next('/v1/stream/abc')
    expect(JSON.stringify(asked.body).length).toBeLessThan(70_000)
    expect(asked.body).toMatchObject({ seq })
    taken.push(...(asked.body as { frames: unknown[] }).frames)
    asked.answer(204, null)
  }
  expect(taken).toEqual([{ type: 'heartbeat' }, ...sends])
  hearing.transport.close(true)
})
