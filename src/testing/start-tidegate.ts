// A whole Tidegate for a test: Postgres, Redis where it is wanted, and a server in this process, gone when the test is.
//
//   await using tide = await startTidegate({ setup: new URL('../schema.sql', import.meta.url) })
//   const ada = tide.client<Database>({ sub: adasId })
//   ada.from('tasks').live().subscribe(({ rows }) => { seen = rows })
//   await tide.sql`INSERT INTO tasks (team_id, title) VALUES (${7}, ${'Water the plants'})`
//   await tide.waitForIdle()
import { randomBytes } from 'node:crypto'
import { migrate } from '../cli/commands/migrate.ts'
import { signToken } from '../cli/commands/token.ts'
import { type AnyDatabase, type Client, type ClientOptions, createClient } from '../client/client.ts'
import type { TidegateError } from '../protocol/tidegate-error.ts'
import { track } from '../server/admin/track.ts'
import { type Config, loadConfig } from '../server/config/config.ts'
import { createLog } from '../server/log/log.ts'
import { startServer, type TidegateServer } from '../server/server.ts'
import { type ConfigByName, environmentOf } from './environment.ts'
import { forgetKeys } from './redis-keys.ts'
import { findService } from './services.ts'
import { publicTables, runSetup, type Setup } from './setup.ts'
import { type DatabaseChoice, openDatabase, rowsOf, silent, type TestDatabase } from './test-database.ts'

export type { ConfigByName } from './environment.ts'
export type { Setup, SetupDatabase } from './setup.ts'

export interface TidegateOptions {
  /** A Postgres with `wal_level = logical`, as a login that may create databases and roles: a superuser. Left out:
   *  TEST_DATABASE_URL, else a container. */
  readonly databaseUrl?: string
  /** `own`, the default: a new database there, dropped afterwards. `given`: the one that the address names; afterwards everything of
   *  Tidegate is removed from it, and nothing else. */
  readonly database?: DatabaseChoice
  /** A Redis. Left out: TEST_REDIS_URL, else a container; only where `redis` is true. */
  readonly redisUrl?: string
  /** Whether the server has a Redis, as one of many nodes does. Default: whether `redisUrl` is given. */
  readonly redis?: boolean
  /** Makes tables and policies, after `tidegate migrate`, before tables are tracked. */
  readonly setup?: Setup
  /** To track: `tasks` or `sales.orders`. Default: every table of the schema `public`. */
  readonly tables?: readonly string[]
  /** Options of the server by name, as docs/configuration.md has them: `{ HEARTBEAT_MS: 1000, JWT_ROLES: ['member'] }`. */
  readonly config?: ConfigByName
  /** Of containers. Left out: TEST_POSTGRES_IMAGE and TEST_REDIS_IMAGE, else `postgres:17` and `redis:7`. */
  readonly images?: { readonly postgres?: string; readonly redis?: string }
  /** Leaves containers running for the next run, and takes those that the last one left. Default: false, the last Tidegate of a process
   *  stops them. */
  readonly reuse?: boolean
}

export interface TestUser {
  /** What `auth.uid()` returns. */
  readonly sub?: string
  /** Default: `authenticated`. */
  readonly role?: string
  readonly claims?: Readonly<Record<string, unknown>>
  /** Default: an hour. */
  readonly expiresInSeconds?: number
}

export interface TestTidegate extends AsyncDisposable {
  /** Where clients connect. */
  readonly url: string
  /** As the owner of the tables; row-level security does not hold for it. */
  readonly databaseUrl: string
  /** Runs a statement as the owner, its values as parameters. @returns its rows */
  sql<Row = Record<string, unknown>>(strings: TemplateStringsArray, ...values: readonly unknown[]): Promise<Row[]>
  /** Runs one statement, or several without values, as the owner. @returns the rows of the last */
  query<Row = Record<string, unknown>>(text: string, values?: readonly unknown[]): Promise<Row[]>
  /** @param user a `sub`, or more of its token */
  token(user: string | TestUser): Promise<string>
  /** A `tidegate/client` for this user, closed at the end. */
  client<Database = AnyDatabase>(user: string | TestUser, options?: Omit<ClientOptions, 'token'>): Client<Database>
  /** Resolves once everything that has committed before the call has reached the queries of every client made here.
   *  @throws WAIT_TIMEOUT when that takes longer than `timeoutMs`, 10,000 if left out */
  waitForIdle(options?: { readonly timeoutMs?: number }): Promise<void>
  /** Stops the server as an upgrade does, and starts it again at the same address. Clients come back by themselves. */
  restart(): Promise<void>
}

/** Starts a server in this process, with a database of its own, and what it needs. `await using` ends it, and drops the database.
 *  @throws SERVICES_MISSING where there is no Postgres, or no Redis, and Docker cannot start one; what the server says of its options
 *  and its database; what the setup throws */
