// An HTTP server on a free port whose every answer a test gives by hand.
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { ServerFrame } from '../../../src/protocol/messages.ts'

/** One POST. */
export class Asked {
  /** With the query. */
  readonly path: string
  readonly token: string | undefined
  readonly body: unknown
  /** The client has gone, or it was answered. */
  readonly over: Promise<void>
  readonly #response: ServerResponse

  constructor(request: IncomingMessage, response: ServerResponse, body: string) {
    this.path = request.url ?? ''
    this.token = request.headers.authorization?.replace(/^Bearer /, '')
    this.body = JSON.parse(body)
    this.over = new Promise(resolve => response.once('close', resolve))
    this.#response = response
  }

  /** @param body null: none */
  answer(status: number, body: unknown): void {
    if (body === null) this.#response.writeHead(status).end()
    else this.#response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body))
  }

  /** As somebody on the way answers. */
  answerPage(status: number): void {
    this.#response.writeHead(status, { 'content-type': 'text/html' }).end('<html>no</html>')
  }

  /** A part of an event stream. */
  write(bytes: string | Uint8Array): void {
    if (!this.#response.headersSent) this.#response.writeHead(200, { 'content-type': 'text/event-stream' })
    this.#response.write(bytes)
  }

  say(frame: ServerFrame): void {
    this.write(`data: ${JSON.stringify(frame)}\n\n`)
  }

  end(): void {
    this.#response.end()
  }

  /** A reset, without an answer. */
  cut(): void {
    this.#response.socket?.resetAndDestroy()
  }
}

export class ScriptedRequests implements AsyncDisposable {
  readonly url: string
  readonly #server: Server
  readonly #asked: Asked[] = []
  #wake = (): void => {}

  private constructor(server: Server) {
    this.#server = server
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
    server.on('request', (request, response) => {
      let body = ''
      request.setEncoding('utf8').on('data', (text: string) => {
        body += text
      })
      request.on('end', () => {
        this.#asked.push(new Asked(request, response, body))
        this.#wake()
      })
    })
  }

  static async start(): Promise<ScriptedRequests> {
    const server = createServer()
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    return new ScriptedRequests(server)
  }

  /** Requests that nobody has taken with `next`. */
  get waiting(): readonly Asked[] {
    return this.#asked
  }

  /** The next request, which must be for this path. */
  async next(path: string): Promise<Asked> {
    while (this.#asked.length === 0)
      await new Promise<void>(resolve => {
        this.#wake = resolve
      })
    const asked = this.#asked.shift()!
    if (asked.path !== path) throw new Error(`asked for ${asked.path}, not ${path}`)
    return asked
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#server.closeAllConnections()
    this.#server.close()
    await once(this.#server, 'close')
  }
}
