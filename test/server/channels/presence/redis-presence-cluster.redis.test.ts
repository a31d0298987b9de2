// Over a Cluster, heard by the relay's own ear.
import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { RedisChannelRelay } from '../../../../src/server/channels/relay/redis-relay.ts'
import { createLog } from '../../../../src/server/log/log.ts'
import { closeRedis, openRedis } from '../../../../src/server/redis/redis.ts'
import { type RedisCluster, startRedisCluster } from '../../../support/redis-cluster.ts'
import { until } from '../../../support/redis-process.ts'
import {
  connectionsOf,
  draft,
  Heard,
  newChannel,
  type PresenceWorld,
  promisesOfPresence,
  rule,
} from './presence-suite.ts'
import { startPresenceNode } from './redis-presence-world.ts'

let cluster: RedisCluster
const name = 'tidegate'
beforeAll(async () => {
  cluster = await startRedisCluster()
})
afterAll(() => cluster[Symbol.asyncDispose]())

async function start(): Promise<PresenceWorld> {
  const [a, b] = [await startPresenceNode(cluster.url, name), await startPresenceNode(cluster.url, name)]
  const client = openRedis(cluster.url, { connectionName: 'ear', commandTimeoutMs: 1000 })
  const subscriber = openRedis(cluster.url, { connectionName: 'ear', commandTimeoutMs: 1000 })
  const log = createLog('silent')
  const relay = new RedisChannelRelay({ client, subscriber, name, nodeId: randomUUID(), log, random: Math.random })
  return {
    a: a.store,
    b: b.store,
    hear: async channel => {
      const heard = new Heard()
      const listener = { message: () => {}, presence: heard.take.bind(heard), interrupted: () => {} }
      await relay.listen(channel, listener).ready
      return heard
    },
    [Symbol.asyncDispose]: async () => {
      await a[Symbol.asyncDispose]()
      await b[Symbol.asyncDispose]()
      await relay.close()
      for (const each of [client, subscriber]) closeRedis(each)
    },
  }
}

describe('presence of two nodes, in a Cluster', () => promisesOfPresence(start))

test('a master of a Cluster that is lost takes nobody out for long', async () => {
  await using world = await start()
  const channels = Array.from({ length: 30 }, newChannel)
  for (const channel of channels)
    await Promise.all([world.a.track(channel, draft('a1'), rule), world.b.track(channel, draft('b1'), rule)])
  await cluster.failover()
  await until(async () => {
    const lists = await Promise.all(channels.map(channel => world.a.list(channel)))
    return lists.every(({ count }) => count === 2)
  }, 'all members')
  for (const channel of channels) {
    await until(async () => {
      await world.a.untrack(channel, 'a1', 'gone')
      return true
    }, 'the Cluster')
    // While the Cluster settles a node may still be counted dead, for a lease at most: what it has present comes back.
    await expect.poll(async () => connectionsOf((await world.b.list(channel)).entries)).toEqual(['b1'])
  }
})
