// How one connection lives: a total function from (state, event) to (state, actions). It opens no socket and reads no
// clock; connection.ts does what the actions say and comes back with what happened.
//
//   idle ─start─▶ asking ─token─▶ opening ─welcome─▶ open ─┐
//                   ▲                                       │ lost, silent
//                   └──────── retry, awake ◀── waiting ◀────┘          refused: nothing helps but the user · closed
import type { ErrorEvent } from '../../protocol/messages.ts'
import type { Refusal } from '../status.ts'
import type { Loss } from '../transports/transport.ts'
import { carried, failed, firstRung, type Ladder, probeAfterMs, probedRung, risen } from './ladder.ts'

/** What every state that tries to connect remembers. */
export interface Trying {
  /** Failed attempts since the connection was last stable. */
  readonly attempt: number
  /** Null: ask for one before the next attempt. */
  readonly token: string | null
  /** Of the token, in milliseconds since 1970; null: not known, or never. */
  readonly expiresAt: number | null
  /** The last thing that went wrong, until the connection is open again. */
  readonly error: Refusal | null
  readonly ladder: Ladder
}

export type ConnectionState =
  | { readonly name: 'idle'; readonly ladder: Ladder }
  | ({ readonly name: 'waiting'; readonly retryAt: number } & Trying)
  | ({ readonly name: 'asking' } & Trying)
  /** From opening the transport to the server's welcome. */
  | ({ readonly name: 'opening' } & Trying)
  | ({ readonly name: 'open'; readonly openedAt: number; readonly heartbeatMs: number } & Trying)
  | { readonly name: 'refused'; readonly error: Refusal; readonly ladder: Ladder }
  | { readonly name: 'closed' }

export type ConnectionEvent =
  | { readonly name: 'start' }
  | { readonly name: 'token'; readonly token: string }
  | { readonly name: 'tokenFailed'; readonly message: string }
  | { readonly name: 'welcome'; readonly heartbeatMs: number; readonly expiresAt: number | null }
  | { readonly name: 'authenticated'; readonly expiresAt: number | null }
  /** The server wants a token with newer claims within this time, or it closes. */
  | { readonly name: 'refresh'; readonly withinMs: number }
  /** An error frame that belongs to no subscription: a renewal could not be checked, or the end is near. */
  | { readonly name: 'error'; readonly error: ErrorEvent }
  /** The server's heartbeat. */
  | { readonly name: 'beat' }
  | { readonly name: 'lost'; readonly loss: Loss }
  /** The time of one of the timers has come. `silentMs`: since the last frame of the server. */
  | { readonly name: 'timer'; readonly timer: Timer; readonly silentMs: number }
  /** A better transport was probed. */
  | { readonly name: 'probed'; readonly rung: number; readonly carries: boolean }
  /** The machine is on a network again, or was woken, or the page is looked at again. */
  | { readonly name: 'awake' }
  /** The user logs out: nothing of what was is known any more. */
  | { readonly name: 'reset' }
  | { readonly name: 'stop' }

/** Each name has one timer: setting it again replaces it. Leaving a transport clears them all. */
export type Timer = 'retry' | 'handshake' | 'watchdog' | 'heartbeat' | 'renew' | 'refresh' | 'probe'

export type Action =
  | { readonly do: 'fetchToken' }
  | { readonly do: 'open'; readonly rung: number; readonly token: string }
  | { readonly do: 'drop' }
  | { readonly do: 'sendAuth'; readonly token: string }
  | { readonly do: 'sendHeartbeat' }
  /** The server takes subscriptions now. */
  | { readonly do: 'enterAll' }
  | { readonly do: 'probe'; readonly rung: number; readonly token: string }
  /** Which transport carried, for the next life of the page. */
  | { readonly do: 'remember'; readonly ladder: Ladder }
  | { readonly do: 'setTimer'; readonly timer: Timer; readonly afterMs: number }
  | { readonly do: 'clearTimers' }

