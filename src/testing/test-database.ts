// The database of one startTidegate: a new one on a server of Postgres, or one that is there, and the login of the server.
import { randomBytes } from 'node:crypto'
import type pg from 'pg'
import { TidegateError } from '../protocol/tidegate-error.ts'
import { asAdministrator } from '../server/admin/administrator.ts'
import { remove } from '../server/admin/remove.ts'
import { createPool } from '../server/postgres/database.ts'

export interface TestDatabase extends AsyncDisposable {
  /** Also TIDEGATE_NAME and the server's login: no two have the same. */
  readonly name: string
  /** As the owner of the tables. */
  readonly ownerUrl: string
  /** As the server: a login with REPLICATION that owns nothing. */
  readonly loginUrl: string
  readonly pool: pg.Pool
}

/** `own`: a new database on that server, dropped afterwards. `given`: the database of the address, left as it was. */
export type DatabaseChoice = 'own' | 'given'

/** Nothing is said of what is done to a test's database. */
export const silent = { write: () => true }

/** @param serverUrl as a login that may create databases and roles
 *  @throws DATABASE_UNREACHABLE, PRIVILEGE_MISSING, VERSION_UNSUPPORTED, CONFIG_INVALID */
export async function openDatabase(serverUrl: string, choice: DatabaseChoice): Promise<TestDatabase> {
  const name = `tidegate_test_${randomBytes(5).toString('hex')}`
  const password = randomBytes(12).toString('hex')
  await asServer(serverUrl, name, async client => {
    const { rows } = await client.query<{ level: string }>(`SELECT current_setting('wal_level') AS level`)
    if (rows[0]!.level !== 'logical')
      throw new TidegateError(
        'WAL_LEVEL',
        `wal_level of the server for tests is ${rows[0]!.level}; start it with: postgres -c wal_level=logical`,
      )
    await client.query(`CREATE ROLE ${name} LOGIN REPLICATION PASSWORD '${password}'`)
    if (choice === 'own') await client.query(`CREATE DATABASE ${name}`)
  })
  const ownerUrl = choice === 'own' ? withParts(serverUrl, { pathname: `/${name}` }) : serverUrl
  const loginUrl = withParts(ownerUrl, { username: name, password })
  const pool = createPool(ownerUrl, { maxConnections: 4, applicationName: 'tidegate test' })
  return {
    name,
    ownerUrl,
    loginUrl,
    pool,
    [Symbol.asyncDispose]: async () => {
      await pool.end()
      if (choice === 'given')
        await remove({ databaseUrl: loginUrl, adminUrl: ownerUrl, name, lockTimeoutMs: 20_000 }, silent)
      await asServer(serverUrl, name, client => (choice === 'own' ? drop(client, name) : dropLogin(client, name)))
    },
  }
}

/** Without values by the simple protocol, which takes several statements. @returns the rows of the last */
export async function rowsOf<Row>(pool: pg.Pool, text: string, values: readonly unknown[] = []): Promise<Row[]> {
  const result = values.length === 0 ? await pool.query(text) : await pool.query(text, [...values])
  return ((Array.isArray(result) ? result.at(-1) : result)?.rows ?? []) as Row[]
}

const asServer = (url: string, name: string, use: (client: pg.Client) => Promise<void>): Promise<void> =>
  asAdministrator({ databaseUrl: url, adminUrl: null, name }, silent, ({ client }) => use(client))

/** The slots first: while there is one, Postgres refuses to drop its database. */
async function drop(client: pg.Client, name: string): Promise<void> {
  const { rows } = await client.query<{ slot: string; pid: number | null }>(
    'SELECT slot_name AS slot, active_pid AS pid FROM pg_replication_slots WHERE database = $1',
    [name],
  )
  for (const { slot, pid } of rows) {
    if (pid !== null) await client.query('SELECT pg_terminate_backend($1, 5000)', [pid])
    await client.query('SELECT pg_drop_replication_slot($1)', [slot])
  }
  await client.query(`DROP DATABASE ${name} WITH (FORCE)`)
  await client.query(`DROP ROLE ${name}`)
}

async function dropLogin(client: pg.Client, name: string): Promise<void> {
  await client.query(`DROP OWNED BY ${name}`)
  await client.query(`DROP ROLE ${name}`)
}

function withParts(text: string, parts: Partial<Pick<URL, 'pathname' | 'username' | 'password'>>): string {
  return Object.assign(new URL(text), parts).href
}
