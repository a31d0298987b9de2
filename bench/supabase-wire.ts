// What does Supabase's wire cost beside our own? The same changes of one table under a membership policy, to so many subscribers,
// each another user on a socket of its own: `postgres_changes` in Phoenix frames, and our `changes` subscription. Two nodes alike,
// each with a database of its own, measured in turns: what a change costs of one core where it concerns everybody and where it
// concerns one, until every subscriber has it; and how late a commit's event is.
//
// The clients are the same raw sockets, which know a delivery by its length (clients.ts), so that what reading Phoenix frames costs
// a client is in neither figure.
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Child } from './child.ts'
import type { Connect } from './clients.ts'
import type { Spent } from './credits.ts'
import { writeTemplate, writeTemplates } from './fan-out.ts'
import { insertMessages } from './pgbench.ts'
import { type Figure, median, rounded, say } from './report.ts'
import { tokensFor, World } from './world.ts'

interface Options {
  readonly binDir: string | null
  readonly rounds: number
  readonly scale: number
  readonly profile: readonly string[]
  readonly subscribers: readonly number[]
}

type Wire = 'phoenix' | 'changes'
const wires: readonly Wire[] = ['phoenix', 'changes']
const names: Readonly<Record<Wire, string>> = { phoenix: "Supabase's wire", changes: 'our own' }

/** The room of everybody, and one that is the first subscriber's alone. */
const rooms = { everybody: 1_000_000, one: 1_000_001 }
type Concerned = keyof typeof rooms

/** Writes to sockets of a slice, and before the first until the compiler has settled. */
const sliceWrites = 50_000
/** Where each write is another change: enough for the collector's long rounds to fall into every slice. */
const sliceWritesToOne = 200_000
const warmWrites = 200_000
const slicesPerRound = 4
/** Of the latencies' load: a third of what everything on two cores can do. */
const deliveriesPerSecond = 20_000

export async function supabaseWire({ binDir, rounds, scale, profile, subscribers }: Options): Promise<Figure[]> {
  await using stack = new AsyncDisposableStack()
  const homes: Home[] = []
  for (const wire of wires) {
    const world = stack.use(await World.create(binDir))
    const users = await world.users(Math.max(...subscribers), () => rooms.everybody)
    await world.client.query('INSERT INTO public.members VALUES ($1, $2)', [rooms.one, users[0]])
    homes.push({ wire, world, tokens: await tokensFor(users), profile })
  }
  const slices = Math.max(2, Math.round(rounds * slicesPerRound * scale))
  const figures: Figure[] = []
  for (const count of subscribers) {
    for (const concerned of ['everybody', 'one'] as const)
      figures.push(await rates(homes, { count, concerned, slices, scale }))
    figures.push(...(await latencies(homes, { count, rounds, seconds: Math.max(3, Math.round(10 * scale)) })))
  }
  return figures
}

/** A database for one of the wires. */
interface Home {
  readonly wire: Wire
  readonly world: World
  /** One for each subscriber. */
  readonly tokens: readonly string[]
  readonly profile: readonly string[]
}

interface Load {
  readonly count: number
  readonly concerned: Concerned
  readonly slices: number
  readonly scale: number
}

