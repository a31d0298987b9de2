// What `migrate` makes besides its own schema: the publication, the conventions where they are missing, the grants of the
// server's login. Each statement looks first and writes down what it made, so that it can run again, and so that `remove`
// drops nothing that was there before.
import { adoptionStatements } from './adopted-realtime.ts'
import { ensureExecute, ensureFunction, ensureUsage, remember } from './ensure.ts'
import { messagesStatements } from './messages-table.ts'
import type { InstalledFunction } from './migrations.ts'
import { block, identifier, literal, type Script } from './script.ts'

export const conventionRoles = ['anon', 'authenticated'] as const

export interface Installation {
  readonly publication: string
  /** Who runs `start`. */
  readonly login: string
  /** Of the conventions; empty when they are left out. */
  readonly roles: readonly string[]
  /** Those that a token may name: they may be let into channels, as far as they exist. */
  readonly memberRoles: readonly string[]
  /** All of migrations/functions; those of the schema auth only with roles. */
  readonly functions: readonly InstalledFunction[]
  /** Take over a schema `realtime` that somebody else made. */
  readonly adoptsRealtime: boolean
}

/** Keeps the application's writes going through its own migrations. */
export const eventTrigger = 'tidegate_keep_writable'

/** Announce in the stream that the catalog changed: see migrations/functions/tidegate.announce_catalog.sql. */
export const announcingTriggers = ['tidegate_announce', 'tidegate_announce_drop'] as const

