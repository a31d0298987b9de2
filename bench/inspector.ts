// What does it cost a busy node to be watched? It drains 200,000 commits of one insert for 1,000 live queries, with four inspectors
// looking at its stream and one asking for its queries every second, and without. What counts is the node's CPU time for a commit.
import { Child } from './child.ts'
import type { Connect } from './clients.ts'
import { type DrainOptions, queries, writeBacklog } from './drain.ts'
import { type Figure, interleave, median, rounded, say } from './report.ts'
import { tokensFor, World } from './world.ts'

const operatorToken = 'the-operators-of-the-measurements'
const inspectors = 4
const goal = 1.03

export async function inspector({ binDir, rounds, scale, profile }: DrainOptions): Promise<Figure[]> {
  await using world = await World.create(binDir)
  await using node = new Child('./sides/tidegate.ts', { execArgv: profile, cpu: 0 })
  await using clients = new Child('./clients.ts', { cpu: 1 })
  const users = await world.users(queries, user => user + 1)
  const settings = { WINDOW_MAX_AGE_MS: '100', WINDOW_MAX_BYTES: '1048576', OPERATOR_TOKEN: operatorToken }
  const start = { databaseUrl: world.postgres.url, replication: 'held', settings }
  const { port } = await node.ask<{ port: number }>('start', start)
  const connect: Connect = {
    ...{ kind: 'tidegate', port, creditPort: null, count: queries, table: 'messages', filter: '', select: null },
    tokens: await tokensFor(users),
  }
  await clients.ask('connect', connect)
  say(`${queries} live queries stand`)
  const commits = 200_000 * scale
  const drain = async (): Promise<number> => {
    await node.ask('close')
    await writeBacklog(world, { rows: commits, perCommit: 1 })
    await clients.ask('rows')
    const spent = await node.ask<number>('cpu')
    await node.ask('open')
    await clients.ask<number[]>('rowsReceived', { rows: commits / 100 })
    return ((await node.ask<number>('cpu')) - spent) / commits
  }
  // Until the compiler has settled.
  await drain()
  const [unwatched, watched]: number[][] = [[], []]
  let toldBytes = 0
  const withoutInspectors = async (): Promise<void> => {
    unwatched!.push(await drain())
    say(`unwatched: ${unwatched!.at(-1)!.toFixed(2)} µs a commit`)
  }
  const withInspectors = async (): Promise<void> => {
    const ways = Array.from({ length: inspectors }, () => look(port))
    const asking = setInterval(() => void fetch(...requestOf(port, 'queries')).then(answer => answer.text()), 1000)
    watched!.push(await drain())
    clearInterval(asking)
    for (const leave of ways) toldBytes += await leave()
    say(`watched: ${watched!.at(-1)!.toFixed(2)} µs a commit`)
  }
  await interleave(rounds, [withoutInspectors, withInspectors])
  if (toldBytes === 0) throw new Error('nothing was told to those who watched')
  // Of neighbours in time: what else the machine does, weighs on both alike.
  const ratio = median(watched!.map((cpu, round) => cpu / unwatched![round]!))
  return [
    {
      bench: 'inspector',
      name: '200,000 commits of one insert, watched',
      ours: median(watched!),
      peer: median(unwatched!),
      ratio,
      unit: 'µs of CPU a commit',
      against: 'unwatched',
      goal: { text: 'less than 3 % more', met: ratio < goal },
      details: {
        inspectors,
        liveQueries: queries,
        toldBytesPerRound: Math.round(toldBytes / rounds),
        watchedRounds: rounded(watched!, 2),
        unwatchedRounds: rounded(unwatched!, 2),
      },
    },
  ]
}

const requestOf = (port: number, path: string): [url: string, init: RequestInit] => [
  `http://127.0.0.1:${port}/v1/inspect/${path}`,
  { headers: { authorization: `Bearer ${operatorToken}` } },
]

/** Watches the stream. @returns ends it, and gives the bytes that came */
function look(port: number): () => Promise<number> {
  const leaving = new AbortController()
  const [url, init] = requestOf(port, 'stream')
  let bytes = 0
  const reading = (async () => {
    const { body } = await fetch(url, { ...init, signal: leaving.signal })
    for await (const part of body!) bytes += part.length
  })().catch(() => {})
  return async () => {
    leaving.abort()
    await reading
    return bytes
  }
}
