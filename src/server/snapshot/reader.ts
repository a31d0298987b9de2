// Fenced SELECTs: rows, the snapshot that they were read under, and the WAL position that the stream must pass before they
// can be spliced into it (DESIGN section 5).
import { setTimeout as sleep } from 'node:timers/promises'
import type pg from 'pg'
import { escapeIdentifier, escapeLiteral } from 'pg'
import { baseOf, castNameOf } from '../../predicate/sql-types.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { readFunctionName } from '../catalog/read-function.ts'
import type { Table } from '../catalog/table.ts'
import { begin, beginSql, type Lane, queryText, type TextRow } from '../postgres/database.ts'
import { isLocked, Locked, lockTimeoutMs, standAside } from '../postgres/locked.ts'
import type { Head } from '../relay/head.ts'
import type { Beacon } from '../wal/heartbeat.ts'
import { parseLsn } from '../wal/lsn.ts'
import { parseSnapshot, type Snapshot } from '../wal/visibility.ts'

/** Rows as of `snapshot`. Everything the snapshot sees commits before `fence`, and so does a TRUNCATE that emptied the table
 *  while the rows were read. */
export interface FencedRows {
  readonly rows: readonly TextRow[]
  readonly snapshot: Snapshot
  readonly fence: bigint
  /** `now()` of the transaction that read them, in microseconds since 1970. */
  readonly nowMicros: bigint
}

/** Under whose rights a query runs: set for its transaction only, never on the session. */
export interface Reader {
  readonly role: string
  readonly settings: readonly (readonly [name: string, value: string])[]
  /** Equal for all that is read for one user; null or left out: of nobody in particular. */
  readonly user?: string | null
}

/** Whoever has this role and subject; null without a subject. */
export const userOf = ({ role, claims }: { role: string; claims: Readonly<Record<string, unknown>> }): string | null =>
  typeof claims.sub === 'string' ? JSON.stringify([role, claims.sub]) : null

/** What a read is given besides what all are. */
export interface Lent {
  readonly lane: Lane
  /** After how long Postgres ends its statement. */
  readonly timeoutMs: number
}

/** Rows whose `columns` equal one of `keys`: text values, one list per key. */
export interface RowMatch {
  readonly columns: readonly number[]
  readonly keys: readonly (readonly (string | null)[])[]
}

/** Rows whose column lies between two values, both included. */
export interface RangeMatch {
  readonly column: number
  readonly low: string
  /** Null: without end. */
  readonly high: string | null
  /** In the column's order instead of the primary key's. */
  readonly isFirst: boolean
}

export interface SnapshotReaderOptions {
  /** Connections for what runs as a reader, and may take long. It says how many run at a time, and how many may wait. */
  readonly snapshots: Lane
  /** And for what runs as the login. */
  readonly reads: Lane
  readonly head: Head
  readonly beacon: Pick<Beacon, 'emit'>
  /** How long a statement, and a wait for the stream, may take. */
  readonly timeoutMs: number
  /** Whether the stream is known to stand still. */
  readonly isStale?: () => boolean
}

type Read = (client: pg.PoolClient) => Promise<readonly TextRow[]>

const modes = 'ISOLATION LEVEL REPEATABLE READ READ ONLY'

/** How long somebody waits who comes while the stream stands still, and after how long it is worth another attempt. */
const standstillMs = 3000
const standstillLookMs = 500
const standstillRetryMs = 2000
const looked = Symbol('looked')
const unheld = { ref: false } as const

/** Reads that wait until others get through a lock. */
const maxWaiting = 10_000

export class SnapshotReader {
  readonly #options: SnapshotReaderOptions
  readonly #locked: Locked

  constructor(options: SnapshotReaderOptions) {
    this.#options = options
    this.#locked = new Locked({ patienceMs: options.timeoutMs, queueLimit: maxWaiting })
  }

