// What does a message of a channel cost? 1,000 and 5,000 members of one channel, on one node and spread over two, over a real
// Redis: ours, private and guarded by a policy over memberships, against Socket.IO with its Redis adapter, which asks nobody. One
// member sends; the next message goes out when the last has reached everybody. What counts is the CPU time of all server processes
// for a delivery, given as deliveries per second of it. And: 10,000 members who enter within ten seconds and are present, and how
// late messages are meanwhile.
import { type RedisProcess, startRedis } from '../test/support/redis-process.ts'
import type { Broadcasts, Latencies } from './channel-clients.ts'
import { Child } from './child.ts'
import type { Kind, Members } from './member.ts'
import { type Figure, median, rounded, say } from './report.ts'
import { tokensFor, World } from './world.ts'

interface Options {
  readonly binDir: string | null
  readonly rounds: number
  readonly scale: number
  readonly only: string | null
  readonly profile: readonly string[]
}

const room = 2_000_000
const topic = `room:${room}`
const payload = JSON.stringify({ text: 'm'.repeat(100) })
/** Writes to sockets until the compiler has settled, and of one slice. */
const warmWrites = 100_000
const sliceWrites = 50_000

const policies = `
  CREATE POLICY bench_receive ON realtime.messages FOR SELECT TO authenticated USING (EXISTS (
    SELECT FROM public.members m WHERE 'room:' || m.room_id = (SELECT realtime.topic()) AND m.user_id = (SELECT auth.uid())));
  CREATE POLICY bench_send ON realtime.messages FOR INSERT TO authenticated WITH CHECK (EXISTS (
    SELECT FROM public.members m WHERE 'room:' || m.room_id = (SELECT realtime.topic()) AND m.user_id = (SELECT auth.uid())));
`
const rules = JSON.stringify([{ pattern: 'room:*', rate: { perSecond: 100_000, burst: 100_000 } }])

export async function channels({ binDir, rounds, scale, only, profile }: Options): Promise<Figure[]> {
  await using redis = await startRedis({})
  await using world = await World.create(binDir)
  await world.client.query(policies)
  const tokens = await tokensFor(await world.users(Math.round(10_000 * Math.min(1, scale)), () => room))
  const setting: Setting = { redis, world, tokens, profile }
  const figures: Figure[] = []
  for (const count of [1000, 5000])
    for (const nodes of [1, 2])
      for (const atOnce of [1, 10]) {
        const name = `${count} members, ${nodes === 1 ? 'one node' : 'two nodes'}, ${atOnce} at a time`
        if (only !== null && !name.includes(only)) continue
        figures.push(await broadcast(setting, { name, count, nodes, atOnce, slices: Math.max(2, rounds * 4 * scale) }))
      }
  if (only === null || 'storm'.includes(only)) figures.push(await storm(setting, 10_000 * Math.min(1, scale)))
  return figures
}

interface Setting {
  readonly redis: RedisProcess
  readonly world: World
  readonly tokens: readonly string[]
  readonly profile: readonly string[]
}

interface Load {
  readonly name: string
  readonly count: number
  readonly nodes: number
  readonly atOnce: number
  readonly slices: number
}

async function broadcast(setting: Setting, { name, count, nodes, atOnce, slices }: Load): Promise<Figure> {
  await using stack = new AsyncDisposableStack()
  const sides = []
  for (const kind of ['tidegate', 'socket.io'] as const)
    sides.push(stack.use(await Side.open(setting, { kind, count, nodes, presence: false })))
  const slice = (writes: number): Broadcasts => ({ count: Math.ceil(writes / count), atOnce, payload })
  for (const side of sides) {
    await side.join(0)
    await side.joinLast()
    await side.rate(slice(warmWrites))
  }
  const rates = sides.map((): number[] => [])
  for (let round = 0; round < slices; round++)
    for (let turn = 0; turn < sides.length; turn++) {
      const i = (round + turn) % sides.length
      rates[i]!.push(await sides[i]!.rate(slice(sliceWrites)))
    }
  const [ours, theirs] = rates as [number[], number[]]
  const ratios = ours.map((rate, i) => rate / theirs[i]!)
  const ratio = median(ratios)
  say(`${name}: ratio ${ratio.toFixed(2)}`)
  return {
    bench: 'channels',
    name,
    ours: median(ours),
    peer: median(theirs),
    ratio,
    unit: 'deliveries/s of CPU, all nodes together',
    against: 'Socket.IO with its Redis adapter',
    goal: { text: 'ratio 1.6', met: ratio >= 1.6 },
    details: {
      slices: ratios.length,
      ratios: rounded(
        ratios.toSorted((a, b) => a - b),
        2,
      ),
    },
  }
}

