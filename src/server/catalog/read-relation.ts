// Reads one table from the catalog: columns in WAL order, keys, replica identity, publication, policies.
import { type Kysely, sql } from 'kysely'
import type { CollationFacts, PolicyFacts, RelationFacts } from './facts.ts'
import { readFunctionName } from './read-function.ts'
import type { TypeReader } from './read-types.ts'
import type { Table, TableColumn } from './table.ts'

export interface RelationReading {
  readonly db: Kysely<unknown>
  readonly version: number
  readonly publication: string
  readonly types: TypeReader
}

interface ClassRow {
  oid: number
  schema: string
  name: string
  kind: string
  persistence: string
  owner: number
  rowSecurity: boolean
  forceRowSecurity: boolean
  hasChildren: boolean
  /** The partitioned table above it that the publication names, if any. */
  root: string | null
  published: boolean
  rowFilter: boolean
  columnList: number[] | null
  generated: boolean
  readsPlainly: boolean
  readsByFunction: boolean
}

interface AttributeRow {
  number: number
  name: string
  type: number
  collation: number
  notNull: boolean
  generated: string
}

interface LeafRow {
  oid: number
  file: string
  name: string
  kind: string
  persistence: string
  replicaIdentity: string
  identity: string[] | null
}

export interface RelationRead extends RelationFacts {
  /** The published partitioned table above a partition. */
  readonly root: string | null
}

/** @returns null when there is no such relation */
export async function readRelation(
  reading: RelationReading,
  schema: string,
  name: string,
): Promise<RelationRead | null> {
  const row = await readClass(reading, schema, name)
  if (row === null) return null
  const attributes = await readAttributes(reading.db, row.oid)
  const streamed = attributes.filter(attribute => isStreamed(attribute, row))
  const columns: TableColumn[] = []
  const collations: (CollationFacts | null)[] = []
  for (const { name, type, collation, notNull } of streamed) {
    const sqlType = await reading.types.type(type, collation)
    columns.push({ name, type: sqlType, notNull, typname: reading.types.typname(type) ?? sqlType.name })
    collations.push(await reading.types.collation(collation))
  }
  const positions = (names: readonly string[]): number[] =>
    names.map(name => columns.findIndex(column => column.name === name))
  const keys = await readKeys(reading.db, row.oid)
  const primary = positions(keys.find(key => key.primary)?.columns ?? [])
  const leaves = row.kind === 'r' || row.kind === 'p' ? await readLeaves(reading.db, row) : []
  const names = columns.map(column => column.name)
  const table: Table = {
    oid: row.oid,
    schema: row.schema,
    name: row.name,
    columns,
    primaryKey: primary.includes(-1) ? [] : primary,
    identity: new Set(positions(identityOf(leaves, names)).filter(position => position !== -1)),
    replicaIdentity: weakestOf(leaves),
    partitioned: row.kind === 'p',
    ...(row.kind === 'p'
      ? { leaves: leaves.map(leaf => leaf.oid).join(' '), files: leaves.map(leaf => `${leaf.oid}:${leaf.file}`) }
      : {}),
    incarnation: streamed.map(({ number }) => number).join(' '),
    rowSecurity: row.rowSecurity,
    forceRowSecurity: row.forceRowSecurity,
    published: row.published && row.root === null,
    readThrough: row.readsPlainly ? 'table' : row.readsByFunction ? 'function' : null,
  }
  return {
    table,
    owner: row.owner,
    unsupported: unsupportedKind(row, leaves),
    collations,
    unpublishedColumns: attributes.filter(attribute => !streamed.includes(attribute)).map(({ name }) => name),
    uniqueKeys: keys.map(key => positions(key.columns)).filter(key => !key.includes(-1)),
    policies: await readPolicies(reading.db, row.oid),
    root: row.root,
  }
}

