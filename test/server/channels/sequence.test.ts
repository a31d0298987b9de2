import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { ChannelMessage } from '../../../src/server/channels/message.ts'
import type { HistoryPage } from '../../../src/server/channels/relay/channel-relay.ts'
import { type Due, Sequence } from '../../../src/server/channels/sequence.ts'

const epoch = 'aaaaaaaa'

const message = (seq: bigint, in_ = epoch, before: ChannelMessage['before'] = []): ChannelMessage => ({
  channel: { topic: 'room:1', isPrivate: true },
  id: `00000000-0000-4000-8000-${String(seq).padStart(12, '0')}`,
  event: 'said',
  payload: String(seq),
  isBinary: false,
  sender: { user: null, connection: null },
  sentAtMs: 0,
  to: null,
  stamp: { epoch: 'cccccccc', lsn: 1n },
  walIndex: null,
  epoch: in_,
  seq,
  before,
})

const shown = (due: readonly Due[]): string[] =>
  due.map(each =>
    each.kind === 'message'
      ? `${each.message.seq}`
      : each.kind === 'gap'
        ? `gap of ${each.missed} up to ${each.seq}`
        : `anew in ${each.epoch} at ${each.seq}`,
  )

const page = (messages: readonly ChannelMessage[], first: bigint, seq: bigint, of = epoch): HistoryPage => ({
  epoch: of,
  seq,
  first,
  messages,
})

function begun(hasHistory: boolean, seq = 10n): Sequence {
  const sequence = new Sequence(hasHistory)
  sequence.begin({ epoch, seq })
  return sequence
}

test('[P4] messages in order are due at once, one that comes twice is not', () => {
  const sequence = begun(false)
  expect(shown(sequence.take(message(11n)))).toEqual(['11'])
  expect(shown(sequence.take(message(11n)))).toEqual([])
  expect(shown(sequence.take(message(12n)))).toEqual(['12'])
})

test('[P4] [P8] without a history a hole is a gap, told before what came after it', () => {
  const sequence = begun(false)
  expect(shown(sequence.take(message(14n)))).toEqual(['gap of 3 up to 13', '14'])
})

test('[P4] with a history a hole is read, and what came after it comes behind it', () => {
  const sequence = begun(true)
  expect(shown(sequence.take(message(13n)))).toEqual([])
  expect(sequence.isBehind).toBe(true)
  expect(
    shown(
      sequence.fill(
        page(
          [11n, 12n, 13n].map(seq => message(seq)),
          1n,
          13n,
        ),
      ),
    ),
  ).toEqual(['11', '12', '13'])
  expect(sequence.isBehind).toBe(false)
})

test('[P8] what the history does not keep any more is a gap', () => {
  const sequence = begun(true)
  sequence.take(message(15n))
  expect(shown(sequence.fill(page([message(14n), message(15n)], 14n, 15n)))).toEqual(['gap of 3 up to 13', '14', '15'])
})

test('[P4] [P8] the last message lost is noticed by where the channel stands', () => {
  expect(shown(begun(false).stands({ epoch, seq: 12n }))).toEqual(['gap of 2 up to 12'])
  const sequence = begun(true)
  expect(shown(sequence.stands({ epoch, seq: 12n }))).toEqual([])
  expect(sequence.isBehind).toBe(true)
})

test('[P8] another epoch that knows nothing of ours begins anew; one that goes on with its numbers does not', () => {
  expect(shown(begun(false).take(message(3n, 'bbbbbbbb')))).toEqual(['anew in bbbbbbbb at 2', '3'])
  expect(shown(begun(false).take(message(11n, 'bbbbbbbb', [{ epoch, seq: 10n }])))).toEqual(['11'])
  // Its end was lost, and its last numbers given again.
  expect(shown(begun(false).take(message(10n, 'bbbbbbbb', [{ epoch, seq: 9n }])))).toEqual([
    'anew in bbbbbbbb at 9',
    '10',
  ])
})

test('[P4] with a history another epoch begins with its own first number, however it was noticed, and all of it is read', () => {
  const before = [{ epoch, seq: 8n }]
  const all = page(
    [9n, 10n, 11n].map(seq => message(seq, 'bbbbbbbb', before)),
    2n,
    11n,
    'bbbbbbbb',
  )
  const noticed: ((sequence: Sequence) => readonly Due[])[] = [
    sequence => sequence.take(message(11n, 'bbbbbbbb', before)),
    sequence => sequence.stands({ epoch: 'bbbbbbbb', seq: 11n, before }),
    sequence => sequence.fill({ ...all, before }),
  ]
  for (const notice of noticed) {
    const sequence = begun(true)
    expect(shown(notice(sequence))).toEqual(['anew in bbbbbbbb at 8'])
    expect(sequence.isBehind).toBe(true)
    expect(shown(sequence.fill({ ...all, before }))).toEqual(['9', '10', '11'])
    expect(sequence.isBehind).toBe(false)
  }
  const empty = begun(true)
  expect(shown(empty.stands({ epoch: 'bbbbbbbb', seq: 2n }))).toEqual(['anew in bbbbbbbb at 0'])
  expect(empty.isBehind).toBe(true)
})

test('[P4] what could not be kept is read again', () => {
  const sequence = begun(true)
  sequence.take(message(11n))
  sequence.take(message(12n))
  sequence.rewind(11n)
  expect(sequence.isBehind).toBe(true)
  expect(shown(sequence.fill(page([message(12n)], 1n, 12n)))).toEqual(['12'])
})

test('[P4] [P5] whatever is lost, repeated or out of order: with a history all come once and in order', () => {
  const last = 30n
  const all = Array.from({ length: Number(last) }, (_, place) => message(BigInt(place) + 1n))
  fc.assert(
    fc.property(
      fc.array(fc.oneof(fc.bigInt(1n, last), fc.constant('look' as const), fc.constant('read' as const)), {
        maxLength: 80,
      }),
      fc.integer({ min: 1, max: 5 }),
      (steps, limit) => {
        const sequence = begun(true, 0n)
        const due: Due[] = []
        const read = (): void => {
          const { seq } = sequence.standing
          due.push(...sequence.fill(page(all.filter(each => each.seq > seq).slice(0, limit), 1n, last)))
        }
        for (const step of [...steps, 'look' as const]) {
          if (step === 'look') due.push(...sequence.stands({ epoch, seq: last }))
          else if (step === 'read') read()
          else due.push(...sequence.take(message(step)))
        }
        while (sequence.isBehind) read()
        expect(shown(due)).toEqual(all.map(({ seq }) => `${seq}`))
      },
    ),
  )
})

test('[P4] [P8] whatever is lost: without a history each number is a message or part of a gap, once and in order', () => {
  const last = 30n
  fc.assert(
    fc.property(fc.array(fc.bigInt(1n, last), { maxLength: 60 }), heard => {
      const sequence = begun(false, 0n)
      const due = [...heard.flatMap(seq => sequence.take(message(seq))), ...sequence.stands({ epoch, seq: last })]
      let at = 0n
      for (const each of due) {
        if (each.kind === 'message') {
          expect(each.message.seq).toBe(at + 1n)
          at += 1n
        } else if (each.kind === 'gap') {
          expect(each.seq).toBe(at + BigInt(each.missed!))
          at = each.seq
        }
      }
      expect(at).toBe(last)
    }),
  )
})
