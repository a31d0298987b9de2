// Reads which of the tracked tables a role may read at all.
import { sql } from 'kysely'
import type { RelationReading } from './read-relation.ts'

/** Those that have a primary key which the role may SELECT; of a partition the table above it that is published. Not ours, nor
 *  the table of messages.
 *  @returns none for a role that there is not */
export async function readReadableTables(
  { db, version, publication }: Pick<RelationReading, 'db' | 'version' | 'publication'>,
  role: string,
): Promise<{ schema: string; name: string }[]> {
  const ofSchemas =
    version < 150000
      ? sql`false`
      : sql`c.relnamespace IN (SELECT s.pnnspid FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)`
  const { rows } = await sql<{ schema: string; name: string }>`
    WITH published AS (
      SELECT c.oid FROM pg_publication p JOIN pg_class c ON c.relkind IN ('r', 'p') AND c.oid >= 16384 AND (
        p.puballtables OR ${ofSchemas}
        OR EXISTS (SELECT FROM pg_publication_rel r WHERE r.prpubid = p.oid AND r.prrelid = c.oid))
      WHERE p.pubname = ${publication}
    )
    SELECT n.nspname AS schema, c.relname AS name
    FROM published JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_roles reader ON reader.rolname = ${role}
    JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
    WHERE n.nspname <> 'tidegate' AND (n.nspname, c.relname) <> ('realtime', 'messages')
      AND has_schema_privilege(reader.oid, n.oid, 'USAGE')
      AND NOT EXISTS (
        SELECT FROM unnest(k.conkey) AS key (number) WHERE NOT has_column_privilege(reader.oid, c.oid, key.number, 'SELECT'))
      AND NOT (c.relispartition AND EXISTS (
        SELECT FROM pg_partition_ancestors(c.oid) AS above (oid) JOIN published USING (oid) WHERE above.oid <> c.oid))
    ORDER BY 1, 2`.execute(db)
  return rows
}
