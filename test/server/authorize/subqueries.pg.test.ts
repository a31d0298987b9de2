// Subqueries within subqueries and joins, in the shapes people write them.
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Predicate } from '../../../src/predicate/algebra.ts'
import { allSemiJoinsOf, semiJoinsOf } from '../../../src/predicate/columns.ts'
import { isHop } from '../../../src/predicate/hops.ts'
import { PolicyBench } from './policy-bench.ts'
import {
  type Case,
  helper,
  judgedLikePostgres,
  policyOf,
  type RefusedCase,
  refusalOf,
  refusedByName,
  within,
} from './policy-cases.ts'

let bench: PolicyBench

beforeAll(async () => {
  bench = await PolicyBench.create()
})

afterAll(() => bench[Symbol.asyncDispose]())

const mine = 'm.user_id = auth.uid()'
const ofRoom = 'members m WHERE m.room_id = messages.room_id'

const joins: readonly Case[] = [
  {
    name: 'a join by comma',
    using: `EXISTS (SELECT FROM members m, profiles p WHERE m.room_id = messages.room_id AND p.id = m.user_id AND p.role = 'admin')`,
  },
  {
    name: 'JOIN ... ON, with conditions in both',
    using: `EXISTS (SELECT FROM members m JOIN profiles p ON p.id = m.user_id AND p.org_id = 10 WHERE m.room_id = messages.room_id AND m.role <> 'x')`,
  },
  {
    name: 'JOIN ... USING',
    using: `EXISTS (SELECT FROM members JOIN bans USING (room_id, user_id) WHERE room_id = messages.room_id) OR id = 1`,
  },
  {
    name: 'tables tied by the row’s own column',
    using: `EXISTS (SELECT FROM members m JOIN bans b ON b.room_id = m.room_id WHERE m.room_id = messages.room_id AND ${mine})`,
  },
  {
    name: 'tables tied to nothing but the reader',
    using: `room_id = 1 AND EXISTS (SELECT FROM members m JOIN profiles p ON p.id = m.user_id WHERE ${mine} AND p.role = 'admin')`,
  },
  {
    name: 'a table tied to nothing at all',
    using: `EXISTS (SELECT FROM members m CROSS JOIN profiles p WHERE m.room_id = messages.room_id AND ${mine} AND p.role = 'user')`,
  },
  {
    name: 'a LEFT JOIN that nothing reads',
    using: `EXISTS (SELECT FROM members m LEFT JOIN bans b ON b.room_id = m.room_id WHERE m.room_id = messages.room_id AND ${mine})`,
  },
  {
    name: 'a LEFT JOIN whose WHERE needs a row',
    using: `EXISTS (SELECT FROM members m LEFT JOIN bans b ON b.user_id = m.user_id WHERE m.room_id = messages.room_id AND b.id > 1)`,
  },
  {
    name: 'a LEFT JOIN of which there may be none',
    using: `EXISTS (SELECT FROM members m LEFT JOIN bans b ON b.room_id = m.room_id AND b.user_id = m.user_id
      WHERE m.room_id = messages.room_id AND ${mine} AND b.room_id IS NULL)`,
  },
  {
    name: 'OR between the rows',
    using: `EXISTS (SELECT FROM members m WHERE ${mine} AND (m.room_id = messages.room_id OR (m.role = 'owner' AND messages.is_public)))`,
  },
  {
    name: 'the row’s column in a list of the other’s',
    using: `EXISTS (SELECT FROM members m JOIN profiles p ON p.id = m.user_id WHERE messages.org_id IN (m.room_id, p.org_id) AND ${mine})`,
  },
  {
    name: 'one column to several of the row',
    using: `EXISTS (SELECT FROM members m WHERE m.room_id = messages.room_id AND m.user_id = messages.author AND m.user_id = auth.uid())`,
  },
  {
    name: 'a circle whose one value is the reader',
    using: `EXISTS (SELECT FROM members m JOIN bans b ON b.user_id = m.user_id WHERE m.room_id = messages.room_id AND b.room_id = messages.room_id + 0
      AND m.user_id = auth.uid() AND b.user_id = auth.uid())`,
  },
]

