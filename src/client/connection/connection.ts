// One connection to the server at a time, kept up over whichever transport carries: does what the connection machine says, and
// tells it what happened.
import type { ClientFrame, ServerFrame } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { later } from '../transports/later.ts'
import type { OpenTransport, Transport, TransportName } from '../transports/transport.ts'
import { openWebSocket } from '../transports/websocket.ts'
import { addressOf } from '../transports/wire.ts'
import {
  type Action,
  type ConnectionEvent,
  type ConnectionState,
  idle,
  nextState,
  type Timer,
} from './connection-machine.ts'
import { recall, remember } from './recall.ts'

export type TokenSource = string | (() => string | Promise<string>)

export interface ConnectionOptions {
  /** Base address of the service: `https://tide.example.com`, or `wss:`. */
  readonly url: string
  readonly token: TokenSource
  /** Those that may be used, the first choice first; at least one. */
  readonly transports: readonly TransportName[]
  /** Every frame of the server, in order. */
  readonly onFrame: (frame: ServerFrame) => void
  /** After every change of state. `previous` and `state` differ. */
  readonly onState: (state: ConnectionState, previous: ConnectionState) => void
  /** A token was fetched; it goes to the server once this has resolved. Must not reject. */
  readonly onToken: (token: string) => Promise<void>
  /** The server takes subscriptions now; those of an earlier connection are gone. */
  readonly onReady: () => void
  /** The frames that enter all that was asked for. */
  readonly entries: () => readonly ClientFrame[]
}

const openers: { readonly [N in TransportName]: OpenTransport } = {
  websocket: openWebSocket,
  sse: later('sse', async () => (await import('../transports/event-stream.ts')).openEventStream),
  'long-poll': later('long-poll', async () => (await import('../transports/long-poll.ts')).openLongPoll),
}

interface Running {
  readonly id: ReturnType<typeof setTimeout>
  /** Milliseconds since 1970. */
  readonly due: number
  readonly fire: () => void
}

/** A timer that comes so late was slept through. */
const sleptMs = 10_000
const probeTimeoutMs = 10_000

export class Connection {
  readonly #options: ConnectionOptions
  readonly #base: URL
  readonly #timers = new Map<Timer, Running>()
  #state: ConnectionState
  #transport: Transport | null = null
  #probe: Transport | null = null
  #probeTimer: ReturnType<typeof setTimeout> | undefined
  #lastFrameAt = 0
  /** Grows with every question for a token: an answer to an older one is ignored. */
  #question = 0
  #unlisten = (): void => {}

  constructor(options: ConnectionOptions) {
    this.#options = options
    this.#base = new URL(options.url)
    this.#base.protocol = this.#base.protocol.replace(/^ws/, 'http')
    this.#state = idle(recall(this.#base, options.transports))
  }

  get state(): ConnectionState {
    return this.#state
  }

  /** Those of the address that tell one service from another. */
  get base(): URL {
    return this.#base
  }

  get transport(): TransportName {
    const ladder = 'ladder' in this.#state ? this.#state.ladder : null
    return this.#options.transports[ladder?.rung ?? 0]!
  }

