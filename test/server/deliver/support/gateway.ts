// A gateway on port 0 with the in-memory core, tokens that anybody can write, and clients on real sockets.
import { pino } from 'pino'
import { WebSocket } from 'ws'
import type { ClientFrame, ServerFrame } from '../../../../src/protocol/messages.ts'
import { TidegateError } from '../../../../src/protocol/tidegate-error.ts'
import { createGateway, type Gateway, type GatewayOptions } from '../../../../src/server/deliver/gateway.ts'
import type { GatewayLimits } from '../../../../src/server/deliver/limits.ts'
import type { Principal } from '../../../../src/server/subscribe/subscription.ts'
import { MemoryCore } from './memory-core.ts'
import { MemoryDoor } from './memory-door.ts'

export const tokenOf = (claims: Record<string, unknown>): string =>
  Buffer.from(JSON.stringify(claims)).toString('base64url')
export const alice = tokenOf({ sub: 'alice' })
export const bob = tokenOf({ sub: 'bob' })

async function authenticate(token: string): Promise<Principal> {
  let claims: Record<string, unknown>
  try {
    claims = JSON.parse(Buffer.from(token, 'base64url').toString())
  } catch {
    throw new TidegateError('TOKEN_INVALID', 'the token is malformed')
  }
  if (claims.down === true) throw new TidegateError('UNAVAILABLE', 'the keys cannot be fetched')
  const { role = 'authenticated', exp = null } = claims as { role?: string; exp?: number | null }
  return { role, claims, expiresAt: exp === null ? null : exp * 1000 }
}

export interface TestGateway extends AsyncDisposable {
  readonly core: MemoryCore
  readonly door: MemoryDoor
  readonly gateway: Gateway
  readonly port: number
  readonly url: string
  readonly logged: string[]
}

export async function startGateway(
  limits: Partial<GatewayLimits> = {},
  options: Partial<GatewayOptions> = {},
): Promise<TestGateway> {
  const core = new MemoryCore()
  const door = new MemoryDoor()
  const logged: string[] = []
  const log = pino({ level: 'info' }, { write: (line: string) => void logged.push(line) })
  const ready: GatewayOptions['ready'] = scope => ({
    ready: scope === 'node',
    body: { ready: scope === 'node', scope },
  })
  const gateway = createGateway({
    subscriptions: core,
    channels: door,
    authenticator: { authenticate },
    log,
    ready,
    limits,
    ...options,
  })
  const port = await gateway.listen('127.0.0.1', 0)
  const url = `http://127.0.0.1:${port}`
  return { core, door, gateway, port, url, logged, [Symbol.asyncDispose]: () => gateway.close() }
}

type FrameOf<T extends ServerFrame['type']> = Extract<ServerFrame, { type: T }>

/** A session's frames, over whatever carries them. */
export abstract class TestSession {
  readonly frames: ServerFrame[] = []
  #wake: (() => void)[] = []
  #isClosed = false

  abstract send(frame: ClientFrame): void

  /** Reads nothing more. */
  abstract pause(): void
  abstract resume(): void

  async subscribe(id: number, table: string, more: Partial<Extract<ClientFrame, { type: 'subscribe' }>> = {}) {
    const before = this.frames.length
    this.send({ type: 'subscribe', id, kind: 'live', table, ...more })
    return this.frame('subscribed', frame => frame.id === id && this.frames.indexOf(frame) >= before)
  }

  async join(id: number, topic: string, more: Partial<Extract<ClientFrame, { type: 'join' }>> = {}) {
    const before = this.frames.length
    this.send({ type: 'join', id, topic, ...more })
    return this.frame('joined', frame => frame.id === id && this.frames.indexOf(frame) >= before)
  }

  /** The first frame of this type that fits, of those that came and those to come. */
  async frame<T extends ServerFrame['type']>(
    type: T,
    fits: (frame: FrameOf<T>) => boolean = () => true,
  ): Promise<FrameOf<T>> {
    const find = () =>
      this.frames.find((frame): frame is FrameOf<T> => frame.type === type && fits(frame as FrameOf<T>))
    await this.until(() => find() !== undefined, `a ${type} frame`)
    return find()!
  }

  of<T extends ServerFrame['type']>(type: T): FrameOf<T>[] {
    return this.frames.filter((frame): frame is FrameOf<T> => frame.type === type)
  }

