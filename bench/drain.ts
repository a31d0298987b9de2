// How fast is a backlog drained? A whole node with 1,000 live queries under a membership policy, 1 row in 100 concerning
// one of them, against pg_recvlogical, which only receives. Both over TCP from copies of one slot.
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { Child } from './child.ts'
import type { Connect } from './clients.ts'
import { type Figure, interleave, median, rounded, say } from './report.ts'
import { name, tokensFor, World } from './world.ts'

interface Backlog {
  readonly title: string
  readonly rows: number
  readonly perCommit: number
  readonly goal: number
}

export const queries = 1000
const peerSlot = 'peer'

export async function drain(options: DrainOptions): Promise<Figure[]> {
  const { scale } = options
  await using world = await World.create(options.binDir)
  await using ours = new Child('./sides/tidegate.ts', { execArgv: options.profile })
  await using clients = new Child('./clients.ts')
  const users = await world.users(queries, user => user + 1)
  const { port } = await ours.ask<{ port: number }>('start', {
    databaseUrl: world.postgres.url,
    replication: 'held',
    // A short window: what has been served may be acknowledged at once.
    settings: { WINDOW_MAX_AGE_MS: '100', WINDOW_MAX_BYTES: '1048576' },
  })
  const connect: Connect = {
    kind: 'tidegate',
    port,
    creditPort: null,
    count: queries,
    tokens: await tokensFor(users),
    table: 'messages',
    filter: '',
    select: null,
  }
  await clients.ask('connect', connect)
  say(`${queries} live queries stand`)
  const backlogs: Backlog[] = [
    { title: '1,000,000 inserts, 1,000 a commit', rows: 1_000_000 * scale, perCommit: 1000, goal: 1.8 },
    { title: '200,000 commits of one insert', rows: 200_000 * scale, perCommit: 1, goal: 1.8 },
  ]
  const figures: Figure[] = []
  for (const backlog of backlogs) figures.push(await measure({ world, ours, clients }, backlog, options.rounds))
  return figures
}

export interface DrainOptions {
  readonly binDir: string | null
  readonly rounds: number
  /** 1 is the whole backlog. */
  readonly scale: number
  readonly profile: readonly string[]
}

interface Parties {
  readonly world: World
  readonly ours: Child
  readonly clients: Child
}

async function measure({ world, ours, clients }: Parties, backlog: Backlog, rounds: number): Promise<Figure> {
  const { rows, perCommit, title } = backlog
  const [our, peer, cpu]: number[][] = [[], [], []]
  for (let round = 0; round < rounds; round++) {
    await ours.ask('close')
    const slot = await ourSlot(world)
    await writeBacklog(world, backlog)
    await world.client.query(`SELECT pg_copy_logical_replication_slot($1, $2)`, [slot, peerSlot])
    const end = await value(world, 'SELECT pg_current_wal_insert_lsn()::text AS value')
    await interleave(1, round % 2 === 0 ? [drainOurs, drainPeer] : [drainPeer, drainOurs])
    await world.client.query('SELECT pg_drop_replication_slot($1)', [peerSlot])
    await acknowledged(world, slot, end)

    async function drainOurs(): Promise<void> {
      const before = await ours.ask<number>('inserts')
      const spent = await ours.ask<number>('cpu')
      await clients.ask('rows')
      const start = performance.now()
      await ours.ask('open')
      await clients.ask<number[]>('rowsReceived', { rows: rows / 100 })
      our!.push((rows / (performance.now() - start)) * 1000)
      cpu!.push(((await ours.ask<number>('cpu')) - spent) / rows)
      // What had no place in the backlog would still come now.
      await new Promise(resolve => setTimeout(resolve, 300))
      const decoded = (await ours.ask<number>('inserts')) - before
      const bySocket = await clients.ask<number[]>('rowsReceived', { rows: 0 })
      const delivered = bySocket.reduce((sum, count) => sum + count, 0)
      if (decoded !== rows) throw new Error(`${decoded} inserts were decoded; the backlog has ${rows}`)
      if (delivered !== rows / 100) throw new Error(`${delivered} rows were delivered; ${rows / 100} concern someone`)
      const wrong = bySocket.findIndex((count, i) => count !== Math.ceil((rows / 100 - i) / queries))
      if (wrong >= 0) throw new Error(`query ${wrong} got ${bySocket[wrong]} rows`)
      say(`${title}: ours ${our!.at(-1)!.toFixed(0)} rows/s`)
    }

    async function drainPeer(): Promise<void> {
      const start = performance.now()
      await receive(world, end)
      peer!.push((rows / (performance.now() - start)) * 1000)
      say(`${title}: pg_recvlogical ${peer!.at(-1)!.toFixed(0)} rows/s`)
    }
  }
  const ratio = median(our!) / median(peer!)
  return {
    bench: 'drain',
    name: title,
    ours: median(our!),
    peer: median(peer!),
    ratio,
    unit: 'rows/s',
    against: 'pg_recvlogical',
    goal: { text: `${backlog.goal} x pg_recvlogical (floor 1.5 x)`, met: ratio >= backlog.goal },
    details: {
      rowsPerCommit: perCommit,
      liveQueries: queries,
      ourCpuMicrosPerRow: Number(median(cpu!).toFixed(2)),
      ourRounds: rounded(our!),
      peerRounds: rounded(peer!),
    },
  }
}

