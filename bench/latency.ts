// How long from a commit to its readers? pgbench commits 5,000 rows a second, each of one of 100 rooms with ten members of
// their own who are connected: 50,000 deliveries a second to 1,000 sockets, under a membership policy. Against the least
// that could do it: a replication session, a map from room to sockets, one frame per row, no policy, nothing kept.
//
// A row carries the clock's time at its INSERT, so the figure holds the commit itself, too, and everything is on one
// machine: Postgres, pgbench, the node and the clients.
import { Child } from './child.ts'
import type { Connect } from './clients.ts'
import { insertMessages } from './pgbench.ts'
import { type Figure, interleave, median, rounded, say } from './report.ts'
import { tokensFor, World } from './world.ts'

interface Options {
  readonly binDir: string | null
  readonly rounds: number
  readonly scale: number
  readonly profile: readonly string[]
}

interface Latencies {
  readonly deliveries: number
  readonly p50: number
  readonly p90: number
  readonly p99: number
  readonly p999: number
}

const clientCount = 1000
const rooms = 100
const commitsPerSecond = 5000
const load = { firstRoom: 1, lastRoom: rooms, perSecond: commitsPerSecond }
const slot = 'bare_stream'

export async function latency({ binDir, rounds, scale, profile }: Options): Promise<Figure[]> {
  await using world = await World.create(binDir)
  const users = await world.users(clientCount, user => (user % rooms) + 1)
  const tokens = await tokensFor(users)
  const seconds = Math.max(2, Math.round(10 * scale))
  const our: Latencies[] = []
  const peer: Latencies[] = []
  const one = async (isOurs: boolean): Promise<void> => {
    await using server = new Child(isOurs ? './sides/tidegate.ts' : './sides/bare-stream.ts', {
      execArgv: isOurs ? profile : [],
    })
    await using clients = new Child('./clients.ts')
    if (!isOurs) await world.client.query(`SELECT pg_create_logical_replication_slot($1, 'pgoutput')`, [slot])
    const start = { databaseUrl: world.postgres.url, replication: 'plain', slot, rooms }
    const { port } = await server.ask<{ port: number }>('start', start)
    const kind = isOurs ? 'tidegate' : 'bare'
    const connect: Connect = {
      ...{ kind, port, creditPort: null, count: clientCount, tokens: isOurs ? tokens : [] },
      ...{ table: 'messages', filter: '', select: null },
    }
    await clients.ask('connect', connect)
    await clients.ask('latency')
    // The first second warms up: compilers, caches, pgbench's connections.
    await insertMessages(world, { ...load, seconds: 2 })
    await clients.ask('latencies')
    await insertMessages(world, { ...load, seconds })
    const result = await clients.ask<Latencies>('latencies')
    say(`${isOurs ? 'ours' : 'bare'}: ${JSON.stringify(result)}`)
    ;(isOurs ? our : peer).push(result)
    if (!isOurs) {
      await server.ask('stop')
      await world.client.query('SELECT pg_drop_replication_slot($1)', [slot])
    }
    await world.client.query('TRUNCATE public.messages')
  }
  await interleave(rounds, [() => one(true), () => one(false)])
  const figure = (name: 'p50' | 'p99', goalMs: number, floorMs: number): Figure => {
    const [ours, theirs] = [median(our.map(each => each[name])), median(peer.map(each => each[name]))]
    const delivered = median(our.map(each => each.deliveries)) / seconds
    const isFull = delivered > 0.9 * commitsPerSecond * 10
    return {
      bench: 'latency',
      name: `commit to client, ${name}, 5,000 commits/s and 50,000 deliveries/s`,
      ours,
      peer: theirs,
      ratio: ours / theirs,
      unit: 'ms',
      against: 'bare stream without policies',
      goal: { text: `under ${goalMs} ms (floor ${floorMs} ms) at the full load`, met: ours < goalMs && isFull },
      details: {
        deliveriesPerSecond: Math.round(delivered),
        ourRounds: rounded(
          our.map(each => each[name]),
          2,
        ),
        peerRounds: rounded(
          peer.map(each => each[name]),
          2,
        ),
      },
    }
  }
  return [figure('p50', 1, 1.5), figure('p99', 5, 8)]
}
