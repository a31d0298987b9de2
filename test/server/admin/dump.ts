// What a database looks like, to tell whether it is as it was before.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import pg from 'pg'
import { afterAll } from 'vitest'
import { LocalPostgres } from '../../../src/cli/local-postgres.ts'
import type { Site } from './site.ts'

const debian = '/usr/lib/postgresql/15/bin'
const pgDump = `${debian}/pg_dump`

let running: Promise<LocalPostgres> | null = null
afterAll(async () => {
  await (await running)?.stop()
})

/** A server that this machine's pg_dump can read, if there is one, and that nobody else uses meanwhile: one for all tests of a
 *  file, as it was made for each. To make one takes seconds, to put it back a few statements. */
export async function startServer(): Promise<AsyncDisposable & { readonly url: string }> {
  running ??= makeServer()
  const { url } = await running
  return { url, [Symbol.asyncDispose]: () => putBack(url) }
}

async function makeServer(): Promise<LocalPostgres> {
  const settings = { fsync: 'off' }
  const server = await LocalPostgres.create(existsSync(pgDump) ? { settings, binDir: debian } : { settings })
  await server.start()
  return server
}

/** Without the databases, slots and roles that a test has made, also one that failed in the middle. */
async function putBack(url: string): Promise<void> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    const all = async (sql: string): Promise<string[]> =>
      (await client.query<{ name: string }>(sql)).rows.map(({ name }) => name)
    await client.query(
      'SELECT pg_terminate_backend(active_pid, 5000) FROM pg_replication_slots WHERE active_pid IS NOT NULL',
    )
    await client.query('SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots')
    for (const name of await all(
      "SELECT datname AS name FROM pg_database WHERE datname <> 'postgres' AND NOT datistemplate",
    ))
      await client.query(`DROP DATABASE ${pg.escapeIdentifier(name)} WITH (FORCE)`)
    const roles = await all("SELECT rolname AS name FROM pg_roles WHERE oid >= 16384 AND rolname !~ '^pg_'")
    if (roles.length > 0) await client.query(`DROP ROLE ${roles.map(name => pg.escapeIdentifier(name)).join(', ')}`)
  } finally {
    await client.end()
  }
}

/** The schema as pg_dump prints it; without pg_dump what the catalog says of everything that Tidegate might touch. And
 *  the roles, their memberships and the slots, which no dump of a database has. */
export async function dump(site: Site): Promise<string> {
  const { database } = site
  const lines = await database.query<{ line: string }>(`
    SELECT 'role ' || rolname || rolcanlogin || rolinherit AS line FROM pg_roles
    UNION ALL SELECT 'member ' || member::regrole || ' of ' || roleid::regrole FROM pg_auth_members
    UNION ALL SELECT 'slot ' || slot_name FROM pg_replication_slots
    UNION ALL SELECT 'relation ' || c.oid::regclass || c.relkind::text || c.relreplident::text || coalesce(x.indexrelid::regclass::text, '')
      FROM pg_class c LEFT JOIN pg_index x ON x.indrelid = c.oid AND x.indisreplident WHERE c.relnamespace::regnamespace::text !~ '^(pg_|information_schema)'
    UNION ALL SELECT 'function ' || oid::regprocedure || md5(prosrc) FROM pg_proc WHERE pronamespace::regnamespace::text !~ '^(pg_|information_schema)'
    UNION ALL SELECT 'schema ' || n.nspname || g.grantee || g.privilege_type
      FROM pg_namespace n, aclexplode(coalesce(nspacl, acldefault('n', nspowner))) g WHERE nspname !~ '^pg_'
    UNION ALL SELECT 'publication ' || pubname FROM pg_publication
    UNION ALL SELECT 'event trigger ' || evtname FROM pg_event_trigger ORDER BY 1`)
  const catalog = lines.map(({ line }) => line).join('\n')
  if (!existsSync(pgDump)) return catalog
  const { stdout } = await promisify(execFile)(pgDump, ['--schema-only', '--dbname', database.url])
  // Each run prints another random key.
  return catalog + stdout.replaceAll(/^\\(un)?restrict .*$/gm, '')
}
