// What each order means for each token and connection: tables, and what holds for all.
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import { carryOut, endOutdated, tellToRefresh } from '../../../src/server/orders/carry-out.ts'
import {
  isAgainst,
  type Kick,
  type Order,
  orderColumns,
  orderOf,
  type Refresh,
  type Revocation,
  restOfSecond,
  tokenOf,
} from '../../../src/server/orders/order.ts'
import { OrdersInForce } from '../../../src/server/orders/orders-in-force.ts'
import type { OrderedConnection, OrderTargets } from '../../../src/server/orders/targets.ts'
import { QueryRow } from '../../../src/server/snapshot/query-row.ts'

/** 12:00:00.400 */
const orderedAtMs = Date.parse('2026-05-04T12:00:00.400Z')
const second = Math.floor(orderedAtMs / 1000)
const common = { id: '1', orderedAtMs, untilMs: Number.POSITIVE_INFINITY, reason: null }
const kick = (more: Partial<Kick>): Kick => ({
  ...common,
  kind: 'kick',
  sub: null,
  connection: null,
  topic: null,
  jti: null,
  retryAfterMs: null,
  ...more,
})
const revoke = (more: Partial<Revocation>): Revocation => ({ ...common, kind: 'revoke', sub: null, jti: null, ...more })
const refresh = (more: Partial<Refresh> = {}): Refresh => ({
  ...common,
  kind: 'refresh',
  sub: 'ada',
  withinMs: 10_000,
  ...more,
})
const token = (claims: Record<string, unknown>) => tokenOf({ claims })

test.each([
  ['the second before', second - 1, true],
  ['the same second: perhaps before it', second, true],
  ['within the same second', second + 0.9, true],
  ['the next second', second + 1, false],
  ['a clock ahead', second + 500, false],
  ['no iat: as if issued at 0', undefined, true],
  ['an iat that is no number', 'yesterday', true],
  ['an iat without end', Number.POSITIVE_INFINITY, true],
])('a token issued at %s counts as older: %s %s', (_, iat, isOlder) => {
  const issued = token({ sub: 'ada', iat })
  expect(isAgainst(revoke({ sub: 'ada' }), issued)).toBe(isOlder)
  expect(isAgainst(refresh(), issued)).toBe(isOlder)
})

test.each([
  ['another user', { sub: 'bob', iat: 0 }, false],
  ['no user', { iat: 0 }, false],
  ['a user whose name is a number', { sub: 7, iat: 0 }, false],
])('a revocation of a user is not against a token of %s', (_, claims, expected) => {
  expect(isAgainst(revoke({ sub: 'ada' }), token(claims))).toBe(expected)
})

test('a user whose name is a number is named by its text', () => {
  expect(isAgainst(revoke({ sub: '7' }), token({ sub: 7, iat: 0 }))).toBe(true)
})

test.each([
  ['that token, whenever it was issued', { sub: 'ada', jti: 't1', iat: second + 100 }, true],
  ['another token of the same user', { sub: 'ada', jti: 't2', iat: 0 }, false],
  ['a token without an id', { sub: 'ada', iat: 0 }, false],
])('a revocation of a token is for %s', (_, claims, expected) => {
  expect(isAgainst(revoke({ jti: 't1' }), token(claims))).toBe(expected)
})

test('the rest of the second in which an order was given', () => {
  expect(restOfSecond({ orderedAtMs })).toBe(600)
  expect(restOfSecond({ orderedAtMs: second * 1000 })).toBe(1000)
})

