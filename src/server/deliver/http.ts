// Every address that is not a WebSocket: streams, long-polls, tickets, own writes, health.
import type { IncomingMessage, ServerResponse } from 'node:http'
import { z } from 'zod'
import { formatPosition } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Caller } from '../channels/door.ts'
import type { Figures } from '../figures/figures.ts'
import { repeated } from '../log/log-repeated.ts'
import type { Principal } from '../subscribe/subscription.ts'
import { answeredBy } from './answer-taken.ts'
import { type Answered, answerHistory, answerPresence, answerSend } from './channel-requests.ts'
import { type ChannelStreamRequest, parseChannelsUrl } from './channel-url.ts'
import type { Connection, Connections, Place } from './connections.ts'
import {
  allowCors,
  answerJson,
  answerRefusal,
  type Exchange,
  exchangeOf,
  isGone,
  readBody,
  retryAfterHeader,
  whenOver,
} from './exchange.ts'
import { clientAddressOf } from './forwarded.ts'
import { framesOfBody, openingOf, pollingOf } from './frame-body.ts'
import { FramePoll } from './frame-poll.ts'
import { identify, lastEventIdOf } from './identify.ts'
import { LongPoll, type PollAnswer } from './long-poll.ts'
import { type AllowedOrigins, isOriginAllowed, preflightHeaders } from './origin.ts'
import {
  answerBroadcast,
  type BroadcastAddress,
  broadcastAddressOf,
  broadcasterOf,
  broadcastPreflightOf,
  originsOf,
} from './phoenix/http.ts'
import { answerProbe, type Probes } from './probes.ts'
import type { Services } from './services.ts'
import { EventStream } from './sse.ts'
import { openStream } from './stream-carrier.ts'
import type { Streams } from './streams.ts'
import type { Tickets } from './tickets.ts'
import { transactionIdOf } from './transaction-id.ts'
import { parseStreamUrl, type StreamRequest } from './url.ts'

/** Answers an address of its own, the development page for instance. @returns false when it is none of its own */
export type ExtraRoutes = (request: IncomingMessage, response: ServerResponse) => boolean | Promise<boolean>

/** The addresses of those who run the service, where they are on this port. */
export interface OperatorAddresses {
  has(path: string): boolean
  /** For a path that it has. @throws TidegateError with a peer code, before anything is answered */
  answer(exchange: Exchange): Promise<void>
}

export interface HttpOptions extends Probes {
  readonly services: Services
  readonly connections: Connections
  readonly tickets: Tickets
  readonly streams: Streams
  readonly allowedOrigins: AllowedOrigins
  readonly extraRoutes: ExtraRoutes | null
  /** Null: there are none. */
  readonly operator: OperatorAddresses | null
}

/** What an address does, by the methods that it takes. */
interface Address {
  readonly GET?: (exchange: Exchange) => Promise<void>
  readonly POST?: (exchange: Exchange) => Promise<void>
}

export class HttpRoutes {
  readonly #options: HttpOptions

  constructor(options: HttpOptions) {
    this.#options = options
  }

  /** Answers one request; never throws. */
  async handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const exchange = exchangeOf(request, response)
    const { log, random, figures } = this.#options.services
    // A connection that is kept for the next request would bring it here.
    if (this.#options.connections.isDraining) response.shouldKeepAlive = false
    try {
      await this.#route(exchange)
    } catch (error) {
      if (response.headersSent) {
        repeated(log).error({ err: error }, 'a response failed half way')
        response.destroy()
      } else figures.refusals.add(answerRefusal(exchange, error, log, random).code)
    }
  }

