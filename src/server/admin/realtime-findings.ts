// What an operator should know of a schema `realtime` that somebody else made, and that migrate leaves as it is.
import type pg from 'pg'
import { identifier } from './script.ts'

export type RealtimeFindingKind =
  | 'MESSAGES_UNPUBLISHED'
  | 'SEND_SWALLOWS_ERRORS'
  | 'PARTITION_MISSING'
  | 'PUBLICATION_NOT_FOLLOWED'
  | 'CLAIMS_READABLE'

export interface RealtimeFinding {
  readonly kind: RealtimeFindingKind
  /** `warning`: something is lost or told to those it is not for. `notice`: something is left to do. */
  readonly severity: 'warning' | 'notice'
  /** One sentence. */
  readonly message: string
  /** What to type: a command of ours, or SQL. */
  readonly remedy: string
}

/** A client, or a pool. */
export interface Asked {
  readonly query: pg.ClientBase['query']
}

/** Of a database as it is now: whoever may log in may read all of it.
 *  @param publication ours
 *  @throws what Postgres throws */
export async function findingsOfRealtimeSchema(client: Asked, publication: string): Promise<RealtimeFinding[]> {
  const found = [
    await unpublished(client, publication),
    await swallowing(client),
    await missingPartition(client),
    await readableClaims(client),
    await unfollowed(client, publication),
  ]
  return found.filter(finding => finding !== null)
}

export const findingLine = ({ severity, message, remedy }: RealtimeFinding): string =>
  `${severity}: ${message}; ${remedy}\n`

const adoption = "once Supabase's Realtime is switched off, tidegate migrate --adopt-realtime"

/** Migrate has warned of it with the reason. */
async function unpublished(client: Asked, publication: string): Promise<RealtimeFinding | null> {
  const { rows } = await client.query<{ isMissing: boolean }>(
    `SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = $1)
       AND EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'realtime' AND c.relname = 'messages')
       AND NOT EXISTS (SELECT FROM pg_publication_tables WHERE pubname = $1 AND schemaname = 'realtime' AND tablename = 'messages') AS "isMissing"`,
    [publication],
  )
  if (rows[0]?.isMissing !== true) return null
  return {
    kind: 'MESSAGES_UNPUBLISHED',
    severity: 'warning',
    message: `messages sent from SQL do not arrive: realtime.messages is not in the publication ${identifier(publication)}`,
    remedy: `ALTER PUBLICATION ${identifier(publication)} ADD TABLE realtime.messages`,
  }
}

/** Comments are taken out of the body first. */
async function swallowing(client: Asked): Promise<RealtimeFinding | null> {
  const { rows } = await client.query<{ name: string }>(
    `SELECT n.nspname || '.' || p.proname AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
     WHERE n.nspname = 'realtime' AND p.proname IN ('send', 'send_binary')
       AND regexp_replace(regexp_replace(p.prosrc, '/\\*.*?\\*/', ' ', 'g'), '--[^\\n]*', ' ', 'g')
         ~* '\\mWHEN\\s+OTHERS\\s+THEN\\s+(RAISE\\s+(WARNING|NOTICE|INFO|LOG|DEBUG)\\M|NULL\\s*;|END\\M)'
     ORDER BY p.proname`,
  )
  if (rows.length === 0) return null
  const [does, its] = rows.length === 1 ? ['swallows', 'its'] : ['swallow', 'their']
  return {
    kind: 'SEND_SWALLOWS_ERRORS',
    severity: 'warning',
    message: `${rows.map(({ name }) => name).join(' and ')} ${does} ${its} errors: what cannot be sent is lost, and whoever sent it commits`,
    remedy: `${adoption} puts ours in their place, which fail the transaction`,
  }
}

interface Leaf {
  /** Of the column, where the table is parted by the time of its rows alone, else null. */
  readonly type: 'timestamp without time zone' | 'timestamp with time zone' | null
  /** SQL over `inserted_at`: the rows that a partition takes. */
  readonly condition: string
}

/** A day ahead: their janitor keeps three, and comes every few hours. Of a table that is parted by anything else nothing can be said
 *  of tomorrow. */
