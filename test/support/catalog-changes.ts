// The catalog changes under open subscriptions: nothing more is sent than the new rules allow; who may go on goes on in place
// and equals the SELECT, who may not is told why, and other tables notice nothing. Run where an event trigger announces the
// changes, and where they are polled for.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { ChangeEvent, JsonRow } from '../../src/protocol/messages.ts'
import { asSet, LiveSse, person, prepareDatabase, SseStream, selectAs, TestNode, tokenFor } from './node.ts'
import { TestDatabase } from './postgres.ts'
import { expectWithin } from './within.ts'

let database: TestDatabase
let node: TestNode
let token: string
let neighbour: LiveSse
const [ada, ben] = [person(), person()]
const login = `door_${process.pid}`
const group = `group_${process.pid}`

/** What a test breaks is its own: `notes_3`, `crew_3`. Of those before it the catalog may still be remembered. */
let round = 0
const own = (text: string): string =>
  text.replaceAll(/\b(notes|crew|may_read|renamed|renamed_crew|notes_pkey)\b/g, word =>
    word === 'notes_pkey' ? `notes_${round}_pkey` : `${word}_${round}`,
  )
const run = (sql: string) => database.query(own(sql))

const schema = `
  CREATE TABLE public.crew (room_id int, user_id uuid, extra text, PRIMARY KEY (room_id, user_id));
  CREATE OR REPLACE FUNCTION public.may_read(room int) RETURNS bool LANGUAGE sql STABLE SET search_path = '' AS
    'SELECT EXISTS (SELECT 1 FROM public.crew c WHERE c.room_id = room AND c.user_id = auth.uid())';
  CREATE TABLE public.notes (id int PRIMARY KEY, secret text, room_id int NOT NULL, body text, n int);
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY member ON public.notes FOR SELECT TO authenticated USING (public.may_read(room_id));
  GRANT SELECT ON public.crew TO authenticated, ${login};
  GRANT SELECT (id, room_id, body, n) ON public.notes TO authenticated;
  GRANT SELECT ON public.notes TO ${login};
  ALTER PUBLICATION tidegate ADD TABLE public.notes, public.crew;
  ALTER TABLE public.notes REPLICA IDENTITY FULL; ALTER TABLE public.crew REPLICA IDENTITY FULL;
  INSERT INTO public.crew VALUES (1, '${ada}', 'x'), (2, '${ben}', 'y');
  INSERT INTO public.notes SELECT i, 'secret' || i, 1 + i % 2, 'body' || i, i FROM generate_series(1, 6) i;
`

/** Opens until it is accepted: after the tables were made anew the catalog is a second behind. */
async function open(path: string): Promise<LiveSse> {
  const deadline = Date.now() + 5000
  for (;;) {
    const live = await LiveSse.open(node, own(path), token)
    await live.stream.waitFor(() => live.rows.exact || live.stream.ended || errorOf(live.stream) !== null)
    if (live.rows.exact) return live
    if (Date.now() > deadline)
      throw new Error(`refused: ${JSON.stringify(live.stream.errorBody)} ${JSON.stringify(errorOf(live.stream))}`)
    live.stream.close()
  }
}

const errorOf = (stream: SseStream): { code: string; message: string } | null =>
  (stream.events.find(({ event }) => event === 'error')?.data as { code: string; message: string }) ?? null

async function neighbourIsUntouched(): Promise<void> {
  const id = 1 + neighbour.rows.rows.size
  await database.query('INSERT INTO apart.others VALUES ($1, $2)', [id, 'x'])
  await neighbour.stream.waitFor(() => neighbour.rows.rows.has(`[${id}]`) || neighbour.failure !== null)
  expect(neighbour.failure).toBe(null)
  expect(neighbour.rows.resyncs).toEqual([])
  expect(errorOf(neighbour.stream)).toBe(null)
}

interface Case {
  readonly name: string
  readonly sql: string
  /** What Ada may not be told any more, written right after the change. Where changes are polled for it is kept from her only
   *  if the WAL describes the table anew, as it does after most commands on it. */
  readonly leak?: string
  readonly leakIfAnnounced?: string
  /** `goes on`, or the code with which it ends. */
  readonly told: string
  readonly select?: string
}

