// The moments between a change of the catalog and our knowing of it: rows are never read under columns that they do not
// have, nobody slips in under the rules that were, and what changes nothing ends nothing.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { LiveSse, person, prepareDatabase, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let node: TestNode
let token: string
const ada = person()

const schema = `
  CREATE TABLE public.crew (extra text, user_id uuid, room_id int, PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.notes (id int PRIMARY KEY, secret text, room_id int, body text);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY member ON public.notes FOR SELECT TO authenticated USING (
    room_id IN (SELECT c.room_id FROM public.crew c WHERE c.user_id = auth.uid()));
  GRANT SELECT ON public.crew TO authenticated;
  GRANT SELECT (id, room_id, body) ON public.notes TO authenticated;
  ALTER PUBLICATION tidegate ADD TABLE public.notes, public.crew;
  ALTER TABLE public.notes REPLICA IDENTITY FULL; ALTER TABLE public.crew REPLICA IDENTITY FULL;
  INSERT INTO public.crew VALUES ('x', '${ada}', 1), ('y', '${person()}', 2);
  INSERT INTO public.notes SELECT i, 'hush' || i, 1 + i % 2, 'body' || i FROM generate_series(1, 6) i;
`

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(
    database,
    `CREATE TABLE public.signal (id int PRIMARY KEY); GRANT SELECT ON public.signal TO authenticated`,
    ['signal'],
  )
  node = await TestNode.start(database.url)
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

/** Each test has tables of its own, `notes_3` and `crew_3`: of those before it the catalog may still be remembered. */
let round = 0
const own = (text: string): string => text.replaceAll(/\b(notes|crew)\b/g, `$1_${round}`)
const run = (sql: string) => database.query(own(sql))

beforeEach(async () => {
  round += 1
  await run(schema)
})

const errorOf = (stream: SseStream): { code: string } | null =>
  (stream.events.find(({ event }) => event === 'error')?.data as { code: string }) ?? null

async function open(path: string): Promise<LiveSse> {
  const deadline = Date.now() + 5000
  for (;;) {
    const live = await LiveSse.open(node, own(path), token)
    await live.stream.waitFor(() => live.rows.exact || live.stream.ended || errorOf(live.stream) !== null)
    if (live.rows.exact) return live
    if (Date.now() > deadline) throw new Error(`refused: ${JSON.stringify(live.stream.errorBody)}`)
  }
}

/** Resolves when the catalog has been looked at after this moment: a subscription of another table is told of a change. */
async function catalogWasLookedAt(): Promise<void> {
  await database.query('GRANT SELECT ON public.signal TO authenticated')
  using signal = await open('/v1/live/signal')
  await database.query('REVOKE SELECT ON public.signal FROM authenticated')
  await signal.stream.until(({ event }) => event === 'error', 5000)
  await database.query('GRANT SELECT ON public.signal TO authenticated')
}

const rewrite = `UPDATE public.notes SET room_id = 1`

/** Each moves other values to where those stood that Ada may read. */
const moves: readonly (readonly [name: string, sql: string])[] = [
  ['a column dropped', 'ALTER TABLE public.notes DROP COLUMN secret'],
  [
    'two columns that change names',
    `ALTER TABLE public.notes RENAME secret TO was; ALTER TABLE public.notes RENAME body TO secret; ALTER TABLE public.notes RENAME was TO body`,
  ],
  [
    'a column dropped and another added by its name',
    `ALTER TABLE public.notes DROP COLUMN body; ALTER TABLE public.notes ADD COLUMN body text DEFAULT 'hush'`,
  ],
  [
    'a membership column dropped, so that others move up',
    'ALTER TABLE public.crew DROP COLUMN extra; UPDATE public.crew SET room_id = 3 WHERE room_id = 1',
  ],
]

/** It ended, or goes on by the new rules. */
const wasTold = (stream: SseStream): boolean =>
  errorOf(stream) !== null || stream.events.filter(({ event }) => event === 'subscribed').length > 1

const noHush = (streams: readonly SseStream[]): void => {
  for (const stream of streams) expect(JSON.stringify(stream.events)).not.toContain('hush')
}

const moments = moves.flatMap(([name, sql]) => [
  [`${name}, rows written at once`, `${sql}; ${rewrite}`],
  [`${name}, rows written in the same transaction`, `BEGIN; ${sql}; ${rewrite}; COMMIT`],
  [
    `${name} between two writes of one transaction`,
    `BEGIN; UPDATE public.notes SET body = 'mid' || id; ${sql}; INSERT INTO public.notes (id, body) VALUES (50, 'x'); COMMIT`,
  ],
])

test.each(moments)('[P2] %s are never read by the old columns', async (_, sql) => {
  using live = await open('/v1/live/notes')
  using changes = await SseStream.open(node, own('/v1/changes/notes'), token)
  using narrow = await open('/v1/live/notes?select=id')
  await run(sql)
  await Promise.all([live.stream, changes].map(stream => stream.waitFor(() => wasTold(stream), 4000)))
  noHush([live.stream, changes, narrow.stream])
  const deadline = Date.now() + 5000
  for (;;) {
    const again = await SseStream.open(node, own('/v1/live/notes?select=id'), token, narrow.stream.lastEventId)
    await again.waitFor(() => again.ended || again.events.some(({ event }) => event !== 'resync'))
    again.close()
    noHush([again])
    if (again.status === 200 && errorOf(again) === null) break
    if (Date.now() > deadline) throw new Error(JSON.stringify([again.errorBody, errorOf(again)]))
  }
})

