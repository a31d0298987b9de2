// docs/operations/upgrading.md, followed: a running deployment goes to another Postgres of another major release, and then to
// another Redis, by the blocks of the page and nothing else.
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import { freePort, LocalPostgres } from '../../src/cli/local-postgres.ts'
import { Shell } from '../docs/shell.ts'
import { Balancer } from '../support/balancer.ts'
import { asSet, jwtSecret, person, roomsSchema, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { binariesOf, hasMajor } from '../support/postgres-major.ts'
import { transports } from '../support/readers.ts'
import { type RedisProcess, startRedis } from '../support/redis-process.ts'
import { compiled, type RunningProcess, startCli } from '../support/run-cli.ts'
import { until } from '../support/stalled.ts'
import { ComingBack } from './coming-back.ts'

const page = await readFile(new URL('../../docs/operations/upgrading.md', import.meta.url), 'utf8')
const bin = fileURLToPath(new URL('../../node_modules/.bin', import.meta.url))
const tables = ['rooms', 'members', 'messages']
const silent = { write: () => true }
const [ada, ben] = [person(), person()]

const stack = new AsyncDisposableStack()
let folder: string
let oldServer: LocalPostgres
let newServer: LocalPostgres
let before: TestDatabase
let redis: RedisProcess
let nodes: Deployment
let readers: ComingBack[]
let outsider: ComingBack
let settings: Record<string, string>

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'tidegate-move-'))
  stack.defer(() => rm(folder, { recursive: true, force: true }))
  // What the page calls npx tidegate is the package; here its sources.
  await writeFile(join(folder, 'npx'), `#!/bin/sh\nshift\nexec node ${bin}/../../src/cli/main.ts "$@"\n`, {
    mode: 0o755,
  })
  // Where there is none for this machine, both are of the newest.
  const binDir = await binariesOf(hasMajor(15) ? 15 : 18)
  const ofAll = { fsync: 'off', max_slot_wal_keep_size: '2GB' }
  ;[oldServer, newServer, redis] = await Promise.all([
    LocalPostgres.create({ settings: ofAll, ...(binDir === undefined ? {} : { binDir }) }),
    LocalPostgres.create({ settings: ofAll }),
    startRedis(),
  ])
  stack.use(redis)
  stack.use(newServer)
  stack.use(oldServer)
  await Promise.all([oldServer.start(), newServer.start()])
  before = await TestDatabase.create(oldServer.url)
  stack.defer(() => before.client.end())
  const given = { databaseUrl: before.urlFor('tidegate', 'login'), adminUrl: before.url, name: 'tidegate' }
  await before.query(`CREATE ROLE tidegate LOGIN REPLICATION PASSWORD 'login'`)
  await migrate({ ...given, conventions: true, print: false, dryRun: false }, silent)
  await before.query(roomsSchema)
  await track({ ...given, tables, print: false, dryRun: false }, silent)
  await before.query(`
    CREATE ROLE app LOGIN BYPASSRLS PASSWORD 'app';
    GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO app;
    GRANT USAGE ON SCHEMA public TO app;
    INSERT INTO members VALUES (1, '${ada}'), (2, '${ada}'), (3, '${ben}');
    INSERT INTO messages SELECT i, 1 + i % 3, 'w', 'before' FROM generate_series(1, 90) i`)

  nodes = stack.use(new Deployment({ DATABASE_URL: given.databaseUrl, REDIS_URL: redis.url }))
  await nodes.start()
  const [token, other] = [await tokenFor(ada), await tokenFor(ben)]
  readers = transports.map(transport => stack.use(new ComingBack(transport, nodes.balancer.url, 'messages', token)))
  outsider = stack.use(new ComingBack('websocket', nodes.balancer.url, 'messages', other))
  for (const each of [...readers, outsider]) await each.until(({ rows }) => rows.exact)
}, 120_000)

afterAll(() => stack.disposeAsync())

/** Two nodes as processes behind a balancer without stickiness. */
class Deployment implements AsyncDisposable {
  readonly env: Record<string, string>
  balancer!: Balancer
  #processes: RunningProcess[] = []
  #ports: readonly number[] = []

  constructor(env: Record<string, string>) {
    this.env = { JWT_SECRET: jwtSecret, BEACON_MS: '500', DRAIN_DELAY_MS: '0', DRAIN_SPREAD_MS: '200', ...env }
  }

