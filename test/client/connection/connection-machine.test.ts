import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  type Action,
  type ConnectionEvent,
  type ConnectionState,
  idle,
  nextState,
  type Surroundings,
} from '../../../src/client/connection/connection-machine.ts'
import { firstRung, rememberedRung } from '../../../src/client/connection/ladder.ts'
import type { Retry } from '../../../src/protocol/codes.ts'
import type { ErrorEvent } from '../../../src/protocol/messages.ts'

const around: Surroundings = { now: 1_000_000, random: 0.5, renewable: true, rungs: 3, online: true }

function run(events: ConnectionEvent[], given: Partial<Surroundings> = {}): { state: ConnectionState; last: Action[] } {
  let state: ConnectionState = idle()
  let last: Action[] = []
  for (const event of events) {
    const step = nextState(state, event, { ...around, ...given })
    state = step.state
    last = [...step.actions]
  }
  return { state, last }
}

const start: ConnectionEvent = { name: 'start' }
const token: ConnectionEvent = { name: 'token', token: 't' }
const welcome: ConnectionEvent = { name: 'welcome', heartbeatMs: 25_000, expiresAt: null }
const open = [start, token, welcome]
const lost = (retry: Retry = 'now', error: ErrorEvent | null = null): ConnectionEvent => ({
  name: 'lost',
  loss: { error, retry },
})
const restarting: ErrorEvent = { code: 'GOING_AWAY', message: 'bye', retry: true }
const retryDelay = (actions: Action[]): number | undefined =>
  actions.flatMap(action => (action.do === 'setTimer' && action.timer === 'retry' ? [action.afterMs] : []))[0]

test('the token is there before a transport is opened, and subscriptions go after the welcome', () => {
  expect(run([start]).last).toContainEqual({ do: 'fetchToken' })
  expect(run([start, token]).last).toContainEqual({ do: 'open', rung: 0, token: 't' })
  expect(run(open).last).toContainEqual({ do: 'enterAll' })
})

test('a callback that never gives a token is asked again after half a minute', () => {
  expect(run([start]).last).toContainEqual({ do: 'setTimer', timer: 'handshake', afterMs: 30_000 })
  const late: ConnectionEvent = { name: 'timer', timer: 'handshake', silentMs: 0 }
  expect(run([start, late]).state).toMatchObject({ name: 'waiting', error: { code: 'TOKEN_UNAVAILABLE' } })
})

test('where newer claims are asked for, another token is fetched within the time and sent over the same connection', () => {
  const refresh: ConnectionEvent = { name: 'refresh', withinMs: 10_000 }
  const wait: Action = { do: 'setTimer', timer: 'refresh', afterMs: 500 }
  expect(run([...open, refresh]).last).toEqual([wait])
  expect(run([...open, { ...refresh, withinMs: 1000 }]).last).toEqual([{ ...wait, afterMs: 125 }])
  const due: ConnectionEvent = { name: 'timer', timer: 'refresh', silentMs: 0 }
  expect(run([...open, refresh, due]).last).toEqual([{ do: 'fetchToken' }])
  expect(run([...open, refresh, due, token])).toMatchObject({ state: { name: 'open' }, last: [{ do: 'sendAuth' }] })
  expect(run([...open, refresh], { renewable: false }).last).toEqual([])
})

test('the delay before a reconnect is full jitter under a doubling bound, at most 20 s', () => {
  let state = run(open).state
  for (const bound of [500, 1000, 2000, 4000, 8000, 16_000, 20_000, 20_000]) {
    const step = nextState(state, lost(), { ...around, random: 1 })
    expect(retryDelay([...step.actions])).toBe(bound)
    expect(step.state).toMatchObject({ retryAt: around.now + bound })
    expect(retryDelay([...nextState(state, lost(), { ...around, random: 0 }).actions])).toBe(0)
    state = nextState(step.state, { name: 'timer', timer: 'retry', silentMs: 0 }, around).state
    expect(state.name).toBe('opening')
  }
})

test('a connection that held for a while starts from the first delay again', () => {
  let state = run(open).state
  state = nextState(state, lost(), around).state
  state = nextState(state, { name: 'timer', timer: 'retry', silentMs: 0 }, around).state
  state = nextState(state, welcome, around).state
  const step = nextState(state, lost(), { ...around, now: around.now + 5000, random: 1 })
  expect(retryDelay([...step.actions])).toBe(500)
})

test("the server's hint is the least delay; jitter comes on top", () => {
  const goingAway = lost('now', { ...restarting, retryAfterMs: 3000 })
  expect(retryDelay(run([...open, goingAway], { random: 1 }).last)).toBe(3500)
})

test('41xx without a hint waits at least a second', () => {
  expect(retryDelay(run([...open, lost('later')], { random: 0 }).last)).toBe(1000)
})

test('42xx ends for good, with the reason the server gave', () => {
  expect(run([...open, lost('never', { code: 'ROLE_REFUSED', message: 'no', retry: false })]).state).toEqual({
    name: 'refused',
    error: { code: 'ROLE_REFUSED', message: 'no' },
    ladder: firstRung,
  })
})

