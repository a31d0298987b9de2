// Installs what Tidegate needs in the database, or prints it for someone else to run.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import {
  type AdminOptions,
  asAdministrator,
  defaultLockTimeoutMs,
  loginOf,
  type Output,
} from '../../server/admin/administrator.ts'
import { conventionRoles, installationScript } from '../../server/admin/installation.ts'
import { applyMigrations, migrationScript, readFunctions } from '../../server/admin/migrations.ts'
import { findingLine, findingsOfRealtimeSchema } from '../../server/admin/realtime-findings.ts'
import { printScripts, runScript } from '../../server/admin/script.ts'

export interface MigrateOptions extends AdminOptions {
  /** Roles anon and authenticated, auth.uid(), auth.jwt(), auth.role(), where they are missing. Default true. */
  readonly conventions?: boolean
  /** JWT_ROLES: those that exist get what a member of a channel needs beside policies. Default: anon and authenticated. */
  readonly memberRoles?: readonly string[]
  /** Take over the schema `realtime` of a Supabase whose Realtime is switched off: its realtime.send and send_binary are replaced, its daily
   *  partitions kept. Default false: it is left as it is. */
  readonly adoptRealtime?: boolean
  /** Write the complete script for psql, and connect to nothing. */
  readonly print?: boolean
  /** The same, marked as not run. */
  readonly dryRun?: boolean
}

/** @throws PRIVILEGE_MISSING, LOCK_TIMEOUT, DATABASE_UNREACHABLE, VERSION_UNSUPPORTED, CONFIG_INVALID */
export async function migrate(options: MigrateOptions, out: Output): Promise<void> {
  const conventions = options.conventions ?? true
  const installation = installationScript({
    publication: options.name,
    login: loginOf(options.databaseUrl),
    roles: conventions ? conventionRoles : [],
    memberRoles: options.memberRoles ?? conventionRoles,
    functions: await readFunctions(),
    adoptsRealtime: options.adoptRealtime ?? false,
  })
  if (options.print || options.dryRun) {
    const scripts = [await migrationScript(), installation]
    if (options.dryRun) out.write('-- Nothing was run (--dry-run).\n')
    out.write(printScripts(scripts, options.lockTimeoutMs ?? defaultLockTimeoutMs))
    return
  }
  await asAdministrator(options, out, async ({ client, user, login }) => {
    const { rows } = await client.query('SELECT FROM pg_roles WHERE rolname = $1', [login])
    if (rows.length === 0)
      throw new TidegateError(
        'CONFIG_INVALID',
        `DATABASE_URL connects as ${login}, and there is no such role; CREATE ROLE "${login}" LOGIN REPLICATION PASSWORD '...'`,
      )
    const applied = await applyMigrations(client)
    await runScript(client, installation)
    for (const name of applied) out.write(`applied ${name}\n`)
    out.write(`the publication "${options.name}" is there; ${login} may use what Tidegate needs (as ${user})\n`)
    // The script has warned of that one, with the reason.
    for (const finding of await findingsOfRealtimeSchema(client, options.name))
      if (finding.kind !== 'MESSAGES_UNPUBLISHED') out.write(findingLine(finding))
    out.write('next: tidegate track <table> for each table that people subscribe to, and each that its policies read\n')
  })
}
