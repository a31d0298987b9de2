// What the doctor says of options that fit: what may be unsafe, and what does not go with the rest. Pure.
import type { Config } from '../config/config.ts'
import { type Mixture, mixturesOf } from '../config/config-unsafe.ts'
import { connectionOf } from '../postgres/postgres-url.ts'
import { failure, ok, setting, warning } from './checks.ts'
import type { Finding } from './finding.ts'
import { isLocal } from './local-host.ts'
import { hostsOf, placeOfHost, redisUrlTo, wayOf } from './redis-words.ts'

/** @param isProduction NODE_ENV is production */
export function configurationFindings(config: Config, isProduction = false): Finding[] {
  const mixtures = mixturesOf(config, name => name, isProduction)
  return [
    secretFinding(config, mixtures),
    ...audienceFindings(config, mixtures),
    originsFinding(config),
    ...databaseTlsFindings(config),
    ...redisTlsFindings(config),
    operatorFinding(config, mixtures),
    ...windowFindings(config),
    drainFinding(config),
    heartbeatFinding(config),
    ...otherMixtures(mixtures),
  ]
}

/** Of docker-compose.yml. */
const ofOurExamples = /^development-only/

function secretFinding({ jwtSecret, host }: Config, mixtures: readonly Mixture[]): Finding {
  if (jwtSecret === null) return ok('jwt-secret', 'tokens are verified by the keys of JWT_JWKS_URL')
  const published = mixtures.find(({ check }) => check === 'secret-published')
  if (published === undefined && !jwtSecret.some(secret => ofOurExamples.test(secret)))
    return ok('jwt-secret', 'JWT_SECRET is long enough, and stands in no example that is known here')
  const isAlone = isLocal(host)
  return (isAlone ? warning : failure)(
    'jwt-secret',
    `JWT_SECRET stands in public examples: whoever reads them can sign a token for anybody${isAlone ? '; as long as only this machine can connect, that is as it may be' : ''}`,
    setting('JWT_SECRET=$(openssl rand -hex 32)', 'sign tokens with it too; restart every node'),
  )
}

function audienceFindings({ jwtAudience }: Config, mixtures: readonly Mixture[]): Finding[] {
  const found = mixtures.find(({ check }) => check === 'jwt-audience')
  if (found === undefined)
    return jwtAudience === null ? [] : [ok('jwt-audience', `only tokens for "${jwtAudience}" are accepted`)]
  return [
    warning(
      'jwt-audience',
      found.reason,
      setting('JWT_AUDIENCE=authenticated', 'or what the claim aud of your tokens says; restart every node'),
    ),
  ]
}

function originsFinding({ allowedOrigins }: Config): Finding {
  if (allowedOrigins.includes('*'))
    return warning(
      'allowed-origins',
      'ALLOWED_ORIGINS is *: any page may connect from the browser of whoever opens it',
      setting('ALLOWED_ORIGINS=https://app.example.com', 'with the origins of your pages; restart every node'),
    )
  const origins = allowedOrigins.length === 0 ? 'only pages from this host and port' : allowedOrigins.join(', ')
  return ok('allowed-origins', `${origins} may connect`)
}

function databaseTlsFindings(config: Config): Finding[] {
  const urls = [
    ['DATABASE_URL', config.databaseUrl],
    ['DATABASE_REPLICATION_URL', config.databaseReplicationUrl],
  ] as const
  return urls.flatMap(([about, url]) => (url === null ? [] : [databaseTlsFinding(about, url)]))
}

function databaseTlsFinding(about: 'DATABASE_URL' | 'DATABASE_REPLICATION_URL', text: string): Finding {
  try {
    const { ssl } = connectionOf(text, '', about)
    const { hostname, searchParams } = new URL(text)
    const host = searchParams.get('host') ?? decodeURIComponent(hostname)
    if (isLocal(host)) return ok('database-tls', 'it leads to this machine', { about })
    const remedy = setting(`${about}=${verified(text)}`)
    if (ssl === false || searchParams.get('sslmode') === 'prefer')
      return warning(
        'database-tls',
        `it leads to ${host} ${ssl === false ? 'without TLS' : 'with TLS only if the server offers it'}: whoever is on the way reads rows, and can change them`,
        remedy,
        { about },
      )
    if (ssl.rejectUnauthorized === false)
      return warning(
        'database-tls',
        `it leads to ${host} with TLS, but takes any certificate: whoever is on the way can say that it is the database`,
        remedy,
        { about },
      )
    return ok('database-tls', `it leads to ${host} with TLS, and its certificate is looked at`, { about })
  } catch (error) {
    return failure('option', (error as Error).message, null, { about, code: 'CONFIG_INVALID' })
  }
}

/** The same, to be told from others on the way. The password as a shell knows it. */
function verified(text: string): string {
  const url = new URL(text)
  url.searchParams.delete('ssl')
  url.searchParams.delete('sslpassword')
  const hasPassword = url.password !== '' || url.searchParams.has('password')
  url.searchParams.delete('password')
  url.searchParams.set('sslmode', 'verify-full')
  const login = url.username + (hasPassword ? ':$PGPASSWORD' : '')
  return `${url.protocol}//${login === '' ? '' : `${login}@`}${url.host}${url.pathname}${url.search}`
}