/** Row n, counted from 1, concerns somebody when 100 divides n: the rooms of the others have no members here. The last
 *  one does, so that who has received it has received all. */
export async function writeBacklog(
  { client }: World,
  { rows, perCommit }: Pick<Backlog, 'rows' | 'perCommit'>,
): Promise<void> {
  await client.query('SET synchronous_commit = off')
  await client.query(`
    DO $$ DECLARE base bigint := nextval('public.message_ids'); BEGIN
      FOR c IN 0 .. ${rows / perCommit - 1} LOOP
        INSERT INTO public.messages (id, room_id, author, body)
        SELECT base + n, CASE WHEN n % 100 = 0 THEN (n / 100 - 1) % ${queries} + 1 ELSE 1000000 + n % 5000 END,
          '00000000-0000-4000-8000-000000000001', repeat('m', 120)
        FROM generate_series(c::bigint * ${perCommit} + 1, c::bigint * ${perCommit} + ${perCommit}) n;
        COMMIT;
      END LOOP;
      PERFORM setval('public.message_ids', base + ${rows} + 1);
    END $$`)
  await client.query('SET synchronous_commit = on')
  // Written and flushed: neither side waits for the disk.
  await client.query('CHECKPOINT')
}

const value = async ({ client }: World, sql: string): Promise<string> =>
  (await client.query<{ value: string }>(sql)).rows[0]!.value

const ourSlot = (world: World): Promise<string> =>
  value(world, `SELECT slot_name::text AS value FROM pg_replication_slots WHERE slot_name LIKE '${name}\\_%'`)

async function receive({ postgres, binDir }: World, end: string): Promise<void> {
  const options = ['proto_version=1', `publication_names=${name}`, 'messages=true']
  const args = ['-d', postgres.url, '-S', peerSlot, '--start', '-f', '/dev/null', '--endpos', end, '--no-loop']
  for (const option of options) args.push('-o', option)
  const child = spawn(join(binDir, 'pg_recvlogical'), args, { stdio: ['ignore', 'ignore', 'inherit'] })
  const code = await new Promise(resolve => child.once('exit', resolve))
  if (code !== 0) throw new Error(`pg_recvlogical ended with ${code}`)
}

/** The backlog counts as drained only when the slot has let it go. */
async function acknowledged({ client }: World, slot: string, end: string): Promise<void> {
  const deadline = Date.now() + 30_000
  const sql = 'SELECT confirmed_flush_lsn >= $2::pg_lsn AS done FROM pg_replication_slots WHERE slot_name = $1'
  for (;;) {
    const { rows } = await client.query<{ done: boolean }>(sql, [slot, end])
    if (rows[0]?.done) return
    if (Date.now() > deadline) throw new Error(`the slot was not acknowledged up to ${end}`)
    await new Promise(resolve => setTimeout(resolve, 100))
  }
}