  async #route(exchange: Exchange): Promise<void> {
    const { request, response, path } = exchange
    if (request.headers.host === undefined && request.httpVersion === '1.1') {
      throw new TidegateError('BAD_FRAME', 'the request has no Host header')
    }
    const probed = answerProbe(this.#options, exchange)
    if (probed !== null) return probed
    const { operator } = this.#options
    if (operator?.has(path)) return operator.answer(exchange)
    const broadcast = broadcastAddressOf(path)
    if (broadcast !== null) return this.#broadcast(exchange, broadcast)
    if (!path.startsWith('/v1/')) {
      if (await this.#options.extraRoutes?.(request, response)) return
      throw notFound(path)
    }
    refuseForeignOrigin(request, this.#options.allowedOrigins)
    allowCors(exchange)
    const address = this.#addressOf(path)
    if (address === null) throw notFound(path)
    const methods = Object.keys(address)
    if (request.method === 'OPTIONS') {
      response
        .writeHead(204, { ...exchange.cors, ...preflightHeaders, Allow: [...methods, 'OPTIONS'].join(', ') })
        .end()
      return
    }
    const serve = address[request.method as keyof Address]
    if (serve === undefined)
      throw new TidegateError('METHOD_NOT_ALLOWED', `${path} takes ${methods.join(' and ')}, not ${request.method}`)
    return serve(exchange)
  }

  #addressOf(path: string): Address | null {
    const stream = /^\/v1\/(live|changes)(?:\/([^/]+))?$/.exec(path)
    if (stream !== null) {
      const [, kind, table = null] = stream
      return { GET: exchange => this.#stream(exchange, queriesOf(kind as 'live' | 'changes', table)) }
    }
    const channels = /^\/v1\/channels(?:\/([^/]+)(?:\/(presence|history))?)?$/.exec(path)
    if (channels !== null)
      return this.#channelsAt(channels[1] ?? null, channels[2] as 'presence' | 'history' | undefined)
    const posted = /^\/v1\/stream(?:\/([^/]+))?$/.exec(path)
    if (posted !== null) {
      const [, key = null] = posted
      return { POST: exchange => (key === null ? this.#openStream(exchange) : this.#postTo(exchange, key)) }
    }
    if (path === '/v1/poll') return { POST: exchange => this.#poll(exchange) }
    if (path === '/v1/tickets') return { POST: exchange => this.#ticket(exchange) }
    if (path === '/v1/wait') return { POST: exchange => this.#wait(exchange) }
    return path === '/v1/socket' ? { GET: refusePlainGet } : null
  }

  /** @param topic still percent-encoded; null for several */
  #channelsAt(topic: string | null, part: 'presence' | 'history' | undefined): Address {
    if (topic !== null && part !== undefined) {
      const answer = part === 'presence' ? answerPresence : answerHistory
      return {
        GET: exchange => this.#atOnce(exchange, caller => answer(this.#options.services, exchange, caller, topic)),
      }
    }
    return {
      GET: exchange => this.#stream(exchange, channelsOf(topic)),
      POST: exchange => this.#atOnce(exchange, caller => answerSend(this.#options.services, exchange, caller, topic)),
    }
  }

  async #stream(exchange: Exchange, requestOf: StreamRequestOf): Promise<void> {
    const { services, tickets } = this.#options
    const { request, response, parameters } = exchange
    await this.#inPlace(exchange, async (hold, place) => {
      const { limits } = services
      const { principal, redeemed } = await identify(services, tickets, request, parameters)
      place.admit(principal)
      const streamRequest = requestOf(parameters, lastEventIdOf(request), limits.maxSubscriptions)
      if (wantsJson(request)) {
        const poll = new LongPoll({ services, response, principal, request: streamRequest })
        whenOver(exchange, () => poll.leave())
        hold(poll)
        try {
          const answer = await poll.answer()
          if (poll.isMovedAway) response.setHeader('Connection', 'close')
          answerPoll(exchange, answer)
          countAnswer(services.figures, answer.body.length)
        } catch (error) {
          if (poll.lastPosition !== null) response.setHeader('Tidegate-Position', poll.lastPosition)
          throw error
        }
        return
      }
      const proof = redeemed?.proof ?? null
      const stream = new EventStream({ services, response, principal, request: streamRequest, proof })
      whenOver(exchange, () => stream.leave())
      hold(stream)
      await stream.start(exchange.cors)
    })
  }

  /** A session without a WebSocket. */
  async #openStream(exchange: Exchange): Promise<void> {
    const { services, streams, connections } = this.#options
    const { response } = exchange
    await this.#inPlace(exchange, async (hold, place) => {
      const { principal, body } = await this.#sentBy(exchange)
      place.admit(principal)
      const { frames } = openingOf(body, services.limits.maxFrameBytes)
      if (isGone(exchange)) return
      connections.refuseIfDraining()
      const key = streams.newKey()
      const stream = openStream({ services, response, place, principal, key, headers: exchange.cors })
      streams.add(key, stream)
      whenOver(exchange, () => {
        streams.remove(key)
        stream.over()
      })
      hold(stream.session)
      // Nobody waits for its answer: what becomes of it stands in the stream.
      stream.inbox.post(0, frames).catch(() => {})
    })
  }

