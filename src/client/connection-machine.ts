// How one connection lives: a total function from (state, event) to (state, actions). It opens no socket and reads no
// clock; connection.ts does what the actions say and comes back with what happened.
//
//   idle ─start─▶ asking ─token─▶ opening ─welcome─▶ open ─┐
//                   ▲                                       │ closed, silent
//                   └──────── retry, online ◀── waiting ◀───┘          refused: nothing helps but the user · closed
import { retryOfClose } from '../protocol/codes.ts'
import type { ErrorEvent } from '../protocol/messages.ts'
import type { Refusal } from './status.ts'

/** What every state that tries to connect remembers. */
interface Trying {
  /** Failed attempts since the connection was last stable. */
  readonly attempt: number
  /** Null: ask for one before the next attempt. */
  readonly token: string | null
  /** The last thing that went wrong, until the connection is open again. */
  readonly error: Refusal | null
}

export type ConnectionState =
  | { readonly name: 'idle' }
  | ({ readonly name: 'waiting' } & Trying)
  | ({ readonly name: 'asking' } & Trying)
  /** From opening the socket to the server's welcome. `hintMs` is when the server said to come back. */
  | ({ readonly name: 'opening'; readonly hintMs: number | null } & Trying)
  | ({
      readonly name: 'open'
      readonly openedAt: number
      readonly heartbeatMs: number
      readonly expiresAt: number | null
      readonly hintMs: number | null
    } & Trying)
  | { readonly name: 'refused'; readonly error: Refusal }
  | { readonly name: 'closed' }

export type ConnectionEvent =
  | { readonly name: 'start' }
  | { readonly name: 'token'; readonly token: string }
  | { readonly name: 'tokenFailed'; readonly message: string }
  | { readonly name: 'opened' }
  | { readonly name: 'welcome'; readonly heartbeatMs: number; readonly expiresAt: number | null }
  | { readonly name: 'authenticated'; readonly expiresAt: number | null }
  /** The server wants a token with newer claims within this time, or it closes. */
  | { readonly name: 'refresh'; readonly withinMs: number }
  /** An error frame that belongs to no subscription: it announces why the server is about to close. */
  | { readonly name: 'error'; readonly error: ErrorEvent }
  | { readonly name: 'lost'; readonly closeCode: number }
  /** The time of one of the timers has come. `silentMs`: since the last frame of the server. */
  | { readonly name: 'timer'; readonly timer: Timer; readonly silentMs: number }
  /** The machine is on a network again, or the page is looked at again. */
  | { readonly name: 'online' }
  | { readonly name: 'stop' }

/** Each name has one timer: setting it again replaces it. Leaving the states of a socket clears them all. */
export type Timer = 'retry' | 'handshake' | 'watchdog' | 'heartbeat' | 'renew' | 'refresh'

export type Action =
  | { readonly do: 'fetchToken' }
  | { readonly do: 'openSocket' }
  | { readonly do: 'dropSocket' }
  | { readonly do: 'sendAuth'; readonly token: string }
  | { readonly do: 'sendHeartbeat' }
  /** The server takes subscriptions now. */
  | { readonly do: 'subscribeAll' }
  | { readonly do: 'setTimer'; readonly timer: Timer; readonly afterMs: number }
  | { readonly do: 'clearTimers' }

export interface Surroundings {
  /** Milliseconds since 1970. */
  readonly now: number
  /** From 0 to 1, new for each event. */
  readonly random: number
  /** False: the token is a constant, asking again gives the same. */
  readonly renewable: boolean
}

export interface Step {
  readonly state: ConnectionState
  readonly actions: readonly Action[]
}

/** Full jitter between 0 and min(cap, base * 2^attempt): anything less random brings a crowd back in waves. */
const baseDelayMs = 500
const maxDelayMs = 20_000
/** "Come back later" without a hint waits at least so long. */
const laterMs = 1000
/** A connection that held so long was good: the next loss starts from attempt 0. */
const stableMs = 5000
const handshakeMs = 15_000
/** Renew so long before the token expires, or at four fifths of a short life. */
const renewLeadMs = 60_000
const refreshSpreadMs = 1000
/** setTimeout takes no more than 31 bits, and fires at once when given more. */
const longestTimerMs = 2_000_000_000