const nested: readonly Case[] = [
  {
    name: 'EXISTS within EXISTS',
    using: `EXISTS (SELECT FROM ${ofRoom} AND EXISTS (SELECT FROM profiles p WHERE p.id = m.user_id AND p.role = 'admin'))`,
  },
  {
    name: 'IN within IN within IN',
    using: `room_id IN (SELECT m.room_id FROM members m WHERE m.user_id IN (SELECT p.id FROM profiles p WHERE p.org_id IN (
      SELECT o.org_id FROM profiles o WHERE o.id = auth.uid())))`,
  },
  {
    name: 'an inner subquery that reads the row two levels up',
    using: `EXISTS (SELECT FROM ${ofRoom} AND EXISTS (SELECT FROM bans b WHERE b.room_id = messages.room_id AND b.user_id = m.user_id))`,
  },
  {
    name: 'the same negated, by an equal column',
    using: `EXISTS (SELECT FROM ${ofRoom} AND NOT EXISTS (SELECT FROM bans b WHERE b.room_id = messages.room_id AND b.user_id = m.user_id))`,
  },
  {
    name: 'a row that only the innermost table is tied to',
    using: `EXISTS (SELECT FROM profiles p WHERE p.role = 'admin' AND EXISTS (SELECT FROM members m WHERE m.user_id = p.id
      AND EXISTS (SELECT FROM bans b WHERE b.room_id = m.room_id AND b.room_id = messages.room_id)))`,
  },
  {
    name: 'NOT IN within NOT EXISTS, with NULLs',
    using: `NOT EXISTS (SELECT FROM profiles p WHERE p.id = messages.author AND p.id NOT IN (SELECT b.user_id FROM bans b WHERE b.room_id = 1))`,
  },
  {
    name: 'NOT IN over a join',
    using: 'room_id NOT IN (SELECT b.room_id FROM bans b JOIN profiles p ON p.id = b.user_id WHERE p.id = auth.uid())',
  },
  {
    name: 'several columns NOT IN, with NULLs',
    using: '(room_id, author) NOT IN (SELECT b.room_id, b.user_id FROM bans b)',
  },
  {
    name: 'a subquery in CASE, and IS NOT TRUE of one',
    using: `CASE WHEN EXISTS (SELECT FROM ${ofRoom} AND ${mine}) THEN (room_id IN (SELECT b.room_id FROM bans b)) IS NOT TRUE ELSE id = 5 END`,
  },
  {
    name: 'UNION in IN, and in NOT IN',
    using: `room_id IN (SELECT m.room_id FROM members m WHERE ${mine} UNION ALL SELECT b.room_id FROM bans b WHERE b.id = 1)
      OR room_id NOT IN (SELECT m.room_id FROM members m UNION SELECT b.room_id FROM bans b WHERE b.id < 3)`,
  },
  {
    name: 'UNION in EXISTS',
    using: `EXISTS (SELECT FROM ${ofRoom} AND ${mine} UNION SELECT FROM bans b WHERE b.room_id = messages.room_id AND b.id = 1)`,
  },
  {
    name: 'INTERSECT and EXCEPT',
    using: `room_id IN (SELECT m.room_id FROM members m WHERE ${mine} INTERSECT SELECT b.room_id FROM bans b)
      OR room_id IN (SELECT m.room_id FROM members m EXCEPT SELECT b.room_id FROM bans b)`,
  },
  { name: 'VALUES', using: 'room_id IN (VALUES (1), (3)) OR room_id NOT IN (VALUES (1), (NULL))' },
  {
    name: 'a SELECT without FROM',
    using: 'author IN (SELECT auth.uid()) AND EXISTS (SELECT 1 WHERE messages.is_public)',
  },
  {
    name: 'WITH, twice, one reading the other',
    using: `room_id IN (WITH mine AS (SELECT * FROM members m WHERE ${mine}), owned (room) AS (SELECT mine.room_id FROM mine WHERE role = 'owner')
      SELECT owned.room FROM owned)`,
  },
  {
    name: 'a subquery in FROM',
    using: `EXISTS (SELECT FROM (SELECT m.room_id AS room, m.role FROM members m WHERE ${mine}) AS d WHERE d.room = messages.room_id AND d.role <> 'x')`,
  },
  {
    name: 'a LATERAL subquery',
    using: `EXISTS (SELECT FROM members m, LATERAL (SELECT p.role FROM profiles p WHERE p.id = m.user_id) AS d
      WHERE m.room_id = messages.room_id AND d.role = 'admin')`,
  },
  {
    name: 'DISTINCT, ORDER BY, GROUP BY and HAVING that count nothing',
    using: `room_id IN (SELECT DISTINCT m.room_id FROM members m WHERE ${mine} ORDER BY m.room_id)
      OR room_id IN (SELECT m.room_id FROM members m GROUP BY m.room_id HAVING m.room_id > 2)`,
  },
]

