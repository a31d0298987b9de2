import type { Writable } from 'node:stream'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import * as ws from 'ws'
import { TidegateError } from '../../../../src/protocol/tidegate-error.ts'
import { messageFrame, parseIncoming, userBroadcastFrame } from '../../../../src/server/deliver/phoenix/serializer.ts'
import type { BinaryPayload, Incoming } from '../../../../src/server/deliver/phoenix/wire.ts'
import { type ClientMessage, codecs, phoenixCodec, realtimeCodecs, vsns } from './support/clients.ts'

// Exported by ws, left out of its types: the very parser that clients on Node use.
const { Receiver } = ws as unknown as { Receiver: new (options: object) => Writable }

/** What a client's socket hands it of a frame. */
function received(frame: Buffer): { data: Buffer; isBinary: boolean } {
  const messages: { data: Buffer; isBinary: boolean }[] = []
  const receiver = new Receiver({ isServer: false, allowSynchronousEvents: true })
  receiver.on('message', (data: Buffer, isBinary: boolean) => messages.push({ data, isBinary }))
  receiver.write(frame)
  expect(messages).toHaveLength(1)
  return messages[0]!
}

const asJson = (value: unknown): unknown => JSON.parse(JSON.stringify(value))
const utf8 = (maxBytes: number) =>
  fc.string({ unit: 'grapheme', maxLength: maxBytes }).filter(text => Buffer.byteLength(text) <= maxBytes)
const anyText = fc.oneof(
  fc.string({ unit: 'binary' }),
  fc.string({ unit: 'grapheme' }),
  fc.constant('realtime:zimmer/ä'),
)
const ref = fc.option(fc.oneof(fc.nat().map(String), anyText), { nil: null })
const payload = fc.dictionary(fc.string(), fc.jsonValue())
const bytes = fc.uint8Array({ maxLength: 400 })

describe.each(codecs)('$name, vsn $vsn', codec => {
  test('what it pushes as JSON is read as it was meant', () => {
    fc.assert(
      fc.property(ref, ref, anyText, anyText, payload, (joinRef, ref, topic, event, payload) => {
        fc.pre(event !== 'broadcast')
        const { data, isBinary } = codec.encode({ join_ref: joinRef, ref, topic, event, payload })
        expect(isBinary).toBe(false)
        expect(parseIncoming(data, isBinary, codec.vsn)).toEqual({
          joinRef,
          ref,
          topic,
          event,
          payload: asJson(payload),
        })
      }),
    )
  })

  test('what it pushes without refs and without a payload has null and {}', () => {
    const { data, isBinary } = codec.encode({ topic: 'phoenix', event: 'heartbeat', payload: {} })
    const heartbeat = { joinRef: null, ref: null, topic: 'phoenix', event: 'heartbeat', payload: {} }
    expect(parseIncoming(data, isBinary, codec.vsn)).toEqual(heartbeat)
  })

  test('it reads a message as it was meant', () => {
    fc.assert(
      fc.property(ref, ref, anyText, anyText, fc.jsonValue(), (joinRef, ref, topic, event, payload) => {
        const frame = messageFrame(codec.vsn, { joinRef, ref, topic, event, payload: JSON.stringify(payload) })
        const { data, isBinary } = received(frame)
        const message: ClientMessage = { ref, topic, event, payload: asJson(payload) }
        if (codec.vsn === '2.0.0') message.join_ref = joinRef
        expect(isBinary).toBe(false)
        expect(codec.decode(data, isBinary)).toEqual(message)
      }),
    )
  })
})

/** As a kind 3 comes out. */
const broadcast = (message: { joinRef: string; ref: string; topic: string }, payload: BinaryPayload): Incoming => ({
  joinRef: message.joinRef === '' ? null : message.joinRef,
  ref: message.ref === '' ? null : message.ref,
  topic: message.topic,
  event: 'broadcast',
  payload,
})

const binaryPayload = (incoming: Incoming): BinaryPayload => {
  const { bytes, userEvent, isJson } = incoming.payload as BinaryPayload
  return { bytes: new Uint8Array(bytes), userEvent, isJson }
}