  /** Runs a query under the reader's role and claims, so that Postgres itself filters it.
   *  @param tableOid what it reads: who reads the same as the same role will meet the same locks
   *  @throws BUSY, UNAVAILABLE, CLAIM_INVALID */
  asReader(reader: Reader, sql: string, values: readonly unknown[], tableOid = 0, lent?: Lent): Promise<FencedRows> {
    const key = `${tableOid} ${reader.role}`
    const { lane, timeoutMs } = lent ?? { lane: this.#options.snapshots, timeoutMs: this.#options.timeoutMs }
    // Beside the role, which may have none of its own.
    const setup = `SET LOCAL statement_timeout = ${timeoutMs}; ${asReaderSql(reader)}`
    return this.#fenced(key, lane, setup, client => queryText(client, sql, values))
  }

  /** Rows of a table, whole, read as Tidegate's own login: all, or those that match. Never by a query that joins
   *  memberships: SQL may not see yet what the stream has already told.
   *  @param limit one more than the caller can take
   *  @throws INDEX_NOT_READABLE, BUSY, UNAVAILABLE */
  asLogin(table: Table, match: RowMatch | null, limit: number): Promise<FencedRows> {
    return this.#asLogin(table, match, limit)
  }

  /** The same for rows in a range. */
  inRange(table: Table, range: RangeMatch, limit: number): Promise<FencedRows> {
    return this.#asLogin(table, range, limit)
  }

  /** Resolves at once while the stream moves, else when it does again: nobody reads what cannot be joined to it.
   *  @throws UNAVAILABLE when it stands still for longer */
  async moving(): Promise<void> {
    const { isStale } = this.#options
    const deadlineMs = performance.now() + standstillMs
    while (isStale?.() === true) {
      if (performance.now() > deadlineMs) throw standsStill()
      await sleep(standstillLookMs)
    }
  }

  /** Resolves when the stream has passed `fence`; the caller looks at `head.ready(fence)` again before it acts.
   *  @param isNew for somebody who has nothing yet, and is sent away soon from a stream that stands still
   *  @throws UNAVAILABLE when it does not within the time */
  async passed(fence: bigint, isNew = false): Promise<void> {
    const { head, beacon, timeoutMs, isStale } = this.#options
    if (head.ready(fence)) return
    // An idle stream passes nothing, and commits made without waiting for the disk may not be written yet.
    const emission = beacon.emit('fence')
    emission.catch(() => {})
    const deadline = AbortSignal.timeout(timeoutMs)
    const late = new Promise<void>(resolve => deadline.addEventListener('abort', () => resolve(), { once: true }))
    let look = isNew ? sleep(standstillMs, looked, unheld) : null
    while (!head.ready(fence)) {
      if (deadline.aborted) throw new TidegateError('UNAVAILABLE', 'the stream does not move')
      const woken = await Promise.race(look === null ? [head.change(), late] : [head.change(), late, look])
      if (woken !== looked || head.ready(fence)) continue
      if (isStale?.() === true) throw standsStill()
      look = sleep(standstillLookMs, looked, unheld)
    }
  }

  #asLogin(table: Table, match: RowMatch | RangeMatch | null, limit: number): Promise<FencedRows> {
    return this.#fenced(`${table.oid}`, this.#options.reads, asLoginSql, client =>
      readAsLogin(client, table, match, limit),
    )
  }

  async #fenced(key: string, lane: Lane, setup: string, read: Read): Promise<FencedRows> {
    const attempt = async (isKnown: () => boolean): Promise<FencedRows> => {
      const client = await connect(lane)
      if (!isKnown()) return this.#read(client, lane, setup, read)
      client.release()
      throw standAside
    }
    try {
      return await this.#locked.run(key, attempt)
    } catch (error) {
      throw peerErrorOf(error)
    }
  }

  /** Gives the connection back.
   *  @param setup what the transaction takes upon itself before it reads */
  async #read(client: pg.PoolClient, lane: Lane, setup: string, read: Read): Promise<FencedRows> {
    let failed = true
    try {
      const beginning = `${beginSql(lane, modes)}; SET LOCAL application_name = 'tidegate snapshot';
        SET LOCAL statement_timeout = ${this.#options.timeoutMs}; SET LOCAL lock_timeout = ${lockTimeoutMs};
        SELECT pg_current_snapshot()::text AS snapshot, (extract(epoch FROM now()) * 1000000)::bigint::text AS micros`
      const begun = await begin<Record<'snapshot' | 'micros', string>>(client, lane, atOnce(beginning))
      const { snapshot, micros } = begun.at(-1)!.rows[0]!
      await client.query(atOnce(setup))
      const rows = await read(client)
      // After the rows, never before: who waits for a TRUNCATE's lock finds the table empty whatever its snapshot sees
      // ("not MVCC-safe"), and the stream must then have told of the TRUNCATE too. After COMMIT, as the login again, and
      // without what a policy's function may have set for the session.
      const end = 'COMMIT; RESET ROLE; RESET ALL; SELECT pg_current_wal_insert_lsn()::text AS fence'
      const ended = (await client.query(end)) as unknown as pg.QueryResult<{ fence: string }>[]
      const fence = parseLsn(ended.at(-1)!.rows[0]!.fence)
      failed = false
      return { rows, snapshot: parseSnapshot(snapshot), fence, nowMicros: BigInt(micros) }
    } catch (error) {
      // Tried again soon, and with nothing left of it: what was set within it has gone with it.
      if (isLocked(error))
        failed = await client.query('ROLLBACK').then(
          () => false,
          () => true,
        )
      throw error
    } finally {
      // A failed transaction's session is not used again: its role must not outlive it.
      client.release(failed)
    }
  }
}

/** What waits for nothing in the database. A connection that is dead without a word shows here, instead of holding up those who
 *  wait for it as long as rows may take. */
const atOnce = (text: string): pg.QueryConfig => ({ text, query_timeout: 5000 }) as pg.QueryConfig

const standsStill = (): TidegateError =>
  new TidegateError('UNAVAILABLE', 'the stream stands still', { retryAfterMs: standstillRetryMs })

async function connect(lane: Lane): Promise<pg.PoolClient> {
  try {
    return await lane.connect()
  } catch (cause) {
    if (cause instanceof TidegateError) throw cause
    throw new TidegateError('UNAVAILABLE', 'the database cannot be reached', { cause })
  }
}

