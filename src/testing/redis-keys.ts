// What a Tidegate leaves in a Redis that others use too.
import { Cluster } from 'ioredis'
import { closeRedis, openRedis, type RedisClient } from '../server/redis/redis.ts'

const scannedAtOnce = 1000

/** Deletes the keys of this deployment.
 *  @param name TIDEGATE_NAME: all of its keys begin with `{name}` or `{name/` */
export async function forgetKeys(url: string, name: string): Promise<void> {
  const client = openRedis(url, { connectionName: 'tidegate test', commandTimeoutMs: 10_000 })
  try {
    // A Redis that is gone took them along.
    if (!(await isReady(client))) return
    for (const server of client instanceof Cluster ? client.nodes('master') : [client]) {
      let cursor = '0'
      do {
        const [next, keys] = await server.scan(cursor, 'MATCH', `{${name}[/}]*`, 'COUNT', scannedAtOnce)
        // One by one: keys of a Cluster's server need not share a slot.
        await Promise.all(keys.map(key => server.unlink(key)))
        cursor = next
      } while (cursor !== '0')
    }
  } finally {
    closeRedis(client)
  }
}

const isReady = (client: RedisClient): Promise<boolean> =>
  new Promise(resolve => {
    if (client.status === 'ready') resolve(true)
    client.once('ready', () => resolve(true))
    client.once('error', () => resolve(false))
  })
