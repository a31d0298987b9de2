// What does one delivery cost? 1,000 and 5,000 sockets that follow one live query, deltas of about 200 bytes: our node
// against a bare loop over sockets with one prebuilt frame, and against Socket.IO; one message a turn of the event loop,
// and ten. And our event streams against our WebSockets.
//
// All senders are paced alike (credits.ts), each on one core and its clients on another, and the clients read only between
// two broadcasts. What counts is the sender's CPU time for a delivery, given as deliveries per second of one core: the
// clock would also tell how busy the clients and the neighbours are.
import { execFileSync } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { Child } from './child.ts'
import type { Connect } from './clients.ts'
import type { Spent } from './credits.ts'
import { templateId } from './held-replication.ts'
import { type Figure, median, rounded, say } from './report.ts'
import { tokensFor, World } from './world.ts'

interface Options {
  readonly binDir: string | null
  readonly rounds: number
  readonly scale: number
  readonly profile: readonly string[]
}

type Side = 'websocket' | 'bare' | 'socket.io' | 'sse'

const sides: readonly Side[] = ['websocket', 'bare', 'socket.io', 'sse']
const names: Readonly<Record<Side, string>> = {
  websocket: 'our WebSockets',
  sse: 'our event streams',
  bare: 'bare loop of one prebuilt frame',
  'socket.io': 'Socket.IO',
}

const room = 1_000_000
/** Writes of one slice: half a second or less, so that both sides of a pair meet the machine in one mood, and long enough
 *  for several collections of young garbage. */
const sliceWrites = 100_000
const slicesPerRound = 4
/** Until the compiler has settled: at 60,000 our side still took three times as long. */
const warmWrites = 300_000

export async function fanOut({ binDir, rounds, scale, profile }: Options): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const sockets of [1000, 5000]) {
    await using stack = new AsyncDisposableStack()
    const pairs = new Map<Side, Pair>()
    for (const side of sides) pairs.set(side, stack.use(await Pair.open({ side, sockets, binDir, profile })))
    for (const perTurn of [1, 10]) {
      const rates = new Map<Side, number[]>(sides.map(side => [side, []]))
      for (const pair of pairs.values()) await pair.rate(perTurn, Math.ceil(warmWrites / sockets))
      for (let slice = 0; slice < Math.max(2, rounds * slicesPerRound * scale); slice++) {
        // Each begins once: and what the side before left in the processor's caches has gone before it is measured.
        for (let i = 0; i < sides.length; i++) {
          const side = sides[(slice + i) % sides.length]!
          await pairs.get(side)!.rate(perTurn, Math.ceil(sliceWrites / 4 / sockets))
          rates.get(side)!.push(await pairs.get(side)!.rate(perTurn, Math.ceil(sliceWrites / sockets)))
        }
      }
      for (const [side, each] of rates)
        say(`${sockets} sockets, ${side}, ${perTurn} a turn: ${rounded(each.map(rate => rate / 1000)).join(' ')} k/s`)
      const compare = (ours: Side, peer: Side, goal: number): Figure => {
        const [our, their] = [rates.get(ours)!, rates.get(peer)!]
        const ratios = our.map((rate, i) => rate / their[i]!)
        const ratio = median(ratios)
        return {
          bench: 'fan-out',
          name: `${sockets} sockets, ${perTurn} a turn: ${names[ours]} against ${names[peer]}`,
          ours: median(our),
          peer: median(their),
          ratio,
          unit: 'deliveries/s of one core',
          against: names[peer],
          goal: { text: `ratio ${goal}`, met: ratio >= goal },
          details: {
            slices: ratios.length,
            ratios: rounded(
              ratios.toSorted((x, y) => x - y),
              2,
            ),
          },
        }
      }
      figures.push(compare('websocket', 'bare', 0.9))
      if (perTurn === 1) figures.push(compare('websocket', 'socket.io', 1.6), compare('sse', 'websocket', 0.85))
    }
  }
  return figures
}

interface Opening {
  readonly side: Side
  readonly sockets: number
  readonly binDir: string | null
  readonly profile: readonly string[]
}

interface PairParts {
  /** Our side's database. */
  readonly world: World | null
  readonly sockets: number
  readonly server: Child
  readonly clients: Child
  /** A FIFO: see `Gate` in clients.ts. */
  readonly gate: string
}

