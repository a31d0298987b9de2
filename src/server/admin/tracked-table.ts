// What the catalog says of a table that is to be tracked or is: its kind, its partitions, their replica identities, and
// what of `track` is in place.
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { readFunctionName } from '../catalog/read-function.ts'
import { readFunctionBody } from './read-function-sql.ts'
import { literal, qualified } from './script.ts'

export interface TableName {
  readonly schema: string
  readonly name: string
}

export type ReplicaIdentity = 'default' | 'nothing' | 'full' | 'index'

/** The table itself, or a partition of it. */
export interface Relation extends TableName {
  readonly oid: number
  readonly identity: ReplicaIdentity
  /** Name of the replica identity's index, of any `identity`; null without one (dropped, or not `index`). */
  readonly identityIndex: string | null
  readonly identityColumns: readonly string[]
}

export interface TableColumn {
  readonly name: string
  readonly notNull: boolean
  /** GENERATED ... VIRTUAL, from Postgres 18 on. */
  readonly isVirtual: boolean
}

export interface TableState extends TableName {
  readonly oid: number
  readonly owner: string
  readonly partitioned: boolean
  readonly rowSecurity: boolean
  /** Not even the owner's function may read it whole: FORCE ROW LEVEL SECURITY, and the owner cannot bypass it. */
  readonly hidesFromOwner: boolean
  readonly columns: readonly TableColumn[]
  readonly primaryKey: readonly string[]
  /** The table first, then its partitions of every level. */
  readonly relations: readonly Relation[]
  readonly isPublished: boolean
  /** The read function is there, of this version, owned by the owner, and the login may call it. */
  readonly hasReadFunction: boolean
}

/** @param text `table` or `schema.table`, as the catalog has it (no quotes); `public` without a schema */
export function parseTableName(text: string): TableName {
  const dot = text.indexOf('.')
  const [schema, name] = dot === -1 ? ['public', text] : [text.slice(0, dot), text.slice(dot + 1)]
  if (schema === '' || name === '')
    throw new TidegateError('TABLE_UNKNOWN', `"${text}" is no table's name; write <schema>.<table>`)
  return { schema, name }
}

export const printName = ({ schema, name }: TableName): string => `${schema}.${name}`
export const quoteName = ({ schema, name }: TableName): string => qualified(schema, name)
/** As a value in SQL; a regclass, so that it stays the same table after a rename. */
export const regclass = (table: TableName): string => `${literal(quoteName(table))}::regclass`

/** @param login who must be able to call the read function
 *  @throws TABLE_UNKNOWN, TABLE_UNSUPPORTED, NO_PRIMARY_KEY */
export async function inspectTable(
  client: pg.ClientBase,
  table: TableName,
  publication: string,
  login: string,
): Promise<TableState> {
  const { rows } = await client.query<TableRow>(tableSql, [
    table.schema,
    table.name,
    publication,
    readFunctionName(table.schema, table.name),
    readFunctionBody(table.schema, table.name),
    login,
  ])
  const row = rows[0]
  if (row === undefined)
    throw new TidegateError('TABLE_UNKNOWN', `there is no table ${printName(table)}; names are case-sensitive`)
  refuseUnsupported(table, row)
  if (row.primaryKey.length === 0)
    throw new TidegateError(
      'NO_PRIMARY_KEY',
      `${printName(table)} has no primary key, so its rows cannot be named; ALTER TABLE ${quoteName(table)} ADD PRIMARY KEY (...)`,
    )
  const relations = await client.query<Relation>(relationsSql, [row.oid])
  const { kind, persistence, isParent, partitionOf, foreignPartition, ...state } = row
  return { ...table, ...state, partitioned: kind === 'p', relations: relations.rows }
}

interface TableRow extends Omit<TableState, 'schema' | 'name' | 'partitioned' | 'relations'> {
  readonly kind: string
  readonly persistence: string
  readonly isParent: boolean
  readonly partitionOf: string | null
  readonly foreignPartition: string | null
}

const kinds: Readonly<Record<string, string>> = {
  v: 'a view; track the tables that it reads',
  m: 'a materialized view; track the tables that it reads',
  f: 'a foreign table: its changes are in the log of another server',
  S: 'a sequence',
  i: 'an index',
  I: 'an index',
  c: 'a composite type',
  t: 'a TOAST table',
}

