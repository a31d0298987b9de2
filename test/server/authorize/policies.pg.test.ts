import { afterAll, beforeAll } from 'vitest'
import { PolicyBench } from './policy-bench.ts'
import { type Case, helper, judgedLikePostgres } from './policy-cases.ts'

let bench: PolicyBench

beforeAll(async () => {
  bench = await PolicyBench.create()
})

afterAll(() => bench[Symbol.asyncDispose]())

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

judgedLikePostgres(() => bench, shapes)