const leak = `UPDATE public.notes SET body = 'leaked' || id`

const cases: readonly Case[] = [
  {
    name: 'ALTER POLICY narrows',
    sql: 'ALTER POLICY member ON public.notes USING (public.may_read(room_id) AND n > 100)',
    leak,
    told: 'goes on',
  },
  {
    name: 'CREATE POLICY restricts',
    sql: 'CREATE POLICY few ON public.notes AS RESTRICTIVE FOR SELECT USING (n > 100)',
    leak,
    told: 'goes on',
  },
  {
    name: 'CREATE POLICY widens',
    sql: 'CREATE POLICY all_of_n ON public.notes FOR SELECT USING (n < 4)',
    told: 'goes on',
  },
  { name: 'DROP POLICY', sql: 'DROP POLICY member ON public.notes', leak, told: 'goes on' },
  {
    name: 'ALTER POLICY to another role',
    sql: `ALTER POLICY member ON public.notes TO ${group}`,
    leak,
    told: 'goes on',
  },
  { name: 'DISABLE ROW LEVEL SECURITY', sql: 'ALTER TABLE public.notes DISABLE ROW LEVEL SECURITY', told: 'goes on' },
  {
    name: 'REVOKE on the table',
    sql: 'REVOKE SELECT ON public.notes FROM authenticated',
    leak,
    told: 'TABLE_REFUSED',
  },
  {
    name: 'REVOKE on a column',
    sql: 'REVOKE SELECT (body) ON public.notes FROM authenticated',
    leak,
    told: 'goes on',
    select: 'SELECT id, room_id, n FROM notes',
  },
  {
    name: 'REVOKE on the key',
    sql: 'REVOKE SELECT (id) ON public.notes FROM authenticated',
    leak,
    told: 'KEY_NOT_READABLE',
  },
  {
    name: 'GRANT on a column',
    sql: 'GRANT SELECT (secret) ON public.notes TO authenticated',
    told: 'goes on',
    select: 'SELECT * FROM notes',
  },
  {
    name: 'REVOKE on the membership table',
    sql: 'REVOKE SELECT ON public.crew FROM authenticated',
    leak,
    told: 'TABLE_REFUSED',
  },
  {
    name: 'REVOKE of the schema',
    leakIfAnnounced: leak,
    sql: 'REVOKE USAGE ON SCHEMA public FROM authenticated, PUBLIC',
    told: 'TABLE_REFUSED',
  },
  {
    // Granting a role fires no event trigger.
    name: 'the role taken from the login',
    sql: `REVOKE authenticated FROM ${login}`,
    told: 'ROLE_REFUSED',
  },
  {
    name: 'a helper function replaced',
    leakIfAnnounced: leak,
    sql: `CREATE OR REPLACE FUNCTION public.may_read(room int) RETURNS bool LANGUAGE sql STABLE SET search_path = '' AS
      'SELECT EXISTS (SELECT 1 FROM public.crew c WHERE c.room_id = room AND c.user_id = auth.uid() AND c.extra = ''z'')'`,
    told: 'goes on',
  },
  {
    name: 'a helper function replaced by one that Postgres must be asked for',
    leakIfAnnounced: leak,
    sql: `CREATE OR REPLACE FUNCTION public.may_read(room int) RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN false; END'`,
    told: 'goes on',
  },
  { name: 'ADD COLUMN', sql: 'ALTER TABLE public.notes ADD COLUMN more text DEFAULT 5', told: 'goes on' },
  {
    name: 'DROP COLUMN',
    sql: 'ALTER TABLE public.notes DROP COLUMN body',
    told: 'goes on',
    select: 'SELECT id, room_id, n FROM notes',
  },
  {
    name: 'RENAME COLUMN',
    sql: 'ALTER TABLE public.notes RENAME COLUMN body TO text',
    told: 'goes on',
    select: 'SELECT id, room_id, text, n FROM notes',
  },
  {
    name: 'ALTER COLUMN TYPE',
    sql: `ALTER TABLE public.notes ALTER COLUMN n TYPE text USING 'n' || n`,
    told: 'goes on',
  },
  { name: 'ADD COLUMN to the membership table', sql: 'ALTER TABLE public.crew ADD COLUMN more text', told: 'goes on' },
  { name: 'DROP COLUMN of the membership table', sql: 'ALTER TABLE public.crew DROP COLUMN extra', told: 'goes on' },
  {
    name: 'RENAME of the membership table',
    sql: `ALTER TABLE public.crew RENAME TO renamed_crew; CREATE TABLE public.crew (room_id int, user_id uuid, PRIMARY KEY (room_id, user_id));
      ALTER TABLE public.crew REPLICA IDENTITY FULL; ALTER PUBLICATION tidegate ADD TABLE public.crew; GRANT SELECT ON public.crew TO authenticated, ${login}`,
    leak,
    told: 'goes on',
  },
  { name: 'DROP TABLE', sql: 'DROP TABLE public.notes', told: 'TABLE_UNKNOWN' },
  {
    name: 'RENAME TABLE',
    sql: 'ALTER TABLE public.notes RENAME TO renamed',
    told: 'TABLE_UNKNOWN',
  },
  {
    name: 'untracked',
    sql: 'ALTER PUBLICATION tidegate DROP TABLE public.notes',
    told: 'TABLE_UNKNOWN',
  },
  {
    name: 'the membership table untracked',
    sql: 'ALTER PUBLICATION tidegate DROP TABLE public.crew',
    told: 'POLICY_UNSUPPORTED',
  },
  {
    name: 'the replica identity lowered',
    sql: 'ALTER TABLE public.notes REPLICA IDENTITY DEFAULT',
    leak,
    told: 'IDENTITY_INSUFFICIENT',
  },
  {
    name: 'the primary key dropped',
    sql: 'ALTER TABLE public.notes DROP CONSTRAINT notes_pkey',
    told: 'NO_PRIMARY_KEY',
  },
  {
    name: 'made unlogged',
    sql: 'ALTER PUBLICATION tidegate DROP TABLE public.notes; ALTER TABLE public.notes SET UNLOGGED',
    told: 'TABLE_UNSUPPORTED',
  },
]