async function readClass(
  { db, version, publication }: RelationReading,
  schema: string,
  name: string,
): Promise<ClassRow | null> {
  const named = sql`EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = up.oid)`
  const inSchema =
    version < 150000
      ? sql`false`
      : sql`EXISTS (SELECT FROM pg_publication_namespace s WHERE s.pnpubid = p.oid AND s.pnnspid = u.relnamespace)`
  const listed = (column: string) => (version < 150000 ? sql`NULL` : sql.ref(column))
  const generated = version < 180000 ? sql`false` : sql`coalesce(pub.pubgencols = 's', false)`
  const { rows } = await sql<ClassRow>`
    SELECT c.oid, n.nspname AS schema, c.relname AS name, c.relkind AS kind, c.relpersistence AS persistence,
      c.relowner AS owner, c.relrowsecurity AS "rowSecurity", c.relforcerowsecurity AS "forceRowSecurity",
      c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AS "hasChildren",
      chain.root, coalesce(chain.published, false) AS published, ${generated} AS generated,
      ${listed('member.prqual')} IS NOT NULL AS "rowFilter",
      to_json(${listed('member.prattrs')}::int2[]) AS "columnList",
      has_table_privilege(c.oid, 'SELECT') AND has_schema_privilege(n.oid, 'USAGE') AND (
        NOT c.relrowsecurity OR me.rolsuper OR me.rolbypassrls
        OR (pg_has_role(c.relowner, 'USAGE') AND NOT c.relforcerowsecurity)
      ) AS "readsPlainly",
      EXISTS (
        SELECT FROM pg_proc f JOIN pg_namespace fn ON fn.oid = f.pronamespace JOIN pg_roles o ON o.oid = f.proowner
        WHERE fn.nspname = 'tidegate' AND f.proname = ${readFunctionName(schema, name)} AND has_schema_privilege(fn.oid, 'USAGE')
          AND has_function_privilege(f.oid, 'EXECUTE') AND f.prosecdef
          AND (NOT c.relrowsecurity OR NOT c.relforcerowsecurity OR o.rolsuper OR o.rolbypassrls)
      ) AS "readsByFunction"
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_roles me ON me.rolname = current_user
    LEFT JOIN pg_publication pub ON pub.pubname = ${publication}
    LEFT JOIN pg_publication_rel member ON member.prpubid = pub.oid AND member.prrelid = c.oid
    LEFT JOIN LATERAL (
      WITH RECURSIVE up AS (
        SELECT c.oid, 0 AS height
        UNION ALL
        SELECT i.inhparent, up.height + 1 FROM up JOIN pg_inherits i ON i.inhrelid = up.oid
          JOIN pg_class k ON k.oid = up.oid AND k.relispartition
      ), found AS (
        SELECT up.oid, up.height FROM up JOIN pg_class u ON u.oid = up.oid JOIN pg_publication p ON p.oid = pub.oid
        WHERE p.puballtables OR ${named} OR ${inSchema}
      )
      SELECT bool_or(height = 0) AS published,
        (SELECT format('%s.%s', rn.nspname, rc.relname) FROM found JOIN pg_class rc ON rc.oid = found.oid
          JOIN pg_namespace rn ON rn.oid = rc.relnamespace WHERE height > 0 ORDER BY height DESC LIMIT 1) AS root
      FROM found
    ) chain ON true
    WHERE n.nspname = ${schema} AND c.relname = ${name} AND c.relkind IN ('r', 'p', 'v', 'm', 'f')`.execute(db)
  return rows[0] ?? null
}

/** @returns null when there is no such relation */
export async function readName(db: Kysely<unknown>, oid: number): Promise<{ schema: string; name: string } | null> {
  const { rows } = await sql<{ schema: string; name: string }>`
    SELECT nspname AS schema, relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace
    WHERE c.oid = ${oid}::oid`.execute(db)
  return rows[0] ?? null
}

async function readAttributes(db: Kysely<unknown>, oid: number): Promise<AttributeRow[]> {
  // Since Postgres 18 a NOT NULL may be NOT VALID: then there may be NULLs.
  const { rows } = await sql<AttributeRow>`
    SELECT attnum AS number, attname AS name, atttypid AS type, attcollation AS collation, attgenerated AS generated,
      attnotnull AND NOT EXISTS (
        SELECT FROM pg_constraint k
        WHERE k.conrelid = attrelid AND k.contype = 'n' AND k.conkey = ARRAY[attnum] AND NOT k.convalidated
      ) AS "notNull"
    FROM pg_attribute WHERE attrelid = ${oid}::oid AND attnum > 0 AND NOT attisdropped ORDER BY attnum`.execute(db)
  return rows
}

/** Whether a column is in the WAL: the publication's column list decides, else generated columns are left out unless the
 *  publication takes stored ones (Postgres 18). */
function isStreamed(attribute: AttributeRow, { columnList, generated }: ClassRow): boolean {
  if (attribute.generated === 'v') return false
  if (columnList !== null) return columnList.includes(attribute.number)
  return attribute.generated === '' || generated
}

