// One snapshot for everything that is compared: what Tidegate judges by, and what Postgres answers.
import type pg from 'pg'
import type { Lane } from '../postgres/database.ts'

/** Runs `use` with settings that are gone afterwards; what fails in it leaves the transaction usable.
 *  @param setup SQL; empty for none */
export async function within<T>(client: pg.ClientBase, setup: string, use: () => Promise<T>): Promise<T> {
  await client.query('SAVEPOINT explain')
  try {
    // What fails already here, a role that may not be taken, must not leave the transaction aborted either.
    if (setup !== '') await client.query(setup)
    return await use()
  } finally {
    await client.query('ROLLBACK TO SAVEPOINT explain; RELEASE SAVEPOINT explain')
  }
}

export interface ReadTransaction {
  readonly client: pg.ClientBase
  /** `now()`, in microseconds since 1970. */
  readonly nowMicros: bigint
}

/** Everything that `use` reads is of one snapshot. */
export async function inReadTransaction<T>(
  pool: Lane,
  timeoutMs: number,
  use: (transaction: ReadTransaction) => Promise<T>,
): Promise<T> {
  const client = await pool.connect()
  let isWhole = false
  try {
    await client.query(
      `BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET LOCAL statement_timeout = ${timeoutMs}; SET LOCAL row_security = on`,
    )
    const { rows } = await client.query<{ micros: string }>(
      'SELECT (extract(epoch FROM now()) * 1000000)::bigint::text AS micros',
    )
    const result = await use({ client, nowMicros: BigInt(rows[0]!.micros) })
    // What a policy's function may have set for the session goes.
    await client.query('COMMIT; RESET ROLE; RESET ALL')
    isWhole = true
    return result
  } finally {
    // A failed transaction's session is not used again: its role must not outlive it.
    client.release(!isWhole)
  }
}
