// A policy that raises, that is slow, that shows too much: it harms its own audience, which is told why, and nobody else.
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from 'vitest'
import { askedSchema, askedTables, equals } from '../support/asked.ts'
import { LiveSse, person, prepareDatabase, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { until } from '../support/stalled.ts'

let database: TestDatabase
let node: TestNode
const [ada, ben, eve] = [person(), person(), person()]
const settings = {
  ASKED_TIMEOUT_MS: '2000',
  ASKED_MAX_ROWS: '20',
  ASKED_MAX_AUDIENCES_PER_TABLE: '3',
  AUDIENCE_GRACE_MS: '60000',
}

/** `trouble` says whom the policy of `papers` fails, and how. */
const schema = `${askedSchema}
  CREATE TABLE public.trouble (user_id uuid PRIMARY KEY, how text NOT NULL);
  CREATE OR REPLACE FUNCTION public.is_crew(room int) RETURNS bool LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = '' AS $$
    DECLARE kind text := (SELECT t.how FROM public.trouble t WHERE t.user_id = auth.uid());
    BEGIN
      IF kind = 'raise' THEN RAISE EXCEPTION 'the secret of room %', room USING ERRCODE = 'P0042'; END IF;
      IF kind = 'divide' THEN RETURN room / 0 > 1; END IF;
      IF kind = 'write' THEN INSERT INTO public.crew VALUES (room, auth.uid()); END IF;
      IF kind = 'zone' THEN PERFORM set_config('TimeZone', 'Asia/Tokyo', false); END IF;
      IF kind = 'sleep' THEN PERFORM pg_sleep(30); END IF;
      RETURN EXISTS (SELECT 1 FROM public.crew c WHERE c.room_id = room AND c.user_id = auth.uid());
    END $$;
`

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, [...askedTables, 'trouble'])
})

beforeEach(async () => {
  await database.query('TRUNCATE public.crew, public.papers, public.answers, public.polls, public.trouble')
  await database.query(`INSERT INTO crew SELECT 1, u::uuid FROM unnest(ARRAY['${ada}', '${ben}', '${eve}']) u`)
  await database.query(`INSERT INTO papers SELECT i, 1, 'w', 'row ' || i FROM generate_series(1, 6) i`)
  node = await TestNode.start(database.url, settings)
})

afterEach(async () => {
  await node?.[Symbol.asyncDispose]()
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
})

const papers = async (sub: string, query = ''): Promise<LiveSse> =>
  LiveSse.open(node, `/v1/live/papers${query}`, await tokenFor(sub))
const follows = (live: LiveSse, sub: string): Promise<void> => equals(database, live, sub, 'SELECT * FROM papers')

async function errorOf(
  live: LiveSse,
): Promise<{ code: string; message: string; retry: boolean; retryAfterMs: number }> {
  const error = await live.stream.until(({ event }) => event === 'error')
  return error.data as { code: string; message: string; retry: boolean; retryAfterMs: number }
}

const raising: readonly [string, RegExp][] = [
  ['raise', /a policy of public\.papers raised SQLSTATE P0042/],
  ['divide', /SQLSTATE 22012/],
  ['zone', /a policy of public\.papers changes the setting TimeZone/],
  ['write', /SQLSTATE (25006|0A000)/],
]

test.each(raising)(
  '[P7] [P8] a policy that fails for one reader (%s) ends that reader alone, without a value of a row',
  async (how, message) => {
    using mine = await papers(ada)
    using theirs = await papers(eve)
    await mine.exact()
    await theirs.exact()
    await database.query(`INSERT INTO trouble VALUES ('${eve}', '${how}')`)
    const error = await errorOf(theirs)
    expect(error).toMatchObject({ code: 'POLICY_FAILED', retry: true })
    expect(error.retryAfterMs).toBeGreaterThan(1000)
    expect(error.message).toMatch(message)
    expect(error.message).not.toMatch(/secret|room/)
    await database.query(`INSERT INTO papers VALUES (30, 1, 'w', 'more')`)
    await follows(mine, ada)
    expect(mine.stream.ended).toBe(false)
    // Who comes back early is mostly refused without asking.
    using early = await papers(eve)
    await early.stream.waitFor(() => early.stream.ended || early.stream.events.some(({ event }) => event === 'error'))
    expect(early.stream.errorBody.code ?? (await errorOf(early)).code).toBe('POLICY_FAILED')
  },
)

