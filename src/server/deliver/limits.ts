// Everything that bounds what one client can send, hold or make us wait for.

export interface GatewayLimits {
  /** Bytes of one WebSocket frame or one request body. Past it: FRAME_TOO_LARGE. */
  readonly maxFrameBytes: number
  /** Subscriptions of one WebSocket, queries of one SSE stream or long-poll. Past it: TOO_MANY_SUBSCRIPTIONS. */
  readonly maxSubscriptions: number
  /** Frames per second that one WebSocket may keep up, pings included. Past it and the burst: RATE_LIMITED. */
  readonly framesPerSecond: number
  readonly frameBurst: number
  /** WebSockets, SSE streams and held long-polls of this node. Past it: TOO_MANY_CONNECTIONS. */
  readonly maxConnections: number
  /** Of those, of one address (of IPv6: one /64); 0: all. Past it: ADDRESS_TOO_MANY. */
  readonly maxConnectionsPerAddress: number
  /** WebSockets, streams and held polls of one subject and role; 0: all. Past it: USER_TOO_MANY. */
  readonly maxConnectionsPerUser: number
  /** Sockets beyond `maxConnections` that have not asked for anything yet; past it they are closed unheard. */
  readonly maxUnheard: number
  /** Time from the connection to a verified token. Past it: TOKEN_MISSING. */
  readonly handshakeMs: number
  /** A peer silent for two of these is gone. */
  readonly heartbeatMs: number
  /** Bytes waiting for one socket, the kernel's own buffers not counted. Past it its subscriptions stand still. */
  readonly sendQueueBytes: number
  /** A peer that takes nothing for so long, while bytes wait for it, is closed: SLOW_CONSUMER. */
  readonly slowConsumerMs: number
  /** The longest `wait` of a long-poll; longer ones are cut to it. */
  readonly maxWaitMs: number
  /** Bytes of one long-poll answer. Past it: SNAPSHOT_TOO_LARGE. */
  readonly longPollMaxBytes: number
  /** How long POST /v1/wait waits for a transaction. Past it: WAIT_TIMEOUT. */
  readonly waitTimeoutMs: number
  /** How long a POST to a stream waits until the stream takes frames again. Past it: UNAVAILABLE. Less than a node waits for another. */
  readonly postWaitMs: number
  readonly ticketMs: number
  /** Unused tickets of one role and subject. Past it: RATE_LIMITED. */
  readonly maxTicketsPerPrincipal: number
  /** Unused tickets (past it: BUSY), and again as many used ones (past it the oldest is forgotten): of this node, or in Redis
   *  of all nodes together. */
  readonly maxTickets: number
  /** How long a closing handshake may take before the socket is destroyed. */
  readonly closeTimeoutMs: number
  /** The `retry:` hint of SSE; each stream is told between one and two times this. */
  readonly retryMs: number
}

export const defaultLimits: GatewayLimits = {
  maxFrameBytes: 64 * 1024,
  maxSubscriptions: 100,
  framesPerSecond: 50,
  frameBurst: 200,
  maxConnections: 10_000,
  maxConnectionsPerAddress: 0,
  maxConnectionsPerUser: 0,
  maxUnheard: 1024,
  handshakeMs: 10_000,
  heartbeatMs: 25_000,
  sendQueueBytes: 1024 * 1024,
  slowConsumerMs: 30_000,
  maxWaitMs: 60_000,
  longPollMaxBytes: 16 * 1024 * 1024,
  waitTimeoutMs: 10_000,
  postWaitMs: 8_000,
  ticketMs: 30_000,
  maxTicketsPerPrincipal: 20,
  maxTickets: 10_000,
  closeTimeoutMs: 2_000,
  retryMs: 1_000,
}
