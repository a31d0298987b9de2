// Nodes with presence in a Redis, and somebody who hears the diffs.
import { Redis } from 'ioredis'
import { RedisPresence } from '../../../../src/server/channels/presence/redis-presence.ts'
import { decodeHeard } from '../../../../src/server/channels/relay/redis-envelope.ts'
import { ChannelNames } from '../../../../src/server/channels/relay/redis-keys.ts'
import { createLog } from '../../../../src/server/log/log.ts'
import { closeRedis, openRedis } from '../../../../src/server/redis/redis.ts'
import { assertRedisReady } from '../../../../src/server/redis/redis-ready.ts'
import { until } from '../../../support/redis-process.ts'
import { Heard, type PresenceWorld } from './presence-suite.ts'

const patienceMs = 10_000

export interface PresenceNode extends AsyncDisposable {
  readonly store: RedisPresence
}

export async function startPresenceNode(
  url: string,
  name: string,
  leaseMs = 1000,
  commandTimeoutMs = 500,
): Promise<PresenceNode> {
  const client = openRedis(url, { connectionName: 'presence', commandTimeoutMs })
  await until(async () => client.status === 'ready', 'Redis')
  // So that there is a connection to each server of a Cluster.
  await assertRedisReady(client)
  const store = new RedisPresence({ client, name, log: createLog('silent'), leaseMs })
  return {
    store,
    [Symbol.asyncDispose]: async () => {
      await store.close()
      closeRedis(client)
    },
  }
}

export interface Ear extends Disposable {
  hear(channel: string): Promise<Heard>
}

export function openEar(url: string, name: string): Ear {
  const client = new Redis(url, { retryStrategy: () => 20, autoResubscribe: true, maxRetriesPerRequest: null })
  client.on('error', () => {})
  const names = new ChannelNames(name, client)
  const heards = new Map<string, Heard>()
  client.on('smessageBuffer', (at: Buffer, text: Buffer) => {
    const heard = decodeHeard({ topic: '', isPrivate: true }, text)
    if (heard?.kind === 'presence') heards.get(String(at))?.take(heard.diff)
  })
  return {
    hear: async channel => {
      const heard = new Heard()
      heards.set(names.live(channel), heard)
      await client.ssubscribe(names.live(channel))
      return heard
    },
    [Symbol.dispose]: () => client.disconnect(),
  }
}

/** For what no lease and no fault decides: with the patience for a busy machine. */
export async function startRedisWorld(url: string, name: string): Promise<PresenceWorld> {
  const start = () => startPresenceNode(url, name, patienceMs, patienceMs)
  const [a, b] = [await start(), await start()]
  const ear = openEar(url, name)
  return {
    a: a.store,
    b: b.store,
    hear: channel => ear.hear(channel),
    [Symbol.asyncDispose]: async () => {
      await a[Symbol.asyncDispose]()
      await b[Symbol.asyncDispose]()
      ear[Symbol.dispose]()
    },
  }
}
