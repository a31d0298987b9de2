// The door: one HTTP server for WebSockets, event streams, long-polls and the small endpoints.
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { type WebSocket, WebSocketServer } from 'ws'
import { peerCodes } from '../../protocol/codes.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { ChannelDoor } from '../channels/door.ts'
import { noProxies, type TrustedProxies } from '../config/trusted-proxies.ts'
import { Figures } from '../figures/figures.ts'
import type { Log } from '../log/log.ts'
import type { MoveOrder, Moving } from '../nodes/node-state.ts'
import { noOrders, type OrderedConnections, type TokenOrders } from '../orders/targets.ts'
import { steadyNow } from '../steady-clock.ts'
import type { Principal, Subscriptions } from '../subscribe/subscription.ts'
import { admit, admitPrincipal } from './admit.ts'
import { Connections, type Place } from './connections.ts'
import { Departures } from './departures.ts'
import { retryAfterHeader, splitUrl } from './exchange.ts'
import { clientAddressOf, settleForwarded } from './forwarded.ts'
import { type HttpOptions, HttpRoutes, refuseForeignOrigin } from './http.ts'
import { bearerOf } from './identify.ts'
import { defaultLimits, type GatewayLimits } from './limits.ts'
import { MemoryTickets } from './memory-tickets.ts'
import type { AllowedOrigins } from './origin.ts'
import type { Peers } from './peers.ts'
import { noSupabase, type SupabaseOptions } from './phoenix/api-keys.ts'
import { handshakeOf, handshakeRefusal } from './phoenix/handshake.ts'
import { originsOf } from './phoenix/http.ts'
import { MemoryStands } from './phoenix/memory-stands.ts'
import { Returns } from './phoenix/returns.ts'
import { openPhoenix, PhoenixSocket } from './phoenix/socket.ts'
import type { Stands } from './phoenix/stands.ts'
import { openWebSocket, ProtocolSocket } from './protocol-socket.ts'
import { refused } from './refusal.ts'
import { endWith, refuseSocket, type SocketRefusal } from './refuse-socket.ts'
import { Turn } from './send-queue.ts'
import type { Authenticator, Services } from './services.ts'
import { Streams } from './streams.ts'
import type { TicketLimits, Tickets } from './tickets.ts'

export interface GatewayOptions {
  readonly subscriptions: Subscriptions
  /** Null or left out: whoever asks for a channel is told CHANNELS_OFF. */
  readonly channels?: ChannelDoor | null
  readonly authenticator: Authenticator
  /** Left out: nobody orders anything. */
  readonly orders?: TokenOrders
  readonly log: Log
  /** Those left out are `defaultLimits`. */
  readonly limits?: Partial<GatewayLimits>
  /** Left out: no API keys, and public channels are open to Supabase's clients. */
  readonly supabase?: SupabaseOptions
  /** Empty or left out: pages of the gateway's own host. */
  readonly allowedOrigins?: AllowedOrigins
  /** Whose word about their clients is believed; left out: nobody's. */
  readonly trustedProxies?: TrustedProxies
  readonly health?: HttpOptions['health']
  readonly ready: HttpOptions['ready']
  readonly extraRoutes?: NonNullable<HttpOptions['extraRoutes']>
  /** Left out: in the memory of this node. */
  readonly tickets?: (limits: TicketLimits) => Tickets
  /** Left out: in the memory of this node. */
  readonly stands?: () => Stands
  /** The other nodes; null or left out: there are none. */
  readonly peers?: Peers | null
  /** Left out: no address for operators. */
  readonly operator?: NonNullable<HttpOptions['operator']>
  /** Milliseconds on a steady clock; tells tokens' expiry too unless `wallNow` is given. */
  readonly now?: () => number
  /** Milliseconds since 1970. */
  readonly wallNow?: () => number
  /** From 0 to 1. */
  readonly random?: () => number
  /** What it counts. */
  readonly figures?: Figures
}

export interface DrainOptions {
  /** Clients are told to come back at times spread evenly over so long; null: by their number. */
  readonly spreadMs: number | null
  /** Whoever is still there then is cut off. */
  readonly timeoutMs: number
}

