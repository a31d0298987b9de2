// Takes the slot from the node: drops it while nobody streams from it, drops it under the node's hands, or lets Postgres
// invalidate it for the WAL that it holds.
import pg from 'pg'

/** @param under whether the node that streams from it is alive: its session is ended first */
export async function dropSlot(url: string, under: boolean): Promise<void> {
  const client = await connected(url)
  try {
    await until(async () => {
      if (under)
        await client.query(`SELECT pg_terminate_backend(active_pid, 1000) FROM pg_replication_slots
          WHERE ${ours} AND active_pid IS NOT NULL`)
      try {
        const { rowCount } = await client.query(
          `SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE ${ours} AND active_pid IS NULL`,
        )
        return rowCount !== 0
      } catch (error) {
        // In use: the node was faster, or the server has not noticed yet that its holder is gone.
        if ((error as { code?: string }).code !== '55006') throw error
        return false
      }
    })
  } finally {
    await client.end()
  }
}

/** While no node runs and nobody writes. @param readTruth takes the other slots to the end of the WAL */
export async function invalidateSlot(url: string, readTruth: () => Promise<void>): Promise<void> {
  const client = await connected(url)
  const megabytes = async (which: string): Promise<number> => {
    const { rows } = await client.query<{ mb: number }>(
      `SELECT ceil(max(pg_current_wal_lsn() - restart_lsn) / 1048576)::int AS mb FROM pg_replication_slots WHERE ${which}`,
    )
    return rows[0]!.mb
  }
  try {
    await client.query('SET synchronous_commit = local')
    await until(async () => {
      const { rowCount } = await client.query(`SELECT 1 FROM pg_replication_slots WHERE ${ours} AND active_pid IS NULL`)
      return rowCount !== 0
    })
    let limit = 0
    await until(async () => {
      for (let i = 0; i < 3; i++) {
        await client.query(`SELECT pg_logical_emit_message(true, 'checker', repeat('x', 100))`)
        await client.query('SELECT pg_switch_wal()')
      }
      await client.query('CHECKPOINT')
      await readTruth()
      limit = (await megabytes(`slot_name LIKE 'checker%' AND database = current_database()`)) + 6
      return (await megabytes(ours)) > limit + 4
    })
    await client.query(`ALTER SYSTEM SET max_slot_wal_keep_size = '${limit}MB'`)
    await client.query('SELECT pg_reload_conf()')
    await until(async () => {
      await client.query('CHECKPOINT')
      const { rows } = await client.query<{ lost: boolean }>(
        `SELECT wal_status = 'lost' AS lost FROM pg_replication_slots WHERE ${ours}`,
      )
      return rows[0]!.lost
    })
  } finally {
    await client.query('ALTER SYSTEM RESET max_slot_wal_keep_size')
    await client.query('SELECT pg_reload_conf()')
    await client.end()
  }
}

const ours = `slot_name LIKE 'tidegate%' AND database = current_database()`

async function until(isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + 60_000
  while (!(await isSo())) {
    if (performance.now() > deadline) throw new Error('the slot could not be taken in time')
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

async function connected(url: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: url })
  client.on('error', () => {})
  await client.connect()
  return client
}
