// The replication slot: which one is ours, whether it can still be used, and what to do if not. A slot's life is an
// epoch: whatever breaks the promise "everything after your position is still here" ends it and begins another, loudly.
import { createHash, randomBytes } from 'node:crypto'
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type Lane, queryText } from '../postgres/database.ts'
import { formatLsn, parseLsn } from './lsn.ts'
import type { SystemIdentity } from './wal-plugin.ts'

/** Our slot as pg_replication_slots shows it. */
export interface SlotRow {
  readonly slotName: string
  /** The process that streams from it. */
  readonly activePid: number | null
  readonly confirmedFlushLsn: bigint
  /** From here on the WAL is kept; null once it is not. */
  readonly restartLsn: bigint | null
  /** `reserved`, `extended`, `unreserved` or `lost`. */
  readonly walStatus: string | null
  /** Postgres 17 and later. */
  readonly invalidationReason: string | null
  /** Whether standbys may keep it, so that it survives a promotion; null before Postgres 17. */
  readonly failover: boolean | null
  /** WAL that the server keeps because of it. */
  readonly retainedBytes: bigint
}

export interface SlotQuestion {
  readonly rows: readonly SlotRow[]
  readonly slotMaxBytes: number
  /** The slot that the life before this one used. */
  readonly expected: string | null
  /** The relay's head in that slot's epoch, null if it holds nothing of it, or can do with a gap. */
  readonly relayHead: (slot: SlotRow) => bigint | null
  /** End of the newest commit of that slot's epoch that anybody may have been told of; null for none. */
  readonly toldLsn: (slot: SlotRow) => bigint | null
  /** Where the server's WAL ends. */
  readonly walEndLsn: bigint
}

export type SlotDecision =
  | { readonly action: 'stream'; readonly slot: SlotRow }
  | { readonly action: 'wait'; readonly slot: SlotRow; readonly pid: number }
  | { readonly action: 'create'; readonly drop: readonly SlotRow[]; readonly cause: SlotCause | null }

/** Why an epoch ended. */
export interface SlotCause {
  readonly code: 'SLOT_LOST' | 'SLOT_AHEAD' | 'SLOT_OVER_LIMIT' | 'HISTORY_DIVERGED'
  readonly message: string
}

/** What to do about the slots of our name. */
export function decideSlot(question: SlotQuestion): SlotDecision {
  const { expected, slotMaxBytes } = question
  const slot = question.rows.toSorted(byUse)[0]
  const create = (code: SlotCause['code'], message: string, drop: readonly SlotRow[]): SlotDecision => ({
    action: 'create',
    drop,
    cause: { code, message },
  })
  if (slot === undefined) {
    if (expected === null) return { action: 'create', drop: [], cause: null }
    return create('SLOT_LOST', `the slot ${expected} was dropped by someone`, [])
  }
  const name = `the slot ${slot.slotName}`
  if (slot.activePid !== null) return { action: 'wait', slot, pid: slot.activePid }
  if (isLost(slot)) {
    return create('SLOT_LOST', `${name} was invalidated: ${reasonOfLoss(slot)}`, question.rows)
  }
  if (isOverLimit(slot, slotMaxBytes)) return create('SLOT_OVER_LIMIT', overLimit(slot, slotMaxBytes), question.rows)
  const head = question.relayHead(slot)
  if (head !== null && head < slot.confirmedFlushLsn) {
    const [at, from] = [formatLsn(slot.confirmedFlushLsn), formatLsn(head)]
    return create('SLOT_AHEAD', `${name} was acknowledged up to ${at}, the relay holds up to ${from}`, question.rows)
  }
  // What would be written from there on would be taken for what was told already, and skipped.
  const told = question.toldLsn(slot)
  if (told !== null && told > question.walEndLsn) {
    const [upTo, end] = [formatLsn(told), formatLsn(question.walEndLsn)]
    const message = `commits up to ${upTo} had been told, and the WAL of this database ends at ${end}: a backup was restored, or a standby promoted that lacked them. ${keepStandbysUp}`
    return create('HISTORY_DIVERGED', message, question.rows)
  }
  return { action: 'stream', slot }
}