  /** Frames for a stream. */
  async #postTo(exchange: Exchange, key: string): Promise<void> {
    await this.#inPlace(exchange, async hold => {
      const { principal, body } = await this.#sentBy(exchange)
      hold(this.#waiting(exchange, principal))
      await this.#options.streams.post(key, principal, body)
      const { response } = exchange
      if (response.headersSent || response.destroyed) return
      response.writeHead(204, { 'Cache-Control': 'no-store', ...exchange.cors }).end()
    })
  }

  /** A session for as long as one answer takes. */
  async #poll(exchange: Exchange): Promise<void> {
    const { services } = this.#options
    const { response } = exchange
    await this.#inPlace(exchange, async (hold, place) => {
      const { principal, body } = await this.#sentBy(exchange)
      place.admit(principal)
      const polling = pollingOf(body, services.limits.maxFrameBytes)
      const poll = new FramePoll({ services, response, principal, polling })
      whenOver(exchange, () => poll.leave())
      hold(poll)
      const answer = await poll.answer()
      if (poll.isMovedAway) response.setHeader('Connection', 'close')
      answerJson(exchange, 200, answer)
      countAnswer(services.figures, answer.length)
    })
  }

  /** Whose it is, and only then what is sent. */
  async #sentBy({ request }: Exchange): Promise<{ principal: Principal; body: string }> {
    const { services, tickets } = this.#options
    const { principal } = await identify(services, tickets, request, new URLSearchParams())
    return { principal, body: await readBody(request, framesOfBody * services.limits.maxFrameBytes) }
  }

  /** A request about channels that one answer is all to. */
  async #atOnce(exchange: Exchange, answer: (caller: Caller) => Promise<Answered>): Promise<void> {
    const { services, tickets } = this.#options
    await this.#inPlace(exchange, async hold => {
      const { principal } = await identify(services, tickets, exchange.request, exchange.parameters)
      hold(this.#waiting(exchange, principal))
      const { status, body } = await answer({ principal, connection: null })
      answerJson(exchange, status, body)
    })
  }

  /** Of a client of Supabase's. */
  async #broadcast(exchange: Exchange, address: BroadcastAddress): Promise<void> {
    const { services, allowedOrigins } = this.#options
    const { request, response, path } = exchange
    refuseForeignOrigin(request, originsOf(allowedOrigins))
    allowCors(exchange)
    if (request.method === 'OPTIONS') {
      response.writeHead(204, { ...exchange.cors, ...broadcastPreflightOf(request) }).end()
      return
    }
    if (request.method !== 'POST')
      throw new TidegateError('METHOD_NOT_ALLOWED', `${path} takes POST, not ${request.method}`)
    await this.#inPlace(exchange, async hold => {
      const principal = await broadcasterOf(services, request)
      hold(this.#waiting(exchange, principal))
      const { status, body, retryAfterMs } = await answerBroadcast(services, exchange, principal, address)
      answerJson(exchange, status, body, retryAfterHeader(retryAfterMs))
    })
  }

  async #ticket(exchange: Exchange): Promise<void> {
    const { services, tickets, connections } = this.#options
    connections.refuseIfDraining()
    // The body says nothing; it is read so that the connection can be used again.
    await readBody(exchange.request, services.limits.maxFrameBytes)
    const { principal } = await identify(services, tickets, exchange.request, new URLSearchParams())
    const ticket = await tickets.issue(principal, exchange.origin ?? null)
    answerJson(exchange, 200, JSON.stringify(ticket))
  }

  async #wait(exchange: Exchange): Promise<void> {
    const { services, tickets } = this.#options
    await this.#inPlace(exchange, async hold => {
      const body = await readBody(exchange.request, services.limits.maxFrameBytes)
      const { principal } = await identify(services, tickets, exchange.request, exchange.parameters)
      const xid64 = transactionIdIn(body)
      hold(this.#waiting(exchange, principal))
      const position = await services.subscriptions.waitForTransaction(xid64, services.limits.waitTimeoutMs)
      answerJson(exchange, 200, JSON.stringify({ position: formatPosition(position) }))
    })
  }

  /** A request that waits for its one answer. */
  #waiting(exchange: Exchange, principal: Principal): Connection {
    const { log, random } = this.#options.services
    return {
      principal,
      name: null,
      get endedBy() {
        return answeredBy(exchange.response)
      },
      queuedBytes: 0,
      tick: () => {},
      tellPulse: () => {},
      goAway: error => void answerRefusal(exchange, error, log, random),
      moveAway: () => false,
      cutOff: error => void answerRefusal(exchange, error, log, random),
      refresh: () => {},
      terminate: () => exchange.request.socket.destroy(),
    }
  }

  /** Counts the request among the connections until its response is closed. */
  async #inPlace(
    exchange: Exchange,
    serve: (hold: (connection: Connection) => void, place: Place) => Promise<void>,
  ): Promise<void> {
    const place = this.#options.connections.takePlace(clientAddressOf(exchange.request))
    whenOver(exchange, () => place.release())
    await serve(connection => {
      // While its token was checked the client may have gone, or this node may have begun to leave.
      if (isGone(exchange)) connection.terminate()
      this.#options.connections.refuseIfDraining()
      place.hold(connection)
    }, place)
  }
}