/** Takes the reader's role and claims for the rest of the transaction. */
export function asReaderSql(reader: Reader): string {
  const settings = reader.settings.map(
    ([name, value]) => `set_config(${escapeLiteral(name)}, ${escapeLiteral(value)}, true)`,
  )
  const setup = settings.length === 0 ? '' : `SELECT ${settings.join(', ')};`
  return `${setup} SET LOCAL ROLE ${escapeIdentifier(reader.role)}`
}

/** Postgres then raises instead of filtering silently by the login's own policies. */
export const asLoginSql = 'SET LOCAL row_security = off'

/** As `SnapshotReader.asLogin`, in a transaction of the caller's that has run `asLoginSql`. @throws INDEX_NOT_READABLE */
export async function readAsLogin(
  client: pg.ClientBase,
  table: Table,
  match: RowMatch | RangeMatch | null,
  limit: number,
): Promise<TextRow[]> {
  if (table.readThrough === null) throw notReadable(table)
  const names = table.columns.map(column => column.name)
  const columns = match === null ? [] : 'column' in match ? [match.column] : match.columns
  const matched = columns.map(column => names[column]!)
  const keys = JSON.stringify(keysOf(match))
  if (table.readThrough === 'function') {
    const name = `tidegate.${escapeIdentifier(readFunctionName(table.schema, table.name))}`
    const sql = `SELECT r FROM ${name}($1::text[], $2::text[], $3::jsonb, NULL, $4::integer) AS r`
    const result = await client.query<{ r: TextRow }>(sql, [names, matched, keys, limit])
    return result.rows.map(row => row.r)
  }
  return queryText(client, directSql(table, match), columns.length === 0 ? [limit] : [keys, limit])
}

/** As the read function takes them: a list of keys, or an object that is a range. */
function keysOf(match: RowMatch | RangeMatch | null): unknown {
  if (match === null) return []
  if (!('column' in match)) return match.keys
  const { low, high, isFirst } = match
  return { low, high, isFirst }
}

/** Every column as its type prints it, ordered by the primary key. Not cast to text: that differs from what the WAL has for
 *  bool ('true' for 't'), char(n) (blanks cut) and inet (a netmask). */
function directSql(table: Table, match: RowMatch | RangeMatch | null): string {
  const name = (column: number): string => escapeIdentifier(table.columns[column]!.name)
  const list = table.columns.map((_, column) => name(column)).join(', ')
  const from = `${escapeIdentifier(table.schema)}.${escapeIdentifier(table.name)}`
  const order = table.primaryKey.length === 0 ? '' : ` ORDER BY ${table.primaryKey.map(name).join(', ')}`
  if (match === null || ('columns' in match && match.columns.length === 0))
    return `SELECT ${list} FROM ${from}${order} LIMIT $1::integer`
  if ('column' in match) {
    const column = name(match.column)
    const bound = (end: string): string =>
      `($1::jsonb ->> '${end}')::${castNameOf(baseOf(table.columns[match.column]!.type))}`
    const range = `${column} >= ${bound('low')} AND ${column} <= coalesce(${bound('high')}, 'infinity')`
    return `SELECT ${list} FROM ${from} WHERE ${range}${match.isFirst ? ` ORDER BY ${column}` : order} LIMIT $2::integer`
  }
  const { columns } = match
  const values = columns.map((column, i) => `(k ->> ${i})::${castNameOf(baseOf(table.columns[column]!.type))}`)
  const where = `(${columns.map(name).join(', ')}) IN (SELECT ${values.join(', ')} FROM jsonb_array_elements($1::jsonb) AS k)`
  return `SELECT ${list} FROM ${from} WHERE ${where}${order} LIMIT $2::integer`
}

const notReadable = (table: Table): TidegateError =>
  new TidegateError(
    'INDEX_NOT_READABLE',
    `the server's login cannot read ${table.schema}.${table.name} whole; run: tidegate track ${table.schema}.${table.name}`,
  )

/** What Postgres's refusal means for the peer. */
function peerErrorOf(error: unknown): unknown {
  if (error instanceof TidegateError) return error
  const code = (error as { code?: unknown }).code
  if (typeof code !== 'string') return new TidegateError('UNAVAILABLE', 'the database went away', { cause: error })
  // 22xxx: a claim or value that a policy cannot cast. 42501: a privilege or role taken away meanwhile.
  if (code.startsWith('22'))
    return new TidegateError('CLAIM_INVALID', 'a policy cannot be evaluated with these claims', { cause: error })
  if (code === '42501')
    return new TidegateError('TABLE_REFUSED', 'the role may not SELECT this table', { cause: error })
  if (code === '42P01' || code === '42703') {
    return new TidegateError('UNSUBSCRIBED_TABLE_CHANGED', 'the table changed', { cause: error, retryAfterMs: 500 })
  }
  return new TidegateError('UNAVAILABLE', 'the database refused the query', { cause: error })
}