  start(): void {
    if (this.#state.name !== 'idle') return
    this.#unlisten = listenToWaking(() => this.#happened({ name: 'awake' }))
    this.#happened({ name: 'start' })
  }

  /** Forgets the token and whom it was for; `start` begins anew. */
  reset(): void {
    this.#end({ name: 'reset' })
  }

  stop(): void {
    this.#end({ name: 'stop' })
  }

  /** What is connected is not whom the token speaks of now: connects anew, with one that is asked for then. */
  leave(): void {
    const error = { code: 'TOKEN_INVALID', message: 'the token is another user’s', retry: true }
    if (this.#state.name === 'open') this.#happened({ name: 'lost', loss: { error, retry: 'token' } })
  }

  /** Sends when the connection is open; else does nothing, because whoever needs it is called by `onReady`. */
  send(frame: ClientFrame): void {
    if (this.#state.name === 'open') this.#transport?.send(frame)
  }

  /** A request of its own, with the token. @param path behind `/v1/`: `channels/room/history?last=20`
   *  @throws TidegateError with the server's code; CONNECTION_LOST when there is no answer */
  async request(path: string, init: RequestInit = {}): Promise<Response> {
    const [name = '', query = ''] = path.split('?')
    const address = addressOf(this.#base, name)
    address.search = query
    for (const isLast of [false, true]) {
      const held = !isLast && 'token' in this.#state ? this.#state.token : null
      const token = held ?? (await this.#askToken())
      const headers = { 'Content-Type': 'application/json', Authorization: `Bearer ${token}`, ...init.headers }
      const response = await fetch(address, { ...init, headers }).catch((cause: unknown) => {
        throw new TidegateError('CONNECTION_LOST', `no answer of ${address.host}: ${String(cause)}`, { cause })
      })
      if (response.ok) return response
      // The one that is held may have expired since.
      if (response.status === 401 && !isLast && typeof this.#options.token === 'function') continue
      const error = await response.json().catch(() => null)
      throw new TidegateError(
        error?.code ?? 'CONNECTION_LOST',
        error?.message ?? `${address.host} answered ${response.status}`,
      )
    }
    throw new Error('unreachable')
  }

  #end(event: ConnectionEvent): void {
    this.#unlisten()
    this.#question++
    this.#happened(event)
  }

  #happened(event: ConnectionEvent): void {
    const previous = this.#state
    const step = nextState(previous, event, {
      now: Date.now(),
      random: Math.random(),
      renewable: typeof this.#options.token === 'function',
      rungs: this.#options.transports.length,
      online: globalThis.navigator?.onLine !== false,
    })
    this.#state = step.state
    if (step.state !== previous) this.#options.onState(step.state, previous)
    for (const action of step.actions) {
      // Whoever was told may have ended it meanwhile.
      if (this.#state !== step.state) return
      this.#act(action)
    }
  }

  #act(action: Action): void {
    switch (action.do) {
      case 'fetchToken':
        this.#fetchToken()
        break
      case 'open':
        this.#open(this.#options.transports[action.rung]!, action.token)
        break
      case 'drop':
        this.#drop()
        break
      case 'sendAuth':
        this.#transport?.send({ type: 'auth', token: action.token })
        break
      case 'sendHeartbeat':
        this.#transport?.send({ type: 'heartbeat' })
        break
      case 'enterAll':
        this.#options.onReady()
        break
      case 'probe':
        this.#look(action.rung, action.token)
        break
      case 'remember':
        remember(this.#base, this.#options.transports, action.ladder)
        break
      case 'setTimer':
        this.#setTimer(action.timer, action.afterMs)
        break
      case 'clearTimers':
        for (const { id } of this.#timers.values()) clearTimeout(id)
        this.#timers.clear()
    }
  }

  #setTimer(timer: Timer, afterMs: number): void {
    clearTimeout(this.#timers.get(timer)?.id)
    const due = Date.now() + afterMs
    const fire = (): void => {
      clearTimeout(id)
      this.#timers.delete(timer)
      // A clock that was set back is no reason to wait for it.
      this.#lastFrameAt = Math.min(this.#lastFrameAt, Date.now())
      this.#happened({ name: 'timer', timer, silentMs: Date.now() - this.#lastFrameAt })
    }
    const id = setTimeout(() => {
      // A machine that slept reads its sockets only after its timers: the server's last words may be waiting there.
      if (Date.now() - due > sleptMs && timer !== 'retry') this.#setTimer(timer, 0)
      else fire()
    }, afterMs)
    this.#timers.set(timer, { id, due, fire })
  }

  /** A page in the background hears what comes long before its timers: what is due is done then. */
  #fireDue(): void {
    for (const [timer, running] of [...this.#timers])
      if (running.due <= Date.now() && this.#timers.get(timer) === running) running.fire()
  }

  async #askToken(): Promise<string> {
    const { token } = this.#options
    const text = typeof token === 'function' ? await token() : token
    if (typeof text !== 'string') throw new TypeError('it gave no text')
    return text
  }

  #fetchToken(): void {
    const question = ++this.#question
    const answered = (event: ConnectionEvent): void => {
      if (question === this.#question) this.#happened(event)
    }
    this.#askToken().then(
      async token => {
        // One that comes late may be another user's than the one that is being connected.
        if (question !== this.#question || !/^(asking|open)$/.test(this.#state.name)) return
        await this.#options.onToken(token)
        answered({ name: 'token', token })
      },
      (error: unknown) => answered({ name: 'tokenFailed', message: `the token callback failed: ${String(error)}` }),
    )
  }

  #open(name: TransportName, token: string): void {
    this.#lastFrameAt = Date.now()
    // One that was dropped may still speak: only the current one is heard.
    const ifCurrent = (then: () => void): void => {
      if (this.#transport === transport) then()
    }
    const transport = openers[name]({
      url: this.#base,
      token,
      entries: this.#options.entries,
      listener: {
        onFrame: frame => ifCurrent(() => this.#received(frame)),
        onLost: loss =>
          ifCurrent(() => {
            this.#transport = null
            this.#happened({ name: 'lost', loss })
          }),
      },
    })
    this.#transport = transport
  }

  #drop(): void {
    const transport = this.#transport
    this.#transport = null
    // Only who leaves for good is to be missing at once where others see who is there.
    transport?.close('attempt' in this.#state)
    this.#endProbe()
  }

  #endProbe(): void {
    clearTimeout(this.#probeTimer)
    this.#probe?.close()
    this.#probe = null
  }

  /** Whether a better transport carries: as far as the welcome. */
  #look(rung: number, token: string): void {
    this.#endProbe()
    const found = (carries: boolean): void => {
      if (this.#probe !== probe) return
      this.#endProbe()
      this.#happened({ name: 'probed', rung, carries })
    }
    this.#probeTimer = setTimeout(() => found(false), probeTimeoutMs)
    const listener = {
      onFrame: (frame: ServerFrame) => {
        if (frame.type === 'welcome') found(true)
      },
      onLost: () => found(false),
    }
    const probe = openers[this.#options.transports[rung]!]({ url: this.#base, token, entries: () => [], listener })
    this.#probe = probe
  }

  #received(frame: ServerFrame): void {
    this.#lastFrameAt = Date.now()
    switch (frame.type) {
      case 'welcome':
        this.#happened({ name: 'welcome', heartbeatMs: frame.heartbeatMs, expiresAt: frame.expiresAt })
        break
      case 'authenticated':
        this.#happened({ name: 'authenticated', expiresAt: frame.expiresAt })
        break
      case 'refresh':
        this.#happened({ name: 'refresh', withinMs: frame.withinMs })
        break
      case 'heartbeat':
        this.#happened({ name: 'beat' })
        this.#fireDue()
        break
      case 'error':
        if (frame.id === undefined && !('ref' in frame)) this.#happened({ name: 'error', error: frame })
    }
    this.#options.onFrame(frame)
  }
}

/** Browsers only: Node has neither, and finds dead links by the heartbeat. */
function listenToWaking(awake: () => void): () => void {
  const { document } = globalThis
  const looked = (): void => {
    if (document.visibilityState === 'visible') awake()
  }
  globalThis.addEventListener?.('online', awake)
  document?.addEventListener('visibilitychange', looked)
  return () => {
    globalThis.removeEventListener?.('online', awake)
    document?.removeEventListener('visibilitychange', looked)
  }
}
