// The tables of another publication, such as supabase_realtime, to be tracked as they stand there.
import type pg from 'pg'
import { TidegateError } from '../../protocol/tidegate-error.ts'
import { printName, type TableName } from './tracked-table.ts'

export interface PublishedTable extends TableName {
  /** What the publication says of it and is not taken over, each with what decides instead. */
  readonly warnings: readonly string[]
}

export interface PublishedTables {
  /** In the order of their names; of partitions the table above them that is published too. */
  readonly tables: readonly PublishedTable[]
  readonly warnings: readonly string[]
}

interface PublicationRow {
  readonly all: boolean
  readonly publishes: readonly string[]
  readonly schemas: readonly string[]
}

interface MemberRow extends TableName {
  readonly columns: readonly string[] | null
  readonly filter: string | null
}

/** @param own the name of our own publication
 *  @throws CONFIG_INVALID when it is not there, for our own, and for one of all tables */
export async function readPublishedTables(
  client: pg.ClientBase,
  publication: string,
  own: string,
): Promise<PublishedTables> {
  if (publication === own)
    throw new TidegateError(
      'CONFIG_INVALID',
      `"${own}" is Tidegate's own publication; tidegate track without a name puts right what is in it`,
    )
  const { rows: versions } = await client.query<{ version: number }>(
    `SELECT current_setting('server_version_num')::int AS version`,
  )
  // Column lists, row filters and schemas came with Postgres 15.
  const isOld = versions[0]!.version < 150_000
  const { rows } = await client.query<PublicationRow>(publicationSql(isOld), [publication])
  const found = rows[0]
  if (found === undefined) throw await notThere(client, publication)
  if (found.all)
    throw new TidegateError(
      'CONFIG_INVALID',
      `the publication "${publication}" is FOR ALL TABLES, so also of those that no client should follow; name the ones to follow: tidegate track <table> ...`,
    )
  const members = await client.query<MemberRow>(membersSql(isOld), [publication])
  return {
    tables: members.rows.map(member => ({ ...member, warnings: warningsOf(member) })),
    warnings: publicationWarnings(publication, found),
  }
}

async function notThere(client: pg.ClientBase, publication: string): Promise<TidegateError> {
  const { rows } = await client.query<{ names: string | null }>(
    `SELECT string_agg(format('"%s"', pubname), ', ' ORDER BY pubname) AS names FROM pg_publication`,
  )
  const others = rows[0]!.names === null ? 'it has none' : `it has ${rows[0]!.names}`
  return new TidegateError(
    'CONFIG_INVALID',
    `this database has no publication "${publication}" to track from; ${others}`,
  )
}

function publicationWarnings(publication: string, { publishes, schemas }: PublicationRow): string[] {
  const warnings = []
  const left = ['insert', 'update', 'delete'].filter(operation => !publishes.includes(operation))
  if (left.length > 0)
    warnings.push(
      `"${publication}" leaves out ${left.join(' and ')}; here a client chooses the events that it is told of`,
    )
  if (schemas.length > 0)
    warnings.push(
      `"${publication}" has all tables of ${schemas.map(schema => `schema ${schema}`).join(', ')}; those made later are tracked when this is run again`,
    )
  return warnings
}

function warningsOf({ columns, filter, ...table }: MemberRow): string[] {
  const name = printName(table)
  const warnings = []
  if (columns !== null)
    warnings.push(
      `the publication shows ${columns.join(', ')} alone; here a role sees the columns that it may SELECT: GRANT SELECT (${columns.join(', ')}) ON ${name}`,
    )
  if (filter !== null)
    warnings.push(
      `the publication shows rows of ${filter} alone; here policies and the client's own filter say which rows of ${name} it sees`,
    )
  return warnings
}

const publicationSql = (isOld: boolean): string => `
  SELECT p.puballtables AS all,
    array_remove(ARRAY[CASE WHEN pubinsert THEN 'insert' END, CASE WHEN pubupdate THEN 'update' END,
      CASE WHEN pubdelete THEN 'delete' END], NULL) AS publishes,
    ${
      isOld
        ? `'{}'::text[]`
        : `ARRAY(SELECT n.nspname::text FROM pg_publication_namespace s JOIN pg_namespace n ON n.oid = s.pnnspid
            WHERE s.pnpubid = p.oid ORDER BY 1)`
    } AS schemas
  FROM pg_publication p WHERE p.pubname = $1`

const membersSql = (isOld: boolean): string => `
  WITH published AS (
    SELECT r.prrelid AS oid, ${isOld ? 'NULL::text[]' : listedColumns} AS columns,
      ${isOld ? 'NULL' : 'pg_get_expr(r.prqual, r.prrelid)'} AS filter
    FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $1
    ${
      isOld
        ? ''
        : `UNION
           SELECT c.oid, NULL, NULL FROM pg_class c JOIN pg_publication_namespace s ON s.pnnspid = c.relnamespace
           JOIN pg_publication p ON p.oid = s.pnpubid
           WHERE p.pubname = $1 AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p'`
    }
  )
  SELECT n.nspname AS schema, c.relname AS name, u.columns, u.filter
  FROM published u JOIN pg_class c USING (oid) JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE NOT (c.relispartition AND EXISTS (
    SELECT FROM pg_partition_ancestors(c.oid) AS above (oid) JOIN published USING (oid) WHERE above.oid <> c.oid))
  ORDER BY 1, 2`

const listedColumns = `CASE WHEN r.prattrs IS NOT NULL THEN ARRAY(
  SELECT a.attname::text FROM pg_attribute a WHERE a.attrelid = r.prrelid AND a.attnum = ANY (r.prattrs::int2[]) ORDER BY a.attnum) END`
