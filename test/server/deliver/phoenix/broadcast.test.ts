// Broadcasts on Supabase's wire, as its clients write and read them.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { Json, MessageEvent } from '../../../../src/protocol/messages.ts'
import { messageJson } from '../../../../src/server/channels/event-json.ts'
import type { Draft } from '../../../../src/server/channels/message.ts'
import { broadcastFrameOf, sendFrameOf, sentAtMsOf } from '../../../../src/server/deliver/phoenix/broadcast.ts'
import { parseIncoming } from '../../../../src/server/deliver/phoenix/serializer.ts'
import type { BinaryPayload } from '../../../../src/server/deliver/phoenix/wire.ts'
import { Outgoing } from '../../../../src/server/subscribe/subscription.ts'
import { codecs } from './support/clients.ts'
import { fedKinds, fedTopic } from './support/fed-clients.ts'

const topic = `realtime:${fedTopic}`
const ids = { id: 1, ref: 7 }
const id = '0b1f6a4e-7c1f-4a6e-9d52-0e5a3a6f0b1c'

const outgoingOf = (draft: Partial<Draft>): Outgoing =>
  new Outgoing(
    'message',
    messageJson({
      channel: { topic: fedTopic, isPrivate: true },
      id,
      event: 'shout',
      payload: '{}',
      isBinary: false,
      sender: { user: 'ann', connection: 'c1' },
      sentAtMs: 1_700_000_000_123,
      to: null,
      stamp: { epoch: '', lsn: 0n },
      walIndex: null,
      ...draft,
    }),
    null,
  )

const bytesOf = (bytes: Uint8Array, userEvent: string | null, isJson: boolean): BinaryPayload => ({
  bytes,
  userEvent,
  isJson,
})

describe('a push of a broadcast', () => {
  test.each<[string, Json | BinaryPayload, object]>([
    [
      'as text',
      { type: 'broadcast', event: 'shout', payload: { a: [1, null] } },
      { event: 'shout', payload: { a: [1, null] } },
    ],
    ['as text without a payload', { type: 'broadcast', event: 'shout' }, { event: 'shout', payload: {} }],
    ['as text with the payload null', { event: 'shout', payload: null }, { event: 'shout', payload: null }],
    [
      'as JSON in a binary frame',
      bytesOf(Buffer.from('{"a":"ü"}'), 'shout', true),
      { event: 'shout', payload: { a: 'ü' } },
    ],
    ['as bytes', bytesOf(Uint8Array.of(0, 255, 10), 'shout', false), { event: 'shout', binary: 'AP8K' }],
    ['as no bytes', bytesOf(new Uint8Array(0), 'shout', false), { event: 'shout', binary: '' }],
    ['as bytes that name no event', bytesOf(Uint8Array.of(7), null, false), { event: 'broadcast', binary: 'Bw==' }],
  ])('%s is a message of the channel', (_, payload, message) => {
    expect(sendFrameOf(payload, ids, true)).toEqual({ type: 'send', ...ids, ...message })
  })

  test('that are a part of a longer buffer are that part', () => {
    const bytes = Buffer.from('..abc..').subarray(2, 5)
    expect(sendFrameOf(bytesOf(bytes, 'e', false), ids, true).binary).toBe(Buffer.from('abc').toString('base64'))
  })

  test.each<[string, Json | BinaryPayload]>([
    ['a text', 'shout'],
    ['a list', [{ event: 'shout' }]],
    ['null', null],
    ['no event', { payload: {} }],
    ['an empty event', { event: '', payload: {} }],
    ['an event that is no text', { event: 7, payload: {} }],
    ['an event of 256 characters', { event: 'x'.repeat(256), payload: {} }],
    ['bytes that are no JSON, said to be', bytesOf(Buffer.from('{'), 'shout', true)],
    ['a number that no double holds', bytesOf(Buffer.from('1e999'), 'shout', true)],
    ['what is nested too deep', JSON.parse(`{"event":"e","payload":${'['.repeat(80)}${']'.repeat(80)}}`)],
  ])('with %s is refused', (_, payload) => {
    expect(() => sendFrameOf(payload, ids, true)).toThrow(expect.objectContaining({ code: 'BAD_FRAME' }))
  })

  test('a map that has a name `bytes` is a map', () => {
    expect(sendFrameOf({ event: 'e', payload: { bytes: [1] } }, ids, true).payload).toEqual({ bytes: [1] })
    expect(() => sendFrameOf({ bytes: 'x', userEvent: 'e', isJson: false }, ids, true)).toThrow(/no broadcast/)
  })
})

