// TEST_RELAY=standalone, sentinel or cluster: nodes that tests start in their process share a journal in a Redis of that kind,
// one for each database. So every suite of one node is one of the journal too: `npm run test:relay`.

import { startRedisCluster } from './redis-cluster.ts'
import { startRedis } from './redis-process.ts'
import { startSentinels } from './redis-sentinels.ts'

const kinds = {
  standalone: () => startRedis(),
  sentinel: () => startSentinels(),
  cluster: () => startRedisCluster(),
} as const

const started = new Map<string, Promise<{ readonly url: string }>>()

/** Settings for a node over this database: none, or where its journal is. They end with the process. */
export async function relaySettings(databaseUrl: string): Promise<Record<string, string>> {
  const kind = process.env.TEST_RELAY
  if (!kind) return {}
  if (!(kind in kinds)) throw new Error(`TEST_RELAY is ${kind}; it takes ${Object.keys(kinds).join(', ')}`)
  let redis = started.get(databaseUrl)
  if (redis === undefined) {
    redis = kinds[kind as keyof typeof kinds]()
    started.set(databaseUrl, redis)
  }
  return { REDIS_URL: (await redis).url }
}
