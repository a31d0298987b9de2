import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  type Action,
  type ConnectionEvent,
  type ConnectionState,
  nextState,
  type Surroundings,
} from '../../src/client/connection-machine.ts'

const around: Surroundings = { now: 1_000_000, random: 0.5, renewable: true }

function run(events: ConnectionEvent[], given: Partial<Surroundings> = {}): { state: ConnectionState; last: Action[] } {
  let state: ConnectionState = { name: 'idle' }
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
const opened: ConnectionEvent = { name: 'opened' }
const welcome: ConnectionEvent = { name: 'welcome', heartbeatMs: 25_000, expiresAt: null }
const open = [start, token, opened, welcome]
const lost = (closeCode: number): ConnectionEvent => ({ name: 'lost', closeCode })
const retryDelay = (actions: Action[]): number | undefined =>
  actions.flatMap(action => (action.do === 'setTimer' && action.timer === 'retry' ? [action.afterMs] : []))[0]

test('the token goes in the first frame, and subscriptions after the welcome', () => {
  expect(run([start]).last).toEqual([{ do: 'fetchToken' }])
  expect(run([start, token]).last).toContainEqual({ do: 'openSocket' })
  expect(run([start, token, opened]).last).toEqual([{ do: 'sendAuth', token: 't' }])
  expect(run(open).last).toContainEqual({ do: 'subscribeAll' })
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
    const step = nextState(state, lost(1006), { ...around, random: 1 })
    expect(retryDelay([...step.actions])).toBe(bound)
    expect(retryDelay([...nextState(state, lost(1006), { ...around, random: 0 }).actions])).toBe(0)
    state = nextState(step.state, { name: 'timer', timer: 'retry', silentMs: 0 }, around).state
    expect(state.name).toBe('opening')
  }
})

test('a connection that held for a while starts from the first delay again', () => {
  let state = run(open).state
  state = nextState(state, lost(1006), around).state
  state = nextState(state, { name: 'timer', timer: 'retry', silentMs: 0 }, around).state
  state = nextState(state, welcome, around).state
  const step = nextState(state, lost(1006), { ...around, now: around.now + 5000, random: 1 })
  expect(retryDelay([...step.actions])).toBe(500)
})

test("the server's hint is the least delay; jitter comes on top", () => {
  const goingAway: ConnectionEvent = {
    name: 'error',
    error: { code: 'GOING_AWAY', message: 'bye', retry: true, retryAfterMs: 3000 },
  }
  expect(retryDelay(run([...open, goingAway, lost(4000)], { random: 1 }).last)).toBe(3500)
})

test('41xx without a hint waits at least a second', () => {
  expect(retryDelay(run([...open, lost(4100)], { random: 0 }).last)).toBe(1000)
})

test('42xx ends for good, with the reason the server gave', () => {
  const refused: ConnectionEvent = { name: 'error', error: { code: 'ROLE_REFUSED', message: 'no', retry: false } }
  expect(run([...open, refused, lost(4209)]).state).toEqual({
    name: 'refused',
    error: { code: 'ROLE_REFUSED', message: 'no' },
  })
})

test('43xx asks the callback for a new token; a constant token is refused', () => {
  const retry: ConnectionEvent = { name: 'timer', timer: 'retry', silentMs: 0 }
  expect(run([...open, lost(4302), retry]).last).toContainEqual({ do: 'fetchToken' })
  expect(run([...open, lost(4302)], { renewable: false }).state.name).toBe('refused')
  expect(run([...open, lost(1006), retry]).last).toContainEqual({ do: 'openSocket' })
})

test('a token is renewed in place ahead of its expiry', () => {
  const expiring: ConnectionEvent = { name: 'welcome', heartbeatMs: 25_000, expiresAt: around.now + 3_600_000 }
  const opening = [start, token, opened, expiring]
  expect(run(opening).last).toContainEqual({ do: 'setTimer', timer: 'renew', afterMs: 3_540_000 })
  const { state } = run(opening)
  const due = nextState(state, { name: 'timer', timer: 'renew', silentMs: 0 }, { ...around, now: 4_540_000 })
  expect(due.actions).toEqual([{ do: 'fetchToken' }])
  expect(nextState(due.state, { name: 'token', token: 'u' }, around).actions).toEqual([{ do: 'sendAuth', token: 'u' }])
})

