// What the journal in Redis costs, and whom. Three questions:
//   - the leader: a backlog drained by a node that stores it in Redis, against one alone. By CPU time, because a machine of two
//     cores also runs Redis and Postgres.
//   - Redis: what 1, 5 or 20 nodes that read take of its CPU and of its network, and how late they are.
//   - two nodes: what each delivers, when the clients of one are spread over both.
import { Redis } from 'ioredis'
import { migrate } from '../src/cli/commands/migrate.ts'
import { track } from '../src/cli/commands/track.ts'
import { type RedisProcess, startRedis } from '../test/support/redis-process.ts'
import { Child } from './child.ts'
import type { Connect } from './clients.ts'
import { queries, writeBacklog } from './drain.ts'
import { type Figure, interleave, median, rounded, say } from './report.ts'
import { name, tokensFor, World } from './world.ts'

export interface RelayOptions {
  readonly binDir: string | null
  readonly rounds: number
  /** 1 is the whole of the work. */
  readonly scale: number
  readonly readers: readonly number[]
  readonly profile: readonly string[]
}

/** A second deployment over the same database: a slot, a publication and keys of its own. */
const aloneName = `${name}_alone`
const silent = { write: () => true }

export async function relay(options: RelayOptions): Promise<Figure[]> {
  await using redis = await startRedis({ settings: { 'repl-backlog-size': '1mb' } })
  await using world = await World.create(options.binDir)
  const admin = { databaseUrl: world.postgres.url, adminUrl: world.postgres.url, name: aloneName }
  await migrate({ ...admin, conventions: true, print: false, dryRun: false }, silent)
  await track({ ...admin, tables: ['public.members', 'public.messages'], print: false, dryRun: false }, silent)
  const setting: Setting = { redis, world, options }
  return [...(await leaderCost(setting)), ...(await readerCost(setting)), await twoNodes(setting)]
}

interface Setting {
  readonly redis: RedisProcess
  readonly world: World
  readonly options: RelayOptions
}

interface Side {
  readonly child: Child
  readonly slotPrefix: string
  /** Microseconds of CPU for each row. */
  readonly cpu: number[]
  readonly rate: number[]
}

const backlogs = [
  { title: '1,000,000 inserts, 1,000 a commit', rows: 1_000_000, perCommit: 1000 },
  { title: '200,000 commits of one insert', rows: 200_000, perCommit: 1 },
] as const

/** The work of `bench drain`, with its 1,000 live queries, and the whole of what an append to the journal adds to it: blocks,
 *  Redis's answers, the account of what may be acknowledged. */
async function leaderCost({ redis, world, options }: Setting): Promise<Figure[]> {
  await using alone = new Child('./sides/tidegate.ts')
  await using leader = new Child('./sides/tidegate.ts', { execArgv: options.profile })
  const window = {
    WINDOW_MAX_AGE_MS: '100',
    WINDOW_MAX_BYTES: '1048576',
    RELAY_HOLD_MS: '0',
    RELAY_MAX_BYTES: '67108864',
  }
  const start = { databaseUrl: world.postgres.url, replication: 'held' }
  await using aloneClients = new Child('./clients.ts')
  await using leaderClients = new Child('./clients.ts')
  const tokens = await tokensFor(await world.users(queries, user => user + 1))
  const join = async (node: Child, clients: Child, settings: Record<string, string>): Promise<void> => {
    const { port } = await node.ask<{ port: number }>('start', { ...start, settings: { ...window, ...settings } })
    const connect: Connect = {
      ...{ kind: 'tidegate', port, creditPort: null, count: queries, tokens },
      ...{ table: 'messages', filter: '', select: null },
    }
    await clients.ask('connect', connect)
    await clients.ask('rows')
  }
  await join(alone, aloneClients, { TIDEGATE_NAME: aloneName })
  await join(leader, leaderClients, { REDIS_URL: redis.url })
  const figures: Figure[] = []
  for (const backlog of backlogs) {
    const rows = Math.round(backlog.rows * options.scale)
    const sides: Side[] = [
      { child: alone, slotPrefix: aloneName, cpu: [], rate: [] },
      { child: leader, slotPrefix: name, cpu: [], rate: [] },
    ]
    for (let round = 0; round < options.rounds; round++) {
      for (const { child } of sides) await child.ask('close')
      await writeBacklog(world, { rows, perCommit: backlog.perCommit })
      const runs = sides.map(side => () => drain(world, side, rows))
      await interleave(1, round % 2 === 0 ? runs : runs.toReversed())
      for (const { child } of sides) await child.ask('open')
      say(`${backlog.title}: ${sides.map(({ cpu }) => cpu.at(-1)!.toFixed(2)).join(' and ')} µs of CPU a row`)
    }
    const [ours, peer] = [median(sides[1]!.cpu), median(sides[0]!.cpu)]
    figures.push({
      bench: 'relay',
      name: `the leader: ${backlog.title}`,
      ours,
      peer,
      ratio: ours / peer,
      unit: 'µs of CPU a row',
      against: 'a node without a journal',
      goal: { text: 'at most 1.3 x', met: ours / peer <= 1.3 },
      details: {
        ourRounds: rounded(sides[1]!.cpu, 2),
        peerRounds: rounded(sides[0]!.cpu, 2),
        ourRowsPerSecond: Math.round(median(sides[1]!.rate)),
        peerRowsPerSecond: Math.round(median(sides[0]!.rate)),
      },
    })
  }
  return figures
}

