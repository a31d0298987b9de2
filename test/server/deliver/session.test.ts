import { expect, test } from 'vitest'
import type { ClientFrame } from '../../../src/protocol/messages.ts'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import type { Accepted } from '../../../src/server/deliver/accepted.ts'
import { isDue, type Session, type SessionEvent, startSession, step } from '../../../src/server/deliver/session.ts'
import type { Principal } from '../../../src/server/subscribe/subscription.ts'

const limits = { maxSubscriptions: 2, handshakeMs: 1000 }
const alice: Principal = { role: 'authenticated', claims: { sub: 'alice' }, expiresAt: 5000 }
const accepted = (query: number): Accepted => ({
  kind: 'query',
  query,
  tag: 't',
  key: ['id'],
  resumed: false,
  position: '1f2e3d4c-1',
  warnings: [],
})
const frame = (given: ClientFrame): SessionEvent => ({ type: 'frame', frame: given })
const subscribe = (id: number, table = 'messages') => frame({ type: 'subscribe', id, kind: 'live', table })
const admitted: SessionEvent = { type: 'admitted', principal: alice }

/** Where a session is after these events, and what was to be done at the last of them. */
function after(events: SessionEvent[], principal: Principal | null = alice): [string, string[], Session] {
  let { session, effects } = startSession(principal, 0, limits)
  for (const event of events) ({ session, effects } = step(session, event, limits))
  const names = effects.map(effect => {
    if (effect.do === 'send') return effect.frame.type
    const error = 'error' in effect && effect.error instanceof TidegateError ? ` ${effect.error.code}` : ''
    return effect.do + error
  })
  return [session.state, names, session]
}

const cases: [name: string, events: SessionEvent[], start: Principal | null, state: string, effects: string[]][] = [
  ['a token verified before the upgrade opens it', [], alice, 'open', ['welcome']],
  ['without one it waits', [], null, 'handshake', []],
  ['a heartbeat changes nothing', [frame({ type: 'heartbeat' })], null, 'handshake', []],
  ['before the deadline it waits on', [{ type: 'tick', now: 999, wallNow: 999 }], null, 'handshake', []],
  ['at the deadline it ends', [{ type: 'tick', now: 1000, wallNow: 1000 }], null, 'closed', ['close TOKEN_MISSING']],
  ['anything but auth ends it', [subscribe(1)], null, 'closed', ['close TOKEN_MISSING']],
  ['auth is checked', [frame({ type: 'auth', token: 'x' })], null, 'authenticating', ['authenticate']],
  ['and opens it', [frame({ type: 'auth', token: 'x' }), admitted], null, 'open', ['welcome']],
  [
    'what came meanwhile follows in order',
    [frame({ type: 'auth', token: 'x' }), subscribe(1), frame({ type: 'unsubscribe', id: 1 }), subscribe(1), admitted],
    null,
    'open',
    ['welcome', 'join', 'leave', 'unsubscribed', 'join'],
  ],
  [
    'a check that takes too long ends it',
    [frame({ type: 'auth', token: 'x' }), { type: 'tick', now: 1000, wallNow: 1000 }],
    null,
    'closed',
    ['close UNAVAILABLE'],
  ],
  ['before the expiry nothing happens', [{ type: 'tick', now: 4999, wallNow: 4999 }], alice, 'open', []],
  ['at the expiry it ends', [{ type: 'tick', now: 5000, wallNow: 5000 }], alice, 'closed', ['close TOKEN_EXPIRED']],
  [
    'two renewals at once end it',
    [frame({ type: 'auth', token: 'x' }), frame({ type: 'auth', token: 'y' })],
    alice,
    'closed',
    ['close BAD_FRAME'],
  ],
  ['an id in use ends it', [subscribe(1), subscribe(1, 'orders')], alice, 'closed', ['close BAD_FRAME']],
  [
    'one too many is refused',
    [subscribe(1), subscribe(2), subscribe(3)],
    alice,
    'open',
    ['refuse TOO_MANY_SUBSCRIPTIONS'],
  ],
  [
    'an accepted subscription is told before its events flow',
    [subscribe(1), { type: 'joined', id: 1, join: 1, accepted: accepted(7) }],
    alice,
    'open',
    ['subscribed', 'open'],
  ],
  [
    'the same query under another id is left and refused',
    [
      subscribe(1),
      subscribe(2),
      { type: 'joined', id: 1, join: 1, accepted: accepted(7) },
      { type: 'joined', id: 2, join: 2, accepted: accepted(7) },
    ],
    alice,
    'open',
    ['leave', 'refuse ALREADY_SUBSCRIBED'],
  ],
  [
    'an answer to an attempt given up is left',
    [
      subscribe(1),
      frame({ type: 'unsubscribe', id: 1 }),
      subscribe(1),
      { type: 'joined', id: 1, join: 1, accepted: accepted(7) },
    ],
    alice,
    'open',
    ['leave'],
  ],
  [
    'so is its end',
    [
      subscribe(1),
      frame({ type: 'unsubscribe', id: 1 }),
      subscribe(1),
      { type: 'ended', id: 1, join: 1, error: new TidegateError('BUSY', 'x') },
    ],
    alice,
    'open',
    [],
  ],
  [
    'new claims join every subscription anew',
    [subscribe(1), subscribe(2), { type: 'admitted', principal: { ...alice, claims: { sub: 'alice', org: 2 } } }],
    alice,
    'open',
    ['authenticated', 'rejoin', 'rejoin'],
  ],
  [
    'claims of minting do not',
    [subscribe(1), { type: 'admitted', principal: { ...alice, claims: { sub: 'alice', iat: 2, exp: 9, jti: 'z' } } }],
    alice,
    'open',
    ['authenticated'],
  ],
  [
    'a peer that leaves is abandoned',
    [subscribe(1), { type: 'disconnected', how: 'broken' }],
    alice,
    'closed',
    ['abandon'],
  ],
  ['nothing happens after the end', [{ type: 'disconnected', how: 'broken' }, subscribe(1)], alice, 'closed', []],
]