describe('a broadcast that is to be stored', () => {
  const pushes = codecs.map(codec => [`${codec.name}, ${codec.vsn}`, codec] as const)
  test.each(pushes)('%s: is refused where nothing is kept, and a message like any other where it is', (_, codec) => {
    for (const persist of [true, { ttl: 60 }]) {
      const payload = { type: 'broadcast', event: 'e', payload: { a: 1 }, persist }
      const { data, isBinary } = codec.encode({ topic, event: 'broadcast', payload, ref: '7', join_ref: '1' })
      // The client of a year ago knows no such thing, and leaves it out of what it writes.
      const isSaid = !(isBinary && codec.name.endsWith('2025'))
      const pushed = parseIncoming(data, isBinary, codec.vsn).payload
      const message = { type: 'send', ...ids, event: 'e', payload: { a: 1 } }
      expect(sendFrameOf(pushed, ids, true)).toEqual(message)
      if (isSaid)
        expect(() => sendFrameOf(pushed, ids, false)).toThrow(expect.objectContaining({ code: 'HISTORY_OFF' }))
      else expect(sendFrameOf(pushed, ids, false)).toEqual(message)
    }
  })
})

test.each(codecs.map(codec => [`${codec.name}, ${codec.vsn}`, codec] as const))(
  '%s: what it pushes arrives as it was sent',
  (_, codec) => {
    fc.assert(
      fc.property(
        fc.string({ minLength: 1, maxLength: 60 }),
        fc.dictionary(fc.string(), fc.jsonValue()),
        (event, sent) => {
          fc.pre(/^[\x20-\x7e]+$/.test(event))
          const payload = JSON.parse(JSON.stringify(sent)) as Json
          const pushed = {
            topic,
            event: 'broadcast',
            payload: { type: 'broadcast', event, payload },
            ref: '7',
            join_ref: '1',
          }
          const { data, isBinary } = codec.encode(pushed)
          const frame = sendFrameOf(parseIncoming(data, isBinary, codec.vsn).payload, ids, true)
          expect(frame).toEqual({ type: 'send', ...ids, event, payload })
        },
      ),
    )
  },
)

/** Texts that look like what is cut by. */
const treacherous = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.constantFrom(
    ',"sentAt":"2020-01-01T00:00:00.000Z"',
    '","sentAt":"x","to":{"user":"y"}}',
    ',"sender":null',
    '"},"sender":{"user":"eve","connection":null},"sentAt":"',
    '\\',
    '\\"',
    '{"id":"',
    ',"binary":"',
  ),
)
const payloads = fc.oneof(
  treacherous,
  fc.dictionary(fc.oneof(treacherous, fc.constantFrom('sender', 'sentAt', 'to', 'payload', 'binary')), treacherous),
  fc.jsonValue(),
  fc.constant({ sender: null, sentAt: 'x', to: { user: 'y' } }),
)
const drafts = fc.record({
  event: fc.oneof(
    treacherous.filter(text => text !== '' && text.length < 200),
    fc.constant('shout'),
  ),
  content: fc.oneof(
    payloads.map(value => ({ payload: JSON.stringify(value), isBinary: false })),
    // As the database writes its JSON.
    payloads.map(value => ({ payload: JSON.stringify(value, null, 1).replaceAll('\n', ''), isBinary: false })),
    fc.uint8Array().map(bytes => ({ payload: JSON.stringify(Buffer.from(bytes).toString('base64')), isBinary: true })),
  ),
  sender: fc.record({ user: fc.option(treacherous), connection: fc.option(fc.string()) }),
  sentAtMs: fc.integer({ min: 0, max: 4e12 }),
  to: fc.option(fc.oneof(fc.record({ user: treacherous }), fc.record({ connection: treacherous }))),
})

