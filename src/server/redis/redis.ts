// Connections to Redis: one server, a master that Sentinels name, or a Cluster.
//
// What holds of all three. A command is sent once, or not at all: while Redis is away it fails at once, since in a queue it would be
// carried out at a moment nobody knows; and what was sent when a connection broke is not sent again, since it may have been carried
// out. A connection that owes an answer too long is dropped and made anew, to whoever is master then: ioredis by itself only lets
// go of the command, and sends the next ones down the same hole.
import { Cluster, type ClusterOptions, type Command, Redis } from 'ioredis'
import { disconnectMs, masterConnector } from './redis-sentinel.ts'
import { type ClusterPlace, parseRedisUrl, type RedisPlace } from './redis-url.ts'

/** What all three have. Every key of a deployment has the same hash tag, so that scripts work in a Cluster too. */
export type RedisClient = Redis | Cluster

export interface RedisConnectionOptions {
  /** Shown by CLIENT LIST. */
  readonly connectionName: string
  /** A command that takes longer fails, what it did is unknown, and its connection is dropped. More than a read may block. */
  readonly commandTimeoutMs: number
}

/** What goes before the first command (TLS left out): AUTH, SELECT, INFO. */
const handshakeMs = 1000
const connectMs = 2000

/** Connects in the background, and again whenever cut.
 *  @param url see `parseRedisUrl` @throws CONFIG_INVALID */
export function openRedis(url: string, { connectionName, commandTimeoutMs }: RedisConnectionOptions): RedisClient {
  const place = parseRedisUrl(url)
  const { login, tls } = place
  const settings: ConnectionSettings = {
    connectionName,
    ...login,
    ...(tls === null ? {} : { tls: { ...tls } }),
    commandTimeout: commandTimeoutMs,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    // In the third version XREAD answers with a map, which ioredis flattens: another shape than every example has.
    protocol: 2,
    connectTimeout: connectMs,
    disconnectTimeout: disconnectMs,
    // A server that loads its data counts as away; it is asked again soon, however long it believes to need.
    maxLoadingRetryTime: 250,
    keepAlive: 10_000,
    noDelay: true,
    reconnectOnError: isDemotion,
  }
  const client = place.kind === 'cluster' ? openCluster(place, settings) : openServer(place, settings)
  // Each failed attempt is told here; commands say so themselves to whoever asked.
  client.on('error', (error: Error) => {
    // A Cluster says only that none answered; why, its nodes have said.
    if (client instanceof Redis || !failures.has(client)) failures.set(client, error)
  })
  client.on('ready', () => void failures.delete(client))
  return client
}

/** What ioredis takes of all its kinds. */
type ConnectionSettings = Omit<NonNullable<ClusterOptions['redisOptions']>, 'replyMapping'>

function openServer(place: Exclude<RedisPlace, ClusterPlace>, settings: ConnectionSettings): Redis {
  const way =
    place.kind === 'standalone' ? { host: place.host, port: place.port } : { Connector: masterConnector(place) }
  const client = new Redis({
    ...settings,
    ...way,
    db: place.database,
    enableOfflineQueue: false,
    // Not all nodes at once after an outage, and never much later than it ends.
    retryStrategy: attempt => Math.min(50 * 2 ** Math.min(attempt, 5), 500) * (0.5 + Math.random() / 2),
  })
  dropWhenSilent(client)
  return client
}

function openCluster({ hosts }: ClusterPlace, redisOptions: ConnectionSettings): Cluster {
  const client = new Cluster([...hosts], {
    redisOptions,
    enableOfflineQueue: false,
    // 0: fails at once instead of being sent again, perhaps for the second time, to whoever is there by then.
    retryDelayOnFailover: 0,
    retryDelayOnClusterDown: 0,
    maxRedirections: 4,
    slotsRefreshTimeout: 500,
    clusterRetryStrategy: attempt => Math.min(100 * attempt, 500) * (0.5 + Math.random() / 2),
    // By node:net, under the name that certificates are for.
    dnsLookup: (address, done) => done(null, address),
  })
  const copies = new Set<Redis>()
  clusterCopies.set(client, copies)
  client.on('+node', (node: Redis) => {
    dropWhenSilent(node)
    // The Cluster asks who has which slot over a copy of its own.
    const duplicate = node.duplicate.bind(node)
    node.duplicate = override => {
      const copy = duplicate(override)
      copies.add(copy)
      copy.on('error', (error: Error) => void failures.set(client, error))
      copy.once('end', () => copies.delete(copy))
      return copy
    }
  })
  return client
}