export interface Gateway {
  /** @param port 0 for any free one. @returns the port it listens on */
  listen(host: string, port: number): Promise<number>
  /** Takes nobody new, tells everybody GOING_AWAY with a time of their own to come back, and waits until they are gone. Until
   *  then it answers who asks for its health, and whoever else comes that it is going away. */
  drain(options: DrainOptions): Promise<void>
  /** Sends connections away for other nodes to take, as a rebalancing asks. */
  sendSurplusAway(order: MoveOrder): void
  /** What came of the last time it was asked to. */
  moving(): Moving | null
  /** Ends everything at once. */
  close(): Promise<void>
  /** WebSockets, event streams and requests held open. */
  connections(): number
  /** What waits for clients, in bytes. */
  queuedBytes(): number
  /** Names and users by which orders find connections. */
  listed(): number
  /** Whom orders reach. */
  readonly ordered: OrderedConnections
}

export function createGateway(options: GatewayOptions): Gateway {
  return new HttpGateway(options)
}

class HttpGateway implements Gateway {
  readonly #services: Services
  readonly #connections: Connections
  readonly #tickets: Tickets
  readonly #allowedOrigins: AllowedOrigins
  readonly #trustedProxies: TrustedProxies
  readonly #routes: HttpRoutes
  readonly #websockets: ReturnType<typeof createWebSocketServer<typeof ProtocolSocket>>
  readonly #phoenixSockets: ReturnType<typeof createWebSocketServer<typeof PhoenixSocket>>
  readonly #returns: Returns
  readonly #server
  /** The last response begun on each socket. */
  readonly #answering = new WeakMap<Duplex, ServerResponse>()
  #ticker: NodeJS.Timeout | null = null
  /** What clients were told last. */
  #isStale = false

