// The function through which the server reads a table whole: it runs as the table's owner, so that a login without
// rights on the table can fill the membership index and fetch rows by key, and it is all that this login may do there.
//
// A policy filters its reader silently, and an index filled through a filter would take grants for revocations. So the
// function reads as the owner, and with row_security = off: where even the owner is filtered (FORCE ROW LEVEL SECURITY),
// Postgres raises.
//
// The table's name stands in a text, and no dependency is recorded: the application may alter, rename or drop its table
// as before. After DROP TABLE the function fails when it is called.
//
// Values come as the type's output function prints them, which is how the WAL has them; a cast to text differs for bool
// ('true' for 't'), char(n) (blanks cut) and inet (a netmask).
import { readFunctionName } from '../catalog/read-function.ts'
import { dollarQuoted, literal, qualified } from './script.ts'

export const readFunctionArguments = 'text[], text[], jsonb, jsonb, integer'

/** The function's body, PL/pgSQL. Its arguments:
 *  - columns: names; each row comes as text[] in this order
 *  - match_columns, keys: rows whose match_columns equal one of keys, a JSON array of arrays of text; with empty
 *    match_columns all rows. Keys may also be an object, of one date or timestamp column: {low, high, isFirst}, rows from low
 *    to high, both included (high null: without end), with isFirst ordered by that column
 *  - after: JSON array of text, a primary key: only rows past it; null from the start
 *  - max_rows: null for all. With after or max_rows the rows are ordered by primary key
 *  @throws (in Postgres) undefined_table, undefined_column, invalid_table_definition: no primary key to order by */
export function readFunctionBody(schema: string, table: string): string {
  return `
DECLARE
  relation constant regclass := to_regclass(${literal(qualified(schema, table))});
  unknown text;
  selected text;
  matched text;
  key_values text;
  key_columns text;
  key_operator text;
  after_values text;
  query text;
BEGIN
  IF relation IS NULL THEN
    RAISE undefined_table USING MESSAGE = ${literal(`the table ${schema}.${table} does not exist any more`)};
  END IF;
  SELECT n INTO unknown FROM unnest(columns || match_columns) AS n WHERE NOT EXISTS (
    SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = n AND a.attnum > 0 AND NOT a.attisdropped
  ) LIMIT 1;
  IF FOUND THEN
    RAISE undefined_column USING MESSAGE = format('%s has no column %I', relation, unknown);
  END IF;

  SELECT string_agg(format('CASE WHEN t.%1$I IS DISTINCT FROM NULL THEN concat(t.%1$I) END', n), ', ' ORDER BY i)
  INTO selected FROM unnest(columns) WITH ORDINALITY AS c (n, i);
  query := format('SELECT ARRAY[%s]::text[] FROM %s AS t WHERE true', selected, relation);

  -- unnest of a bound array tells the planner how many keys come, so that a few keys go by index whatever the table's size.
  IF jsonb_typeof(keys) = 'object' THEN
    SELECT format(' AND t.%1$I >= ($1[1] ->> ''low'')::%2$s AND t.%1$I <= coalesce(($1[1] ->> ''high'')::%2$s, ''infinity'')',
      a.attname, format_type(a.atttypid, -1))
    INTO matched FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = match_columns[1];
    query := query || matched;
    IF (keys ->> 'isFirst')::boolean THEN
      RETURN QUERY EXECUTE query || format(' ORDER BY t.%I LIMIT $2', match_columns[1]) USING ARRAY[keys], max_rows;
      RETURN;
    END IF;
  ELSIF cardinality(match_columns) > 0 THEN
    SELECT string_agg(format('t.%I', n), ', ' ORDER BY i),
      string_agg(format('(k ->> %s)::%s', i - 1, format_type(b.base, -1)), ', ' ORDER BY i)
    INTO matched, key_values
    FROM unnest(match_columns) WITH ORDINALITY AS c (n, i)
    JOIN pg_attribute a ON a.attrelid = relation AND a.attname = n
    -- A domain's constraint would raise for a key that merely is not there.
    CROSS JOIN LATERAL (
      WITH RECURSIVE d (base, kind, next) AS (
        SELECT y.oid, y.typtype, y.typbasetype FROM pg_type y WHERE y.oid = a.atttypid
        UNION ALL SELECT y.oid, y.typtype, y.typbasetype FROM d JOIN pg_type y ON y.oid = d.next WHERE d.kind = 'd'
      ) SELECT base FROM d WHERE kind <> 'd'
    ) AS b;
    query := query || format(' AND (%s) IN (SELECT %s FROM unnest($1) AS k)', matched, key_values);
  END IF;

  IF after IS NOT NULL OR max_rows IS NOT NULL THEN
    -- The index's own >, or rows would be left out where the type's operators are an extension's.
    SELECT string_agg(format('t.%I', a.attname), ', ' ORDER BY i),
      string_agg(format('($2 ->> %s)::%s', i - 1, format_type(a.atttypid, -1)), ', ' ORDER BY i),
      CASE WHEN count(DISTINCT o.oprnamespace) = 1 THEN min(format('OPERATOR(%I.>)', s.nspname)) END
    INTO key_columns, after_values, key_operator
    FROM pg_index x
    CROSS JOIN LATERAL unnest(x.indkey::int2[], x.indclass::oid[]) WITH ORDINALITY AS c (attnum, opclass, i)
    JOIN pg_attribute a ON a.attrelid = relation AND a.attnum = c.attnum
    JOIN pg_opclass p ON p.oid = c.opclass
    JOIN pg_amop m ON m.amopfamily = p.opcfamily AND m.amoplefttype = p.opcintype AND m.amoprighttype = p.opcintype
      AND m.amopstrategy = 5
    JOIN pg_operator o ON o.oid = m.amopopr
    JOIN pg_namespace s ON s.oid = o.oprnamespace
    WHERE x.indrelid = relation AND x.indisprimary AND i <= x.indnkeyatts;
    IF key_operator IS NULL THEN
      RAISE invalid_table_definition USING MESSAGE = format('%s has no primary key to order by', relation);
    END IF;
    IF after IS NOT NULL THEN
      query := query || format(' AND ROW(%s) %s ROW(%s)', key_columns, key_operator, after_values);
    END IF;
    query := query || ' ORDER BY ' || key_columns;
  END IF;

  RETURN QUERY EXECUTE query || ' LIMIT $3'
    USING CASE WHEN jsonb_typeof(keys) = 'object' THEN ARRAY[keys] ELSE ARRAY(SELECT jsonb_array_elements(keys)) END,
      after, max_rows;
END
`
}

/** CREATE OR REPLACE: a call that is under way keeps the function it found, and its owner and grants stay. */
export function readFunctionSql(schema: string, table: string): string {
  const name = qualified('tidegate', readFunctionName(schema, table))
  return `CREATE OR REPLACE FUNCTION ${name}(columns text[], match_columns text[], keys jsonb, after jsonb, max_rows integer)
RETURNS SETOF text[] LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' SET row_security = off
AS ${dollarQuoted(readFunctionBody(schema, table))}`
}
