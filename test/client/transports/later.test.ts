import { expect, test } from 'vitest'
import { openEventStream } from '../../../src/client/transports/event-stream.ts'
import { later } from '../../../src/client/transports/later.ts'
import type { OpenTransport } from '../../../src/client/transports/transport.ts'
import { Hearing } from './hearing.ts'
import { ScriptedRequests } from './scripted-requests.ts'

test('what is fetched later speaks and leaves as the transport itself: one that comes back does not say that it goes', async () => {
  await using server = await ScriptedRequests.start()
  for (const comesBack of [true, false]) {
    const hearing = new Hearing(
      later('sse', async () => openEventStream),
      server.url,
    )
    const stream = await server.next('/v1/stream')
    stream.say({ type: 'welcome', connection: 'c', heartbeatMs: 25_000, expiresAt: null, stream: 'abc' })
    await hearing.frame('welcome')
    hearing.transport.send({ type: 'unsubscribe', id: 1 })
    const sent = await server.next('/v1/stream/abc')
    sent.answer(204, null)
    await sent.over
    hearing.transport.close(comesBack)
    if (!comesBack) expect((await server.next('/v1/stream/abc')).body).toMatchObject({ close: true })
    else await stream.over
    expect(server.waiting).toEqual([])
    expect(hearing.losses).toEqual([])
  }
})

test('code that cannot be fetched is a loss; one that was closed before is not opened', async () => {
  const missing = later('sse', () => Promise.reject(new Error('gone')))
  expect(await new Hearing(missing, 'http://127.0.0.1').lost()).toEqual({ error: null, retry: 'now' })
  const opened: string[] = []
  const open: OpenTransport = options => {
    opened.push(options.url.href)
    return openEventStream(options)
  }
  const code = Promise.withResolvers<OpenTransport>()
  const hearing = new Hearing(
    later('sse', () => code.promise),
    'http://127.0.0.1',
  )
  hearing.transport.close()
  code.resolve(open)
  await code.promise
  await Promise.resolve()
  expect([opened, hearing.losses]).toEqual([[], []])
})