const newKind3 = realtimeCodecs.find(({ name, vsn }) => name === 'supabase-js' && vsn === '2.0.0')!
const oldKind3 = realtimeCodecs.find(({ name, vsn }) => name !== 'supabase-js' && vsn === '2.0.0')!

describe('a broadcast of a client of vsn 2.0.0', () => {
  const ascii = fc.string({ unit: 'grapheme-ascii', maxLength: 255 })
  const topic = ascii.map(text => `realtime:${text}`.slice(0, 255))
  const cases = [
    { codec: newKind3, text: utf8(255), topic: utf8(200).map(text => `realtime:${text}`), persist: fc.boolean() },
    { codec: oldKind3, text: ascii, topic, persist: fc.constant(false) },
  ]

  test.each(cases)('of $codec.name is read as it was meant', ({ codec, text, topic, persist }) => {
    const content = fc.oneof(
      payload.map(json => ({ sent: json as unknown, bytes: Buffer.from(JSON.stringify(json)), isJson: true })),
      bytes.map(bytes => ({ sent: Uint8Array.from(bytes).buffer as unknown, bytes, isJson: false })),
    )
    fc.assert(
      fc.property(text, text, topic, text, content, persist, (joinRef, ref, topic, event, content, persist) => {
        const message = { type: 'broadcast', event, payload: content.sent, ...(persist ? { persist } : {}) }
        const push = { join_ref: joinRef, ref, topic, event: 'broadcast', payload: message }
        const { data, isBinary } = codec.encode(push)
        expect(isBinary).toBe(true)
        expect(data[0]).toBe(3)
        const incoming = parseIncoming(data, isBinary, '2.0.0')
        const expected = { bytes: new Uint8Array(content.bytes), userEvent: event, isJson: content.isJson }
        expect({ ...incoming, payload: binaryPayload(incoming) }).toEqual(broadcast({ joinRef, ref, topic }, expected))
      }),
    )
  })

  test('of 2025, which writes one byte per UTF-16 unit, keeps its accents', () => {
    const message = { type: 'broadcast', event: 'réglé', payload: { c: 'é' } }
    const push = { join_ref: '1', ref: '2', topic: 'realtime:réunion', event: 'broadcast', payload: message }
    const incoming = parseIncoming(oldKind3.encode(push).data, true, '2.0.0')
    expect(incoming.topic).toBe('realtime:réunion')
    expect(binaryPayload(incoming).userEvent).toBe('réglé')
    expect(JSON.parse(Buffer.from(binaryPayload(incoming).bytes).toString())).toEqual({ c: 'é' })
  })

  test('as it was captured on the wire', () => {
    const data = Buffer.from('\x03\x01\x01\x0f\x05\x00\x0167realtime:room:1shout{"hello":1}', 'latin1')
    const payload = { bytes: Buffer.from('{"hello":1}'), userEvent: 'shout', isJson: true }
    expect(parseIncoming(data, true, '2.0.0')).toEqual(
      broadcast({ joinRef: '6', ref: '7', topic: 'realtime:room:1' }, payload),
    )
  })
})

test.each([phoenixCodec, oldKind3])('bytes pushed by $name under any event are read as they were meant', codec => {
  const text = codec === phoenixCodec ? utf8(255) : fc.string({ unit: 'grapheme-ascii', maxLength: 255 })
  fc.assert(
    fc.property(text, text, text, text, bytes, (joinRef, ref, topic, event, bytes) => {
      const payload = Uint8Array.from(bytes).buffer
      const { data, isBinary } = codec.encode({ join_ref: joinRef, ref, topic, event, payload })
      const incoming = parseIncoming(data, isBinary, '2.0.0')
      expect({ ...incoming, payload: binaryPayload(incoming) }).toEqual({
        ...broadcast({ joinRef, ref, topic }, { bytes, userEvent: null, isJson: false }),
        event,
      })
    }),
  )
})

