// Where did a transaction commit? For a writer who wants to know that its own write has passed.

import { type Position, WHOLE_COMMIT } from '../../protocol/position.ts'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Lane } from '../postgres/database.ts'
import { parseLsn } from '../wal/lsn.ts'
import { low32 } from '../wal/visibility.ts'
import type { Stream } from './stream.ts'

/** @param xid64 as pg_current_xact_id() gives it
 *  @returns the position of its commit, or the head when it wrote nothing that is followed
 *  @throws TXID_INVALID when it was rolled back or never was, WAIT_TIMEOUT when it does not end in time */
export async function waitForTransaction(
  stream: Stream,
  pool: Lane,
  xid64: bigint,
  timeoutMs: number,
): Promise<Position> {
  const { relay, head } = stream
  const xid = low32(xid64)
  const deadline = performance.now() + timeoutMs
  const at = (lsn: bigint): Position => ({ epoch: relay.epoch, lsn, index: WHOLE_COMMIT })
  const found = (): Position | null => {
    const commit = relay.find(xid)
    return commit !== null && commit.commitLsn <= head.lsn && head.resting ? at(commit.commitLsn) : null
  }
  for (;;) {
    const position = found()
    if (position !== null) return position
    const { status, lsn } = await statusOf(pool, xid64)
    if (status === 'aborted') throw new TidegateError('TXID_INVALID', `transaction ${xid64} was rolled back`)
    if (status === null || status === 'committed') {
      await stream.reader.passed(lsn)
      while (!head.ready(lsn)) await head.change()
      return found() ?? at(head.lsn)
    }
    const left = deadline - performance.now()
    if (left <= 0)
      throw new TidegateError('WAIT_TIMEOUT', `transaction ${xid64} has not ended within ${timeoutMs} ms`, {
        retryAfterMs: 1000,
      })
    await Promise.race([head.change(), new Promise(resolve => setTimeout(resolve, Math.min(left, 250)))])
  }
}

/** `status` is null for a transaction so old that Postgres no longer knows. */
async function statusOf(pool: Lane, xid64: bigint): Promise<{ status: string | null; lsn: bigint }> {
  try {
    const result = await pool.query<{ status: string | null; lsn: string }>(
      'SELECT pg_xact_status($1::text::xid8) AS status, pg_current_wal_insert_lsn()::text AS lsn',
      [String(xid64)],
    )
    const row = result.rows[0]!
    return { status: row.status, lsn: parseLsn(row.lsn) }
  } catch (error) {
    // 22023: the transaction is in the future; 22P02, 22003: no number that fits.
    const code = (error as { code?: unknown }).code
    if (typeof code === 'string' && code.startsWith('22'))
      throw new TidegateError('TXID_INVALID', `no transaction ${xid64} has begun`)
    throw new TidegateError('UNAVAILABLE', 'the database cannot be reached', { cause: error })
  }
}