test('43xx asks the callback for a new token; a constant token is refused', () => {
  const retry: ConnectionEvent = { name: 'timer', timer: 'retry', silentMs: 0 }
  expect(run([...open, lost('token'), retry]).last).toContainEqual({ do: 'fetchToken' })
  expect(run([...open, lost('token')], { renewable: false }).state.name).toBe('refused')
  expect(run([...open, lost(), retry]).last).toContainEqual({ do: 'open', rung: 0, token: 't' })
})

test('a token that expired while the machine slept is not tried again', () => {
  const soon: ConnectionEvent = { ...welcome, expiresAt: around.now + 60_000 }
  const { state } = run([start, token, soon, lost()])
  expect(nextState(state, { name: 'awake' }, around).state.name).toBe('opening')
  expect(nextState(state, { name: 'awake' }, { ...around, now: around.now + 3_600_000 }).state.name).toBe('asking')
})

test('a renewal that the server could not check is tried again in half the time that is left', () => {
  const soon: ConnectionEvent = { ...welcome, expiresAt: around.now + 60_000 }
  const busy: ConnectionEvent = { name: 'error', error: { code: 'UNAVAILABLE', message: 'no keys', retry: true } }
  expect(run([start, token, soon, busy]).last).toEqual([{ do: 'setTimer', timer: 'renew', afterMs: 30_000 }])
})

test('a token is renewed in place ahead of its expiry', () => {
  const expiring: ConnectionEvent = { name: 'welcome', heartbeatMs: 25_000, expiresAt: around.now + 3_600_000 }
  const opening = [start, token, expiring]
  expect(run(opening).last).toContainEqual({ do: 'setTimer', timer: 'renew', afterMs: 3_540_000 })
  const { state } = run(opening)
  const due = nextState(state, { name: 'timer', timer: 'renew', silentMs: 0 }, { ...around, now: 4_540_000 })
  expect(due.actions).toEqual([{ do: 'fetchToken' }])
  expect(nextState(due.state, { name: 'token', token: 'u' }, around).actions).toEqual([{ do: 'sendAuth', token: 'u' }])
})

test('a token that lives for years is not asked for at once', () => {
  const years: ConnectionEvent = { name: 'welcome', heartbeatMs: 25_000, expiresAt: around.now + 1e11 }
  const { state, last } = run([start, token, years])
  expect(last).toContainEqual({ do: 'setTimer', timer: 'renew', afterMs: 2_000_000_000 })
  const piece = nextState(state, { name: 'timer', timer: 'renew', silentMs: 0 }, { ...around, now: 2_001_000_000 })
  expect(piece.actions).toEqual([{ do: 'setTimer', timer: 'renew', afterMs: 2_000_000_000 }])
})

test('two intervals of silence end the connection; a frame in between gives it the rest', () => {
  const watchdog = (silentMs: number): ConnectionEvent => ({ name: 'timer', timer: 'watchdog', silentMs })
  expect(run([...open, watchdog(10_000)]).last).toEqual([{ do: 'setTimer', timer: 'watchdog', afterMs: 40_000 }])
  const dead = run([...open, watchdog(50_000)])
  expect(dead.state.name).toBe('waiting')
  expect(dead.last).toContainEqual({ do: 'drop' })
})

test('heartbeats begin at a random fraction of the interval, and go on', () => {
  expect(run(open, { random: 0.25 }).last).toContainEqual({ do: 'setTimer', timer: 'heartbeat', afterMs: 6250 })
  expect(run([...open, { name: 'timer', timer: 'heartbeat', silentMs: 0 }]).last).toEqual([
    { do: 'sendHeartbeat' },
    { do: 'setTimer', timer: 'heartbeat', afterMs: 25_000 },
  ])
})

test("a page in the background, whose timers are slowed down, beats when the server's heartbeat comes", () => {
  expect(run([...open, { name: 'beat' }]).last).toEqual([
    { do: 'sendHeartbeat' },
    { do: 'setTimer', timer: 'heartbeat', afterMs: 25_000 },
  ])
})

test('a network that is back is used at once', () => {
  expect(run([...open, lost(), { name: 'awake' }]).state.name).toBe('opening')
})

test('who logs out is forgotten, and may begin anew', () => {
  const out = run([...open, { name: 'reset' }])
  expect(out).toEqual({ state: idle(), last: [{ do: 'clearTimers' }, { do: 'drop' }] })
  expect(nextState(out.state, start, around).state).toMatchObject({ name: 'asking', token: null })
})

test('a transport that was probed and carries is changed to, from where everything stands', () => {
  const reason = { code: 'HEARTBEAT_MISSED', message: 'silent' }
  let state = idle(rememberedRung(1, reason))
  for (const event of open) state = nextState(state, event, around).state
  const due = nextState(state, { name: 'timer', timer: 'probe', silentMs: 0 }, around)
  expect(due.actions).toEqual([{ do: 'probe', rung: 0, token: 't' }])
  const stillNot = nextState(state, { name: 'probed', rung: 0, carries: false }, around)
  expect(stillNot.actions).toEqual([{ do: 'setTimer', timer: 'probe', afterMs: 22_500 }])
  const up = nextState(state, { name: 'probed', rung: 0, carries: true }, around)
  expect(up.state).toMatchObject({ name: 'opening', ladder: { rung: 0, reason: null } })
  expect(up.actions).toContainEqual({ do: 'drop' })
  expect(up.actions.at(-2)).toEqual({ do: 'open', rung: 0, token: 't' })
})

