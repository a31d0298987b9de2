// What the doctor looks at in the database: every check with the question that it answers.
import type { CheckArea, Remedy } from './finding.ts'

export interface Check {
  readonly area: CheckArea
  /** As a question: `Does a server answer ...?` */
  readonly asks: string
}

const postgres = (asks: string): Check => ({ area: 'postgres', asks })
const policies = (asks: string): Check => ({ area: 'policies', asks })

// biome-ignore format: one check, one line
export const databaseChecks = {
  'postgres-reachable': postgres('Does a server answer at DATABASE_URL, and let its login in?'),
  'postgres-primary': postgres('Is it a primary? A standby has nothing to lead from.'),
  'postgres-version': postgres('Is it Postgres 14 or later?'),
  'postgres-minor': postgres('Is its minor release free of known faults that concern logical decoding, row-level security or indexes?'),
  pooler: postgres('Does a pooler stand in between? The stream needs a connection of its own.'),
  'replication-connection': postgres('Is a replication connection let in?'),
  'replication-privilege': postgres('May the login stream the WAL?'),
  'wal-level': postgres('Does the WAL carry rows (wal_level = logical)?'),
  'replication-slots': postgres('Is there a replication slot left for Tidegate, and one beside it while a slot is replaced?'),
  'wal-senders': postgres('Is there a walsender left for the leader, and one beside it while the leader changes?'),
  'wal-sender-timeout': postgres('Does the server notice a reader of the WAL that is gone?'),
  'slot-wal-limit': postgres('While no node runs, does max_slot_wal_keep_size keep the disk from filling, and leave room for SLOT_MAX_BYTES?'),
  'slot-idle-timeout': postgres('Does the server invalidate slots that rest (idle_replication_slot_timeout)?'),
  slot: postgres('Is the slot of this deployment there, alone, usable and read?'),
  'slot-wal': postgres('How much WAL does the slot hold back, of SLOT_MAX_BYTES?'),
  'long-transactions': postgres('Does a transaction run for so long that the slot cannot move past it?'),
  'prepared-transactions': postgres('Does a prepared transaction that nobody ends hold the slot back?'),
  'synchronous-standbys': postgres('Does synchronous_standby_names count readers of the WAL as standbys?'),
  'awaited-standbys': postgres('Are the standbys there that the slot waits for (synchronized_standby_slots)?'),
  connections: postgres('Has max_connections room for DATABASE_POOL?'),
  clock: postgres('Do the clocks of this machine and of Postgres agree?'),
  roles: postgres('Is each role of JWT_ROLES there, and may the login take it?'),
  'role-powers': postgres('Does a role of JWT_ROLES see past row-level security?'),
  schema: postgres('Is the schema tidegate installed, as this release needs it?'),
  'login-grants': postgres('May the login use what migrate installed?'),
  'event-triggers': postgres('Do event triggers announce changes of policies, and keep tracked tables writable?'),
  publication: postgres('Is the publication there?'),
  'publication-operations': postgres('Does the publication publish inserts, updates, deletes and truncates?'),
  'publication-root': postgres('Do the changes of partitions come under the name of their table?'),
  'publication-generated': postgres('Does the publication carry stored generated columns (Postgres 18)?'),
  'publication-scope': postgres('Does the publication hold the tracked tables alone, by name?'),
  'publication-filter': postgres('Are tables published whole, without row filters and column lists?'),
  realtime: postgres('Is all well with the schema realtime, where messages are sent from SQL?'),
  'table-kind': policies('Can the table be followed: not unlogged, foreign, or an inheritance parent?'),
  'primary-key': policies('Does the table have a primary key?'),
  'row-security': policies('Is row-level security on?'),
  'table-access': policies('May the role SELECT the table and its primary key?'),
  'policy-missing': policies('Does a policy let the role see any row?'),
  'policy-asked': policies('Are policies judged here, or must Postgres be asked?'),
  'policy-raises': policies('Do policies raise, so that the table is refused?'),
  'policy-inputs': policies('Are the tables that policies read tracked?'),
  'replica-identity': policies('Do old rows carry the columns that policies read?'),
  'index-readable': policies('Can the login read what decides whole?'),
} as const satisfies Record<string, Check>

export type DatabaseCheck = keyof typeof databaseChecks

/** @param text statements on lines of their own @param then what must follow: `restart Postgres` */
export const sql = (text: string, then: string | null = null): Remedy => ({ kind: 'sql', text, then })
