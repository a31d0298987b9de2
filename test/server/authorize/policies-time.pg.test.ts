import { afterAll, beforeAll } from 'vitest'
import { PolicyBench } from './policy-bench.ts'
import { type Case, helper, judgedLikePostgres } from './policy-cases.ts'

let bench: PolicyBench

beforeAll(async () => {
  bench = await PolicyBench.create()
  // Far enough from every bound below that the test's own time does not matter; one row has no time, one is for ever.
  await bench.database.query(`
    ALTER TABLE messages ADD local_at timestamp, ADD until timestamptz;
    UPDATE messages SET at = now() + offsets.by, local_at = now() + offsets.by, on_day = CURRENT_DATE + offsets.days, until = offsets.until
    FROM (VALUES (1, interval '-10 minutes', 0, NULL::timestamptz), (2, interval '10 minutes', 1, 'infinity'), (3, '-40 hours', -1, '-infinity'),
      (4, '40 hours', -7, now() - interval '3 hours'), (5, '-100 days', 7, now() + interval '3 hours'), (6, NULL, NULL, now()),
      (7, '70 days', 40, '2020-01-01')) AS offsets (id, by, days, until)
    WHERE messages.id = offsets.id`)
})

afterAll(() => bench[Symbol.asyncDispose]())

const times: readonly Case[] = [
  { name: 'now()', using: 'at > now()' },
  { name: 'the other way round, negated', using: 'NOT (now() >= at)' },
  {
    name: 'CURRENT_TIMESTAMP and its kin',
    using:
      'at <= CURRENT_TIMESTAMP AND at < clock_timestamp() OR transaction_timestamp() < until AND until > statement_timestamp()',
  },
  { name: 'an interval back', using: `at > now() - interval '1 day'` },
  {
    name: 'intervals of several parts',
    using: `at < CURRENT_TIMESTAMP + '1 day 12:00:00'::interval - interval '30 minutes'`,
  },
  { name: 'several of an interval', using: `at > now() - interval '1 day' * 50 AND at < now() + 2 * interval '1 day'` },
  { name: 'months', using: `at > now() - interval '2 months' AND at < now() + interval '1 month'` },
  { name: 'NULL is for ever', using: 'until IS NULL OR until > now()' },
  { name: 'coalesce to infinity', using: `coalesce(until, 'infinity') > now()` },
  { name: 'coalesce to another column', using: `coalesce(until, at, '-infinity') < now()` },
  { name: 'coalesce, negated', using: `NOT (coalesce(until, 'infinity'::timestamptz) > now())` },
  { name: 'between two columns', using: 'now() BETWEEN at AND until OR now() NOT BETWEEN until AND at' },
  { name: 'an interval on the column', using: `at + interval '2 days' > now()` },
  { name: 'an interval off the column', using: `at - '1 hour'::interval < now()` },
  { name: 'an age', using: `now() - at < interval '15 minutes'` },
  { name: 'an age of months', using: `CURRENT_TIMESTAMP - at >= '2 mons'::interval OR interval '1 day' > at - now()` },
  { name: 'a timestamp without zone', using: `local_at > LOCALTIMESTAMP OR local_at < now() - interval '1 day'` },
  { name: 'a timestamp in UTC', using: `local_at > (now() AT TIME ZONE 'utc') OR local_at AT TIME ZONE 'UTC' < now()` },
  { name: 'a day', using: 'on_day >= CURRENT_DATE' },
  { name: 'days further', using: 'on_day > CURRENT_DATE - 7 AND on_day <= CURRENT_DATE + 7' },
  {
    name: 'a day by an interval',
    using: `on_day >= CURRENT_DATE - interval '1 week' AND at > CURRENT_DATE - interval '50 days'`,
  },
  { name: 'a day of the time', using: `on_day = on_day AND on_day < now()::date OR at >= date_trunc('day', now())` },
  { name: 'the day of a column', using: 'at::date > CURRENT_DATE OR at::date <= CURRENT_DATE - 90' },
  { name: 'a day against the time', using: 'on_day > now()' },
  { name: 'in CASE', using: `CASE WHEN is_public THEN at < now() ELSE until > now() END` },
  {
    name: 'in a helper',
    setup: helper('is_open(t timestamptz) RETURNS boolean', `SELECT t IS NULL OR t > now() + interval '1 hour'`),
    using: 'is_open(until)',
  },
  {
    name: 'of a membership',
    using: `EXISTS (SELECT FROM messages o WHERE o.room_id = messages.room_id AND o.at > now())`,
    setup: 'ALTER TABLE messages DISABLE ROW LEVEL SECURITY;',
  },
]

judgedLikePostgres(() => bench, times)