async function readKeys(db: Kysely<unknown>, oid: number): Promise<{ primary: boolean; columns: string[] }[]> {
  const { rows } = await sql<{ primary: boolean; columns: string[] }>`
    SELECT x.indisprimary AS primary, json_agg(a.attname ORDER BY k.place) AS columns
    FROM pg_index x CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
    WHERE x.indrelid = ${oid}::oid AND x.indisunique AND x.indisvalid AND (x.indimmediate OR x.indisprimary)
      AND x.indpred IS NULL AND x.indexprs IS NULL AND k.place <= x.indnkeyatts
    GROUP BY x.indexrelid, x.indisprimary ORDER BY x.indisprimary DESC, x.indexrelid`.execute(db)
  return rows
}

/** The table itself, or every leaf of a partitioned one: rows and their replica identities are there. */
async function readLeaves(db: Kysely<unknown>, { oid, kind }: ClassRow): Promise<LeafRow[]> {
  const leaves =
    kind === 'p'
      ? sql`SELECT relid::oid AS oid FROM pg_partition_tree(${oid}::oid) WHERE isleaf AND relid <> ${oid}::oid`
      : sql`SELECT ${oid}::oid AS oid`
  const { rows } = await sql<LeafRow>`
    SELECT c.oid, c.relfilenode::int8 AS file, format('%s.%s', n.nspname, c.relname) AS name, c.relkind AS kind, c.relpersistence AS persistence,
      c.relreplident AS "replicaIdentity",
      (SELECT json_agg(a.attname ORDER BY k.place)
       FROM pg_index x CROSS JOIN LATERAL unnest(x.indkey::int2[]) WITH ORDINALITY AS k (number, place)
       JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.number
       WHERE x.indrelid = c.oid AND k.place <= x.indnkeyatts AND x.indisvalid AND (
         (c.relreplident = 'd' AND x.indisprimary AND x.indimmediate) OR (c.relreplident = 'i' AND x.indisreplident)
       )) AS identity
    FROM (${leaves}) l JOIN pg_class c ON c.oid = l.oid JOIN pg_namespace n ON n.oid = c.relnamespace
    ORDER BY 1`.execute(db)
  return rows
}

/** Columns that every leaf's old rows have. Without leaves nothing is ever written, so nothing is missing. */
function identityOf(leaves: readonly LeafRow[], names: readonly string[]): readonly string[] {
  return names.filter(name =>
    leaves.every(leaf => leaf.replicaIdentity === 'f' || leaf.identity?.includes(name) === true),
  )
}

const identities = ['nothing', 'default', 'index', 'full'] as const

function weakestOf(leaves: readonly LeafRow[]): Table['replicaIdentity'] {
  const ranks = leaves.map(({ replicaIdentity }) => 'ndif'.indexOf(replicaIdentity))
  return identities[Math.min(3, ...ranks)]!
}

const kinds: Readonly<Record<string, string>> = { v: 'a view', m: 'a materialized view', f: 'a foreign table' }

function unsupportedKind(row: ClassRow, leaves: readonly LeafRow[]): string | null {
  const kind = kinds[row.kind]
  if (kind !== undefined) return kind
  if (row.persistence === 't') return 'a temporary table'
  if (row.persistence === 'u') return 'an unlogged table'
  if (row.hasChildren) return 'an inheritance parent'
  if (row.rowFilter) return 'published with a row filter'
  const leaf = leaves.find(({ kind: leafKind, persistence }) => leafKind === 'f' || persistence !== 'p')
  if (leaf === undefined) return null
  return `a partitioned table whose partition ${leaf.name} is ${leaf.kind === 'f' ? 'foreign' : 'unlogged'}`
}

async function readPolicies(db: Kysely<unknown>, oid: number): Promise<PolicyFacts[]> {
  const { rows } = await sql<PolicyFacts>`
    SELECT polname AS name, polpermissive AS permissive, to_json(polroles::int8[]) AS roles,
      CASE polcmd WHEN '*' THEN 'ALL' WHEN 'r' THEN 'SELECT' ELSE 'INSERT' END AS command,
      pg_get_expr(polqual, polrelid) AS using, pg_get_expr(polwithcheck, polrelid) AS check
    FROM pg_policy WHERE polrelid = ${oid}::oid AND polcmd IN ('*', 'r', 'a') ORDER BY polname`.execute(db)
  return rows
}
