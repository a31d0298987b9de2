// The connection that changes the database, and what its failures mean to the operator.
import pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { pinnedOptions } from '../postgres/database.ts'
import { connectionOf, PreferringClient, reasonOf } from '../postgres/postgres-url.ts'
import { poolerRefusal } from '../wal/own-session.ts'

export interface AdminOptions {
  /** As the login that `start` will use, to which grants go; without a pooler: DATABASE_REPLICATION_URL, or DATABASE_URL. */
  readonly databaseUrl: string
  /** Who changes the database; null: the login of databaseUrl. */
  readonly adminUrl: string | null
  /** TIDEGATE_NAME: the publication's name, and how the slot's begins. */
  readonly name: string
  /** How long a statement may wait for a lock, while others queue behind it. Default 5,000. */
  readonly lockTimeoutMs?: number
}

export const defaultLockTimeoutMs = 5000

/** Where a command's lines go: process.stdout, or a test. */
export interface Output {
  write(text: string): unknown
}

export interface Administrator {
  readonly client: pg.Client
  /** Who is connected. */
  readonly user: string
  /** The login of databaseUrl. */
  readonly login: string
  readonly lockTimeoutMs: number
}

/** Connects, and takes the messages that Postgres raises (NOTICE, WARNING) to `out`.
 *  @throws DATABASE_UNREACHABLE, DATABASE_POOLED, VERSION_UNSUPPORTED, CONFIG_INVALID, and of `use`: PRIVILEGE_MISSING, LOCK_TIMEOUT */
export async function asAdministrator<T>(
  options: AdminOptions,
  out: Output,
  use: (administrator: Administrator) => Promise<T>,
): Promise<T> {
  const url = options.adminUrl ?? options.databaseUrl
  const lockTimeoutMs = options.lockTimeoutMs ?? defaultLockTimeoutMs
  const login = loginOf(options.databaseUrl)
  const settings = `${pinnedOptions} -c search_path=pg_catalog -c lock_timeout=${lockTimeoutMs}`
  const client = new PreferringClient({
    ...connectionOf(url, settings, options.adminUrl === null ? undefined : 'ADMIN_DATABASE_URL'),
    application_name: 'tidegate admin',
    connectionTimeoutMillis: 10_000,
  })
  // A connection that breaks between two queries fails the next one; without a listener it would end the process.
  client.on('error', () => {})
  client.on('notice', notice => out.write(`${notice.severity?.toLowerCase() ?? 'notice'}: ${notice.message}\n`))
  await client.connect().catch(cause => {
    const told = poolerRefusal(cause)
    if (told instanceof TidegateError) throw told
    const { host, pathname } = new URL(url)
    throw new TidegateError('DATABASE_UNREACHABLE', `${host}${pathname} as ${loginOf(url)}: ${reasonOf(cause)}`, {
      cause,
    })
  })
  try {
    const { rows } = await client.query<{ user: string; version: number }>(
      `SELECT current_user AS "user", current_setting('server_version_num')::int AS version`,
    )
    const { user, version } = rows[0]!
    if (version < 140_000)
      throw new TidegateError('VERSION_UNSUPPORTED', `the server is Postgres ${Math.trunc(version / 10_000)}`)
    return await use({ client, user, login, lockTimeoutMs })
  } catch (error) {
    throw explain(error, loginOf(url), lockTimeoutMs)
  } finally {
    await client.end()
  }
}

/** The user of a connection string. @throws CONFIG_INVALID when it names none */
export function loginOf(databaseUrl: string): string {
  const user = URL.canParse(databaseUrl) ? decodeURIComponent(new URL(databaseUrl).username) : ''
  if (user === '')
    throw new TidegateError(
      'CONFIG_INVALID',
      'DATABASE_URL names no user; write postgres://<login>:<password>@<host>:5432/<database>',
    )
  return user
}

/** Postgres's refusals that an operator can lift, told as such; any other error as it is. */
export function explain(error: unknown, user: string, lockTimeoutMs: number): unknown {
  if (!(error instanceof pg.DatabaseError)) return error
  if (error.code === '42501')
    return new TidegateError(
      'PRIVILEGE_MISSING',
      `${user} may not do this: ${error.message}. Set ADMIN_DATABASE_URL to a login that may (the owner of the tables, a superuser), or hand the script of --print to someone who may`,
      { cause: error },
    )
  if (error.code === '55P03')
    return new TidegateError(
      'LOCK_TIMEOUT',
      `no lock within ${lockTimeoutMs} ms (${error.where ?? error.message}); nothing was changed`,
      { cause: error },
    )
  // Raised by our own scripts, with the remedy in the hint.
  if (error.code === 'TG001')
    return new TidegateError('CONFIG_INVALID', `${error.message}${error.hint ? `; ${error.hint}` : ''}`, {
      cause: error,
    })
  return error
}