export function installationScript(installation: Installation): Script {
  const { publication, login, roles, memberRoles, functions, adoptsRealtime } = installation
  const hasConventions = roles.length > 0
  const of = (schema: string) => functions.filter(({ signature }) => signature.startsWith(`${schema}.`))
  const wanted = [...(hasConventions ? of('auth') : []), ...of('tidegate')]
  const statements = [ensurePublication(publication), ...ownTables.map(table => ensurePublished(publication, table))]
  if (hasConventions) statements.push(ensureSchema)
  for (const role of roles) statements.push(ensureRole(role))
  statements.push(...wanted.map(ensureFunction), ensureEventTrigger, ensureAnnouncingTriggers)
  for (const role of roles) statements.push(ensureUsage('auth', role), ensureMember(role, login))
  statements.push(ensureUsage('tidegate', login), ensureKey(login), ensureOrders(login), ensureMemory(login))
  for (const { signature } of wanted)
    if (/^tidegate\.(kick|revoke|refresh|delete_messages|keep_partitions)\(/.test(signature))
      statements.push(ensureExecute(signature, login))
  statements.push(...messagesStatements({ publication, memberRoles, functions: of('realtime') }))
  if (adoptsRealtime) statements.push(...adoptionStatements(of('realtime')))
  const parts = hasConventions ? ', the conventions where they are missing' : ''
  return { title: `The publication${parts}, and the grants of ${login}`, before: [], statements, after: [] }
}

// publish_via_partition_root: a partitioned table's changes come under its own name, whatever partitions come and go.
// publish_generated_columns: without it Postgres 18 refuses the application's UPDATE on a table under FULL as soon as it
// has a stored generated column.
const ensurePublication = (name: string): string =>
  block(`  IF NOT EXISTS (SELECT FROM pg_publication WHERE pubname = ${literal(name)}) THEN
    CREATE PUBLICATION ${identifier(name)} WITH (publish_via_partition_root = true);
    IF current_setting('server_version_num')::int >= 180000 THEN
      EXECUTE ${literal(`ALTER PUBLICATION ${identifier(name)} SET (publish_generated_columns = stored)`)};
    END IF;
    ${remember('publication', name)}
  ELSIF NOT EXISTS (SELECT FROM tidegate.installed WHERE kind = 'publication' AND name = ${literal(name)}) THEN
    RAISE EXCEPTION USING ERRCODE = 'TG001', MESSAGE = ${literal(`the publication ${identifier(name)} exists, and Tidegate did not make it`)},
      HINT = ${literal(`set TIDEGATE_NAME to another name, or drop it: DROP PUBLICATION ${identifier(name)}`)};
  END IF;`)

/** Tables of ours whose rows come through the stream. */
const ownTables = ['tidegate.orders']

/** @param table its name in SQL */
const ensurePublished = (publication: string, table: string): string =>
  block(`  IF NOT EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = ${literal(publication)} AND r.prrelid = ${literal(table)}::regclass) THEN
    ALTER PUBLICATION ${identifier(publication)} ADD TABLE ${table};
  END IF;`)

const ensureSchema = block(`  IF to_regnamespace('auth') IS NULL THEN
    CREATE SCHEMA auth;
    ${remember('schema', 'auth')}
  END IF;`)

// Roles belong to the whole cluster: two databases may be migrated at the same moment, and the second finds the role there.
const ensureRole = (role: string): string =>
  block(`  IF to_regrole(${literal(identifier(role))}) IS NULL THEN
    BEGIN
      CREATE ROLE ${identifier(role)} NOLOGIN NOINHERIT;
      ${remember('role', role)}
    EXCEPTION WHEN duplicate_object OR unique_violation THEN
      NULL;
    END;
  END IF;`)

// Only a superuser may make one (some providers let their administrators). Without it the same is for `track` to repair.
const ensureEventTrigger = block(`  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = '${eventTrigger}') THEN
    BEGIN
      CREATE EVENT TRIGGER ${eventTrigger} ON ddl_command_end WHEN TAG IN ('CREATE TABLE', 'ALTER TABLE', 'DROP INDEX')
        EXECUTE FUNCTION tidegate.keep_writable();
      ${remember('event trigger', eventTrigger)}
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING USING MESSAGE = 'no event trigger could be made (it takes a superuser): after adding a partition to a tracked table, and before dropping its primary key, run tidegate track; on Postgres 18 add no virtual generated column to a tracked table';
    END;
  END IF;`)

// What changes who may read a table that is followed. CREATE TABLE for partitions. Roles fire no event trigger: they, and all
// of it where no trigger can be made, are polled for.
const announcedTags = [
  'ALTER DOMAIN',
  'ALTER FUNCTION',
  'ALTER POLICY',
  'ALTER PUBLICATION',
  'ALTER ROUTINE',
  'ALTER SCHEMA',
  'ALTER TABLE',
  'ALTER TYPE',
  'CREATE FUNCTION',
  'CREATE POLICY',
  'CREATE TABLE',
  'DROP OWNED',
  'GRANT',
  'REVOKE',
]

const ensureAnnouncingTriggers =
  block(`  IF NOT EXISTS (SELECT FROM pg_event_trigger WHERE evtname = '${announcingTriggers[0]}') THEN
    BEGIN
      CREATE EVENT TRIGGER ${announcingTriggers[0]} ON ddl_command_end WHEN TAG IN (${announcedTags.map(literal).join(', ')})
        EXECUTE FUNCTION tidegate.announce_catalog();
      CREATE EVENT TRIGGER ${announcingTriggers[1]} ON sql_drop EXECUTE FUNCTION tidegate.announce_catalog();
      ${announcingTriggers.map(name => remember('event trigger', name)).join('\n      ')}
    EXCEPTION WHEN insufficient_privilege THEN
      RAISE WARNING USING MESSAGE = 'no event trigger could be made (it takes a superuser): a change of a policy or a privilege takes effect within two seconds, not at its own commit';
    END;
  END IF;`)

// With it the login could announce changes, and hold the stream up with that: nothing it could not do anyway.
const ensureKey = (login: string): string =>
  block(`  IF NOT has_table_privilege(${literal(login)}, 'tidegate.catalog_key', 'SELECT') THEN
    GRANT SELECT ON tidegate.catalog_key TO ${identifier(login)};
  END IF;`)

// For the doctor: which migrations have run, and which functions somebody has changed since.
const ensureMemory = (login: string): string =>
  block(`  IF NOT has_table_privilege(${literal(login)}, 'tidegate.kysely_migration', 'SELECT')
    OR NOT has_table_privilege(${literal(login)}, 'tidegate.installed_function', 'SELECT') THEN
    GRANT SELECT ON tidegate.kysely_migration, tidegate.installed_function TO ${identifier(login)};
  END IF;`)

// Deleting is for those that are over.
const ensureOrders = (login: string): string =>
  block(`  IF NOT has_table_privilege(${literal(login)}, 'tidegate.orders', 'SELECT')
    OR NOT has_table_privilege(${literal(login)}, 'tidegate.orders', 'DELETE') THEN
    GRANT SELECT, DELETE ON tidegate.orders TO ${identifier(login)};
  END IF;`)

// From 16 on a role's creator is its member without the right to SET ROLE, which is what the server needs.
const ensureMember = (role: string, login: string): string =>
  block(`  IF NOT pg_has_role(${literal(login)}, ${literal(role)},
    CASE WHEN current_setting('server_version_num')::int >= 160000 THEN 'SET' ELSE 'MEMBER' END) THEN
    GRANT ${identifier(role)} TO ${identifier(login)};
    ${remember('member', role, login)}
  END IF;`)
