// What is installed in the database: the schema tidegate, its functions and triggers, and the publication with its tables.
import type pg from 'pg'
import { announcingTriggers, eventTrigger } from '../admin/installation.ts'
import { readFunctions, readMigrations } from '../admin/migrations.ts'

import { queryText } from '../postgres/database.ts'

export interface Installed {
  readonly hasSchema: boolean
  /** Names of migrations that have run; null where this login may not read them. */
  readonly migrations: readonly string[] | null
  /** Tables of the schema tidegate. */
  readonly tables: readonly string[]
  readonly functions: readonly InstalledFunctionState[]
  /** What the login may not do, each with the statement that lets it. */
  readonly missingGrants: readonly string[]
  /** `enabled` as pg_event_trigger has it; `D`: disabled. */
  readonly eventTriggers: readonly { readonly name: string; readonly enabled: string }[]
  readonly publication: PublicationState | null
}

export interface InstalledFunctionState {
  /** `tidegate.kick` */
  readonly name: string
  readonly body: string
  /** It is not what `migrate` left there; null where this login may not know. */
  readonly isReplaced: boolean | null
}

export interface PublicationState {
  readonly isOfAllTables: boolean
  readonly schemas: readonly string[]
  /** Of insert, update, delete, truncate. */
  readonly publishes: readonly string[]
  readonly viaRoot: boolean
  /** Null before Postgres 18. */
  readonly generated: boolean | null
  readonly tables: readonly PublishedTableState[]
}

export interface PublishedTableState {
  readonly schema: string
  readonly name: string
  readonly isPartitioned: boolean
  /** By its own name, not by its schema or FOR ALL TABLES. */
  readonly isNamed: boolean
  readonly rowFilter: string | null
  readonly columns: readonly string[] | null
  /** Its old rows are whole, or it has an index for them: somebody has made it ready. */
  readonly isReady: boolean
}

/** What this release needs there. */
export interface Expected {
  readonly migrations: readonly string[]
  readonly tables: readonly string[]
  /** Of the schema tidegate: names, bodies, and the statement that makes each. */
  readonly functions: readonly { readonly name: string; readonly body: string; readonly sql: string }[]
  readonly eventTriggers: readonly string[]
}