/** Before Postgres 17 the server gives no reason, and there is but one. */
export function reasonOfLoss({ invalidationReason }: SlotRow): string {
  switch (invalidationReason) {
    case null:
    case 'wal_removed':
      return 'it kept more WAL than max_slot_wal_keep_size, and the server removed it; raise that setting, or find what holds Tidegate up'
    case 'idle_timeout':
      return 'nobody streamed from it for idle_replication_slot_timeout; raise that setting, or keep Tidegate running'
    default:
      return invalidationReason
  }
}

export const isLost = (slot: SlotRow): boolean =>
  slot.walStatus === 'lost' || slot.restartLsn === null || slot.invalidationReason !== null

export const isOverLimit = (slot: SlotRow, slotMaxBytes: number): boolean => slot.retainedBytes > BigInt(slotMaxBytes)

export const overLimit = (slot: SlotRow, slotMaxBytes: number): string =>
  `the slot ${slot.slotName} makes the server keep ${slot.retainedBytes} bytes of WAL, more than SLOT_MAX_BYTES=${slotMaxBytes}`

export const keepStandbysUp =
  'Set synchronized_standby_slots to the slots of the standbys that may be promoted, and nothing is told before they have it'

/** There should be one. If two nodes made one each: the one in use, else a usable one, else the one read farthest. */
function byUse(a: SlotRow, b: SlotRow): number {
  const rank = (slot: SlotRow) => (slot.activePid !== null ? 0 : isLost(slot) ? 2 : 1)
  if (rank(a) !== rank(b)) return rank(a) - rank(b)
  return a.confirmedFlushLsn > b.confirmedFlushLsn ? -1 : 1
}

/** The epoch that begins with a slot: 8 hex digits. A restored backup, a promoted standby and a new slot give another;
 *  whether it must begin is for timeline.ts to say. */
export const epochOf = (system: SystemIdentity, slotName: string): string =>
  createHash('sha256')
    .update(`${system.systemId}/${system.timeline}/${slotName.slice(-8)}`)
    .digest('hex')
    .slice(0, 8)

/** @throws CONFIG_INVALID for a name that cannot be part of a slot's name */
export function assertDeploymentName(name: string): void {
  if (/^[a-z0-9_]{1,54}$/.test(name)) return
  const rule = 'use 1 to 54 lower-case letters, digits and underscores, as in names of replication slots'
  throw new TidegateError('CONFIG_INVALID', `the deployment name ${JSON.stringify(name)} does not fit; ${rule}`)
}

/** What the server says that the client is connected to. */
export interface ServerLook {
  /** A standby, or a server that is still replaying its WAL: nobody can lead there. */
  readonly inRecovery: boolean
  /** Where its WAL ends; what a standby has replayed. */
  readonly walEndLsn: bigint
  readonly slots: readonly SlotRow[]
}

/** The slots of this deployment in the database that the client is connected to, and whether one may stream from them.
 *  @param name of the deployment; the slots are called `<name>_<8 hex digits>` */
export async function lookAt(client: pg.ClientBase | Lane, name: string): Promise<ServerLook> {
  const rows = await queryText(
    client,
    // As JSON, because those columns are there from Postgres 17 on, and naming one before is an error.
    `SELECT in_recovery::text, coalesce(wal_end, '0/0'), slot_name, active_pid, confirmed_flush_lsn, restart_lsn, wal_status,
            to_jsonb(slot) ->> 'invalidation_reason', to_jsonb(slot) ->> 'failover', coalesce(wal_end - restart_lsn, 0)
       FROM pg_is_in_recovery() AS in_recovery
            CROSS JOIN LATERAL (SELECT CASE WHEN in_recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS wal_end) AS wal
            LEFT JOIN pg_replication_slots AS slot
         ON database = current_database() AND plugin = 'pgoutput' AND NOT temporary AND slot_name ~ $1`,
    [`^${name}_[0-9a-f]{8}$`],
  )
  return {
    inRecovery: rows[0]![0] === 'true',
    walEndLsn: parseLsn(rows[0]![1]!),
    slots: rows
      .filter(row => row[2] !== null)
      .map(row => ({
        slotName: row[2]!,
        activePid: row[3] === null ? null : Number(row[3]),
        confirmedFlushLsn: row[4] === null ? 0n : parseLsn(row[4]!),
        restartLsn: row[5] === null ? null : parseLsn(row[5]!),
        walStatus: row[6] ?? null,
        invalidationReason: row[7] ?? null,
        failover: row[8] === null ? null : row[8] === 'true',
        retainedBytes: BigInt(row[9]!),
      })),
  }
}

