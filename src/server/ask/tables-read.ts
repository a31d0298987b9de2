// Which tables an asked policy reads, as far as the catalog tells: a commit to one of them is looked at at once instead of at
// the next recheck. A guess: too many cost checks, too few cost `recheckMs`.
import type pg from 'pg'
import type { Lane } from '../postgres/database.ts'
import { lockTimeoutMs, untilUnlocked } from '../postgres/locked.ts'

/** @returns OIDs: tables that the policies name, and those whose name stands in the body of a function that they call, at
 *    any depth; the table itself only where the text of a policy or function selects from it */
export async function tablesRead(pool: Lane, tableOid: number): Promise<ReadonlySet<number>> {
  // Postgres locks the table to print its policies.
  const read = `SET LOCAL lock_timeout = ${lockTimeoutMs}; ${sql(tableOid)}`
  const results = (await untilUnlocked(() => pool.query(read))) as unknown as pg.QueryResult<{ oid: number }>[]
  return new Set(results.at(-1)!.rows.map(({ oid }) => oid))
}

const named = (name: string): string => `'\\m' || regexp_replace(lower(${name}), '(\\W)', '\\\\\\1', 'g') || '\\M'`

const sql = (tableOid: number): string => `
  WITH RECURSIVE policy AS (
    SELECT oid, lower(concat_ws(' ', pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid))) AS text
    FROM pg_policy WHERE polrelid = ${tableOid} AND coalesce(polqual, polwithcheck) IS NOT NULL
  ), depends AS (
    SELECT DISTINCT d.refclassid, d.refobjid FROM pg_depend d JOIN policy ON policy.oid = d.objid
    WHERE d.classid = 'pg_policy'::regclass
  ), own AS (
    SELECT p.oid, lower(p.proname) AS name, lower(p.prosrc || coalesce(pg_get_function_sqlbody(p.oid), '')) AS text
    FROM pg_proc p WHERE p.pronamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
      AND p.prokind = 'f'
  ), called AS (
    SELECT own.* FROM own JOIN depends ON depends.refobjid = own.oid AND depends.refclassid = 'pg_proc'::regclass
    UNION
    SELECT own.* FROM called JOIN own ON called.text ~ (${named('own.name')})
  ), text AS (
    SELECT text FROM called UNION ALL SELECT substring(text FROM '\\mselect\\M.*') FROM policy
  )
  SELECT c.oid FROM pg_class c
  WHERE c.relkind IN ('r', 'p') AND c.relnamespace NOT IN ('pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    AND (EXISTS (SELECT FROM text WHERE text ~ (${named('c.relname')}))
      OR c.oid <> ${tableOid} AND EXISTS (SELECT FROM depends d WHERE d.refobjid = c.oid AND d.refclassid = 'pg_class'::regclass))
  LIMIT 1000`