/** @param isAnnounced whether the stream tells of each change at its commit */
export function testCatalogChanges(isAnnounced: boolean): void {
  beforeAll(async () => {
    database = await TestDatabase.create()
    const settled = `CREATE SCHEMA apart; CREATE TABLE apart.others (id int PRIMARY KEY, body text);
      GRANT USAGE ON SCHEMA apart TO anon; GRANT SELECT ON apart.others TO anon`
    await prepareDatabase(database, settled, ['apart.others'])
    await database.query(`
      CREATE ROLE ${login} LOGIN REPLICATION BYPASSRLS PASSWORD 'p'; CREATE ROLE ${group};
      GRANT anon, authenticated TO ${login};
      GRANT USAGE ON SCHEMA tidegate TO ${login}; GRANT SELECT, DELETE ON tidegate.orders TO ${login}; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA tidegate TO ${login}`)
    if (isAnnounced) await database.query(`GRANT SELECT ON tidegate.catalog_key TO ${login}`)
    else await database.query('DROP EVENT TRIGGER tidegate_announce; DROP EVENT TRIGGER tidegate_announce_drop')
    node = await TestNode.start(database.urlFor(login, 'p'))
    token = await tokenFor(ada)
    neighbour = await (await LiveSse.open(node, '/v1/live/apart.others', await tokenFor(ben, { role: 'anon' }))).exact()
  })

  afterAll(async () => {
    neighbour?.stream.close()
    await node?.[Symbol.asyncDispose]()
    await database?.query(`DROP OWNED BY ${login}, ${group}; DROP ROLE ${login}; DROP ROLE ${group}`)
    await database?.[Symbol.asyncDispose]()
  })

  beforeEach(async () => {
    round += 1
    await run(schema)
  })

  const moments = isAnnounced ? (['after it', 'in its transaction'] as const) : (['after it'] as const)
  const all = moments.flatMap(moment =>
    cases
      // VACUUM and what alters a publication twice aside, every command may stand in a transaction.
      .filter(({ leak, leakIfAnnounced }) => moment === 'after it' || (leak ?? leakIfAnnounced) !== undefined)
      .map(each => ({ ...each, moment })),
  )

  test.each(all)('[P2] $name: rows written $moment', async ({ moment, sql, leak, leakIfAnnounced, told, select }) => {
    const path = '/v1/live/notes'
    using live = await open(path)
    using changes = await SseStream.open(node, own('/v1/changes/notes'), token)
    expect(live.rows.rows.size).toBe(3)
    // The WAL describes a table with its first change: from here on, only for a reason.
    if (isAnnounced) {
      await run('UPDATE public.notes SET n = n + 0 WHERE room_id = 1; UPDATE public.crew SET extra = extra')
      await changes.waitFor(() => changes.events.filter(({ event }) => event === 'change').length === 3)
    }
    const written = leak ?? (isAnnounced ? leakIfAnnounced : undefined)
    try {
      if (moment === 'in its transaction') await run(`BEGIN; ${sql}; ${written}; COMMIT`)
      else {
        await run(sql)
        // A row written after the change is judged by the change, not by what was known before it.
        if (written !== undefined) await run(written)
      }
      const startedAt = performance.now()
      await Promise.all([live.stream, changes].map(stream => stream.waitFor(() => wasTold(stream), 4000)))
      expectWithin(performance.now() - startedAt, 2000)
      if (told === 'goes on') await goOn(live, changes, select ?? 'SELECT id, room_id, body, n FROM notes')
      else {
        expect([errorOf(live.stream)?.code, errorOf(changes)?.code]).toEqual([told, told])
        const again = await SseStream.open(node, own(path), token)
        expect(again.errorBody.code ?? again.status).toBe(told)
      }
      if (written !== undefined)
        for (const { events } of [live.stream, changes]) expect(JSON.stringify(events)).not.toContain('leaked')
      await neighbourIsUntouched()
    } finally {
      await database.query(`GRANT authenticated TO ${login}; GRANT USAGE ON SCHEMA public TO authenticated, PUBLIC`)
    }
  })
}

