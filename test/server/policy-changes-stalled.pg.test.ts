// The stream tells of a change of policy that no SELECT shows yet, because its commit waits for a standby; or the policies
// cannot be read, because a migration locks their table. Nothing is judged by what was.
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { asSet, LiveSse, person, prepareDatabase, SseStream, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Stalled } from '../support/stalled.ts'

let server: LocalPostgres
let database: TestDatabase
let node: TestNode
let token: string
let stalled: Stalled | null = null
const ada = person()

const schema = `
  CREATE TABLE public.crew (room_id int, user_id uuid, PRIMARY KEY (room_id, user_id));
  CREATE FUNCTION public.may_read(room int) RETURNS bool LANGUAGE sql STABLE AS
    'SELECT EXISTS (SELECT 1 FROM public.crew c WHERE c.room_id = room AND c.user_id = auth.uid())';
  CREATE TABLE public.notes (id int PRIMARY KEY, room_id int NOT NULL, body text);
  CREATE TABLE public.others (id int PRIMARY KEY, body text);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY member ON public.notes FOR SELECT TO authenticated USING (public.may_read(room_id));
  GRANT SELECT ON public.crew, public.notes, public.others TO authenticated;
  INSERT INTO public.crew VALUES (1, '${ada}'), (2, '${ada}');
  INSERT INTO public.notes SELECT i, 1 + i % 2, 'body' || i FROM generate_series(1, 6) i;
`
const narrow = `CREATE OR REPLACE FUNCTION public.may_read(room int) RETURNS bool LANGUAGE sql STABLE AS 'SELECT room = 1'`
const leak = `UPDATE public.notes SET body = 'leaked' || id`

beforeAll(async () => {
  server = await LocalPostgres.create({ settings: { fsync: 'off' } })
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, schema, ['crew', 'notes', 'others'])
  await database.query('SET synchronous_commit = local')
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '0' })
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
})

afterEach(async () => {
  await stalled?.[Symbol.asyncDispose]()
  stalled = null
  await database.query(`
    CREATE OR REPLACE FUNCTION public.may_read(room int) RETURNS bool LANGUAGE sql STABLE AS
      'SELECT EXISTS (SELECT 1 FROM public.crew c WHERE c.room_id = room AND c.user_id = auth.uid())';
    ALTER POLICY member ON public.notes USING (public.may_read(room_id));
    UPDATE public.notes SET body = 'body' || id`)
})

const errorOf = (stream: SseStream): { code: string; retry: boolean; retryAfterMs: number } | undefined =>
  stream.events.find(({ event }) => event === 'error')?.data as never

/** Opens until it is accepted and its rows are the SELECT's. */
async function equals(path = '/v1/live/notes', select = 'SELECT * FROM notes'): Promise<LiveSse> {
  const deadline = Date.now() + 30_000
  for (;;) {
    const live = await LiveSse.open(node, path, token)
    await live.stream.waitFor(() => live.rows.exact || live.stream.ended || errorOf(live.stream) !== undefined)
    const wanted = asSet(await selectAs(database, ada, select))
    if (live.rows.exact && asSet(live.rows.list()).join() === wanted.join()) return live
    live.stream.close()
    if (Date.now() > deadline) expect(asSet(live.rows.list())).toEqual(wanted)
    await new Promise(resolve => setTimeout(resolve, 20))
  }
}

/** Resolves with what a new subscription is answered once it is refused. */
async function refusal(): Promise<{ code?: string }> {
  const again = await SseStream.open(node, '/v1/live/notes?id=gt.0', token)
  again.close()
  return again.errorBody
}

test.each([
  ['in its transaction', [narrow, leak]],
  ['in a later one', [narrow]],
] as const)(
  '[P2] a change of policy whose commit no SELECT shows yet: rows written %s are not judged by the old one',
  async (when, statements) => {
    using live = await equals()
    using changes = await SseStream.open(node, '/v1/changes/notes', token)
    // The WAL describes a table with its first change: from here on it gives no reason to look.
    await database.query('UPDATE public.notes SET body = body WHERE id = 1')
    await changes.until(({ event }) => event === 'change')
    stalled = await Stalled.begin(database.url)
    await stalled.commit(...statements)
    if (when === 'in a later one') await database.query(leak)
    for (const stream of [live.stream, changes]) {
      await stream.waitFor(() => errorOf(stream) !== undefined)
      expect(errorOf(stream)).toMatchObject({ code: 'UNAVAILABLE', retry: true })
      expect(errorOf(stream)!.retryAfterMs).toBeGreaterThan(0)
      expect(JSON.stringify(stream.events)).not.toContain('leaked')
    }
    // What SQL shows is the old policy still: nobody is let in by it.
    expect(await refusal()).toMatchObject({ code: 'UNAVAILABLE' })
    await stalled.release()
    using back = await equals()
    expect(back.rows.rows.size).toBe(3)
    expect(JSON.stringify(back.rows.list())).toContain('leaked')
  },
)

test('[P2] [P7] policies that a migration keeps from being read end those they guard, and no neighbour', async () => {
  using live = await equals()
  using neighbour = await equals('/v1/live/others', 'SELECT * FROM others')
  const migration = await TestDatabase.connect(database)
  try {
    await migration.query('BEGIN; LOCK TABLE public.notes IN ACCESS EXCLUSIVE MODE')
    await database.query(narrow)
    await live.stream.waitFor(() => errorOf(live.stream) !== undefined)
    expect(errorOf(live.stream)).toMatchObject({ code: 'UNAVAILABLE', retry: true })
    const id = Date.now() % 1_000_000_000
    await database.query('INSERT INTO others VALUES ($1, $2)', [id, 'x'])
    await neighbour.stream.waitFor(() => neighbour.rows.rows.has(`[${id}]`) || errorOf(neighbour.stream) !== undefined)
    expect([errorOf(neighbour.stream), neighbour.failure, neighbour.rows.resyncs]).toEqual([undefined, null, []])
    await migration.query('ROLLBACK')
  } finally {
    await migration.client.end()
  }
  using back = await equals()
  expect(back.rows.rows.size).toBe(3)
})