  constructor(options: GatewayOptions) {
    const limits = { ...defaultLimits, ...options.limits }
    const {
      subscriptions,
      channels = null,
      authenticator,
      orders = noOrders,
      supabase = noSupabase,
      log,
      now = steadyNow,
      random = Math.random,
      figures = new Figures(),
    } = options
    const wallNow = options.wallNow ?? options.now ?? Date.now
    const departures = new Departures(log)
    const turn = new Turn(figures)
    const services = {
      subscriptions,
      channels,
      authenticator,
      orders,
      limits,
      supabase,
      stands: options.stands?.() ?? new MemoryStands(now),
      log,
      departures,
      turn,
      figures,
      now,
      wallNow,
      random,
    }
    this.#services = services
    this.#connections = new Connections(limits, orders, figures)
    this.#tickets = options.tickets?.(limits) ?? new MemoryTickets(limits, wallNow)
    this.#allowedOrigins = options.allowedOrigins ?? []
    this.#trustedProxies = options.trustedProxies ?? noProxies
    this.#routes = new HttpRoutes({
      services,
      connections: this.#connections,
      tickets: this.#tickets,
      streams: new Streams({ limits, peers: options.peers ?? null }),
      allowedOrigins: this.#allowedOrigins,
      health: options.health ?? (() => ({ ok: true })),
      ready: options.ready,
      extraRoutes: options.extraRoutes ?? null,
      operator: options.operator ?? null,
    })
    this.#websockets = createWebSocketServer(services, ProtocolSocket, limits.maxFrameBytes)
    this.#phoenixSockets = createWebSocketServer(services, PhoenixSocket, phoenixFrames * limits.maxFrameBytes)
    this.#returns = new Returns(services.stands, now)
    this.#server = createServer(
      {
        // Without these a client that drips its headers holds a socket for a minute.
        headersTimeout: limits.handshakeMs,
        requestTimeout: 2 * limits.handshakeMs,
        connectionsCheckingInterval: Math.max(100, limits.handshakeMs / 2),
        maxHeaderSize: 16 * 1024,
        // Other upgrades (h2c of curl --http2) are ignored, as HTTP allows, and answered over HTTP/1.1.
        shouldUpgradeCallback: request => request.headers.upgrade?.toLowerCase() === 'websocket',
        // Refused in `HttpRoutes`, by a code: Node's own answer has no body.
        requireHostHeader: false,
      },
      (request, response) => this.#answer(request, response),
    )
    // Node would answer an expectation it does not know with a bare 417; HTTP allows to pass it over.
    this.#server.on('checkExpectation', (request, response) => this.#answer(request, response))
    // Without a listener the socket would be cut off without a word.
    this.#server.on('connect', (_request, socket) => {
      socket.on('error', this.#onSocketError)
      if (this.#isAnswering(socket)) socket.destroy()
      else this.#refuse(socket, { code: 'METHOD_NOT_ALLOWED', message: 'no CONNECT: this is no proxy' })
    })
    // Sockets that have not asked for anything yet; past it they are closed unheard.
    this.#server.maxConnections = limits.maxConnections + limits.maxUnheard
    this.#server.on('upgrade', (request, socket, head) => void this.#upgrade(request, socket, head))
    this.#server.on('clientError', (error: NodeJS.ErrnoException, socket) => this.#refuseBroken(error, socket))
  }

  async listen(host: string, port: number): Promise<number> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject)
      this.#server.listen(port, host, () => {
        this.#server.off('error', reject)
        resolve()
      })
    })
    const { handshakeMs, heartbeatMs } = this.#services.limits
    // One timer for all connections: one each would cost memory for every idle one.
    const tickMs = Math.min(250, Math.max(5, Math.min(handshakeMs, heartbeatMs) / 20))
    this.#ticker = setInterval(() => this.#tick(), tickMs)
    return (this.#server.address() as AddressInfo).port
  }

  async drain({ spreadMs, timeoutMs }: DrainOptions): Promise<void> {
    await this.#connections.drain({ spreadMs, timeoutMs })
    await this.#end(this.#stopListening())
  }

  sendSurplusAway(order: MoveOrder): void {
    this.#connections.sendSurplusAway(order, this.#services.random)
  }

  moving(): Moving | null {
    return this.#connections.moving
  }

  async close(): Promise<void> {
    const closed = this.#stopListening()
    this.#connections.terminate()
    await this.#end(closed)
  }

  connections(): number {
    return this.#connections.count
  }

  queuedBytes(): number {
    return this.#connections.queuedBytes
  }

  listed(): number {
    return this.#connections.listed
  }

  get ordered(): OrderedConnections {
    return this.#connections.ordered
  }

  #tick(): void {
    this.#connections.tick(this.#services.now())
    const { stale } = this.#services.subscriptions.head()
    if (stale === this.#isStale) return
    this.#isStale = stale
    this.#connections.tellPulse(tellPulseWithinMs)
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    settleForwarded(request, this.#trustedProxies)
    this.#answering.set(request.socket, response)
    void this.#routes.handle(request, response)
  }

  /** Whether an earlier request of this connection still waits for the end of its answer: anything written now would stand
   *  in front of it, or inside it. */
  #isAnswering(socket: Duplex): boolean {
    return this.#answering.get(socket)?.writableFinished === false
  }

  /** What Node's parser refuses: the peer sees a code instead of a closed socket. */
  #refuseBroken(error: NodeJS.ErrnoException, socket: Duplex): void {
    // In the middle of an answer a second one would be taken for a part of the first.
    const response = this.#answering.get(socket)
    const isAnswering = response?.writableFinished === false && (response.headersSent || response.socket === null)
    if (error.code === 'ECONNRESET' || !socket.writable || isAnswering) socket.destroy()
    else if (error.code === 'HPE_HEADER_OVERFLOW')
      this.#refuse(socket, {
        code: 'FRAME_TOO_LARGE',
        message: 'the URL and headers are larger than 16384 bytes',
        status: 431,
      })
    else if (error.code === 'ERR_HTTP_REQUEST_TIMEOUT')
      this.#refuse(socket, {
        code: 'BAD_FRAME',
        message: `the request was not whole within ${this.#services.limits.handshakeMs} ms`,
      })
    else this.#refuse(socket, { code: 'BAD_FRAME', message: 'the request is not HTTP' })
  }

  #stopListening(): Promise<void> {
    return new Promise(resolve => {
      if (this.#server.listening) this.#server.close(() => resolve())
      else resolve()
    })
  }

  async #end(closed: Promise<void>): Promise<void> {
    if (this.#ticker !== null) clearInterval(this.#ticker)
    this.#server.closeAllConnections()
    await closed
    await this.#services.stands.close()
  }

  // One for all: a closure for each would stay with its socket.
  readonly #onSocketError = (error: Error): void => {
    this.#services.log.debug({ err: error }, 'a socket broke')
  }

  async #upgrade(request: IncomingMessage, stream: Duplex, head: Buffer): Promise<void> {
    // The server listens on TCP only.
    const socket = stream as Socket
    socket.on('error', this.#onSocketError)
    if (this.#isAnswering(socket)) {
      socket.destroy()
      return
    }
    settleForwarded(request, this.#trustedProxies)
    try {
      const { path, parameters } = splitUrl(request.url ?? '/')
      if (phoenixPaths.has(path)) {
        await this.#upgradePhoenix(request, socket, head, parameters)
        return
      }
      if (path !== '/v1/socket') {
        throw new TidegateError(
          'NOT_FOUND',
          `there is no WebSocket at ${JSON.stringify(path.slice(0, 200))}; it is /v1/socket`,
        )
      }
      refuseForeignOrigin(request, this.#allowedOrigins)
      const place = this.#connections.takePlace(clientAddressOf(request))
      const release = (): void => place.release()
      socket.on('close', release)
      const credentials = await this.#credentials(request, parameters, place)
      this.#connections.refuseIfDraining()
      this.#websockets.handleUpgrade(request, socket, head, ws => {
        socket.off('close', release)
        ws.place = place
        place.hold(openWebSocket(this.#services, ws, socket, credentials))
      })
    } catch (error) {
      this.#refuseUpgrade(socket, error)
    }
  }

  /** For Supabase's clients: a key in the URL, which no page sends by itself, so that pages of any origin may, unless others are named. */
  async #upgradePhoenix(
    request: IncomingMessage,
    socket: Socket,
    head: Buffer,
    parameters: URLSearchParams,
  ): Promise<void> {
    try {
      refuseForeignOrigin(request, originsOf(this.#allowedOrigins))
      const place = this.#connections.takePlace(clientAddressOf(request))
      const release = (): void => place.release()
      socket.on('close', release)
      const { principal, vsn } = await handshakeOf(this.#services, request, parameters)
      place.admit(principal)
      this.#connections.refuseIfDraining()
      this.#phoenixSockets.handleUpgrade(request, socket, head, ws => {
        socket.off('close', release)
        const [services, connections, returns] = [this.#services, this.#connections, this.#returns]
        openPhoenix({ services, connections, returns, ws, socket, place, principal, vsn })
      })
    } catch (error) {
      const refusal = refused(this.#services, error)
      const { status, body } = handshakeRefusal(refusal)
      endWith(socket, status, body, retryAfterHeader(refusal.retryAfterMs))
    }
  }

  /** A Bearer token is refused here, with a status. A ticket comes from a browser, whose page is shown no status: it is
   *  checked here too, and refused by the close code. */
  async #credentials(
    request: IncomingMessage,
    parameters: URLSearchParams,
    place: Place,
  ): Promise<Principal | TidegateError | null> {
    const token = bearerOf(request)
    if (token !== null) return admit(this.#services, token, place)
    const ticket = parameters.get('ticket')
    if (ticket === null) return null
    try {
      const { principal } = await this.#tickets.redeem(ticket, request.headers.origin ?? null, null)
      await admitPrincipal(this.#services, principal)
      place.admit(principal)
      return principal
    } catch (error) {
      if (error instanceof TidegateError) return error
      throw error
    }
  }

  #refuse(socket: Duplex, refusal: SocketRefusal): void {
    refuseSocket(this.#services.figures, socket, refusal)
  }

  #refuseUpgrade(socket: Socket, error: unknown): void {
    const refusal = refused(this.#services, error)
    const { status } = peerCodes[refusal.code]
    endWith(socket, status, JSON.stringify(refusal), retryAfterHeader(refusal.retryAfterMs))
  }
}

const tellPulseWithinMs = 1000

/** As Supabase's gateway has it, and as its service is reached behind one. */
const phoenixPaths: ReadonlySet<string> = new Set(['/realtime/v1/websocket', '/socket/websocket'])

/** Phoenix's clients come back after a frame that is too large, and never know why: so many times larger ones are read, and what
 *  is too large for its channel is refused by an answer. */
const phoenixFrames = 4

function createWebSocketServer<Kind extends typeof WebSocket>(
  { limits, figures }: Pick<Services, 'limits' | 'figures'>,
  kind: Kind,
  maxPayload: number,
) {
  const options = {
    noServer: true,
    clientTracking: false,
    perMessageDeflate: false,
    autoPong: false,
    maxPayload,
    // A frame in thousands of tiny pieces costs far more memory than its bytes (CVE-2026-48779).
    maxFragments: 64,
    maxBufferedChunks: 4096,
    closeTimeout: limits.closeTimeoutMs,
    WebSocket: kind,
  }
  const server = new WebSocketServer<Kind>(options)
  server.on('wsClientError', (error, socket, request) => {
    const code = request.method === 'GET' ? 'BAD_FRAME' : 'METHOD_NOT_ALLOWED'
    refuseSocket(figures, socket, { code, message: `this is no WebSocket handshake of version 13: ${error.message}` })
  })
  return server
}