/** It ended, or goes on by the new rules. */
const wasTold = (stream: SseStream): boolean =>
  errorOf(stream) !== null || stream.events.filter(({ event }) => event === 'subscribed').length > 1

/** Both go on in the same stream, by the new rules and no others. */
async function goOn(live: LiveSse, changes: SseStream, select: string): Promise<void> {
  const seen = async (): Promise<JsonRow[]> => selectAs(database, ada, own(select))
  const equals = async (stream: LiveSse): Promise<void> => {
    const wanted = asSet(await seen())
    const isThere = (): boolean => stream.rows.exact && asSet(stream.rows.list()).join() === wanted.join()
    await stream.stream.waitFor(() => isThere() || stream.failure !== null || errorOf(stream.stream) !== null)
    expect([stream.failure, errorOf(stream.stream)]).toEqual([null, null])
  }
  await equals(live)
  expect(live.rows.resyncs).toEqual(['POLICY_CHANGED'])
  const before = changes.events.length
  const old = await seen()
  await run('UPDATE public.notes SET room_id = 3 - room_id')
  await equals(live)
  const ids = new Set([...old, ...(await seen())].map(({ id }) => id))
  const told = (): unknown[] =>
    changes.events
      .slice(before)
      .flatMap(({ event, data }) => (event === 'change' ? [(data as ChangeEvent).key!.id] : []))
  await changes.waitFor(() => told().length >= ids.size || errorOf(changes) !== null)
  expect(new Set(told())).toEqual(ids)
  expect(told().length).toBe(ids.size)
  // So does who comes back from where it stood.
  using back = await LiveSse.open(node, own('/v1/live/notes'), token, live)
  await equals(back)
}
