// Reads migrations/: numbered SQL files, each run once, in order, and functions that are re-applied when they change.
import { createHash } from 'node:crypto'
import { readdir, readFile } from 'node:fs/promises'
import { Kysely, PostgresDialect, type PostgresPool, type PostgresPoolClient, sql } from 'kysely'
import { Migrator } from 'kysely/migration'
import type pg from 'pg'
import { block, literal, type Script } from './script.ts'

/** Beside `src` and beside `dist`: both are as deep. */
const folder = new URL('../../../migrations/', import.meta.url)

interface Migration {
  /** File name without `.sql`. */
  readonly name: string
  readonly sql: string
}

export interface InstalledFunction {
  /** `auth.uid()`, `tidegate.revoke(text, text, timestamptz, text)` */
  readonly signature: string
  readonly sql: string
  /** Of the file's text: another hash means re-apply. */
  readonly hash: string
}

export const readMigrations = (): Promise<Migration[]> => readSql(folder)

export async function readFunctions(): Promise<InstalledFunction[]> {
  const files = await readSql(new URL('functions/', folder))
  return files.map(({ name, sql: text }) => ({
    signature: `${name}(${argumentTypes(text).join(', ')})`,
    sql: text,
    hash: createHash('sha256').update(text).digest('hex'),
  }))
}

/** Of the function that the file begins with. No type or default in it holds a comma. */
export function argumentTypes(functionSql: string): string[] {
  const parameters = /\bFUNCTION\s+[\w.]+\s*\(([\s\S]*?)\)\s+RETURNS\b/i.exec(functionSql)?.[1]?.trim() ?? ''
  if (parameters === '') return []
  return parameters
    .split(',')
    .map(parameter => /^\s*\w+\s+(.+?)(?:\s+DEFAULT\b[\s\S]*)?$/i.exec(parameter.trimEnd())![1]!)
}

/** Runs what has not run yet, all in one transaction.
 *  @returns the names of what ran
 *  @throws what Postgres throws; nothing has run then */
export async function applyMigrations(client: pg.Client): Promise<string[]> {
  const db = new Kysely<unknown>({ dialect: new PostgresDialect({ pool: poolOf(client) }) })
  const migrations = await readMigrations()
  const migrator = new Migrator({
    db,
    migrationTableSchema: 'tidegate',
    provider: {
      getMigrations: async () =>
        Object.fromEntries(
          migrations.map(({ name, sql: text }) => [name, { up: async trx => void (await sql.raw(text).execute(trx)) }]),
        ),
    },
  })
  const { error, results } = await migrator.migrateToLatest()
  if (error !== undefined) throw error
  return (results ?? []).map(result => result.migrationName)
}

/** The same as a script, with Kysely's bookkeeping: where it has run, a later `migrate` has nothing left to do, and where
 *  `migrate` has run, the script has nothing left to do. */
export async function migrationScript(): Promise<Script> {
  const statements = [
    // Not CREATE SCHEMA IF NOT EXISTS: that wants the right to create schemas even where the schema is there.
    block(`  IF to_regnamespace('tidegate') IS NULL THEN
    CREATE SCHEMA tidegate;
  END IF;`),
    `CREATE TABLE IF NOT EXISTS tidegate.kysely_migration (name varchar(255) NOT NULL PRIMARY KEY, "timestamp" varchar(255) NOT NULL)`,
    `CREATE TABLE IF NOT EXISTS tidegate.kysely_migration_lock (id varchar(255) NOT NULL PRIMARY KEY, is_locked integer DEFAULT 0 NOT NULL)`,
    `INSERT INTO tidegate.kysely_migration_lock (id, is_locked) VALUES ('migration_lock', 0) ON CONFLICT DO NOTHING`,
  ]
  for (const migration of await readMigrations())
    statements.push(
      block(`IF NOT EXISTS (SELECT FROM tidegate.kysely_migration WHERE name = ${literal(migration.name)}) THEN
${migration.sql}
INSERT INTO tidegate.kysely_migration (name, "timestamp")
VALUES (${literal(migration.name)}, to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
END IF;`),
    )
  return { title: 'The schema tidegate: what Tidegate remembers', before: [], statements, after: [] }
}

/** Kysely asks for a pool; this one lends the one connection that has our settings. */
function poolOf(client: pg.Client): PostgresPool {
  const lent = { query: client.query.bind(client), release: () => {} } as unknown as PostgresPoolClient
  return { connect: async () => lent, end: async () => {}, options: {} }
}

async function readSql(directory: URL): Promise<Migration[]> {
  const files = (await readdir(directory)).filter(file => file.endsWith('.sql')).sort()
  return Promise.all(
    files.map(async file => ({
      name: file.slice(0, -'.sql'.length),
      sql: (await readFile(new URL(file, directory), 'utf8')).trim(),
    })),
  )
}
