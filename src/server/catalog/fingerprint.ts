// One text that changes whenever anything changes that decides who may see which row.
//
// Roles fire no event trigger and send no Relation message, nor do functions and the policies of inner tables: a poller
// asks for this instead. It does not depend on what has been read so far, or reading a new table would look like a change.
import { type Kysely, sql } from 'kysely'

export interface FingerprintOptions {
  readonly version: number
  readonly publication: string
  /** The roles that tokens may name. */
  readonly roles: readonly string[]
}

/** Reads values, not row versions: VACUUM and ANALYZE touch pg_class, and a migration that replaces a function by itself
 *  changes nothing. Of functions it reads those that a policy may come to call, so that somebody who makes many of his own
 *  disturbs nobody: Postgres knows which ones a policy or a parsed body names; a body that is text calls all whose names stand
 *  in it, or may stand in it in disguise. Of roles it reads those that tokens name, that functions run as, and what these are
 *  members of: the others of a server that many databases share are nothing to this one. @returns 32 hexadecimal digits */
export async function readFingerprint(db: Kysely<unknown>, options: FingerprintOptions): Promise<string> {
  const { version, publication } = options
  const roles = sql`${options.roles}::text[]`
  const member = version < 150000 ? sql`r.prrelid` : sql`concat_ws(' ', r.prrelid, r.prattrs, r.prqual::text)`
  const schemas =
    version < 150000
      ? sql`NULL`
      : sql`(SELECT string_agg(s.pnnspid::text, ',' ORDER BY s.pnnspid) FROM pg_publication_namespace s WHERE s.pnpubid = p.oid)`
  // pg_publication_tables would say the same, but Postgres 15 takes a second for a dozen tables.
  const all = sql`EXISTS (SELECT FROM pg_publication p WHERE p.pubname = ${publication} AND p.puballtables)`
  const byRule =
    version < 150000
      ? all
      : sql`(${all} OR c.relnamespace IN (SELECT s.pnnspid FROM pg_publication_namespace s WHERE s.pnpubid IN (SELECT oid FROM pub)))`
  const generated = version < 180000 ? sql`NULL` : sql`p.pubgencols`
  const grants = version < 160000 ? sql`NULL` : sql`concat_ws(' ', m.inherit_option, m.set_option)`
  const { rows } = await sql<{ fingerprint: string }>`
    WITH RECURSIVE pub AS (
      SELECT p.oid, concat_ws(' ', p.oid, p.puballtables, p.pubinsert, p.pubupdate, p.pubdelete, p.pubtruncate, p.pubviaroot,
        ${generated}, ${schemas}, (SELECT string_agg(${member}::text, ',' ORDER BY r.prrelid) FROM pg_publication_rel r WHERE r.prpubid = p.oid)
      ) AS text FROM pg_publication p WHERE p.pubname = ${publication}
    ), tracked AS (
      SELECT r.prrelid AS oid FROM pg_publication_rel r WHERE r.prpubid IN (SELECT oid FROM pub)
      UNION
      SELECT c.oid FROM pg_class c WHERE c.relkind IN ('r', 'p') AND c.oid >= 16384 AND ${byRule}
    ), rel AS (
      SELECT oid FROM tracked
      UNION SELECT i.inhrelid FROM rel JOIN pg_inherits i ON i.inhparent = rel.oid
    ), fn AS MATERIALIZED (
      SELECT oid, lower(proname) AS name FROM pg_proc WHERE oid >= 16384
    ), called AS (
      SELECT fn.oid FROM fn
      WHERE fn.name !~ '^[a-z0-9_$]+$' OR fn.oid IN (
        SELECT d.refobjid FROM pg_depend d JOIN pg_policy l ON l.oid = d.objid JOIN rel ON rel.oid = l.polrelid
        WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_proc'::regclass)
      UNION
      SELECT fn.oid FROM called JOIN pg_proc f ON f.oid = called.oid JOIN pg_language l ON l.oid = f.prolang CROSS JOIN LATERAL (
        SELECT regexp_split_to_table(lower(f.prosrc), '[^a-z0-9_$]+') AS name WHERE l.lanname = 'sql'
        UNION ALL SELECT name FROM fn WHERE l.lanname = 'sql' AND f.prosrc ILIKE '%u&%'
        UNION ALL SELECT lower(c.proname) FROM pg_depend d JOIN pg_proc c ON c.oid = d.refobjid
        WHERE d.classid = 'pg_proc'::regclass AND d.objid = f.oid AND d.refclassid = 'pg_proc'::regclass
      ) AS word JOIN fn ON fn.name = word.name
    ), used AS (
      SELECT a.atttypid AS oid FROM rel JOIN pg_attribute a ON a.attrelid = rel.oid AND a.attnum > 0 AND a.atttypid >= 16384
      UNION
      SELECT inner_type.oid FROM used JOIN pg_type t ON t.oid = used.oid CROSS JOIN LATERAL (
        SELECT t.typelem AS oid UNION ALL SELECT t.typbasetype
        UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0
      ) AS inner_type WHERE inner_type.oid >= 16384
    ), role AS (
      (SELECT oid FROM pg_roles WHERE rolname = ANY (${roles}) OR rolname = current_user
        UNION SELECT f.proowner FROM called JOIN pg_proc f ON f.oid = called.oid)
      UNION SELECT m.roleid FROM role JOIN pg_auth_members m ON m.member = role.oid
    ), part AS (
      SELECT 'publication ' || text AS text FROM pub
      UNION ALL
      SELECT concat_ws(' ', 'table', c.oid, n.nspname, c.relname, c.relkind, c.relpersistence, c.relowner, c.relrowsecurity,
        c.relforcerowsecurity, c.relreplident, c.relacl, n.nspacl, n.nspowner,
        CASE WHEN c.relispartition AND c.relkind = 'r' THEN c.relfilenode END,
        (SELECT string_agg(concat_ws(' ', attnum, attname, atttypid, atttypmod, attcollation, attnotnull, attgenerated,
          attisdropped, attacl), ',' ORDER BY attnum) FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0),
        (SELECT string_agg(concat_ws(' ', indexrelid, indkey, indisunique, indisprimary, indisreplident, indisvalid,
          indimmediate, indpred IS NULL), ',' ORDER BY indexrelid) FROM pg_index WHERE indrelid = c.oid AND indisunique),
        (SELECT string_agg(concat_ws(' ', inhparent, inhseqno), ',' ORDER BY inhparent) FROM pg_inherits WHERE inhrelid = c.oid))
      FROM rel JOIN pg_class c ON c.oid = rel.oid JOIN pg_namespace n ON n.oid = c.relnamespace
      UNION ALL
      SELECT concat_ws(' ', 'policy', l.oid, polrelid, polname, polcmd, polpermissive, polroles, md5(polqual::text), md5(polwithcheck::text))
      FROM pg_policy l JOIN rel ON rel.oid = polrelid
      UNION ALL
      SELECT concat_ws(' ', 'role', r.oid, rolname, rolsuper, rolbypassrls, rolinherit) FROM pg_roles r
      WHERE oid IN (SELECT oid FROM role)
      UNION ALL
      SELECT concat_ws(' ', 'member', m.roleid, m.member, ${grants}) FROM pg_auth_members m WHERE m.member IN (SELECT oid FROM role)
      UNION ALL
      SELECT concat_ws(' ', 'function', f.oid, proname, pronamespace, prolang, prokind, proowner, prosecdef, proisstrict,
        proretset, prorettype, proargtypes, proargnames, proconfig, proacl,
        CASE WHEN l.lanname = 'sql' THEN md5(prosrc || coalesce(prosqlbody::text, '')) END)
      FROM pg_proc f JOIN pg_language l ON l.oid = prolang
      WHERE f.oid IN (SELECT oid FROM called) OR f.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'tidegate')
      UNION ALL
      SELECT concat_ws(' ', 'type', t.oid, typname, typnamespace, typbasetype,
        (SELECT string_agg(enumlabel, ',' ORDER BY enumsortorder) FROM pg_enum WHERE enumtypid = t.oid))
      FROM pg_type t WHERE t.oid >= 16384 AND typtype IN ('e', 'd')
      UNION ALL
      SELECT concat_ws(' ', 'fields', t.oid, (SELECT string_agg(concat_ws(' ', attname, atttypid), ',' ORDER BY attnum)
        FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped))
      FROM used JOIN pg_type t USING (oid) WHERE t.typtype = 'c'
      UNION ALL
      SELECT concat_ws(' ', 'schema', oid, nspname, nspacl) FROM pg_namespace WHERE oid >= 16384
    )
    SELECT md5(string_agg(text, E'\n' ORDER BY text)) AS fingerprint FROM part`.execute(db)
  return rows[0]!.fingerprint
}