/** Lets a node read what stands behind its slot, and waits until it has served all of it. */
async function drain(world: World, { child, slotPrefix, cpu, rate }: Side, rows: number): Promise<void> {
  const end = await value(world, 'SELECT pg_current_wal_insert_lsn()::text AS value')
  const before = await child.ask<number>('inserts')
  const spent = await child.ask<number>('cpu')
  const start = performance.now()
  await child.ask('open')
  const sql = `SELECT coalesce(bool_or(confirmed_flush_lsn >= $1::pg_lsn), false) AS done
    FROM pg_replication_slots WHERE slot_name ~ ('^' || $2 || '_[0-9a-f]{8}$')`
  while ((await child.ask<number>('inserts')) - before < rows) await new Promise(resolve => setTimeout(resolve, 20))
  rate.push((rows / (performance.now() - start)) * 1000)
  for (;;) {
    const { rows: found } = await world.client.query<{ done: boolean }>(sql, [end, slotPrefix])
    if (found[0]!.done) break
    await new Promise(resolve => setTimeout(resolve, 100))
  }
  cpu.push(((await child.ask<number>('cpu')) - spent) / rows)
  await child.ask('close')
}

async function readerCost({ redis, world, options }: Setting): Promise<Figure[]> {
  const figures: Figure[] = []
  for (const count of options.readers) {
    await using leader = new Child('./sides/tidegate.ts')
    await using readers = new Child('./sides/journal-readers.ts')
    const direct = new Redis(redis.url)
    await direct.flushall()
    const settings = { REDIS_URL: redis.url, RELAY_MAX_BYTES: String(2 ** 30) }
    await leader.ask('start', { databaseUrl: world.postgres.url, replication: 'plain', settings })
    await readers.ask('start', { url: redis.url, name, count })
    await new Promise(resolve => setTimeout(resolve, 1500))
    await readers.ask('forget')
    const rows = Math.round(30_000 * options.scale)
    const before = await usage(direct)
    const spent = await readers.ask<number>('cpu')
    const beganAt = performance.now()
    await paced(world, rows)
    await readers.ask('rows', { rows })
    const seconds = (performance.now() - beganAt) / 1000
    const after = await usage(direct)
    const lags = (await readers.ask<number[]>('lags')).toSorted((a, b) => a - b)
    direct.disconnect()
    const at = (p: number): number =>
      Math.round(lags[Math.min(lags.length - 1, Math.floor(lags.length * p))]! / 10) / 100
    const redisShare = (after.cpu - before.cpu) / seconds
    const details = {
      commitsPerSecond: Math.round(rows / seconds),
      redisMicrosPerCommit: Number((((after.cpu - before.cpu) * 1e6) / rows).toFixed(2)),
      bytesInPerCommit: Math.round((after.bytesIn - before.bytesIn) / rows),
      bytesOutPerCommitAndReader: Math.round((after.bytesOut - before.bytesOut) / rows / count),
      readerMicrosPerCommit: Number((((await readers.ask<number>('cpu')) - spent) / rows / count).toFixed(2)),
      lagMs: { p50: at(0.5), p99: at(0.99), max: at(1) },
    }
    say(`${count} readers: ${JSON.stringify(details)}`)
    figures.push({
      bench: 'relay',
      name: `Redis with ${count} readers`,
      ours: redisShare * 100,
      peer: 100,
      ratio: redisShare,
      unit: '% of a core',
      against: 'one core',
      goal: null,
      details,
    })
  }
  return figures
}

async function usage(redis: Redis): Promise<{ cpu: number; bytesIn: number; bytesOut: number }> {
  const info = `${await redis.info('cpu')}\n${await redis.info('stats')}`
  const field = (key: string): number => Number(new RegExp(`^${key}:(.*)$`, 'm').exec(info)![1])
  return {
    cpu: field('used_cpu_user') + field('used_cpu_sys'),
    bytesIn: field('total_net_input_bytes'),
    bytesOut: field('total_net_output_bytes'),
  }
}

