import { expect, test } from 'vitest'
import { type Content, type TakeBack, takeBack } from '../../../src/server/deliver/take-back.ts'
import { Batch } from '../../../src/server/route/batch.ts'
import { Outgoing } from '../../../src/server/subscribe/subscription.ts'
import { at } from './support/memory-core.ts'

const [ada, ben] = [{ name: 'ada' }, { name: 'ben' }]
const owners = { a: ada, b: ben }

/** A queue in letters. First whose: a, b or - for nobody's. Then what: `d` a delta, `D` the middle of one, `s` the first part
 *  of a snapshot, `S` another, `!` its last, `c` a change, `m` a message of a channel with a history, `M` of one without, `p` who is there,
 *  `r` a resync, `h` a heartbeat, `x` anything else. */
function queueOf(text: string): { owner: object | null; content: Content; word: string }[] {
  return text.split(' ').map((word, place) => {
    const owner = owners[word[0] as 'a' | 'b'] ?? null
    return { owner, content: contentOf(word[1]!, place), word }
  })
}

function contentOf(kind: string, place: number): Content {
  const lsn = 100 + place
  switch (kind) {
    case 'd':
      return new Outgoing('delta', '{}', at(lsn), BigInt(lsn - 1))
    case 'D':
      return new Outgoing('delta', '{}', at(lsn), null)
    case 's':
      return new Outgoing('snapshot', '{}', null, 0n)
    case 'S':
      return new Outgoing('snapshot', '{}', null, null)
    case '!':
      return new Outgoing('snapshot', '{}', at(lsn), null)
    case 'c':
      return new Outgoing('change', '{}', at(lsn))
    case 'm':
      return new Outgoing('message', '{}', at(lsn))
    case 'M':
      return new Outgoing('message', '{}', { ...at(1), index: lsn })
    case 'p':
      return new Outgoing('presence', '{}', null)
    case 'r':
      return 'resync'
    case 'h':
      return 'heartbeat'
    default:
      return null
  }
}

/** What stays, and by whose name before which event each stands. */
function taken(text: string, options: Partial<TakeBack> = {}): string {
  const queue = queueOf(text)
  const result = takeBack(queue, { of: ada, isShared: false, manner: 'firmly', ...options })
  if (result === null) return 'nothing'
  const kept = queue.filter((_, place) => result.kept[place]).map(({ word }) => word)
  const stands = [...result.first].map(([owner, event]) => {
    const place = queue.findIndex(({ content }) => content === event)
    return `${owner === ada ? 'a' : 'b'}@${place}`
  })
  return [...kept, '|', ...stands].join(' ')
}

test.each([
  ['ad ad ad', '| a@0'],
  // Nothing of it waits.
  ['bd -h -x', 'nothing'],
  // Answers, greetings and others' frames stay.
  ['-x bd ad -x bd', '-x bd -x bd | a@2'],
  // A heartbeat names where all stand: one behind what is dropped would lie.
  ['-h ad -h bd -h', '-h bd | a@1'],
  // Changes have no more to them than deltas.
  ['ac ac', '| a@0'],
  // In the middle of a delta whose beginning is gone.
  ['aD ad', '| a@0'],
  // A finished snapshot; one that is not finished takes back by itself what is hidden.
  ['as aS a! ad', '| a@0'],
  ['aS a! ad', '| a@0'],
  ['as aS', 'nothing'],
  ['as aS -h', 'nothing'],
  // What was void already is dropped; where the subscription stands is not told by it.
  ['ad ar as aS', 'ar as aS |'],
  ['ad ar as a!', 'ar | a@2'],
  ['ad ar', 'ar |'],
])('[P2] [P4] %s, taken back: %s', (text, expected) => {
  expect(taken(text)).toBe(expected)
})

test.each([
  // An id of the one names the other too.
  ['bd ad bd', 'bd | a@1 b@2'],
  ['ad bd br bs b! bd', 'br | a@0 b@3'],
  // An unfinished snapshot has no ids.
  ['ad bs bS', 'bs bS | a@0'],
])('[P4] of a stream whose ids name all its queries: %s, taken back: %s', (text, expected) => {
  expect(taken(text, { isShared: true })).toBe(expected)
})

test.each([
  ['ad ad', '| a@0'],
  ['ac', '| a@0'],
  ['aD ad', 'nothing'],
  ['as a! ad', 'nothing'],
  ['a! ad', 'nothing'],
])('gently, nobody starts over: %s, taken back: %s', (text, expected) => {
  expect(taken(text, { manner: 'gently' })).toBe(expected)
})

test('gently, nor does another query of the stream', () => {
  expect(taken('ad b! bd', { manner: 'gently', isShared: true })).toBe('nothing')
})

test('a batch is dropped whole: the subscription stands before its first event', () => {
  const events = [1, 2, 3].map(lsn => new Outgoing('delta', '{}', at(lsn), BigInt(lsn - 1)))
  const batch = new Batch({ query: { number: 1 }, tag: '', members: [] as never, toldLsn: 0n }, events, 3n)
  const result = takeBack([{ owner: ada, content: batch }], { of: ada, isShared: false, manner: 'firmly' })
  expect(result).toEqual({ kept: [false], first: new Map([[ada, events[0]]]) })
})

test.each([
  // Dropped where its reader may not have it any more: with a history or without.
  ['am ap bm am', 'firmly', 'bm | a@0'],
  ['aM ap aM', 'firmly', '| a@0'],
  ['ap am', 'firmly', '| a@0'],
  // At a renewal, where it follows again; never where it could not be had again.
  ['am ap am', 'gently', '| a@0'],
  ['aM aM', 'gently', 'nothing'],
  ['ap', 'gently', '| a@0'],
  // What a history that is over said before cannot be had either.
  ['am ar am', 'gently', 'nothing'],
])('[P3] [P4] of a channel %s, taken back %s: %s', (text, manner, expected) => {
  expect(taken(text, { manner: manner as 'firmly' | 'gently' })).toBe(expected)
})

test('[P4] of a joined batch of messages without a history, none is taken back gently', () => {
  const events = [1, 2].map(index => new Outgoing('message', '{}', { ...at(1), index }))
  const receivers = { query: { number: 1 }, tag: 't', toldLsn: 0n, members: { deliver: () => {} } }
  const waiting = [{ owner: ada, content: new Batch(receivers, events, 1n) }]
  expect(takeBack(waiting, { of: ada, isShared: false, manner: 'gently' })).toBe(null)
  expect(takeBack(waiting, { of: ada, isShared: false, manner: 'firmly' })?.kept).toEqual([false])
})
