import * as fc from 'fast-check'
import { expect, test } from 'vitest'
import { channelKey, type Draft, type Former } from '../../../../src/server/channels/message.ts'
import { channelOf } from '../../../../src/server/channels/relay/memory-relay.ts'
import {
  decodeHeard,
  decodeMessage,
  encodeDraft,
  encodePresence,
  parseFormers,
} from '../../../../src/server/channels/relay/redis-envelope.ts'
import { walPlace } from '../../../../src/server/channels/relay/redis-relay-scripts.ts'

const text = fc.string({ unit: 'grapheme', maxLength: 30 })
const u64 = fc.bigInt(0n, 2n ** 64n - 1n)
const channel = fc.record({ topic: text, isPrivate: fc.boolean() })
const orNull = <T>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<T | null> => fc.option(arbitrary, { nil: null })

const drafts: fc.Arbitrary<Draft> = fc.record({
  channel,
  id: fc.uuid(),
  event: text,
  payload: fc.json(),
  isBinary: fc.boolean(),
  sender: fc.record({ user: orNull(text), connection: orNull(text) }),
  sentAtMs: fc.nat(),
  to: orNull(fc.oneof(fc.record({ user: text }), fc.record({ connection: text }))),
  stamp: fc.record({ epoch: text, lsn: u64 }),
  walIndex: orNull(fc.nat()),
})
const hex = fc.stringMatching(/^[0-9a-f]{8}$/)
const formers: fc.Arbitrary<Former[]> = fc.array(fc.record({ epoch: hex, seq: fc.bigInt(0n, 2n ** 52n) }), {
  maxLength: 8,
})

const written = (list: readonly Former[]): string => list.map(({ epoch, seq }) => `${epoch}:${seq}`).join(',') || '-'

test('[P4] whatever a message is, it is read as it was written: from a channel and from a history', () => {
  fc.assert(
    fc.property(drafts, hex, fc.bigInt(1n, 2n ** 52n), formers, (draft, epoch, seq, before) => {
      const body = encodeDraft(draft)
      const message = { ...draft, epoch, seq, before }
      expect(decodeHeard(draft.channel, Buffer.from(`m1 ${epoch} ${seq} ${written(before)}\n${body}`))).toEqual({
        kind: 'message',
        message,
      })
      expect(decodeMessage(Buffer.from(body), 0, message)).toEqual(message)
      expect(parseFormers(written(before))).toEqual(before)
    }),
  )
})

test('presence is read as it was written', () => {
  const entry = fc.record({
    ref: text,
    key: text,
    user: orNull(text),
    connection: text,
    meta: fc.json(),
    sinceMs: fc.nat(),
  })
  const entries = fc.array(entry, { maxLength: 4 })
  const diffs = fc.record({
    epoch: hex,
    seq: fc.bigInt(0n, 2n ** 52n),
    joined: entries,
    updated: entries,
    left: entries,
    count: fc.nat(),
  })
  fc.assert(
    fc.property(channel, diffs, (name, diff) => {
      expect(decodeHeard(name, Buffer.from(encodePresence(diff)))).toEqual({ kind: 'presence', diff })
    }),
  )
})

test('[P7] bytes of any kind are a message, of an unknown version, or refused: nothing else comes of them', () => {
  const damaged = fc.oneof(
    fc.uint8Array({ maxLength: 60 }),
    fc
      .tuple(
        fc.constantFrom('m1 ', 'p1 ', 'm1 abcdefab 1 -\n', 'p1 abcdefab 1 2\n'),
        fc.oneof(
          fc.string({ maxLength: 40 }),
          fc.json().map(json => `${json}\n`),
        ),
      )
      .map(([head, rest]) => Buffer.from(head + rest)),
  )
  fc.assert(
    fc.property(damaged, bytes => {
      try {
        const heard = decodeHeard({ topic: 't', isPrivate: true }, Buffer.from(bytes))
        if (heard !== null) expect(['message', 'presence', 'probe']).toContain(heard.kind)
      } catch (error) {
        expect(error instanceof RangeError || error instanceof SyntaxError).toBe(true)
      }
    }),
  )
  for (const unknown of ['', 'm2 x', 'x', 'M1 abcdefab 1 -\n{}\n'])
    expect(decodeHeard({ topic: 't', isPrivate: true }, Buffer.from(unknown))).toBeNull()
})

test('a channel is found again by its key', () => {
  fc.assert(fc.property(channel, name => void expect(channelOf(channelKey(name))).toEqual(name)))
})

test('places in the WAL are in order as texts', () => {
  fc.assert(
    fc.property(u64, u64, fc.nat(), fc.nat(), (lsn, other, index, otherIndex) => {
      const isBefore = lsn < other || (lsn === other && index < otherIndex)
      expect(walPlace('e', lsn, index) < walPlace('e', other, otherIndex)).toBe(isBefore)
    }),
  )
})
