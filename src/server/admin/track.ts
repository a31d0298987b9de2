// Tracks tables: runs the plan, or shows it, and says what it did and what is still missing.
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type Administrator, type AdminOptions, asAdministrator, type Output } from './administrator.ts'
import { columnsReadByPolicies, untrackedInputs } from './policy-inputs.ts'
import { isEmpty, printScripts, runScript } from './script.ts'
import { planTrack, type TrackPlan, type TrackWish } from './track-plan.ts'
import { type PublishedTable, readPublishedTables } from './track-publication.ts'
import { inspectTable, parseTableName, printName, type TableName, type TableState } from './tracked-table.ts'

export interface TrackOptions extends AdminOptions {
  /** `table` or `schema.table`; empty: those already tracked, to repair them (new partitions, a renamed table). */
  readonly tables: readonly string[]
  /** Also the tables of this publication, each on its own: one that cannot be tracked keeps none of the others from it. */
  readonly fromPublication?: string
  /** Instead of FULL, a unique index over the primary key and the columns that policies read. */
  readonly index?: boolean
  /** With `index`: these columns instead of those that policies read. */
  readonly columns?: readonly string[]
  /** Write the script for psql; the catalog is read, nothing is changed. */
  readonly print?: boolean
  /** The same, marked as not run. */
  readonly dryRun?: boolean
}

/** One transaction for each table.
 *  @throws TABLE_UNKNOWN, TABLE_UNSUPPORTED, NO_PRIMARY_KEY, COLUMN_UNKNOWN, IDENTITY_INSUFFICIENT, PUBLICATION_MISSING,
 *  PRIVILEGE_MISSING, LOCK_TIMEOUT, DATABASE_UNREACHABLE; tables before the one refused stay tracked. Of a publication's
 *  tables the first refusal, once all others are tracked; CONFIG_INVALID */
export async function track(options: TrackOptions, out: Output): Promise<void> {
  const isShown = options.print === true || options.dryRun === true
  await asAdministrator(options, out, async administrator => {
    const { client, lockTimeoutMs } = administrator
    // Both scripts can be printed at once, before any of them has run.
    if (!isShown) await requirePublication(client, options.name)
    const wanted = await wantedTables(client, options, out)
    const done: PlannedTable[] = []
    const refused: TidegateError[] = []
    const prefix = isShown ? '-- ' : ''
    if (options.dryRun) out.write('-- Nothing was run (--dry-run).\n')
    for (const table of wanted) {
      try {
        const planned = await plan(administrator, options, table)
        if (!isShown) {
          await runScript(client, planned.script)
          report(printName(table), planned, out)
        } else for (const warning of planned.warnings) out.write(`-- warning: ${warning}\n`)
        done.push(planned)
      } catch (error) {
        if (!table.isOnItsOwn || !isOfTable(error)) throw error
        out.write(`${prefix}${printName(table)}: not tracked: ${error.code}: ${error.message}\n`)
        refused.push(error)
      }
      for (const warning of table.warnings) out.write(`${isShown ? '-- ' : '  '}warning: ${warning}\n`)
    }
    await reportUntracked(client, options.name, done, prefix, out)
    if (isShown)
      out.write(
        printScripts(
          done.map(each => each.script),
          lockTimeoutMs,
        ),
      )
    if (refused.length > 0) throw notAll(refused, wanted.length)
  })
}

interface WantedTable extends TableName {
  /** It came with a publication. */
  readonly isOnItsOwn: boolean
  readonly warnings: readonly string[]
}

async function wantedTables(client: pg.ClientBase, options: TrackOptions, out: Output): Promise<WantedTable[]> {
  const { fromPublication, name } = options
  const named = options.tables.map(parseTableName)
  if (fromPublication !== undefined) {
    const { tables, warnings } = await readPublishedTables(client, fromPublication, name)
    const prefix = options.print === true || options.dryRun === true ? '-- ' : ''
    if (tables.length === 0) out.write(`${prefix}the publication "${fromPublication}" has no tables\n`)
    for (const warning of warnings) out.write(`${prefix}warning: ${warning}\n`)
    const names = new Set(named.map(printName))
    const others: readonly PublishedTable[] = tables.filter(table => !names.has(printName(table)))
    return [...named.map(plainly), ...others.map(table => ({ ...table, isOnItsOwn: true }))]
  }
  const tables = named.length > 0 ? named : await trackedTables(client, name)
  if (tables.length === 0) out.write('no table is tracked yet; name one: tidegate track <table>\n')
  return tables.map(plainly)
}

const plainly = (table: TableName): WantedTable => ({ ...table, isOnItsOwn: false, warnings: [] })

