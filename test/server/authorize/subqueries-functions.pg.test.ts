// Scalar subqueries, counts, helper functions, and tables that are guarded themselves.
import { afterAll, beforeAll } from 'vitest'
import { PolicyBench } from './policy-bench.ts'
import { type Case, helper, judgedLikePostgres } from './policy-cases.ts'

let bench: PolicyBench

beforeAll(async () => {
  bench = await PolicyBench.create()
})

afterAll(() => bench[Symbol.asyncDispose]())

const mine = 'm.user_id = auth.uid()'
const ofRoom = 'members m WHERE m.room_id = messages.room_id'

const values: readonly Case[] = [
  {
    name: 'count(*) > 0 and its like',
    using: `(SELECT count(*) FROM ${ofRoom} AND ${mine}) > 0 OR 0 = (SELECT count(b.room_id) FROM bans b WHERE b.user_id = messages.author)`,
  },
  { name: 'a SELECT that compares a count', using: `(SELECT count(*) >= 1 FROM ${ofRoom} AND ${mine})` },
  {
    name: 'a helper that counts',
    setup: helper(
      'shares(r int) RETURNS bigint',
      `SELECT count(*) FROM public.members WHERE room_id = r AND user_id = auth.uid()`,
    ),
    using: 'shares(room_id) > 0 OR NOT (shares(room_id) <> 0) AND is_public',
  },
  {
    name: 'a scalar subquery with another inside',
    using: `org_id = (SELECT p.org_id FROM profiles p WHERE p.id = (SELECT m.user_id FROM members m WHERE m.room_id = 1 AND ${mine}))`,
  },
  {
    name: 'a scalar subquery with EXISTS inside',
    using: `(SELECT p.role FROM profiles p WHERE p.id = auth.uid() AND EXISTS (SELECT FROM members m WHERE m.user_id = p.id AND m.role = 'owner')) = 'admin'`,
  },
  {
    name: 'coalesce of a scalar subquery that gives no row',
    using: `coalesce((SELECT p.role FROM profiles p WHERE p.id = auth.uid()), 'guest') IN ('guest', 'user')`,
  },
  {
    name: 'NOT, IS NULL and IS NOT DISTINCT FROM of one',
    using: `NOT ((SELECT p.role FROM profiles p WHERE p.id = auth.uid()) = 'user') AND room_id = 1
      OR (SELECT p.org_id FROM profiles p WHERE p.id = messages.author) IS NULL
      OR (SELECT p.org_id FROM profiles p WHERE p.id = auth.uid()) IS NOT DISTINCT FROM messages.org_id`,
  },
  {
    name: 'two in one comparison',
    using: `(SELECT p.org_id FROM profiles p WHERE p.id = auth.uid()) = (SELECT a.org_id FROM profiles a WHERE a.id = messages.author)`,
  },
  {
    name: 'LIMIT 1 where there is one',
    using: `org_id = (SELECT p.org_id FROM profiles p WHERE p.id = auth.uid() LIMIT 1)
      OR room_id IN (SELECT m.room_id FROM members m WHERE m.room_id = 2 AND ${mine} LIMIT 1)`,
  },
  {
    name: 'an array of subqueries, negated',
    using: 'room_id <> ALL (ARRAY(SELECT b.room_id FROM bans b WHERE b.user_id = auth.uid()))',
  },
  {
    name: 'what differs from the one row',
    using: `org_id <> (SELECT p.org_id FROM profiles p WHERE p.id = auth.uid())
      OR (SELECT p.org_id FROM profiles p WHERE p.id = messages.author) IS DISTINCT FROM messages.org_id`,
  },
]

