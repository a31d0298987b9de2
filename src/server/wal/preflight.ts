// What must be true of the database before a slot can be read, each with the statement that makes it so.
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type Lane, queryText } from '../database.ts'

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

/** @throws VERSION_UNSUPPORTED, WAL_LEVEL, NOT_REPLICATION, PUBLICATION_MISSING */
export function assertReady(facts: DatabaseFacts, publication: string): void {
  const version = Math.trunc(facts.versionNumber / 10_000)
  if (version < 14)
    throw new TidegateError(
      'VERSION_UNSUPPORTED',
      `this is Postgres ${version}; Tidegate needs 14 or later: upgrade it`,
    )
  if (facts.walLevel !== 'logical')
    throw new TidegateError(
      'WAL_LEVEL',
      `wal_level is ${facts.walLevel}; run ALTER SYSTEM SET wal_level = logical; and restart Postgres`,
    )
  if (!facts.mayReplicate)
    throw new TidegateError(
      'NOT_REPLICATION',
      `the login ${facts.user} may not stream the WAL; run ALTER ROLE ${identifier(facts.user)} REPLICATION;`,
    )
  if (!facts.hasPublication)
    throw new TidegateError(
      'PUBLICATION_MISSING',
      `there is no publication ${publication} in this database; run tidegate migrate, or CREATE PUBLICATION ${identifier(publication)} WITH (publish_via_partition_root = true);`,
    )
}

/** The warning for a database whose disk a stopped consumer would fill, or null. */
export function keepSizeWarning(facts: DatabaseFacts, slotMaxBytes: number): string | null {
  if (facts.maxSlotWalKeepSize !== '-1') return null
  const megabytes = Math.max(1024, Math.ceil((2 * slotMaxBytes) / 2 ** 20))
  return `max_slot_wal_keep_size is -1: while no node runs, the slot keeps WAL until the disk is full; run ALTER SYSTEM SET max_slot_wal_keep_size = '${megabytes}MB'; SELECT pg_reload_conf();`
}

/** The warning for a database that counts every walsender as a standby, ours included, or null. An acknowledgement of
 *  ours would release commits on untracked tables that wait for a real one. */
export function standbyWarning(facts: DatabaseFacts): string | null {
  if (!/(^|[\s,(])("\*"|\*)/.test(facts.synchronousStandbyNames)) return null
  return `synchronous_standby_names is ${facts.synchronousStandbyNames}, which counts readers of the WAL like this one as standbys; name your standbys instead`
}

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
    if (error instanceof TidegateError) throw error
    const { message } = error as Error
    const reason = message === '' ? String((error as { code?: unknown }).code) : message
    throw new TidegateError('DATABASE_UNREACHABLE', `no connection to ${place(databaseUrl)}: ${reason}`, {
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
