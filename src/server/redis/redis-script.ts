// A script in Redis, run by its hash.
import { createHash } from 'node:crypto'
import type { RedisClient } from './redis.ts'

/** @param keys all of one hash tag: a Cluster finds its node by them
 *  @returns numbers as such, texts as Buffers, lists of both
 *  @throws as commands do, `isRedisAway` */
export type Script = (keys: readonly string[], values: readonly (string | number | Buffer)[]) => Promise<unknown>

/** Sends the whole script only where Redis does not have it: first of all, after a restart or SCRIPT FLUSH, on a new master.
 *  @example
 *  const setOnce = defineScript(client, `return redis.call('SETNX', KEYS[1], ARGV[1])`)
 *  const wasSet = (await setOnce([key], [value])) === 1 */
export function defineScript(client: RedisClient, lua: string): Script {
  const hash = createHash('sha1').update(lua).digest('hex')
  return async (keys, values) => {
    const rest = [keys.length, ...keys, ...values]
    try {
      return await client.callBuffer('EVALSHA', hash, ...rest)
    } catch (error) {
      // Nothing was run.
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error
      return client.callBuffer('EVAL', lua, ...rest)
    }
  }
}