describe.each(fedKinds.map(kind => [`${kind.name}, ${kind.vsn}`, kind] as const))('%s', (_, kind) => {
  test('is told of every message what it is, who sent it, and whether it is from before', async () => {
    const client = await kind.join()
    const reads4 = kind.name !== 'phoenix' && kind.vsn === '2.0.0'
    fc.assert(
      fc.property(drafts, fc.boolean(), ({ content, ...draft }, isReplayed) => {
        const outgoing = outgoingOf({ ...draft, ...content })
        const message = JSON.parse(outgoing.json) as MessageEvent
        // Its package knows no kind 4.
        fc.pre(kind.name !== 'phoenix' || !content.isBinary)
        client.broadcasts.length = 0
        client.feed(broadcastFrameOf(outgoing, kind.vsn, topic, isReplayed))
        expect(client.broadcasts).toHaveLength(1)
        const { meta, ...told } = client.broadcasts[0] as { meta: Record<string, unknown>; payload: unknown }
        const isShort = Buffer.byteLength(draft.event) <= 255
        if (content.isBinary && reads4 && isShort) {
          expect(told).toEqual({ type: 'broadcast', event: message.event, payload: expect.any(ArrayBuffer) })
          expect(Buffer.from(told.payload as ArrayBuffer).toString('base64')).toBe(message.binary)
        } else {
          const body = content.isBinary ? { binary: message.binary } : { payload: message.payload }
          expect(JSON.stringify(told)).toBe(JSON.stringify({ type: 'broadcast', event: message.event, ...body }))
        }
        const { sender, ...rest } = meta
        expect(rest).toEqual(isReplayed ? { id, replayed: true } : { id })
        // Of bytes, a sender of a very long name is left out: their frame has no room for it.
        if (sender !== undefined || !content.isBinary) expect(sender ?? null).toEqual(message.sender)
        expect(sentAtMsOf(outgoing)).toBe(draft.sentAtMs)
      }),
      { numRuns: 300 },
    )
    client.end()
  })
})

test('a binary message whose names are too long for its frame comes as text', () => {
  const outgoing = outgoingOf({ event: 'ü'.repeat(200), payload: '"AP8="', isBinary: true })
  const frame = broadcastFrameOf(outgoing, '2.0.0', topic, false)
  expect(frame[0]).toBe(0x81)
  expect(frame.toString()).toContain('"binary":"AP8="')
})

test('a binary message of a sender with a long name keeps its id', () => {
  const sender = { user: 'u'.repeat(250), connection: 'c1' }
  const frame = broadcastFrameOf(outgoingOf({ sender, payload: '"AP8="', isBinary: true }), '2.0.0', topic, true)
  expect(frame[0]).toBe(0x82)
  expect(frame.toString('latin1')).toContain(`{"id":"${id}","replayed":true}`)
})

test('a frame is made once for all who get it, and another for a replay', () => {
  const outgoing = outgoingOf({})
  const frame = broadcastFrameOf(outgoing, '2.0.0', topic, false)
  expect(broadcastFrameOf(outgoing, '2.0.0', topic, false)).toBe(frame)
  expect(broadcastFrameOf(outgoing, '2.0.0', topic, true)).not.toBe(frame)
  expect(broadcastFrameOf(outgoing, '1.0.0', topic, false)).not.toBe(frame)
})