const functions: readonly Case[] = [
  {
    name: 'a function that returns a table, in FROM by name',
    setup: helper(
      'memberships(who uuid) RETURNS TABLE (room int, kind text)',
      'SELECT m.room_id, m.role FROM public.members m WHERE m.user_id = who',
      'SECURITY DEFINER',
    ),
    using: `EXISTS (SELECT FROM memberships(auth.uid()) x WHERE x.room = messages.room_id AND x.kind IN ('owner', 'admin'))`,
  },
  {
    name: 'the same with the columns named again',
    setup: helper(
      'memberships() RETURNS TABLE (room int, kind text)',
      'SELECT m.room_id, m.role FROM public.members m WHERE m.user_id = auth.uid()',
    ),
    using: `room_id IN (SELECT r FROM memberships() AS x (r, k) WHERE k <> 'x')`,
  },
  {
    name: 'a function that returns rows of a table, and a join with it',
    setup: helper('of_mine() RETURNS SETOF members', 'SELECT * FROM public.members WHERE user_id = auth.uid()'),
    using: `EXISTS (SELECT FROM of_mine() x JOIN bans b ON b.room_id = x.room_id WHERE x.room_id = messages.room_id)`,
  },
  {
    name: 'a set of another width than its body',
    setup: helper('my_rooms() RETURNS SETOF bigint', 'SELECT room_id FROM public.members WHERE user_id = auth.uid()'),
    using: 'room_id IN (SELECT my_rooms())',
  },
  {
    name: 'a set made of a UNION',
    setup: helper(
      'my_rooms() RETURNS SETOF int',
      'SELECT room_id FROM public.members WHERE user_id = auth.uid() UNION SELECT room_id FROM public.bans WHERE id = 2',
    ),
    using: 'room_id IN (SELECT my_rooms()) OR id = 6',
  },
  {
    name: 'an array made by a function',
    setup:
      helper(
        'my_rooms() RETURNS int[]',
        'SELECT ARRAY(SELECT room_id FROM public.members WHERE user_id = auth.uid())',
      ) + helper('banned() RETURNS int[]', 'SELECT array_agg(room_id) FROM public.bans WHERE user_id = auth.uid()'),
    using: 'room_id = ANY (my_rooms()) OR room_id = ANY (banned())',
  },
  {
    name: 'functions that call functions, positional, under one definer',
    setup:
      helper(
        'role_in(int) RETURNS text',
        'SELECT role FROM public.members WHERE room_id = $1 AND user_id = auth.uid()',
        'SECURITY DEFINER',
      ) + helper('may_read(room int) RETURNS boolean', `SELECT public.role_in(room) IN ('owner', 'admin')`),
    using: 'may_read(room_id) OR role_in(room_id) IS NULL AND is_public',
  },
  {
    name: 'a helper over an inner row',
    setup: helper(
      'is_admin(who uuid) RETURNS boolean',
      `SELECT EXISTS (SELECT FROM public.profiles WHERE id = who AND role = 'admin')`,
    ),
    using: `EXISTS (SELECT FROM ${ofRoom} AND is_admin(m.user_id)) OR EXISTS (SELECT FROM ${ofRoom} AND ${mine} AND NOT is_admin(m.user_id))`,
  },
  {
    name: 'a STRICT helper over an inner row that is NULL',
    setup: helper(
      'knows(who uuid) RETURNS boolean',
      'SELECT NOT EXISTS (SELECT FROM public.profiles WHERE id = who AND org_id = 10)',
      'STRICT',
    ),
    using: 'NOT EXISTS (SELECT FROM bans b WHERE b.room_id = messages.room_id AND knows(b.user_id)) AND knows(author)',
  },
]

const guarded: readonly Case[] = [
  {
    name: 'an inner table whose policy reads another',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY;
      CREATE POLICY inner_one ON members USING (EXISTS (SELECT FROM profiles WHERE id = user_id AND role = 'admin'));`,
    using: `EXISTS (SELECT FROM ${ofRoom})`,
  },
  {
    name: 'a chain of tables, each guarded by the next',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY; ALTER TABLE profiles ENABLE ROW LEVEL SECURITY; ALTER TABLE bans ENABLE ROW LEVEL SECURITY;
      CREATE POLICY a ON members USING (user_id IN (SELECT id FROM profiles));
      CREATE POLICY b ON profiles USING (id = auth.uid() OR NOT EXISTS (SELECT FROM bans b WHERE b.user_id = profiles.id AND b.room_id = 1));
      CREATE POLICY c ON bans USING (id > 0); CREATE POLICY d ON bans AS RESTRICTIVE USING (user_id <> auth.uid());`,
    using: `EXISTS (SELECT FROM ${ofRoom})`,
  },
  {
    name: 'policies that read one another’s tables by way of a definer',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY;
      ${helper('is_member(room int) RETURNS boolean', 'SELECT EXISTS (SELECT FROM public.members m WHERE m.room_id = room AND m.user_id = auth.uid())', 'SECURITY DEFINER')}
      CREATE POLICY together ON members USING (is_member(room_id));`,
    using: `EXISTS (SELECT FROM ${ofRoom} AND m.role = 'admin') OR EXISTS (SELECT FROM ${ofRoom} AND m.role = 'owner')`,
  },
  {
    name: 'a definer who is under policies that read further tables',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY; GRANT SELECT ON members, profiles TO $keeper; GRANT CREATE ON SCHEMA public TO $keeper;
      CREATE POLICY k ON members TO $keeper USING (EXISTS (SELECT FROM profiles p WHERE p.id = members.user_id AND p.role = 'admin'));
      ${helper('is_member(room int) RETURNS boolean', 'SELECT EXISTS (SELECT FROM public.members m WHERE m.room_id = room)', 'SECURITY DEFINER')}
      ALTER FUNCTION is_member OWNER TO $keeper;`,
    using: 'is_member(room_id)',
  },
  {
    name: 'an owner of the inner table, FORCE or not',
    setup: `ALTER TABLE profiles OWNER TO $authenticated; ALTER TABLE profiles ENABLE ROW LEVEL SECURITY;
      CREATE POLICY none ON profiles USING (role = 'user');`,
    using: `EXISTS (SELECT FROM profiles p WHERE p.id = messages.author)`,
  },
  {
    name: 'the same with FORCE',
    setup: `ALTER TABLE profiles OWNER TO $authenticated; ALTER TABLE profiles ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
      CREATE POLICY none ON profiles USING (role = 'user');`,
    using: `EXISTS (SELECT FROM profiles p WHERE p.id = messages.author)`,
  },
  {
    name: 'TO a role that is granted without inheritance',
    setup: `REVOKE $authenticated FROM $staff; GRANT $authenticated TO $staff WITH INHERIT FALSE; GRANT SELECT ON messages, members TO $staff;
      GRANT USAGE ON SCHEMA auth TO $staff;
      CREATE POLICY a ON messages TO $authenticated USING (EXISTS (SELECT FROM ${ofRoom})); CREATE POLICY b ON messages TO PUBLIC USING (id = 7);`,
  },
]

judgedLikePostgres(() => bench, [...values, ...functions, ...guarded])