test('[P2] changes of a window from before a column was dropped are not replayed under the columns of now', async () => {
  await open('/v1/live/notes')
  using changes = await SseStream.open(node, own('/v1/changes/notes?select=id,body'), token)
  await run(`UPDATE public.notes SET body = 'first' WHERE room_id = 1`)
  await changes.until(({ event }) => event === 'change')
  changes.close()
  await run(`UPDATE public.notes SET body = 'second' WHERE room_id = 1`)
  await run('ALTER TABLE public.notes DROP COLUMN secret')
  await catalogWasLookedAt()
  using back = await SseStream.open(node, own('/v1/changes/notes?select=id,body'), token, changes.lastEventId)
  const first = await back.until(({ event }) => event === 'resync' || event === 'change')
  expect(first).toMatchObject({ event: 'resync', data: { code: 'QUERY_CHANGED' } })
  await run(`UPDATE public.notes SET body = 'third' WHERE room_id = 1`)
  await back.until(({ event }) => event === 'change')
  noHush([changes, back])
})

test('[P2] nobody who subscribes while a policy changes stands under the old one', async () => {
  await open('/v1/live/notes')
  for (let turn = 0; turn < 4; turn++) {
    const wide = turn % 2 === 1
    const opening = Array.from({ length: 30 }, async (_, i) => {
      if (i === 10) await run(`ALTER POLICY member ON public.notes USING (${wide ? 'room_id = 1' : 'room_id = 100'})`)
      return SseStream.open(node, own(`/v1/${i % 2 === 0 ? 'live' : 'changes'}/notes?id=gt.${-i - 100 * turn}`), token)
    })
    const streams = await Promise.all(opening)
    await catalogWasLookedAt()
    const from = streams.map(stream => stream.events.length)
    await run(`UPDATE public.notes SET body = 'turn${turn}' || clock_timestamp()`)
    if (!wide) {
      // The stream has passed the update when a subscription of another table is told of a later commit.
      using signal = await open('/v1/live/signal')
      await database.query('INSERT INTO signal SELECT coalesce(max(id), 0) + 1 FROM signal')
      await signal.stream.until(({ event }) => event === 'delta')
      for (const [i, stream] of streams.entries())
        expect(JSON.stringify(stream.events.slice(from[i]))).not.toContain(`turn${turn}`)
    }
    for (const stream of streams) stream.close()
  }
})

test.each([
  ['ANALYZE', 'ANALYZE public.notes; ANALYZE public.crew'],
  ['VACUUM', 'VACUUM public.notes'],
  ['VACUUM FULL', 'VACUUM FULL public.crew'],
  ['a comment', `COMMENT ON TABLE public.notes IS 'x'; COMMENT ON COLUMN public.notes.body IS 'y'`],
  ['an index', 'CREATE INDEX ON public.notes (body)'],
  ['a unique index', 'CREATE UNIQUE INDEX ON public.notes (id, body)'],
  ['a table of its own', 'CREATE TABLE IF NOT EXISTS public.strange (id int PRIMARY KEY)'],
  [
    'a tracked table more',
    'CREATE TABLE IF NOT EXISTS public.extra (id int PRIMARY KEY); ALTER PUBLICATION tidegate SET TABLE public.notes, public.crew, public.signal, public.extra',
  ],
  ['a policy of another role', 'CREATE POLICY other ON public.notes FOR SELECT TO anon USING (true)'],
  ['a policy for writers', 'CREATE POLICY writers ON public.notes FOR INSERT TO authenticated WITH CHECK (true)'],
  ['a function nobody calls', 'CREATE OR REPLACE FUNCTION public.idle() RETURNS int LANGUAGE sql RETURN 1'],
  [
    'a trigger',
    `CREATE TRIGGER fires BEFORE UPDATE ON public.notes FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()`,
  ],
  ['a default', `ALTER TABLE public.notes ALTER COLUMN body SET DEFAULT 'x'`],
])('%s ends nothing', async (_, sql) => {
  using live = await open('/v1/live/notes')
  using changes = await SseStream.open(node, own('/v1/changes/notes'), token)
  for (const statement of sql.split(/; (?=[A-Z]+ (?!new))/)) await run(statement)
  await catalogWasLookedAt()
  await run(`UPDATE public.notes SET body = 'after' WHERE id = 2`)
  await live.stream.until(({ event }) => event === 'delta' || event === 'error')
  await changes.until(({ event }) => event === 'change' || event === 'error')
  for (const stream of [live.stream, changes]) {
    expect(errorOf(stream)).toBe(null)
    expect(stream.events.filter(({ event }) => event === 'resync')).toEqual([])
  }
})
