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

type Side = 'websocket' | 'sse' | 'bare' | 'socket.io'

const room = 1_000_000
/** Deliveries of one measurement, one a turn; ten times as many when batched. */
const deliveries = 400_000

export async function fanOut({ binDir, rounds, scale, profile }: Options): Promise<Figure[]> {
  await using world = await World.create(binDir)
  const users = await world.users(1, () => room)
  const tokens = await tokensFor(users)
  const figures: Figure[] = []
  for (const sockets of [1000, 5000]) {
    const rates = new Map<string, number[]>()
    for (let round = 0; round < rounds; round++) {
      const sides: Side[] = ['websocket', 'bare', 'socket.io', 'sse']
      for (const side of round % 2 === 0 ? sides : sides.toReversed()) {
        for (const [perTurn, { cpuMicros }] of await measure(world, {
          side,
          sockets,
          tokens,
          scale,
          profile,
        })) {
          const count = turnsOf(deliveries * scale, sockets) * sockets * perTurn
          const name = `${side} ${perTurn}`
          rates.set(name, [...(rates.get(name) ?? []), (count / cpuMicros) * 1e6])
          say(`${sockets} sockets, ${name} a turn: ${((count / cpuMicros) * 1000).toFixed(0)} k/s of one core`)
        }
      }
    }
    const compare = (ours: Side, peer: Side, perTurn: number, goal: number): Figure => {
      const [our, their] = [`${ours} ${perTurn}`, `${peer} ${perTurn}`]
      const ratio = median(rates.get(our)!) / median(rates.get(their)!)
      return {
        bench: 'fan-out',
        name: `${sockets} sockets, ${perTurn} a turn: our ${ours} against ${names[peer]}`,
        ours: median(rates.get(our)!),
        peer: median(rates.get(their)!),
        ratio,
        unit: 'deliveries/s of one core',
        against: names[peer],
        goal: { text: `ratio ${goal}`, met: ratio >= goal },
        details: {
          ourRounds: rounded(rates.get(our)!),
          peerRounds: rounded(rates.get(their)!),
        },
      }
    }
    figures.push(compare('websocket', 'bare', 1, 0.9), compare('websocket', 'bare', 10, 0.9))
    figures.push(compare('websocket', 'socket.io', 1, 1.6), compare('sse', 'websocket', 1, 0.85))
  }
  return figures
}

const names: Readonly<Record<Side, string>> = {
  websocket: 'our WebSockets',
  sse: 'our event streams',
  bare: 'bare loop of one prebuilt frame',
  'socket.io': 'Socket.IO',
}

interface Measured {
  readonly side: Side
  readonly sockets: number
  readonly tokens: readonly string[]
  readonly scale: number
  readonly profile: readonly string[]
}

/** @returns by messages a turn */
async function measure(world: World, options: Measured): Promise<[number, Spent][]> {
  const { side, sockets, tokens, scale, profile } = options
  const isOurs = side === 'websocket' || side === 'sse'
  await using server = isOurs
    ? new Child('./sides/tidegate.ts', { execArgv: profile, cpu: 0 })
    : new Child(`./sides/${side.replace('.', '-')}.ts`, { cpu: 0 })
  await using clients = new Child('./clients.ts', { cpu: 1 })
  const start = { databaseUrl: world.postgres.url, replication: 'repeated' }
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
  if (isOurs) {
    await server.ask('arm')
    await writeTemplate(world, room, 'sixteen letters.')
    await server.ask('ready')
  }
  // The template itself has been delivered.
  await new Promise(resolve => setTimeout(resolve, 300))
  await clients.ask('learn')
  await server.ask('once', { text })
  const learned = await clients.ask<{ deliveryBytes: number }>('learned', { deliveries: sockets })
  if (side === 'websocket') say(`a delivery is ${learned.deliveryBytes} bytes`)
  const results: [number, Spent][] = []
  const gate = join(await mkdtemp(join(tmpdir(), 'tidegate-bench-')), 'gate')
  execFileSync('mkfifo', [gate])
  for (const perTurn of [1, 10]) {
    // The first turns warm the compiler up.
    for (const turns of [turnsOf(40_000 * scale, sockets), turnsOf(deliveries * scale, sockets)]) {
      await clients.ask('count', { perBroadcast: sockets * perTurn, gate: { path: gate, turns } })
      const spent = await server.ask<Spent>('repeat', { turns, perTurn, ahead: 1, gate, text })
      const received = await clients.ask<number>('received')
      const expected = turns * perTurn * sockets
      if (received !== expected) throw new Error(`${received} deliveries were received; ${expected} were owed`)
      results.push([perTurn, spent])
    }
  }
  await rm(dirname(gate), { recursive: true })
  return results.filter((_, i) => i % 2 === 1)
}

const turnsOf = (count: number, sockets: number): number => Math.max(2, Math.ceil(count / sockets))

/** What our delta of the template's row is on the wire, for the peers: the same bytes. */
const text =
  '{"type":"delta","query":1,"position":"00000000-1000000000","done":true,"changes":[{"op":"insert","key":{"id":1000000000},"row":{"id":1000000000,"body":"sixteen letters."}}],"committedAt":"2026-01-01T00:00:00.000000Z"}'

export async function writeTemplate({ client }: World, roomId: number, body: string): Promise<void> {
  await client.query('DELETE FROM public.messages WHERE id = $1', [templateId])
  await client.query('INSERT INTO public.messages (id, room_id, body) VALUES ($1, $2, $3)', [templateId, roomId, body])
}
