// Whether something stands between this machine and Postgres, and whether the WAL can be streamed past it.
//
// A pooler tells a client a process of its own making, to be cancelled by; Postgres tells the one that answers. So where the two differ,
// somebody is in between: PgBouncer, Supavisor, RDS Proxy. Whether it shares sessions shows in what a session begins with: it is refused,
// or not in force.
import pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { queryText } from '../postgres/database.ts'
import { connectionOf, reasonOf, settled } from '../postgres/postgres-url.ts'
import { assertSameDatabase, hasOwnSession } from '../wal/own-session.ts'
import { failure, ok, setting, warning } from './checks.ts'
import type { DatabaseCheck } from './database-checks.ts'
import type { Finding } from './finding.ts'

export interface SessionLook {
  /** What a pooler said to what a session is to begin with; null: nothing. */
  readonly refusal: string | null
  readonly isOwn: boolean
  /** The process that was told at the beginning is the one that answers. */
  readonly isDirect: boolean
  readonly login: string
  readonly database: string
  /** Where Postgres itself listens; null: on a socket of its machine. */
  readonly host: string | null
  readonly port: number
}

/** @param refusal why the connection could not begin with our settings */
export async function readSession(client: pg.ClientBase, refusal: string | null): Promise<SessionLook> {
  const isOwn = refusal === null && (await hasOwnSession(client))
  const [row] = await queryText(
    client,
    `SELECT pg_backend_pid()::text, current_user, current_database(), host(inet_server_addr()), current_setting('port')`,
  )
  const told = (client as unknown as { readonly processID: number | null }).processID
  return {
    refusal,
    isOwn,
    isDirect: String(told) === row![0],
    login: row![1]!,
    database: row![2]!,
    host: row![3] ?? null,
    port: Number(row![4]),
  }
}

/** @param isForSessions DATABASE_REPLICATION_URL is set, and this is of it */
export function poolerFinding(look: SessionLook, isForSessions: boolean): Finding {
  const option = isForSessions ? 'DATABASE_REPLICATION_URL' : 'DATABASE_URL'
  const { login, database, host, port } = look
  const address = `postgres://${encodeURIComponent(login)}:<password>@${host ?? '<host of Postgres>'}:${port}/${encodeURIComponent(database)}`
  const remedy = setting(`DATABASE_REPLICATION_URL=${address}`)
  if (look.refusal !== null || !look.isOwn) {
    const how = look.refusal ?? 'what a session begins with does not hold'
    return failure('pooler', `${option} leads to a pooler that shares sessions: ${how}`, remedy, {
      code: 'DATABASE_POOLED',
    })
  }
  if (!look.isDirect)
    return warning(
      'pooler',
      `something answers in the place of Postgres at ${option}, though each connection keeps its session: it adds time, and its limits`,
      remedy,
    )
  return ok('pooler', `Postgres itself answers at ${option}`)
}

/** Whether DATABASE_URL, through whatever pooler, leads to the same database as the sessions. */
export async function pooledFinding(open: () => pg.Pool, own: pg.ClientBase): Promise<Finding> {
  let pooled: pg.Pool | null = null
  try {
    pooled = open()
    await assertSameDatabase(pooled, own)
    return ok('pooler', 'DATABASE_URL, through a pooler or not, leads to the same database', { about: 'DATABASE_URL' })
  } catch (error) {
    const code = error instanceof TidegateError ? error.code : 'DATABASE_UNREACHABLE'
    return failure('pooler', reasonOf(error), null, { about: 'DATABASE_URL', code })
  } finally {
    await pooled?.end()
  }
}

/** Opens a session as the leader's, and asks for nothing but who answers. */
export async function replicationFinding(url: string, timeoutMs: number): Promise<Finding> {
  const check: DatabaseCheck = 'replication-connection'
  let client: pg.Client | null = null
  try {
    const { options: _, ...connection } = await settled(connectionOf(url))
    client = new pg.Client({
      ...connection,
      replication: 'database',
      application_name: 'tidegate doctor',
      connectionTimeoutMillis: timeoutMs,
      query_timeout: timeoutMs,
    } as pg.ClientConfig)
    client.on('error', () => {})
    await client.connect()
    const { rows } = await client.query<{ systemid: string }>('IDENTIFY_SYSTEM')
    return ok(check, `a replication connection is let in, to the system ${rows[0]!.systemid}`)
  } catch (error) {
    const { code } = error as { code?: unknown }
    const reason = `no replication connection: ${reasonOf(error)}`
    return failure(check, reason, null, code === '42501' ? { code: 'NOT_REPLICATION' } : {})
  } finally {
    await client?.end().catch(() => {})
  }
}