/** From the files of migrations/. */
export async function readExpected(): Promise<Expected> {
  const [migrations, functions] = await Promise.all([readMigrations(), readFunctions()])
  return {
    migrations: migrations.map(({ name }) => name),
    tables: migrations.flatMap(({ sql }) => [...sql.matchAll(/CREATE TABLE tidegate\.(\w+)/g)].map(match => match[1]!)),
    functions: functions
      .map(({ signature, sql }) => ({ name: signature.replace(/\(.*$/, ''), body: bodyOf(sql), sql }))
      .filter(({ name }) => name.startsWith('tidegate.')),
    eventTriggers: [eventTrigger, ...announcingTriggers],
  }
}

/** As pg_proc.prosrc has it. */
const bodyOf = (functionSql: string): string => /\bAS (\$\w*\$)([\s\S]*?)\1/.exec(functionSql)?.[2] ?? ''

export async function readInstalled(client: pg.ClientBase, publication: string): Promise<Installed> {
  const [row] = await queryText(client, installedSql)
  const read = JSON.parse(row![0]!) as Omit<Installed, 'migrations' | 'functions' | 'publication'> & {
    readonly canReadMemory: boolean
    readonly version: number
    readonly functions: readonly Omit<InstalledFunctionState, 'isReplaced'>[]
  }
  const { canReadMemory, version, ...state } = read
  const memory = canReadMemory ? await readMemory(client) : null
  return {
    ...state,
    migrations: memory?.migrations ?? null,
    functions: read.functions.map(each => ({
      ...each,
      isReplaced: memory === null ? null : memory.replaced.includes(each.name),
    })),
    publication: await readPublication(client, publication, version),
  }
}

async function readMemory(client: pg.ClientBase): Promise<{ migrations: string[]; replaced: string[] }> {
  const [row] = await queryText(
    client,
    `SELECT json_build_object(
      'migrations', (SELECT coalesce(json_agg(name ORDER BY name), '[]') FROM tidegate.kysely_migration),
      'replaced', (SELECT coalesce(json_agg(DISTINCT n.nspname || '.' || p.proname), '[]') FROM tidegate.installed_function i
        JOIN pg_proc p ON p.oid = to_regprocedure(i.signature) JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE md5(p.prosrc) <> i.body_hash))::text`,
  )
  return JSON.parse(row![0]!) as { migrations: string[]; replaced: string[] }
}

async function readPublication(
  client: pg.ClientBase,
  publication: string,
  version: number,
): Promise<PublicationState | null> {
  const [row] = await queryText(client, publicationSql(version), [publication])
  return row === undefined ? null : (JSON.parse(row[0]!) as PublicationState)
}

const grant = (condition: string, statement: string): string =>
  `CASE WHEN ${condition} THEN format('${statement}', current_user) END`

// A privilege is asked for by OID: by name Postgres raises where the schema may not be used.
const installedSql = `
WITH own AS (SELECT oid FROM pg_namespace WHERE nspname = 'tidegate'),
tables AS (SELECT c.oid, c.relname FROM pg_class c WHERE c.relnamespace = (SELECT oid FROM own) AND c.relkind IN ('r', 'p')),
grants AS (
  SELECT ${grant(`NOT has_schema_privilege(own.oid, 'USAGE')`, 'GRANT USAGE ON SCHEMA tidegate TO %I;')} AS statement FROM own
  UNION ALL SELECT ${grant(`NOT has_table_privilege(oid, 'SELECT')`, 'GRANT SELECT ON tidegate.catalog_key TO %I;')}
    FROM tables WHERE relname = 'catalog_key'
  UNION ALL SELECT ${grant(
    `NOT has_table_privilege(oid, 'SELECT') OR NOT has_table_privilege(oid, 'DELETE')`,
    'GRANT SELECT, DELETE ON tidegate.orders TO %I;',
  )} FROM tables WHERE relname = 'orders'
  UNION ALL SELECT CASE WHEN NOT has_function_privilege(p.oid, 'EXECUTE')
      THEN format('GRANT EXECUTE ON FUNCTION tidegate.%I(%s) TO %I;', p.proname, pg_get_function_identity_arguments(p.oid), current_user) END
    FROM pg_proc p JOIN own ON own.oid = p.pronamespace
    WHERE p.proname IN ('kick', 'revoke', 'refresh', 'delete_messages', 'keep_partitions')
)
SELECT json_build_object(
  'version', current_setting('server_version_num')::int,
  'hasSchema', EXISTS (SELECT FROM own),
  'canReadMemory', EXISTS (SELECT FROM own WHERE has_schema_privilege(own.oid, 'USAGE'))
    AND (SELECT count(*) FILTER (WHERE has_table_privilege(oid, 'SELECT')) = 2 FROM tables
      WHERE relname IN ('kysely_migration', 'installed_function')),
  'tables', (SELECT coalesce(json_agg(relname), '[]') FROM tables),
  'functions', (SELECT coalesce(json_agg(json_build_object('name', 'tidegate.' || p.proname, 'body', p.prosrc)), '[]')
    FROM pg_proc p JOIN own ON own.oid = p.pronamespace),
  'missingGrants', (SELECT coalesce(json_agg(statement), '[]') FROM grants WHERE statement IS NOT NULL),
  'eventTriggers', (SELECT coalesce(json_agg(json_build_object('name', evtname, 'enabled', evtenabled)), '[]')
    FROM pg_event_trigger WHERE evtname IN (${[eventTrigger, ...announcingTriggers].map(name => `'${name}'`).join(', ')}))
)::text`

/** Column lists, row filters and schemas came with Postgres 15, generated columns with 18. */
function publicationSql(version: number): string {
  const isOld = version < 150_000
  const inSchema = isOld
    ? 'false'
    : 'EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = c.relnamespace)'
  const columns = `CASE WHEN r.prattrs IS NOT NULL THEN (SELECT json_agg(a.attname ORDER BY a.attnum)
    FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (r.prattrs::int2[])) END`
  return `
SELECT json_build_object(
  'isOfAllTables', p.puballtables,
  'schemas', ${
    isOld
      ? `'[]'::json`
      : `(SELECT coalesce(json_agg(n.nspname ORDER BY n.nspname), '[]') FROM pg_publication_namespace s
          JOIN pg_namespace n ON n.oid = s.pnnspid WHERE s.pnpubid = p.oid)`
  },
  'publishes', to_json(array_remove(ARRAY[CASE WHEN p.pubinsert THEN 'insert' END, CASE WHEN p.pubupdate THEN 'update' END,
    CASE WHEN p.pubdelete THEN 'delete' END, CASE WHEN p.pubtruncate THEN 'truncate' END], NULL)),
  'viaRoot', p.pubviaroot,
  'generated', ${version < 180_000 ? 'NULL' : `p.pubgencols = 's'`},
  'tables', (SELECT coalesce(json_agg(json_build_object(
      'schema', n.nspname, 'name', c.relname, 'isPartitioned', c.relkind = 'p', 'isNamed', r.prrelid IS NOT NULL,
      'rowFilter', ${isOld ? 'NULL' : 'pg_get_expr(r.prqual, r.prrelid)'}, 'columns', ${isOld ? 'NULL' : columns},
      'isReady', c.relreplident IN ('f', 'i')) ORDER BY n.nspname, c.relname), '[]')
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_publication_rel r ON r.prpubid = p.oid AND r.prrelid = c.oid
    WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384
      AND (p.puballtables OR r.prrelid IS NOT NULL OR ${inSchema}))
)::text
FROM pg_publication p WHERE p.pubname = $1`
}
