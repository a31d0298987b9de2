// Takes over the schema `realtime` of a Supabase whose own Realtime is switched off, when it is asked for: what sends from SQL raises where
// it swallowed, and the daily partitions go on being made. What it replaces is kept, for `remove` to put back.
import type pg from 'pg'
import { remember } from './ensure.ts'
import type { InstalledFunction } from './migrations.ts'
import { block, literal } from './script.ts'

/** Those whose errors are swallowed there; `broadcast_changes` raises what `send` does. */
const sender = /^realtime\.send(_binary)?\(/

/** @param functions of migrations/functions
 *  @returns statements that fail with 42501 for whoever does not own what they replace */
export const adoptionStatements = (functions: readonly InstalledFunction[]): string[] => [
  ...functions.filter(({ signature }) => sender.test(signature)).map(replace),
  block(`  IF EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = 'realtime' AND c.relname = 'messages' AND c.relkind = 'p') THEN
    ${remember('adopted', 'realtime.messages')}
    PERFORM tidegate.keep_partitions();
  END IF;`),
]

/** One that is ours already stays, and follows its file. */
const replace = ({ signature, sql, hash }: InstalledFunction): string =>
  block(`  IF to_regprocedure(${literal(signature)}) IS NOT NULL AND NOT EXISTS (
    SELECT FROM tidegate.installed_function i JOIN pg_proc p ON p.oid = to_regprocedure(i.signature)
    WHERE i.signature = ${literal(signature)} AND i.body_hash = md5(p.prosrc)
  ) THEN
    INSERT INTO tidegate.replaced_function (signature, definition)
    VALUES (${literal(signature)}, pg_get_functiondef(to_regprocedure(${literal(signature)})))
    ON CONFLICT (signature) DO UPDATE SET definition = excluded.definition;
${sql}
    INSERT INTO tidegate.installed_function (signature, source_hash, body_hash)
    SELECT ${literal(signature)}, ${literal(hash)}, md5(prosrc) FROM pg_proc WHERE oid = to_regprocedure(${literal(signature)})
    ON CONFLICT (signature) DO UPDATE SET source_hash = excluded.source_hash, body_hash = excluded.body_hash;
  END IF;`)

export interface ReplacedFunction {
  readonly signature: string
  /** CREATE OR REPLACE FUNCTION, which keeps its owner and grants. */
  readonly definition: string
}

/** Of somebody else, and ours now. What was replaced once more since is theirs. */
export async function replacedFunctions(client: pg.ClientBase): Promise<ReplacedFunction[]> {
  const { rows } = await client.query<{ found: boolean }>(
    `SELECT to_regclass('tidegate.replaced_function') IS NOT NULL AS found`,
  )
  if (rows[0]?.found !== true) return []
  const replaced = await client.query<ReplacedFunction>(
    `SELECT r.signature, r.definition FROM tidegate.replaced_function r JOIN tidegate.installed_function i USING (signature)
     JOIN pg_proc p ON p.oid = to_regprocedure(r.signature) WHERE i.body_hash = md5(p.prosrc) ORDER BY 1`,
  )
  return replaced.rows
}