judgedLikePostgres(() => bench, [...joins, ...nested])

const refusedCases: readonly RefusedCase[] = [
  {
    name: 'a circle of equalities',
    using:
      'EXISTS (SELECT FROM members m JOIN bans b ON b.user_id = m.user_id WHERE m.room_id = messages.room_id AND b.id = messages.id)',
    construct: 'a join of public.members, public.bans with the outer row whose equalities run in a circle',
  },
  {
    name: 'a comparison of the rows by order',
    using: 'EXISTS (SELECT FROM members m WHERE m.user_id = auth.uid() AND m.room_id > messages.room_id)',
    construct: 'a condition on public.members and the outer row that is no equality of columns',
  },
  {
    name: 'an OR of too many branches between tables',
    using: `EXISTS (SELECT FROM members m, bans b WHERE ${Array.from({ length: 5 }, (_, i) => `(m.room_id = messages.id + ${i} OR b.room_id = ${i})`).join(' AND ')})`,
    construct: 'an OR of more than 16 branches',
  },
  {
    name: 'a LEFT JOIN whose NULLs matter',
    using: `EXISTS (SELECT FROM members m LEFT JOIN bans b ON b.room_id = m.room_id WHERE m.room_id = messages.room_id AND coalesce(b.id, 0) < 2)`,
    construct: 'a LEFT JOIN of public.bans whose NULLs matter',
  },
  {
    name: 'a FULL JOIN',
    using: `EXISTS (SELECT FROM members m FULL JOIN bans b USING (room_id) WHERE m.room_id = messages.room_id)`,
    construct: 'a RIGHT or FULL JOIN',
  },
  {
    name: 'WITH RECURSIVE',
    using: 'room_id IN (WITH RECURSIVE r AS (SELECT 1 AS a UNION SELECT r.a FROM r) SELECT a FROM r)',
    construct: 'WITH RECURSIVE',
  },
  {
    name: 'EXCEPT where NULLs matter',
    using: 'room_id NOT IN (SELECT room_id FROM members EXCEPT SELECT room_id FROM bans)',
    construct: 'EXCEPT here',
  },
  {
    name: 'GROUP BY with a count',
    using: 'room_id IN (SELECT room_id FROM members GROUP BY room_id HAVING count(*) > 1)',
    construct: 'function count()',
  },
  {
    name: 'a count of more than one',
    using: `(SELECT count(*) FROM ${ofRoom}) >= 2`,
    construct: 'function count()',
  },
  {
    name: 'LIMIT in IN',
    using: 'room_id IN (SELECT room_id FROM members ORDER BY room_id LIMIT 2)',
    construct: 'this LIMIT in a subquery',
  },
  {
    name: 'a constant of several rows',
    using: `(SELECT true FROM ${ofRoom})`,
    construct: 'a scalar subquery that may give several rows of public.members',
  },
  {
    name: 'policies that come back through a function that is no definer',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY;
      ${helper('is_member(room int) RETURNS boolean', 'SELECT EXISTS (SELECT FROM public.members m WHERE m.room_id = room AND m.user_id = auth.uid())')}
      CREATE POLICY together ON members USING ((SELECT is_member(room_id)));`,
    using: `EXISTS (SELECT FROM ${ofRoom})`,
    construct: 'public.members, whose policies read it again through a function',
  },
]

refusedByName(() => bench, refusedCases)

test.each([
  {
    name: 'its own table',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY;
      CREATE POLICY own ON members USING (EXISTS (SELECT FROM members o WHERE o.user_id = auth.uid()));`,
    using: `EXISTS (SELECT FROM ${ofRoom})`,
  },
  {
    name: 'a table that reads the first again',
    setup: `ALTER TABLE members ENABLE ROW LEVEL SECURITY; CREATE POLICY back ON members USING (room_id IN (SELECT room_id FROM messages));`,
    using: `EXISTS (SELECT FROM ${ofRoom})`,
  },
])('[P2] a policy that reads $name is refused, where Postgres raises', async ({ setup, using }) => {
  await within(bench, `${setup} ${policyOf(using)}`, async () => {
    const { ada: reader } = bench.principals
    expect(await bench.asked(reader!)).toContain('infinite recursion detected in policy for relation')
    expect(await refusalOf(() => bench.compiled(reader!))).toMatch(
      /^TABLE_REFUSED: .* raises: infinite recursion detected in policy for relation "m/,
    )
  })
})