const sockets = 1000
const warmUp = 300

/** The same clients on one node, then spread over two: what the busier one spends on a delivery. */
async function twoNodes({ redis, world, options }: Setting): Promise<Figure> {
  const users = await world.users(sockets, () => 1)
  const tokens = await tokensFor(users)
  const deliveries = Math.round(1000 * options.scale) * sockets
  const [one, two]: number[][] = [[], []]
  for (let round = 0; round < options.rounds; round++) {
    await interleave(1, round % 2 === 0 ? [run(1, one!), run(2, two!)] : [run(2, two!), run(1, one!)])
    say(`two nodes: ${one!.at(-1)!.toFixed(2)} and ${two!.at(-1)!.toFixed(2)} µs of the busier node's CPU a delivery`)
  }

  function run(nodes: number, into: number[]): () => Promise<void> {
    return async () => {
      const direct = new Redis(redis.url)
      await direct.flushall()
      direct.disconnect()
      const settings = { REDIS_URL: redis.url }
      const running = Array.from({ length: nodes }, () => ({
        node: new Child('./sides/tidegate.ts'),
        clients: new Child('./clients.ts'),
      }))
      try {
        for (const { node, clients } of running) {
          const started = { databaseUrl: world.postgres.url, replication: 'plain', settings }
          const { port } = await node.ask<{ port: number }>('start', started)
          const connect: Connect = {
            ...{ kind: 'tidegate', port, creditPort: null, count: sockets / nodes, tokens },
            ...{ table: 'messages', filter: 'room_id=eq.1', select: 'id' },
          }
          await clients.ask('connect', connect)
          await clients.ask('rows')
        }
        // Until V8 has compiled what counts.
        await hot(world, warmUp)
        await Promise.all(
          running.map(({ clients }) => clients.ask('rowsReceived', { rows: (warmUp * sockets) / nodes })),
        )
        for (const { clients } of running) await clients.ask('rows')
        const spent = await Promise.all(running.map(({ node }) => node.ask<number>('cpu')))
        await hot(world, deliveries / sockets)
        await Promise.all(running.map(({ clients }) => clients.ask('rowsReceived', { rows: deliveries / nodes })))
        const cpus = await Promise.all(running.map(({ node }) => node.ask<number>('cpu')))
        into.push(Math.max(...cpus.map((cpu, i) => cpu - spent[i]!)) / deliveries)
      } finally {
        for (const { node, clients } of running) {
          await clients[Symbol.asyncDispose]()
          await node[Symbol.asyncDispose]()
        }
      }
    }
  }

  const [ours, peer] = [1 / median(two!), 1 / median(one!)]
  return {
    bench: 'relay',
    name: `${sockets} clients spread over two nodes`,
    ours,
    peer,
    ratio: ours / peer,
    unit: "deliveries a µs of the busier node's CPU",
    against: 'all on one node',
    goal: { text: 'at least 1.8 x', met: ours / peer >= 1.8 },
    details: { oneNode: rounded(one!, 3), twoNodes: rounded(two!, 3) },
  }
}

/** Rows that every client may see, a commit each, and each by itself: deltas that come together share a write, and how many do
 *  would decide what a delivery costs. */
async function hot({ client }: World, commits: number): Promise<void> {
  await client.query(`
    DO $$ DECLARE base bigint := nextval('public.message_ids'); BEGIN
      FOR c IN 1 .. ${commits} LOOP
        INSERT INTO public.messages (id, room_id, author, body)
          VALUES (base + c, 1, '00000000-0000-4000-8000-000000000001', repeat('m', 120));
        COMMIT;
        PERFORM pg_sleep(0.006);
      END LOOP;
      PERFORM setval('public.message_ids', base + ${commits} + 1);
    END $$`)
}

/** Rows of rooms that nobody is in, a commit each, at most 5,000 a second: what is written faster than it is read says how long
 *  a queue is, not how late a reader. Each waits for its WAL to be written: what does not may lie in memory for 200 ms. */
async function paced({ client }: World, rows: number): Promise<void> {
  await client.query(`
    DO $$ DECLARE base bigint := nextval('public.message_ids'); BEGIN
      FOR c IN 1 .. ${rows} LOOP
        INSERT INTO public.messages (id, room_id, author, body)
          VALUES (base + c, 1000000 + c % 5000, '00000000-0000-4000-8000-000000000001', repeat('m', 120));
        COMMIT;
        IF c % 10 = 0 THEN PERFORM pg_sleep(0.002); END IF;
      END LOOP;
      PERFORM setval('public.message_ids', base + ${rows} + 1);
    END $$`)
}

const value = async ({ client }: World, sql: string): Promise<string> =>
  (await client.query<{ value: string }>(sql)).rows[0]!.value
