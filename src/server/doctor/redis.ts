// The doctor's look at Redis: whether it can be reached, and all that Tidegate needs of it.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Config } from '../config/config.ts'
import { closeRedis, openRedis, type RedisClient } from '../redis/redis.ts'
import { assertRedisReady } from '../redis/redis-ready.ts'
import { failure, ok, setting, warning } from './checks.ts'
import type { Finding } from './finding.ts'
import { judgeRedis, type RedisNeeds, rightsFinding } from './redis-findings.ts'
import { lookAtRedis } from './redis-look.ts'
import { rightsOf } from './redis-rights.ts'
import { unreachableFinding } from './redis-unreachable.ts'
import { hostsOf, type RedisWay, sayHost, wayOf } from './redis-words.ts'

export interface RedisFindingsOptions {
  readonly config: RedisNeeds & Pick<Config, 'redisUrl'>
  /** How long it may take to answer for the first time; each question then 2,000. Default 4,000. */
  readonly timeoutMs?: number
  /** This machine's clock, milliseconds since 1970. Default Date.now. */
  readonly now?: () => number
}

const commandTimeoutMs = 2000

/** Changes nothing but one key, `{<TIDEGATE_NAME>}:doctor`, which is deleted at once. @throws nothing */
export async function redisFindings({
  config,
  timeoutMs = 4000,
  now = Date.now,
}: RedisFindingsOptions): Promise<Finding[]> {
  const { redisUrl } = config
  if (redisUrl === null) return withoutRedis(config)
  let way: RedisWay
  try {
    way = wayOf(redisUrl)
  } catch (error) {
    return [failure('option', (error as Error).message, setting('REDIS_URL=redis://127.0.0.1:6379'), optionAbout)]
  }
  const open = (use: string) =>
    openRedis(redisUrl, { connectionName: `${config.tidegateName} doctor${use}`, commandTimeoutMs })
  const client = open('')
  const listener = open(' listening')
  try {
    return await findingsOf({ client, listener, way, config, timeoutMs, now })
  } catch (error) {
    // It went away meanwhile.
    return [await unreachableFinding(way, (error as Error).message)]
  } finally {
    closeRedis(client)
    closeRedis(listener)
  }
}

const optionAbout = { about: 'REDIS_URL', code: 'CONFIG_INVALID' } as const

function withoutRedis({ relayDurability }: RedisNeeds): Finding[] {
  const alone = ok('redis-reachable', 'REDIS_URL is not set: there is one node, and all is in its memory')
  if (relayDurability === 'none') return [alone]
  return [
    alone,
    warning(
      'redis-durability',
      `RELAY_DURABILITY is ${relayDurability}, but there is no Redis: REDIS_URL is not set`,
      setting('RELAY_DURABILITY=none'),
    ),
  ]
}

interface Reached extends Required<Omit<RedisFindingsOptions, 'config'>> {
  readonly config: RedisNeeds
  readonly client: RedisClient
  readonly listener: RedisClient
  readonly way: RedisWay
}

async function findingsOf({ client, listener, way, config, timeoutMs, now }: Reached): Promise<Finding[]> {
  try {
    await assertRedisReady(client, { timeoutMs, usesAof: config.relayDurability === 'aof' })
    await assertRedisReady(listener, { timeoutMs })
  } catch (error) {
    if (!(error instanceof TidegateError)) {
      // It may not even run INFO.
      const rights = await rightsOf({ client, listener, name: config.tidegateName })
      return [reachable(way), rightsFinding(rights, null)]
    }
    // Of a wrong kind too, since the hosts say of which. One that is too old answers, and is told as such below.
    if (error.code !== 'REDIS_VERSION') return [await unreachableFinding(way, wordsOf(error))]
  }
  const look = await lookAtRedis(client, { name: config.tidegateName, now })
  const rights = await rightsOf({ client, listener, name: config.tidegateName })
  return [reachable(way), rightsFinding(rights, look.servers[0]?.info ?? null), ...judgeRedis(look, config, way)]
}

const wordsOf = (error: Error): string => error.message.replace(/^REDIS_URL does not (answer|fit): /, '')

function reachable({ place }: RedisWay): Finding {
  const tls =
    place.tls === null ? '' : place.tls.rejectUnauthorized === false ? ', with TLS, whoever it is' : ', with TLS'
  return ok(
    'redis-reachable',
    `${hostsOf(place).map(sayHost).join(', ')} ${hostsOf(place).length === 1 ? 'answers' : 'answer'}${tls}`,
  )
}

/** What a start warns of: the same, of a connection that stands, with nothing tried. @throws when Redis does not answer */
export async function redisWarnings(client: RedisClient, redisUrl: string, config: RedisNeeds): Promise<Finding[]> {
  const look = await lookAtRedis(client, { name: config.tidegateName, now: Date.now })
  return judgeRedis(look, config, wayOf(redisUrl))
}