async function storm(setting: Setting, count: number): Promise<Figure> {
  await using side = await Side.open(setting, { kind: 'tidegate', count: count - 100, nodes: 1, presence: true })
  await using observers = new Child('./channel-clients.ts')
  const few: Members = {
    ...{ kind: 'tidegate', ports: side.ports, count: 100 },
    ...{ tokens: setting.tokens.slice(-100), topic, presence: true },
  }
  await observers.ask('connect', few)
  await observers.ask('join', { overMs: 0 })
  const timing = { everyMs: 100, forMs: 10_000 }
  await observers.ask('timed', { ...timing, forMs: 3000 })
  const before = await observers.ask<Latencies>('timed', timing)
  const cpuBefore = await side.cpu()
  const [joinedMs, meanwhile] = await Promise.all([side.join(10_000), observers.ask<Latencies>('timed', timing)])
  const cpuMs = ((await side.cpu()) - cpuBefore) / 1000
  return {
    bench: 'channels',
    name: `${count} members enter one channel within 10 s, and are present`,
    ours: meanwhile.p99,
    peer: before.p99,
    ratio: meanwhile.p99 / before.p99,
    unit: 'ms to a member, p99',
    against: 'before they came',
    goal: { text: 'all in within 11 s', met: joinedMs < 11_000 },
    details: { lastJoinedMs: Math.round(joinedMs), cpuMs: Math.round(cpuMs), before, meanwhile },
  }
}

interface Opening {
  readonly kind: Kind
  readonly count: number
  readonly nodes: number
  readonly presence: boolean
}

/** Nodes, and their members in one process. Servers have one processor and clients the other. */
class Side implements AsyncDisposable {
  readonly ports: readonly number[]
  readonly #nodes: readonly Child[]
  readonly #clients: Child

  private constructor(ports: readonly number[], nodes: readonly Child[], clients: Child) {
    this.ports = ports
    this.#nodes = nodes
    this.#clients = clients
  }

  static async open({ redis, world, tokens, profile }: Setting, opening: Opening): Promise<Side> {
    const { kind, count, nodes, presence } = opening
    const isOurs = kind === 'tidegate'
    const children = Array.from(
      { length: nodes },
      () =>
        new Child(`./sides/${isOurs ? 'tidegate' : 'socket-io-redis'}.ts`, { execArgv: isOurs ? profile : [], cpu: 0 }),
    )
    const ports: number[] = []
    for (const child of children) {
      const ours = {
        ...{ databaseUrl: world.postgres.url, replication: 'plain' },
        settings: { REDIS_URL: redis.url, CHANNELS: rules, MAX_FRAMES_PER_SECOND: '100000' },
      }
      const { port } = await child.ask<{ port: number }>('start', isOurs ? ours : { redisUrl: redis.url })
      ports.push(port)
    }
    const clients = new Child('./channel-clients.ts', { cpu: 1 })
    const members: Members = { kind, ports, count, tokens: isOurs ? tokens : [], topic, presence }
    await clients.ask('connect', members)
    return new Side(ports, children, clients)
  }

  /** @returns milliseconds until the last had joined */
  join(overMs: number): Promise<number> {
    return this.#clients.ask('join', { overMs })
  }

  joinLast(): Promise<void> {
    return this.#clients.ask('joinLast')
  }

  /** CPU time of all nodes, in microseconds. */
  async cpu(): Promise<number> {
    const spent = await Promise.all(this.#nodes.map(node => node.ask<number>('cpu')))
    return spent.reduce((sum, each) => sum + each, 0)
  }

  /** @returns deliveries per second of the nodes' CPU time */
  async rate(broadcasts: Broadcasts): Promise<number> {
    const before = await this.cpu()
    const deliveries = await this.#clients.ask<number>('broadcast', broadcasts)
    return (deliveries / ((await this.cpu()) - before)) * 1e6
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#clients[Symbol.asyncDispose]()
    for (const node of this.#nodes) await node[Symbol.asyncDispose]()
  }
}