export async function startTidegate(options: TidegateOptions = {}): Promise<TestTidegate> {
  await using parts = new AsyncDisposableStack()
  const { images = {}, reuse: isReused = false, redis = options.redisUrl !== undefined } = options
  const environment = environmentOf(options.config ?? {})
  const postgres = parts.use(
    await findService('postgres', { url: options.databaseUrl, image: images.postgres, isReused }),
  )
  const redisUrl = redis
    ? parts.use(await findService('redis', { url: options.redisUrl, image: images.redis, isReused })).url
    : null
  const database = parts.use(await openDatabase(postgres.url, options.database ?? 'own'))
  const { name } = database
  if (redisUrl !== null) parts.defer(() => forgetKeys(redisUrl, name))
  const config = loadConfig({
    ...(environment.JWT_JWKS_URL === undefined ? { JWT_SECRET: randomBytes(32).toString('hex') } : {}),
    ...environment,
    DATABASE_URL: database.loginUrl,
    TIDEGATE_NAME: name,
    HOST: '127.0.0.1',
    PORT: '0',
    ...(redisUrl === null ? {} : { REDIS_URL: redisUrl }),
  })
  await prepare(database, config, options)
  const tidegate = parts.use(new RunningTidegate(database, config))
  await tidegate.start()
  const kept = parts.move()
  return {
    url: tidegate.url,
    databaseUrl: database.ownerUrl,
    query: (text, values) => tidegate.query(text, values),
    sql: (strings, ...values) => tidegate.query(textOf(strings), values),
    token: user => tidegate.token(user),
    client: (user, more) => tidegate.client(user, more),
    waitForIdle: more => tidegate.waitForIdle(more?.timeoutMs ?? 10_000),
    restart: () => tidegate.restart(),
    [Symbol.asyncDispose]: () => kept.disposeAsync(),
  }
}

/** As `tidegate migrate`, the application's own migrations, and `tidegate track`. */
async function prepare(database: TestDatabase, config: Config, { setup, tables }: TidegateOptions): Promise<void> {
  const { pool, ownerUrl, loginUrl, name } = database
  const admin = { databaseUrl: loginUrl, adminUrl: ownerUrl, name }
  await migrate({ ...admin, memberRoles: config.jwtRoles }, silent)
  if (setup !== undefined) await runSetup(setup, pool, ownerUrl)
  const names = tables ?? (await publicTables(pool))
  if (names.length > 0) await track({ ...admin, tables: names }, silent)
}

class RunningTidegate implements AsyncDisposable {
  url = ''
  readonly #database: TestDatabase
  readonly #config: Config
  readonly #clients = new Set<Client<never>>()
  #server: TidegateServer | null = null

  constructor(database: TestDatabase, config: Config) {
    this.#database = database
    this.#config = config
  }

  async start(): Promise<void> {
    const port = this.url === '' ? 0 : Number(new URL(this.url).port)
    const log = createLog(this.#config.logLevel)
    this.#server = await startServer({ ...this.#config, port }, { log })
    this.url = `http://127.0.0.1:${this.#server.port}`
    await this.#server.ready()
  }

  async restart(): Promise<void> {
    await this.#server?.stop()
    await this.start()
  }

  query<Row>(text: string, values?: readonly unknown[]): Promise<Row[]> {
    return rowsOf<Row>(this.#database.pool, text, values)
  }

  token(user: string | TestUser): Promise<string> {
    const { sub, role = 'authenticated', claims = {}, expiresInSeconds = 3600 } = asUser(user)
    return signToken(this.#config, { role, sub, claims, lifetimeSeconds: expiresInSeconds }, Date.now())
  }

  client<Database>(user: string | TestUser, options: Omit<ClientOptions, 'token'> = {}): Client<Database> {
    const client = createClient<Database>(this.url, { ...options, token: () => this.token(user) })
    this.#clients.add(client as unknown as Client<never>)
    return client
  }

  async waitForIdle(timeoutMs: number): Promise<void> {
    // Commits after everything that has committed before.
    const [last] = await this.query<{ txid: string }>('SELECT pg_current_xact_id()::text AS txid')
    await Promise.all(Array.from(this.#clients, client => hasReached(client, last!.txid, timeoutMs)))
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const client of this.#clients) client.close()
    await this.#server?.stop()
  }
}

/** Nothing reaches a client that has asked for nothing, or that has ended. */
async function hasReached(client: Client<never>, txid: string, timeoutMs: number): Promise<void> {
  if (client.status.name === 'idle' || client.status.name === 'closed' || client.status.name === 'refused') return
  try {
    await client.waitFor(txid, { timeoutMs })
  } catch (error) {
    if ((error as TidegateError).code !== 'CLIENT_CLOSED') throw error
  }
}

const asUser = (user: string | TestUser): TestUser => (typeof user === 'string' ? { sub: user } : user)

/** `INSERT INTO t VALUES ($1, $2)` */
const textOf = (strings: TemplateStringsArray): string =>
  strings.reduce((text, part, index) => `${text}$${index}${part}`)
