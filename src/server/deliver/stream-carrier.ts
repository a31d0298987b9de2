// Carries a session without a WebSocket: the answer to one POST is an event stream of the server's frames, and the client's frames
// come in POSTs of their own.
import type { ServerResponse } from 'node:http'
import type { ClientFrame } from '../../protocol/messages.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Principal } from '../subscribe/subscription.ts'
import type { Carrier } from './carrier.ts'
import type { Place } from './connections.ts'
import { streamEncoding } from './encode.ts'
import { FrameInbox } from './frame-inbox.ts'
import { SendQueue } from './send-queue.ts'
import type { Services } from './services.ts'
import { SessionConnection } from './session-connection.ts'
import { sseHeaders } from './sse.ts'

export interface StreamOptions {
  readonly services: Services
  readonly response: ServerResponse
  readonly place: Place
  readonly principal: Principal
  /** What its client sends to. */
  readonly key: string
  /** CORS. */
  readonly headers: Readonly<Record<string, string>>
}

/** Answers, and begins the session: its `welcome` is the first event. The frames that opened it are POST 0 of its inbox.
 *  @throws BAD_FRAME behind a request of the same connection that is not answered: what is written below would stand in front of
 *  that answer */
export function openStream(options: StreamOptions): FrameStream {
  const { response, headers } = options
  if (response.socket === null)
    throw new TidegateError(
      'BAD_FRAME',
      'an earlier request of this connection is not answered; open a stream on another',
    )
  // Without this node would frame the body in chunks, and bytes written below it would break the framing.
  response.removeHeader('Transfer-Encoding')
  response.writeHead(200, { ...sseHeaders, ...headers })
  response.flushHeaders()
  return new FrameStream(options)
}

export class FrameStream implements Carrier {
  readonly what = 'event stream'
  readonly encoding = streamEncoding
  /** Once it has sent a `heartbeat`, of itself. */
  isAnswering = false
  readonly greeting: { readonly stream: string }
  readonly place: Place
  readonly session: SessionConnection
  readonly inbox = new FrameInbox(frame => this.#take(frame), -1)
  readonly #response: ServerResponse
  readonly #closeTimeoutMs: number

  constructor({ services, response, place, principal, key }: StreamOptions) {
    const { turn, limits, now } = services
    const { socket } = response.req
    this.greeting = { stream: key }
    this.place = place
    this.#response = response
    this.#closeTimeoutMs = limits.closeTimeoutMs
    const queue = (onDrained: () => void): SendQueue =>
      new SendQueue({
        turn,
        socket,
        maxBytes: limits.sendQueueBytes,
        bytesOf: streamEncoding.batch,
        now,
        onDrained,
      })
    this.session = new SessionConnection({ services, carrier: this, queue, credentials: principal })
  }

  #take(frame: ClientFrame): void {
    if (frame.type === 'heartbeat') this.isAnswering = true
    this.session.take(frame)
  }

  ping(): void {}

  pause(): void {
    this.inbox.pause()
  }

  resume(): void {
    this.inbox.resume()
  }

  end(): void {
    this.inbox.end()
    const response = this.#response
    const timer = setTimeout(() => this.terminate(), this.#closeTimeoutMs)
    response.once('close', () => clearTimeout(timer))
    response.end()
  }

  terminate(): void {
    this.inbox.end()
    this.#response.req.socket.destroy()
  }

  /** Its client says that it goes. */
  close(): void {
    this.session.disconnected('gone')
    this.end()
  }

  /** The link is gone, or the answer over. */
  over(): void {
    this.session.disconnected('broken')
    this.inbox.end()
  }
}
