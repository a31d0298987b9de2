// How a test makes its tables: by SQL, by files of SQL, or by the application's own migrations.
import { readFile } from 'node:fs/promises'
import type pg from 'pg'
import { rowsOf } from './test-database.ts'

/** A text is SQL, a `URL` a file of it (`new URL('schema.sql', import.meta.url)`); several run one after the other. A function may run
 *  migrations of its own. */
export type Setup = string | URL | readonly (string | URL)[] | ((database: SetupDatabase) => unknown)

export interface SetupDatabase {
  /** As the owner of the tables. */
  readonly databaseUrl: string
  /** Runs one statement, or several without values. @returns the rows of the last */
  query(text: string, values?: readonly unknown[]): Promise<Record<string, unknown>[]>
}

export async function runSetup(setup: Setup, pool: pg.Pool, databaseUrl: string): Promise<void> {
  const query: SetupDatabase['query'] = (text, values) => rowsOf(pool, text, values)
  if (typeof setup === 'function') {
    await setup({ databaseUrl, query })
    return
  }
  const parts = typeof setup === 'string' || setup instanceof URL ? [setup] : setup
  for (const part of parts) await query(part instanceof URL ? await readFile(part, 'utf8') : part)
}

/** What a test follows if it does not say so. Partitions come with their table. */
export async function publicTables(pool: pg.Pool): Promise<string[]> {
  const { rows } = await pool.query<{ name: string }>(
    `SELECT relname AS name FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p')
       AND NOT relispartition AND relpersistence = 'p'
       AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = pg_class.oid AND d.deptype = 'e')
     ORDER BY relname`,
  )
  return rows.map(({ name }) => name)
}
