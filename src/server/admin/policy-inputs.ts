// Which columns of which tables the policies read: Postgres records it in pg_depend, for policies and for functions whose
// body is SQL-standard (BEGIN ATOMIC). A function with its body in a text is parsed for the tables it names. This is
// advice for the operator; what decides is the compiled policy.
import { parse } from 'libpg-query'
import type pg from 'pg'
import type { TableName, TableState } from './tracked-table.ts'

/** @returns columns of the table that any policy in the database reads: its own, and those of tables it is a membership
 *  of, as far as Postgres records them; not those that only a function's text names */
export async function columnsReadByPolicies(client: pg.ClientBase, table: TableState): Promise<string[]> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT DISTINCT a.attname AS name, a.attnum FROM pg_depend d
     JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.classid IN ('pg_policy'::regclass, 'pg_proc'::regclass) AND d.refclassid = 'pg_class'::regclass
       AND d.refobjid = $1 AND d.refobjsubid > 0 ORDER BY a.attnum`,
    [table.oid],
  )
  return rows.map(row => row.name)
}

/** Tables that the table's policies read and that the publication lacks, following the policies of the tables read and
 *  the functions called; each once. */
export async function untrackedInputs(
  client: pg.ClientBase,
  table: Pick<TableState, 'oid'>,
  publication: string,
): Promise<TableName[]> {
  const seen = new Set<string>([`pg_class ${table.oid}`])
  const untracked: TableName[] = []
  // Bounded by the tables and functions of the database: each is taken once.
  const queue: Reference[] = await references(client, policySql, table.oid)
  for (let next = queue.shift(); next !== undefined; next = queue.shift()) {
    const key = `${next.catalog} ${next.oid}`
    if (seen.has(key)) continue
    seen.add(key)
    if (next.catalog === 'pg_proc') {
      queue.push(...(await references(client, functionSql, next.oid)), ...(await namedInBody(client, next.oid)))
      continue
    }
    const { rows } = await client.query<TableName & { isTable: boolean; isPublished: boolean }>(relationSql, [
      next.oid,
      publication,
    ])
    const [found] = rows
    if (found === undefined || !found.isTable) continue
    if (!found.isPublished) untracked.push({ schema: found.schema, name: found.name })
    queue.push(...(await references(client, policySql, next.oid)))
  }
  return untracked
}

interface Reference {
  readonly catalog: 'pg_class' | 'pg_proc'
  readonly oid: number
}

const references = async (client: pg.ClientBase, sql: string, oid: number): Promise<Reference[]> =>
  (await client.query<Reference>(sql, [oid])).rows

const referenced = `SELECT DISTINCT d.refclassid::regclass::text AS catalog, d.refobjid AS oid FROM pg_depend d`
const isTableOrFunction = `d.refclassid IN ('pg_class'::regclass, 'pg_proc'::regclass)`
// Policies of a table without row-level security do not apply.
const policySql = `${referenced} JOIN pg_policy p ON d.classid = 'pg_policy'::regclass AND d.objid = p.oid
  JOIN pg_class c ON c.oid = p.polrelid WHERE p.polrelid = $1 AND c.relrowsecurity AND ${isTableOrFunction}`
const functionSql = `${referenced} WHERE d.classid = 'pg_proc'::regclass AND d.objid = $1 AND ${isTableOrFunction}`
const relationSql = `SELECT n.nspname AS schema, c.relname AS name, c.relkind IN ('r', 'p') AS "isTable",
  EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = $2 AND r.prrelid IN (c.oid, CASE WHEN c.relispartition THEN pg_partition_root(c.oid) END)) AS "isPublished"
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1`

async function namedInBody(client: pg.ClientBase, oid: number): Promise<Reference[]> {
  const { rows } = await client.query<{ body: string; schemas: string[] }>(
    `SELECT p.prosrc AS body, coalesce((SELECT array_agg(trim(both ' "' from s)) FROM unnest(p.proconfig) AS c,
       string_to_table(substr(c, strpos(c, '=') + 1), ',') AS s WHERE c LIKE 'search_path=%'), '{public}') AS schemas
     FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
     WHERE p.oid = $1 AND l.lanname = 'sql' AND p.prosqlbody IS NULL`,
    [oid],
  )
  const [found] = rows
  if (found === undefined) return []
  const names: Named[] = []
  // A body that does not parse names nothing; whether the policy can be judged is said at the subscription.
  const tree: unknown = await parse(found.body).catch(() => null)
  collectNames(tree, names)
  const references: Reference[] = []
  for (const { catalog, schema, name } of names) {
    const result = await client.query<Reference>(catalog === 'pg_class' ? tableByName : functionByName, [
      name,
      schema === null ? found.schemas : [schema],
    ])
    references.push(...result.rows)
  }
  return references
}

interface Named {
  readonly catalog: Reference['catalog']
  readonly schema: string | null
  readonly name: string
}

const tableByName = `SELECT 'pg_class' AS catalog, c.oid FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE c.relname = $1 AND n.nspname = ANY ($2) ORDER BY array_position($2, n.nspname::text) LIMIT 1`
const functionByName = `SELECT 'pg_proc' AS catalog, p.oid FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE p.proname = $1 AND n.nspname = ANY ($2)`

/** Every RangeVar and FuncCall of a parse tree. */
function collectNames(node: unknown, names: Named[]): void {
  if (typeof node !== 'object' || node === null) return
  for (const [kind, value] of Object.entries(node)) {
    if (kind === 'RangeVar' && isRecord(value) && typeof value.relname === 'string')
      names.push({
        catalog: 'pg_class',
        schema: typeof value.schemaname === 'string' ? value.schemaname : null,
        name: value.relname,
      })
    if (kind === 'FuncCall' && isRecord(value) && Array.isArray(value.funcname)) {
      const parts = value.funcname.map(part =>
        isRecord(part) && isRecord(part.String) ? String(part.String.sval) : '',
      )
      names.push({ catalog: 'pg_proc', schema: parts.at(-2) ?? null, name: parts.at(-1) ?? '' })
    }
    collectNames(value, names)
  }
}

const isRecord = (value: unknown): value is Record<string, unknown> => typeof value === 'object' && value !== null
