// What sessions do in channels, over a WebSocket and over an event stream with POSTs.
import { describe, expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { serverFrameSchema } from '../../../src/server/deliver/frame-schema.ts'
import { TestFrameStream } from './support/frame-stream.ts'
import { bob, startGateway, TestSocket, tokenOf, until } from './support/gateway.ts'
import { historyEpoch } from './support/memory-door.ts'

const room = { topic: 'room:42', isPrivate: true }

const send = (payload: string) => ({
  event: 'e',
  payload,
  isBinary: false,
  to: null,
  idempotencyKey: null,
  after: null,
})

describe.each([
  ['a WebSocket', TestSocket],
  ['an event stream', TestFrameStream],
])('over %s', (_wire, Client) => {
  test('a member is told that it is in, then what others send, in frames that say the channel and not who receives them', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await using ben = await Client.open(node, bob)
    const joined = await ada.join(1, 'room:42')
    await ben.join(9, 'room:42')
    expect(joined).toMatchObject({ id: 1, channel: 1, resumed: false, history: false, maySend: true })
    ben.send({ type: 'send', id: 9, ref: 4, event: 'typing', payload: { on: true } })
    const sent = await ben.frame('sent')
    const message = await ada.frame('message')
    expect(sent).toMatchObject({ id: 9, ref: 4, message: message.id, position: `${historyEpoch}-1` })
    const { connection } = await ben.frame('welcome')
    expect(message).toMatchObject({
      channel: 1,
      event: 'typing',
      payload: { on: true },
      sender: { user: 'bob', connection },
    })
    expect(ben.of('message')).toEqual([])
    for (const frame of [...ada.frames, ...ben.frames]) expect(serverFrameSchema.parse(frame)).toEqual(frame)
  })

  test('a channel and a query of one number are told apart', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    const subscribed = await ada.subscribe(1, 'messages')
    const joined = await ada.join(2, 'room:42')
    expect(joined.channel).toBe(subscribed.query)
    await node.door.publish(
      { principal: { role: 'a', claims: {}, expiresAt: null }, connection: null },
      room,
      send('1'),
    )
    node.core.insert('messages', 7)
    expect(await ada.frame('message')).toMatchObject({ channel: 1, sender: null })
    expect(await ada.frame('delta')).toMatchObject({ query: 1 })
  })

  test('bytes go as base64, to whom they are for, under a key and behind a transaction', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await ada.join(1, 'room:42', { self: true, private: false })
    const to = { user: 'bob' }
    ada.send({ type: 'send', id: 1, ref: 1, event: 'ice', binary: 'AAEC', to, idempotencyKey: 'k', after: '735' })
    expect(await ada.frame('message')).toMatchObject({ binary: 'AAEC', to })
    expect(node.door.joined[0]!.request).toMatchObject({ self: true, channel: { topic: 'room:42', isPrivate: false } })
    ada.send({ type: 'send', id: 1, ref: 2, event: 'ice', binary: 'AAEC', to, idempotencyKey: 'k' })
    expect(await ada.frame('sent', frame => frame.ref === 2)).toMatchObject({
      duplicate: true,
      position: `${historyEpoch}-1`,
    })
  })

  test('a refused send leaves the member where it is, and says under which ref, null where there was none', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await ada.join(1, 'room:42')
    const large = 'x'.repeat(2000)
    ada.send({ type: 'send', id: 1, ref: 7, event: 'e', payload: large })
    ada.send({ type: 'send', id: 1, event: 'e', payload: large })
    ada.send({ type: 'send', id: 1, ref: 8, event: 'e', after: '0' })
    ada.send({ type: 'track', id: 1, ref: 9, meta: large })
    ada.send({ type: 'send', id: 1, ref: 10, event: 'e', payload: 1, binary: 'AAAA' })
    ada.send({ type: 'send', id: 1, ref: 11, event: 'e', payload: 1 })
    await ada.frame('sent', frame => frame.ref === 11)
    expect(ada.of('error').map(({ id, ref, code }) => [id, ref, code])).toEqual(
      expect.arrayContaining([
        [1, 7, 'PAYLOAD_TOO_LARGE'],
        [1, null, 'PAYLOAD_TOO_LARGE'],
        [1, 8, 'TXID_INVALID'],
        [1, 9, 'PAYLOAD_TOO_LARGE'],
        [1, 10, 'BAD_FRAME'],
      ]),
    )
    expect(node.door.of('room:42')).toHaveLength(1)
  })

  test('whoever is in no channel under an id is told so: never joined, refused, left, or a query', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await ada.subscribe(1, 'messages')
    ada.send({ type: 'send', id: 1, ref: 1, event: 'e' })
    ada.send({ type: 'track', id: 2, ref: 2, meta: {} })
    ada.send({ type: 'join', id: 3, topic: 'x:1' })
    ada.send({ type: 'untrack', id: 3, ref: 3 })
    await ada.frame('error', frame => frame.ref === 3)
    expect(ada.of('error').map(({ id, ref, code }) => [id, ref, code])).toEqual([
      [1, 1, 'NOT_JOINED'],
      [2, 2, 'NOT_JOINED'],
      [3, undefined, 'CHANNEL_REFUSED'],
      [3, 3, 'NOT_JOINED'],
    ])
  })

  test('one connection is in a channel once; another topic, and the public one of the same name, are others', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await ada.join(1, 'room:42')
    ada.send({ type: 'join', id: 2, topic: 'room:42' })
    expect(await ada.frame('error')).toMatchObject({ id: 2, code: 'ALREADY_SUBSCRIBED' })
    expect(node.door.joined).toHaveLength(1)
    await ada.join(3, 'room:42', { private: false })
    await ada.join(4, 'room:43')
  })

  test('what is asked goes in order without waiting for answers: join, send, send, leave, join again', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    ada.send({ type: 'join', id: 1, topic: 'room:42' })
    ada.send({ type: 'send', id: 1, ref: 1, event: 'e', payload: 'first' })
    ada.send({ type: 'send', id: 1, ref: 2, event: 'e', payload: 'second' })
    ada.send({ type: 'unsubscribe', id: 1 })
    ada.send({ type: 'join', id: 1, topic: 'room:42' })
    ada.send({ type: 'track', id: 1, ref: 3, meta: { name: 'ada' } })
    await ada.frame('tracked')
    expect(node.door.log).toEqual([
      'join room:42',
      'send room:42 "first"',
      'send room:42 "second"',
      'close room:42 gone',
      'join room:42',
      'track room:42 {"name":"ada"}',
    ])
    const told = ada.frames.map(({ type }) => type).filter(type => type !== 'welcome')
    expect(told.filter(type => type !== 'joined')).toEqual(['sent', 'sent', 'unsubscribed', 'tracked'])
    expect(told.indexOf('unsubscribed')).toBeLessThan(told.lastIndexOf('joined'))
  })

  test('sends of one channel wait for each other, in order; another channel does not wait for them', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await ada.join(1, 'slow:1')
    await ada.join(2, 'room:42')
    let open: (value?: unknown) => void = () => {}
    node.door.gate = new Promise(resolve => {
      open = () => resolve()
    })
    for (const ref of [1, 2, 3]) ada.send({ type: 'send', id: 1, ref, event: 'e', payload: ref })
    ada.send({ type: 'send', id: 2, ref: 4, event: 'e', payload: 4 })
    await ada.frame('sent', frame => frame.ref === 4)
    expect(ada.of('sent')).toHaveLength(1)
    open()
    await ada.frame('sent', frame => frame.ref === 3)
    expect(ada.of('sent').map(({ ref }) => ref)).toEqual([4, 1, 2, 3])
    expect(node.door.log.slice(2)).toEqual(['send room:42 4', 'send slow:1 1', 'send slow:1 2', 'send slow:1 3'])
  })

  test('[P7] sends past the limit of frames are delayed, not refused; other frames past it still close', async () => {
    await using node = await startGateway({ framesPerSecond: 200, frameBurst: 20 })
    await using ada = await Client.open(node)
    await ada.join(1, 'room:42')
    const startedAt = performance.now()
    for (let ref = 0; ref < 120; ref++) ada.send({ type: 'send', id: 1, ref, event: 'e', payload: 'x'.repeat(900) })
    await ada.frame('sent', frame => frame.ref === 119)
    // A hundred more than the burst, at 200 a second; the last read of the socket is not waited for.
    expect(performance.now() - startedAt).toBeGreaterThan(150)
    expect(ada.of('error')).toEqual([])
    for (let count = 0; count < 60; count++) ada.send({ type: 'heartbeat' })
    expect(await ada.frame('error')).toMatchObject({ code: 'RATE_LIMITED' })
  })

  test('a node that leaves breaks its members off, who come back elsewhere; one that has expired too', async () => {
    const node = await startGateway()
    await using ada = await Client.open(node)
    await ada.join(1, 'room:42')
    await node.gateway.drain({ spreadMs: 0, timeoutMs: 1000 })
    expect(node.door.log.at(-1)).toBe('close room:42 broken')
    await using other = await startGateway()
    await using expired = await Client.open(other, tokenOf({ sub: 'alice', exp: Date.now() / 1000 + 1.5 }))
    expired.send({ type: 'join', id: 1, topic: 'room:42' })
    await expired.closed
    await until(() => other.door.members.size === 0)
    expect(other.door.log.at(-1)).toBe('close room:42 broken')
  })

  test('a channel that ends is told by its id, and the connection stays', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await ada.join(1, 'room:42')
    node.door.of('room:42')[0]!.end(new TidegateError('CHANNEL_CLOSED', 'you may not be in room:42 any more'))
    const error = await ada.frame('error')
    expect(error).toMatchObject({ id: 1, code: 'CHANNEL_CLOSED', retry: false })
    expect('ref' in error).toBe(false)
    await ada.join(1, 'room:42')
  })

  test('[P4] a renewal with other claims joins a channel anew from where it stands, there as it was, losing and repeating nothing', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await using ben = await Client.open(node, bob)
    await ben.join(1, 'h:1')
    await ada.join(1, 'h:1', { last: 5 })
    ada.send({ type: 'track', id: 1, meta: { name: 'ada' } })
    ada.send({ type: 'track', id: 1, ref: 1, meta: 'x'.repeat(200) })
    await ada.frame('error', frame => frame.ref === 1)
    for (let ref = 0; ref < 100; ref++) {
      ben.send({ type: 'send', id: 1, ref, event: 'e', payload: ref })
      if (ref === 50) ada.send({ type: 'auth', token: tokenOf({ sub: 'alice', org: 2 }) })
    }
    await ben.frame('sent', frame => frame.ref === 99)
    await ada.frame('message', frame => frame.payload === 99)
    await ada.frame('joined', frame => frame.resumed)
    expect(ada.of('message').map(({ payload }) => payload)).toEqual(Array.from({ length: 100 }, (_, ref) => ref))
    expect(ada.of('joined').map(({ resumed }) => resumed)).toEqual([false, true])
    const [, again] = node.door.joined.filter(({ caller }) => caller.principal.claims.sub === 'alice')
    expect(again!.caller.principal.claims.org).toBe(2)
    expect(again!.request).toMatchObject({ last: 5, track: { meta: '{"name":"ada"}' } })
    expect(node.door.log).toContain('close h:1 broken')
  })

  test('a heartbeat says what each channel may resume from, and only queries count for the lowest position', async () => {
    await using node = await startGateway({ heartbeatMs: 60 })
    await using ada = await Client.open(node)
    await ada.subscribe(1, 'messages')
    await ada.join(2, 'h:1')
    await ada.join(3, 'room:42')
    ada.send({ type: 'send', id: 2, event: 'e', payload: 1 })
    const beat = await ada.frame('heartbeat', ({ positions }) => positions[2] === `${historyEpoch}-1.t1`)
    expect(beat.positions[3]).toBe('1f2e3d4c-1000-0.t2')
    expect(beat.position).toBe('1f2e3d4c-1000')
  })

  test('[P4] whoever comes back to a channel gets what it missed, or is told what is lost', async () => {
    await using node = await startGateway()
    await using ada = await Client.open(node)
    await ada.join(1, 'h:1', { self: true })
    await ada.join(2, 'room:42')
    for (const payload of [1, 2]) ada.send({ type: 'send', id: 1, ref: payload, event: 'e', payload })
    ada.send({ type: 'send', id: 2, ref: 3, event: 'e', payload: 3 })
    await ada.frame('sent', frame => frame.ref === 3)
    await using again = await Client.open(node)
    expect(await again.join(1, 'h:1', { since: `${historyEpoch}-1.t1` })).toMatchObject({
      resumed: true,
      history: true,
    })
    expect(await again.frame('message')).toMatchObject({ payload: 2, position: `${historyEpoch}-2` })
    await again.join(2, 'room:42', { since: '1f2e3d4c-1000-0.t2' })
    expect(await again.frame('gap')).toMatchObject({ channel: 2, code: 'MESSAGES_LOST', missed: 1 })
    again.send({ type: 'join', id: 3, topic: 'h:3', since: 'there' })
    expect(await again.frame('error')).toMatchObject({ id: 3, code: 'POSITION_INVALID' })
  })

  test('without channels, whoever asks for one is told so, and everything else goes on', async () => {
    await using node = await startGateway({}, { channels: null })
    await using ada = await Client.open(node)
    ada.send({ type: 'join', id: 1, topic: 'room:42' })
    expect(await ada.frame('error')).toMatchObject({ id: 1, code: 'CHANNELS_OFF' })
    await ada.subscribe(1, 'messages')
  })
})
