// REDIS_URL as the doctor prints it: with the password left out.
import { type Host, parseRedisUrl, type RedisPlace, type StandalonePlace } from '../redis/redis-url.ts'

export type OtherPlace = Pick<StandalonePlace, 'kind' | 'host' | 'port'> | SentinelsOf | ClusterOf

interface SentinelsOf {
  readonly kind: 'sentinel'
  readonly hosts: readonly Host[]
  readonly master: string
}

interface ClusterOf {
  readonly kind: 'cluster'
  readonly hosts: readonly Host[]
}

export const placeOfHost = (host: string, port: number): OtherPlace => ({ kind: 'standalone', host, port })

export interface RedisWay {
  readonly place: RedisPlace
  /** Its parameters of TLS: `?ssl_ca_certs=/etc/ca.crt`; empty without. */
  readonly tlsQuery: string
}

/** @throws CONFIG_INVALID */
export function wayOf(url: string): RedisWay {
  const place = parseRedisUrl(url)
  const all = [...new URLSearchParams(/\?(.*)/.exec(url)?.[1] ?? '')].filter(([name]) => name.startsWith('ssl_'))
  const text = all.map(([name, value]) => `${name}=${encodeURI(value)}`).join('&')
  return { place, tlsQuery: text === '' ? '' : `?${text}` }
}

/** A URL that leads there with the login and the TLS of this one. A password is printed as `$REDIS_PASSWORD`, for a shell.
 *  @param isTls other than it is now */
export function redisUrlTo(way: RedisWay, other: OtherPlace, isTls: boolean = way.place.tls !== null): string {
  const { place, tlsQuery } = way
  const { username = '', password } = place.login
  const login = username + (password === undefined ? '' : ':$REDIS_PASSWORD')
  const kind = other.kind === 'standalone' ? '' : `+${other.kind}`
  const hosts = other.kind === 'standalone' ? [other] : other.hosts
  const database =
    place.kind === 'cluster' || other.kind === 'cluster' || place.database === 0 ? '' : `/${place.database}`
  const path = `${other.kind === 'sentinel' ? `/${encodeURIComponent(other.master)}` : ''}${database}`
  return `redis${isTls ? 's' : ''}${kind}://${login === '' ? '' : `${login}@`}${hosts.map(sayHost).join(',')}${path}${isTls ? tlsQuery : ''}`
}

export const sayHost = ({ host, port }: Host): string => `${host.includes(':') ? `[${host}]` : host}:${port}`

/** Where the URL leads first. */
export const hostsOf = (place: RedisPlace): readonly Host[] => (place.kind === 'standalone' ? [place] : place.hosts)

/** Asks the server by hand; the password, if it has one, from the environment: REDISCLI_AUTH. */
export function redisCli(place: RedisPlace, { host, port }: Host, command: string): string {
  const { username } = place.login
  return `redis-cli -h ${host} -p ${port}${place.tls === null ? '' : ' --tls'}${username === undefined ? '' : ` --user ${username}`} ${command}`
}