test('[P7] a reader whose policy sleeps is told POLICY_SLOW, and its neighbours hear of commits while it sleeps', async () => {
  using mine = await papers(ada)
  using theirs = await papers(ben)
  using slow = await papers(eve)
  for (const live of [mine, theirs, slow]) await live.exact()
  await database.query(`INSERT INTO trouble VALUES ('${eve}', 'sleep')`)
  const sleeps = `SELECT 1 FROM pg_stat_activity WHERE application_name = 'tidegate asked' AND wait_event = 'PgSleep'`
  await until(async () => (await database.query(sleeps)).length > 0)
  for (let id = 100; id < 105; id++) {
    await database.query(`INSERT INTO papers VALUES (${id}, 1, 'w', 'meanwhile')`)
    await mine.stream.waitFor(() => mine.rows.rows.has(`[${id}]`))
    await theirs.stream.waitFor(() => theirs.rows.rows.has(`[${id}]`))
  }
  expect(await database.query(sleeps)).toHaveLength(1)
  expect(slow.stream.events.some(({ event }) => event === 'error')).toBe(false)
  const error = await errorOf(slow)
  expect(error).toMatchObject({ code: 'POLICY_SLOW', retry: true })
  expect(error.message).toMatch(/public\.papers within 2000 ms/)
  expect(error.retryAfterMs).toBeGreaterThanOrEqual(5000)
  // Whoever comes back to the same is told to stay away for longer.
  using again = await papers(eve)
  expect((await errorOf(again)).retryAfterMs).toBeGreaterThan(error.retryAfterMs!)
  await follows(mine, ada)
  await follows(theirs, ben)
})

test('[P7] a query past ASKED_MAX_ROWS is refused, and one that grows past it ends, with what to do', async () => {
  using grows = await papers(ada)
  await grows.exact()
  using filtered = await papers(ben, '?id=lt.4')
  await filtered.exact()
  await database.query(`INSERT INTO papers SELECT i, 1, 'w', 'x' FROM generate_series(100, 120) i`)
  const error = await errorOf(grows)
  expect(error).toMatchObject({ code: 'ASKED_TOO_LARGE', retry: false })
  expect(error.message).toMatch(/more than 20 rows.*ASKED_MAX_ROWS/)
  using refused = await papers(eve)
  expect(await errorOf(refused)).toMatchObject({ code: 'ASKED_TOO_LARGE' })
  await equals(database, filtered, ben, 'SELECT * FROM papers WHERE id < 4')
})

test('[P7] a table has as many asked audiences as ASKED_MAX_AUDIENCES_PER_TABLE; one that nobody uses gives way', async () => {
  const lives: LiveSse[] = []
  for (const filter of ['?id=eq.1', '?id=eq.2', '?id=eq.3']) lives.push(await (await papers(ada, filter)).exact())
  using shared = await (await papers(ada, '?id=eq.3')).exact()
  using refused = await papers(ada, '?id=eq.4')
  expect(refused.stream.status).toBe(503)
  expect(refused.stream.errorBody).toMatchObject({
    code: 'ASKED_TOO_MANY',
    message: expect.stringMatching(/3 readers/),
  })
  using elsewhere = await LiveSse.open(node, '/v1/live/polls', await tokenFor(ada))
  await elsewhere.exact()
  lives[0]!.stream.close()
  let fourth = refused
  await until(async () => {
    fourth = await papers(ada, '?id=eq.4')
    return fourth.stream.status === 200
  })
  await fourth.exact()
  expect(shared.stream.ended).toBe(false)
  for (const live of [...lives, fourth]) live.stream.close()
})

test('[P1] a table that a migration locks keeps its readers: they go on when it is over', async () => {
  using live = await papers(ada)
  await live.exact()
  await database.query('BEGIN; LOCK TABLE papers IN ACCESS EXCLUSIVE MODE')
  const waits = `SELECT 1 FROM pg_locks WHERE relation = 'papers'::regclass AND NOT granted`
  await until(async () => (await database.query(waits)).length > 0)
  await until(async () => (await database.query(waits)).length === 0)
  await database.query(`INSERT INTO papers VALUES (60, 1, 'w', 'after'); COMMIT`)
  await follows(live, ada)
  expect(live.stream.ended).toBe(false)
})

test('[P8] what Postgres cannot answer stays refused: no key, a key that the role may not read, an untracked membership table', async () => {
  await database.query(`
    CREATE TABLE public.keyless (id int, body text);
    CREATE TABLE public.hidden (id int PRIMARY KEY, body text);
    CREATE TABLE public.untracked (id int PRIMARY KEY);
    CREATE TABLE public.guarded (id int PRIMARY KEY);
    GRANT SELECT (body) ON public.hidden TO authenticated;
    GRANT SELECT ON public.keyless, public.untracked, public.guarded TO authenticated;
    ALTER PUBLICATION tidegate ADD TABLE public.keyless, public.hidden, public.guarded;
    ALTER TABLE public.keyless REPLICA IDENTITY FULL; ALTER TABLE public.guarded REPLICA IDENTITY FULL;`)
  for (const table of ['keyless', 'hidden'])
    await database.query(`ALTER TABLE ${table} ENABLE ROW LEVEL SECURITY;
      CREATE POLICY p ON ${table} USING (random() < 2)`)
  await database.query(`ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
    CREATE POLICY p ON guarded USING (id IN (SELECT u.id FROM untracked u))`)
  const refusals: readonly [string, string][] = [
    ['keyless', 'NO_PRIMARY_KEY'],
    ['hidden', 'KEY_NOT_READABLE'],
    ['guarded', 'POLICY_UNSUPPORTED'],
  ]
  for (const [table, code] of refusals) {
    using live = await LiveSse.open(node, `/v1/live/${table}`, await tokenFor(ada))
    expect(live.stream.errorBody.code).toBe(code)
  }
})
