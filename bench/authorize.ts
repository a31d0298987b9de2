// What does a decision cost? Changes under a membership policy, each concerning one subscriber of 1, 100, 1,000, 5,000 or
// 50,000, every one of them another user: judged, routed, encoded and delivered by our node. Also when each is concerned in
// turn, and by a chain of three hops. Against what a server does that asks
// the database for each subscriber: for each change, take each one's role and claims and SELECT the row by its key. The
// peer's loop runs inside Postgres, in PL/pgSQL, as Supabase's function does it: no round trip is counted against it.
// And what an idle socket with a live query weighs, and what a membership does.
import { Child } from './child.ts'
import type { Connect } from './clients.ts'
import type { Spent } from './credits.ts'
import { writeTemplate, writeTemplates } from './fan-out.ts'
import { templateId } from './held-replication.ts'
import { type Figure, median, rounded, say } from './report.ts'
import { tokensFor, World } from './world.ts'

interface Options {
  readonly binDir: string | null
  readonly rounds: number
  readonly scale: number
  readonly profile: readonly string[]
  /** Parts of loads' names, with `;` between them; null measures everything. */
  readonly only: string | null
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

/** What is followed, and what changes. */
interface Load {
  readonly table: string
  /** One socket each. */
  readonly tokens: readonly string[]
  /** Live queries of each socket but the first, each an audience of its own. */
  readonly queries: number
  /** Rooms that change, in turn. */
  readonly rooms: readonly number[]
  readonly changes: number
}

const roomOf = (user: number): number => 100_001 + user

export async function authorize({ binDir, rounds, scale, profile, only }: Options): Promise<Figure[]> {
  await using world = await World.create(binDir)
  await world.client.query(peerFunction)
  // The room of the first user is the one that changes; each has a room of its own.
  const users = await world.users(idleBefore + idleCount, roomOf)
  await world.teams(users, roomOf)
  const tokens = await tokensFor(users)
  await writeTemplate(world, roomOf(0), 'body')
  const changes = 100_000 * scale
  const oneRoom = (table: string, count: number, queries = 1): Load => ({
    table,
    tokens: tokens.slice(0, count),
    queries,
    rooms: [roomOf(0)],
    changes,
  })
  const all = counts.at(-1)!
  const loads: Readonly<Record<string, Load>> = {
    ...Object.fromEntries(counts.map(count => [`${count} subscribers, one concerned`, oneRoom('messages', count)])),
    '50,000 subscribers on 5,000 sockets, one concerned': oneRoom('messages', all, 10),
    '5,000 subscribers in distinct rooms, each concerned in turn': {
      ...oneRoom('messages', all),
      rooms: Array.from({ length: all }, (_, user) => roomOf(user)),
    },
    '1,000 subscribers by a chain of three hops, one concerned': oneRoom('deep_messages', 1000),
  }
  const names = Object.keys(loads).filter(name => only === null || only.split(';').some(text => name.includes(text)))
  const our = new Map<string, number[]>(names.map(name => [name, []]))
  const ourUser = new Map<string, number[]>(names.map(name => [name, []]))
  const peer = new Map<string, number[]>(names.map(name => [name, []]))
  for (let round = 0; round < rounds; round++) {
    for (const name of round % 2 === 0 ? names : names.toReversed()) {
      const load = loads[name]!
      const { whole, user } = await ours(world, load, profile)
      our.get(name)!.push(whole)
      ourUser.get(name)!.push(user)
      say(`${name}: ${whole.toFixed(0)}/s, ${user.toFixed(0)}/s without the kernel`)
    }
    for (const count of only === null ? counts : []) {
      const asked = Math.max(1, Math.round((20_000 / count) * scale))
      await writeTemplate(world, roomOf(0), 'body')
      peer.get(`${count} subscribers, one concerned`)!.push(await peers(world, users.slice(0, count), asked))
    }
  }
  if (only !== null) return []
  const figures = names.map((name): Figure => {
    const rate = median(our.get(name)!)
    const asked = peer.get(name)!
    const against = asked.length > 0 ? '1 subscribers, one concerned' : base[name]!
    const ofBase = rate / median(our.get(against)!)
    return {
      bench: 'authorize',
      name,
      ours: rate,
      peer: asked.length > 0 ? median(asked) : median(our.get(against)!),
      ratio: rate / (asked.length > 0 ? median(asked) : median(our.get(against)!)),
      unit: 'changes/s',
      against: asked.length > 0 ? 'a re-query per subscriber' : against,
      goal: goalOf(name, { whole: rate, user: median(ourUser.get(name)!) }, ofBase),
      details: {
        withoutTheKernel: Math.round(median(ourUser.get(name)!)),
        [`of ${against}`]: Number(ofBase.toFixed(2)),
        ourRounds: rounded(our.get(name)!),
        peerRounds: rounded(asked, 1),
      },
    }
  })
  const own = await idle(world, 'tidegate', tokens)
  const shared = await idle(world, 'tidegate', tokens.slice(0, 1))
  const bare = await idle(world, 'bare', [])
  const each = Math.round(200 * Math.min(1, scale))
  await world.memberships(users, each)
  const rich = await idle(world, 'tidegate', tokens)
  figures.push(
    weight('idle sockets that share a live query', shared, bare),
    weight('idle sockets, each with a user and a live query of its own', own, bare),
    membershipWeight(((rich - own) * 1000) / each, each),
  )
  return figures
}

/** What those are compared with that have no peer. */
const base: Readonly<Record<string, string>> = {
  '50,000 subscribers on 5,000 sockets, one concerned': '100 subscribers, one concerned',
  '5,000 subscribers in distinct rooms, each concerned in turn': '5000 subscribers, one concerned',
  '1,000 subscribers by a chain of three hops, one concerned': '1000 subscribers, one concerned',
}

function goalOf(name: string, { whole: rate, user }: Rate, ofBase: number): Figure['goal'] {
  if (name.includes('three hops')) return { text: 'at least half of one hop', met: ofBase >= 0.5 }
  if (name.includes('in turn'))
    return { text: '50,000 of one core, judged and routed: without the kernel, which sends', met: user >= 50_000 }
  return { text: '50,000 of one core, and flat within 20 %', met: ofBase >= 0.8 && rate >= 50_000 }
}

const membershipWeight = (bytes: number, each: number): Figure => ({
  bench: 'authorize',
  name: `a membership, of ${each} for each of ${idleCount} users`,
  ours: bytes,
  peer: 120,
  ratio: bytes / 120,
  unit: 'bytes of resident memory',
  against: 'the goal',
  goal: { text: '1,000,000 under 120 MB', met: bytes <= 120 },
  details: {},
})

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

/** Changes per second of CPU time: all of it, and what is spent outside the kernel, which is all but the sending. */
interface Rate {
  readonly whole: number
  readonly user: number
}

async function ours(world: World, load: Load, profile: readonly string[]): Promise<Rate> {
  const { table, tokens, queries, rooms } = load
  // What an earlier load left would be told as deleted.
  await writeTemplates(world, table, [], '')
  await using server = new Child('./sides/tidegate.ts', { execArgv: ['--expose-gc', ...profile], cpu: 0 })
  await using clients = new Child('./clients.ts', { cpu: 1 })
  const start = { databaseUrl: world.postgres.url, replication: 'repeated' }
  const { port, creditPort } = await server.ask<{ port: number; creditPort: number }>('start', start)
  const count = tokens.length
  await clients.ask('connect', {
    ...connection({ kind: 'tidegate', port, creditPort, count, tokens }),
    table,
    queries,
  })
  await server.ask('arm', { templates: rooms.length })
  await writeTemplates(world, table, rooms, 'body')
  await server.ask('ready')
  // The deletion and the template have been delivered before what counts begins.
  await new Promise(resolve => setTimeout(resolve, 500))
  await clients.ask('learn')
  await server.ask('once')
  await clients.ask('learned', { deliveries: 1 })
  let spent: Spent = { cpuMicros: 0, userMicros: 0, wallMs: 0 }
  for (const changes of [load.changes / 10, load.changes]) {
    const turns = Math.ceil(changes / perGulp)
    await clients.ask('count', { perBroadcast: perGulp })
    spent = await server.ask<Spent>('repeat', { turns, perTurn: perGulp, ahead: 8 })
    const received = await clients.ask<number>('received')
    if (received !== turns * perGulp) throw new Error(`${received} of ${turns * perGulp} changes were delivered`)
  }
  const changes = Math.ceil(load.changes / perGulp) * perGulp
  return { whole: (changes / spent.cpuMicros) * 1e6, user: (changes / spent.userMicros) * 1e6 }
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
