// Deletes messages that came through the WAL long since: rows of realtime.messages are only a way into it. Keeps the daily partitions of a
// table that was adopted from a Supabase. The node that leads does both.
import type { Lane } from '../../postgres/database.ts'
import { lockTimeoutMs } from '../../postgres/locked.ts'

/** Between two sweeps. */
const sweepEveryMs = 60_000
/** Postgres says there is no such function or schema: this database was migrated by an older release, or not at all. */
const notInstalled = new Set(['42883', '3F000'])

interface Batch {
  readonly deleted: number
  readonly time: string
  readonly id: string
}

export class MessageSweep {
  readonly #pool: Lane
  #lastMs = Number.NEGATIVE_INFINITY
  #isUnderWay = false

  constructor(pool: Lane) {
    this.#pool = pool
  }

  /** @param nowMs steady */
  isDue(nowMs: number): boolean {
    return !this.#isUnderWay && nowMs - this.#lastMs >= sweepEveryMs
  }

  /** Deletes what is older than ten minutes, 1,000 rows a transaction, until there is none or it is told to stop. Locks rows that
   *  nobody else has locked, and waits for nothing.
   *  @returns how many rows it deleted
   *  @throws what Postgres throws */
  async sweep(nowMs: number, signal: AbortSignal): Promise<number> {
    this.#lastMs = nowMs
    this.#isUnderWay = true
    try {
      let deleted = 0
      let last: Batch | null = { deleted: 0, time: '-infinity', id: '00000000-0000-0000-0000-000000000000' }
      while (last !== null && !signal.aborted) {
        last = await this.#deleteAfter(last)
        deleted += last?.deleted ?? 0
      }
      if (!signal.aborted) await this.#keepPartitions()
      return deleted
    } catch (error) {
      if (error instanceof Error && 'code' in error && notInstalled.has(String(error.code))) return 0
      throw error
    } finally {
      this.#isUnderWay = false
    }
  }

  /** @returns null when nothing was left */
  async #deleteAfter({ time, id }: Batch): Promise<Batch | null> {
    const rows = await this.#inTransaction<Batch>(
      'SELECT deleted, last_time::text AS time, last_id AS id FROM tidegate.delete_messages($1, $2)',
      [time, id],
    )
    return rows[0] ?? null
  }

  async #keepPartitions(): Promise<void> {
    await this.#inTransaction('SELECT tidegate.keep_partitions()', [])
  }

  async #inTransaction<R extends object>(sql: string, values: readonly string[]): Promise<R[]> {
    const client = await this.#pool.connect()
    let failed = true
    try {
      // What was done in vain is done again: nothing waits for a disk or a standby.
      await client.query(
        `BEGIN; SET LOCAL synchronous_commit = off; SET LOCAL lock_timeout = ${lockTimeoutMs}; SET LOCAL statement_timeout = 5000`,
      )
      const { rows } = await client.query<R>(sql, [...values])
      await client.query('COMMIT')
      failed = false
      return rows
    } finally {
      client.release(failed)
    }
  }
}
