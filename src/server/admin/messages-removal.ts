// Takes back what `migrate` made for channels: all of it, or nothing while somebody's function calls it, whose writes would fail.
import { block, literal } from './script.ts'

export interface MessagesOfOurs {
  readonly hasTable: boolean
  readonly hasSchema: boolean
  /** Signatures. */
  readonly functions: readonly string[]
}

/** The table's policies go with it, and are named. */
export function messagesRemoval({ hasTable, hasSchema, functions }: MessagesOfOurs): string[] {
  const drops = functions.map(signature => `    DROP FUNCTION IF EXISTS ${signature};`)
  if (hasTable) drops.unshift('    DROP TABLE IF EXISTS realtime.messages;')
  if (hasSchema) drops.push('    DROP SCHEMA IF EXISTS realtime;')
  if (drops.length === 0) return []
  const names = functions.map(signature => signature.slice('realtime.'.length, signature.indexOf('(')))
  const called = [...new Set(hasTable ? [...names, 'messages'] : names)].join('|')
  const ours = `ARRAY[${functions.map(literal).join(', ')}]::text[]`
  return [
    block(
      `  SELECT string_agg(p.oid::regprocedure::text, ', ' ORDER BY 1) INTO callers
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang JOIN pg_namespace n ON n.oid = p.pronamespace
  WHERE l.lanname NOT IN ('internal', 'c') AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'tidegate')
    AND p.prosrc ~* ${literal(`\\mrealtime"?\\s*\\.\\s*"?(${called})\\M`)}
    AND p.oid <> ALL (SELECT to_regprocedure(f) FROM unnest(${ours}) AS f WHERE to_regprocedure(f) IS NOT NULL);
  IF callers IS NOT NULL THEN
    RAISE WARNING USING MESSAGE = 'kept: SCHEMA "realtime": its functions are called by ' || callers
      || ', which would fail; nothing deletes its messages any more: change those, then: DROP SCHEMA realtime CASCADE';
    RETURN;
  END IF;
  SELECT string_agg(quote_ident(polname), ', ' ORDER BY polname) INTO policies FROM pg_policy l
  JOIN pg_class c ON c.oid = l.polrelid JOIN pg_namespace n ON n.oid = c.relnamespace
  WHERE ${hasTable} AND n.nspname = 'realtime' AND c.relname = 'messages';
  BEGIN
${drops.join('\n')}
    IF policies IS NOT NULL THEN
      RAISE NOTICE USING MESSAGE = 'the table realtime.messages goes with its policies: ' || policies;
    END IF;
  EXCEPTION WHEN dependent_objects_still_exist OR insufficient_privilege THEN
    GET STACKED DIAGNOSTICS reason = PG_EXCEPTION_DETAIL;
    RAISE WARNING USING MESSAGE = 'kept: SCHEMA "realtime", whose messages nothing deletes any more: ' || coalesce(nullif(reason, ''), SQLERRM);
  END;`,
      '  callers text;\n  policies text;\n  reason text;',
    ),
  ]
}
