// Takes Tidegate out of the database: the slots first, because a slot without a reader fills the disk, then everything
// that `migrate` and `track` made, and nothing else.
import pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { connectionOf, PreferringClient } from '../postgres/postgres-url.ts'
import { dropSlot, readSlots } from '../wal/slot.ts'
import { type Administrator, type AdminOptions, asAdministrator, type Output } from './administrator.ts'
import { replacedFunctions } from './adopted-realtime.ts'
import { restoreStatements, restoreWarnings, type TrackedTable, trackedTables } from './memory.ts'
import { messagesRemoval } from './messages-removal.ts'
import { block, identifier, literal, printScripts, runScript, type Script } from './script.ts'

export interface RemoveOptions extends AdminOptions {
  /** Also while a server streams: its session is ended. */
  readonly force?: boolean
  /** Write the script, change nothing. */
  readonly dryRun?: boolean
}

/** @throws SLOT_BUSY while a server streams, and nothing has changed; PRIVILEGE_MISSING, LOCK_TIMEOUT,
 *  DATABASE_UNREACHABLE */
export async function remove(options: RemoveOptions, out: Output): Promise<void> {
  await asAdministrator(options, out, async administrator => {
    const { client, lockTimeoutMs } = administrator
    const slots = await readSlots(client, options.name)
    const busy = slots.find(slot => slot.activePid !== null)
    if (busy !== undefined && options.force !== true && options.dryRun !== true)
      throw new TidegateError(
        'SLOT_BUSY',
        `a server still streams from the slot ${busy.slotName} (process ${busy.activePid} of Postgres); stop it, or end its session with --force`,
      )
    const tables = (await isInstalled(client)) ? await trackedTables(client, options.name) : null
    const script = tables === null ? null : await removalScript(client, options.name, tables)
    const warnings = (tables ?? []).flatMap(restoreWarnings)
    if (options.dryRun) {
      out.write('-- Nothing was run (--dry-run).\n')
      for (const warning of warnings) out.write(`-- warning: ${warning}\n`)
      const slotScript: Script = {
        title: 'Slots',
        before: slots.map(slot => `SELECT pg_drop_replication_slot(${literal(slot.slotName)})`),
        statements: [],
        after: [],
      }
      out.write(printScripts(script === null ? [slotScript] : [slotScript, script], lockTimeoutMs))
      return
    }
    await dropSlots(administrator, options, out)
    if (script !== null) await runScript(client, script)
    for (const warning of warnings) out.write(`  warning: ${warning}\n`)
    out.write(script === null ? 'there is nothing of Tidegate in this database\n' : 'removed\n')
  })
}

/** Dropping a slot needs REPLICATION, which the administrator may lack and the server's login has. */
async function dropSlots({ client, login, user }: Administrator, options: RemoveOptions, out: Output): Promise<void> {
  const { rows } = await client.query<{ may: boolean }>(
    'SELECT rolsuper OR rolreplication AS may FROM pg_roles WHERE rolname = current_user',
  )
  if (rows[0]?.may === true || login === user) return await dropSlotsAs(client, options.name, out)
  const own = new PreferringClient({ ...connectionOf(options.databaseUrl), application_name: 'tidegate admin' })
  own.on('error', () => {})
  try {
    await own.connect()
    await dropSlotsAs(own, options.name, out)
  } finally {
    await own.end()
  }
}

async function dropSlotsAs(client: pg.ClientBase, name: string, out: Output): Promise<void> {
  // A running server connects again as soon as its session has ended; a few rounds win against its backoff.
  for (let round = 0; round < 20; round++) {
    const slots = await readSlots(client, name)
    if (slots.length === 0) return
    for (const slot of slots) {
      if (slot.activePid !== null) await client.query('SELECT pg_terminate_backend($1, 5000)', [slot.activePid])
      try {
        await dropSlot(client, slot.slotName)
        out.write(`dropped the slot ${slot.slotName}\n`)
      } catch (error) {
        // 55006: taken again in between. 42704: gone already.
        if (!(error instanceof pg.DatabaseError && (error.code === '55006' || error.code === '42704'))) throw error
      }
    }
  }
  throw new TidegateError('SLOT_BUSY', `a server takes the slot of "${name}" again and again; stop it first`)
}

async function isInstalled(client: pg.ClientBase): Promise<boolean> {
  const { rows } = await client.query<{ found: boolean }>(
    `SELECT to_regclass('tidegate.installed') IS NOT NULL AS found`,
  )
  return rows[0]?.found === true
}

interface Installed {
  readonly kind: 'adopted' | 'publication' | 'event trigger' | 'role' | 'schema' | 'table' | 'member' | 'usage'
  readonly name: string
  readonly detail: string
}

