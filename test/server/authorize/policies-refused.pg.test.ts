import { afterAll, beforeAll } from 'vitest'
import { PolicyBench } from './policy-bench.ts'
import { helper, type RefusedCase, refusedByName } from './policy-cases.ts'

let bench: PolicyBench

beforeAll(async () => {
  bench = await PolicyBench.create()
})

afterAll(() => bench[Symbol.asyncDispose]())

const members = 'members m WHERE m.room_id = messages.room_id'

const unsupported: readonly RefusedCase[] = [
  { name: 'the time alone', using: `now() > '2020-01-01'`, construct: 'the time may only be compared with a column' },
  { name: 'equality with the time', using: 'at = now()', construct: 'the time may only be compared with a column' },
  { name: 'a part of the time', using: 'extract(hour FROM now()) < 12', construct: 'function pg_catalog.extract()' },
  { name: 'months off a column', using: `at + '1 month' > now()`, construct: 'the time may only be compared' },
  { name: 'months after days', using: `at > now() - interval '1 day' - interval '1 month'`, construct: 'operator -' },
  {
    name: 'an interval of the row',
    using: `at > now() - make_interval(0, 0, 0, room_id)`,
    construct: 'make_interval()',
  },
  { name: 'another zone', using: `at > now() AT TIME ZONE 'Europe/Berlin'`, construct: 'AT TIME ZONE' },
  { name: 'a function that is not known here', using: `md5(body) = 'x'`, construct: 'function md5()' },
  {
    name: 'lower() of a collation that is Postgres’s',
    using: `length(lower(nick)) = 3`,
    construct: 'under a nondeterministic collation',
  },
  {
    name: 'a pattern in substring()',
    using: `substring(body from 'h.') = 'he'`,
    construct: 'function substring() over',
  },
  { name: 'division of numerics', using: 'price / 3 > 1', construct: 'operator / over numeric' },
  { name: 'two subscripts', using: `tags[1][1] = 'a'`, construct: 'an array subscript of several dimensions' },
  { name: '|| of JSON', using: `(meta || '{"a": 1}') ->> 'a' = '1'`, construct: 'operator || over jsonb' },
  { name: 'an aggregate', using: `(SELECT count(*) FROM ${members}) > 1`, construct: 'function count()' },
  { name: 'a regular expression', using: String.raw`body ~ '^h\d'`, construct: 'operator ~ with this pattern' },
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

refusedByName(() => bench, unsupported)
