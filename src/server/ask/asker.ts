// Asks Postgres under a reader's role and claims, by a snapshot of which it is known where in the stream it stands.
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Figures } from '../figures/figures.ts'
import { beginSql, begin as beginTransaction, type Lane, pinnedSettings, type TextRow } from '../postgres/database.ts'
import { isLocked, lockTimeoutMs } from '../postgres/locked.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Query } from '../route/query.ts'
import { asReaderSql, type Reader, type SnapshotReader } from '../snapshot/reader.ts'
import { SlowHints } from '../snapshot/slow-hints.ts'
import { parseLsn } from '../wal/lsn.ts'
import { parseSnapshot } from '../wal/visibility.ts'
import type { Statement } from './ask-sql.ts'
import { failedRetryMs, failureOf, NotYet } from './failures.ts'
import { Lanes } from './lanes.ts'
import { type Standing, standingOf } from './standing.ts'

export interface AskerOptions {
  /** For questions only, with a place for each of `concurrency`. */
  readonly pool: Lane
  readonly relay: MemoryRelay
  readonly head: Head
  readonly reader: Pick<SnapshotReader, 'passed'>
  /** Of one statement. */
  readonly timeoutMs: number
  /** Questions at a time. */
  readonly concurrency: number
  readonly figures?: Figures
}

export interface Question {
  readonly query: Query
  readonly reader: Reader
}

/** One snapshot, while it is open. */
export interface View {
  readonly standing: Standing
  /** When it was taken, microseconds since 2000-01-01 UTC. */
  readonly takenAtMicros: bigint
  /** @param typeOids what the first columns must be, so that their texts mean what the catalog says; null for a domain's
   *  @throws what the database throws; UNSUBSCRIBED_TABLE_CHANGED for other types */
  ask(statement: Statement, typeOids?: readonly (number | null)[]): Promise<readonly TextRow[]>
}

const pinned = Object.keys(pinnedSettings)
/** How often a snapshot is taken anew while it does not fit to the stream: 1, 2, 4 ... ms in between. */
const maxAttempts = 7
/** How long the stream may take to pass what a snapshot shows. */
const streamMs = 2_000

const rawTypes = { getTypeParser: () => (value: string) => value } as unknown as pg.CustomTypesConfig

export class Asker {
  readonly #options: AskerOptions
  readonly #lanes: Lanes
  readonly #slow = new SlowHints()

  constructor(options: AskerOptions) {
    this.#options = options
    this.#lanes = new Lanes(options.concurrency)
  }

  get timeoutMs(): number {
    return this.#options.timeoutMs
  }

