// What a server says of itself, read in two queries that any login may ask.
import type pg from 'pg'
import { queryText } from '../postgres/database.ts'

export interface ServerFacts {
  readonly versionNumber: number
  /** `17.6 (Debian 17.6-1.pgdg12+1)` */
  readonly version: string
  readonly inRecovery: boolean
  readonly login: string
  readonly database: string
  readonly maxReplicationSlots: number
  /** Of all databases, whoever made them. */
  readonly slots: number
  readonly maxWalSenders: number
  readonly walSenders: number
  /** Milliseconds; 0: never. */
  readonly walSenderTimeoutMs: number
  /** Megabytes; -1: no limit. */
  readonly maxSlotWalKeepSizeMb: number
  /** Seconds; 0: never. Null before Postgres 18. */
  readonly idleSlotTimeoutS: number | null
  readonly maxConnections: number
  /** Of those, for superusers and, from Postgres 16 on, for whoever has pg_use_reserved_connections. */
  readonly reservedConnections: number
  /** Sessions of clients in all databases, this one too. */
  readonly sessions: number
  /** Of those, this login's in this database. */
  readonly ownSessions: number
  /** Null: none. */
  readonly loginConnectionLimit: number | null
  readonly databaseConnectionLimit: number | null
  readonly synchronousStandbyNames: string
  /** Readers of the whole WAL, by the name they are counted under. */
  readonly standbys: readonly string[]
  /** synchronized_standby_slots; none before Postgres 17. */
  readonly awaitedSlots: readonly { readonly slot: string; readonly isRead: boolean }[]
  /** Whether this login may see what other roles do. */
  readonly seesAll: boolean
  readonly roles: readonly RoleStanding[]
}

export interface RoleStanding {
  readonly role: string
  readonly exists: boolean
  readonly isMember: boolean
  readonly isSuperuser: boolean
  readonly bypassesRowSecurity: boolean
}

/** A transaction that holds the slot back: it has written, or is about to. */
export interface OpenTransaction {
  readonly pid: number
  /** Null where it is another role's, and this login may not see it. */
  readonly role: string | null
  readonly application: string | null
  readonly state: string | null
  readonly ageMs: number | null
  /** Transactions begun since. */
  readonly ageXids: number
}

export interface PreparedTransaction {
  readonly gid: string
  readonly database: string
  readonly owner: string
  readonly ageMs: number
}

/** @param roles JWT_ROLES */
export async function readServer(client: pg.ClientBase, roles: readonly string[]): Promise<ServerFacts> {
  const [row] = await queryText(client, serverSql, [JSON.stringify(roles)])
  return JSON.parse(row![0]!) as ServerFacts
}

export async function readTransactions(
  client: pg.ClientBase,
): Promise<{ open: OpenTransaction[]; prepared: PreparedTransaction[] }> {
  const [row] = await queryText(client, transactionsSql)
  return JSON.parse(row![0]!) as { open: OpenTransaction[]; prepared: PreparedTransaction[] }
}

/** pg_settings has numbers in the unit of the setting. */
const number = (name: string): string => `(SELECT setting::bigint FROM pg_settings WHERE name = '${name}')`

const serverSql = `
SELECT json_build_object(
  'versionNumber', current_setting('server_version_num')::int,
  'version', current_setting('server_version'),
  'inRecovery', pg_is_in_recovery(),
  'login', current_user,
  'database', current_database(),
  'maxReplicationSlots', ${number('max_replication_slots')},
  'slots', (SELECT count(*) FROM pg_replication_slots),
  'maxWalSenders', ${number('max_wal_senders')},
  'walSenders', (SELECT count(*) FROM pg_stat_replication),
  'walSenderTimeoutMs', ${number('wal_sender_timeout')},
  'maxSlotWalKeepSizeMb', ${number('max_slot_wal_keep_size')},
  'idleSlotTimeoutS', ${number('idle_replication_slot_timeout')},
  'maxConnections', ${number('max_connections')},
  'reservedConnections', ${number('superuser_reserved_connections')} + coalesce(${number('reserved_connections')}, 0),
  'sessions', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' OR backend_type IS NULL AND datid IS NOT NULL),
  'ownSessions', (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename = current_user AND datname = current_database()),
  'loginConnectionLimit', (SELECT nullif(rolconnlimit, -1) FROM pg_roles WHERE rolname = current_user),
  'databaseConnectionLimit', (SELECT nullif(datconnlimit, -1) FROM pg_database WHERE datname = current_database()),
  'synchronousStandbyNames', current_setting('synchronous_standby_names'),
  'standbys', (SELECT coalesce(json_agg(DISTINCT r.application_name), '[]') FROM pg_stat_replication r
    WHERE coalesce(r.application_name, '') NOT IN ('', 'pg_basebackup')
      AND NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')),
  'awaitedSlots', (SELECT coalesce(json_agg(json_build_object('slot', awaited.slot, 'isRead', coalesce(s.active, false))), '[]')
    FROM (SELECT trim(both ' "' FROM slot) AS slot
      FROM string_to_table(coalesce(current_setting('synchronized_standby_slots', true), ''), ',') AS slot) AS awaited
    LEFT JOIN pg_replication_slots s ON s.slot_name = awaited.slot WHERE awaited.slot <> ''),
  'seesAll', pg_has_role(current_user, 'pg_read_all_stats', 'USAGE'),
  'roles', (SELECT coalesce(json_agg(json_build_object(
      'role', wanted.role, 'exists', r.oid IS NOT NULL,
      'isMember', coalesce(pg_has_role(current_user, r.oid,
        CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END), false),
      'isSuperuser', coalesce(r.rolsuper, false), 'bypassesRowSecurity', coalesce(r.rolbypassrls, false))), '[]')
    FROM json_array_elements_text($1::json) AS wanted (role) LEFT JOIN pg_roles r ON r.rolname = wanted.role)
)::text`

// What others do is hidden without pg_read_all_stats, but for their locks: each transaction that has an id holds one on it.
const transactionsSql = `
SELECT json_build_object(
  'open', (SELECT coalesce(json_agg(json_build_object(
      'pid', l.pid, 'role', a.usename, 'application', nullif(a.application_name, ''), 'state', a.state,
      'ageMs', round(extract(epoch FROM clock_timestamp() - a.xact_start) * 1000), 'ageXids', age(l.transactionid))
      ORDER BY age(l.transactionid) DESC), '[]')
    FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'transactionid' AND l.mode = 'ExclusiveLock' AND l.granted AND l.pid IS NOT NULL AND l.pid <> pg_backend_pid()),
  'prepared', (SELECT coalesce(json_agg(json_build_object(
      'gid', gid, 'database', database, 'owner', owner,
      'ageMs', round(extract(epoch FROM clock_timestamp() - prepared) * 1000)) ORDER BY prepared), '[]')
    FROM pg_prepared_xacts)
)::text`