/** What says of one table that it cannot be tracked, and nothing of the next. */
const isOfTable = (error: unknown): error is TidegateError =>
  error instanceof TidegateError &&
  ['TABLE_UNKNOWN', 'TABLE_UNSUPPORTED', 'NO_PRIMARY_KEY', 'COLUMN_UNKNOWN', 'IDENTITY_INSUFFICIENT'].includes(
    error.code,
  )

const notAll = (refused: readonly TidegateError[], count: number): TidegateError =>
  new TidegateError(
    refused[0]!.code,
    `${refused.length} of ${count} tables ${refused.length === 1 ? 'is' : 'are'} not tracked, the first because ${refused[0]!.message}`,
  )

/** For `start` with TRACK: with whatever rights the login of databaseUrl has. A table that is in order needs none.
 *  @throws as `track`; PRIVILEGE_MISSING names the command to run */
export async function trackAtStart(
  options: Omit<AdminOptions, 'adminUrl'> & { readonly tables: readonly string[] },
  out: Output,
): Promise<void> {
  const access = { ...options, adminUrl: null }
  if (options.tables.length === 0) return
  await asAdministrator(access, out, async administrator => {
    await requirePublication(administrator.client, options.name)
    for (const name of options.tables) {
      try {
        const planned = await plan(administrator, access, parseTableName(name))
        if (isEmpty(planned.script)) continue
        await runScript(administrator.client, planned.script)
        report(name, planned, out)
      } catch (error) {
        if (!isPrivilegeMissing(error)) throw error
        throw new TidegateError(
          'PRIVILEGE_MISSING',
          `TRACK names ${name}, which ${administrator.user} may not track (${error.message}); run as the owner of the table or a superuser: ADMIN_DATABASE_URL=... tidegate track ${name}`,
          { cause: error },
        )
      }
    }
  })
}

/** @throws PUBLICATION_MISSING */
export async function requirePublication(client: pg.ClientBase, publication: string): Promise<void> {
  const { rows } = await client.query<{ found: boolean }>(
    `SELECT to_regnamespace('tidegate') IS NOT NULL AND EXISTS (SELECT FROM pg_publication WHERE pubname = $1) AS found`,
    [publication],
  )
  if (rows[0]?.found !== true)
    throw new TidegateError(
      'PUBLICATION_MISSING',
      `the publication "${publication}" is not in this database; run: tidegate migrate`,
    )
}

interface PlannedTable extends TrackPlan {
  readonly table: TableState
}

async function plan(
  { client, login }: Administrator,
  options: Pick<TrackOptions, 'name' | 'index' | 'columns'>,
  { schema, name }: TableName,
): Promise<PlannedTable> {
  const table = await inspectTable(client, { schema, name }, options.name, login)
  const wish: TrackWish = {
    publication: options.name,
    login,
    policyColumns: await columnsReadByPolicies(client, table),
    identity: options.index === true ? { indexOver: options.columns ?? null } : 'full',
  }
  return { ...planTrack(table, wish), table }
}

function report(name: string, { changes, warnings }: TrackPlan, out: Output): void {
  out.write(`${name}: ${changes.length === 0 ? 'tracked already' : 'tracked'}\n`)
  for (const change of changes) out.write(`  ${change}\n`)
  for (const warning of warnings) out.write(`  warning: ${warning}\n`)
}

async function reportUntracked(
  client: pg.ClientBase,
  publication: string,
  planned: readonly PlannedTable[],
  prefix: string,
  out: Output,
): Promise<void> {
  const inputs = new Set<string>()
  // Policies on the table of messages say who may be in a channel.
  const { rows: messages } = await client.query<{ oid: number }>(
    `SELECT c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'realtime' AND c.relname = 'messages'`,
  )
  for (const table of [...planned.map(each => each.table), ...messages])
    for (const input of await untrackedInputs(client, table, publication)) inputs.add(printName(input))
  for (const { table } of planned) inputs.delete(printName(table))
  if (inputs.size === 0) return
  const missing = [...inputs].sort().join(' ')
  out.write(`${prefix}policies read tables that are not tracked; run: tidegate track ${missing}\n`)
}

async function trackedTables(client: pg.ClientBase, publication: string): Promise<TableName[]> {
  const { rows } = await client.query<TableName>(
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_publication_rel r
     JOIN pg_publication p ON p.oid = r.prpubid JOIN pg_class c ON c.oid = r.prrelid
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE p.pubname = $1
       AND n.nspname <> 'tidegate' AND (n.nspname, c.relname) <> ('realtime', 'messages') ORDER BY 1, 2`,
    [publication],
  )
  return rows
}

const isPrivilegeMissing = (error: unknown): error is Error =>
  error instanceof Error && 'code' in error && error.code === '42501'