test.each(cases)('%s', (_name, events, start, state, effects) => {
  expect(after(events, start).slice(0, 2)).toEqual([state, effects])
})

test('[P7] a tick is due exactly when it does something, so that idle sockets need none', () => {
  const handshake = startSession(null, 0, limits).session
  const authenticating = step(handshake, frame({ type: 'auth', token: 'x' }), limits).session
  const open = startSession(alice, 0, limits).session
  const forever = startSession({ ...alice, expiresAt: null }, 0, limits).session
  const sessions: Session[] = [handshake, authenticating, open, forever, { state: 'closed' }]
  const due = sessions.map(session => [0, 999, 1000, 4999, 5000, 1e12].filter(now => isDue(session, now, now)))
  expect(due).toEqual([[1000, 4999, 5000, 1e12], [1000, 4999, 5000, 1e12], [5000, 1e12], [], []])
  for (const session of sessions) {
    for (const now of [0, 999, 1000, 4999, 5000, 1e12]) {
      expect(step(session, { type: 'tick', now, wallNow: now }, limits).effects.length > 0).toBe(
        isDue(session, now, now),
      )
    }
  }
})

test('the function is total: every event is answered in every state, and a closed session stays closed', () => {
  const starts: [Principal | null, SessionEvent[]][] = [
    [null, []],
    [null, [frame({ type: 'auth', token: 'x' })]],
    [alice, []],
    [alice, [{ type: 'disconnected', how: 'broken' }]],
  ]
  const events: SessionEvent[] = [
    frame({ type: 'auth', token: 'x' }),
    subscribe(1),
    frame({ type: 'unsubscribe', id: 1 }),
    frame({ type: 'heartbeat' }),
    admitted,
    { type: 'notAdmitted', error: new Error('x') },
    { type: 'joined', id: 1, join: 1, accepted: accepted(1) },
    { type: 'ended', id: 1, join: 1, error: new Error('x') },
    { type: 'tick', now: 1e9, wallNow: 1e9 },
    { type: 'broken', error: new Error('x') },
    { type: 'disconnected', how: 'broken' },
  ]
  const states = starts.map(([principal, before]) =>
    events.map(event => after([...before, event], principal)[0]).join(' '),
  )
  expect(states).toEqual([
    'authenticating closed closed handshake handshake handshake handshake handshake closed closed closed',
    'authenticating authenticating authenticating authenticating open closed authenticating authenticating closed closed closed',
    'open open open open open open open open closed closed closed',
    Array(events.length).fill('closed').join(' '),
  ])
})
