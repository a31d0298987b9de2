// Cases of policies, each installed for itself and undone, held against what Postgres lets each reader see.
import { describe, expect, test } from 'vitest'
import type { PolicyBench } from './policy-bench.ts'

export interface Case {
  readonly name: string
  /** Statements before, undone afterwards: `$authenticated` is the role's name. */
  readonly setup?: string
  /** USING of a single permissive policy for everybody; or the CREATE POLICY statements are in `setup`. */
  readonly using?: string
  /** Nobody sees anything. */
  readonly empty?: boolean
}

/** A function of language SQL. */
export const helper = (name: string, body: string, options = ''): string =>
  `CREATE FUNCTION ${name} LANGUAGE sql STABLE ${options} AS $f$ ${body} $f$;`

/** Everything a case does is undone afterwards by statements: a schema cannot be rolled back and be seen by other sessions. */
export async function within(bench: PolicyBench, statements: string, use: () => Promise<void>): Promise<void> {
  await bench.database.query(bench.withRoles(statements))
  bench.catalog.invalidate()
  try {
    await use()
  } finally {
    await bench.database.query(bench.withRoles(undo))
  }
}

const undo = `
  DO $$ DECLARE p record; f record; BEGIN
    FOR p IN SELECT polname, polrelid::regclass AS rel FROM pg_policy LOOP EXECUTE format('DROP POLICY %I ON %s', p.polname, p.rel); END LOOP;
    FOR f IN SELECT oid::regprocedure AS sig FROM pg_proc WHERE pronamespace = 'public'::regnamespace AND proname !~ '^(citext|regexp|text)' LOOP EXECUTE format('DROP ROUTINE IF EXISTS %s CASCADE', f.sig); END LOOP;
  END $$;
  CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$
    select coalesce(nullif(current_setting('request.jwt.claim.sub', true), ''), (nullif(current_setting('request.jwt.claims', true), '')::jsonb ->> 'sub'))::uuid $$;
  ALTER TABLE messages OWNER TO CURRENT_USER; ALTER TABLE messages NO FORCE ROW LEVEL SECURITY, ENABLE ROW LEVEL SECURITY;
  ALTER TABLE members DISABLE ROW LEVEL SECURITY; ALTER TABLE bans DISABLE ROW LEVEL SECURITY;
  ALTER TABLE profiles DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY; ALTER TABLE profiles OWNER TO CURRENT_USER;
  ALTER ROLE $staff NOBYPASSRLS; REVOKE $authenticated FROM $staff; GRANT $authenticated TO $staff;
  GRANT SELECT ON ALL TABLES IN SCHEMA public TO $anon, $authenticated; REVOKE ALL ON ALL TABLES IN SCHEMA public FROM $keeper;
  GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA auth TO PUBLIC;
`

export const policyOf = (using: string | undefined): string =>
  using === undefined ? '' : `CREATE POLICY p ON messages USING (${using});`

export async function refusalOf(use: () => Promise<unknown>): Promise<string> {
  try {
    return `accepted: ${JSON.stringify(await use())}`
  } catch (error) {
    return error instanceof Error && 'code' in error ? `${error.code}: ${error.message}` : String(error)
  }
}

export interface RefusedCase extends Case {
  /** What the refusal names. */
  readonly construct: string
}

/** @param bench asked for when the tests run */
export function judgedLikePostgres(bench: () => PolicyBench, shapes: readonly Case[]): void {
  describe('[P1] a compiled policy shows each reader what SELECT shows', () => {
    test.each(shapes)('$name', async ({ setup = '', using, empty }) => {
      await within(bench(), `${setup} ${policyOf(using)}`, async () => {
        const seen = new Set<string>()
        for (const [name, reader] of Object.entries(bench().principals)) {
          const [compiled, asked] = [await bench().compiled(reader), await bench().asked(reader)]
          expect({ [name]: compiled }).toEqual({ [name]: asked })
          for (const id of compiled) seen.add(id)
        }
        // Otherwise the case would hold for a compiler that lets nothing through.
        expect(seen.size > 0).toBe(empty !== true)
      })
    })
  })
}

export function refusedByName(bench: () => PolicyBench, cases: readonly RefusedCase[]): void {
  test.each(cases)('[P8] refused by name: $name', async ({ setup = '', using, construct }) => {
    await within(bench(), `${setup} ${policyOf(using)}`, async () => {
      const refusal = await refusalOf(() => bench().compiled(bench().principals.ada!))
      expect(refusal).toMatch(/^POLICY_UNSUPPORTED: policy "p" on public\.messages /)
      expect(refusal).toContain(construct)
    })
  })
}
