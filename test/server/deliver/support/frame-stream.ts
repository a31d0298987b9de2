// A session over POST /v1/stream, as a client without WebSocket has it: an event stream of frames, and POSTs that follow each other.
import { Agent, type IncomingMessage, request } from 'node:http'
import { closeCodeOf, type PeerCode } from '../../../../src/protocol/codes.ts'
import type { ClientFrame } from '../../../../src/protocol/messages.ts'
import { alice, type TestGateway, TestSession } from './gateway.ts'

type Port = Pick<TestGateway, 'port'>

export interface Answer {
  readonly status: number
  readonly body: { code?: string; message?: string; retry?: boolean; retryAfterMs?: number } | null
}

/** One POST and its answer. */
export function post({ port }: Port, path: string, body: unknown, token: string | null = alice): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const asking = request({ port, path, method: 'POST', headers: bearer(token) }, response => {
      let text = ''
      response.on('data', part => (text += part))
      response.on('end', () => resolve({ status: response.statusCode!, body: text === '' ? null : JSON.parse(text) }))
    })
    asking.on('error', reject)
    asking.end(typeof body === 'string' ? body : JSON.stringify(body))
  })
}

const bearer = (token: string | null) => (token === null ? {} : { Authorization: `Bearer ${token}` })

export class TestFrameStream extends TestSession implements AsyncDisposable {
  /** With the code that a WebSocket would be closed with; 1006 where no error was told. */
  readonly closed: Promise<{ code: number; reason: string }>
  readonly response: IncomingMessage
  /** The bytes, for those who look at them. */
  text = ''
  /** What POSTs were answered, in their order. */
  readonly answers: Answer[] = []
  /** Where later frames go; the node that has the stream unless told otherwise. */
  posts: Port
  token: string
  #seq = 0
  #sending: Promise<unknown> = Promise.resolve()
  #waiting: ClientFrame[] = []

  private constructor(node: Port, token: string, response: IncomingMessage) {
    super()
    this.posts = node
    this.token = token
    this.response = response
    let rest = ''
    response.setEncoding('utf8')
    response.on('data', (part: string) => {
      this.text += part
      const events = (rest + part).split('\n\n')
      rest = events.pop()!
      for (const event of events) if (event.startsWith('data: ')) this.take(event.slice('data: '.length))
    })
    response.on('error', () => {})
    this.closed = new Promise(resolve => {
      response.on('close', () => {
        this.end()
        const last = this.frames.at(-1)
        const isTold = last?.type === 'error' && last.id === undefined && last.ref === undefined
        resolve({ code: isTold ? closeCodeOf(last.code as PeerCode) : 1006, reason: isTold ? last.code : '' })
      })
    })
  }

  /** Welcome. */
  static async open(node: Port, token = alice, frames: readonly ClientFrame[] = []): Promise<TestFrameStream> {
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      const headers = { ...bearer(token), 'Content-Type': 'application/json' }
      const agent = new Agent()
      const asking = request({ port: node.port, path: '/v1/stream', method: 'POST', headers, agent }, resolve)
      asking.on('error', reject)
      asking.end(JSON.stringify({ frames }))
    })
    if (response.statusCode !== 200) throw new Error(`${response.statusCode}`)
    const stream = new TestFrameStream(node, token, response)
    await stream.frame('welcome')
    return stream
  }

  get key(): string {
    return this.of('welcome')[0]!.stream!
  }

  send(frame: ClientFrame): void {
    this.#waiting.push(frame)
    if (this.#waiting.length > 1) return
    this.#sending = this.#sending.then(async () => {
      const frames = this.#waiting
      this.#waiting = []
      this.#seq += 1
      this.answers.push(await this.post({ seq: this.#seq, frames }))
    })
    this.#sending.catch(() => {})
  }

  /** Waits until all that was sent was answered. */
  async sent(): Promise<void> {
    await this.#sending
  }

  post(body: unknown, token = this.token): Promise<Answer> {
    return post(this.posts, `/v1/stream/${this.key}`, body, token)
  }

  pause(): void {
    this.response.pause()
  }

  resume(): void {
    this.response.resume()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.response.destroy()
    await this.closed
  }
}