async function removalScript(client: pg.ClientBase, name: string, tables: readonly TrackedTable[]): Promise<Script> {
  const { rows: installed } = await client.query<Installed>(
    `SELECT kind, name, detail FROM tidegate.installed WHERE kind <> 'publication'
       OR name IN (SELECT pubname FROM pg_publication) ORDER BY kind, name, detail`,
  )
  const others = installed.filter(each => each.kind === 'publication' && each.name !== name).map(each => each.name)
  const statements: string[] = []
  // The publication first: without it no replica identity is asked for.
  if (installed.some(each => each.kind === 'publication' && each.name === name))
    statements.push(`DROP PUBLICATION ${identifier(name)}`)
  for (const table of tables) statements.push(...restoreStatements(table, name, true))
  if (others.length > 0)
    statements.push(`DELETE FROM tidegate.installed WHERE kind = 'publication' AND name = ${literal(name)}`)
  else statements.push(...(await conventionStatements(client, installed)), 'DROP SCHEMA tidegate CASCADE')
  const rest = others.length > 0 ? `\nThe schema tidegate and the conventions stay for: ${others.join(', ')}` : ''
  return { title: `Remove the deployment "${name}"${rest}`, before: [], statements, after: [] }
}

async function conventionStatements(client: pg.ClientBase, installed: readonly Installed[]): Promise<string[]> {
  const { rows: functions } = await client.query<{ signature: string }>(
    `SELECT i.signature FROM tidegate.installed_function i JOIN pg_proc p ON p.oid = to_regprocedure(i.signature)
     WHERE p.pronamespace <> 'tidegate'::regnamespace AND i.body_hash = md5(p.prosrc) ORDER BY 1`,
  )
  const of = (kind: Installed['kind']): Installed[] => installed.filter(each => each.kind === kind)
  const replaced = await replacedFunctions(client)
  const signatures = functions
    .map(({ signature }) => signature)
    .filter(signature => !replaced.some(each => each.signature === signature))
  const isOfMessages = (signature: string): boolean => signature.startsWith('realtime.')
  return [
    ...of('event trigger').map(({ name }) => `DROP EVENT TRIGGER IF EXISTS ${identifier(name)}`),
    ...replaced.map(({ definition }) => definition.trimEnd()),
    ...messagesRemoval({
      functions: signatures.filter(isOfMessages),
      hasTable: of('table').some(({ name }) => name === 'realtime.messages'),
      hasSchema: of('schema').some(({ name }) => name === 'realtime'),
    }),
    ...signatures.filter(each => !isOfMessages(each)).map(each => dropUnlessNeeded(`FUNCTION ${each}`)),
    ...of('schema').flatMap(({ name }) =>
      name === 'realtime' ? [] : [dropUnlessNeeded(`SCHEMA ${identifier(name)}`)],
    ),
    // While one of the functions stays, those who call it need the schema.
    ...of('usage').flatMap(({ name, detail }) => (name === 'tidegate' ? [] : [revokeUsage(name, detail)])),
    ...of('member').map(({ name, detail }) => revokeMember(name, detail)),
    ...of('role').map(({ name }) => dropRole(name)),
  ]
}

/** Postgres knows what depends on it: policies, views, other databases. Then it stays, and a warning says so. */
const dropUnlessNeeded = (what: string): string =>
  block(
    `  DROP ${what};
EXCEPTION
  WHEN undefined_object OR undefined_function OR invalid_schema_name THEN
    NULL;
  WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
    RAISE WARNING USING MESSAGE = ${literal(`kept: ${what}: `)} || coalesce(nullif(reason, ''), SQLERRM);`,
    '  reason text;',
  )

const revokeUsage = (schema: string, role: string): string =>
  block(`  IF to_regnamespace(${literal(identifier(schema))}) IS NOT NULL AND to_regrole(${literal(identifier(role))}) IS NOT NULL
    AND NOT EXISTS (SELECT FROM pg_proc p JOIN tidegate.installed_function i ON p.oid = to_regprocedure(i.signature)
      WHERE p.pronamespace = to_regnamespace(${literal(identifier(schema))})) THEN
    REVOKE USAGE ON SCHEMA ${identifier(schema)} FROM ${identifier(role)};
  END IF;`)

const revokeMember = (role: string, login: string): string =>
  block(`  IF to_regrole(${literal(identifier(role))}) IS NOT NULL AND to_regrole(${literal(identifier(login))}) IS NOT NULL THEN
    REVOKE ${identifier(role)} FROM ${identifier(login)};
  END IF;`)

/** DROP ROLE takes memberships with it without a word; a role that others are members of is in use. */
const dropRole = (role: string): string =>
  block(
    `  SELECT string_agg(member::regrole::text, ', ') INTO reason FROM pg_auth_members
    WHERE roleid = to_regrole(${literal(identifier(role))}) AND member <> (SELECT oid FROM pg_roles WHERE rolname = current_user);
  IF reason IS NOT NULL THEN
    RAISE WARNING USING MESSAGE = ${literal(`kept: ROLE ${identifier(role)}: granted to `)} || reason;
  ELSE
    DROP ROLE ${identifier(role)};
  END IF;
EXCEPTION
  WHEN undefined_object THEN
    NULL;
  WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
    RAISE WARNING USING MESSAGE = ${literal(`kept: ROLE ${identifier(role)}: `)} || coalesce(nullif(reason, ''), SQLERRM);`,
    '  reason text;',
  )
