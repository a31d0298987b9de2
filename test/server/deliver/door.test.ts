// The small pure parts at the door: URLs, positions of streams, hints, buckets.
import { expect, test } from 'vitest'
import { peerCodes } from '../../../src/protocol/codes.ts'
import { parseQueryPositions, type QueryPosition } from '../../../src/protocol/position.ts'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { nextBeat, pulseOf } from '../../../src/server/deliver/pulse.ts'
import { closeReason, refusalOf } from '../../../src/server/deliver/refusal.ts'
import { formatStreamPosition, proofOf, readStreamPosition } from '../../../src/server/deliver/stream-position.ts'
import { fullBucket, takeToken } from '../../../src/server/deliver/token-bucket.ts'
import { parseStreamUrl, requestOfFrame } from '../../../src/server/deliver/url.ts'
import { createLog } from '../../../src/server/log/log.ts'

const read = (url: string, kind: 'live' | 'changes' = 'live') => {
  const [table = '', query = ''] = url.split('?')
  return parseStreamUrl({ kind, table, parameters: new URLSearchParams(query), lastEventId: null, maxQueries: 10 })
}

test.each([
  ['messages', { schema: 'public', table: 'messages', filters: [], select: null }],
  ['sales.orders', { schema: 'sales', table: 'orders' }],
  ['%22odd.name%22', { schema: 'public', table: 'odd.name' }],
  ['sales.%22a%22%22b%22', { schema: 'sales', table: 'a"b' }],
  ['caf%C3%A9', { table: 'café' }],
  ['m?select=id,%22a,b%22,c%20d', { select: ['id', 'a,b', 'c d'] }],
  ['m?select=*', { select: null }],
  ['m?select=+id+,++%22a%22%22+%22+', { select: ['id', 'a" '] }],
  [
    'm?room_id=eq.42&room_id=lt.50',
    {
      filters: [
        ['room_id', 'eq.42'],
        ['room_id', 'lt.50'],
      ],
    },
  ],
  [
    'm?or=(a.eq.1,b.is.null)&c.order=eq.1',
    {
      filters: [
        ['or', '(a.eq.1,b.is.null)'],
        ['c.order', 'eq.1'],
      ],
    },
  ],
  ['m?body=eq.a%26b%3D%22%27;--', { filters: [['body', `eq.a&b="';--`]] }],
  ['m?events=eq.1', { filters: [['events', 'eq.1']] }],
  ['m?__proto__=eq.1', { filters: [['__proto__', 'eq.1']] }],
] as const)('the URL %s is read', (url, expected) => {
  const { asked: queries, label } = read(url)
  expect(label).toBe(null)
  expect(queries[0]).toMatchObject({ kind: 'live', since: null, events: null, ...expected })
})

test('[P7] a select of nothing but spaces is refused at once', () => {
  const started = process.cpuUsage().user
  for (const text of [
    `${'+'.repeat(8000)}%22`,
    `a${'+'.repeat(8000)}b%22`,
    `${'%22+'.repeat(4000)}`,
    '%22'.repeat(8001),
  ])
    expect(() => read(`m?select=${text}`)).toThrow(expect.objectContaining({ code: 'FILTER_INVALID' }))
  expect(process.cpuUsage().user - started).toBeLessThan(500_000)
})

test('changes may be chosen by operation, in a URL and in a frame', () => {
  expect(read('m?events=insert,delete', 'changes').asked[0]!.events).toEqual(new Set(['insert', 'delete']))
  const frame = { type: 'subscribe', id: 1, kind: 'changes', table: 'm', events: ['update'] } as const
  expect(requestOfFrame({ ...frame, events: ['update'] }).events).toEqual(new Set(['update']))
})

test.each([
  ['id', [['id', 'asc', 'last']]],
  ['at.desc', [['at', 'desc', 'first']]],
  [
    'at.desc.nullslast,id.asc',
    [
      ['at', 'desc', 'last'],
      ['id', 'asc', 'last'],
    ],
  ],
  [
    'a.nullsfirst, "b.""c,d".desc',
    [
      ['a', 'asc', 'first'],
      ['b."c,d', 'desc', 'first'],
    ],
  ],
  ['asc.asc', [['asc', 'asc', 'last']]],
] as const)('order=%s, in a URL and in a frame', (text, terms) => {
  const order = terms.map(([column, direction, nulls]) => ({ column, direction, nulls }))
  expect(read(`m?order=${encodeURIComponent(text)}&limit=5&a=eq.1`).asked[0]).toMatchObject({
    order,
    limit: 5,
    filters: [['a', 'eq.1']],
  })
  const frame = requestOfFrame({ type: 'subscribe', id: 1, kind: 'live', table: 'm', order: text, limit: 5 })
  expect(frame).toMatchObject({ order, limit: 5 })
})

test.each(['', ',', 'id,', 'id.up', 'id.asc.nulls', 'id.nullslast.desc', '"id', 'id.asc.desc', '.asc', '"a"b'])(
  'order=%s is refused',
  text => {
    expect(() => read(`m?order=${encodeURIComponent(text)}`)).toThrow('is no list of columns')
  },
)