describe('a binary broadcast', () => {
  test.each([newKind3, oldKind3])('is read by $name as it was meant', codec => {
    const meta = fc.option(fc.record({ id: fc.uuid(), replayed: fc.boolean() }), { nil: null })
    const content = fc.oneof(
      fc.jsonValue().map(json => ({ bytes: Buffer.from(JSON.stringify(json)), read: asJson(json), isJson: true })),
      bytes.map(bytes => ({ bytes, read: Uint8Array.from(bytes).buffer as unknown, isJson: false })),
    )
    fc.assert(
      fc.property(utf8(255), utf8(255), meta, content, (topic, event, meta, { bytes, read, isJson }) => {
        const frame = userBroadcastFrame(topic, event, meta === null ? '' : JSON.stringify(meta), isJson, bytes)
        const { data, isBinary } = received(frame)
        const payload = { type: 'broadcast', event, payload: read, ...(meta === null ? {} : { meta }) }
        expect(isBinary).toBe(true)
        expect(codec.decode(data, isBinary)).toEqual({ join_ref: null, ref: null, topic, event: 'broadcast', payload })
      }),
    )
  })

  test('loses a meta that its size has no room for, not itself', () => {
    const read = (meta: string) => {
      const { data, isBinary } = received(userBroadcastFrame('realtime:a', 'e', meta, true, Buffer.from('{"a":1}')))
      return newKind3.decode(data, isBinary).payload
    }
    const longest = `{"id":"${'x'.repeat(246)}"}`
    expect(Buffer.byteLength(longest)).toBe(255)
    expect(read(longest)).toEqual({ type: 'broadcast', event: 'e', payload: { a: 1 }, meta: JSON.parse(longest) })
    expect(read(`${longest} `)).toEqual({ type: 'broadcast', event: 'e', payload: { a: 1 } })
  })

  test.each([
    ['topic', 'é'.repeat(128), 'e'],
    ['event', 'realtime:a', 'é'.repeat(128)],
  ])('whose %s has more than 255 bytes is refused', (name, topic, event) => {
    const refused = () => userBroadcastFrame(topic, event, '', false, Buffer.alloc(0))
    expect(refused).toThrow(`the ${name} of a binary broadcast may have 255 bytes, not 256`)
    expect(refused).toThrow(expect.objectContaining({ code: 'FRAME_TOO_LARGE' }))
  })
})

describe('what is tolerated', () => {
  const join = (joinRef: string, ref: string) =>
    parseIncoming(Buffer.from(`[${joinRef},${ref},"realtime:a","phx_join",{}]`), false, '2.0.0')

  test.each([
    ['"6"', '6'],
    ['6', '6'],
    ['null', null],
    ['""', ''],
    ['{}', null],
    ['true', null],
  ])('a ref of %s is %o', (sent, read) => {
    expect(join(sent, '"1"').joinRef).toBe(read)
    expect(join('"1"', sent).ref).toBe(read)
  })

  test.each([
    ['2.0.0', '[null,"1","realtime:a","phx_join"]', {}],
    ['2.0.0', '[null,"1","realtime:a","phx_join",null]', null],
    ['2.0.0', '[null,"1","realtime:a","phx_join",{},"more"]', {}],
    ['1.0.0', '{"topic":"realtime:a","event":"phx_join","ref":1}', {}],
    ['1.0.0', '{"topic":"realtime:a","event":"phx_join","ref":"1","more":{},"payload":[]}', []],
  ] as const)('vsn %s: %s', (vsn, text, payload) => {
    const incoming = { joinRef: null, ref: '1', topic: 'realtime:a', event: 'phx_join', payload }
    expect(parseIncoming(Buffer.from(text), false, vsn)).toEqual(incoming)
  })
})

/** Parses, or refuses with the code that the peer is told. */
function outcome(data: Buffer, isBinary: boolean, vsn: '1.0.0' | '2.0.0'): 'read' | 'refused' {
  try {
    const { topic, event, joinRef, ref } = parseIncoming(data, isBinary, vsn)
    expect([typeof topic, typeof event]).toEqual(['string', 'string'])
    for (const either of [joinRef, ref]) expect(either === null || typeof either === 'string').toBe(true)
    return 'read'
  } catch (error) {
    expect(error).toBeInstanceOf(TidegateError)
    expect((error as TidegateError).code).toBe('BAD_FRAME')
    return 'refused'
  }
}