/** A sender and its clients. All pairs stand all the time and are measured in turns: the machine is now fast and now slow,
 *  for seconds, by a factor of two and more (the same sender gave 2.9 M and 5.4 M deliveries/s), so that only what is
 *  measured within a second can be compared. */
class Pair implements AsyncDisposable {
  readonly #parts: PairParts

  private constructor(parts: PairParts) {
    this.#parts = parts
  }

  static async open({ side, sockets, binDir, profile }: Opening): Promise<Pair> {
    const isOurs = side === 'websocket' || side === 'sse'
    const world = isOurs ? await World.create(binDir) : null
    const tokens = world === null ? [] : await tokensFor(await world.users(1, () => room))
    const server = isOurs
      ? new Child('./sides/tidegate.ts', { execArgv: profile, cpu: 0 })
      : new Child(`./sides/${side.replace('.', '-')}.ts`, { cpu: 0 })
    const clients = new Child('./clients.ts', { cpu: 1 })
    const gate = join(await mkdtemp(join(tmpdir(), 'tidegate-bench-')), 'gate')
    execFileSync('mkfifo', [gate])
    const pair = new Pair({ world, sockets, server, clients, gate })
    const start = { databaseUrl: world?.postgres.url ?? '', replication: 'repeated' }
    const { port, creditPort } = await server.ask<{ port: number; creditPort: number }>('start', start)
    const connect: Connect = {
      kind: side === 'websocket' ? 'tidegate' : side,
      port,
      creditPort,
      count: sockets,
      tokens,
      table: 'messages',
      filter: `room_id=eq.${room}`,
      select: 'id,body',
    }
    await clients.ask('connect', connect)
    if (world !== null) {
      await server.ask('arm')
      await writeTemplate(world, room, 'sixteen letters.')
      await server.ask('ready')
    }
    // The template itself has been delivered.
    await new Promise(resolve => setTimeout(resolve, 300))
    await clients.ask('learn')
    await server.ask('once', { text })
    const learned = await clients.ask<{ deliveryBytes: number }>('learned', { deliveries: sockets })
    say(`${names[side]}: ${sockets} sockets, a delivery is ${learned.deliveryBytes} bytes`)
    return pair
  }

  /** @returns deliveries per second of the sender's CPU time */
  async rate(perTurn: number, turns: number): Promise<number> {
    const { sockets, server, clients, gate } = this.#parts
    await clients.ask('count', { perBroadcast: sockets * perTurn, gate: { path: gate, turns } })
    const { cpuMicros } = await server.ask<Spent>('repeat', { turns, perTurn, ahead: 1, gate, text })
    const received = await clients.ask<number>('received')
    const expected = turns * perTurn * sockets
    if (received !== expected) throw new Error(`${received} deliveries were received; ${expected} were owed`)
    return (expected / cpuMicros) * 1e6
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const { world, server, clients, gate } = this.#parts
    await clients[Symbol.asyncDispose]()
    await server[Symbol.asyncDispose]()
    await world?.[Symbol.asyncDispose]()
    await rm(dirname(gate), { recursive: true })
  }
}

/** What our delta of the template's row is on the wire, for the peers: the same bytes. */
const text =
  '{"type":"delta","query":1,"position":"00000000-1000000000","done":true,"changes":[{"op":"insert","key":{"id":1000000000},"row":{"id":1000000000,"body":"sixteen letters."}}],"committedAt":"2026-01-01T00:00:00.000000Z"}'

export const writeTemplate = (world: World, roomId: number, body: string): Promise<void> =>
  writeTemplates(world, 'messages', [roomId], body)

/** A template for each room, each a commit of its own. */
export async function writeTemplates(
  { client }: World,
  table: string,
  rooms: readonly number[],
  body: string,
): Promise<void> {
  await client.query(`DELETE FROM public.${table} WHERE id BETWEEN $1 AND $1::bigint + 99999`, [templateId])
  for (const [i, room] of rooms.entries())
    await client.query(`INSERT INTO public.${table} (id, room_id, body) VALUES ($1::bigint + $2, $3, $4)`, [
      templateId,
      i,
      room,
      body,
    ])
}
