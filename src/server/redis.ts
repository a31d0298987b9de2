// Connections to Redis: one server, a master that Sentinels name, or a Cluster.
import { Cluster, Redis } from 'ioredis'
import { TidegateError } from '../protocol/tidegate-error.ts'

/** What all three have. Every key of a deployment has the same hash tag, so that scripts work in a Cluster too. */
export type RedisClient = Redis | Cluster

export interface RedisConnectionOptions {
  /** Shown by CLIENT LIST. */
  readonly connectionName: string
  /** A command that takes longer fails, and what it did is unknown. 0: none, for reads that block. */
  readonly commandTimeoutMs?: number
}

/** Where REDIS_URL leads. */
export type RedisPlace =
  | { readonly kind: 'standalone'; readonly url: string }
  | { readonly kind: 'sentinel'; readonly master: string; readonly hosts: readonly Host[]; readonly login: Login }
  | { readonly kind: 'cluster'; readonly hosts: readonly Host[]; readonly login: Login }

export interface Host {
  readonly host: string
  readonly port: number
}

interface Login {
  readonly username?: string
  readonly password?: string
}

/** Reads `redis://user:password@host:6379/0`, `rediss://...`, `redis+sentinel://:password@host:26379,host:26379/master`, or
 *  `redis+cluster://:password@host:6379,host:6379`. @throws CONFIG_INVALID */
export function parseRedisUrl(url: string): RedisPlace {
  const parts = /^(rediss?|redis\+sentinel|redis\+cluster):\/\/(?:([^@/]*)@)?([^/]+)(?:\/(.*))?$/.exec(url)
  if (parts === null) throw invalid('it is no such URL')
  const [, scheme, userInfo, hostList, path = ''] = parts
  if (scheme === 'redis' || scheme === 'rediss') return { kind: 'standalone', url }
  const defaultPort = scheme === 'redis+sentinel' ? 26379 : 6379
  const hosts = hostList!.split(',').map(text => {
    const [host = '', port] = text.split(/:(?=\d+$)/)
    return { host, port: port === undefined ? defaultPort : Number(port) }
  })
  const [username = '', password = ''] = (userInfo ?? '').split(/:(.*)/s)
  const login = {
    ...(username === '' ? {} : { username: decodeURIComponent(username) }),
    ...(password === '' ? {} : { password: decodeURIComponent(password) }),
  }
  if (scheme === 'redis+cluster') return { kind: 'cluster', hosts, login }
  if (path === '') throw invalid('it names no master after the Sentinels')
  return { kind: 'sentinel', master: path, hosts, login }
}

/** Connects in the background and comes back when cut; until then commands fail at once instead of waiting in a queue whose
 *  order nobody knows. */
export function openRedis(url: string, { connectionName, commandTimeoutMs = 0 }: RedisConnectionOptions): RedisClient {
  const place = parseRedisUrl(url)
  const client = open(place, {
    connectionName,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    autoResendUnfulfilledCommands: false,
    connectTimeout: 2000,
    keepAlive: 10_000,
    noDelay: true,
    retryStrategy: (attempt: number): number =>
      Math.min(50 * 2 ** Math.min(attempt, 6), 1000) * (0.5 + Math.random() / 2),
    // A demoted master answers READONLY: the connection is made anew, to whoever is master now.
    reconnectOnError: (error: Error): boolean => error.message.startsWith('READONLY'),
    ...(commandTimeoutMs === 0 ? {} : { commandTimeout: commandTimeoutMs }),
  })
  // Each failed attempt is told here; commands say so themselves to whoever asked.
  client.on('error', () => {})
  return client
}

/** What is set here of ioredis's options, without those that differ between its three kinds. */
interface ConnectionSettings {
  readonly connectionName: string
  readonly enableOfflineQueue: boolean
  readonly maxRetriesPerRequest: number
  readonly autoResendUnfulfilledCommands: boolean
  readonly connectTimeout: number
  readonly keepAlive: number
  readonly noDelay: boolean
  readonly retryStrategy: (attempt: number) => number
  readonly reconnectOnError: (error: Error) => boolean
  readonly commandTimeout?: number
}

const sentinelRetryStrategy = (attempt: number): number => Math.min(100 * attempt, 1000)

function open(place: RedisPlace, settings: ConnectionSettings): RedisClient {
  switch (place.kind) {
    case 'standalone':
      return new Redis(place.url, settings)
    case 'sentinel':
      return new Redis({
        ...settings,
        ...place.login,
        sentinels: [...place.hosts],
        name: place.master,
        sentinelRetryStrategy,
      })
    case 'cluster': {
      // The Cluster has a queue and a strategy of its own.
      const { enableOfflineQueue, retryStrategy: _, ...redisOptions } = settings
      return new Cluster([...place.hosts], {
        enableOfflineQueue,
        retryDelayOnFailover: 100,
        clusterRetryStrategy: sentinelRetryStrategy,
        redisOptions: { ...redisOptions, ...place.login },
      })
    }
  }
}

const invalid = (why: string): TidegateError =>
  new TidegateError(
    'CONFIG_INVALID',
    `REDIS_URL does not fit: ${why}; it takes redis://host:6379, redis+sentinel://host:26379,host:26379/master or redis+cluster://host:6379,host:6379`,
  )

/** Whether an error says that Redis is away, or not ready: no fault of what was asked, and worth another attempt. */
export function isRedisAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  return /^(Connection is closed|Command timed out|Stream isn't writeable|Cluster isn't ready|None of startup nodes|Failed to refresh slots|All sentinels are unreachable|Reached the max retries|LOADING|CLUSTERDOWN|READONLY|MASTERDOWN|TRYAGAIN|UNBLOCKED|connect |read |write |getaddrinfo )/.test(
    error.message,
  )
}
