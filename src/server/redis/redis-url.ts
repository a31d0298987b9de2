// Where REDIS_URL leads: one server, the master that Sentinels name, or a Cluster.
import { readFileSync } from 'node:fs'
import { TidegateError } from '../../protocol/tidegate-error.ts'

export interface Host {
  readonly host: string
  readonly port: number
}

export interface Login {
  readonly username?: string
  readonly password?: string
}

/** As node:tls takes it. */
export interface RedisTls {
  readonly ca?: string
  readonly cert?: string
  readonly key?: string
  readonly rejectUnauthorized?: boolean
}

interface Reached {
  readonly login: Login
  /** Null: not encrypted. */
  readonly tls: RedisTls | null
}

export interface StandalonePlace extends Reached, Host {
  readonly kind: 'standalone'
  readonly database: number
}

export interface SentinelPlace extends Reached {
  readonly kind: 'sentinel'
  /** Name of the master, as the Sentinels know it. */
  readonly master: string
  readonly database: number
  readonly hosts: readonly Host[]
  /** At the Sentinels themselves. */
  readonly sentinelLogin: Login
}

export interface ClusterPlace extends Reached {
  readonly kind: 'cluster'
  readonly hosts: readonly Host[]
}

export type RedisPlace = StandalonePlace | SentinelPlace | ClusterPlace

const shape = /^redis(s?)(\+sentinel|\+cluster)?:\/\/(?:([^@/?]*)@)?([^@/?]+)(?:\/([^?]*))?(?:\?(.*))?$/

/** Reads `redis://user:password@host:6379/0`, `redis+sentinel://:password@host:26379,host:26379/master` (`/master/0` for a database)
 *  and `redis+cluster://:password@host:6379,host:6379`; with `rediss` for TLS, also to the Sentinels.
 *
 *  Parameters, named as redis-py and Celery have them: `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (files, read here) and
 *  `ssl_cert_reqs=none` (any certificate will do); as ioredis has them: `sentinelUsername`, `sentinelPassword`.
 *  @throws CONFIG_INVALID, without the password */
export function parseRedisUrl(url: string): RedisPlace {
  const parts = shape.exec(url)
  if (parts === null) throw invalid('it is no such URL')
  const [, secure, kind, userInfo, hostList, path = '', query = ''] = parts
  const parameters = new Map(new URLSearchParams(query))
  const login = loginOf(userInfo ?? '')
  const tls = secure === '' ? null : takeTls(parameters)
  const place = placeOf(kind, { hostList: hostList!, path, parameters, login, tls })
  const unknown = [...parameters.keys()]
  if (unknown.length > 0) throw invalid(`it does not take ${unknown.join(', ')}${secure === '' ? ' without TLS' : ''}`)
  return place
}

interface Parts extends Reached {
  readonly hostList: string
  readonly path: string
  /** What is used is taken out. */
  readonly parameters: Map<string, string>
}

function placeOf(kind: string | undefined, { hostList, path, parameters, login, tls }: Parts): RedisPlace {
  if (kind === '+cluster') {
    if (path !== '' && path !== '0') throw invalid('a Cluster has no databases but 0')
    return { kind: 'cluster', hosts: hostsOf(hostList, 6379), login, tls }
  }
  if (kind === '+sentinel') {
    const [master = '', database] = path.split('/')
    if (master === '') throw invalid('it names no master after the Sentinels')
    const username = take(parameters, 'sentinelUsername')
    const password = take(parameters, 'sentinelPassword')
    const sentinelLogin = { ...(username && { username }), ...(password && { password }) }
    const hosts = hostsOf(hostList, 26379)
    return {
      kind: 'sentinel',
      master: decoded(master),
      database: databaseOf(database),
      hosts,
      login,
      sentinelLogin,
      tls,
    }
  }
  const [host, ...others] = hostsOf(hostList, 6379)
  if (others.length > 0) throw invalid('several hosts are of redis+sentinel or redis+cluster')
  return { kind: 'standalone', ...host!, database: databaseOf(path), login, tls }
}

function hostsOf(list: string, defaultPort: number): Host[] {
  return list.split(',').map(text => {
    const parts = /^(?:\[([^\]]+)\]|([^:[\]]+))(?::(\d{1,5}))?$/.exec(text)
    if (parts === null) throw invalid(`${JSON.stringify(text)} is no host and port`)
    const port = Number(parts[3] ?? defaultPort)
    if (port < 1 || port > 65535) throw invalid(`${port} is no port`)
    return { host: parts[1] ?? parts[2]!, port }
  })
}

function loginOf(userInfo: string): Login {
  const [username = '', password = ''] = userInfo.split(/:(.*)/s).map(decoded)
  return { ...(username && { username }), ...(password && { password }) }
}

function databaseOf(text = ''): number {
  if (!/^\d{0,5}$/.test(text)) throw invalid(`${JSON.stringify(text)} is no number of a database`)
  return Number(text)
}

function takeTls(parameters: Map<string, string>): RedisTls {
  const ca = takeFile(parameters, 'ssl_ca_certs')
  const cert = takeFile(parameters, 'ssl_certfile')
  const key = takeFile(parameters, 'ssl_keyfile')
  const required = take(parameters, 'ssl_cert_reqs') ?? 'required'
  if (required !== 'required' && required !== 'none') throw invalid('ssl_cert_reqs is required or none')
  return {
    ...(ca === undefined ? {} : { ca }),
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(required === 'none' ? { rejectUnauthorized: false } : {}),
  }
}

function takeFile(parameters: Map<string, string>, name: string): string | undefined {
  const path = take(parameters, name)
  if (path === undefined) return undefined
  try {
    return readFileSync(path, 'utf8')
  } catch (cause) {
    throw invalid(`the file of ${name} cannot be read: ${(cause as Error).message}`)
  }
}

function take(parameters: Map<string, string>, name: string): string | undefined {
  const value = parameters.get(name)
  parameters.delete(name)
  return value
}

function decoded(text: string): string {
  try {
    return decodeURIComponent(text)
  } catch {
    throw invalid('a % in it begins no %41; write %25')
  }
}

const invalid = (why: string): TidegateError =>
  new TidegateError(
    'CONFIG_INVALID',
    `REDIS_URL does not fit: ${why}; it takes redis://host:6379, redis+sentinel://host:26379,host:26379/master or redis+cluster://host:6379,host:6379, and rediss for TLS`,
  )