  /** @param pace how long it took the last time, in milliseconds; null for the first
   *  @param begin called right before a snapshot is taken, perhaps several times: which commits it should see; after a few
   *    attempts it need not
   *  @throws NotYet; POLICY_FAILED, POLICY_SLOW, TABLE_REFUSED, UNSUBSCRIBED_TABLE_CHANGED; UNAVAILABLE */
  async run<T>(
    question: Question,
    { pace, begin }: { readonly pace: number | null; readonly begin: () => bigint },
    work: (view: View) => Promise<T>,
  ): Promise<{ readonly result: T; readonly tookMs: number }> {
    const kind = `${question.query.table.oid} ${question.reader.role}`
    return this.#lanes.run({ kind, pace }, async () => {
      const { pool, relay, timeoutMs, figures } = this.#options
      let client: pg.PoolClient
      try {
        client = await pool.connect()
      } catch (cause) {
        if (cause instanceof TidegateError) throw cause
        throw new TidegateError('UNAVAILABLE', 'the database cannot be reached', { cause })
      }
      const pin = relay.pin()
      let failed = true
      try {
        const { standing, takenAtMicros } = await this.#take(client, begin)
        const begunMs = performance.now()
        if (figures !== undefined) figures.decisionsAsked += 1
        await client.query(asReaderSql(question.reader))
        const result = await work({
          standing,
          takenAtMicros,
          ask: (statement, typeOids = []) => ask(client, question.query, statement, typeOids),
        })
        const tookMs = performance.now() - begunMs
        await this.#end(client, question.query)
        failed = false
        if (this.#slow.size > 0) this.#slow.quick(whoseOf(question))
        return { result, tookMs }
      } catch (error) {
        // Asked again soon: what was set within it has gone with it.
        if (isLocked(error))
          failed = await client.query('ROLLBACK').then(
            () => false,
            () => true,
          )
        throw this.#laterEachTime(question, failureOf(error, question.query, timeoutMs))
      } finally {
        pin.release()
        // Its role must not outlive a transaction that failed.
        client.release(failed)
      }
    })
  }

  #laterEachTime(question: Question, failure: unknown): unknown {
    if (!(failure instanceof TidegateError) || failure.code !== 'POLICY_SLOW') return failure
    const retryAfterMs = this.#slow.slow(whoseOf(question))
    return new TidegateError(failure.code, failure.message, { cause: failure.cause, retryAfterMs })
  }

  /** A policy's function may have set something for the session: the next reader must not find it, and what it printed
   *  otherwise than is pinned is not what it seems. */
  async #end(client: pg.PoolClient, { table }: Query): Promise<void> {
    const end = `SELECT ${pinned.map(name => `current_setting('${name}') AS "${name}"`).join(', ')}; COMMIT; RESET ROLE; RESET ALL`
    const ended = (await client.query(end)) as unknown as pg.QueryResult<Record<string, string>>[]
    const set = pinned.find(name => ended[0]!.rows[0]![name] !== pinnedSettings[name])
    if (set === undefined) return
    const message = `a policy of ${table.schema}.${table.name} changes the setting ${set}, by which values are printed`
    throw new TidegateError('POLICY_FAILED', message, { retryAfterMs: failedRetryMs })
  }

  /** Begins a transaction whose snapshot stands somewhere. */
  async #take(client: pg.PoolClient, begin: () => bigint): Promise<{ standing: Standing; takenAtMicros: bigint }> {
    const { pool, head, relay, timeoutMs } = this.#options
    for (let attempt = 1; ; attempt++) {
      const wantedLsn = begin()
      const sql = `${beginSql(pool, 'ISOLATION LEVEL REPEATABLE READ READ ONLY')}; SET LOCAL application_name = 'tidegate asked'; SET LOCAL statement_timeout = ${timeoutMs};
        SET LOCAL lock_timeout = ${Math.min(lockTimeoutMs, Math.ceil(timeoutMs / 2))};
        SELECT pg_current_snapshot()::text AS snapshot, pg_current_wal_insert_lsn()::text AS fence,
          (extract(epoch FROM now() - '2000-01-01 00:00:00+00') * 1000000)::int8::text AS at`
      const begun = await beginTransaction<Record<'snapshot' | 'fence' | 'at', string>>(client, pool, { text: sql })
      const { snapshot, fence, at } = begun.at(-1)!.rows[0]!
      const fenceLsn = parseLsn(fence)
      await this.#passed(fenceLsn)
      const standing = standingOf(relay, parseSnapshot(snapshot), { headLsn: head.lsn, fence: fenceLsn })
      const isLast = attempt === maxAttempts
      if (standing !== null && (standing.lsn >= wantedLsn || isLast)) return { standing, takenAtMicros: BigInt(at) }
      if (isLast) throw new NotYet('Postgres shows a later commit and not an earlier one')
      await client.query('ROLLBACK')
      await new Promise(resolve => setTimeout(resolve, 2 ** (attempt - 1)))
    }
  }

  async #passed(fence: bigint): Promise<void> {
    const { head, reader } = this.#options
    if (head.ready(fence)) return
    const deadline = AbortSignal.timeout(streamMs)
    const late = new Promise<void>(resolve => deadline.addEventListener('abort', () => resolve(), { once: true }))
    // Mostly it is on its way; else a message is written that makes it move.
    const passed = reader.passed(fence)
    passed.catch(() => {})
    await Promise.race([passed, late])
    while (!head.ready(fence)) {
      if (deadline.aborted) throw new NotYet('the stream does not move')
      await Promise.race([head.change(), late])
    }
  }
}

async function ask(
  client: pg.PoolClient,
  query: Query,
  { sql, values }: Statement,
  typeOids: readonly (number | null)[],
): Promise<readonly TextRow[]> {
  const result = await client.query<TextRow>({ text: sql, values: [...values], rowMode: 'array', types: rawTypes })
  const { schema, name } = query.table
  if (typeOids.some((oid, i) => oid !== null && oid !== result.fields[i]!.dataTypeID))
    throw new TidegateError('UNSUBSCRIBED_TABLE_CHANGED', `the columns of ${schema}.${name} changed`, {
      retryAfterMs: 500,
    })
  return result.rows
}

/** The same after another token of the same user. */
const whoseOf = ({ query, reader }: Question): string =>
  JSON.stringify([query.table.oid, reader.user ?? [reader.role, reader.settings]])