describe('orders in force', () => {
  const verdict = (orders: readonly (Order & { deadlineMs?: number })[], claims: object, nowMs = orderedAtMs) => {
    const inForce = new OrdersInForce()
    for (const order of orders) inForce.put(order, order.deadlineMs ?? 0)
    const found = inForce.verdictOn(token({ ...claims }), nowMs)
    return found?.kind === 'refused' ? found.error.code : (found?.withinMs ?? null)
  }
  const deadlineMs = orderedAtMs + 10_600
  const older = { sub: 'ada', jti: 't1', iat: second - 60 }

  test.each([
    ['none', [], orderedAtMs, null],
    ['a revocation of the user', [revoke({ sub: 'ada' })], orderedAtMs, 'TOKEN_REVOKED'],
    ['a revocation of the token', [revoke({ jti: 't1' })], orderedAtMs, 'TOKEN_REVOKED'],
    ['one of another user', [revoke({ sub: 'bob' })], orderedAtMs, null],
    ['one that is over', [revoke({ sub: 'ada', untilMs: orderedAtMs })], orderedAtMs, null],
    ['one that ends in a moment', [revoke({ sub: 'ada', untilMs: orderedAtMs + 1 })], orderedAtMs, 'TOKEN_REVOKED'],
    ['a kick', [kick({ sub: 'ada' })], orderedAtMs, null],
    ['a refresh just given', [{ ...refresh(), deadlineMs }], orderedAtMs, 10_600],
    ['a refresh a moment before its end', [{ ...refresh(), deadlineMs }], deadlineMs - 1, 1],
    ['a refresh whose time is over', [{ ...refresh(), deadlineMs }], deadlineMs, 'TOKEN_OUTDATED'],
    ['a refresh that is over', [{ ...refresh({ untilMs: deadlineMs }), deadlineMs }], deadlineMs, null],
    [
      'two refreshes, of which one is due',
      [
        { ...refresh({ id: '1' }), deadlineMs: orderedAtMs + 500 },
        { ...refresh({ id: '2' }), deadlineMs },
      ],
      orderedAtMs,
      500,
    ],
    [
      'a refresh and a revocation',
      [{ ...refresh(), deadlineMs }, revoke({ id: '2', sub: 'ada' })],
      orderedAtMs,
      'TOKEN_REVOKED',
    ],
  ] as const)('%s', (_, orders, nowMs, expected) => {
    expect(verdict(orders, older, nowMs)).toBe(expected)
    expect(verdict(orders, { sub: 'carl', iat: 0 }, nowMs)).toBe(null)
  })

  test('the reason is told', () => {
    const inForce = new OrdersInForce()
    inForce.put(revoke({ sub: 'ada', reason: 'your password was changed' }), 0)
    const found = inForce.verdictOn(token(older), orderedAtMs)
    expect(found).toMatchObject({
      kind: 'refused',
      error: { message: expect.stringContaining('password was changed') },
    })
  })

  test('[P7] after any orders given, replaced and taken back, a token meets what a walk over those left says', () => {
    const subs = fc.constantFrom('ada', 'bob', 'carl')
    const given = fc.record({
      id: fc.integer({ min: 0, max: 8 }).map(String),
      what: fc.oneof(
        subs.map(sub => revoke({ sub })),
        fc.constantFrom('t1', 't2').map(jti => revoke({ jti })),
        subs.map(sub => refresh({ sub })),
        subs.map(sub => kick({ sub })),
      ),
      isGiven: fc.boolean(),
      lastsMs: fc.constantFrom(-1, 0, 1, 1000),
      atMs: fc.constantFrom(orderedAtMs - 2000, orderedAtMs, orderedAtMs + 2000),
    })
    const claims = fc.record({
      sub: subs,
      jti: fc.constantFrom('t1', 't2', undefined),
      iat: fc.integer({ min: second - 3, max: second + 3 }),
    })
    fc.assert(
      fc.property(fc.array(given, { maxLength: 20 }), claims, (steps, claimed) => {
        const inForce = new OrdersInForce()
        const left = new Map<string, Order>()
        for (const { id, what, isGiven, lastsMs, atMs } of steps) {
          if (isGiven) {
            const order = { ...what, id, orderedAtMs: atMs, untilMs: orderedAtMs + lastsMs }
            inForce.put(order, orderedAtMs + 50)
            left.set(id, order)
          } else {
            inForce.delete(id)
            left.delete(id)
          }
        }
        const against = [...left.values()].filter(
          order => order.kind !== 'kick' && order.untilMs > orderedAtMs && isAgainst(order, token(claimed)),
        )
        const expected = against.some(({ kind }) => kind === 'revoke')
          ? 'refused'
          : against.length > 0
            ? 'outdated'
            : undefined
        expect(inForce.verdictOn(token(claimed), orderedAtMs)?.kind).toBe(expected)
        expect(inForce.size).toBe(left.size)
        for (const id of [...inForce.ids]) inForce.delete(id)
        expect(inForce.verdictOn(token(claimed), orderedAtMs)).toBe(null)
      }),
    )
  })
})