type StreamRequestOf = (
  parameters: URLSearchParams,
  lastEventId: string | null,
  maxMembers: number,
) => StreamRequest | ChannelStreamRequest

const queriesOf =
  (kind: 'live' | 'changes', table: string | null): StreamRequestOf =>
  (parameters, lastEventId, maxQueries) =>
    parseStreamUrl({ kind, table, parameters, lastEventId, maxQueries })

const channelsOf =
  (topic: string | null): StreamRequestOf =>
  (parameters, lastEventId, maxChannels) =>
    parseChannelsUrl({ topic, parameters, lastEventId, maxChannels })

function refusePlainGet(): never {
  throw new TidegateError('METHOD_NOT_ALLOWED', '/v1/socket takes a WebSocket handshake, not a plain GET')
}

/** @param request that `settleForwarded` has seen. @throws ORIGIN_REFUSED */
export function refuseForeignOrigin(request: IncomingMessage, allowed: AllowedOrigins): void {
  const { origin, host, 'x-forwarded-proto': proto } = request.headers
  if (isOriginAllowed(origin, host, allowed, proto === 'https' || proto === 'wss')) return
  throw new TidegateError(
    'ORIGIN_REFUSED',
    `pages of ${JSON.stringify(origin?.slice(0, 200))} may not connect; see ALLOWED_ORIGINS`,
  )
}

const notFound = (path: string): TidegateError =>
  new TidegateError('NOT_FOUND', `there is nothing at ${JSON.stringify(path.slice(0, 200))}`)

/** Of a poll. */
function countAnswer(figures: Figures, bytes: number): void {
  figures.writes += 1
  figures.deliveredBytes += bytes
}

/** An event stream unless JSON is asked for and events are not. */
function wantsJson(request: IncomingMessage): boolean {
  const accept = request.headers.accept ?? ''
  return accept.includes('application/json') && !accept.includes('text/event-stream')
}

function answerPoll(exchange: Exchange, { status, position, stale, body }: PollAnswer): void {
  const headers: Record<string, string> = { 'Tidegate-Stale': String(stale) }
  if (position !== null) headers['Tidegate-Position'] = position
  if (status === 200) {
    answerJson(exchange, 200, body, headers)
    return
  }
  const { response } = exchange
  if (response.headersSent || response.destroyed) return
  response.writeHead(304, { 'Cache-Control': 'no-store', ...exchange.cors, ...headers }).end()
}

const waitBody = z.strictObject({ txid: z.union([z.string(), z.int().min(0)]) })

/** @throws BAD_FRAME, TXID_INVALID */
function transactionIdIn(body: string): bigint {
  let value: unknown
  try {
    value = JSON.parse(body)
  } catch (cause) {
    throw new TidegateError('BAD_FRAME', 'the body is not JSON; send {"txid": "<pg_current_xact_id()>"}', { cause })
  }
  const parsed = waitBody.safeParse(value)
  if (!parsed.success) throw new TidegateError('BAD_FRAME', 'the body is not {"txid": "<pg_current_xact_id()>"}')
  return transactionIdOf(String(parsed.data.txid))
}
