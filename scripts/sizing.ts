// How many nodes, and how large: the formula of docs/operations/sizing.md, for any load.
// Run: npm run sizing -- --connections 50000 --commits 500 [--readers 10] [--bytes 400] [--memberships 20] [--per-node 10000]
import { parseArgs } from 'node:util'

export interface Load {
  /** At once, over all nodes. */
  readonly connections: number
  /** A second, of tracked tables, one row each. */
  readonly commits: number
  /** Connections that a commit is told to. */
  readonly readers: number
  /** Of a commit in the journal. */
  readonly bytes: number
  /** Rows that decide for one user. */
  readonly memberships: number
  /** MAX_CONNECTIONS. */
  readonly perNode: number
}

export const usual = { readers: 10, bytes: 400, memberships: 20, perNode: 10_000 }

/** Measured (docs/performance.md, docs/operations.md), with the room that the page says. */
export const costs = {
  nodeMb: 256,
  windowMb: 128,
  connectionKb: 10,
  kernelKb: 5,
  membershipBytes: 100,
  /** CPU of the node that leads, where each commit is a block of its own. */
  leadMicros: 47,
  deliveriesPerCore: 57_000,
  redisMicros: 25,
  redisMicrosPerNode: 3.4,
  /** DATABASE_POOL. */
  pool: 4,
} as const

export interface Size {
  readonly nodes: number
  /** Of one node, when another is gone. */
  readonly connections: number
  readonly memoryMb: number
  readonly kernelMb: number
  readonly cores: number
  readonly files: number
  readonly postgresConnections: number
  readonly redisConnections: number
  /** Sent to all nodes. */
  readonly redisMbPerSecond: number
  readonly redisCores: number
}

/** One node more than the load needs, so that one may die. */
export function sizeOf(load: Load): Size {
  const deliveries = load.commits * load.readers
  const needed = Math.ceil(Math.max(load.connections / load.perNode, deliveries / costs.deliveriesPerCore, 1))
  const nodes = needed + 1
  const connections = Math.ceil(load.connections / needed)
  const memberships = (connections * load.memberships * costs.membershipBytes) / 1e6
  const journal = (load.commits * load.bytes * nodes) / 1e6
  return {
    nodes,
    connections,
    memoryMb: Math.ceil(costs.nodeMb + costs.windowMb + (connections * costs.connectionKb) / 1000 + memberships),
    kernelMb: Math.ceil((connections * costs.kernelKb) / 1000),
    cores: (load.commits * costs.leadMicros) / 1e6 + deliveries / needed / costs.deliveriesPerCore,
    files: load.perNode + 1100,
    postgresConnections: nodes * costs.pool + 2,
    redisConnections: nodes * 3,
    redisMbPerSecond: journal,
    redisCores: (load.commits * (costs.redisMicros + costs.redisMicrosPerNode * nodes)) / 1e6,
  }
}

const whole = (value: number): string => Math.round(value).toLocaleString('en-US')
const share = (value: number): string => (value < 0.01 ? 'under 0.01' : value.toFixed(2))

/** A table of Markdown, a column for each load. */
export function tableOf(loads: readonly Load[]): string {
  const sizes = loads.map(sizeOf)
  const row = (name: string, cell: (size: Size) => string): string => `| ${name} | ${sizes.map(cell).join(' | ')} |`
  return [
    `| | ${loads.map(({ connections, commits }) => `${whole(connections)} connections, ${whole(commits)} commits/s`).join(' | ')} |`,
    `| --- |${' --- |'.repeat(loads.length)}`,
    row('nodes, one of them to spare', ({ nodes }) => whole(nodes)),
    row('connections of a node when one is gone', ({ connections }) => whole(connections)),
    row('memory of a node', ({ memoryMb }) => `${whole(memoryMb)} MB`),
    row('and of its kernel', ({ kernelMb }) => `${whole(kernelMb)} MB`),
    row('cores of a node, while it leads and one is gone', ({ cores }) => share(cores)),
    row('files of a node (`ulimit -n`)', ({ files }) => whole(files)),
    row('connections to Postgres', ({ postgresConnections }) => whole(postgresConnections)),
    row('connections to Redis', ({ redisConnections }) => whole(redisConnections)),
    row('Redis sends', ({ redisMbPerSecond }) => `${redisMbPerSecond.toFixed(1)} MB/s`),
    row('cores of Redis', ({ redisCores }) => share(redisCores)),
  ].join('\n')
}

export const deployments: readonly Load[] = [
  { ...usual, connections: 1000, commits: 50 },
  { ...usual, connections: 50_000, commits: 500 },
  { ...usual, connections: 500_000, commits: 2000 },
]

if (import.meta.main) {
  const number = { type: 'string' } as const
  const { values } = parseArgs({
    options: {
      ...{ connections: number, commits: number, readers: number, bytes: number, memberships: number },
      'per-node': number,
    },
  })
  const { 'per-node': perNode = usual.perNode, ...given } = values
  const load = { connections: 0, commits: 0, ...usual, ...given, perNode }
  const numbers = Object.fromEntries(Object.entries(load).map(([name, value]) => [name, Number(value)]))
  const wrong = Object.entries(numbers).find(([, value]) => !(value >= 0))
  if (wrong !== undefined || numbers.perNode === 0) {
    console.error(`${wrong?.[0] ?? 'per-node'} must be a number`)
    process.exit(2)
  }
  const isGiven = values.connections !== undefined || values.commits !== undefined
  console.log(tableOf(isGiven ? [numbers as unknown as Load] : deployments))
}
