// Whether a connection has a session of Postgres to itself. A pooler in transaction mode lends another process for each transaction: what
// was set is gone, or another's; a lock is held by nobody in particular; and it streams no WAL.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type Lane, ownSession, queryText } from '../postgres/database.ts'

const remedy =
  'let DATABASE_REPLICATION_URL lead to Postgres itself (mostly port 5432), and DATABASE_URL to the pooler as before'

/** PgBouncer refuses what a session is to begin with: 08P01 with this text. */
const isRefusal = (error: unknown): boolean =>
  error instanceof Error && /unsupported (startup|pkt|parameter)/.test(error.message)

/** A pooler's refusal told as such; any other error as it is. */
export function poolerRefusal(error: unknown): unknown {
  if (!isRefusal(error)) return error
  return new TidegateError('DATABASE_POOLED', `a pooler answers: ${(error as Error).message}; ${remedy}`, {
    cause: error,
  })
}

/** Whether the settings that every connection of ours begins with are in force. One round trip.
 *  @param client opened by `createPool`, or with `pinnedOptions` */
export async function hasOwnSession(client: Pick<Lane, 'query'>): Promise<boolean> {
  const [row] = await queryText(client, `SELECT current_setting('${ownSession}', true)`)
  return row![0] === 'own'
}

/** @throws DATABASE_POOLED */
export async function assertOwnSession(client: Pick<Lane, 'query'>): Promise<void> {
  if (await hasOwnSession(client)) return
  throw new TidegateError(
    'DATABASE_POOLED',
    `what a session begins with does not hold, as behind a pooler that leaves it out (ignore_startup_parameters); ${remedy}`,
  )
}

/** Refuses two addresses that lead to two databases, or two logins: what one reads would be joined to what the other streams.
 *  @param pooled DATABASE_URL @param own DATABASE_REPLICATION_URL
 *  @throws CONFIG_INVALID, what connecting throws */
export async function assertSameDatabase(pooled: Pick<Lane, 'query'>, own: Pick<Lane, 'query'>): Promise<void> {
  const [[through], [direct]] = await Promise.all([queryText(pooled, identitySql), queryText(own, identitySql)])
  const difference = names.find((_, i) => through![i] !== direct![i])
  if (difference === undefined) return
  const at = names.indexOf(difference)
  throw new TidegateError(
    'CONFIG_INVALID',
    `DATABASE_URL and DATABASE_REPLICATION_URL lead to two places: ${difference} is ${through![at]} there and ${direct![at]} here; let both lead to the same database, as the same login`,
  )
}

const names = ['the login', 'the database', "the database's number", "the server's start", 'being in recovery']

const identitySql = `SELECT current_user, current_database(),
  (SELECT oid::text FROM pg_catalog.pg_database WHERE datname = current_database()),
  (extract(epoch FROM pg_catalog.pg_postmaster_start_time()) * 1000000)::bigint::text, pg_catalog.pg_is_in_recovery()::text`
