// Connections to the database, every one with the same session settings, so that a value's text form means the same in a
// query's row, in the WAL and on the wire.
import pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { connectionOf, PreferringClient } from './postgres-url.ts'

/** Settings that change how values are printed, pinned on every session we open, replication included. */
export const pinnedSettings: Readonly<Record<string, string>> = {
  DateStyle: 'ISO, YMD',
  TimeZone: 'UTC',
  IntervalStyle: 'postgres',
  extra_float_digits: '1',
  bytea_output: 'hex',
  client_encoding: 'UTF8',
}

/** A setting of ours that tells whether those of the session are in force: `own`. */
export const ownSession = 'tidegate.session'

/** The same as startup options: `-c DateStyle=ISO,\ YMD ...`. */
export const pinnedOptions: string = Object.entries({ ...pinnedSettings, [ownSession]: 'own' })
  .filter(([name]) => name !== 'client_encoding')
  .map(([name, value]) => `-c ${name}=${value.replaceAll(' ', '\\ ')}`)
  .join(' ')

/** What a pool is needed for: `pg.Pool`, or a lane of the node's connections. */
export interface Lane {
  readonly query: pg.Pool['query']
  connect(): Promise<pg.PoolClient>
  /** Its sessions may be anybody's, as behind a pooler: nothing is pinned but by `beginSql`. */
  readonly isPooled?: boolean
}

/** Begins a transaction in which values are printed as pinned, whoever had the session before. To be sent as one message, without
 *  values; to what is in it more may be added.
 *  @param modes such as `ISOLATION LEVEL REPEATABLE READ READ ONLY` */
export function beginSql(lane: Pick<Lane, 'isPooled'>, modes = ''): string {
  const begin = modes === '' ? 'BEGIN' : `BEGIN ${modes}`
  return lane.isPooled === true ? `${forget}; ${begin}; ${pinnedLocally}` : begin
}

/** What another client left in the session: a pooler in transaction mode leaves it there. The timeout first, which may be too short for the rest. */
const forget = 'SET statement_timeout = 0; SET SESSION AUTHORIZATION DEFAULT; RESET ALL'

/** Sends what `beginSql` begins. Its first statement runs within whatever timeout another client left in the session, and is sent again when
 *  that was too short for it.
 *  @returns of each statement */
export async function begin<R extends pg.QueryResultRow>(
  client: Pick<pg.PoolClient, 'query'> & { getTransactionStatus(): string | null },
  lane: Pick<Lane, 'isPooled'>,
  query: pg.QueryConfig,
): Promise<readonly pg.QueryResult<R>[]> {
  for (let left = maxCut; ; left--) {
    try {
      return (await client.query(query)) as unknown as pg.QueryResult<R>[]
    } catch (error) {
      // Within a transaction it was a timeout of ours.
      if (lane.isPooled !== true || left === 0 || client.getTransactionStatus() !== 'I' || !isCancelled(error))
        throw error
    }
  }
}

const maxCut = 5
const isCancelled = (error: unknown): boolean => error instanceof pg.DatabaseError && error.code === '57014'

/** Longer than any limit of the client's own has to be: one that is closer is set after it. */
const pooledTimeoutMs = 9_500

const pinnedLocally = Object.entries({ ...pinnedSettings, statement_timeout: String(pooledTimeoutMs) })
  .map(([name, value]) => `SET LOCAL ${name} = '${value}'`)
  .join('; ')

/** A row as Postgres printed it: no value is parsed. */
export type TextRow = (string | null)[]

const rawTypes = { getTypeParser: () => (value: string) => value } as unknown as pg.CustomTypesConfig

export interface PoolOptions {
  readonly maxConnections: number
  readonly applicationName?: string
  /** A query that takes longer fails, and its connection is replaced. Without it a dead network keeps one for ever. */
  readonly queryTimeoutMs?: number
  /** The same, by the server. */
  readonly statementTimeoutMs?: number
  readonly Client?: new () => pg.ClientBase
  /** Through a pooler, which refuses what a session is to begin with: nothing is pinned but by `beginSql`. */
  readonly isPooled?: boolean
  /** The option that the address is of, for refusals; left out: DATABASE_URL. */
  readonly name?: string
}

export function createPool(databaseUrl: string, options: PoolOptions): pg.Pool {
  const isPooled = options.isPooled === true
  const { options: settings, ...connection } = connectionOf(databaseUrl, isPooled ? '' : pinnedOptions, options.name)
  const config = {
    ...connection,
    ...(settings === '' ? {} : { options: settings }),
    max: options.maxConnections,
    application_name: options.applicationName ?? 'tidegate',
    connectionTimeoutMillis: 10_000,
    ...(options.queryTimeoutMs === undefined ? {} : { query_timeout: options.queryTimeoutMs }),
    ...(options.statementTimeoutMs === undefined || isPooled ? {} : { statement_timeout: options.statementTimeoutMs }),
    Client: options.Client ?? PreferringClient,
  }
  const pool = new pg.Pool(config as pg.PoolConfig)
  // A connection that breaks is replaced by the next checkout, and whoever holds it hears of it from the next query. Without
  // a listener it would end the process: the pool's own is there only while the connection is idle in it, not while somebody
  // who holds it is between two queries.
  pool.on('error', () => {})
  pool.on('connect', client => client.on('error', () => {}))
  return pool
}

/** Runs a query whose values arrive as text, by position. */
export async function queryText(
  client: pg.ClientBase | Pick<Lane, 'query'>,
  sql: string,
  values: readonly unknown[] = [],
): Promise<TextRow[]> {
  const result = await client.query<TextRow>({ text: sql, values: [...values], rowMode: 'array', types: rawTypes })
  return result.rows
}

/** 08: connection, 53: resources used up, 57: shutdown, start-up, cancelled. Source: PostgreSQL manual, Appendix A. */
const awayStates = /^(08|53|57)[0-9A-Z]{3}$/
const awayNetwork = /^(ECONN|ENOTFOUND|EAI_|ETIMEDOUT|EPIPE|EHOSTUNREACH|ENETUNREACH)/
/** pg and its pool give these no code. */
const awayMessages =
  /^(Connection terminated|timeout e|Query read timeout|Client (has encountered|was closed)|connection timeout)/

/** Whether a query was given up that Postgres may still be at. */
export const isQueryTimeout = (error: unknown): boolean =>
  error instanceof Error && error.message === 'Query read timeout'

/** Whether an error says that the database is away, which is no fault of whoever asked it. */
export function isAway(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  const code = 'code' in error && typeof error.code === 'string' ? error.code : ''
  return code === '' ? awayMessages.test(error.message) : awayStates.test(code) || awayNetwork.test(code)
}

/** Waits for an answer of the database. @throws UNAVAILABLE when it is away, which is no fault of the question: an error
 *  of every client that asks meanwhile would fill the log */
export async function answered<T>(answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (error) {
    if (error instanceof TidegateError || !isAway(error)) throw error
    throw new TidegateError('UNAVAILABLE', 'the database cannot be reached', { cause: error })
  }
}
