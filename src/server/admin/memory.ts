// What Tidegate remembers of the tables it tracks, beside what the catalog says now: from it follow the statements that
// give a table back as it was.
import type pg from 'pg'
import { readFunctionArguments } from './read-function-sql.ts'
import { identifier, literal, qualified } from './script.ts'

/** Names are SQL, quoted and qualified. */
export interface TrackedRelation {
  readonly oid: number
  /** null: the table was dropped. */
  readonly sql: string | null
  readonly before: 'd' | 'n' | 'f' | 'i'
  /** Its name without a schema; null when it was dropped. */
  readonly indexBefore: string | null
  readonly now: 'd' | 'n' | 'f' | 'i'
  /** The identity is what `track` set: FULL, the index of ours, or an index that was dropped since. */
  readonly isOurs: boolean
}

export interface TrackedTable {
  readonly oid: number
  /** null: the table was dropped. */
  readonly sql: string | null
  /** schema.table as it is called now; when it was tracked, if it was dropped. */
  readonly name: string
  readonly isPublished: boolean
  /** Another deployment tracks it too, and needs identity and function. */
  readonly isShared: boolean
  readonly readFunction: string
  readonly hasReadFunction: boolean
  readonly identityIndex: string | null
  readonly relations: readonly TrackedRelation[]
}

export async function trackedTables(client: pg.ClientBase, publication: string): Promise<TrackedTable[]> {
  const { rows } = await client.query<TrackedTable>(tablesSql, [publication, `(${readFunctionArguments})`])
  return rows
}

/** Out of the publication first, in the same transaction: an identity that is weaker than FULL may be none at all.
 *  @param isLast the publication itself goes, and what is remembered with it */
export function restoreStatements(table: TrackedTable, publication: string, isLast: boolean): string[] {
  const statements: string[] = []
  // ONLY: tables that inherit from it since are not in the publication.
  if (table.isPublished && !isLast)
    statements.push(`ALTER PUBLICATION ${identifier(publication)} DROP TABLE ONLY ${table.sql}`)
  if (!table.isShared) {
    for (const relation of table.relations)
      if (relation.sql !== null && relation.isOurs)
        statements.push(`ALTER TABLE ${relation.sql} REPLICA IDENTITY ${identityBefore(relation)}`)
    if (table.identityIndex !== null) statements.push(`DROP INDEX ${table.identityIndex}`)
    if (table.hasReadFunction)
      statements.push(`DROP FUNCTION ${qualified('tidegate', table.readFunction)}(${readFunctionArguments})`)
    statements.push(`DELETE FROM tidegate.identity_before WHERE root = ${table.oid}`)
  }
  statements.push(
    `DELETE FROM tidegate.tracked WHERE publication = ${literal(publication)} AND relation = ${table.oid}`,
  )
  return statements
}

/** What could not be given back as it was. */
export function restoreWarnings(table: TrackedTable): string[] {
  if (table.isShared) return [`${table.name} keeps its replica identity: another deployment tracks it`]
  return table.relations.flatMap(relation => {
    if (relation.sql === null) return []
    if (!relation.isOurs) return [`${relation.sql} keeps its replica identity, which was changed after it was tracked`]
    if (relation.before === 'i' && relation.indexBefore === null)
      return [`${relation.sql} gets REPLICA IDENTITY DEFAULT: the index that it had was dropped`]
    return []
  })
}

function identityBefore({ before, indexBefore }: TrackedRelation): string {
  if (before === 'i' && indexBefore !== null) return `USING INDEX ${identifier(indexBefore)}`
  return before === 'n' ? 'NOTHING' : before === 'f' ? 'FULL' : 'DEFAULT'
}

const tablesSql = `
SELECT t.relation::oid AS oid, CASE WHEN c.oid IS NOT NULL THEN format('%I.%I', s.nspname, c.relname) END AS sql,
  coalesce(s.nspname || '.' || c.relname, t.name) AS name,
  EXISTS (SELECT FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
    WHERE p.pubname = t.publication AND r.prrelid = c.oid) AS "isPublished",
  EXISTS (SELECT FROM tidegate.tracked o WHERE o.relation = t.relation AND o.publication <> t.publication
    AND o.publication IN (SELECT pubname FROM pg_publication)) AS "isShared",
  t.read_function AS "readFunction",
  to_regprocedure(format('tidegate.%I', t.read_function) || $2) IS NOT NULL AND NOT EXISTS (SELECT FROM tidegate.tracked o
    WHERE o.relation <> t.relation AND o.read_function = t.read_function
      AND o.relation IN (SELECT oid FROM pg_class)) AS "hasReadFunction",
  (SELECT format('%I.%I', n.nspname, i.relname) FROM pg_class i JOIN pg_namespace n ON n.oid = i.relnamespace
    WHERE i.oid = t.identity_index) AS "identityIndex",
  (SELECT coalesce(json_agg(json_build_object(
      'oid', b.relation::oid, 'sql', CASE WHEN l.oid IS NOT NULL THEN format('%I.%I', n.nspname, l.relname) END,
      'before', b.identity, 'indexBefore', (SELECT relname FROM pg_class WHERE oid = b.identity_index),
      'now', l.relreplident, 'isOurs', l.relreplident = 'f'
        OR (l.relreplident = 'i' AND (x.indexrelid IS NULL OR x.indexrelid = t.identity_index))) ORDER BY b.relation), '[]')
    FROM tidegate.identity_before b LEFT JOIN pg_class l ON l.oid = b.relation
    LEFT JOIN pg_namespace n ON n.oid = l.relnamespace
    LEFT JOIN pg_index x ON x.indrelid = l.oid AND x.indisreplident WHERE b.root = t.relation) AS relations
FROM tidegate.tracked t LEFT JOIN pg_class c ON c.oid = t.relation LEFT JOIN pg_namespace s ON s.oid = c.relnamespace
WHERE t.publication = $1 ORDER BY 3`