async function rates(homes: readonly Home[], { count, concerned, slices, scale }: Load): Promise<Figure> {
  await using stack = new AsyncDisposableStack()
  const sides: Side[] = []
  for (const home of homes) sides.push(stack.use(await Side.open(home, count, concerned)))
  const perChange = concerned === 'everybody' ? count : 1
  const turnsOf = (writes: number): number => Math.max(10, Math.ceil((writes * Math.min(1, scale)) / perChange))
  const writes = concerned === 'everybody' ? sliceWrites : sliceWritesToOne
  for (const side of sides) await side.rate(turnsOf(warmWrites))
  const measured = sides.map((): number[] => [])
  for (let slice = 0; slice < slices; slice++)
    for (let turn = 0; turn < sides.length; turn++) {
      const i = (slice + turn) % sides.length
      // What the side before left in the processor's caches has gone before it counts.
      await sides[i]!.rate(turnsOf(writes / 4))
      measured[i]!.push(await sides[i]!.rate(turnsOf(writes)))
    }
  const [ours, native] = measured as [number[], number[]]
  const ratios = ours.map((rate, i) => rate / native[i]!)
  const ratio = median(ratios)
  const concerns = concerned === 'everybody' ? 'each change to all of them' : 'each change to one of them'
  const name = `${count} subscribers, ${concerns}`
  say(`${name}: ratio ${ratio.toFixed(2)}`)
  return {
    bench: 'supabase-wire',
    name,
    ours: median(ours),
    peer: median(native),
    ratio,
    unit: 'changes/s of one core, delivered to all whom they concern',
    against: 'our own `changes` subscription',
    goal: { text: 'ratio 0.8', met: ratio >= 0.8 },
    details: {
      bytesOfADelivery: Object.fromEntries(sides.map(side => [side.wire, side.deliveryBytes])),
      slices,
      ratios: rounded(
        ratios.toSorted((a, b) => a - b),
        2,
      ),
    },
  }
}

/** A node and its subscribers, which both stand while the other side is measured. */
class Side implements AsyncDisposable {
  readonly wire: Wire
  readonly #server: Child
  readonly #clients: Child
  /** A FIFO: see `Gate` in clients.ts. */
  readonly #gate: string
  /** Sockets to which each change goes. */
  readonly #perChange: number
  deliveryBytes = 0

  private constructor(wire: Wire, parts: { server: Child; clients: Child; gate: string; perChange: number }) {
    this.wire = wire
    this.#server = parts.server
    this.#clients = parts.clients
    this.#gate = parts.gate
    this.#perChange = parts.perChange
  }

  static async open({ wire, world, tokens, profile }: Home, count: number, concerned: Concerned): Promise<Side> {
    const server = new Child('./sides/tidegate.ts', { execArgv: profile, cpu: 0 })
    const clients = new Child('./clients.ts', { cpu: 1 })
    const gate = join(await mkdtemp(join(tmpdir(), 'tidegate-bench-')), 'gate')
    execFileSync('mkfifo', [gate])
    const side = new Side(wire, { server, clients, gate, perChange: concerned === 'everybody' ? count : 1 })
    // What an earlier load left would be told as deleted.
    await writeTemplates(world, 'messages', [], '')
    const start = { databaseUrl: world.postgres.url, replication: 'repeated' }
    const { port, creditPort } = await server.ask<{ port: number; creditPort: number }>('start', start)
    await clients.ask('connect', connection({ wire, port, creditPort, count, tokens }))
    await server.ask('arm')
    await writeTemplate(world, rooms[concerned], 'sixteen letters.')
    await server.ask('ready')
    // The template itself has been delivered.
    await new Promise(resolve => setTimeout(resolve, 500))
    await clients.ask('learn')
    await server.ask('once')
    const learned = await clients.ask<{ deliveryBytes: number }>('learned', {
      deliveries: side.#perChange,
    })
    side.deliveryBytes = learned.deliveryBytes
    say(`${names[wire]}, ${count} subscribers: a delivery is ${learned.deliveryBytes} bytes`)
    return side
  }

