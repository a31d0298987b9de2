// The orders that stand in the database, fenced: what the snapshot does not see comes through the stream.
import type pg from 'pg'
import { type Lane, queryText } from '../postgres/database.ts'
import { QueryRow } from '../snapshot/query-row.ts'
import { parseLsn } from '../wal/lsn.ts'
import { parseSnapshot, type Snapshot } from '../wal/visibility.ts'
import { type Order, orderColumns, orderOf } from './order.ts'

export interface OrdersRead {
  /** Of the table; null where `migrate` has not made it. */
  readonly oid: number | null
  /** Whether changes of it come through the stream. */
  readonly isPublished: boolean
  readonly orders: readonly Order[]
  readonly snapshot: Snapshot
  readonly fence: bigint
}

/** @param publication whose table it should be @throws what Postgres throws */
export async function readOrders(lane: Lane, publication: string): Promise<OrdersRead> {
  const client = await lane.connect()
  let failed = true
  try {
    await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY')
    const [found] = (await queryText(client, foundSql, [publication])) as [[string, string | null, string]]
    const [snapshot, oid, published] = found
    const rows = oid === null ? [] : await queryText(client, ordersSql)
    await client.query('COMMIT')
    const fence = await fenceOf(client)
    failed = false
    const orders = rows.map(row => orderOf(new QueryRow(row), positions)).filter(order => order !== null)
    return {
      oid: oid === null ? null : Number(oid),
      isPublished: published === 't',
      orders,
      snapshot: parseSnapshot(snapshot),
      fence,
    }
  } finally {
    client.release(failed)
  }
}

/** After the rows, never before: a TRUNCATE empties the table for snapshots that are older than it. */
async function fenceOf(client: pg.ClientBase): Promise<bigint> {
  const [row] = await queryText(client, 'SELECT pg_current_wal_insert_lsn()')
  return parseLsn(row![0]!)
}

const positions = orderColumns.map((_, position) => position)

const foundSql = `SELECT pg_current_snapshot()::text, c.oid, EXISTS (SELECT FROM pg_publication_rel r
    JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1 AND r.prrelid = c.oid)
  FROM (SELECT) AS one LEFT JOIN pg_class c ON c.relname = 'orders' AND c.relnamespace = to_regnamespace('tidegate')`

const ordersSql = `SELECT ${orderColumns.join(', ')} FROM tidegate.orders ORDER BY id`
