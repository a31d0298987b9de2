// Statements that look first, make what is missing, and write down what they made.
import type { InstalledFunction } from './migrations.ts'
import { block, identifier, literal } from './script.ts'

/** `remove` drops what is written down, and nothing else. */
export const remember = (kind: string, name: string, detail = ''): string =>
  `INSERT INTO tidegate.installed (kind, name, detail) VALUES (${literal(kind)}, ${literal(name)}, ${literal(detail)}) ON CONFLICT DO NOTHING;`

/** Re-applied when its file changed, unless someone has put another body in place of ours. */
export const ensureFunction = ({ signature, sql, hash }: InstalledFunction): string =>
  block(`  IF to_regprocedure(${literal(signature)}) IS NULL OR EXISTS (
    SELECT FROM tidegate.installed_function i JOIN pg_proc p ON p.oid = to_regprocedure(i.signature)
    WHERE i.signature = ${literal(signature)} AND i.source_hash <> ${literal(hash)} AND i.body_hash = md5(p.prosrc)
  ) THEN
${sql}
    INSERT INTO tidegate.installed_function (signature, source_hash, body_hash)
    SELECT ${literal(signature)}, ${literal(hash)}, md5(prosrc) FROM pg_proc WHERE oid = to_regprocedure(${literal(signature)})
    ON CONFLICT (signature) DO UPDATE SET source_hash = excluded.source_hash, body_hash = excluded.body_hash;
  END IF;`)

/** @param role one that exists when it runs */
export const ensureUsage = (schema: string, role: string): string =>
  block(`  IF NOT has_schema_privilege(${literal(role)}, ${literal(schema)}, 'USAGE') THEN
    GRANT USAGE ON SCHEMA ${identifier(schema)} TO ${identifier(role)};
    ${remember('usage', schema, role)}
  END IF;`)

/** Only where it is missing: a grant is a change of the catalog. */
export const ensureExecute = (signature: string, role: string): string =>
  block(`  IF NOT has_function_privilege(${literal(role)}, ${literal(signature)}, 'EXECUTE') THEN
    GRANT EXECUTE ON FUNCTION ${signature} TO ${identifier(role)};
  END IF;`)