type Of<U extends { name: string }, N extends U['name']> = Extract<U, { name: N }>
/** What a state does at each event; an event it does not name changes nothing. */
type Row<S extends ConnectionState['name']> = {
  readonly [E in ConnectionEvent['name']]?: (
    state: Of<ConnectionState, S>,
    event: Of<ConnectionEvent, E>,
    around: Surroundings,
  ) => Step
}

// A state without a row does not compile.
const table: { readonly [S in ConnectionState['name']]: Row<S> } = {
  idle: {
    start: () => ask({ attempt: 0, token: null, error: null }, []),
    stop: () => ({ state: { name: 'closed' }, actions: [] }),
  },
  waiting: {
    timer: (state, event) => (event.timer === 'retry' ? connect(state) : stay(state)),
    online: state => connect(state),
    stop: () => close(),
  },
  asking: {
    token: (state, event) => open({ ...state, token: event.token }),
    tokenFailed: (state, event, around) =>
      wait({ ...state, error: { code: 'TOKEN_UNAVAILABLE', message: event.message } }, null, 'later', around),
    stop: () => close(),
  },
  opening: {
    opened: state => ({ state, actions: state.token === null ? [] : [{ do: 'sendAuth', token: state.token }] }),
    welcome: (state, event, around) => {
      const { heartbeatMs, expiresAt } = event
      return {
        state: { ...state, name: 'open', openedAt: around.now, heartbeatMs, expiresAt, hintMs: null, error: null },
        actions: [
          { do: 'clearTimers' },
          { do: 'setTimer', timer: 'watchdog', afterMs: 2 * heartbeatMs },
          // The first at a random fraction: clients that came together would beat together for ever.
          { do: 'setTimer', timer: 'heartbeat', afterMs: around.random * heartbeatMs },
          ...renewal(expiresAt, around),
          { do: 'subscribeAll' },
        ],
      }
    },
    error: (state, event) => ({ state: { ...state, ...told(event.error) }, actions: [] }),
    lost: (state, event, around) => afterClose(state, event.closeCode, around),
    timer: (state, event, around) =>
      event.timer === 'handshake' ? wait({ ...state, error: silent }, null, 'now', around) : stay(state),
    stop: () => close(),
  },
  open: {
    authenticated: (state, event, around) => ({
      state: { ...state, expiresAt: event.expiresAt },
      actions: [...renewal(event.expiresAt, around)],
    }),
    // Spread: a callback that gives the old token once more is asked for again, and not in a tight loop.
    refresh: (state, event, around) => {
      if (!around.renewable) return stay(state)
      const afterMs = around.random * Math.min(refreshSpreadMs, event.withinMs / 4)
      return { state, actions: [{ do: 'setTimer', timer: 'refresh', afterMs }] }
    },
    error: (state, event) => ({ state: { ...state, ...told(event.error) }, actions: [] }),
    token: (state, event) => ({
      state: { ...state, token: event.token },
      actions: [{ do: 'sendAuth', token: event.token }],
    }),
    // The connection still holds: ask again in half the time that is left, until the server ends it.
    tokenFailed: (state, _event, around) => {
      const leftMs = (state.expiresAt ?? around.now) - around.now
      return { state, actions: [{ do: 'setTimer', timer: 'renew', afterMs: Math.max(laterMs, leftMs / 2) }] }
    },
    timer: (state, event, around) => {
      switch (event.timer) {
        case 'heartbeat':
          return {
            state,
            actions: [{ do: 'sendHeartbeat' }, { do: 'setTimer', timer: 'heartbeat', afterMs: state.heartbeatMs }],
          }
        case 'watchdog': {
          const leftMs = 2 * state.heartbeatMs - event.silentMs
          if (leftMs > 0) return { state, actions: [{ do: 'setTimer', timer: 'watchdog', afterMs: leftMs }] }
          return wait({ ...settled(state, around), error: silent }, null, 'now', around)
        }
        case 'renew':
          // A life longer than the longest timer is waited out in pieces.
          return (state.expiresAt ?? 0) - around.now > renewLeadMs + laterMs
            ? { state, actions: renewal(state.expiresAt, around) }
            : { state, actions: [{ do: 'fetchToken' }] }
        case 'refresh':
          return { state, actions: [{ do: 'fetchToken' }] }
        default:
          return stay(state)
      }
    },
    // A laptop that slept may hold a dead socket: ask the watchdog now instead of when its timer remembers.
    online: state => ({
      state,
      actions: [{ do: 'sendHeartbeat' }, { do: 'setTimer', timer: 'watchdog', afterMs: 0 }],
    }),
    lost: (state, event, around) => afterClose(settled(state, around), event.closeCode, around),
    stop: () => close(),
  },
  refused: { stop: () => close() },
  closed: {},
}

