// What does a decision cost? Changes under a membership policy, each concerning one subscriber of 1, 100, 1,000 or 5,000,
// every one of them another user: judged, routed, encoded and delivered by our node. Against what a server does that asks
// the database for each subscriber: for each change, take each one's role and claims and SELECT the row by its key. The
// peer's loop runs inside Postgres, in PL/pgSQL, as Supabase's function does it: no round trip is counted against it.
// And what an idle socket with a live query weighs.
import { Child } from './child.ts'
import type { Connect } from './clients.ts'
import type { Spent } from './credits.ts'
import { writeTemplate } from './fan-out.ts'
import { templateId } from './held-replication.ts'
import { type Figure, median, rounded, say } from './report.ts'
import { tokensFor, World } from './world.ts'

interface Options {
  readonly binDir: string | null
  readonly rounds: number
  readonly scale: number
  readonly profile: readonly string[]
}

const counts = [1, 100, 1000, 5000]
/** Sockets whose weight is the figure, and those before them: what the first compile and cache belongs to nobody. */
const idleCount = 5000
const idleBefore = 500
const perGulp = 100

const peerFunction = `
  CREATE FUNCTION public.requery(key bigint, subscribers text[]) RETURNS int LANGUAGE plpgsql AS $$
  DECLARE claims text; seen int := 0; found bigint; owner text := current_user;
  BEGIN
    FOREACH claims IN ARRAY subscribers LOOP
      PERFORM set_config('role', 'authenticated', true), set_config('request.jwt.claims', claims, true);
      SELECT id INTO found FROM public.messages WHERE id = key;
      IF found IS NOT NULL THEN seen := seen + 1; END IF;
    END LOOP;
    PERFORM set_config('role', owner, true);
    RETURN seen;
  END $$;
  GRANT EXECUTE ON FUNCTION public.requery TO authenticated;`

export async function authorize({ binDir, rounds, scale, profile }: Options): Promise<Figure[]> {
  await using world = await World.create(binDir)
  await world.client.query(peerFunction)
  // The room of the first user is the one that changes; each has a room of its own.
  const users = await world.users(idleBefore + idleCount, user => user + 1)
  const tokens = await tokensFor(users)
  await writeTemplate(world, 1, 'body')
  const our = new Map<number, number[]>(counts.map(count => [count, []]))
  const peer = new Map<number, number[]>(counts.map(count => [count, []]))
  for (let round = 0; round < rounds; round++) {
    for (const count of round % 2 === 0 ? counts : counts.toReversed()) {
      our.get(count)!.push(await ours(world, tokens.slice(0, count), { changes: 100_000 * scale, profile }))
      peer
        .get(count)!
        .push(await peers(world, users.slice(0, count), Math.max(1, Math.round((20_000 / count) * scale))))
      say(
        `${count} subscribers: ours ${our.get(count)!.at(-1)!.toFixed(0)}/s, ${peer.get(count)!.at(-1)!.toFixed(1)}/s`,
      )
    }
  }
  const own = await idle(world, 'tidegate', tokens)
  const shared = await idle(world, 'tidegate', tokens.slice(0, 1))
  const bare = await idle(world, 'bare', [])
  const alone = median(our.get(1)!)
  const figures = counts.map((count): Figure => {
    const [ours, theirs] = [median(our.get(count)!), median(peer.get(count)!)]
    const flat = ours / alone
    return {
      bench: 'authorize',
      name: `${count} subscribers, one concerned`,
      ours,
      peer: theirs,
      ratio: ours / theirs,
      unit: 'changes/s',
      against: 'a re-query per subscriber',
      goal: { text: '50,000 of one core, within 20 % of one subscriber', met: flat >= 0.8 && ours >= 50_000 },
      details: {
        ofOneSubscriber: Number(flat.toFixed(2)),
        ourRounds: rounded(our.get(count)!),
        peerRounds: rounded(peer.get(count)!, 1),
      },
    }
  })
  figures.push(
    weight('idle sockets that share a live query', shared, bare),
    weight('idle sockets, each with a user and a live query of its own', own, bare),
  )
  return figures
}

