// Why a Redis cannot be reached, found out by asking each host of the URL by itself, and what to write instead.
import { Redis } from 'ioredis'
import type { Host } from '../redis/redis-url.ts'
import { failure, setting, shell } from './checks.ts'
import type { Finding } from './finding.ts'
import { hostsOf, type OtherPlace, placeOfHost, type RedisWay, redisCli, redisUrlTo, sayHost } from './redis-words.ts'

/** What one host answers. */
export interface HostLook {
  readonly host: Host
  /** `standalone`, `sentinel` or `cluster`, as INFO has it; null: it did not answer. */
  readonly mode: string | null
  /** Of a Sentinel: the masters it watches. */
  readonly masters: readonly string[]
  /** Null: it answered. */
  readonly error: string | null
  /** It does not answer as asked, but does with TLS, or without. */
  readonly otherTlsAnswers: boolean
}

const code = 'RELAY_UNREACHABLE'

/** @param why what the connection of a node says @throws nothing */
export async function unreachableFinding(way: RedisWay, why: string): Promise<Finding> {
  const hosts = await Promise.all(hostsOf(way.place).map(host => lookAtHost(way, host)))
  return judgeHosts(way, why, hosts)
}

/** @param hosts at least one */
export function judgeHosts(way: RedisWay, why: string, hosts: readonly HostLook[]): Finding {
  const { place } = way
  const answering = hosts.filter(({ mode }) => mode !== null)
  const other = answering
    .map(look => kindOf(look, answering))
    .find(found => found !== null && found.kind !== place.kind)
  const masters = answering.flatMap(look => look.masters)
  if (other !== undefined && other !== null && (place.kind !== 'sentinel' || masters.length === 0))
    return failure(
      'redis-kind',
      `REDIS_URL is of ${kindNames[place.kind]}, but leads to ${kindNames[other.kind]}`,
      setting(`REDIS_URL=${redisUrlTo(way, other)}`),
      { code: 'CONFIG_INVALID' },
    )
  if (place.kind === 'sentinel' && masters.length > 0 && !masters.includes(place.master))
    return failure(
      'redis-kind',
      `the Sentinels know no master "${place.master}", but ${[...new Set(masters)].map(name => `"${name}"`).join(', ')}`,
      setting(`REDIS_URL=${redisUrlTo(way, { ...place, master: masters[0]! })}`),
      { code: 'CONFIG_INVALID' },
    )
  const first = hosts[0]!
  const reason = `REDIS_URL does not answer: ${why}`
  if (hosts.some(({ otherTlsAnswers }) => otherTlsAnswers))
    return failure(
      'redis-reachable',
      `${reason}; ${sayHost(first.host)} answers ${place.tls === null ? 'with TLS only' : 'without TLS only'}`,
      setting(
        `REDIS_URL=${redisUrlTo(way, place.kind === 'standalone' ? placeOfHost(place.host, place.port) : place, place.tls === null)}`,
      ),
      { code },
    )
  return failure('redis-reachable', reason, remedyOf(way, `${why} ${first.error ?? ''}`, first.host), { code })
}

function remedyOf(way: RedisWay, words: string, host: Host): Finding['remedy'] {
  const { place } = way
  const own = place.kind === 'standalone' ? placeOfHost(place.host, place.port) : place
  if (/NOAUTH|WRONGPASS|invalid password|without any password/i.test(words)) {
    const login = { ...place.login, password: 'given' }
    return setting(
      `REDIS_URL=${redisUrlTo({ ...way, place: { ...place, login } }, own)}`,
      'with the password of that user in place of $REDIS_PASSWORD; restart every node',
    )
  }
  if (/certificate|self[- ]signed|issuer|altnames/i.test(words))
    return setting(
      `REDIS_URL=${redisUrlTo({ ...way, tlsQuery: '?ssl_ca_certs=$REDIS_CA' }, own, true)}`,
      'with the file of the authority that signed its certificate in place of $REDIS_CA, under a name that the certificate has; restart every node',
    )
  return shell(
    redisCli(place, host, 'PING'),
    'start it, or let REDIS_URL lead where it is; it is tried again until it answers',
  )
}

const kindNames = { standalone: 'one server', sentinel: 'Sentinels', cluster: 'a Cluster' } as const

/** Where a URL leads that leads to such hosts. */
function kindOf({ mode, masters, host }: HostLook, all: readonly HostLook[]): OtherPlace | null {
  const hosts = all.filter(look => look.mode === mode).map(look => look.host)
  if (mode === 'sentinel') return { kind: 'sentinel', hosts, master: masters[0] ?? 'mymaster' }
  if (mode === 'cluster') return { kind: 'cluster', hosts }
  return mode === 'standalone' ? placeOfHost(host.host, host.port) : null
}

/** @throws nothing */
async function lookAtHost({ place }: RedisWay, host: Host): Promise<HostLook> {
  const logins = place.kind === 'sentinel' ? [place.sentinelLogin, place.login] : [place.login, {}]
  let error = ''
  for (const login of logins)
    try {
      return { host, ...(await askHost(host, login, place.tls)), error: null, otherTlsAnswers: false }
    } catch (failed) {
      error ||= (failed as Error).message
    }
  // A server that speaks the other says something, if only that it wants a password.
  const otherTls = place.tls === null ? { rejectUnauthorized: false } : null
  const otherTlsAnswers = await askHost(host, place.login, otherTls).then(
    () => true,
    (failed: Error) => /NOAUTH|WRONGPASS|NOPERM/.test(failed.message),
  )
  return {
    host,
    mode: null,
    masters: [],
    error,
    otherTlsAnswers: otherTlsAnswers && !/certificate|self[- ]signed/i.test(error),
  }
}

const askMs = 1500

async function askHost(
  { host, port }: Host,
  login: RedisWay['place']['login'],
  tls: RedisWay['place']['tls'],
): Promise<Pick<HostLook, 'mode' | 'masters'>> {
  const client = new Redis({
    host,
    port,
    ...login,
    ...(tls === null ? {} : { tls: { ...tls } }),
    lazyConnect: true,
    enableReadyCheck: false,
    retryStrategy: () => null,
    connectTimeout: askMs,
    commandTimeout: askMs,
    protocol: 2,
  })
  let last: Error | null = null
  client.on('error', (error: Error) => {
    last = error
  })
  try {
    await client.connect()
    const info = await client.info('server')
    const mode = /redis_mode:(\w+)/.exec(info)?.[1] ?? 'standalone'
    const masters = mode === 'sentinel' ? ((await client.call('SENTINEL', 'MASTERS')) as string[][]) : []
    return { mode, masters: masters.map(fields => fields[fields.indexOf('name') + 1]!) }
  } catch (error) {
    throw last ?? error
  } finally {
    client.disconnect()
  }
}