function redisTlsFindings({ redisUrl }: Config): Finding[] {
  if (redisUrl === null) return []
  const about = 'REDIS_URL'
  try {
    const way = wayOf(redisUrl)
    const { place } = way
    const hosts = hostsOf(place)
    const other = place.kind === 'standalone' ? placeOfHost(place.host, place.port) : place
    if (hosts.every(({ host }) => isLocal(host))) return [ok('redis-tls', 'it leads to this machine', { about })]
    const names = hosts.map(({ host }) => host).join(', ')
    if (place.tls === null)
      return [
        warning(
          'redis-tls',
          `it leads to ${names} without TLS: whoever is on the way reads what passes, and can change it`,
          setting(
            `REDIS_URL=${redisUrlTo(way, other, true)}`,
            'once that Redis speaks TLS (tls-port); restart every node',
          ),
          { about },
        ),
      ]
    if (place.tls.rejectUnauthorized === false)
      return [
        warning(
          'redis-tls',
          `it leads to ${names} with TLS, but takes any certificate: whoever is on the way can say that it is Redis`,
          setting(
            `REDIS_URL=${redisUrlTo({ ...way, tlsQuery: '?ssl_ca_certs=$REDIS_CA' }, other)}`,
            'with the file of the authority in place of $REDIS_CA; restart every node',
          ),
          { about },
        ),
      ]
    return [ok('redis-tls', `it leads to ${names} with TLS, and its certificate is looked at`, { about })]
  } catch {
    // The look at Redis says what is wrong with it.
    return []
  }
}

function operatorFinding({ operatorToken, adminPort }: Config, mixtures: readonly Mixture[]): Finding {
  const missing = mixtures.find(({ check }) => check === 'operator-token-missing')
  if (missing !== undefined)
    return warning('operator-token', missing.reason, setting('OPERATOR_TOKEN=$(openssl rand -hex 32)'))
  if (operatorToken === null)
    return ok(
      'operator-token',
      'OPERATOR_TOKEN is not set: /metrics, the inspector, explanations and orders over HTTP are off',
    )
  return ok(
    'operator-token',
    `operators are let in by a token${adminPort === null ? '' : `, on port ${adminPort} alone`}`,
  )
}

function windowFindings({ redisUrl, windowMaxBytes, relayMaxBytes, slotMaxBytes }: Config): Finding[] {
  if (redisUrl !== null) {
    const words = `RELAY_MAX_BYTES is ${relayMaxBytes}, and WINDOW_MAX_BYTES ${windowMaxBytes}`
    if (relayMaxBytes >= windowMaxBytes) return [ok('relay-window', words)]
    return [
      warning(
        'relay-window',
        `${words}: a node that starts finds less than it may hold, and clients that come to it start over`,
        setting(`RELAY_MAX_BYTES=${windowMaxBytes}`),
      ),
    ]
  }
  const quarter = Math.floor(slotMaxBytes / 4)
  const words = `a quarter of SLOT_MAX_BYTES is ${quarter}, and WINDOW_MAX_BYTES ${windowMaxBytes}`
  if (quarter >= windowMaxBytes) return [ok('slot-window', words)]
  return [
    warning(
      'slot-window',
      `${words}: after a restart the window is refilled from the slot, and never farther back than that quarter`,
      setting(`SLOT_MAX_BYTES=${4 * windowMaxBytes}`, 'max_slot_wal_keep_size must stay above it; restart every node'),
    ),
  ]
}

/** What a node takes where nothing is set, at most: docs/operations.md. */
const drainDefaults = { delayMs: 5000, spreadMs: 20_000, timeoutMs: 3000 } as const
const killedAfterMs = 30_000

function drainFinding({ drainDelayMs, drainSpreadMs, drainTimeoutMs }: Config): Finding {
  const totalMs = (drainDelayMs ?? drainDefaults.delayMs) + (drainSpreadMs ?? drainDefaults.spreadMs) + drainTimeoutMs
  const words = `a node takes up to ${totalMs / 1000} s to leave`
  if (totalMs <= killedAfterMs) return ok('drain-time', words)
  const { delayMs, spreadMs, timeoutMs } = drainDefaults
  return warning(
    'drain-time',
    `${words} (DRAIN_DELAY_MS, DRAIN_SPREAD_MS and DRAIN_TIMEOUT_MS), and Kubernetes kills it after 30: clients are cut off`,
    setting(
      `DRAIN_DELAY_MS=${delayMs}\nDRAIN_SPREAD_MS=${spreadMs}\nDRAIN_TIMEOUT_MS=${timeoutMs}`,
      `restart every node; or let it have the time: terminationGracePeriodSeconds: ${Math.ceil(totalMs / 1000) + 5}`,
    ),
  )
}

/** Of nginx (proxy_read_timeout) and most balancers. */
const proxiesCutAfterMs = 60_000

function heartbeatFinding({ heartbeatMs }: Config): Finding {
  if (heartbeatMs < proxiesCutAfterMs) return ok('heartbeat', `clients hear something every ${heartbeatMs / 1000} s`)
  return warning(
    'heartbeat',
    `HEARTBEAT_MS is ${heartbeatMs}: most proxies cut a connection that is quiet for 60 s`,
    setting('HEARTBEAT_MS=25000'),
  )
}

const told: ReadonlySet<string> = new Set(['secret-published', 'jwt-audience', 'operator-token-missing'])

/** Those that are refused stop the reading of the configuration before. */
const otherMixtures = (mixtures: readonly Mixture[]): Finding[] =>
  mixtures
    .filter(({ check, isRefused }) => !isRefused && !told.has(check))
    .map(({ reason }) => warning('option', reason, null))
