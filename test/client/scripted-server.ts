// A WebSocket server on a free port that says what a test tells it to, in the words of src/protocol/messages.ts.
import { type WebSocket, WebSocketServer } from 'ws'
import type { ClientFrame, JsonRow, RowChange, ServerFrame } from '../../src/protocol/messages.ts'

export type Subscribe = Extract<ClientFrame, { type: 'subscribe' }>

/** One connection as the server sees it. */
export class Peer {
  readonly frames: ClientFrame[] = []
  /** The code of the client's close frame. */
  readonly closed: Promise<number>
  readonly #socket: WebSocket
  #wake = (): void => {}
  #read = 0

  constructor(socket: WebSocket) {
    this.#socket = socket
    this.closed = new Promise(resolve => socket.once('close', resolve))
    socket.on('message', data => {
      this.frames.push(JSON.parse(String(data)) as ClientFrame)
      this.#wake()
    })
  }

  /** The next frame of this type that was not read before; frames in between are passed over. */
  async next<T extends ClientFrame['type']>(type: T): Promise<Extract<ClientFrame, { type: T }>> {
    for (;;) {
      while (this.#read < this.frames.length) {
        const frame = this.frames[this.#read++]!
        if (frame.type === type) return frame as Extract<ClientFrame, { type: T }>
      }
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
  }

  send(frame: ServerFrame): void {
    this.sendText(JSON.stringify(frame))
  }

  /** Something that need be no frame. */
  sendText(text: string | Buffer): void {
    this.#socket.send(text)
  }

  close(code: number): void {
    this.#socket.close(code)
  }

  /** Cuts the link without a word, as a dead network does. */
  cut(): void {
    this.#socket.terminate()
  }

  /** Takes the token and welcomes. */
  async welcome(options: { heartbeatMs?: number; expiresAt?: number | null } = {}): Promise<string> {
    const { token } = await this.next('auth')
    this.send({ type: 'welcome', connection: 'c', heartbeatMs: 25_000, expiresAt: null, ...options })
    return token
  }

  /** Accepts the next subscription and sends its snapshot in one part. */
  async accept(rows: JsonRow[], options: { query?: number; position?: string } = {}): Promise<Subscribe> {
    const subscribe = await this.next('subscribe')
    const { query = 7, position = at(1) } = options
    this.send({ type: 'subscribed', id: subscribe.id, query, tag: 'tag', key: ['id'], resumed: false, position })
    this.send({ type: 'snapshot', id: subscribe.id, rows, done: true, position })
    return subscribe
  }

  /** What came back has been sent all it missed. */
  hasAll(id: number, since: string): void {
    this.send({ type: 'heartbeat', position: null, positions: { [id]: since }, stale: false, lagMs: 0 })
  }

  delta(lsn: number, changes: RowChange[], query = 7): void {
    this.send({ type: 'delta', query, changes, done: true, committedAt: '2026-01-01T00:00:00Z', position: at(lsn) })
  }
}

/** The position of the n-th commit of these tests. */
export const at = (lsn: number): string => `0a0b0c0d-${lsn.toString(16)}`

export class ScriptedServer {
  readonly url: string
  readonly #server: WebSocketServer
  readonly #waiting: Peer[] = []
  #wake = (): void => {}

  private constructor(server: WebSocketServer, path: string) {
    this.#server = server
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    this.url = `http://127.0.0.1:${address.port}`
    server.on('connection', (socket, request) => {
      if (request.url !== path) socket.close(4200)
      this.#waiting.push(new Peer(socket))
      this.#wake()
    })
  }

  static async start({ path = '/v1/socket' } = {}): Promise<ScriptedServer> {
    const server = new WebSocketServer({ port: 0, host: '127.0.0.1' })
    await new Promise(resolve => server.once('listening', resolve))
    return new ScriptedServer(server, path)
  }

  /** The next connection. */
  async peer(): Promise<Peer> {
    for (;;) {
      const peer = this.#waiting.shift()
      if (peer !== undefined) return peer
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const socket of this.#server.clients) socket.terminate()
    await new Promise(resolve => this.#server.close(resolve))
  }
}
