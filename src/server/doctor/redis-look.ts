// What a Redis says of itself, read over one connection. Changes nothing.
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import type { LivingNode } from '../nodes/node-state.ts'
import { livingNodes } from '../nodes/registry.ts'
import { connectionFor, type RedisClient } from '../redis/redis.ts'
import { infoOf, serversOf } from '../redis/redis-ready.ts'

export interface RedisLook {
  /** Of a Cluster, its masters. */
  readonly servers: readonly RedisServerLook[]
  /** Of this TIDEGATE_NAME; null: the list could not be read. */
  readonly nodes: readonly LivingNode[] | null
}

export interface RedisServerLook {
  /** `host:port` where there are several; null where there is one. */
  readonly name: string | null
  /** It holds the journal. */
  readonly holdsJournal: boolean
  readonly info: ReadonlyMap<string, string>
  /** As CONFIG GET has them; null: the login may not read them. */
  readonly settings: ReadonlyMap<string, string> | null
  /** How far its clock is ahead of this machine's, milliseconds; null: TIME is refused. */
  readonly aheadMs: number | null
  /** Half of how long the question took: so much `aheadMs` may be wrong. */
  readonly aheadWithinMs: number
  /** The middle one of some. */
  readonly roundTripMs: number
  /** `cluster_state` and how many of the slots are served; null: it is no member of a Cluster. */
  readonly cluster: { readonly state: string; readonly slots: number } | null
}

const settingNames = [
  ...['appendfsync', 'save', 'stop-writes-on-bgsave-error', 'dir', 'client-output-buffer-limit', 'timeout'],
  ...['maxclients', 'min-replicas-to-write', 'min-replicas-max-lag'],
] as const

export interface LookOptions {
  /** TIDEGATE_NAME. */
  readonly name: string
  /** This machine's clock, milliseconds since 1970. */
  readonly now: () => number
}

/** @param client one that `assertRedisReady` waited for @throws when Redis does not answer */
export async function lookAtRedis(client: RedisClient, options: LookOptions): Promise<RedisLook> {
  const { name, now } = options
  const servers = serversOf(client)
  const journal = connectionFor(client, `{${name}}:nodes`)
  const looks = servers.map(server =>
    lookAtServer(server, { now, isOneOfSeveral: !(client instanceof Redis), holdsJournal: server === journal }),
  )
  return {
    servers: await Promise.all(looks),
    // A replica, or a login with fewer rights, says no: other checks tell of that.
    nodes: await livingNodes(client, name).catch(() => null),
  }
}

interface ServerOptions {
  readonly now: () => number
  readonly isOneOfSeveral: boolean
  readonly holdsJournal: boolean
}

async function lookAtServer(server: Redis, options: ServerOptions): Promise<RedisServerLook> {
  const { now, isOneOfSeveral, holdsJournal } = options
  const info = await infoOf(server)
  return {
    name: isOneOfSeveral ? `${server.options.host}:${server.options.port}` : null,
    holdsJournal,
    info,
    settings: await settingsOf(server),
    ...(await clockOf(server, now)),
    roundTripMs: await roundTripOf(server),
    cluster: info.get('redis_mode') === 'cluster' ? clusterState(await server.call('CLUSTER', 'INFO')) : null,
  }
}

async function settingsOf(server: Redis): Promise<ReadonlyMap<string, string> | null> {
  try {
    // Several names at once only since Redis 7.
    const answers = await Promise.all(settingNames.map(name => server.call('CONFIG', 'GET', name)))
    return new Map(answers.map(answer => (answer as string[]).map(String).slice(0, 2) as [string, string]))
  } catch (error) {
    if (isRefusal(error)) return null
    throw error
  }
}

/** The login may not, or a managed service has taken the command out. */
const isRefusal = (error: unknown): boolean =>
  error instanceof Error && /NOPERM|unknown command|not allowed|no permissions/i.test(error.message)

async function clockOf(server: Redis, now: () => number): Promise<Pick<RedisServerLook, 'aheadMs' | 'aheadWithinMs'>> {
  try {
    const beganMs = performance.now()
    const askedAtMs = now()
    const [seconds, microseconds] = await server.time()
    const halfMs = (performance.now() - beganMs) / 2
    return { aheadMs: Number(seconds) * 1000 + Number(microseconds) / 1000 - askedAtMs - halfMs, aheadWithinMs: halfMs }
  } catch (error) {
    if (isRefusal(error)) return { aheadMs: null, aheadWithinMs: 0 }
    throw error
  }
}

const rounds = 9

async function roundTripOf(server: Redis): Promise<number> {
  const times: number[] = []
  for (let round = 0; round < rounds; round += 1) {
    const beganMs = performance.now()
    // One that refuses all because its disk is full refuses this too, and as fast.
    await server.ping().catch((error: Error) => {
      if (error.name !== 'ReplyError') throw error
    })
    times.push(performance.now() - beganMs)
    // Not one after the other in the same moment, in which something else may be in the way.
    await sleep(1)
  }
  return times.sort((a, b) => a - b)[(rounds - 1) / 2]!
}

function clusterState(answer: unknown): { state: string; slots: number } {
  const text = String(answer)
  return {
    state: /cluster_state:(\w+)/.exec(text)?.[1] ?? 'unknown',
    slots: Number(/cluster_slots_ok:(\d+)/.exec(text)?.[1] ?? 0),
  }
}