export interface Surroundings {
  /** Milliseconds since 1970. */
  readonly now: number
  /** From 0 to 1, new for each event. */
  readonly random: number
  /** False: the token is a constant, asking again gives the same. */
  readonly renewable: boolean
  /** Transports there are to choose from. */
  readonly rungs: number
  /** False: the machine knows that it has no network, and no transport is to blame. */
  readonly online: boolean
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
/** A shorter time where another transport can be tried: the next one is then there while somebody still waits. */
const handshakeMs = 15_000
const impatientMs = 8000
/** What fetches a token may take so long. */
const tokenMs = 30_000
/** Renew so long before the token expires, or at four fifths of a short life. */
const renewLeadMs = 60_000
const refreshSpreadMs = 1000
/** setTimeout takes no more than 31 bits, and fires at once when given more. */
const longestTimerMs = 2_000_000_000

export type Name = ConnectionState['name']
type Of<U extends { name: string }, N extends U['name']> = Extract<U, { name: N }>
type Row<S extends Name> = {
  readonly [E in ConnectionEvent['name']]: (
    state: Of<ConnectionState, S>,
    event: Of<ConnectionEvent, E>,
    around: Surroundings,
  ) => Step
}

const stay = (state: ConnectionState): Step => ({ state, actions: [] })
const leave: readonly Action[] = [{ do: 'clearTimers' }, { do: 'drop' }]
const close = (): Step => ({ state: { name: 'closed' }, actions: leave })
const reset = ({ ladder }: { ladder: Ladder }): Step => ({ state: { name: 'idle', ladder }, actions: leave })

// A state or an event without its place does not compile.
const table: { readonly [S in Name]: Row<S> } = {
  idle: {
    start: ({ ladder }) => ask({ attempt: 0, token: null, expiresAt: null, error: null, ladder }),
    token: stay,
    tokenFailed: stay,
    welcome: stay,
    authenticated: stay,
    refresh: stay,
    error: stay,
    beat: stay,
    lost: stay,
    timer: stay,
    probed: stay,
    awake: stay,
    reset: stay,
    stop: close,
  },
  waiting: {
    start: stay,
    token: stay,
    tokenFailed: stay,
    welcome: stay,
    authenticated: stay,
    refresh: stay,
    error: stay,
    beat: stay,
    lost: stay,
    timer: (state, { timer }, around) => (timer === 'retry' ? connect(state, around) : stay(state)),
    probed: stay,
    awake: (state, _event, around) => connect(state, around),
    reset,
    stop: close,
  },
  asking: {
    start: stay,
    token: (state, { token }, around) => open({ ...state, token, expiresAt: null }, around),
    tokenFailed: (state, { message }, around) =>
      wait({ ...state, error: { code: 'TOKEN_UNAVAILABLE', message } }, null, 'later', around),
    welcome: stay,
    authenticated: stay,
    refresh: stay,
    error: stay,
    beat: stay,
    lost: stay,
    timer: (state, { timer }, around) =>
      timer === 'handshake' ? wait({ ...state, error: noToken }, null, 'later', around) : stay(state),
    probed: stay,
    awake: stay,
    reset,
    stop: close,
  },
  opening: {
    start: stay,
    token: stay,
    tokenFailed: stay,
    welcome: (state, { heartbeatMs, expiresAt }, around) => {
      const probeMs = probeAfterMs(state.ladder, around.random)
      return {
        state: { ...state, name: 'open', openedAt: around.now, heartbeatMs, expiresAt, error: null },
        actions: [
          { do: 'clearTimers' },
          { do: 'setTimer', timer: 'watchdog', afterMs: 2 * heartbeatMs },
          // The first at a random fraction: clients that came together would beat together for ever.
          { do: 'setTimer', timer: 'heartbeat', afterMs: around.random * heartbeatMs },
          ...(probeMs === null ? [] : [{ do: 'setTimer', timer: 'probe', afterMs: probeMs } as const]),
          ...renewal(expiresAt, around),
          { do: 'remember', ladder: state.ladder },
          { do: 'enterAll' },
        ],
      }
    },
    authenticated: stay,
    refresh: stay,
    error: stay,
    beat: stay,
    lost: (state, { loss }, around) => afterLoss(blamed(state, loss, around), loss, around),
    timer: (state, { timer }, around) =>
      timer === 'handshake' ? wait(blamed(state, silence, around), null, 'now', around) : stay(state),
    probed: stay,
    awake: stay,
    reset,
    stop: close,
  },
  open: {
    start: stay,
    token: (state, { token }) => ({ state: { ...state, token }, actions: [{ do: 'sendAuth', token }] }),
    // The connection still holds: ask again in half the time that is left, until the server ends it.
    tokenFailed: (state, _event, around) => askAgain(state, around),
    welcome: stay,
    authenticated: (state, { expiresAt }, around) => ({
      state: { ...state, expiresAt },
      actions: [...renewal(expiresAt, around)],
    }),
    // Spread: a callback that gives the old token once more is asked for again, and not in a tight loop.
    refresh: (state, { withinMs }, around) =>
      around.renewable
        ? {
            state,
            actions: [
              {
                do: 'setTimer',
                timer: 'refresh',
                afterMs: around.random * Math.min(refreshSpreadMs, withinMs / 4),
              },
            ],
          }
        : stay(state),
    error: (state, _event, around) => (around.renewable ? askAgain(state, around) : stay(state)),
    // A page in the background has its timers slowed down to one a minute, but hears what comes.
    beat: state => beat(state),
    lost: (state, { loss }, around) => {
      const wasStable = around.now - state.openedAt >= stableMs
      return afterLoss(
        wasStable || loss.error !== null ? settled(state, around) : blamed(state, loss, around),
        loss,
        around,
      )
    },
    timer: (state, { timer, silentMs }, around) => {
      switch (timer) {
        case 'heartbeat':
          return beat(state)
        case 'watchdog': {
          const leftMs = 2 * state.heartbeatMs - silentMs
          if (leftMs > 0) return { state, actions: [{ do: 'setTimer', timer: 'watchdog', afterMs: leftMs }] }
          // One that never carried more than its welcome is held against the transport.
          const carriedNothing = around.now - state.openedAt <= silentMs + stableMs
          const next = carriedNothing ? blamed(state, silence, around) : settled(state, around)
          return wait({ ...next, error: silent }, null, 'now', around)
        }
        case 'renew':
          // A life longer than the longest timer is waited out in pieces.
          return (state.expiresAt ?? 0) - around.now > renewLeadMs + laterMs
            ? { state, actions: renewal(state.expiresAt, around) }
            : { state, actions: [{ do: 'fetchToken' }] }
        case 'refresh':
          return { state, actions: [{ do: 'fetchToken' }] }
        case 'probe':
          return state.ladder.rung === 0 || state.token === null
            ? stay(state)
            : { state, actions: [{ do: 'probe', rung: probedRung(state.ladder), token: state.token }] }
        default:
          return stay(state)
      }
    },
    probed: (state, { rung, carries }, around) => {
      if (rung >= state.ladder.rung) return stay(state)
      if (carries) {
        const step = connect({ ...state, ladder: risen(state.ladder, rung) }, around)
        return { state: step.state, actions: [...leave, ...step.actions] }
      }
      const ladder = { ...state.ladder, probes: state.ladder.probes + 1 }
      const afterMs = probeAfterMs(ladder, around.random)!
      return { state: { ...state, ladder }, actions: [{ do: 'setTimer', timer: 'probe', afterMs }] }
    },
    // A laptop that slept may hold a dead socket: ask the watchdog now instead of when its timer remembers.
    awake: state => ({
      state,
      actions: [{ do: 'sendHeartbeat' }, { do: 'setTimer', timer: 'watchdog', afterMs: 0 }],
    }),
    reset,
    stop: close,
  },
  refused: {
    start: stay,
    token: stay,
    tokenFailed: stay,
    welcome: stay,
    authenticated: stay,
    refresh: stay,
    error: stay,
    beat: stay,
    lost: stay,
    timer: stay,
    probed: stay,
    awake: stay,
    reset,
    stop: close,
  },
  closed: {
    start: stay,
    token: stay,
    tokenFailed: stay,
    welcome: stay,
    authenticated: stay,
    refresh: stay,
    error: stay,
    beat: stay,
    lost: stay,
    timer: stay,
    probed: stay,
    awake: stay,
    reset: stay,
    stop: stay,
  },
}

/** @returns the state after the event, and what to do, in order */
export function nextState(state: ConnectionState, event: ConnectionEvent, around: Surroundings): Step {
  const row = table[state.name] as Record<
    string,
    (state: ConnectionState, event: ConnectionEvent, around: Surroundings) => Step
  >
  return row[event.name]!(state, event, around)
}

export const idle = (ladder: Ladder = firstRung): ConnectionState => ({ name: 'idle', ladder })

const silent: Refusal = { code: 'HEARTBEAT_MISSED', message: 'the server was silent for too long' }
const noToken: Refusal = { code: 'TOKEN_UNAVAILABLE', message: `the token callback took more than ${tokenMs} ms` }
const silence: Loss = { error: null, retry: 'now' }

const beat = (state: Of<ConnectionState, 'open'>): Step => ({
  state,
  actions: [{ do: 'sendHeartbeat' }, { do: 'setTimer', timer: 'heartbeat', afterMs: state.heartbeatMs }],
})

function askAgain(state: Of<ConnectionState, 'open'>, around: Surroundings): Step {
  const leftMs = (state.expiresAt ?? around.now) - around.now
  const afterMs = Math.min(Math.max(laterMs, leftMs / 2), longestTimerMs)
  return { state, actions: [{ do: 'setTimer', timer: 'renew', afterMs }] }
}

const trying = ({ attempt, token, expiresAt, error, ladder }: Trying): Trying => ({
  attempt,
  token,
  expiresAt,
  error,
  ladder,
})

const ask = (state: Trying): Step => ({
  state: { name: 'asking', ...trying(state), token: null },
  actions: [{ do: 'clearTimers' }, { do: 'fetchToken' }, { do: 'setTimer', timer: 'handshake', afterMs: tokenMs }],
})

const open = (state: Trying & { readonly token: string }, around: Surroundings): Step => ({
  state: { name: 'opening', ...trying(state) },
  actions: [
    { do: 'clearTimers' },
    { do: 'open', rung: state.ladder.rung, token: state.token },
    { do: 'setTimer', timer: 'handshake', afterMs: around.rungs > 1 ? impatientMs : handshakeMs },
  ],
})

/** A token that is about to expire is not worth a round trip. */
function connect(state: Trying, around: Surroundings): Step {
  const { token } = state
  const isOld = around.renewable && state.expiresAt !== null && state.expiresAt - around.now < laterMs
  return token === null || isOld ? ask(state) : open({ ...state, token }, around)
}

/** A connection that was stable has no failures behind it. */
const settled = (state: Of<ConnectionState, 'open'>, around: Surroundings): Trying =>
  around.now - state.openedAt >= stableMs ? { ...state, attempt: 0, ladder: carried(state.ladder) } : state

/** What speaks against the transport: it broke, or was silent, without a word of the server. */
function blamed(state: Trying, loss: Loss, around: Surroundings): Trying {
  // The page's own policy forbids it, say: there is nothing to wait for.
  const isBlocked = loss.error?.code === 'TRANSPORT_BLOCKED'
  if ((loss.error !== null && !isBlocked) || !around.online) return state
  const error = isBlocked ? refusalOf(loss.error) : loss === silence ? silent : broken
  const ladder = failed(state.ladder, { silent: isBlocked || loss === silence, error, rungs: around.rungs })
  return { ...state, error, ladder }
}

const refusalOf = ({ code, message }: Refusal): Refusal => ({ code, message })

const broken: Refusal = { code: 'CONNECTION_LOST', message: 'the connection was cut, or did not come about' }

function afterLoss(state: Trying, { error, retry }: Loss, around: Surroundings): Step {
  const refusal = error === null ? broken : refusalOf(error)
  // A constant token that was refused will be refused again.
  if (retry === 'never' || (retry === 'token' && !around.renewable)) {
    return { state: { name: 'refused', error: refusal, ladder: state.ladder }, actions: leave }
  }
  const token = retry === 'token' ? null : state.token
  return wait({ ...state, error: refusal, token }, error?.retryAfterMs ?? null, retry, around)
}

function wait(state: Trying, hintMs: number | null, retry: 'now' | 'later' | 'token', around: Surroundings): Step {
  const floorMs = hintMs ?? (retry === 'later' ? laterMs : 0)
  const afterMs = floorMs + around.random * Math.min(maxDelayMs, baseDelayMs * 2 ** state.attempt)
  return {
    state: { name: 'waiting', ...trying(state), attempt: state.attempt + 1, retryAt: around.now + afterMs },
    actions: [...leave, { do: 'setTimer', timer: 'retry', afterMs }],
  }
}

function renewal(expiresAt: number | null, around: Surroundings): Action[] {
  if (expiresAt === null || !around.renewable) return []
  const leftMs = expiresAt - around.now
  // At least a second: a callback that gives the same old token again must not be asked in a tight loop.
  const afterMs = Math.max(leftMs - renewLeadMs, leftMs * 0.8, laterMs)
  return [{ do: 'setTimer', timer: 'renew', afterMs: Math.min(afterMs, longestTimerMs) }]
}