test.each(['0', '-1', '1.5', '', '1e3', '9999999999', ' 1'])('limit=%s is refused', text => {
  expect(() => read(`m?limit=${encodeURIComponent(text)}`)).toThrow('is no number of rows')
})

test('the position of a stream holds each query, and a dash for one that begins fresh', () => {
  const [a, b] = parseQueryPositions('1f2e3d4c-10.aa~1f2e3d4c-20-3.bb')! as [QueryPosition, QueryPosition]
  for (const positions of [[a], [a, b], [null, b], [a, null, b]]) {
    const text = formatStreamPosition(positions)!
    expect(readStreamPosition(text, positions.length)).toEqual(positions)
    expect(readStreamPosition(text, positions.length + 1)).toBe(null)
  }
  expect(formatStreamPosition([null, null])).toBe(null)
  expect(formatStreamPosition([null, null], 'p'.repeat(22))).toBe(null)
  for (const text of ['', '-', '~', '-~', 'x', '1f2e3d4c-10', '1f2e3d4c-10.aa~', 'x'.repeat(9000)]) {
    expect(readStreamPosition(text, 1)).toBe(null)
  }
})

test('a position with the proof of its stream is the same position, on every wire', () => {
  const proof = 'Ab_-5'.padEnd(22, 'x')
  const position = parseQueryPositions('1f2e3d4c-10.aa')!
  const text = formatStreamPosition(position, proof)!
  expect(proofOf(text)).toBe(proof)
  expect(readStreamPosition(text, 1)).toEqual(position)
  expect(read(`m?after=${encodeURIComponent(text)}`).asked[0]!.since).toEqual(position[0])
  const frame = requestOfFrame({ type: 'subscribe', id: 1, kind: 'live', table: 'm', since: text })
  expect(frame.since).toEqual(position[0])
  for (const other of ['1f2e3d4c-10.aa', `1f2e3d4c-10.aa!${proof}x`, `${text}!`]) expect(proofOf(other)).toBe(null)
  for (const wrong of [`1f2e3d4c-10.aa!${proof}x`, `${text}~1f2e3d4c-10.aa`, `!${proof}`])
    expect(readStreamPosition(wrong, wrong.split('~').length)).toBe(null)
})

test('every refusal that may be retried without a new token says when', () => {
  const log = createLog('silent')
  for (const [code, { retry }] of Object.entries(peerCodes)) {
    const refusal = refusalOf(new TidegateError(code as keyof typeof peerCodes, 'why'), log, () => 0.5)
    expect(refusal).toMatchObject({ code, message: 'why', retry: retry !== 'never' })
    expect(refusal.retryAfterMs !== undefined).toBe(retry === 'now' || retry === 'later')
  }
  const given = new TidegateError('GOING_AWAY', 'why', { retryAfterMs: 77 })
  expect(refusalOf(given, log, () => 0.5).retryAfterMs).toBe(77)
})

test.each(['short', 'x'.repeat(500), 'é'.repeat(500), '😀'.repeat(500)])('a close reason fits: %s', message => {
  const reason = closeReason({ code: 'BAD_FRAME', message })
  expect(Buffer.byteLength(reason)).toBeLessThan(123)
  expect(Buffer.from(reason).toString()).toBe(reason)
  expect(reason.startsWith(`BAD_FRAME: ${[...message].slice(0, 5).join('')}`)).toBe(true)
})

test('a bucket lets a burst pass, then so many a second, and forgives a clock that steps back', () => {
  const bucket = fullBucket(3, 1000)
  const take = (now: number) => takeToken(bucket, now, 10, 3)
  expect([1000, 1000, 1000, 1000].map(take)).toEqual([true, true, true, false])
  expect([1050, 1100, 1100].map(take)).toEqual([false, true, false])
  expect([500, 600, 600].map(take)).toEqual([false, true, false])
  expect([9000, 9000, 9000, 9000].map(take)).toEqual([true, true, true, false])
})

test('a peer is slow, silent, due, or none of these', () => {
  const pulse = (vitals: Partial<Parameters<typeof pulseOf>[0]>, now: number) =>
    pulseOf({ nextBeatAt: 100, heardAt: 0, stalledSince: null, ...vitals }, now, 100, 300)
  expect(pulse({}, 99)).toBe('none')
  expect(pulse({}, 100)).toBe('beat')
  expect(pulse({}, 200)).toBe('beat')
  expect(pulse({}, 201)).toBe('silent')
  expect(pulse({ heardAt: null }, 1000)).toBe('beat')
  expect(pulse({ heardAt: 550, stalledSince: 300 }, 599)).toBe('beat')
  expect(pulse({ heardAt: 550, stalledSince: 300 }, 600)).toBe('slow')
  expect(nextBeat(100, 105, 100)).toBe(200)
  expect(nextBeat(100, 1000, 100)).toBe(1050)
})
