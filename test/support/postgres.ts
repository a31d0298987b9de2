// A database of its own for each test file that asks, on the server that the global setup found.
import { randomBytes } from 'node:crypto'
import pg from 'pg'
import { inject } from 'vitest'

export class TestDatabase {
  readonly name: string
  /** Connection string of a superuser. */
  readonly url: string
  readonly client: pg.Client

  private constructor(name: string, url: string, client: pg.Client) {
    this.name = name
    this.url = url
    this.client = client
  }

  /** @param options what follows the name in CREATE DATABASE, such as a locale */
  static async create(serverUrl: string = inject('databaseUrl'), options = ''): Promise<TestDatabase> {
    const name = `tidegate_test_${randomBytes(5).toString('hex')}`
    await withClient(serverUrl, client => client.query(`CREATE DATABASE ${name} ${options}`))
    const url = databaseUrl(serverUrl, name)
    const client = new pg.Client({ connectionString: url })
    client.on('error', () => {})
    await client.connect()
    return new TestDatabase(name, url, client)
  }

  /** The same database over a new connection, after its server was restarted, or on another that was promoted. */
  static async connect(database: Pick<TestDatabase, 'name' | 'url'>): Promise<TestDatabase> {
    const client = new pg.Client({ connectionString: database.url })
    client.on('error', () => {})
    await client.connect()
    return new TestDatabase(database.name, database.url, client)
  }

  /** Runs one or several statements and gives the rows of the last. */
  async query<R extends pg.QueryResultRow = Record<string, unknown>>(sql: string, values?: unknown[]): Promise<R[]> {
    const result: pg.QueryResult<R> | pg.QueryResult<R>[] = await this.client.query<R>(sql, values)
    const last = Array.isArray(result) ? result.at(-1) : result
    return last?.rows ?? []
  }

  /** The same database as another role. */
  urlFor(role: string, password: string): string {
    const url = new URL(this.url)
    url.username = role
    url.password = password
    return url.href
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.client.end()
    const serverUrl = databaseUrl(this.url, 'postgres')
    await withClient(serverUrl, async client => {
      const slots = await client.query<{ slot_name: string; active_pid: number | null }>(
        'SELECT slot_name, active_pid FROM pg_replication_slots WHERE database = $1',
        [this.name],
      )
      for (const slot of slots.rows) {
        if (slot.active_pid !== null) await client.query('SELECT pg_terminate_backend($1, 5000)', [slot.active_pid])
        await client.query('SELECT pg_drop_replication_slot($1)', [slot.slot_name]).catch(() => {})
      }
      await client.query(`DROP DATABASE IF EXISTS ${this.name} WITH (FORCE)`)
    })
  }
}

async function withClient<T>(url: string, use: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  try {
    return await use(client)
  } finally {
    await client.end()
  }
}

function databaseUrl(serverUrl: string, name: string): string {
  const url = new URL(serverUrl)
  url.pathname = `/${name}`
  return url.href
}