/** The slots alone. */
export const readSlots = async (client: pg.ClientBase | Lane, name: string): Promise<readonly SlotRow[]> =>
  (await lookAt(client, name)).slots

/** Whether there is a slot of exactly this name in the database that the client is connected to. */
export async function slotExists(client: Lane, slotName: string): Promise<boolean> {
  const sql = 'SELECT FROM pg_replication_slots WHERE slot_name = $1 AND database = current_database()'
  return (await queryText(client, sql, [slotName])).length > 0
}

/** Makes a slot with a fresh suffix and returns its name.
 *  @throws SLOT_BLOCKED when transactions that were running do not end within `timeoutMs`, or no slot is free */
export async function createSlot(client: pg.ClientBase, name: string, timeoutMs: number): Promise<string> {
  const slotName = `${name}_${randomBytes(4).toString('hex')}`
  await client.query(`SET statement_timeout = ${timeoutMs}`)
  try {
    // From Postgres 17 on standbys that synchronize slots keep this one, too: it survives their promotion.
    const [version] = await queryText(client, "SELECT current_setting('server_version_num')")
    const failover = Number(version![0]) >= 170_000 ? ', temporary => false, twophase => false, failover => true' : ''
    // The server's limit answers first, so that the slot is not left half made.
    const create = { text: `SELECT pg_create_logical_replication_slot($1, 'pgoutput'${failover})`, values: [slotName] }
    await client.query({ ...create, query_timeout: timeoutMs + 5000 } as pg.QueryConfig)
    return slotName
  } catch (error) {
    const { code, message } = error as pg.DatabaseError
    if (code === '57014')
      throw new TidegateError('SLOT_BLOCKED', await blockedBy(client, slotName, timeoutMs), { cause: error })
    if (code === '53400')
      throw new TidegateError(
        'SLOT_BLOCKED',
        `the slot ${slotName} cannot be created: ${message}; drop one of pg_replication_slots that is not used, or run: ALTER SYSTEM SET max_replication_slots = 20 (needs a restart)`,
        { cause: error },
      )
    throw error
  } finally {
    await client.query('RESET statement_timeout').catch(() => {})
  }
}

async function blockedBy(client: pg.ClientBase, slotName: string, timeoutMs: number): Promise<string> {
  await client.query('RESET statement_timeout')
  // From the locks, because without pg_read_all_stats pg_stat_activity hides what others do. A prepared transaction's
  // lock has no process.
  const rows = await queryText(
    client,
    `SELECT DISTINCT coalesce(pid::text, 'a prepared transaction, see pg_prepared_xacts') FROM pg_locks
      WHERE locktype = 'transactionid' AND mode = 'ExclusiveLock' AND granted AND pid IS DISTINCT FROM pg_backend_pid()`,
  )
  const pids = rows.map(row => row[0]!)
  const who =
    pids.length === 0 ? 'transactions that have just ended; start again' : `the transactions of: ${pids.join(', ')}`
  const remedy =
    pids.length === 0
      ? ''
      : `; end them, for instance SELECT pg_terminate_backend(${pids[0]!.replace(/\D.*/, '<pid>')})`
  return `the slot ${slotName} could not be created within ${timeoutMs} ms, because Postgres first waits for ${who}${remedy}`
}

/** Drops a slot that nobody streams from; one that is gone already is fine. @throws 55006 while it is in use */
export async function dropSlot(client: pg.ClientBase | Lane, slotName: string): Promise<void> {
  await client.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1', [
    slotName,
  ])
}

/** 55006 object_in_use: someone streams from the slot. */
export const isInUse = (error: unknown): boolean => stateOf(error) === '55006'

/** The SQLSTATE of an error, or of its cause; empty where there is none. */
export function stateOf(error: unknown): string {
  const cause = error instanceof TidegateError ? error.cause : error
  return String((cause as { code?: unknown } | null)?.code ?? '')
}