test('a token that lives for years is not asked for at once', () => {
  const years: ConnectionEvent = { name: 'welcome', heartbeatMs: 25_000, expiresAt: around.now + 1e11 }
  const { state, last } = run([start, token, opened, years])
  expect(last).toContainEqual({ do: 'setTimer', timer: 'renew', afterMs: 2_000_000_000 })
  const piece = nextState(state, { name: 'timer', timer: 'renew', silentMs: 0 }, { ...around, now: 2_001_000_000 })
  expect(piece.actions).toEqual([{ do: 'setTimer', timer: 'renew', afterMs: 2_000_000_000 }])
})

test('two intervals of silence end the connection; a frame in between gives it the rest', () => {
  const watchdog = (silentMs: number): ConnectionEvent => ({ name: 'timer', timer: 'watchdog', silentMs })
  expect(run([...open, watchdog(10_000)]).last).toEqual([{ do: 'setTimer', timer: 'watchdog', afterMs: 40_000 }])
  const dead = run([...open, watchdog(50_000)])
  expect(dead.state.name).toBe('waiting')
  expect(dead.last).toContainEqual({ do: 'dropSocket' })
})

test('heartbeats begin at a random fraction of the interval, and go on', () => {
  expect(run(open, { random: 0.25 }).last).toContainEqual({ do: 'setTimer', timer: 'heartbeat', afterMs: 6250 })
  expect(run([...open, { name: 'timer', timer: 'heartbeat', silentMs: 0 }]).last).toEqual([
    { do: 'sendHeartbeat' },
    { do: 'setTimer', timer: 'heartbeat', afterMs: 25_000 },
  ])
})

test('a network that is back is used at once', () => {
  expect(run([...open, lost(1006), { name: 'online' }]).state.name).toBe('opening')
})

const anyEvent: fc.Arbitrary<ConnectionEvent> = fc.oneof(
  fc.constantFrom<ConnectionEvent>(
    start,
    token,
    opened,
    welcome,
    { name: 'refresh', withinMs: 10_000 },
    { name: 'online' },
    { name: 'stop' },
  ),
  fc.constant<ConnectionEvent>({ name: 'tokenFailed', message: 'no' }),
  fc.integer({ min: 1000, max: 4999 }).map(lost),
  fc.record({
    name: fc.constant('timer' as const),
    timer: fc.constantFrom('retry', 'handshake', 'watchdog', 'heartbeat', 'renew', 'refresh'),
    silentMs: fc.nat(100_000),
  }),
  fc.record({ name: fc.constant('authenticated' as const), expiresAt: fc.option(fc.nat()) }),
)

test('whatever happens in whatever order: never two sockets, and never stuck without a way on', () => {
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 60 }), fc.boolean(), (events, renewable) => {
      let state: ConnectionState = { name: 'idle' }
      let sockets = 0
      const timers = new Set<string>()
      let asked = false
      for (const event of events) {
        if (event.name === 'lost') {
          // Only a socket can be lost.
          if (sockets === 0) continue
          sockets = 0
        }
        if (event.name === 'timer' && !timers.delete(event.timer)) continue
        const step = nextState(state, event, { now: 1_000_000, random: 0.5, renewable })
        state = step.state
        for (const action of step.actions) {
          if (action.do === 'openSocket') sockets++
          if (action.do === 'dropSocket') sockets = 0
          if (action.do === 'clearTimers') timers.clear()
          if (action.do === 'setTimer') timers.add(action.timer)
          if (action.do === 'setTimer') expect(action.afterMs).toBeLessThanOrEqual(2_000_000_000)
          if (action.do === 'fetchToken') asked = true
        }
        expect(sockets).toBeLessThanOrEqual(1)
        if (state.name === 'waiting') expect(timers).toContain('retry')
        if (state.name === 'asking') expect(asked).toBe(true)
        if (state.name === 'opening') expect([sockets, timers.has('handshake')]).toEqual([1, true])
        if (state.name === 'open') expect([sockets, timers.has('watchdog')]).toEqual([1, true])
        if (state.name === 'refused' || state.name === 'closed') expect([sockets, timers.size]).toEqual([0, 0])
      }
    }),
  )
})
