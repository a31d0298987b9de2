// What a database looks like, to tell whether it is as it was before.
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { promisify } from 'node:util'
import { LocalPostgres } from '../../../src/cli/local-postgres.ts'
import type { Site } from './site.ts'

const debian = '/usr/lib/postgresql/15/bin'
const pgDump = `${debian}/pg_dump`

/** A server that this machine's pg_dump can read, if there is one. */
export async function startServer(): Promise<LocalPostgres> {
  const settings = { fsync: 'off' }
  const server = await LocalPostgres.create(existsSync(pgDump) ? { settings, binDir: debian } : { settings })
  await server.start()
  return server
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