  async start(): Promise<void> {
    if (this.#ports.length === 0) {
      this.#ports = [await freePort(), await freePort()]
      this.balancer = await Balancer.start({ readyPath: '/ready?scope=node', askEveryMs: 100 })
      for (const port of this.#ports) this.balancer.add(String(port), `http://127.0.0.1:${port}`)
    }
    this.#processes = this.#ports.map(port => startCli(['start'], { ...this.env, PORT: String(port) }))
    for (const each of this.#processes) await each.until(({ out }) => out.includes('tidegate is ready'))
  }

  /** @returns the exit codes */
  async stop(): Promise<(number | null)[]> {
    for (const { child } of this.#processes) child.kill('SIGTERM')
    return Promise.all(this.#processes.map(async each => (await each.end()).code))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const each of this.#processes) await each[Symbol.asyncDispose]()
    await this.balancer?.[Symbol.asyncDispose]()
  }
}

/** The block that follows those words on the page, run. */
async function follow(words: string): Promise<string> {
  const [, block] = /^```sh\n(.*?)^```$/ms.exec(page.slice(page.indexOf(words)))!
  const script = block!.replace(/^export .*postgres:\/\/.*$/gm, '').replace(/^export OLD_REDIS.*$/m, '')
  const env = { ...settings, ...compiled, PATH: `${folder}:${bin}:${process.env.PATH}`, NODE_NO_WARNINGS: '1' }
  const shell = new Shell(script, { cwd: folder, env })
  await shell.end()
  return shell.stdout + shell.stderr
}

/** Until the end. The databases go with their servers. */
async function connected(name: string, url: string): Promise<TestDatabase> {
  const database = await TestDatabase.connect({ name, url })
  stack.defer(() => database.client.end())
  return database
}

const theirs = (reader: ComingBack): string[] => asSet(reader.rows.list())

test('[P1] [P2] [P4] to another Postgres of another release: one resync with its cause, what the new one holds, the old slot gone', {
  timeout: 120_000,
}, async () => {
  const client = await TestDatabase.create(newServer.url)
  stack.defer(() => client.client.end())
  settings = {
    OLD_ADMIN_URL: before.url,
    NEW_ADMIN_URL: client.url,
    DATABASE_URL: client.urlFor('tidegate', 'login'),
    JWT_SECRET: jwtSecret,
    REDIS_URL: redis.url,
  }
  const writer = await TestDatabase.connect({ name: before.name, url: before.urlFor('app', 'app') })
  await writer.query(`INSERT INTO messages VALUES (91, 1, 'app', 'the last one there')`)
  for (const each of readers) await each.until(({ rows }) => rows.rows.has('[91]'))

  await follow('**1. Roles**')
  await follow('**2. Stop the writers.**')
  await expect(writer.query('SELECT 1')).rejects.toThrow()
  await writer.client.end().catch(() => {})
  await follow('**3. Copy.**')
  await follow('**4. Put right')
  expect([...readers, outsider].flatMap(({ resyncs }) => resyncs)).toEqual([])

  expect(await nodes.stop()).toEqual([0, 0])
  // While nobody looks on: what the new one holds is the truth.
  await client.query(`DELETE FROM members WHERE room_id = 2 AND user_id = '${ada}';
    INSERT INTO messages VALUES (92, 2, 'w', 'of a room that ada has left'), (93, 3, 'w', 'of a room that she never was in')`)
  nodes.env.DATABASE_URL = settings.DATABASE_URL!
  await nodes.start()
  const app = await connected(client.name, client.urlFor('app', 'app'))
  await app.query(`INSERT INTO messages VALUES (94, 1, 'app', 'the first one here'), (95, 2, 'app', 'hidden')`)

  const truth = asSet(await selectAs(client, ada, 'SELECT * FROM messages'))
  expect(truth).toHaveLength(32)
  for (const each of readers) {
    await each.until(({ rows }) => rows.exact && rows.rows.has('[94]'))
    expect([each.transport, each.resyncs, each.failure]).toEqual([each.transport, ['EPOCH_CHANGED'], null])
    expect(theirs(each)).toEqual(truth)
  }
  await outsider.until(({ rows }) => rows.exact && rows.rows.has('[93]'))
  expect(outsider.resyncs).toEqual(['EPOCH_CHANGED'])
  expect(theirs(outsider)).toEqual(asSet(await selectAs(client, ben, 'SELECT * FROM messages')))

  const slots = (database: TestDatabase): Promise<object[]> =>
    database.query('SELECT active FROM pg_replication_slots WHERE database = current_database()')
  expect(await slots(before)).toEqual([{ active: false }])
  await follow('### The old slot')
  expect(await slots(before)).toEqual([])
  expect(await slots(client)).toEqual([{ active: true }])
})

test('[P4] to another Redis that has copied the first: everybody goes on where they stood', {
  timeout: 120_000,
}, async () => {
  const other = stack.use(await startRedis())
  settings = { ...settings, OLD_REDIS_HOST: '127.0.0.1', OLD_REDIS_PORT: String(redis.port), NEW_REDIS_URL: other.url }
  const client = await connected('app', settings.NEW_ADMIN_URL!)
  await follow('## Another Redis')
  expect(await nodes.stop()).toEqual([0, 0])
  await follow('Stop all nodes, promote it')
  await redis.kill()
  await client.query(`INSERT INTO messages VALUES (96, 1, 'w', 'while no node ran')`)
  nodes.env.REDIS_URL = other.url
  await nodes.start()
  for (const each of readers) {
    await each.until(({ rows }) => rows.rows.has('[96]'))
    expect([each.transport, each.resyncs, each.failure]).toEqual([each.transport, ['EPOCH_CHANGED'], null])
  }
  await until(() => nodes.balancer.ready.length === 2)
  expect(theirs(readers[0]!)).toEqual(asSet(await selectAs(client, ada, 'SELECT * FROM messages')))
})
