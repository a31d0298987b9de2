// Whether tracked tables can be followed and judged, table by table and role by role: what a subscription would be told, before anybody
// subscribes.

import { TidegateError } from '../../protocol/tidegate-error.ts'
import { qualified } from '../admin/script.ts'
import type { PostgresCatalog } from '../catalog/catalog.ts'
import { explain } from '../explain/explain.ts'
import type { Explanation } from '../explain/explanation.ts'
import { type Lane, queryText } from '../postgres/database.ts'
import type { PublicationState } from './database-installed.ts'
import { judgeTables, type SeenTable, type TableFacts } from './database-policies.ts'
import type { Finding } from './finding.ts'

export interface TablesOptions {
  readonly pool: Lane
  /** One that has read nothing yet. */
  readonly catalog: PostgresCatalog
  readonly name: string
  readonly publication: PublicationState
  /** Those of JWT_ROLES that exist and that the login may take. */
  readonly roles: readonly string[]
  readonly settingsOf: Parameters<typeof explain>[0]['settingsOf']
  readonly timeoutMs: number
}

/** Looked at one after the other, by name, as far as the time reaches. */
const mostTables = 1000
const longestMs = 12_000

/** @throws what Postgres throws */
export async function tableFindings(options: TablesOptions): Promise<Finding[]> {
  const facts = await readTables(options)
  const tables: SeenTable[] = []
  const beganMs = performance.now()
  for (const each of facts.slice(0, mostTables)) {
    if (performance.now() - beganMs > longestMs) break
    tables.push({ facts: each, seen: await seenBy(options, each) })
  }
  const forced = await readForced(options.pool)
  return judgeTables({ tables, forced, left: facts.length - tables.length, hasRoles: options.roles.length > 0 })
}

async function seenBy(
  { pool, catalog, name, roles, settingsOf, timeoutMs }: TablesOptions,
  table: TableFacts,
): Promise<Map<string, Explanation | TidegateError>> {
  const seen = new Map<string, Explanation | TidegateError>()
  for (const role of roles) {
    const request = { schema: table.schema, table: table.name, role, claims: null, key: null }
    const told = explain(
      { pool, catalog: () => catalog, publication: name, admit: async () => {}, settingsOf, maxRows: 0, timeoutMs },
      request,
    )
    const answer = await told.catch((error: unknown) => {
      if (error instanceof TidegateError && error.code !== 'UNAVAILABLE') return error
      throw error
    })
    seen.set(role, answer)
  }
  return seen
}

/** Tables that clients follow: not ours, nor partitions of one that is published. */
async function readTables({ pool, publication }: TablesOptions): Promise<TableFacts[]> {
  const names = publication.tables
    .filter(({ schema, name }) => schema !== 'tidegate' && !(schema === 'realtime' && name === 'messages'))
    .map(({ schema, name }) => qualified(schema, name))
  const rows = await queryText(pool, tablesSql, [names])
  return rows.map(([json]) => JSON.parse(json!) as TableFacts)
}

/** Not even their owner reads them whole. */
async function readForced(pool: Lane): Promise<ReadonlySet<string>> {
  const rows = await queryText(
    pool,
    `SELECT n.nspname || '.' || c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_roles o ON o.oid = c.relowner
     WHERE c.relrowsecurity AND c.relforcerowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls`,
  )
  return new Set(rows.map(([name]) => name!))
}

const tablesSql = `
WITH published AS (
  SELECT c.oid, c.relname, c.relkind, c.relispartition, n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE format('"%s"."%s"', replace(n.nspname, '"', '""'), replace(c.relname, '"', '""')) = ANY ($1)
)
SELECT json_build_object(
  'schema', c.nspname, 'name', c.relname,
  'isPartitioned', c.relkind = 'p', 'hasPrimaryKey', EXISTS (SELECT FROM pg_index x WHERE x.indrelid = c.oid AND x.indisprimary),
  'keyIndex', (SELECT i.relname FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
    WHERE x.indrelid = c.oid AND c.relkind = 'r' AND x.indisunique AND x.indisvalid AND x.indimmediate AND x.indpred IS NULL AND x.indexprs IS NULL
      AND NOT EXISTS (SELECT FROM unnest(x.indkey::int2[]) AS k (number) JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.number
        WHERE NOT a.attnotnull)
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = x.indexrelid)
    ORDER BY x.indnatts, i.relname LIMIT 1),
  'freeColumn', (SELECT wanted FROM unnest(ARRAY['id', 'row_id', 'tidegate_id']) WITH ORDINALITY AS w (wanted, i)
    WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = wanted AND NOT a.attisdropped)
    ORDER BY i LIMIT 1),
  'unlogged', (SELECT coalesce(json_agg(format('%I.%I', n.nspname, l.relname)), '[]')
    FROM (SELECT c.oid AS relid UNION SELECT relid FROM pg_partition_tree(c.oid)) t JOIN pg_class l ON l.oid = t.relid
    JOIN pg_namespace n ON n.oid = l.relnamespace WHERE l.relpersistence = 'u')
)::text
FROM published c
WHERE NOT (c.relispartition AND EXISTS (
  SELECT FROM pg_partition_ancestors(c.oid) AS above (oid) JOIN published p USING (oid) WHERE above.oid <> c.oid))
ORDER BY c.nspname, c.relname`