describe('what is hostile', () => {
  test('any bytes are read or refused', () => {
    const kind = fc.constantFrom(0, 1, 2, 3, 4, 255)
    const sizes = fc.array(fc.constantFrom(0, 1, 2, 3, 20, 255), { minLength: 0, maxLength: 7 })
    const frame = fc.tuple(kind, sizes, bytes).map(([kind, sizes, rest]) => Buffer.from([kind, ...sizes, ...rest]))
    fc.assert(
      fc.property(
        fc.oneof(frame, bytes.map(Buffer.from)),
        fc.boolean(),
        fc.constantFrom(...vsns),
        (data, isBinary, vsn) => {
          outcome(data as Buffer, isBinary, vsn)
        },
      ),
      { numRuns: 2000 },
    )
  })

  test('any JSON is read or refused', () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.constantFrom(...vsns), (json, vsn) => {
        outcome(Buffer.from(JSON.stringify(json)), false, vsn)
      }),
    )
  })

  test.each([
    ['nothing', '', '2.0.0'],
    ['no JSON', '{"topic"', '1.0.0'],
    ['an array to 1.0.0', '[null,"1","realtime:a","phx_join",{}]', '1.0.0'],
    ['an object to 2.0.0', '{"topic":"realtime:a","event":"phx_join","payload":{}}', '2.0.0'],
    ['null', 'null', '1.0.0'],
    ['an empty array', '[]', '2.0.0'],
    ['a topic that is no text', '[null,"1",{},"phx_join",{}]', '2.0.0'],
    ['no event', '{"topic":"realtime:a"}', '1.0.0'],
    ['a topic behind a prototype', '{"__proto__":{"topic":"realtime:a","event":"phx_join"}}', '1.0.0'],
  ] as const)('%s is refused', (_name, text, vsn) => {
    expect(outcome(Buffer.from(text), false, vsn)).toBe('refused')
  })

  test('bytes are refused from 1.0.0, which has no binary frames', () => {
    const { data } = newKind3.encode({ topic: 'realtime:a', event: 'broadcast', payload: { event: 'e', payload: {} } })
    expect(outcome(data, true, '2.0.0')).toBe('read')
    expect(outcome(data, true, '1.0.0')).toBe('refused')
  })

  test.each([phoenixCodec, newKind3, oldKind3])(
    'a binary frame of $name cut off within its fields is refused',
    codec => {
      const [event, payload] =
        codec === phoenixCodec
          ? ['typing', Uint8Array.of(0, 1).buffer]
          : ['broadcast', { event: 'typing', payload: Uint8Array.of(0, 1).buffer }]
      const { data } = codec.encode({ join_ref: '10', ref: '11', topic: 'realtime:room:1', event, payload })
      const fields = data.length - 2
      for (let length = 0; length < fields; length++) {
        expect([length, outcome(data.subarray(0, length), true, '2.0.0')]).toEqual([length, 'refused'])
      }
      expect(outcome(data.subarray(0, fields), true, '2.0.0')).toBe('read')
    },
  )

  test('nested too deep is refused, whatever stands in its texts', () => {
    const text = fc.string({ unit: fc.constantFrom('[', ']', '{', '}', '"', '\\', 'é') })
    fc.assert(
      fc.property(fc.integer({ min: 120, max: 130 }), text, (depth, text) => {
        const [opening, closing] = depth % 2 === 0 ? ['', ''] : ['{"k":', '}']
        const pairs = Math.floor(depth / 2)
        const inner = `${opening}${JSON.stringify(text)}${closing}`
        const nested = `${'[{"k":'.repeat(pairs)}${inner}${'}]'.repeat(pairs)}`
        const data = Buffer.from(`[null,null,${JSON.stringify(text)},"e",${nested}]`)
        expect(outcome(data, false, '2.0.0')).toBe(1 + depth <= 128 ? 'read' : 'refused')
      }),
    )
    expect(outcome(Buffer.from('['.repeat(5_000_000)), false, '2.0.0')).toBe('refused')
  })

  test('keys of prototypes are keys like any other', () => {
    const data = Buffer.from('[null,null,"t","e",{"__proto__":{"isAdmin":true},"constructor":1}]')
    const payload = parseIncoming(data, false, '2.0.0').payload as { isAdmin?: true }
    expect(payload.isAdmin).toBeUndefined()
    expect(Object.keys(payload)).toEqual(['__proto__', 'constructor'])
  })
})
