// One WebSocket to the server at a time, kept up: does what the connection machine says, and tells it what happened.
import type { ClientFrame, ServerFrame } from '../protocol/messages.ts'
import { type Action, type ConnectionEvent, type ConnectionState, nextState, type Timer } from './connection-machine.ts'

export type TokenSource = string | (() => string | Promise<string>)

export interface ConnectionOptions {
  /** Base address of the service: `https://tide.example.com`, or `wss:`. */
  readonly url: string
  readonly token: TokenSource
  /** Every frame of the server, in order. */
  readonly onFrame: (frame: ServerFrame) => void
  /** After every change of state. `previous` and `state` differ. */
  readonly onState: (state: ConnectionState, previous: ConnectionState) => void
  /** The server takes subscriptions now; those of an earlier connection are gone. */
  readonly onReady: () => void
}

export class Connection {
  readonly #options: ConnectionOptions
  readonly #address: string
  readonly #timers = new Map<Timer, ReturnType<typeof setTimeout>>()
  readonly #wakeUp = (): void => {
    if (typeof document === 'undefined' || document.visibilityState === 'visible') this.#happened({ name: 'online' })
  }
  #state: ConnectionState = { name: 'idle' }
  #socket: WebSocket | null = null
  #lastFrameAt = 0
  /** Grows with every question for a token: an answer to an older one is ignored. */
  #question = 0

  constructor(options: ConnectionOptions) {
    this.#options = options
    this.#address = socketAddress(options.url)
    // Browsers only: Node has neither, and finds dead links by the heartbeat.
    globalThis.addEventListener?.('online', this.#wakeUp)
    if (typeof document !== 'undefined') document.addEventListener('visibilitychange', this.#wakeUp)
  }

  get state(): ConnectionState {
    return this.#state
  }

  start(): void {
    this.#happened({ name: 'start' })
  }

  stop(): void {
    globalThis.removeEventListener?.('online', this.#wakeUp)
    if (typeof document !== 'undefined') document.removeEventListener('visibilitychange', this.#wakeUp)
    this.#happened({ name: 'stop' })
  }

  /** Sends when the connection is open; else does nothing, because whoever needs it is called by `onReady`. */
  send(frame: ClientFrame): void {
    if (this.#state.name === 'open') this.#write(frame)
  }

  #happened(event: ConnectionEvent): void {
    const previous = this.#state
    const step = nextState(previous, event, {
      now: Date.now(),
      random: Math.random(),
      renewable: typeof this.#options.token === 'function',
    })
    this.#state = step.state
    if (step.state !== previous) this.#options.onState(step.state, previous)
    for (const action of step.actions) this.#act(action)
  }

  #act(action: Action): void {
    switch (action.do) {
      case 'fetchToken':
        this.#fetchToken()
        break
      case 'openSocket':
        this.#openSocket()
        break
      case 'dropSocket':
        this.#dropSocket()
        break
      case 'sendAuth':
        this.#write({ type: 'auth', token: action.token })
        break
      case 'sendHeartbeat':
        this.#write({ type: 'heartbeat' })
        break
      case 'subscribeAll':
        this.#options.onReady()
        break
      case 'setTimer':
        this.#setTimer(action.timer, action.afterMs)
        break
      case 'clearTimers':
        for (const timer of this.#timers.values()) clearTimeout(timer)
        this.#timers.clear()
        break
    }
  }

  #setTimer(timer: Timer, afterMs: number): void {
    clearTimeout(this.#timers.get(timer))
    const fire = (): void => this.#happened({ name: 'timer', timer, silentMs: Date.now() - this.#lastFrameAt })
    this.#timers.set(timer, setTimeout(fire, afterMs))
  }

  #fetchToken(): void {
    const question = ++this.#question
    const { token } = this.#options
    const answered = (event: ConnectionEvent): void => {
      if (question === this.#question) this.#happened(event)
    }
    // Called inside a promise, so that a callback that throws at once is a failure like any other.
    Promise.resolve()
      .then(() => (typeof token === 'function' ? token() : token))
      .then(
        text => answered({ name: 'token', token: text }),
        (error: unknown) => answered({ name: 'tokenFailed', message: `the token callback failed: ${String(error)}` }),
      )
  }

  #openSocket(): void {
    const socket = new WebSocket(this.#address)
    this.#socket = socket
    this.#lastFrameAt = Date.now()
    // A socket that was dropped may still speak: only the current one is heard.
    const ifCurrent = (then: () => void): void => {
      if (this.#socket === socket) then()
    }
    socket.addEventListener('open', () => ifCurrent(() => this.#happened({ name: 'opened' })))
    socket.addEventListener('message', event => ifCurrent(() => this.#received(event.data)))
    socket.addEventListener('close', event =>
      ifCurrent(() => {
        this.#socket = null
        this.#happened({ name: 'lost', closeCode: event.code })
      }),
    )
    // Browsers tell nothing in `error`; `close` follows it.
    socket.addEventListener('error', () => {})
  }

  #dropSocket(): void {
    const socket = this.#socket
    this.#socket = null
    socket?.close(1000)
  }

  #received(data: unknown): void {
    this.#lastFrameAt = Date.now()
    const frame = parseFrame(data)
    if (frame === null) return
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
      case 'error':
        if (frame.id === undefined) this.#happened({ name: 'error', error: frame })
        break
    }
    this.#options.onFrame(frame)
  }

  #write(frame: ClientFrame): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(frame))
  }
}

/** A frame of a later server with a type unknown here passes; text that is no JSON object is dropped. */
function parseFrame(data: unknown): ServerFrame | null {
  if (typeof data !== 'string') return null
  try {
    const value: unknown = JSON.parse(data)
    return typeof value === 'object' && value !== null && 'type' in value ? (value as ServerFrame) : null
  } catch {
    return null
  }
}

/** `https://host/base/` becomes `wss://host/base/v1/socket`. */
function socketAddress(url: string): string {
  const address = new URL(url)
  address.protocol = address.protocol.replace(/^http/, 'ws')
  address.pathname = `${address.pathname.replace(/\/+$/, '')}/v1/socket`
  address.search = ''
  address.hash = ''
  return address.href
}
