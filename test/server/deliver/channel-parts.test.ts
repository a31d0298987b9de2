// The pure parts of channels on the wires.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Json } from '../../../src/protocol/messages.ts'
import { channelRequestOf, sendRequestOf, trackRequestOf } from '../../../src/server/deliver/channel-request.ts'
import { parseChannelsUrl } from '../../../src/server/deliver/channel-url.ts'
import { connectionNameOf, newPollKey } from '../../../src/server/deliver/connection-name.ts'
import { parseClientFrame } from '../../../src/server/deliver/frame-schema.ts'
import { hereTagOf } from '../../../src/server/deliver/poll-presence.ts'
import { endOf } from '../../../src/server/deliver/refusal.ts'
import { fullBucket, isInDebt, oweToken, takeToken } from '../../../src/server/deliver/token-bucket.ts'
import type { Principal } from '../../../src/server/subscribe/subscription.ts'

const read = (topic: string | null, query: string) =>
  parseChannelsUrl({ topic, parameters: new URLSearchParams(query), lastEventId: null, maxChannels: 10 })

test('any topic stands in a path and in c, percent-encoded, and comes out as it was', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'grapheme', minLength: 1 }), fc.boolean(), (topic, isPrivate) => {
      const encoded = encodeURIComponent(topic)
      const inPath = read(encoded, `private=${isPrivate}`)
      const inC = read(null, new URLSearchParams([['c', `${encoded}?private=${isPrivate}`]]).toString())
      for (const { asked } of [inPath, inC]) expect(asked.map(({ channel }) => channel)).toEqual([{ topic, isPrivate }])
      expect([inPath.label, inC.label]).toEqual([null, 'c'])
    }),
  )
})

test('positions go to the channels of a stream in the order of the URL', () => {
  const { asked, after, waitMs, poll, here } = read(null, 'c=a&c=b&after=abcdef01-5.t1~-&wait=2.5&poll=p&here=h')
  expect(asked.map(({ since }) => since?.lsn)).toEqual([5n, undefined])
  expect([after, waitMs, poll, here]).toEqual(['abcdef01-5.t1~-', 2500, 'p', 'h'])
})

test('a payload goes out as the JSON that came in, on one line', () => {
  fc.assert(
    fc.property(fc.jsonValue({ maxDepth: 5 }), payload => {
      const text = JSON.stringify({ type: 'send', id: 1, event: 'e', payload })
      const frame = parseClientFrame(text)
      if (frame.type !== 'send') throw new Error('another frame')
      const request = sendRequestOf(frame)
      expect(JSON.parse(request.payload)).toEqual(JSON.parse(JSON.stringify(payload)))
      expect(request.payload).not.toMatch(/[\r\n]/)
    }),
  )
})

test.each([
  ['1e400', null],
  ['[{"a":-1e999}]', null],
  ['-0', '0'],
  ['12345678901234567890', '12345678901234567000'],
  ['{"__proto__":{"a":1},"constructor":2,"toString":null}', '{"__proto__":{"a":1},"constructor":2,"toString":null}'],
  ['{"a":1,"a":2}', '{"a":2}'],
  ['"\\ud800"', '"\\ud800"'],
  ['"\u2028 \\n\\u0000"', '"\u2028 \\n\\u0000"'],
  ['[\n 1 ]', '[1]'],
  [`${'['.repeat(64)}${']'.repeat(64)}`, `${'['.repeat(64)}${']'.repeat(64)}`],
  [`${'['.repeat(65)}${']'.repeat(65)}`, null],
  [`${'{"a":'.repeat(20_000)}1${'}'.repeat(20_000)}`, null],
])('[P8] the payload %s goes on as %s, and is refused where it could not', (payload, expected) => {
  for (const text of [
    `{"type":"send","id":1,"event":"e","payload":${payload}}`,
    `{"type":"track","id":1,"meta":${payload}}`,
    `{"type":"join","id":1,"topic":"t","track":{"meta":${payload}}}`,
  ]) {
    const read = (): string => {
      const frame = parseClientFrame(text)
      if (frame.type === 'send') return sendRequestOf(frame).payload
      if (frame.type === 'track') return trackRequestOf(frame).meta
      if (frame.type === 'join') return channelRequestOf(frame).track!.meta
      throw new Error('another frame')
    }
    if (expected === null) expect(read).toThrow(expect.objectContaining({ code: 'BAD_FRAME' }))
    else expect(read()).toBe(expected)
  }
})

test('a message without a payload has the payload null', () => {
  expect(sendRequestOf({ event: 'ping' })).toMatchObject({ payload: 'null', isBinary: false, after: null })
})

const principal = (sub: Json): Principal => ({ role: 'authenticated', claims: { sub }, expiresAt: null })

test('the name of polls is made of their key and subject, and is neither of them', () => {
  const key = newPollKey()
  const name = connectionNameOf(key, principal('ada'))
  expect(connectionNameOf(key, principal('ada'))).toBe(name)
  const others = [
    connectionNameOf(key, principal('ben')),
    connectionNameOf(key, { ...principal('ada'), role: 'admin' }),
    connectionNameOf(newPollKey(), principal('ada')),
    connectionNameOf(name, principal('ada')),
  ]
  expect(new Set([...others, name, key]).size).toBe(6)
})

test('who is there has one word whatever the order, and another when anything of it is other', () => {
  const entry = (n: number, meta: Json = null) => ({
    ref: `r${n}`,
    key: 'k',
    user: 'u',
    connection: `c${n}`,
    meta,
    since: 's',
  })
  const list = (...here: object[]) => JSON.stringify({ here, count: here.length })
  const tag = hereTagOf([list(entry(1), entry(2))])
  expect(hereTagOf([list(entry(2), entry(1))])).toBe(tag)
  const others = [
    [list(entry(1))],
    [list(entry(1), entry(2, 1))],
    [list(entry(1), entry(2)), null],
    ['{"count":2}'],
    [list()],
  ]
  expect(new Set([tag, ...others.map(lists => hereTagOf(lists))]).size).toBe(6)
  expect(hereTagOf([null, null])).toBe(null)
})

test.each([
  ['GOING_AWAY', 'broken'],
  ['REBALANCED', 'broken'],
  ['SLOW_CONSUMER', 'broken'],
  ['HEARTBEAT_MISSED', 'broken'],
  ['TOKEN_EXPIRED', 'broken'],
  ['KICKED', 'gone'],
  ['TOKEN_REVOKED', 'gone'],
  ['TOKEN_OUTDATED', 'gone'],
  ['BAD_FRAME', 'gone'],
  ['RATE_LIMITED', 'gone'],
] as const)('a connection closed by %s leaves its channels %s', (code, how) => {
  expect(endOf(code)).toBe(how)
})

test('[P7] a bucket that owes tokens is in debt until time has paid them; what may not owe is refused meanwhile', () => {
  const bucket = fullBucket(2, 0)
  for (let n = 0; n < 5; n++) oweToken(bucket, 0, 10, 2)
  expect(isInDebt(bucket, 0, 10, 2)).toBe(true)
  expect(takeToken(bucket, 0, 10, 2)).toBe(false)
  expect(isInDebt(bucket, 299, 10, 2)).toBe(true)
  expect(isInDebt(bucket, 300, 10, 2)).toBe(false)
  expect(takeToken(bucket, 400, 10, 2)).toBe(true)
})