  /** @param changes of which the next comes when the last has been delivered
   *  @returns changes per second of the node's CPU time */
  async rate(changes: number): Promise<number> {
    // A decision alone is too short to be paced one by one.
    const perTurn = this.#perChange === 1 ? 100 : 1
    const turns = Math.ceil(changes / perTurn)
    const gate = perTurn === 1 ? { path: this.#gate, turns } : null
    await this.#clients.ask('count', { perBroadcast: this.#perChange * perTurn, gate })
    const pace = perTurn === 1 ? { ahead: 1, gate: this.#gate } : { ahead: 8 }
    const { cpuMicros } = await this.#server.ask<Spent>('repeat', { turns, perTurn, ...pace })
    const received = await this.#clients.ask<number>('received')
    const expected = turns * perTurn * this.#perChange
    if (received !== expected) throw new Error(`${received} deliveries were received; ${expected} were owed`)
    return ((turns * perTurn) / cpuMicros) * 1e6
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#clients[Symbol.asyncDispose]()
    await this.#server[Symbol.asyncDispose]()
    await rm(dirname(this.#gate), { recursive: true })
  }
}

interface Latencies {
  readonly deliveries: number
  readonly p50: number
  readonly p99: number
}

interface Timed {
  readonly count: number
  readonly rounds: number
  readonly seconds: number
}

async function latencies(homes: readonly Home[], { count, rounds, seconds }: Timed): Promise<Figure[]> {
  const perSecond = Math.max(1, Math.round(deliveriesPerSecond / count))
  const room = { firstRoom: rooms.everybody, lastRoom: rooms.everybody }
  const measured = homes.map((): Latencies[] => [])
  await using stack = new AsyncDisposableStack()
  const sides: { clients: Child; world: World; wire: Wire }[] = []
  for (const { wire, world, tokens, profile } of homes) {
    await writeTemplates(world, 'messages', [], '')
    const server = stack.use(new Child('./sides/tidegate.ts', { execArgv: profile }))
    const clients = stack.use(new Child('./clients.ts'))
    const start = { databaseUrl: world.postgres.url, replication: 'plain' }
    const { port } = await server.ask<{ port: number }>('start', start)
    await clients.ask('connect', connection({ wire, port, creditPort: null, count, tokens }))
    sides.push({ clients, world, wire })
  }
  for (let round = 0; round < rounds; round++)
    for (let turn = 0; turn < sides.length; turn++) {
      const i = (round + turn) % sides.length
      const { clients, world, wire } = sides[i]!
      await clients.ask('latency')
      // The first warms up: compilers, caches, pgbench's connections.
      for (const part of [1, seconds]) {
        const before = await messagesOf(world)
        await insertMessages(world, { ...room, perSecond, seconds: part })
        const deliveries = ((await messagesOf(world)) - before) * count
        const result = await clients.ask<Latencies>('latencies', { deliveries })
        if (part !== seconds) continue
        say(`${names[wire]}, ${count} subscribers: ${JSON.stringify(result)}`)
        measured[i]!.push(result)
      }
    }
  const [ours, native] = measured as [Latencies[], Latencies[]]
  const figure = (percentile: 'p50' | 'p99'): Figure => {
    const [our, their] = [ours, native].map(each => each.map(round => round[percentile])) as [number[], number[]]
    const ratio = median(our.map((ms, i) => ms / their[i]!))
    return {
      bench: 'supabase-wire',
      name: `${count} subscribers, commit to client, ${percentile}, ${perSecond} commits/s to all of them`,
      ours: median(our),
      peer: median(their),
      ratio,
      unit: 'ms',
      against: 'our own `changes` subscription',
      goal: { text: 'ratio 1.2', met: ratio <= 1.2 },
      details: { ourRounds: rounded(our, 2), peerRounds: rounded(their, 2) },
    }
  }
  return [figure('p50'), figure('p99')]
}

async function messagesOf({ client }: World): Promise<number> {
  const { rows } = await client.query<{ count: number }>('SELECT count(*)::int AS count FROM public.messages')
  return rows[0]!.count
}

interface Connecting {
  readonly wire: Wire
  readonly port: number
  readonly creditPort: number | null
  readonly count: number
  readonly tokens: readonly string[]
}

const connection = ({ wire, tokens, count, ...given }: Connecting): Connect => ({
  ...given,
  kind: wire,
  count,
  tokens: tokens.slice(0, count),
  table: 'messages',
  filter: '',
  select: null,
})
