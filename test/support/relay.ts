// TEST_RELAY=standalone, sentinel or cluster: nodes that tests start in their process share a journal in a Redis of that kind,
// one for each database. So every suite of one node is one of the journal too: `npm run test:relay -- <kind>`.
import { startRedisCluster } from './redis-cluster.ts'
import { type RedisProcess, startRedis } from './redis-process.ts'
import { startSentinels } from './redis-sentinels.ts'

interface Relay {
  readonly url: string
  /** All that hold data. */
  readonly servers: readonly RedisProcess[]
}

const kinds = {
  standalone: async (): Promise<Relay> => {
    const redis = await startRedis()
    return { url: redis.url, servers: [redis] }
  },
  sentinel: (): Promise<Relay> => startSentinels(),
  cluster: (): Promise<Relay> => startRedisCluster(),
} as const

export type RelayKind = keyof typeof kinds

/** Tests of test/server that ask for something that only a node by itself does, by name, and why. There are no others. */
const ofMemoryAlone: Readonly<Record<string, string>> = {
  'an acknowledgement of what was received':
    'a node that starts has the commit from the Stream, whatever the slot was told',
}

/** Whether the nodes of this run do what this test asks for. */
export const isForThisRelay = (name: string): boolean => !process.env.TEST_RELAY || !(name in ofMemoryAlone)

/** By database. They end with the process. */
const started = new Map<string, Promise<Relay>>()

/** Settings for a node over this database: none, or where its journal is. */
export async function relaySettings(databaseUrl: string): Promise<Record<string, string>> {
  const kind = process.env.TEST_RELAY
  if (!kind) return {}
  if (!(kind in kinds)) throw new Error(`TEST_RELAY is ${kind}; it takes ${Object.keys(kinds).join(', ')}`)
  let relay = started.get(databaseUrl)
  if (relay === undefined) {
    relay = kinds[kind as RelayKind]()
    started.set(databaseUrl, relay)
  }
  return { REDIS_URL: (await relay).url }
}

/** The keys in each Redis that was started so. */
export async function keysOfRelays(): Promise<string[][]> {
  const relays = await Promise.all(started.values())
  return Promise.all(
    relays.map(async ({ servers }) => {
      const found = await Promise.all(servers.map(server => server.ask('KEYS', '*')))
      return [...new Set(found.flat().map(String))].sort()
    }),
  )
}