function refuseUnsupported(table: TableName, row: TableRow): void {
  const reason =
    kinds[row.kind] ??
    (['pg_catalog', 'information_schema', 'tidegate'].includes(table.schema)
      ? 'a table of the system'
      : table.schema === 'realtime' && table.name === 'messages'
        ? 'what messages of channels pass through; join the channel instead'
        : row.persistence === 'u'
          ? `unlogged: nothing of it is in the log; ALTER TABLE ${quoteName(table)} SET LOGGED`
          : row.persistence === 't'
            ? 'temporary: other sessions do not see it'
            : row.partitionOf !== null
              ? `a partition; track ${row.partitionOf}, and its changes come under that name`
              : row.isParent
                ? 'an inheritance parent: a SELECT from it also reads its children, whose changes come under other names; track the children'
                : row.foreignPartition !== null
                  ? `partitioned, and the changes of its partition ${row.foreignPartition} (foreign or unlogged) are not in the log`
                  : null)
  if (reason !== null) throw new TidegateError('TABLE_UNSUPPORTED', `${printName(table)} is ${reason}`)
}

// By pg_class and pg_proc, not by to_regclass and to_regprocedure: those want USAGE on the schema, which reading needs not.
const tableSql = `
SELECT c.oid, c.relkind AS kind, c.relpersistence AS persistence, o.rolname AS owner,
  c.relrowsecurity AS "rowSecurity",
  c.relrowsecurity AND c.relforcerowsecurity AND NOT o.rolsuper AND NOT o.rolbypassrls AS "hidesFromOwner",
  c.relkind = 'r' AND EXISTS (SELECT FROM pg_inherits WHERE inhparent = c.oid) AS "isParent",
  CASE WHEN c.relispartition THEN pg_partition_root(c.oid)::regclass::text END AS "partitionOf",
  (SELECT min(l.oid::regclass::text) FROM pg_partition_tree(c.oid) t JOIN pg_class l ON l.oid = t.relid
    WHERE c.relkind = 'p' AND (l.relkind = 'f' OR l.relpersistence <> 'p')) AS "foreignPartition",
  ARRAY(SELECT json_build_object('name', a.attname, 'notNull', a.attnotnull,
    'isVirtual', a.attgenerated = 'v') FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum) AS columns,
  ARRAY(SELECT a.attname::text FROM pg_index i, unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n)
    JOIN pg_attribute a ON a.attnum = k.attnum
    WHERE i.indrelid = c.oid AND i.indisprimary AND a.attrelid = c.oid AND k.n <= i.indnkeyatts ORDER BY k.n) AS "primaryKey",
  EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = $3 AND r.prrelid = c.oid) AS "isPublished",
  EXISTS (SELECT FROM pg_proc f WHERE f.pronamespace = to_regnamespace('tidegate') AND f.proname = $4
    AND f.prosrc = $5 AND f.proowner = c.relowner AND f.prosecdef
    AND f.proacl IS NOT NULL AND NOT EXISTS (SELECT FROM aclexplode(f.proacl) WHERE grantee = 0)
    AND has_function_privilege($6, f.oid, 'EXECUTE')) AS "hasReadFunction"
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_roles o ON o.oid = c.relowner
WHERE n.nspname = $1 AND c.relname = $2`

const relationsSql = `
SELECT c.oid, n.nspname AS schema, c.relname AS name, x.indexrelid::regclass::text AS "identityIndex",
  CASE c.relreplident WHEN 'd' THEN 'default' WHEN 'n' THEN 'nothing' WHEN 'f' THEN 'full' ELSE 'index' END AS identity,
  ARRAY(SELECT a.attname::text FROM pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum = ANY (x.indkey::int2[])) AS "identityColumns"
FROM (SELECT $1::oid AS relid, 0 AS level UNION SELECT relid, level FROM pg_partition_tree($1::oid)) t
JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_index x ON x.indrelid = c.oid AND x.indisreplident AND c.relreplident = 'i'
ORDER BY t.level, c.oid`