  async until(isTrue: () => boolean, what: string): Promise<void> {
    while (!isTrue()) {
      if (this.#isClosed)
        throw new Error(`closed while waiting for ${what}; got ${JSON.stringify(this.frames.slice(-5))}`)
      await new Promise<void>(resolve => this.#wake.push(resolve))
    }
  }

  protected take(text: string): void {
    this.frames.push(JSON.parse(text))
    this.#notify()
  }

  protected end(): void {
    this.#isClosed = true
    this.#notify()
  }

  #notify(): void {
    const wake = this.#wake
    this.#wake = []
    for (const resolve of wake) resolve()
  }
}

export class TestSocket extends TestSession implements AsyncDisposable {
  readonly ws: WebSocket
  readonly closed: Promise<{ code: number; reason: string }>

  constructor(url: string, options: WebSocket.ClientOptions = {}) {
    super()
    this.ws = new WebSocket(url, options)
    this.ws.on('error', () => {})
    this.ws.on('message', data => this.take(data.toString()))
    this.closed = new Promise(resolve => {
      this.ws.on('close', (code, reason) => {
        this.end()
        resolve({ code, reason: reason.toString() })
      })
    })
  }

  /** Connected and welcome. */
  static async open(
    { port }: Pick<TestGateway, 'port'>,
    token: string | null = alice,
    query = '',
  ): Promise<TestSocket> {
    const headers = token === null ? {} : { Authorization: `Bearer ${token}` }
    const socket = new TestSocket(`ws://127.0.0.1:${port}/v1/socket${query}`, { headers })
    if (token !== null || query !== '') await socket.frame('welcome')
    else await new Promise((resolve, reject) => socket.ws.on('open', resolve).on('error', reject))
    return socket
  }

  send(frame: ClientFrame): void {
    this.ws.send(JSON.stringify(frame))
  }

  pause(): void {
    this.ws.pause()
  }

  resume(): void {
    this.ws.resume()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.ws.terminate()
    await this.closed
  }
}

/** Waits until a condition of this process holds. */
export async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await new Promise(resolve => setTimeout(resolve, 2))
}

export interface SseEvent {
  readonly event: string
  readonly data: Record<string, unknown>
  readonly id: string | null
  readonly text: string
}

/** An event stream over fetch, as curl would see it. */
export class TestStream implements AsyncDisposable {
  readonly response: Response
  readonly events: SseEvent[] = []
  retry: string | null = null
  isEnded = false
  readonly #abort: AbortController
  #wake: (() => void)[] = []
  readonly #reading: Promise<void>

  private constructor(response: Response, abort: AbortController) {
    this.response = response
    this.#abort = abort
    this.#reading = this.#read()
  }

  static async open(
    { url }: TestGateway,
    path: string,
    headers: Record<string, string> = { Authorization: `Bearer ${alice}` },
  ): Promise<TestStream> {
    const abort = new AbortController()
    const response = await fetch(url + path, { headers, signal: abort.signal })
    if (response.status !== 200) throw new Error(`${response.status} ${await response.text()}`)
    return new TestStream(response, abort)
  }

  async event(event: string, fits: (event: SseEvent) => boolean = () => true): Promise<SseEvent> {
    const find = () => this.events.find(one => one.event === event && fits(one))
    while (find() === undefined) {
      if (this.isEnded) throw new Error(`ended while waiting for ${event}; got ${JSON.stringify(this.events)}`)
      await new Promise<void>(resolve => this.#wake.push(resolve))
    }
    return find()!
  }

  async ended(): Promise<void> {
    await this.#reading
  }

  get lastId(): string {
    return this.events.findLast(event => event.id !== null)!.id!
  }

  async #read(): Promise<void> {
    let text = ''
    try {
      for await (const part of this.response.body!.pipeThrough(new TextDecoderStream())) {
        text += part
        const blocks = text.split('\n\n')
        text = blocks.pop()!
        for (const block of blocks) this.#take(block)
      }
    } catch {
      // Aborted, or cut off by the server.
    }
    this.isEnded = true
    this.#notify()
  }

  #take(block: string): void {
    const fields = new Map<string, string>()
    for (const line of block.split('\n')) {
      const colon = line.indexOf(': ')
      fields.set(line.slice(0, colon), line.slice(colon + 2))
    }
    this.retry = fields.get('retry') ?? this.retry
    const data = fields.get('data')
    if (data === undefined) return
    this.events.push({
      event: fields.get('event')!,
      data: JSON.parse(data),
      id: fields.get('id') ?? null,
      text: block,
    })
    this.#notify()
  }

  #notify(): void {
    const wake = this.#wake
    this.#wake = []
    for (const resolve of wake) resolve()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#abort.abort()
    await this.#reading
  }
}