const clusterCopies = new WeakMap<Cluster, Set<Redis>>()

/** Why the last attempt to connect failed. */
const failures = new WeakMap<RedisClient, Error>()

/** What Redis, or the way to it, last said against a connection; null while it stands. For messages to the operator: a command
 *  only says that there is no connection. */
export const whyRedisAway = (client: RedisClient): string | null => failures.get(client)?.message ?? null

/** A command that timed out ends its connection, and all that wait behind it fail. */
function dropWhenSilent(connection: Redis): void {
  const firstMs = Math.min(handshakeMs, connection.options.commandTimeout ?? handshakeMs)
  const send = connection.sendCommand.bind(connection)
  connection.sendCommand = (command: Command, stream): unknown => {
    // What goes before the first command takes no longer, however long a read may block.
    if (connection.status !== 'ready') command.setTimeout(firstMs)
    const sent = send(command, stream)
    command.promise.catch((error: unknown) => {
      if (isTimeout(error)) connection.stream?.destroy()
    })
    return sent
  }
}

/** Its connections: of a Cluster, one to each node. */
function connectionsOf(client: RedisClient): readonly Redis[] {
  if (client instanceof Redis) return [client]
  return [...client.nodes(), ...(clusterCopies.get(client) ?? [])]
}

/** For good, at once: what was asked fails, and no timer is left. */
export function closeRedis(client: RedisClient): void {
  const connections = connectionsOf(client)
  client.disconnect()
  for (const connection of connections) {
    if (connection.status !== 'end') connection.disconnect()
    connection.stream?.destroy()
  }
}

/** The connection over which commands on this key go, for commands without a key that are about what it wrote: WAIT, WAITAOF.
 *  Null while that is not known. */
export function connectionFor(client: RedisClient, key: string): Redis | null {
  if (client instanceof Redis) return client
  const owner = client.slots[slotOf(key)]?.[0]
  return client.nodes('master').find(({ options }) => `${options.host}:${options.port}` === owner) ?? null
}

// ioredis's words.
const timedOut = 'Command timed out'
const isTimeout = (error: unknown): boolean => error instanceof Error && error.message === timedOut

/** Of ioredis, and of Node where a connection breaks. */
const connectionLost = new RegExp(
  `^(${[
    'Connection is closed',
    timedOut,
    "Stream isn't writeable",
    "Cluster isn't ready",
    'Cluster is (ended|disconnect)',
    'None of startup nodes',
    'Failed to refresh slots',
    'Too many Cluster redirections',
    'No Sentinel names a master',
    'Reached the max retries',
    'Command aborted due to connection close',
    'Socket closed unexpectedly',
    'This socket has been ended',
    '(connect|read|write|getaddrinfo) [A-Z]',
  ].join('|')})`,
)

/** Of Redis, where it cannot now; in the middle of the message where a script of Redis 6 was told. */
const cannotNow = /(?:^|[\s:]-)(LOADING|CLUSTERDOWN|READONLY|MASTERDOWN|NOREPLICAS|TRYAGAIN|UNBLOCKED|BUSY|MOVED|ASK) /

const isDemotion = (error: Error): boolean => /(?:^|[\s:]-)(READONLY|MASTERDOWN|UNBLOCKED) /.test(error.message)

/** Whether an error says that Redis is away, or cannot now: no fault of what was asked, and worth another attempt. What the
 *  command did is unknown, where it was sent. */
export const isRedisAway = (error: unknown): boolean =>
  error instanceof Error && (connectionLost.test(error.message) || cannotNow.test(error.message))

/** https://redis.io/docs/latest/operate/oss_and_stack/reference/cluster-spec/#hash-tags */
export function slotOf(key: string): number {
  const tag = /^[^{]*\{([^}]+)\}/.exec(key)?.[1]
  let crc = 0
  for (const byte of Buffer.from(tag ?? key)) {
    crc ^= byte << 8
    for (let bit = 0; bit < 8; bit += 1) crc = ((crc << 1) ^ (crc & 0x8000 ? 0x1021 : 0)) & 0xffff
  }
  return crc & 16383
}
