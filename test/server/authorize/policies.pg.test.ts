import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { ada, PolicyBench } from './policy-bench.ts'

let bench: PolicyBench

beforeAll(async () => {
  bench = await PolicyBench.create()
})

afterAll(() => bench[Symbol.asyncDispose]())

interface Case {
  readonly name: string
  /** Statements before, undone afterwards: `$authenticated` is the role's name. */
  readonly setup?: string
  /** USING of a single permissive policy for everybody; or the CREATE POLICY statements are in `setup`. */
  readonly using?: string
  /** Nobody sees anything. */
  readonly empty?: boolean
}

const helper = (name: string, body: string, options = ''): string =>
  `CREATE FUNCTION ${name} LANGUAGE sql STABLE ${options} AS $f$ ${body} $f$;`

const shapes: readonly Case[] = [
  { name: 'the author reads her own', using: 'author = auth.uid()' },
  { name: 'wrapped in a SELECT for the planner', using: '(SELECT auth.uid()) = author' },
  { name: 'public, or one’s own', using: 'is_public OR author = (SELECT auth.uid())' },
  { name: 'a boolean column alone', using: 'is_public' },
  { name: 'negated, with NULLs', using: 'NOT is_public' },
  { name: 'IS TRUE, IS NOT TRUE', using: '(is_public IS NOT TRUE) AND (author = auth.uid()) IS TRUE' },
  { name: 'IS UNKNOWN and IS NOT FALSE', using: "is_public IS UNKNOWN OR (mood = 'ok') IS NOT FALSE" },
  { name: 'auth.role()', using: `auth.role() = '$authenticated'` },
  { name: 'a claim inside app_metadata', using: `(auth.jwt() -> 'app_metadata' ->> 'roles') = 'editor'` },
  { name: 'a claim by path', using: `(auth.jwt() #>> '{app_metadata,roles}') = 'editor'` },
  {
    name: 'a claim by path function',
    using: `jsonb_extract_path_text(auth.jwt(), 'app_metadata', 'roles') = 'editor'`,
  },
  {
    name: 'the whole claims as a setting',
    using: `author::text = current_setting('request.jwt.claims', true)::json ->> 'sub'`,
  },
  {
    name: 'the setting of one claim',
    using: `author = nullif(current_setting('request.jwt.claim.sub', true), '')::uuid`,
  },
  { name: 'a custom setting', using: `author = nullif(current_setting('app.tenant_id', true), '')::uuid` },
  {
    name: 'a custom setting from a nested claim',
    using: `room_id < nullif(current_setting('app.deep', true), '')::int`,
  },
  {
    name: 'the role as a setting, and CURRENT_USER',
    using: `current_setting('role') = '$authenticated' OR CURRENT_USER = '$anon'`,
  },
  { name: 'a column that names a role', using: 'reader_role = CURRENT_USER' },
  { name: 'IN a list, with a NULL in the row', using: `status IN ('open', 'draft')` },
  { name: 'NOT IN a list with NULL', using: 'room_id NOT IN (1, NULL) OR id = 1' },
  { name: '= ANY of a literal array', using: `status = ANY ('{open,draft}'::text[])` },
  { name: '<> ALL of an array', using: `status <> ALL (ARRAY['open', 'draft'])` },
  { name: 'the reader in an array column', using: 'auth.uid() = ANY (editors)' },
  { name: 'NOT = ANY of an array column', using: `NOT ('a' = ANY (tags))` },
  { name: 'an array from a claim', using: `room_id = ANY ((auth.jwt() ->> 'groups')::int[])` },
  { name: 'an enum column', using: `mood = 'glad' OR mood IN ('sad') OR mood > 'ok'` },
  { name: 'numbers of several widths', using: 'org_id = 10 AND price > 1 AND price <> 2.000' },
  { name: 'BETWEEN', using: 'room_id BETWEEN 2 AND 3' },
  { name: 'LIKE and its negation', using: `body LIKE '%l_o' OR body NOT LIKE '%o%'` },
  { name: 'LIKE ANY', using: `body LIKE ANY (ARRAY['h%', '50\\% %'])` },
  { name: 'ILIKE under the C collation', using: `body COLLATE "C" ILIKE 'HEL%'` },
  { name: 'order under the C collation', using: `code > 'a' OR code <= 'ABC'` },
  { name: 'an explicit COLLATE', using: `body COLLATE "C" < 'h'` },
  { name: 'IS DISTINCT FROM', using: 'room_id IS DISTINCT FROM 2 AND author IS NOT DISTINCT FROM auth.uid()' },
  { name: 'IS NULL and coalesce', using: `author IS NULL OR coalesce(is_public, room_id IS NOT NULL)` },
  { name: 'coalesce to false', using: 'coalesce(author = auth.uid(), false)' },
  { name: 'NULLIF', using: `nullif(status, 'open') IS NULL` },
  {
    name: 'CASE',
    using: `CASE WHEN status = 'open' THEN author = auth.uid() WHEN is_public THEN true ELSE room_id = 2 END`,
  },
  { name: 'CASE without ELSE, negated', using: 'NOT (CASE WHEN is_public THEN room_id = 1 END)' },
  { name: 'a JSON column', using: `meta ->> 'room' = room_id::text OR (meta ->> 'own')::boolean` },
  { name: 'a domain', using: `label = 'x@y'` },
  { name: 'padded text', using: `pad = 'ab' OR pad = 'Z'` },
  { name: 'dates', using: `on_day >= '2026-01-01' AND at IS NOT NULL` },
  { name: 'a cast of a column', using: `author::text = (auth.jwt() ->> 'sub')` },
  { name: 'a setting of the database', using: `status = current_setting('app.fixed', true)` },
  { name: 'a setting that nobody sets', using: `current_setting('app.never', true) IS NULL AND id = 1` },
  { name: 'constants', using: 'true' },
  {
    name: 'EXISTS of a membership',
    using: 'EXISTS (SELECT 1 FROM members m WHERE m.room_id = messages.room_id AND m.user_id = auth.uid())',
  },
  {
    name: 'EXISTS with conditions on both rows',
    using: `EXISTS (SELECT FROM members WHERE members.room_id = messages.room_id AND user_id = (SELECT auth.uid())
      AND role IN ('owner', 'admin') AND NOT coalesce(muted, false) AND messages.status = 'open')`,
  },
  { name: 'IN of memberships', using: 'room_id IN (SELECT m.room_id FROM members m WHERE m.user_id = auth.uid())' },
  { name: '= ANY of memberships', using: 'room_id = ANY (SELECT room_id FROM members WHERE user_id = auth.uid())' },
  {
    name: '= ANY of an array of memberships',
    using: 'room_id = ANY (ARRAY(SELECT room_id FROM members WHERE user_id = auth.uid()))',
  },
  {
    name: 'the reader IN the members of the room',
    using: '(SELECT auth.uid()) IN (SELECT user_id FROM members WHERE members.room_id = messages.room_id)',
  },
  {
    name: 'the reader NOT IN them',
    using: 'auth.uid() NOT IN (SELECT user_id FROM bans WHERE bans.room_id = messages.room_id)',
  },
  { name: 'NOT IN with NULLs inside', using: 'room_id NOT IN (SELECT room_id FROM bans WHERE user_id = auth.uid())' },
  {
    name: 'NOT IN a column that has none',
    using: 'room_id NOT IN (SELECT room_id FROM members WHERE user_id = auth.uid())',
  },
  { name: '<> ALL of a subquery', using: 'room_id <> ALL (SELECT room_id FROM members WHERE user_id = auth.uid())' },
  {
    name: 'two columns IN',
    using: "(room_id, author) IN (SELECT room_id, user_id FROM members WHERE role <> 'owner')",
  },
  {
    name: 'NOT EXISTS of a ban',
    using: 'NOT EXISTS (SELECT FROM bans b WHERE b.room_id = messages.room_id AND b.user_id = auth.uid())',
  },
  {
    name: 'a subquery about the reader only',
    using: `EXISTS (SELECT FROM profiles WHERE id = auth.uid() AND role = 'admin')`,
  },
  {
    name: 'keys of several widths',
    using: 'EXISTS (SELECT FROM profiles p WHERE p.org_id = messages.org_id AND p.id = auth.uid())',
  },
  { name: 'the reader’s organisation', using: 'org_id = (SELECT org_id FROM profiles WHERE id = auth.uid())' },
  { name: 'the reader’s role', using: `(SELECT p.role FROM profiles p WHERE p.id = auth.uid()) = 'admin'` },
  {
    name: 'the reader’s role IN',
    using: `(SELECT role FROM profiles WHERE id = auth.uid()) IN ('admin', 'user') AND room_id = 1`,
  },
  {
    name: 'LIMIT 1 inside EXISTS',
    using: 'EXISTS (SELECT 1 FROM members WHERE room_id = messages.room_id AND user_id = auth.uid() LIMIT 1)',
  },
  {
    name: 'a helper of one’s own, security invoker',
    setup: helper(
      'is_member(room int) RETURNS boolean',
      'SELECT EXISTS (SELECT 1 FROM public.members m WHERE m.room_id = room AND m.user_id = auth.uid())',
    ),
    using: 'is_member(room_id)',
  },
  {
    name: 'a helper with $1 and SET search_path',
    setup: helper(
      'is_member(int) RETURNS boolean',
      'SELECT EXISTS (SELECT FROM members WHERE room_id = $1 AND user_id = auth.uid())',
      `SECURITY DEFINER SET search_path = public`,
    ),
    using: '(SELECT is_member(room_id)) OR author = auth.uid()',
  },
  {
    name: 'a helper whose argument is hidden by a column of that name',
    setup: helper(
      'is_member(room_id int) RETURNS boolean',
      'SELECT EXISTS (SELECT FROM public.members m WHERE m.room_id = room_id AND m.user_id = auth.uid())',
    ),
    using: 'is_member(room_id)',
  },
  {
    name: 'a helper whose argument is named in full',
    setup: helper(
      'is_member(room_id int) RETURNS boolean',
      'SELECT EXISTS (SELECT FROM public.members m WHERE m.room_id = is_member.room_id AND m.user_id = auth.uid())',
    ),
    using: 'is_member(room_id)',
  },
  {
    name: 'a SQL-standard body',
    setup: `CREATE FUNCTION is_member(room int) RETURNS boolean LANGUAGE sql RETURN EXISTS (SELECT FROM members m WHERE m.room_id = room AND m.user_id = auth.uid());
      CREATE FUNCTION me() RETURNS uuid BEGIN ATOMIC SELECT auth.uid(); END;`,
    using: 'is_member(room_id) AND me() = author',
  },
  {
    name: 'a helper that gives the reader’s rooms',
    setup: helper(
      'my_rooms() RETURNS SETOF int',
      'SELECT room_id FROM public.members WHERE user_id = auth.uid()',
      'SECURITY DEFINER',
    ),
    using: 'room_id IN (SELECT my_rooms())',
  },
  {
    name: 'the same in FROM',
    setup: helper(
      'my_rooms(who uuid) RETURNS SETOF int',
      'SELECT room_id FROM public.members WHERE user_id = who',
      'SECURITY DEFINER',
    ),
    using: 'room_id IN (SELECT r FROM my_rooms(auth.uid()) AS r)',
  },
  {
    name: 'a helper that gives the reader’s role',
    setup: helper(
      'my_role() RETURNS text',
      'SELECT role FROM public.profiles WHERE id = auth.uid()',
      'SECURITY DEFINER',
    ),
    using: `my_role() = 'admin' OR (SELECT my_role()) = 'user' AND room_id = 3`,
  },
  {
    name: 'a boolean helper with FROM',
    setup: helper('am_admin() RETURNS boolean', `SELECT role = 'admin' FROM public.profiles WHERE id = auth.uid()`),
    using: 'am_admin() AND author IS NOT NULL',
  },
  {
    name: 'a STRICT helper over NULL',
    setup: helper('open_room(r int) RETURNS boolean', 'SELECT r IS NULL OR r > 1', 'STRICT'),
    using: 'open_room(room_id)',
  },
  {
    name: 'a STRICT helper over NULL, negated',
    setup: helper('open_room(r int) RETURNS boolean', 'SELECT r IS NULL OR r > 1', 'STRICT'),
    using: 'NOT open_room(room_id) OR open_room(room_id) IS NULL',
  },
  {
    name: 'a VOLATILE helper',
    setup: 'CREATE FUNCTION mine(who uuid) RETURNS boolean LANGUAGE sql VOLATILE AS $$ SELECT who = auth.uid() $$;',
    using: 'mine(author)',
  },
  {
    name: 'overloaded helpers',
    setup:
      helper('pick(a int) RETURNS boolean', 'SELECT a = 1') +
      helper('pick(a text) RETURNS boolean', `SELECT a = 'open'`),
    using: 'pick(room_id) OR pick(status::text)',
  },
  {
    name: 'auth.uid() by another claim: nothing is known by name',
    setup: `CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS $$ SELECT (auth.jwt() ->> 'tenant')::uuid $$;`,
    using: 'author = auth.uid()',
  },
  {
    name: 'policies by operation: only SELECT and ALL count',
    setup: `CREATE POLICY a ON messages FOR SELECT USING (room_id = 1); CREATE POLICY b ON messages FOR UPDATE USING (true);
      CREATE POLICY c ON messages FOR INSERT WITH CHECK (true); CREATE POLICY d ON messages FOR ALL USING (room_id = 4);`,
  },
  {
    name: 'a policy with WITH CHECK only lets nothing through',
    setup: 'CREATE POLICY a ON messages WITH CHECK (true); CREATE POLICY b ON messages USING (id = 2);',
  },
  {
    name: 'restrictive policies narrow permissive ones',
    setup: `CREATE POLICY a ON messages USING (is_public); CREATE POLICY b ON messages USING (author = auth.uid());
      CREATE POLICY c ON messages AS RESTRICTIVE USING (room_id < 4); CREATE POLICY d ON messages AS RESTRICTIVE TO $anon USING (id = 1);`,
  },
  {
    name: 'only restrictive policies let nothing through',
    setup: 'CREATE POLICY a ON messages AS RESTRICTIVE USING (true);',
    empty: true,
  },
  {
    name: 'TO a role, by inheritance too',
    setup: `CREATE POLICY a ON messages TO $authenticated USING (room_id = 1); CREATE POLICY b ON messages TO $staff USING (room_id = 3);
      CREATE POLICY c ON messages TO $keeper USING (true);`,
  },
  {
    name: 'an inner table with a policy of its own, security invoker',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON members USING (user_id = auth.uid() AND NOT coalesce(muted, false));`,
    using: 'EXISTS (SELECT FROM members m WHERE m.room_id = messages.room_id)',
  },
  {
    name: 'an inner table without any policy',
    setup: 'ALTER TABLE members ENABLE ROW LEVEL SECURITY;',
    using: 'id = 1 OR EXISTS (SELECT FROM members m WHERE m.room_id = messages.room_id)',
  },
  {
    name: 'its policy does not bind a security-definer helper of its owner',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY; ${helper('rooms_of(who uuid) RETURNS SETOF int', 'SELECT room_id FROM public.members WHERE user_id = who', 'SECURITY DEFINER')}`,
    using: 'room_id IN (SELECT rooms_of(auth.uid()))',
  },
  {
    name: 'a helper whose owner is under row-level security sees what the owner sees',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY; CREATE POLICY k ON members TO $keeper USING (role = 'owner'); GRANT SELECT ON members TO $keeper;
      ${helper('is_member(room int) RETURNS boolean', 'SELECT EXISTS (SELECT FROM public.members m WHERE m.room_id = room AND m.user_id = auth.uid())', 'SECURITY DEFINER')}
      ALTER FUNCTION is_member OWNER TO $keeper; GRANT CREATE ON SCHEMA public TO $keeper;`,
    using: 'is_member(room_id)',
  },
  {
    name: 'CURRENT_USER inside a security-definer helper is its owner',
    setup: `${helper('who() RETURNS name', 'SELECT CURRENT_USER', 'SECURITY DEFINER')} ALTER FUNCTION who OWNER TO $keeper;`,
    using: 'reader_role = who()',
  },
  {
    name: 'a security-definer helper reads what the role may not',
    setup: helper(
      'has_secret(room int) RETURNS boolean',
      'SELECT EXISTS (SELECT FROM private.secrets s WHERE s.room_id = room AND s.user_id = auth.uid())',
      'SECURITY DEFINER',
    ),
    using: 'has_secret(room_id)',
  },
  {
    name: 'row-level security off',
    setup: 'ALTER TABLE messages DISABLE ROW LEVEL SECURITY; CREATE POLICY a ON messages USING (false);',
  },
  { name: 'on without a policy', setup: '', empty: true },
  {
    name: 'the owner sees all, unless FORCE',
    setup: 'ALTER TABLE messages OWNER TO $authenticated; CREATE POLICY a ON messages USING (id = 2);',
  },
  {
    name: 'FORCE',
    setup:
      'ALTER TABLE messages OWNER TO $authenticated; ALTER TABLE messages FORCE ROW LEVEL SECURITY; CREATE POLICY a ON messages USING (id = 2);',
  },
  { name: 'BYPASSRLS', setup: 'ALTER ROLE $staff BYPASSRLS; CREATE POLICY a ON messages USING (id = 2);' },
]

async function within(statements: string, use: () => Promise<void>): Promise<void> {
  // Everything a case does is undone by a copy made before: a schema cannot be rolled back and be seen by other sessions.
  await bench.database.query(bench.withRoles(statements))
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
  ALTER TABLE members DISABLE ROW LEVEL SECURITY; ALTER ROLE $staff NOBYPASSRLS;
  GRANT SELECT ON ALL TABLES IN SCHEMA public TO $anon, $authenticated; REVOKE ALL ON ALL TABLES IN SCHEMA public FROM $keeper;
  GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA auth TO PUBLIC;
`

const policyOf = (using: string | undefined): string =>
  using === undefined ? '' : `CREATE POLICY p ON messages USING (${using});`

describe('[P1] a compiled policy shows each reader what SELECT shows', () => {
  test.each(shapes)('$name', async ({ setup = '', using, empty }) => {
    await within(`${setup} ${policyOf(using)}`, async () => {
      const seen = new Set<string>()
      for (const [name, reader] of Object.entries(bench.principals)) {
        const [compiled, asked] = [await bench.compiled(reader), await bench.asked(reader)]
        expect({ [name]: compiled }).toEqual({ [name]: asked })
        for (const id of compiled) seen.add(id)
      }
      // Otherwise the case would hold for a compiler that lets nothing through.
      expect(seen.size > 0).toBe(empty !== true)
    })
  })
})

async function refusalOf(use: () => Promise<unknown>): Promise<string> {
  try {
    return `accepted: ${JSON.stringify(await use())}`
  } catch (error) {
    return error instanceof Error && 'code' in error ? `${error.code}: ${error.message}` : String(error)
  }
}

const members = 'members m WHERE m.room_id = messages.room_id'

const unsupported: readonly (Case & { readonly construct: string })[] = [
  { name: 'an aggregate', using: `(SELECT count(*) FROM ${members}) > 1`, construct: 'function count()' },
  { name: 'now()', using: 'at > now()', construct: 'function now()' },
  { name: 'CURRENT_TIMESTAMP', using: 'at > CURRENT_TIMESTAMP', construct: 'CURRENT_TIMESTAMP' },
  { name: 'a regular expression', using: `body ~ '^h'`, construct: 'operator ~' },
  { name: 'arithmetic', using: 'room_id + 1 = 2', construct: 'operator +' },
  { name: 'an array operator', using: `tags && ARRAY['a']`, construct: 'operator &&' },
  { name: 'a JSON operator', using: `meta ? 'room'`, construct: 'operator ?' },
  { name: 'a function of Postgres', using: `lower(body) = 'hello'`, construct: 'function lower()' },
  {
    name: 'a setting of Postgres',
    using: `current_setting('TimeZone') = 'UTC'`,
    construct: "current_setting('timezone')",
  },
  { name: 'session_user', using: `reader_role = SESSION_USER`, construct: 'SESSION_USER' },
  {
    name: 'a join by order',
    using: 'EXISTS (SELECT FROM members m WHERE m.room_id > messages.room_id)',
    construct: 'a condition on public.members and the outer row that is no equality',
  },
  { name: 'OFFSET', using: 'room_id IN (SELECT room_id FROM members OFFSET 1)', construct: 'OFFSET' },
  {
    name: 'an aggregate in EXISTS',
    using: `EXISTS (SELECT count(*) FROM ${members})`,
    construct: 'function count(), an aggregate or window function',
  },
  {
    name: 'an aggregate hidden in EXISTS',
    using: `NOT EXISTS (SELECT count(*) > 5 FROM ${members})`,
    construct: 'function count()',
  },
  {
    name: 'a set in EXISTS',
    using: `EXISTS (SELECT generate_series(1, 0) FROM ${members})`,
    construct: 'function generate_series()',
  },
  {
    name: 'DISTINCT ON',
    using: `room_id IN (SELECT DISTINCT ON (user_id) room_id FROM members)`,
    construct: 'DISTINCT ON',
  },
  {
    name: 'a computed value of a subquery',
    using: `body = (SELECT role || 'x' FROM profiles WHERE id = auth.uid())`,
    construct: 'operator ||',
  },
  {
    name: 'a cast value of a subquery',
    using: `body = (SELECT org_id::text FROM profiles WHERE id = auth.uid())`,
    construct: 'no equality of columns',
  },
  {
    name: 'several rows as a value',
    using: "(SELECT role FROM members WHERE user_id = auth.uid()) = 'owner'",
    construct: 'a scalar subquery that may give several rows of public.members',
  },
  {
    name: 'a view',
    setup: 'CREATE OR REPLACE VIEW public.v AS SELECT * FROM members; GRANT SELECT ON v TO PUBLIC;',
    using: 'EXISTS (SELECT FROM v WHERE v.room_id = messages.room_id)',
    construct: 'public.v, which is a view',
  },
  {
    name: 'a table of the catalog',
    using: `EXISTS (SELECT FROM pg_roles WHERE rolname = reader_role)`,
    construct: 'the table pg_roles',
  },
  { name: 'order by the database’s collation', using: `nick > 'a'`, construct: 'nondeterministic' },
  { name: 'equality without determinism', using: `nick = 'ada'`, construct: 'nondeterministic' },
  { name: 'LIKE without determinism', using: `nick LIKE 'a%'`, construct: 'LIKE under a nondeterministic collation' },
  {
    name: 'a cast that cuts',
    using: `body::varchar(2) = 'he'`,
    construct: 'a cast to pg_catalog.varchar with a length',
  },
  { name: 'a cast to a domain', using: `body::public.short = 'hello'`, construct: 'a cast to the domain public.short' },
  {
    name: 'PL/pgSQL',
    setup: 'CREATE FUNCTION f(int) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RETURN true; END $$;',
    using: 'f(room_id)',
    construct: 'function public.f() in language plpgsql',
  },
  {
    name: 'a body of two statements',
    setup: helper('f() RETURNS boolean', 'SELECT false; SELECT true'),
    using: 'f()',
    construct: 'function public.f(), whose body is not a single SELECT',
  },
  {
    name: 'a body that needs the caller’s search_path',
    setup: helper('f(r int) RETURNS boolean', 'SELECT EXISTS (SELECT FROM members m WHERE m.room_id = r)'),
    using: 'f(room_id)',
    construct: 'the table members without a schema in a function that has no SET search_path',
  },
  {
    name: 'a helper that needs it for a function',
    setup: helper('g() RETURNS boolean', 'SELECT true') + helper('f() RETURNS boolean', 'SELECT g()'),
    using: 'f()',
    construct: 'function g() without a schema',
  },
  {
    name: 'a helper with other settings',
    setup: helper('f() RETURNS boolean', 'SELECT true', 'SET row_security = off'),
    using: 'f()',
    construct: 'with SET row_security',
  },
  {
    name: 'recursion',
    setup: `${helper('f(a int) RETURNS boolean', 'SELECT true')} CREATE OR REPLACE FUNCTION f(a int) RETURNS boolean LANGUAGE sql AS $$ SELECT public.f(a) $$;`,
    using: 'f(room_id)',
    construct: 'more than 16 calls deep',
  },
  {
    name: 'an operator of one’s own',
    setup: `${helper('eq(int, int) RETURNS boolean', 'SELECT true')} CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = eq);`,
    using: 'room_id === 1',
    construct: 'operator public.===',
  },
]

test.each(unsupported)('[P8] refused by name: $name', async ({ setup = '', using, construct }) => {
  await within(`${setup} ${policyOf(using)}`, async () => {
    const refusal = await refusalOf(() => bench.compiled(bench.principals.ada!))
    expect(refusal).toMatch(/^POLICY_UNSUPPORTED: policy "p" on public\.messages /)
    expect(refusal).toContain(construct)
  })
})

test('[P2] a table the role may not SELECT refuses the policy that reads it, even negated', async () => {
  const using = 'NOT EXISTS (SELECT FROM private.secrets s WHERE s.room_id = messages.room_id)'
  await within(policyOf(using), async () => {
    const { ada: reader } = bench.principals
    expect(await bench.asked(reader!)).toBe('error: permission denied for table secrets')
    expect(await refusalOf(() => bench.compiled(reader!))).toBe(
      `TABLE_REFUSED: policy "p" on public.messages reads private.secrets, which role ${reader!.role} may not SELECT; GRANT SELECT ON private.secrets TO "${reader!.role}"`,
    )
  })
})

test('[P2] a column of the inner table that the role may not SELECT refuses it too', async () => {
  const setup = 'REVOKE SELECT ON members FROM $authenticated; GRANT SELECT (room_id) ON members TO $authenticated;'
  await within(`${setup} ${policyOf(`EXISTS (SELECT FROM ${members} AND m.user_id = auth.uid())`)}`, async () => {
    const { ada: reader } = bench.principals
    expect(await bench.asked(reader!)).toBe('error: permission denied for table members')
    expect(await refusalOf(() => bench.compiled(reader!))).toContain(
      'TABLE_REFUSED: policy "p" on public.messages reads public.members.user_id',
    )
  })
})

test('[P2] a function the role may not EXECUTE refuses it', async () => {
  await within(`${policyOf('author = auth.uid()')} REVOKE EXECUTE ON FUNCTION auth.uid() FROM PUBLIC;`, async () => {
    const { ada: reader } = bench.principals
    expect(await bench.asked(reader!)).toBe('error: permission denied for function uid')
    expect(await refusalOf(() => bench.compiled(reader!))).toContain(
      'TABLE_REFUSED: policy "p" on public.messages calls function auth.uid()',
    )
  })
})

test('[P2] claims that do not fit a policy are refused, as Postgres raises', async () => {
  await within(policyOf('author = auth.uid()'), async () => {
    const reader = { ...bench.principals.ada!, claims: { sub: 'auth0|1234' } }
    expect(await bench.asked(reader)).toContain('error: invalid input syntax for type uuid')
    expect(await refusalOf(() => bench.compiled(reader))).toContain('CLAIM_INVALID')
  })
})

test('column privileges say what is readable; none is a refusal with the statement', async () => {
  await within(
    'REVOKE SELECT ON messages FROM $authenticated; GRANT SELECT (id, body) ON messages TO $authenticated;',
    async () => {
      const access = await bench.access(bench.principals.ada!)
      expect([...access.readable].map(column => access.table.columns[column]!.name)).toEqual(['id', 'body'])
      // By inheritance.
      expect((await bench.access(bench.principals.staff!)).readable).toEqual(access.readable)
      await bench.database.query(
        bench.withRoles(
          'REVOKE SELECT (id, body) ON messages FROM $authenticated; GRANT SELECT (id) ON messages TO PUBLIC',
        ),
      )
      expect([...(await bench.access(bench.principals.ada!)).readable]).toEqual([0])
      await bench.database.query('REVOKE SELECT (id) ON messages FROM PUBLIC')
      const { role } = bench.principals.ada!
      expect(await refusalOf(() => bench.access(bench.principals.ada!))).toBe(
        `TABLE_REFUSED: role ${role} may not SELECT public.messages: GRANT SELECT ON public.messages TO "${role}"`,
      )
    },
  )
})

test('a policy may read a column that its reader may not', async () => {
  await within(
    `REVOKE SELECT ON messages FROM $authenticated; GRANT SELECT (id) ON messages TO $authenticated; ${policyOf('author = auth.uid()')}`,
    async () => {
      const { ada: reader } = bench.principals
      expect(await bench.compiled(reader!)).toEqual(await bench.asked(reader!))
      expect((await bench.compiled(reader!)).length).toBe(3)
    },
  )
})

test('no policy and no row-level security come with their warnings', async () => {
  const codes = async (name: string) => (await bench.access(bench.principals[name]!)).warnings.map(({ code }) => code)
  await within('CREATE POLICY a ON messages TO $authenticated USING (true);', async () => {
    expect([await codes('ada'), await codes('anonymous')]).toEqual([[], ['NO_POLICY']])
    await bench.database.query('ALTER TABLE messages DISABLE ROW LEVEL SECURITY')
    expect(await codes('anonymous')).toEqual(['NO_ROW_SECURITY'])
  })
})

test('an unknown role is refused', async () => {
  expect(await refusalOf(() => bench.access({ role: 'nobody_at_all', claims: {}, expiresAt: null }))).toContain(
    'ROLE_REFUSED',
  )
})

test('the tables that a policy reads come with it, for its index', async () => {
  await within(
    policyOf(
      `EXISTS (SELECT FROM ${members} AND m.user_id = auth.uid()) OR org_id = (SELECT org_id FROM profiles WHERE id = auth.uid())`,
    ),
    async () => {
      const { memberships, policy } = await bench.access(bench.principals.ada!)
      expect(memberships.map(({ name }) => name)).toEqual(['members', 'profiles'])
      expect(policy).toMatchObject({
        kind: 'or',
        args: [
          { kind: 'semiJoin', nullAware: false },
          { kind: 'semiJoin', nullAware: false },
        ],
      })
      expect(await bench.compiled({ ...bench.principals.ada!, claims: { sub: ada } })).toEqual([
        '1',
        '2',
        '3',
        '4',
        '6',
      ])
    },
  )
})
