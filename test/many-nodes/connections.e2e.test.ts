// Many nodes, as processes, over a Postgres with few connections more than they may have: each holds DATABASE_POOL of them, and
// the leader one more. Twenty, over as many connections as Postgres comes with: CONNECTIONS_NODES=20 vitest run <this file>.
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { loadConfig } from '../../src/server/config/config.ts'
import { askedSchema, askedTables } from '../support/asked.ts'
import { jwtSecret, LiveSse, person, prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis } from '../support/redis.ts'
import { RunningProcess, startCli } from '../support/run-cli.ts'
import { until } from '../support/stalled.ts'

const count = Number(process.env.CONNECTIONS_NODES ?? 8)
/** Each takes a second of a core to start. */
const atOnce = 4
const patienceMs = 60_000
const serverFile = new URL('../../src/server/server.ts', import.meta.url).href
const pool = loadConfig({ DATABASE_URL: 'postgres://a@b/c', JWT_SECRET: jwtSecret }).databasePool
/** The test's own, and those that Postgres keeps for superusers. */
const others = 20

interface Node {
  readonly process: RunningProcess
  readonly url: string
  lives: LiveSse[]
}

interface Counts {
  /** At the same time. */
  all: number
  clients: number
  senders: number
}

/** The most connections that all nodes had. */
class Watcher implements AsyncDisposable {
  readonly most: Counts = { all: 0, clients: 0, senders: 0 }
  looks = 0
  #isOver = false
  readonly #database: TestDatabase
  readonly #done: Promise<void>

  private constructor(database: TestDatabase) {
    this.#database = database
    this.#done = this.#watch()
  }

  static async start(database: TestDatabase): Promise<Watcher> {
    return new Watcher(await TestDatabase.connect(database))
  }

  async #watch(): Promise<void> {
    while (!this.#isOver) {
      const [row] = await this.#database.query<Counts>(
        `SELECT count(*)::int AS all, (count(*) FILTER (WHERE backend_type = 'client backend'))::int AS clients,
           (count(*) FILTER (WHERE backend_type = 'walsender'))::int AS senders
         FROM pg_stat_activity WHERE application_name LIKE 'tidegate%'`,
      )
      for (const kind of ['all', 'clients', 'senders'] as const) this.most[kind] = Math.max(this.most[kind], row![kind])
      this.looks += 1
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#isOver = true
    await this.#done
    await this.#database.client.end()
  }
}

// After a test that ran out of time, too.
const cleanup = new AsyncDisposableStack()
afterAll(() => cleanup.disposeAsync())

test('[P6] [P7] so many nodes hold at most that many times DATABASE_POOL connections and two, also when their leader is killed', {
  timeout: 180_000,
}, async () => {
  const cache = await mkdtemp(join(tmpdir(), 'tidegate-compiled-'))
  cleanup.defer(() => rm(cache, { recursive: true, force: true }))
  // Compiled once, by a process that ends: that is when Node keeps what it has compiled.
  const importing = ['--input-type=module', '-e', `await import('${serverFile}')`]
  await new RunningProcess(importing, { NODE_COMPILE_CACHE: cache }).end()
  const server = await LocalPostgres.create({
    settings: {
      fsync: 'off',
      max_wal_senders: '3',
      max_connections: String(count * pool + others),
      max_replication_slots: '4',
    },
  })
  cleanup.defer(() => server.stop())
  await server.start()
  const redis = cleanup.use(await findRedis())
  const database = await TestDatabase.create(server.url)
  cleanup.defer(() => database.client.end())
  await prepareDatabase(database, `${roomsSchema} ${askedSchema}`, ['rooms', 'members', 'messages', ...askedTables])
  const ada = person()
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO crew VALUES (1, '${ada}');
    INSERT INTO messages SELECT i, 1 + i % 3, 'w', 'x' FROM generate_series(1, 300) i;
    INSERT INTO papers SELECT i, 1 + i % 3, 'w', 'x' FROM generate_series(1, 300) i`)
  const token = await tokenFor(ada)
  const watcher = cleanup.use(await Watcher.start(database))

  const start = async (): Promise<Node> => {
    const process = startCli(['start'], {
      DATABASE_URL: database.url,
      REDIS_URL: redis.url,
      JWT_SECRET: jwtSecret,
      PORT: '0',
      BEACON_MS: '1000',
      LOG_LEVEL: 'error',
      NODE_COMPILE_CACHE: cache,
    })
    cleanup.use(process)
    await process.until(({ out }) => out.includes('is ready'))
    return { process, url: /listens on (\S+)/.exec(process.out)![1]!, lives: [] }
  }
  /** Compiled and asked ones, each with memberships and a snapshot of its own. Who was ended comes again: a busy node may not
   *  read a changed policy in time. */
  const follow = async (node: Node): Promise<void> => {
    for (const [i, path] of ['messages?id=gt.0', 'messages?id=gt.1', 'papers?id=gt.0', 'papers?id=gt.1'].entries()) {
      const live = node.lives[i]
      if (live?.stream.ended === false && !live.stream.events.some(({ event }) => event === 'error')) continue
      node.lives[i] = cleanup.use(await LiveSse.open(node, `/v1/live/${path}`, token))
    }
  }
  const allFollow = async (among: readonly Node[], is: (live: LiveSse) => boolean): Promise<void> => {
    const follows = async (): Promise<boolean> => {
      await Promise.all(among.map(follow))
      return among.every(({ lives }) => lives.every(is))
    }
    await until(follows, patienceMs)
    expect(
      among.flatMap(({ lives }) => lives.map(({ failure }) => failure)).filter(failure => failure !== null),
    ).toEqual([])
  }
  const nodes: Node[] = []
  while (nodes.length < count) nodes.push(...(await Promise.all(Array.from({ length: atOnce }, start))))
  await allFollow(nodes, ({ rows }) => rows.exact)
  expect(watcher.most.senders).toBe(1)

  /** Everybody is told what is granted and written, and reads anew what a changed policy shows. */
  const allHear = async (among: readonly Node[], id: number): Promise<void> => {
    await database.query(`INSERT INTO members VALUES (${id}, '${ada}'); INSERT INTO crew VALUES (${id}, '${ada}');
      INSERT INTO messages VALUES (${id}, ${id}, 'w', 'x'); INSERT INTO papers VALUES (${id}, ${id}, 'w', 'x')`)
    await allFollow(among, ({ rows }) => rows.rows.has(`[${id}]`))
  }
  await allHear(nodes, 1001)
  await database.query(`ALTER POLICY by_membership ON messages USING (room_id IN (
    SELECT m.room_id FROM members m WHERE m.user_id = (SELECT auth.uid())))`)
  await allHear(nodes, 1002)

  const leads = await Promise.all(
    nodes.map(async ({ url }) => (await (await fetch(`${url}/ready`)).json()) as { leader: boolean }),
  )
  const leader = nodes[leads.findIndex(each => each.leader)]!
  leader.process.child.kill('SIGKILL')
  const rest = nodes.filter(node => node !== leader)
  await allHear(rest, 1003)

  const { most, looks } = watcher
  console.log(`${count} nodes: at most ${most.all} connections, of them ${most.senders} walsenders, in ${looks} looks`)
  // They were all used at once: it would have shown.
  expect(most.clients).toBeGreaterThan(2 * count)
  expect(most.clients).toBeLessThanOrEqual(count * pool)
  expect(most.all).toBeLessThanOrEqual(count * pool + 2)
  for (const { process } of nodes) expect(process.err).not.toMatch(/too many|remaining connection slots/)
})
