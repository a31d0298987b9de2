// A master, its replicas, and three Sentinels that agree on who is master: six processes on this machine.
import { randomBytes } from 'node:crypto'
import {
  disposeAll,
  endMaster,
  type Failover,
  type FailoverOptions,
  type ReplicatedRedis,
  settled,
  startAll,
} from './redis-failover.ts'
import { lastingPort, RedisProcess, type RedisProcessOptions, startRedis, until } from './redis-process.ts'

export interface SentinelsOptions {
  /** Default 2. */
  readonly replicas?: 1 | 2
  /** Of the servers. */
  readonly password?: string
  /** Of the Sentinels themselves. */
  readonly sentinelPassword?: string
  readonly appendonly?: boolean
  readonly settings?: Readonly<Record<string, string>>
}

const masterName = 'tidegate'
const quorum = 2

/** @example
 *  await using redis = await startSentinels()
 *  const { master } = await redis.failover({ losing: () => client.set('k', 'lost') }) */
export async function startSentinels(options: SentinelsOptions = {}): Promise<RedisSentinels> {
  const { replicas: count = 2, sentinelPassword, ...common } = options
  const own: RedisProcessOptions = { ...common, settings: { 'replica-announce-ip': '127.0.0.1', ...common.settings } }
  const servers = [await startRedis(own)]
  const sentinels: RedisProcess[] = []
  try {
    for (let n = 0; n < count; n += 1) servers.push(await startRedis({ ...own, replicaOf: servers[0]! }))
    const peers = await Promise.all(
      [1, 2, 3].map(async () => ({ id: randomBytes(20).toString('hex'), port: await lastingPort() })),
    )
    for (const peer of peers) sentinels.push(await prepareSentinel(peer, peers, servers, options))
    await startAll(sentinels)
    const group = new RedisSentinels(servers, sentinels, options)
    await group.agreed()
    return group
  } catch (error) {
    await disposeAll([...sentinels, ...servers])
    throw error
  }
}

interface Peer {
  readonly id: string
  readonly port: number
}

/** With all that it would else find out by and by written into its file: Sentinels greet each other every two seconds only. */
function prepareSentinel(
  { id, port }: Peer,
  peers: readonly Peer[],
  [master, ...replicas]: readonly RedisProcess[],
  { password, sentinelPassword }: SentinelsOptions,
): Promise<RedisProcess> {
  const lines = [
    'bind 127.0.0.1',
    `port ${port}`,
    `sentinel myid ${id}`,
    `sentinel monitor ${masterName} 127.0.0.1 ${master!.port} ${quorum}`,
    `sentinel down-after-milliseconds ${masterName} 1000`,
    `sentinel failover-timeout ${masterName} 3000`,
    `sentinel parallel-syncs ${masterName} 2`,
    ...(password === undefined ? [] : [`sentinel auth-pass ${masterName} ${password}`]),
    ...(sentinelPassword === undefined
      ? []
      : [`requirepass ${sentinelPassword}`, `sentinel sentinel-pass ${sentinelPassword}`]),
    ...replicas.map(replica => `sentinel known-replica ${masterName} 127.0.0.1 ${replica.port}`),
    ...peers
      .filter(peer => peer.id !== id)
      .map(peer => `sentinel known-sentinel ${masterName} 127.0.0.1 ${peer.port} ${peer.id}`),
  ]
  return RedisProcess.prepare(sentinelPassword === undefined ? {} : { password: sentinelPassword }, {
    port,
    files: { 'sentinel.conf': `${lines.join('\n')}\n` },
    line: ['sentinel.conf', '--sentinel'],
  })
}

export class RedisSentinels implements ReplicatedRedis {
  readonly url: string
  readonly servers: readonly RedisProcess[]
  readonly sentinels: readonly RedisProcess[]

  constructor(servers: readonly RedisProcess[], sentinels: readonly RedisProcess[], options: SentinelsOptions) {
    this.servers = servers
    this.sentinels = sentinels
    const login = options.password === undefined ? '' : `:${encodeURIComponent(options.password)}@`
    const hosts = sentinels.map(({ port }) => `127.0.0.1:${port}`).join(',')
    const own = options.sentinelPassword
    this.url = `redis+sentinel://${login}${hosts}/${masterName}${own === undefined ? '' : `?sentinelPassword=${encodeURIComponent(own)}`}`
  }

  /** By most of the Sentinels, those that are down left out. */
  async master(): Promise<RedisProcess> {
    const votes = new Map<RedisProcess, number>()
    for (const sentinel of this.sentinels) {
      if (!sentinel.isUp) continue
      const answer = await sentinel.ask('SENTINEL', 'GET-MASTER-ADDR-BY-NAME', masterName).catch(() => null)
      const port = Array.isArray(answer) ? Number(answer[1]) : 0
      const server = this.servers.find(candidate => candidate.port === port)
      if (server === undefined) continue
      const count = (votes.get(server) ?? 0) + 1
      if (count >= quorum) return server
      votes.set(server, count)
    }
    throw new Error('the Sentinels do not agree on a master')
  }

  async failover(options: FailoverOptions = {}): Promise<Failover> {
    const old = await this.master()
    const replicas = this.servers.filter(server => server !== old && server.isUp)
    await endMaster(old, replicas, options)
    return { old, master: await this.#otherThan(old) }
  }

  /** As an operator's SENTINEL FAILOVER: nobody is down, and the old master becomes a replica at once. */
  async switchover(): Promise<Failover> {
    const old = await this.master()
    await until(async () => (await this.sentinels[0]!.ask('SENTINEL', 'FAILOVER', masterName)) === 'OK', 'a switchover')
    return { old, master: await this.#otherThan(old) }
  }

  async repair(): Promise<void> {
    await startAll([...this.sentinels, ...this.servers])
    const master = await this.master()
    // The Sentinels would come to it too, ten seconds later.
    for (const server of this.servers) if (server !== master) await server.follow(master)
    await settled(this.servers, master)
    await this.agreed()
  }

  /** Waits until each Sentinel sees its peers, the master and its replicas up: then they can fail over. */
  async agreed(): Promise<void> {
    await settled(this.servers, await this.master())
    await until(async () => {
      for (const sentinel of this.sentinels) {
        const quorum = String(await sentinel.ask('SENTINEL', 'CKQUORUM', masterName))
        if (!quorum.startsWith(`OK ${this.sentinels.length} usable`)) return false
        const master = fieldsOf(await sentinel.ask('SENTINEL', 'MASTER', masterName))
        if (master.get('flags') !== 'master') return false
        const replicas = (await sentinel.ask('SENTINEL', 'REPLICAS', masterName)) as unknown[]
        if (replicas.filter(reply => fieldsOf(reply).get('flags') === 'slave').length < this.servers.length - 1)
          throw new Error(JSON.stringify(replicas))
      }
      return true
    }, 'the Sentinels to see each other')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await disposeAll([...this.sentinels, ...this.servers])
  }

  async #otherThan(old: RedisProcess): Promise<RedisProcess> {
    let master = old
    await until(async () => {
      master = await this.master()
      return master !== old && (await master.replication()).get('role') === 'master'
    }, 'the Sentinels to promote a replica')
    return master
  }
}

/** A flat list of names and values, or the map that newer protocols give. */
function fieldsOf(reply: unknown): Map<string, string> {
  if (!Array.isArray(reply)) return new Map(Object.entries(reply as Record<string, string>))
  const fields = new Map<string, string>()
  for (let at = 0; at + 1 < reply.length; at += 2) fields.set(String(reply[at]), String(reply[at + 1]))
  return fields
}
