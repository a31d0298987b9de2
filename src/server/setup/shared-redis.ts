// The connections to Redis that a node has.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Config } from '../config/config.ts'
import { warnOfRedis } from '../doctor/at-start.ts'
import type { Log } from '../log/log.ts'
import { closeRedis, openRedis, type RedisClient } from '../redis/redis.ts'
import { assertRedisReady } from '../redis/redis-ready.ts'

export interface SharedRedis {
  readonly client: RedisClient
  /** Reads the journal, and waits in Redis for more. */
  readonly reader: RedisClient
  /** Hears what is published in channels. */
  readonly subscriber: RedisClient
}

/** Past this a command's connection is made anew. */
const redisTimeoutMs = 2000

/** Those who read and wait have a connection of their own: behind a read that blocks, a command would wait as long. */
export function openShared(url: string, name: string): SharedRedis {
  const open = (use: string) => openRedis(url, { connectionName: `${name} ${use}`, commandTimeoutMs: redisTimeoutMs })
  return { client: open('tidegate'), reader: open('tidegate reader'), subscriber: open('tidegate channels') }
}

/** One that cannot be used stops the node, one that is away does not: it is tried again. */
export async function checkRedis(client: RedisClient, config: Config, log: Log): Promise<void> {
  try {
    await assertRedisReady(client, { timeoutMs: 3000, usesAof: config.relayDurability === 'aof' })
    await warnOfRedis(client, config, log)
  } catch (error) {
    if (!(error instanceof TidegateError) || error.code !== 'RELAY_UNREACHABLE') throw error
    log.warn({ code: error.code, err: error }, error.message)
  }
}

export function closeShared(redis: SharedRedis): void {
  for (const client of Object.values(redis)) closeRedis(client)
}
