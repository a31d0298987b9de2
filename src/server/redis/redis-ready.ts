// Whether Redis is one that Tidegate can use: asked at the start, and by the doctor.
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { isRedisAway, type RedisClient, whyRedisAway } from './redis.ts'

export interface RedisReady {
  /** Of the oldest server. Of those that are no Redis, the version of Redis that they stand for. */
  readonly version: string
  /** For the operator, with what to run. */
  readonly warnings: readonly string[]
}

/** XTRIM MINID, GETDEL and exclusive ranges of XRANGE came with it. */
const oldest = '6.2'
/** WAITAOF came with it. */
const oldestForAof = '7.2'

/** Waits for a connection; of a Cluster, for one to each master.
 *  @param options.usesAof RELAY_DURABILITY=aof
 *  @throws RELAY_UNREACHABLE past the time, with the reason; REDIS_VERSION; CONFIG_INVALID when the URL is of the wrong kind */
export async function assertRedisReady(
  client: RedisClient,
  { timeoutMs = 10_000, usesAof = false }: { timeoutMs?: number; usesAof?: boolean } = {},
): Promise<RedisReady> {
  const deadlineMs = performance.now() + timeoutMs
  for (;;) {
    try {
      return judge(client, await infosOf(client), usesAof)
    } catch (error) {
      if (!isRedisAway(error)) throw error
      if (performance.now() >= deadlineMs)
        throw new TidegateError(
          'RELAY_UNREACHABLE',
          `REDIS_URL does not answer: ${whyRedisAway(client) ?? (error as Error).message}`,
          { cause: error },
        )
    }
    await sleep(50)
  }
}

/** Those that hold keys: of a Cluster, its masters. */
export const serversOf = (client: RedisClient): readonly Redis[] =>
  client instanceof Redis ? [client] : client.nodes('master')

/** What INFO answers, by name. */
export async function infoOf(server: Redis): Promise<ReadonlyMap<string, string>> {
  const text = await server.info()
  return new Map(text.split('\r\n').map(line => line.split(/:(.*)/s).slice(0, 2) as [string, string]))
}

/** INFO of each server that holds keys. */
async function infosOf(client: RedisClient): Promise<readonly ReadonlyMap<string, string>[]> {
  const servers = serversOf(client)
  // INFO is answered before the connection is ready, and the next command would fail.
  if (servers.length === 0 || client.status !== 'ready') throw new Error('Connection is closed.')
  return Promise.all(servers.map(infoOf))
}

function judge(client: RedisClient, infos: readonly ReadonlyMap<string, string>[], usesAof: boolean): RedisReady {
  const warnings = new Set<string>()
  const versions = infos.map(info => info.get('redis_version') ?? '0')
  for (const info of infos) {
    const mode = info.get('redis_mode')
    if (mode === 'sentinel')
      throw wrongKind('it leads to a Sentinel: write redis+sentinel://host:26379,host:26379/master')
    if (mode === 'cluster' && client instanceof Redis)
      throw wrongKind('it leads to a server of a Cluster: write redis+cluster://host:6379,host:6379')
    const policy = info.get('maxmemory_policy')
    if (policy !== undefined && policy !== 'noeviction')
      warnings.add(
        `maxmemory-policy is ${policy}: Redis may drop keys of Tidegate, and clients would start over. Run: CONFIG SET maxmemory-policy noeviction; CONFIG REWRITE`,
      )
    if (info.get('role') === 'slave')
      warnings.add('REDIS_URL leads to a replica, where nothing can be written; name its master, or its Sentinels')
  }
  const version = versions.sort(byVersion)[0]!
  const refusal = versionRefusal(version, usesAof)
  if (refusal !== null) throw refusal
  return { version, warnings: [...warnings] }
}

/** @param usesAof RELAY_DURABILITY=aof
 *  @returns REDIS_VERSION; null: it is new enough */
export function versionRefusal(version: string, usesAof: boolean): TidegateError | null {
  const refused = (least: string, why = ''): TidegateError =>
    new TidegateError('REDIS_VERSION', `Redis is ${version}, and must be ${least} or later${why}`)
  if (byVersion(version, oldest) < 0) return refused(oldest)
  if (usesAof && byVersion(version, oldestForAof) < 0) return refused(oldestForAof, ' for RELAY_DURABILITY=aof')
  return null
}

function byVersion(a: string, b: string): number {
  const [major = 0, minor = 0] = a.split('.').map(Number)
  const [otherMajor = 0, otherMinor = 0] = b.split('.').map(Number)
  return major - otherMajor || minor - otherMinor
}

const wrongKind = (why: string): TidegateError => new TidegateError('CONFIG_INVALID', `REDIS_URL does not fit: ${why}`)