describe('carrying out', () => {
  const people = [
    ['c1', { sub: 'ada', jti: 't1', iat: second - 5 }],
    ['c2', { sub: 'ada', jti: 't2', iat: second + 5 }],
    ['c3', { sub: 'bob', jti: 't3', iat: second - 5 }],
    ['c4', null],
  ] as const

  function world() {
    const told: string[] = []
    const connections = people.map(
      ([name, claims]): OrderedConnection => ({
        name,
        principal: claims === null ? null : { role: 'authenticated', claims, expiresAt: null },
        goAway: ({ code, retryAfterMs }: TidegateError) => told.push(`${name} goes: ${code} ${retryAfterMs ?? '-'}`),
        cutOff: ({ code, retryAfterMs }: TidegateError) => told.push(`${name} cut off: ${code} ${retryAfterMs ?? '-'}`),
        refresh: withinMs => told.push(`${name} refreshes within ${withinMs}`),
      }),
    )
    const targets: OrderTargets = {
      connections: {
        ofUser: sub => connections.filter(({ principal }) => principal?.claims.sub === sub),
        named: name => connections.filter(connection => connection.name === name),
        all: () => connections,
      },
      channels: { kick: (whom, { code }) => told.push(`channels: ${JSON.stringify(whom)} ${code}`) },
    }
    return { told, targets }
  }

  test.each<[string, Order[], string[]]>([
    [
      'a kick of a user',
      [kick({ sub: 'ada', retryAfterMs: 60_000 })],
      ['c1 cut off: KICKED 60000', 'c2 cut off: KICKED 60000'],
    ],
    ['a kick of a connection', [kick({ connection: 'c3' })], ['c3 cut off: KICKED -']],
    ['a kick of a connection of another user', [kick({ connection: 'c3', sub: 'ada' })], []],
    ['a kick of a token', [kick({ jti: 't2' })], ['c2 cut off: KICKED -']],
    ['a kick of a token of another user', [kick({ jti: 't2', sub: 'bob' })], []],
    ['a kick of nobody who is here', [kick({ sub: 'carl' }), kick({ connection: 'c9' }), kick({ jti: 't9' })], []],
    ['a kick of a connection whose token is not verified', [kick({ connection: 'c4' })], []],
    [
      'a kick from a topic',
      [kick({ topic: 'room:42' }), kick({ topic: 'room:42', sub: 'ada' })],
      [
        'channels: {"sub":null,"connection":null,"topic":"room:42"} KICKED',
        'channels: {"sub":"ada","connection":null,"topic":"room:42"} KICKED',
      ],
    ],
    ['a revocation of a user', [revoke({ sub: 'ada' })], ['c1 cut off: TOKEN_REVOKED -']],
    ['a revocation of a token', [revoke({ jti: 't3' })], ['c3 cut off: TOKEN_REVOKED -']],
    [
      'several of tokens at once',
      [revoke({ jti: 't3' }), kick({ jti: 't1' }), revoke({ jti: 't9' })],
      ['c1 cut off: KICKED -', 'c3 cut off: TOKEN_REVOKED -'],
    ],
    ['a refresh, whose time is to come', [refresh()], []],
  ])('%s', (_, orders, expected) => {
    const { told, targets } = world()
    const ended = carryOut(orders, targets)
    expect(told).toEqual(expected)
    expect(ended).toBe(expected.filter(line => line.startsWith('c') && !line.startsWith('channels')).length)
  })

  test('a refresh is told to holders of older tokens, and ends those who still hold them', () => {
    const { told, targets } = world()
    tellToRefresh(refresh(), 9400, targets)
    endOutdated(refresh(), targets)
    expect(told).toEqual(['c1 refreshes within 9400', 'c1 goes: TOKEN_OUTDATED -'])
  })
})

test('a row says what was ordered, whatever the order of its columns, and a kind of a newer version is left alone', () => {
  const values: Record<string, string | null> = {
    id: '7',
    kind: 'kick',
    sub: 'ada',
    connection: null,
    topic: 'room:42',
    jti: null,
    retry_after_ms: '60000',
    within_ms: null,
    reason: 'spam',
    ordered_at: '2026-05-04 12:00:00.4+00',
    until: 'infinity',
  }
  const read = (names: readonly string[], more: Record<string, string | null> = {}) =>
    orderOf(
      new QueryRow(names.map(name => ({ ...values, ...more })[name] ?? null)),
      orderColumns.map(name => names.indexOf(name)),
    )
  const order = kick({ id: '7', sub: 'ada', topic: 'room:42', retryAfterMs: 60_000, reason: 'spam' })
  expect(read(orderColumns)).toEqual(order)
  expect(read([...orderColumns].reverse())).toEqual(order)
  expect(read(orderColumns.filter(name => name !== 'reason'))).toEqual({ ...order, reason: null })
  expect(read(orderColumns, { kind: 'pardon' })).toBe(null)
  expect(read(orderColumns, { kind: 'refresh', within_ms: '10000', until: '2026-05-04 13:00:00+00' })).toEqual(
    refresh({ id: '7', reason: 'spam', untilMs: Date.parse('2026-05-04T13:00:00Z') }),
  )
})