/** @returns the state after the event, and what to do, in order */
export function nextState(state: ConnectionState, event: ConnectionEvent, around: Surroundings): Step {
  const row = table[state.name] as Record<
    string,
    ((state: ConnectionState, event: ConnectionEvent, around: Surroundings) => Step) | undefined
  >
  return row[event.name]?.(state, event, around) ?? stay(state)
}

const silent: Refusal = { code: 'HEARTBEAT_MISSED', message: 'the server was silent for too long' }

const stay = (state: ConnectionState): Step => ({ state, actions: [] })

const close = (): Step => ({ state: { name: 'closed' }, actions: [{ do: 'clearTimers' }, { do: 'dropSocket' }] })

const ask = ({ attempt, token, error }: Trying, before: Action[]): Step => ({
  state: { name: 'asking', attempt, token, error },
  actions: [...before, { do: 'fetchToken' }],
})

const open = ({ attempt, token, error }: Trying): Step => ({
  state: { name: 'opening', attempt, token, error, hintMs: null },
  actions: [{ do: 'clearTimers' }, { do: 'openSocket' }, { do: 'setTimer', timer: 'handshake', afterMs: handshakeMs }],
})

const connect = (state: Trying): Step => (state.token === null ? ask(state, [{ do: 'clearTimers' }]) : open(state))

/** The state as the next attempt sees it: a connection that was stable has no failures behind it, and a token that
 *  is about to expire is not worth a round trip. */
const settled = <S extends Of<ConnectionState, 'open'>>(state: S, around: Surroundings): S => ({
  ...state,
  attempt: around.now - state.openedAt >= stableMs ? 0 : state.attempt,
  token: around.renewable && state.expiresAt !== null && state.expiresAt - around.now < laterMs ? null : state.token,
})

const told = (error: ErrorEvent): { error: Refusal; hintMs: number | null } => ({
  error: { code: error.code, message: error.message },
  hintMs: error.retryAfterMs ?? null,
})

function afterClose(state: Trying & { hintMs: number | null }, closeCode: number, around: Surroundings): Step {
  const retry = retryOfClose(closeCode)
  const error = state.error ?? { code: 'CONNECTION_LOST', message: `the connection closed with ${closeCode}` }
  // A constant token that was refused will be refused again.
  if (retry === 'never' || (retry === 'token' && !around.renewable)) {
    return { state: { name: 'refused', error }, actions: [{ do: 'clearTimers' }, { do: 'dropSocket' }] }
  }
  return wait({ ...state, error, token: retry === 'token' ? null : state.token }, state.hintMs, retry, around)
}

function wait(
  { attempt, token, error }: Trying,
  hintMs: number | null,
  retry: 'now' | 'later' | 'token',
  around: Surroundings,
): Step {
  const floorMs = hintMs ?? (retry === 'later' ? laterMs : 0)
  const afterMs = floorMs + around.random * Math.min(maxDelayMs, baseDelayMs * 2 ** attempt)
  return {
    state: { name: 'waiting', attempt: attempt + 1, token, error },
    actions: [{ do: 'clearTimers' }, { do: 'dropSocket' }, { do: 'setTimer', timer: 'retry', afterMs }],
  }
}

function renewal(expiresAt: number | null, around: Surroundings): Action[] {
  if (expiresAt === null || !around.renewable) return []
  const leftMs = expiresAt - around.now
  // At least a second: a callback that gives the same old token again must not be asked in a tight loop.
  const afterMs = Math.max(leftMs - renewLeadMs, leftMs * 0.8, laterMs)
  return [{ do: 'setTimer', timer: 'renew', afterMs: Math.min(afterMs, longestTimerMs) }]
}