/** `members(profiles(bans))`: the semi-joins as they are nested. */
const shapeOf = (predicate: Predicate): string =>
  semiJoinsOf(predicate)
    .map(({ table, where }) => `${table.name}${semiJoinsOf(where).length > 0 ? `(${shapeOf(where)})` : ''}`)
    .join(' ')

test.each([
  [
    'a table that the row itself names is beneath the row',
    `EXISTS (SELECT FROM ${ofRoom} AND ${mine} AND m.room_id IN (SELECT b.room_id FROM bans b))`,
    'members bans',
  ],
  [
    'so is one that must have none',
    `EXISTS (SELECT FROM ${ofRoom} AND ${mine} AND NOT EXISTS (SELECT FROM bans b WHERE b.room_id = m.room_id))`,
    'bans members',
  ],
  [
    'a chain hangs by its links',
    `EXISTS (SELECT FROM ${ofRoom} AND m.user_id IN (SELECT p.id FROM profiles p WHERE p.id IN (SELECT b.user_id FROM bans b)))`,
    'members(profiles bans)',
  ],
  [
    'the reader’s own table is the root of what names no row',
    `EXISTS (SELECT FROM members m, profiles p WHERE p.id = auth.uid() AND m.user_id = p.id)`,
    'profiles(members)',
  ],
])('%s', async (_, using, shape) => {
  await within(bench, policyOf(using), async () => {
    const { policy } = await bench.access(bench.principals.ada!)
    expect(shapeOf(policy).split(' ').sort()).toEqual(shape.split(' ').sort())
  })
})

test('a condition that the policy’s own makes true is no reason to judge row by row', async () => {
  const setup = `ALTER TABLE members ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON members USING (user_id = (SELECT auth.uid())); CREATE POLICY admin ON members USING (EXISTS (SELECT FROM profiles p WHERE p.id = auth.uid() AND p.role = 'admin'));`
  await within(bench, `${setup} ${policyOf(`EXISTS (SELECT FROM ${ofRoom} AND ${mine})`)}`, async () => {
    const { policy } = await bench.access(bench.principals.ada!)
    expect(allSemiJoinsOf(policy).map(join => [join.table.name, isHop(join)])).toEqual([['members', false]])
  })
})

test('tables at every depth come with the policy, for its index', async () => {
  const setup = `ALTER TABLE bans ENABLE ROW LEVEL SECURITY;
    CREATE POLICY own ON bans USING (user_id IN (SELECT p.id FROM profiles p WHERE p.id = auth.uid()));`
  const using = `EXISTS (SELECT FROM ${ofRoom} AND NOT EXISTS (SELECT FROM bans b WHERE b.room_id = m.room_id AND b.user_id = m.user_id))`
  await within(bench, `${setup} ${policyOf(using)}`, async () => {
    const { memberships } = await bench.access(bench.principals.ada!)
    expect(memberships.map(({ name }) => name).sort()).toEqual(['bans', 'members', 'profiles'])
  })
})
