// A Redis Cluster of six processes on this machine: three masters with a replica each.
import { randomBytes } from 'node:crypto'
import {
  disposeAll,
  endMaster,
  type Failover,
  type FailoverOptions,
  type ReplicatedRedis,
  startAll,
} from './redis-failover.ts'
import { lastingPort, RedisProcess, until } from './redis-process.ts'

export interface ClusterOptions {
  readonly password?: string
  readonly appendonly?: boolean
  readonly settings?: Readonly<Record<string, string>>
  /** `master` and `failover` are about the slot of this key. Default `{tidegate}`, the keys of the deployment of that name. */
  readonly key?: string
}

interface Member {
  readonly id: string
  readonly port: number
  readonly busPort: number
  /** Of a replica: its master's id. */
  readonly masterId?: string
  readonly slots: string
  readonly epoch: number
}

/** @example await using redis = await startRedisCluster() */
export async function startRedisCluster(options: ClusterOptions = {}): Promise<RedisCluster> {
  const members = await membersOf(['0-5460', '5461-10922', '10923-16383'])
  const servers: RedisProcess[] = []
  try {
    for (const member of members) servers.push(await prepareMember(member, members, options))
    await startAll(servers)
    const cluster = new RedisCluster(servers, options)
    await cluster.agreed()
    return cluster
  } catch (error) {
    await disposeAll(servers)
    throw error
  }
}

async function membersOf(slotRanges: readonly string[]): Promise<Member[]> {
  const member = async (slots: string, epoch: number, masterId?: string): Promise<Member> => ({
    id: randomBytes(20).toString('hex'),
    port: await lastingPort(),
    busPort: await lastingPort(),
    slots,
    epoch,
    ...(masterId === undefined ? {} : { masterId }),
  })
  const masters = await Promise.all(slotRanges.map((slots, n) => member(slots, n + 1)))
  const replicas = await Promise.all(masters.map(master => member('', master.epoch, master.id)))
  return [...masters, ...replicas]
}

/** With the whole Cluster in the file that a member keeps of it, as if they had met before: no command is needed. */
function prepareMember(member: Member, members: readonly Member[], options: ClusterOptions): Promise<RedisProcess> {
  const line = ({ id, port, busPort, masterId, slots, epoch }: Member): string =>
    [
      id,
      `127.0.0.1:${port}@${busPort}`,
      `${id === member.id ? 'myself,' : ''}${masterId === undefined ? 'master' : 'slave'}`,
      `${masterId ?? '-'} 0 0 ${epoch} connected ${slots}`,
    ].join(' ')
  const state = [...members.map(line), `vars currentEpoch ${members.length / 2} lastVoteEpoch 0`]
  const settings = {
    'cluster-enabled': 'yes',
    'cluster-config-file': stateFile,
    'cluster-node-timeout': '1000',
    'cluster-port': String(member.busPort),
    ...options.settings,
  }
  const { appendonly = false, password } = options
  return RedisProcess.prepare(
    { appendonly, settings, ...(password === undefined ? {} : { password }) },
    { port: member.port, files: { [stateFile]: `${state.map(text => text.trimEnd()).join('\n')}\n` } },
  )
}

const stateFile = 'nodes.conf'

export class RedisCluster implements ReplicatedRedis {
  readonly url: string
  readonly servers: readonly RedisProcess[]
  readonly #key: string

  constructor(servers: readonly RedisProcess[], options: ClusterOptions) {
    this.servers = servers
    this.#key = options.key ?? '{tidegate}'
    const login = options.password === undefined ? '' : `:${encodeURIComponent(options.password)}@`
    this.url = `redis+cluster://${login}${servers.map(({ port }) => `127.0.0.1:${port}`).join(',')}`
  }

  async master(): Promise<RedisProcess> {
    const running = this.servers.filter(server => server.isUp)
    const views = await Promise.all(running.map(server => viewOf(server).catch(() => null)))
    // The view of the highest epoch is the newest: one that was away keeps its old one.
    const newest = views.filter(view => view !== null).sort((a, b) => b.epoch - a.epoch)[0]
    if (newest === undefined) throw new Error('no member of the Cluster answers')
    const slot = Number(await newest.server.ask('CLUSTER', 'KEYSLOT', this.#key))
    const owner = newest.members.find(({ slots }) => slots.some(([first, last]) => slot >= first && slot <= last))
    const server = this.servers.find(({ port }) => port === owner?.port)
    if (server === undefined) throw new Error(`nobody has slot ${slot}`)
    return server
  }

  async failover(options: FailoverOptions = {}): Promise<Failover> {
    const old = await this.master()
    const replicas: RedisProcess[] = []
    for (const server of this.servers)
      if (server.isUp && server !== old && (await server.replication()).get('master_port') === String(old.port))
        replicas.push(server)
    await endMaster(old, replicas, options)
    let master = old
    await until(async () => {
      master = await this.master()
      return master !== old && (await clusterInfo(master)).includes('cluster_state:ok')
    }, 'the Cluster to promote a replica')
    return { old, master }
  }

  async repair(): Promise<void> {
    await startAll(this.servers)
    await this.agreed()
  }

  /** Waits until each member answers for all slots and each replica follows its master. */
  async agreed(): Promise<void> {
    await until(async () => {
      for (const server of this.servers) {
        const info = await clusterInfo(server)
        if (!info.includes('cluster_state:ok') || !info.includes('cluster_slots_ok:16384')) return false
        if ((await viewOf(server)).members.some(({ isUp }) => !isUp)) return false
        const replication = await server.replication()
        if (replication.get('role') === 'slave' && replication.get('master_link_status') !== 'up') return false
        if (replication.get('role') === 'master' && !(await server.isConfirmedBy(1))) return false
      }
      return true
    }, 'the Cluster to be whole')
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await disposeAll(this.servers)
  }
}

interface View {
  readonly server: RedisProcess
  readonly epoch: number
  readonly members: readonly { port: number; isUp: boolean; slots: readonly (readonly [number, number])[] }[]
}

const clusterInfo = async (server: RedisProcess): Promise<string> => String(await server.ask('CLUSTER', 'INFO'))

/** What a member holds of the Cluster. https://redis.io/docs/latest/commands/cluster-nodes/ */
async function viewOf(server: RedisProcess): Promise<View> {
  const lines = String(await server.ask('CLUSTER', 'NODES'))
    .trim()
    .split('\n')
    .map(line => line.split(' '))
  return {
    server,
    epoch: Math.max(...lines.map(fields => Number(fields[6]))),
    members: lines.map(([, address = '', flags = '', , , , , link, ...slots]) => ({
      port: Number(/:(\d+)@/.exec(address)?.[1]),
      isUp: !/fail|handshake|noaddr/.test(flags) && link === 'connected',
      slots: slots.filter(text => !text.startsWith('[')).map(text => rangeOf(text)),
    })),
  }
}

function rangeOf(text: string): readonly [number, number] {
  const [first, last = first] = text.split('-').map(Number)
  return [first!, last!]
}
