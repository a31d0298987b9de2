// What a master's end looks like, alike for a master that Sentinels watch and for one of a Cluster.
import type { RedisProcess } from './redis-process.ts'
import { until } from './redis-process.ts'

export interface FailoverOptions {
  /** What becomes of the old master: killed, or stopped in its tracks (SIGSTOP), so that, resumed, it still takes itself for
   *  the master for a moment. */
  readonly old?: 'killed' | 'paused'
  /** Runs while no replica hears its master: what is written in it is confirmed and lost, as by a replica that lags. */
  readonly losing?: () => Promise<unknown>
}

export interface Failover {
  readonly old: RedisProcess
  readonly master: RedisProcess
}

/** Servers of which one is the master of a deployment's keys. */
export interface ReplicatedRedis extends AsyncDisposable {
  /** For REDIS_URL. */
  readonly url: string
  /** All that hold data. */
  readonly servers: readonly RedisProcess[]
  /** Who holds our keys now, by those who decide it. */
  master(): Promise<RedisProcess>
  /** Resolves when another is master. */
  failover(options?: FailoverOptions): Promise<Failover>
  /** Starts and resumes all that is down or paused, and waits until every replica follows. */
  repair(): Promise<void>
}

/** @param replicas of the master, that are up */
export async function endMaster(
  master: RedisProcess,
  replicas: readonly RedisProcess[],
  { old = 'killed', losing }: FailoverOptions,
): Promise<void> {
  if (losing !== undefined) {
    for (const replica of replicas) await replica.lag()
    await losing()
  }
  if (old === 'killed') await master.kill()
  else master.pause()
  // Nobody follows the wrong one for want of the right password once there is a new master.
  for (const replica of replicas) await replica.catchUp()
}

/** Resumes and starts them all. */
export async function startAll(servers: readonly RedisProcess[]): Promise<void> {
  for (const server of servers) server.resume()
  await Promise.all(servers.filter(server => !server.isRunning).map(server => server.start()))
}

export const isMaster = async (server: RedisProcess): Promise<boolean> =>
  (await server.replication()).get('role') === 'master'

/** Waits until one is the master and all others follow it. */
export async function settled(servers: readonly RedisProcess[], master: RedisProcess): Promise<void> {
  await until(async () => {
    for (const server of servers) {
      const told = await server.replication()
      if (server === master) {
        if (told.get('role') !== 'master') return false
      } else if (told.get('master_port') !== String(master.port) || told.get('master_link_status') !== 'up')
        return false
    }
    return master.isConfirmedBy(servers.length - 1)
  }, 'all replicas to follow the master')
}

export async function disposeAll(servers: readonly RedisProcess[]): Promise<void> {
  await Promise.all(servers.map(server => server[Symbol.asyncDispose]()))
}
