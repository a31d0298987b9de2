// What must be true of the database before a slot can be read, each with the statement that makes it so.
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type Lane, queryText } from '../postgres/database.ts'
import { reasonOf } from '../postgres/postgres-url.ts'
import { poolerRefusal } from './own-session.ts'

export interface DatabaseFacts {
  readonly versionNumber: number
  readonly walLevel: string
  readonly user: string
  /** By its attribute, as a superuser, or by the role that stands for it on Amazon RDS. */
  readonly mayReplicate: boolean
  readonly hasPublication: boolean
  /** As `SHOW` prints it. */
  readonly maxSlotWalKeepSize: string
  readonly synchronousStandbyNames: string
}

/** What keeps a slot from being read. */
export interface Shortcoming {
  readonly code: 'VERSION_UNSUPPORTED' | 'WAL_LEVEL' | 'NOT_REPLICATION' | 'PUBLICATION_MISSING'
  /** `wal_level is replica` */
  readonly reason: string
  /** The statement that mends it; null where none does. */
  readonly sql: string | null
  /** As a start says it, after the reason. */
  readonly advice: string
}

/** All of them, the worst first: the start refuses by the first, the doctor tells each. */
export function shortcomingsOf(facts: DatabaseFacts, publication: string): Shortcoming[] {
  const { walLevel, user } = facts
  const found: Shortcoming[] = []
  const version = Math.trunc(facts.versionNumber / 10_000)
  if (version < 14)
    found.push({
      code: 'VERSION_UNSUPPORTED',
      reason: `this is Postgres ${version}`,
      sql: null,
      advice: '; Tidegate needs 14 or later: upgrade it',
    })
  if (walLevel !== 'logical') {
    const sql = 'ALTER SYSTEM SET wal_level = logical;'
    found.push({
      code: 'WAL_LEVEL',
      reason: `wal_level is ${walLevel}`,
      sql,
      advice: `; run ${sql} and restart Postgres`,
    })
  }
  if (!facts.mayReplicate) {
    const sql = `ALTER ROLE ${identifier(user)} REPLICATION;`
    found.push({
      code: 'NOT_REPLICATION',
      reason: `the login ${user} may not stream the WAL`,
      sql,
      advice: `; run ${sql}`,
    })
  }
  if (!facts.hasPublication) {
    const sql = `CREATE PUBLICATION ${identifier(publication)} WITH (publish_via_partition_root = true);`
    found.push({
      code: 'PUBLICATION_MISSING',
      reason: `there is no publication ${publication} in this database`,
      sql,
      advice: `; run tidegate migrate, or ${sql}`,
    })
  }
  return found
}

/** @throws VERSION_UNSUPPORTED, WAL_LEVEL, NOT_REPLICATION, PUBLICATION_MISSING */
export function assertReady(facts: DatabaseFacts, publication: string): void {
  const [first] = shortcomingsOf(facts, publication)
  if (first !== undefined) throw new TidegateError(first.code, `${first.reason}${first.advice}`)
}

/** The warning for a database whose disk a stopped consumer would fill, or null. */
export function keepSizeWarning(facts: DatabaseFacts, slotMaxBytes: number): string | null {
  if (facts.maxSlotWalKeepSize !== '-1') return null
  return `${keepSizeReason}; run ${keepSizeStatements(slotMaxBytes).join(' ')}`
}

export const keepSizeReason =
  'max_slot_wal_keep_size is -1: while no node runs, the slot keeps WAL until the disk is full'

/** Room for the slot's own limit, twice. Each on its own: ALTER SYSTEM runs in no transaction. */
export function keepSizeStatements(slotMaxBytes: number): string[] {
  const megabytes = Math.max(1024, Math.ceil((2 * slotMaxBytes) / 2 ** 20))
  return [`ALTER SYSTEM SET max_slot_wal_keep_size = '${megabytes}MB';`, 'SELECT pg_reload_conf();']
}

/** The warning for a database that counts every walsender as a standby, ours included, or null. An acknowledgement of
 *  ours would release commits on untracked tables that wait for a real one. */
export function standbyWarning(facts: DatabaseFacts): string | null {
  if (!countsEveryReader(facts.synchronousStandbyNames)) return null
  return `synchronous_standby_names is ${facts.synchronousStandbyNames}, which counts readers of the WAL like this one as standbys; name your standbys instead`
}

/** @param standbyNames synchronous_standby_names */
export const countsEveryReader = (standbyNames: string): boolean => /(^|[\s,(])("\*"|\*)/.test(standbyNames)

export async function readFacts(client: pg.ClientBase | Lane, publication: string): Promise<DatabaseFacts> {
  const [row] = await queryText(
    client,
    `SELECT current_setting('server_version_num'), current_setting('wal_level'), current_user,
            (rolreplication OR rolsuper OR EXISTS (
              SELECT FROM pg_roles WHERE rolname = 'rds_replication' AND pg_has_role(current_user, oid, 'member')))::text,
            EXISTS (SELECT FROM pg_publication WHERE pubname = $1)::text,
            current_setting('max_slot_wal_keep_size', true),
            current_setting('synchronous_standby_names')
       FROM pg_roles WHERE rolname = current_user`,
    [publication],
  )
  return {
    versionNumber: Number(row![0]),
    walLevel: row![1]!,
    user: row![2]!,
    mayReplicate: row![3] === 'true',
    hasPublication: row![4] === 'true',
    maxSlotWalKeepSize: row![5] ?? '-1',
    synchronousStandbyNames: row![6] ?? '',
  }
}

/** Names the database in errors of connecting; the password is left out. */
export async function reach<T>(databaseUrl: string, ask: () => Promise<T>): Promise<T> {
  try {
    return await ask()
  } catch (error) {
    const told = poolerRefusal(error)
    if (told instanceof TidegateError) throw told
    throw new TidegateError('DATABASE_UNREACHABLE', `no connection to ${place(databaseUrl)}: ${reasonOf(error)}`, {
      cause: error,
    })
  }
}

function place(databaseUrl: string): string {
  if (!URL.canParse(databaseUrl)) return 'the database'
  const url = new URL(databaseUrl)
  return `${url.username}@${url.host}${url.pathname}`
}

const identifier = (name: string): string => `"${name.replaceAll('"', '""')}"`
