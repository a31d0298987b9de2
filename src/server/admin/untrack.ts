// Stops tracking tables and gives them back as they were.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { type AdminOptions, asAdministrator, type Output } from './administrator.ts'
import { restoreStatements, restoreWarnings, trackedTables } from './memory.ts'
import { printScripts, runScript, type Script } from './script.ts'
import { requirePublication } from './track.ts'
import { parseTableName, printName } from './tracked-table.ts'

export interface UntrackOptions extends AdminOptions {
  /** `table` or `schema.table`; a table that was dropped by the name it had. */
  readonly tables: readonly string[]
  /** Write the script, change nothing. */
  readonly dryRun?: boolean
}

/** @throws TABLE_UNKNOWN when one is not tracked, and nothing has changed; PUBLICATION_MISSING, PRIVILEGE_MISSING,
 *  LOCK_TIMEOUT, DATABASE_UNREACHABLE */
export async function untrack(options: UntrackOptions, out: Output): Promise<void> {
  await asAdministrator(options, out, async ({ client, lockTimeoutMs }) => {
    await requirePublication(client, options.name)
    const tracked = await trackedTables(client, options.name)
    const chosen = options.tables.map(text => {
      const name = printName(parseTableName(text))
      const named = tracked.filter(table => table.name === name)
      const found = named.find(table => table.sql !== null) ?? named[0]
      if (found === undefined)
        throw new TidegateError(
          'TABLE_UNKNOWN',
          `${name} is not tracked; tracked are: ${tracked.map(table => table.name).join(', ') || 'none'}`,
        )
      return found
    })
    const scripts = chosen.map((table): Script => {
      const statements = restoreStatements(table, options.name, false)
      return { title: `Untrack ${table.name}`, before: [], statements, after: [] }
    })
    const warnings = chosen.flatMap(restoreWarnings)
    if (options.dryRun) {
      out.write('-- Nothing was run (--dry-run).\n')
      for (const warning of warnings) out.write(`-- warning: ${warning}\n`)
      out.write(printScripts(scripts, lockTimeoutMs))
      return
    }
    for (const script of scripts) {
      await runScript(client, script)
      out.write(`${script.title}: done\n`)
    }
    for (const warning of warnings) out.write(`  warning: ${warning}\n`)
  })
}