async function missingPartition(client: Asked): Promise<RealtimeFinding | null> {
  const { rows: leaves } = await client.query<Leaf>(
    `SELECT (SELECT a.atttypid::regtype::text FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname = 'inserted_at'
         AND p.partattrs::text = a.attnum::text AND a.atttypid IN ('timestamp'::regtype, 'timestamptz'::regtype)) AS type,
       CASE WHEN l.relid IS NULL THEN 'false' ELSE coalesce(pg_get_partition_constraintdef(l.relid), 'true') END AS condition
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_partitioned_table p ON p.partrelid = c.oid
     LEFT JOIN LATERAL pg_partition_tree(c.oid) l ON l.isleaf AND l.relid <> c.oid
     WHERE n.nspname = 'realtime' AND c.relname = 'messages' AND p.partstrat = 'r'`,
  )
  const type = leaves[0]?.type ?? null
  if (type === null) return null
  const now = type === 'timestamp with time zone' ? 'now()' : `timezone('UTC', now())`
  const { rows } = await client.query<{ isToday: boolean; day: string; next: string; name: string }>(
    `SELECT ahead = 0 AS "isToday", to_char(day, 'YYYY-MM-DD') AS day, to_char(day + interval '1 day', 'YYYY-MM-DD') AS next,
       to_char(day, '"messages_"YYYY_MM_DD') AS name
     FROM (SELECT ahead, ${now} + ahead * interval '1 day' AS inserted_at, timezone('UTC', now()) + ahead * interval '1 day' AS day
       FROM generate_series(0, 1) AS ahead) d
     WHERE NOT (${leaves.map(({ condition }) => `(${condition})`).join(' OR ')}) ORDER BY ahead LIMIT 1`,
  )
  const missing = rows[0]
  if (missing === undefined) return null
  const { isToday, day, next, name } = missing
  const from = isToday ? 'now' : 'then'
  return {
    kind: 'PARTITION_MISSING',
    severity: 'warning',
    message: `realtime.messages has no partition for ${isToday ? 'today' : 'tomorrow'}, ${day} (UTC), and from ${from} on nothing can be sent from SQL: Supabase's Realtime makes one for each day, as long as it runs`,
    remedy: `${adoption} lets Tidegate make them; by hand: CREATE TABLE realtime.${name} PARTITION OF realtime.messages FOR VALUES FROM ('${day}') TO ('${next}')`,
  }
}

/** Each row has the whole token of somebody who is connected to their Realtime. */
async function readableClaims(client: Asked): Promise<RealtimeFinding | null> {
  const { rows } = await client.query<{ role: string }>(
    `SELECT r.rolname AS role FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'claims'
     JOIN pg_roles r ON r.rolname IN ('anon', 'authenticated')
     WHERE n.nspname = 'realtime' AND c.relname = 'subscription' AND NOT c.relrowsecurity
       AND has_schema_privilege(r.oid, n.oid, 'USAGE') AND has_column_privilege(r.oid, c.oid, a.attnum, 'SELECT')
     ORDER BY 1`,
  )
  if (rows.length === 0) return null
  const roles = rows.map(({ role }) => role)
  return {
    kind: 'CLAIMS_READABLE',
    severity: 'warning',
    message: `${roles.join(' and ')} may read realtime.subscription, which holds the claims of everybody who is connected to Supabase's Realtime`,
    remedy: `REVOKE SELECT ON realtime.subscription FROM PUBLIC, ${roles.join(', ')}`,
  }
}

/** @returns null as soon as one of its tables is followed: it has been read then, and the rest may have been left out on purpose */
async function unfollowed(client: Asked, publication: string): Promise<RealtimeFinding | null> {
  const { rows } = await client.query<{ tables: number; followed: number }>(
    `SELECT count(*)::int AS tables, count(o.prrelid)::int AS followed
     FROM pg_publication p JOIN pg_publication_tables t ON t.pubname = p.pubname
     JOIN pg_namespace n ON n.nspname = t.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = t.tablename
     LEFT JOIN (SELECT r.prrelid FROM pg_publication_rel r JOIN pg_publication w ON w.oid = r.prpubid WHERE w.pubname = $1) o
       ON o.prrelid = c.oid
     WHERE p.pubname = 'supabase_realtime' AND n.nspname NOT IN ('realtime', 'tidegate')`,
    [publication],
  )
  const { tables, followed } = rows[0]!
  if (tables === 0 || followed > 0) return null
  return {
    kind: 'PUBLICATION_NOT_FOLLOWED',
    severity: 'notice',
    message: `the publication supabase_realtime has ${tables === 1 ? 'a table that is' : `${tables} tables that are`} not tracked`,
    remedy: 'tidegate track --from-publication supabase_realtime follows what it publishes',
  }
}
