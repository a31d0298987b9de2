import { expect, test } from 'vitest'
import type { ClientFrame } from '../../../src/protocol/messages.ts'
import { type Position, WHOLE_COMMIT } from '../../../src/protocol/position.ts'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import type { Accepted } from '../../../src/server/deliver/accepted.ts'
import { isDue, maxWaits, startSession, step } from '../../../src/server/deliver/session.ts'
import type { Effect, Session, SessionEvent } from '../../../src/server/deliver/session-parts.ts'
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
const join = (id: number, topic = 'room') => frame({ type: 'join', id, topic })
const acceptedChannel = (channel: number): Accepted => ({
  kind: 'channel',
  channel,
  tag: 't',
  resumed: false,
  position: '1f2e3d4c-1',
  history: false,
  maySend: true,
  warnings: [],
})
const wait = (ref: number, txid = '735') => frame({ type: 'wait', ref, txid })
const at: Position = { epoch: '1f2e3d4c', lsn: 1n, index: WHOLE_COMMIT }
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

const waits = Array.from({ length: maxWaits - 1 }, (_, ref) => wait(ref))

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
    'a channel is told before its events flow',
    [join(1), { type: 'joined', id: 1, join: 1, accepted: acceptedChannel(7) }],
    alice,
    'open',
    ['joined', 'open'],
  ],
  [
    'a query and a channel of one number are two',
    [
      subscribe(1),
      join(2),
      { type: 'joined', id: 1, join: 1, accepted: accepted(7) },
      { type: 'joined', id: 2, join: 2, accepted: acceptedChannel(7) },
    ],
    alice,
    'open',
    ['joined', 'open'],
  ],
  [
    'the same channel under another id is refused at once',
    [join(1), join(2)],
    alice,
    'open',
    ['refuse ALREADY_SUBSCRIBED'],
  ],
  ['another topic is another channel', [join(1), join(2, 'other')], alice, 'open', ['join']],
  [
    'what is sent before it was joined is asked in its turn',
    [join(1), frame({ type: 'send', id: 1, event: 'e' })],
    alice,
    'open',
    ['ask'],
  ],
  [
    'a query takes no messages',
    [subscribe(1), frame({ type: 'send', id: 1, event: 'e' })],
    alice,
    'open',
    ['refuse NOT_JOINED'],
  ],
  ['nor does nothing', [frame({ type: 'untrack', id: 1 })], alice, 'open', ['refuse NOT_JOINED']],
  ['a channel is left in turn', [join(1), frame({ type: 'unsubscribe', id: 1 })], alice, 'open', ['leaveInTurn']],
  [
    'one that was left while it was joined is left in turn too',
    [join(1), frame({ type: 'unsubscribe', id: 1 }), { type: 'joined', id: 1, join: 1, accepted: acceptedChannel(7) }],
    alice,
    'open',
    [],
  ],
  [
    'what was sent without a ref is answered only if it is refused',
    [join(1), { type: 'answered', id: 1, ref: null, answer: { type: 'tracked' } }],
    alice,
    'open',
    [],
  ],
  ['a transaction is waited for', [wait(1)], alice, 'open', ['wait']],
  [
    'once it has passed, the client is told where it stands, and then that it has',
    [wait(1), { type: 'waited', ref: 1, position: at }],
    alice,
    'open',
    ['beat', 'waited'],
  ],
  [
    'one that could not be waited for is refused, and nothing else',
    [wait(1), { type: 'notWaited', ref: 1, error: new TidegateError('WAIT_TIMEOUT', 'x') }],
    alice,
    'open',
    ['refuse WAIT_TIMEOUT'],
  ],
  ['what is no transaction is refused', [wait(1, 'x')], alice, 'open', ['refuse TXID_INVALID']],
  ['and takes no place', [...waits, wait(1, 'x')], alice, 'open', ['refuse TXID_INVALID']],
  ['[P7] as many as may be are waited for', waits, alice, 'open', ['wait']],
  ['[P7] one more is refused', [...waits, wait(1), wait(99)], alice, 'open', ['refuse RATE_LIMITED']],
  [
    '[P7] until another one is over, either way',
    [...waits, wait(98), { type: 'notWaited', ref: 98, error: new Error('x') }, wait(99)],
    alice,
    'open',
    ['wait'],
  ],
  ['a renewal gives no places', [...waits, wait(98), admitted, wait(99)], alice, 'open', ['refuse RATE_LIMITED']],
  ['before there is a token nothing is waited for', [wait(1)], null, 'closed', ['close TOKEN_MISSING']],
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
    wait(1),
    { type: 'waited', ref: 1, position: at },
    { type: 'notWaited', ref: 1, error: new Error('x') },
    { type: 'tick', now: 1e9, wallNow: 1e9 },
    { type: 'broken', error: new Error('x') },
    { type: 'disconnected', how: 'broken' },
  ]
  const states = starts.map(([principal, before]) =>
    events.map(event => after([...before, event], principal)[0]).join(' '),
  )
  expect(states).toEqual([
    'authenticating closed closed handshake handshake handshake handshake handshake closed handshake handshake closed closed closed',
    'authenticating authenticating authenticating authenticating open closed authenticating authenticating authenticating authenticating authenticating closed closed closed',
    'open open open open open open open open open open open closed closed closed',
    Array(events.length).fill('closed').join(' '),
  ])
})

test('a channel joined anew is told of what its client asked for last and was not refused', () => {
  const track = (meta: string) => frame({ type: 'track', id: 1, meta })
  const untrack = frame({ type: 'untrack', id: 1 })
  /** @param refused places of the asks that are */
  const trackAfter = (asks: SessionEvent[], refused: number[]): string | null | undefined => {
    let { session } = startSession(alice, 0, limits)
    const effects: Effect[] = []
    const take = (event: SessionEvent): void => {
      const taken = step(session, event, limits)
      session = taken.session
      effects.push(...taken.effects)
    }
    for (const event of [join(1), ...asks]) take(event)
    const asked = effects.flatMap(effect => (effect.do === 'ask' ? [effect.ask] : []))
    for (const place of refused)
      take({ type: 'notAnswered', id: 1, ref: null, ask: asked[place]!, error: new Error('x') })
    take({ type: 'admitted', principal: { ...alice, claims: { sub: 'alice', org: 2 } } })
    const rejoin = effects.find(effect => effect.do === 'rejoin')
    return rejoin?.request.kind === 'channel' ? (rejoin.request.track?.meta ?? null) : undefined
  }
  expect(trackAfter([], [])).toBe(null)
  expect(trackAfter([track('a'), track('b')], [])).toBe('"b"')
  expect(trackAfter([track('a'), untrack], [])).toBe(null)
  expect(trackAfter([track('a')], [0])).toBe(null)
  expect(trackAfter([track('a'), track('b')], [1])).toBe('"a"')
  expect(trackAfter([track('a'), track('b')], [0])).toBe('"b"')
})