const weight = (name: string, ours: number, peer: number): Figure => ({
  bench: 'authorize',
  name,
  ours,
  peer,
  ratio: ours / peer,
  unit: 'kB of user-space memory per socket',
  against: 'bare ws without a query',
  goal: { text: 'at most 8 kB', met: ours <= 8 },
  details: {},
})

async function ours(
  world: World,
  tokens: readonly string[],
  options: { changes: number; profile: readonly string[] },
): Promise<number> {
  await using server = new Child('./sides/tidegate.ts', { execArgv: ['--expose-gc', ...options.profile], cpu: 0 })
  await using clients = new Child('./clients.ts', { cpu: 1 })
  const start = { databaseUrl: world.postgres.url, replication: 'repeated' }
  const { port, creditPort } = await server.ask<{ port: number; creditPort: number }>('start', start)
  await clients.ask('connect', connection({ kind: 'tidegate', port, creditPort, count: tokens.length, tokens }))
  await server.ask('arm')
  await writeTemplate(world, 1, 'body')
  await server.ask('ready')
  // The deletion and the template have been delivered before what counts begins.
  await new Promise(resolve => setTimeout(resolve, 300))
  await clients.ask('learn')
  await server.ask('once')
  await clients.ask('learned', { deliveries: 1 })
  let spent: Spent = { cpuMicros: 0, wallMs: 0 }
  for (const changes of [options.changes / 10, options.changes]) {
    const turns = Math.ceil(changes / perGulp)
    await clients.ask('count', { perBroadcast: perGulp })
    spent = await server.ask<Spent>('repeat', { turns, perTurn: perGulp, ahead: 8 })
    const received = await clients.ask<number>('received')
    if (received !== turns * perGulp) throw new Error(`${received} of ${turns * perGulp} changes were delivered`)
  }
  const changes = Math.ceil(options.changes / perGulp) * perGulp
  return (changes / spent.cpuMicros) * 1e6
}

/** Changes per second of the backend that asks. */
async function peers({ client }: World, users: readonly string[], changes: number): Promise<number> {
  const claims = users.map(sub => JSON.stringify({ role: 'authenticated', sub }))
  const start = performance.now()
  for (let i = 0; i < changes; i++) {
    const { rows } = await client.query<{ seen: number }>('SELECT public.requery($1, $2) AS seen', [templateId, claims])
    if (rows[0]!.seen !== 1) throw new Error(`${rows[0]!.seen} subscribers saw the row; one may`)
  }
  return (changes / (performance.now() - start)) * 1000
}

/** Resident kB for each further socket. @param tokens one each, or one for all */
async function idle(world: World, kind: 'tidegate' | 'bare', tokens: readonly string[]): Promise<number> {
  await using server = new Child(`./sides/${kind}.ts`, { execArgv: ['--expose-gc'] })
  await using clients = new Child('./clients.ts')
  const start = { databaseUrl: world.postgres.url, replication: 'plain' }
  const { port } = await server.ask<{ port: number }>('start', start)
  const each = tokens.length > 1
  const connect = (count: number, tokens: readonly string[]): Connect =>
    connection({ kind, port, creditPort: null, count, tokens })
  await clients.ask('connect', connect(idleBefore, each ? tokens.slice(0, idleBefore) : tokens))
  const before = await server.ask<NodeJS.MemoryUsage>('memory')
  await using others = new Child('./clients.ts')
  await others.ask('connect', connect(idleCount, each ? tokens.slice(idleBefore) : tokens))
  const after = await server.ask<NodeJS.MemoryUsage>('memory')
  return (after.rss - before.rss) / 1000 / idleCount
}

const connection = (given: Pick<Connect, 'kind' | 'port' | 'creditPort' | 'count' | 'tokens'>): Connect => ({
  ...given,
  table: 'messages',
  filter: '',
  select: null,
})