const anyEvent: fc.Arbitrary<ConnectionEvent> = fc.oneof(
  fc.constantFrom<ConnectionEvent>(
    start,
    token,
    welcome,
    { name: 'refresh', withinMs: 10_000 },
    { name: 'beat' },
    { name: 'awake' },
    { name: 'reset' },
    { name: 'stop' },
    { name: 'error', error: restarting },
  ),
  fc.constant<ConnectionEvent>({ name: 'tokenFailed', message: 'no' }),
  fc
    .tuple(fc.constantFrom<Retry>('now', 'later', 'never', 'token'), fc.constantFrom(null, restarting))
    .map(([retry, error]) => lost(retry, error)),
  fc.record({
    name: fc.constant('timer' as const),
    timer: fc.constantFrom('retry', 'handshake', 'watchdog', 'heartbeat', 'renew', 'refresh', 'probe'),
    silentMs: fc.nat(100_000),
  }),
  fc.record({ name: fc.constant('probed' as const), rung: fc.nat(2), carries: fc.boolean() }),
  fc.record({ name: fc.constant('authenticated' as const), expiresAt: fc.option(fc.nat()) }),
)

/** One state of each name, and one event of each name. */
const states: ConnectionState[] = [
  idle(),
  run([...open, lost()]).state,
  run([start]).state,
  run([start, token]).state,
  run(open).state,
  run([...open, lost('never')]).state,
  run([...open, { name: 'stop' }]).state,
]
const events: ConnectionEvent[] = [
  start,
  token,
  { name: 'tokenFailed', message: 'no' },
  welcome,
  { name: 'authenticated', expiresAt: null },
  { name: 'refresh', withinMs: 1000 },
  { name: 'error', error: restarting },
  { name: 'beat' },
  lost(),
  { name: 'timer', timer: 'retry', silentMs: 0 },
  { name: 'timer', timer: 'handshake', silentMs: 0 },
  { name: 'probed', rung: 0, carries: true },
  { name: 'awake' },
  { name: 'reset' },
  { name: 'stop' },
]

test('each state at each event', () => {
  const after = states.map(state => [
    state.name,
    ...events.flatMap(event => {
      const { name } = nextState(state, event, around).state
      return name === state.name ? [] : [`${'timer' in event ? event.timer : event.name}: ${name}`]
    }),
  ])
  expect(after).toEqual([
    ['idle', 'start: asking', 'stop: closed'],
    ['waiting', 'retry: opening', 'awake: opening', 'reset: idle', 'stop: closed'],
    ['asking', 'token: opening', 'tokenFailed: waiting', 'handshake: waiting', 'reset: idle', 'stop: closed'],
    ['opening', 'welcome: open', 'lost: waiting', 'handshake: waiting', 'reset: idle', 'stop: closed'],
    ['open', 'lost: waiting', 'reset: idle', 'stop: closed'],
    ['refused', 'reset: idle', 'stop: closed'],
    ['closed'],
  ])
})

test('whatever happens in whatever order: never two transports, and never stuck without a way on', () => {
  fc.assert(
    fc.property(
      fc.array(anyEvent, { maxLength: 60 }),
      fc.record({ renewable: fc.boolean(), rungs: fc.integer({ min: 1, max: 3 }), online: fc.boolean() }),
      (history, given) => {
        let state: ConnectionState = idle()
        let open = 0
        const timers = new Set<string>()
        let asked = false
        for (const event of history) {
          if (event.name === 'lost') {
            // Only what is open can be lost.
            if (open === 0) continue
            open = 0
          }
          if (event.name === 'timer' && !timers.delete(event.timer)) continue
          const step = nextState(state, event, { now: 1_000_000, random: 0.5, ...given })
          state = step.state
          for (const action of step.actions) {
            if (action.do === 'open') open++
            if (action.do === 'open' || action.do === 'probe') expect(action.rung).toBeLessThan(given.rungs)
            if (action.do === 'drop') open = 0
            if (action.do === 'clearTimers') timers.clear()
            if (action.do === 'setTimer') timers.add(action.timer)
            if (action.do === 'setTimer') expect(action.afterMs).toBeLessThanOrEqual(2_000_000_000)
            if (action.do === 'fetchToken') asked = true
            expect(open).toBeLessThanOrEqual(1)
          }
          if (state.name === 'waiting') expect(timers).toContain('retry')
          if (state.name === 'asking') expect([asked, timers.has('handshake')]).toEqual([true, true])
          if (state.name === 'opening') expect([open, timers.has('handshake')]).toEqual([1, true])
          if (state.name === 'open') expect([open, timers.has('watchdog')]).toEqual([1, true])
          if (state.name === 'refused' || state.name === 'closed' || state.name === 'idle')
            expect([open, timers.size]).toEqual([0, 0])
        }
      },
    ),
  )
})
