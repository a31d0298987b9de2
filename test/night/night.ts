// A night in ten minutes: commits, clients that come and go, nodes that are replaced, and whether anything is left of it afterwards.
//
// One node stands through the night and is weighed; two others are replaced in turn, as deploys do, and the lead moves with them. Three
// readers come back through all of it, and hold at the end what is in the table.
import { readdir, readFile } from 'node:fs/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import { ComingBack } from '../deploy/coming-back.ts'
import { NodeProcess } from '../faults/node-process.ts'
import { Balancer } from '../support/balancer.ts'
import { person, prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { transports } from '../support/readers.ts'
import { type OpenedRedis, open } from '../support/redis-clients.ts'
import { visits } from './comers.ts'
import { growthOf, type Weight } from './slope.ts'
import { leftOf } from './verdict.ts'

export interface NightOptions {
  /** Of a server that may be filled. */
  readonly serverUrl: string
  readonly redisUrl: string
  readonly commits: number
  readonly connects: number
  readonly restarts: number
  /** All three are spread evenly over it, and take longer where the machine is slow. */
  readonly seconds: number
  /** A module that is loaded into the node that is weighed, and leaks. */
  readonly plant?: string
  /** What was opened for somebody is closed within so long: 60,000. Where clients of Supabase stood, Redis holds for five minutes. */
  readonly settleMs?: number
  readonly say: (line: string) => void
}

/** What is held while nobody is there. */
export interface Held {
  readonly descriptors: number
  readonly slots: number
  /** Those that stay for longer than a minute. */
  readonly redisKeys: readonly string[]
  readonly databaseConnections: number
  /** Of the node that stands, by the names of /metrics. */
  readonly gauges: Readonly<Record<string, number>>
}

export interface Night {
  readonly before: Held
  readonly after: Held
  /** Of the node that stands. */
  readonly weights: readonly Weight[]
  readonly resident: readonly Weight[]
  /** Per cent for each 100,000 commits, over the last four fifths. */
  readonly growth: number
  readonly residentGrowth: number
  readonly commits: number
  readonly connects: number
  readonly restarts: number
  readonly seconds: number
  /** Visits that met a node that went, and were made again. */
  readonly refused: number
  readonly resyncs: readonly string[]
  /** Null: every reader holds what is in the table. */
  readonly difference: string | null
}

const operatorToken = 'an-operator-of-the-night'

const settings: Readonly<Record<string, string>> = {
  LOG_LEVEL: 'warn',
  AUDIENCE_GRACE_MS: '1000',
  // What it holds is part of what is weighed.
  WINDOW_MAX_AGE_MS: '5000',
  DATABASE_POOL: '4',
  DRAIN_DELAY_MS: '0',
  DRAIN_SPREAD_MS: '100',
  DRAIN_TIMEOUT_MS: '500',
  OPERATOR_TOKEN: operatorToken,
  CHANNELS: '[{"pattern": "room:*", "public": true, "presence": {"grace": "1s"}}]',
}

const rooms = 10
const people = 500
const commitsPerCall = 250
const visitsAtOnce = 8
const weighings = 50
export async function night(options: NightOptions): Promise<Night> {
  const { settleMs = 60_000 } = options
  await using stack = new AsyncDisposableStack()
  const database = stack.use(await TestDatabase.create(options.serverUrl))
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const users = Array.from({ length: people }, () => person())
  await database.query(nightSql)
  await database.query('INSERT INTO night_people SELECT u::uuid FROM unnest($1::text[]) AS u', [users])
  await database.query(
    'INSERT INTO members SELECT 1 + n % $2, u::uuid FROM unnest($1::text[]) WITH ORDINALITY AS x(u, n)',
    [users, rooms],
  )
  const tokens = await Promise.all(users.map(user => tokenFor(user)))
  const redis = stack.use(open(options.redisUrl, 5000))
  const env = { ...settings, REDIS_URL: options.redisUrl }
  const planted = options.plant === undefined ? {} : { NODE_OPTIONS: `--import ${options.plant}` }
  const nodes: NodeProcess[] = []
  for (const more of [{ ...env, ...planted }, env, env]) {
    const node = await NodeProcess.start(database.url, more)
    stack.defer(() => node.kill())
    nodes.push(node)
  }
  const [standing, ...replaced] = nodes as [NodeProcess, ...NodeProcess[]]
  const balancer = stack.use(await Balancer.start({ readyPath: '/ready?scope=node', askEveryMs: 50 }))
  for (const [place, node] of nodes.entries()) balancer.add(String(place), node.url)

  const visit = async (number: number): Promise<number> => {
    const { length } = visits
    const place = number % people
    const comer = { token: tokens[place]!, room: 1 + (place % rooms) }
    for (let attempt = 0; ; attempt++) {
      const node = attempt === 0 ? nodes[number % nodes.length]! : standing
      try {
        await visits[number % length]!({ ...comer, url: node.url })
        return attempt
      } catch (error) {
        if (node === standing && attempt > 2) throw error
        await sleep(50)
      }
    }
  }
  // Everything has been asked for once: of every node, and in every room.
  await database.query(`CALL night(${5 * commitsPerCall}, ${rooms})`)
  for (let number = 0; number < visits.length * nodes.length; number++) await visit(number)
  for (let room = 1; room <= rooms; room++)
    for (const each of visits) await each({ url: standing.url, token: tokens[0]!, room })
  const look = (): Promise<Held> => heldBy(standing, database, redis)
  const before = await settled(look, null, settleMs)
  options.say(`before: ${textOf(before)}`)

  const readers = transports.map(transport => new ComingBack(transport, balancer.url, 'messages', tokens[0]!))
  for (const reader of readers) {
    stack.use(reader)
    await reader.until(({ rows }) => rows.exact)
  }
  const done = { commits: 0, connects: 0, restarts: 0, refused: 0 }
  const weights: Weight[] = []
  const resident: Weight[] = []
  const began = performance.now()
  const spread = { began, ms: options.seconds * 1000 }
  const writing = pace(options.commits / commitsPerCall, spread, 1, async () => {
    await database.query(`CALL night(${commitsPerCall}, ${rooms})`)
    done.commits += commitsPerCall
  })
  const coming = pace(options.connects, spread, visitsAtOnce, async number => {
    done.refused += await visit(number)
    done.connects += 1
  })
  const replacing = pace(options.restarts, spread, 1, async number => {
    const node = replaced[number % replaced.length]!
    await node.stop()
    await node.start()
    done.restarts += 1
  })
  const weighing = pace(weighings, spread, 1, async number => {
    const commits = done.commits
    weights.push({ commits, bytes: await standing.weigh() })
    resident.push({ commits, bytes: await residentBytes(standing.pid) })
    if (number % 5 === 0) options.say(`${JSON.stringify(done)} ${(weights.at(-1)!.bytes / 1e6).toFixed(1)} MB`)
  })
  await Promise.all([writing, coming, replacing, weighing])
  const seconds = (performance.now() - began) / 1000

  const rows = await database.query<{ row: string }>(
    `SELECT id || ' ' || body AS row FROM messages m WHERE EXISTS (
       SELECT FROM members WHERE room_id = m.room_id AND user_id = $1)`,
    [users[0]],
  )
  const expected = new Set(rows.map(({ row }) => row))
  const difference = await agreed(readers, expected)
  const resyncs = readers.flatMap(reader => reader.resyncs)
  for (const reader of readers) await reader[Symbol.asyncDispose]()
  const after = await settled(look, before, settleMs)
  options.say(`after: ${textOf(after)}`)
  const growth = growthOf(weights, { part: 0.8, per: 100_000 })
  const residentGrowth = growthOf(resident, { part: 0.8, per: 100_000 })
  return { before, after, weights, resident, growth, residentGrowth, ...done, seconds, resyncs, difference }
}

/** Runs `count` pieces of work evenly over the time, so many at once at most; behind its time, without a pause. */
async function pace(
  count: number,
  { began, ms }: { readonly began: number; readonly ms: number },
  atOnce: number,
  work: (number: number) => Promise<void>,
): Promise<void> {
  let next = 0
  const one = async (): Promise<void> => {
    while (next < count) {
      const number = next++
      const waitMs = began + (number * ms) / count - performance.now()
      if (waitMs > 0) await sleep(waitMs)
      await work(number)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, one))
}

async function heldBy(node: NodeProcess, database: TestDatabase, redis: OpenedRedis): Promise<Held> {
  const [row] = await database.query<{ slots: string; connections: string }>(
    `SELECT (SELECT count(*) FROM pg_replication_slots WHERE database = current_database()) AS slots,
            (SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()) AS connections`,
  )
  return {
    descriptors: (await readdir(`/proc/${node.pid}/fd`)).length,
    slots: Number(row!.slots),
    redisKeys: await lastingKeys(redis),
    databaseConnections: Number(row!.connections),
    gauges: await gaugesOf(node),
  }
}

async function lastingKeys({ client }: OpenedRedis): Promise<string[]> {
  const keys = (await client.keys('*')).map(String).sort()
  const lives = await Promise.all(keys.map(key => client.pttl(key)))
  // -2: gone meanwhile; -1: for ever.
  return keys.filter((_, place) => lives[place] === -1 || lives[place]! > 60_000)
}

/** What a node holds for those who are there. */
const held = [
  'connections',
  'subscriptions',
  'audiences',
  'queries',
  'splices',
  'queued_bytes',
  'channels',
  'channel_members',
  'presence_rooms',
]

async function gaugesOf({ url }: NodeProcess): Promise<Record<string, number>> {
  const answer = await fetch(`${url}/metrics`, { headers: { authorization: `Bearer ${operatorToken}` } })
  const text = await answer.text()
  return Object.fromEntries(
    held.map(name => {
      const value = text.match(new RegExp(`^tidegate_${name}(?:\\{[^}]*\\})? (\\S+)$`, 'm'))?.[1]
      if (value === undefined) throw new Error(`/metrics has no tidegate_${name}`)
      return [name, Number(value)]
    }),
  )
}

async function residentBytes(pid: number): Promise<number> {
  const [, resident] = (await readFile(`/proc/${pid}/statm`, 'utf8')).split(' ')
  return Number(resident) * 4096
}

/** Looks until nothing is left beside what was, or, the first time, until it stays as it is. */
async function settled(look: () => Promise<Held>, as: Held | null, settleMs: number): Promise<Held> {
  const deadline = performance.now() + settleMs
  let last = await look()
  for (let alike = 0; performance.now() < deadline; ) {
    await sleep(500)
    const now = await look()
    if (as !== null && leftOf(as, now).length === 0) return now
    alike = isLike(now, last) ? alike + 1 : 0
    if (as === null && alike >= 10) return now
    last = now
  }
  return last
}

const textOf = (held: Held): string => JSON.stringify({ ...held, redisKeys: held.redisKeys.length })

/** Pools open and close connections as they need them. */
const isLike = (one: Held, other: Held): boolean =>
  JSON.stringify({ ...one, databaseConnections: 0 }) === JSON.stringify({ ...other, databaseConnections: 0 })

/** @returns what a reader holds that is not in the table, or lacks; null when there is nothing of the kind */
async function agreed(readers: readonly ComingBack[], expected: ReadonlySet<string>): Promise<string | null> {
  for (const reader of readers) {
    const holds = (): ReadonlySet<string> =>
      new Set([...reader.rows.rows.values()].map(row => `${String(row.id)} ${String(row.body)}`))
    try {
      await reader.until(() => holds().symmetricDifference(expected).size === 0)
    } catch (error) {
      const differs = [...holds().symmetricDifference(expected)]
      return `${reader.transport}: ${differs.length} rows differ, such as ${differs.slice(0, 3).join(', ')} (${String(error)})`
    }
  }
  return null
}

/** Writes so many commits: messages come, are edited and go, and memberships of others with them. The table stays as large as it is. */
const nightSql = `
  CREATE SEQUENCE night_messages;
  CREATE PROCEDURE night(commits int, rooms int) LANGUAGE plpgsql AS $$
  DECLARE id bigint;
  BEGIN
    SET LOCAL synchronous_commit = off;
    FOR i IN 1..commits LOOP
      IF i % 5 < 2 THEN
        id := nextval('night_messages');
        INSERT INTO public.messages VALUES (id, 1 + id % rooms, 'night', 'first of ' || id);
      ELSIF i % 5 < 4 THEN
        DELETE FROM public.messages WHERE messages.id = currval('night_messages') - 600 - i % 5;
        UPDATE public.messages SET body = 'edited ' || i WHERE messages.id = currval('night_messages') - 100;
      ELSIF i % 25 = 4 THEN
        INSERT INTO public.members VALUES (1 + i % rooms, gen_random_uuid());
      ELSIF i % 25 = 9 THEN
        DELETE FROM public.members WHERE ctid IN (
          SELECT ctid FROM public.members WHERE role = 'member' AND user_id NOT IN (SELECT user_id FROM night_people) LIMIT 2);
      ELSE
        PERFORM realtime.send(jsonb_build_object('i', i), 'night', 'room:' || (1 + i / 5 % rooms), false);
      END IF;
      COMMIT;
      SET LOCAL synchronous_commit = off;
    END LOOP;
  END $$;
  CREATE TABLE night_people (user_id uuid PRIMARY KEY);
`
