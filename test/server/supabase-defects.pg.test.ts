// What Supabase's Realtime gives away or loses, on the schema that it is installed in, and what is given here in the same case. Each test
// is named after the defect.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import type { ChangeEvent } from '../../src/protocol/messages.ts'
import { ChannelClient } from '../support/channel-client.ts'
import { FaultyLink } from '../support/faulty-link.ts'
import { LiveSse, person, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader } from '../support/readers.ts'
import { makeSupabase } from '../support/supabase-schema.ts'

/** With what their guides tell to do for old rows: REPLICA IDENTITY FULL. `pin` is nobody's to read. */
const application = `
  CREATE TABLE public.notes (id int PRIMARY KEY, owner uuid NOT NULL, secret text, pin text);
  ALTER TABLE public.notes REPLICA IDENTITY FULL;
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY "own" ON public.notes FOR SELECT TO authenticated USING ((SELECT auth.uid()) = owner);
  GRANT SELECT (id, owner, secret) ON public.notes TO authenticated;
  CREATE TABLE public.members (room text NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room, user_id));
  CREATE TABLE public.posts (id int PRIMARY KEY, room text NOT NULL, body text);
  ALTER TABLE public.posts REPLICA IDENTITY FULL;
  ALTER TABLE public.members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.posts ENABLE ROW LEVEL SECURITY;
  CREATE POLICY "own" ON public.members FOR SELECT TO authenticated USING ((SELECT auth.uid()) = user_id);
  CREATE POLICY "members read" ON public.posts FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room = posts.room AND m.user_id = (SELECT auth.uid())));
  GRANT SELECT ON public.members, public.posts TO authenticated;
  CREATE POLICY "members receive" ON realtime.messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room = (SELECT realtime.topic()) AND m.user_id = (SELECT auth.uid())));
  CREATE POLICY "members send" ON realtime.messages FOR INSERT TO authenticated WITH CHECK (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room = (SELECT realtime.topic()) AND m.user_id = (SELECT auth.uid())));
  ALTER PUBLICATION supabase_realtime ADD TABLE public.notes, public.posts;
`

let database: TestDatabase
let link: FaultyLink
let node: TestNode
const [alice, bob] = [person(), person()]
let aliceToken: string
let bobToken: string
const tables = ['public.notes', 'public.posts', 'public.members']
const silent = { write: () => true }

beforeAll(async () => {
  database = await TestDatabase.create()
  await makeSupabase(database)
  await database.query(application)
  const options = { databaseUrl: database.url, adminUrl: database.url, name: 'tidegate' }
  await migrate(options, silent)
  await track({ ...options, tables }, silent)
  link = await FaultyLink.to(database.url)
  node = await TestNode.start(link.url)
  aliceToken = await tokenFor(alice)
  bobToken = await tokenFor(bob)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await link?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

let nextId = 1000

beforeEach(async () => {
  nextId = 1000
  await database.query(`TRUNCATE notes, posts, members; INSERT INTO notes VALUES (1, '${bob}', 'bob-private', '1234'), (2, '${alice}', 'hers', '5678');
    INSERT INTO members VALUES ('room:1', '${alice}'), ('room:1', '${bob}'); INSERT INTO posts VALUES (1, 'room:1', 'hello')`)
  await passed()
})

/** Waits until the node has passed everything committed so far. */
async function passed(): Promise<void> {
  const [row] = await database.query<{ txid: string }>(
    `INSERT INTO members VALUES ('nowhere', gen_random_uuid()) RETURNING pg_current_xact_id()::text AS txid`,
  )
  const response = await fetch(`${node.url}/v1/wait`, {
    method: 'POST',
    headers: { authorization: `Bearer ${aliceToken}` },
    body: JSON.stringify(row),
  })
  expect(response.status).toBe(200)
}

const open = async (token: string, table: string, query = ''): Promise<SseStream> => {
  const stream = await SseStream.open(node, `/v1/changes/${table}${query}`, token)
  expect(stream.errorBody).toEqual({})
  await stream.until(({ event }) => event === 'subscribed')
  return stream
}

const told = (stream: SseStream): ChangeEvent[] =>
  stream.events.filter(({ event }) => event === 'change').map(({ data }) => data as ChangeEvent)

type Short = Pick<ChangeEvent, 'op' | 'key' | 'old' | 'new'>

/** All that each was told, once a note that is theirs has come behind it. */
async function settled(...readers: readonly (readonly [stream: SseStream, owner: string])[]): Promise<Short[][]> {
  return await Promise.all(
    readers.map(async ([stream, owner]) => {
      nextId += 1
      const id = nextId
      await database.query(`INSERT INTO notes VALUES (${id}, '${owner}', 'bob-private: the end', '')`)
      await stream.until(({ event, data }) => event === 'change' && (data as ChangeEvent).key?.id === id)
      return told(stream)
        .filter(({ key }) => (key?.id as number) < 1000)
        .map(({ op, key, old, new: next }) => ({
          op,
          ...(key === undefined ? {} : { key }),
          ...(old === undefined ? {} : { old }),
          ...(next === undefined ? {} : { new: next }),
        }))
    }),
  )
}

const note = (id: number, owner: string, secret: string) => ({ id, owner, secret })

test('[P2] defect 1, an UPDATE leaks the old row: whoever gets the row by it is told of an insert, and nothing of what it was', async () => {
  using atAlice = await open(aliceToken, 'notes')
  using atBob = await open(bobToken, 'notes')
  await database.query(`UPDATE notes SET owner = '${alice}', secret = 'for alice' WHERE id = 1`)
  const [toAlice, toBob] = await settled([atAlice, alice], [atBob, bob])
  expect(toAlice).toEqual([{ op: 'insert', key: { id: 1 }, new: note(1, alice, 'for alice') }])
  expect(toBob).toEqual([{ op: 'delete', key: { id: 1 }, old: note(1, bob, 'bob-private') }])
  const raw = JSON.stringify(atAlice.events)
  expect([raw.includes(bob), /bob-private"|1234|5678/.test(raw)]).toEqual([false, false])
  expect(JSON.stringify(atBob.events)).not.toContain('for alice')
})

/** Nothing comes out of the WAL meanwhile, as when a poller is late. */
async function whileLate(act: () => Promise<unknown>): Promise<void> {
  link.freeze(['down'], opening => opening.includes('replication'))
  try {
    await act()
  } finally {
    link.thaw()
  }
}

test('[P2] [P3] defect 2, rows are judged as they are now: a version that waits is judged by what it was, and none is left out', async () => {
  using atAlice = await open(aliceToken, 'notes')
  using atBob = await open(bobToken, 'notes')
  await whileLate(async () => {
    await database.query(`UPDATE notes SET secret = 'bob-private, second' WHERE id = 1`)
    await database.query(`INSERT INTO notes VALUES (3, '${alice}', 'short-lived', '')`)
    await database.query('DELETE FROM notes WHERE id = 3')
    await database.query(`UPDATE notes SET owner = '${alice}', secret = 'for alice' WHERE id = 1`)
    await database.query(`UPDATE notes SET owner = '${bob}' WHERE id = 2`)
    expect([told(atAlice), told(atBob)]).toEqual([[], []])
  })
  const [toAlice, toBob] = await settled([atAlice, alice], [atBob, bob])
  expect(toAlice).toEqual([
    { op: 'insert', key: { id: 3 }, new: note(3, alice, 'short-lived') },
    { op: 'delete', key: { id: 3 }, old: note(3, alice, 'short-lived') },
    { op: 'insert', key: { id: 1 }, new: note(1, alice, 'for alice') },
    { op: 'delete', key: { id: 2 }, old: note(2, alice, 'hers') },
  ])
  expect(toBob).toEqual([
    { op: 'update', key: { id: 1 }, old: note(1, bob, 'bob-private'), new: note(1, bob, 'bob-private, second') },
    { op: 'delete', key: { id: 1 }, old: note(1, bob, 'bob-private, second') },
    { op: 'insert', key: { id: 2 }, new: note(2, bob, 'hers') },
  ])
})

test('[P2] [P4] defect 2, for one who was away: what comes behind their position is judged by each commit too', async () => {
  const reader = new Reader('websocket', 'changes', 'notes', aliceToken)
  await reader.come(node)
  await database.query(`UPDATE notes SET secret = 'seen' WHERE id = 2`)
  await reader.until(() => reader.changes.length === 1)
  await reader.leave()
  await database.query(`UPDATE notes SET secret = 'bob-private, second' WHERE id = 1`)
  await database.query(`UPDATE notes SET owner = '${alice}', secret = 'for alice' WHERE id = 1`)
  await database.query(`UPDATE notes SET owner = '${bob}' WHERE id = 2`)
  await reader.come(node)
  await reader.until(() => reader.changes.length === 3)
  await reader.leave()
  expect(reader.resyncs).toEqual([])
  expect(reader.changes.slice(1).map(({ op, old, new: next }) => [op, old, next])).toEqual([
    ['insert', undefined, note(1, alice, 'for alice')],
    ['delete', note(2, alice, 'seen'), undefined],
  ])
})

test('[P2] defect 3, a DELETE goes to everybody: only to whoever could see the row, and whole', async () => {
  using atAlice = await open(aliceToken, 'notes')
  using atBob = await open(bobToken, 'notes')
  await database.query('DELETE FROM notes WHERE id IN (1, 2)')
  const [toAlice, toBob] = await settled([atAlice, alice], [atBob, bob])
  expect(toAlice).toEqual([{ op: 'delete', key: { id: 2 }, old: note(2, alice, 'hers') }])
  expect(toBob).toEqual([{ op: 'delete', key: { id: 1 }, old: note(1, bob, 'bob-private') }])
})

test('[P2] defect 3, a filter is an oracle: it tells nothing of rows that one may not see, and a column that one may not read takes none', async () => {
  using guessing = await open(aliceToken, 'notes', '?secret=like.bob-priv*')
  using atBob = await open(bobToken, 'notes', '?secret=like.bob-priv*')
  await database.query('DELETE FROM notes WHERE id = 1')
  const [toAlice, toBob] = await settled([guessing, alice], [atBob, bob])
  expect(toAlice).toEqual([])
  expect(toBob).toEqual([{ op: 'delete', key: { id: 1 }, old: note(1, bob, 'bob-private') }])
  for (const filter of ['pin=like.1*', 'pin=eq.1234', 'pin=is.null']) {
    using refused = await SseStream.open(node, `/v1/changes/notes?${filter}`, aliceToken)
    expect([refused.status, refused.errorBody.code]).toEqual([400, 'COLUMN_UNKNOWN'])
  }
})

test('[P2] defect 4, an UPDATE that makes a row invisible says nothing: it is told as a delete, and a live query drops it', async () => {
  using atAlice = await open(aliceToken, 'notes')
  using live = await LiveSse.open(node, '/v1/live/notes', aliceToken)
  await live.exact()
  expect(live.rows.list()).toEqual([note(2, alice, 'hers')])
  await database.query(`UPDATE notes SET owner = '${bob}', secret = 'bob-private now' WHERE id = 2`)
  const [toAlice] = await settled([atAlice, alice])
  expect(toAlice).toEqual([{ op: 'delete', key: { id: 2 }, old: note(2, alice, 'hers') }])
  await live.stream.waitFor(() => !live.rows.list().some(({ id }) => id === 2))
  expect(live.failure).toBeNull()
  expect(JSON.stringify([atAlice.events, live.stream.events])).not.toMatch(/bob-private now/)
})

test('[P6] defect 5, claims lie in a table: those of whoever is connected are nowhere in the database', async () => {
  const marked = await tokenFor(alice, { app_metadata: { mark: 'a claim that is hers alone' } })
  using stream = await open(marked, 'notes')
  using client = await ChannelClient.open(node, marked)
  await client.join('room:1')
  await settled([stream, alice])
  expect(await tablesHolding('hers alone')).toEqual([])
  // As theirs does.
  await database.query(`INSERT INTO realtime.subscription (subscription_id, entity, claims)
    VALUES (gen_random_uuid(), 'public.notes', '{"role": "authenticated", "mark": "hers alone"}')`)
  expect(await tablesHolding('hers alone')).toEqual(['realtime.subscription'])
  await database.query('TRUNCATE realtime.subscription')
})

/** Of the schemas auth, realtime and tidegate: those with a row in which the text stands. */
async function tablesHolding(text: string): Promise<string[]> {
  const tables = await database.query<{ name: string }>(
    `SELECT oid::regclass::text AS name FROM pg_class WHERE relkind = 'r' AND relnamespace::regnamespace::text IN ('auth', 'realtime', 'tidegate')`,
  )
  const holding = []
  for (const { name } of tables) {
    const rows = await database.query(`SELECT FROM ${name} t WHERE t::text LIKE $1 LIMIT 1`, [`%${text}%`])
    if (rows.length > 0) holding.push(name)
  }
  return holding
}

test('[P2] [P4] defect 8, a refused write is silent: from SQL it fails, and leaves nothing; from a client it is answered', async () => {
  using atBob = await ChannelClient.open(node, bobToken)
  const room = await atBob.join('room:1')
  using stranger = await ChannelClient.open(node, await tokenFor(person()))
  await expect(stranger.join('room:1')).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })

  const asNobody = `BEGIN; SELECT set_config('request.jwt.claims', '{"role": "authenticated", "sub": "${person()}"}', true);
    SET LOCAL ROLE authenticated`
  const sent = `SELECT realtime.send('{}', 'forged', 'room:1')`
  // Theirs: the warning is the session's own, and its transaction commits without the message.
  await database.query(`${asNobody}; ${sent}; COMMIT`)
  const options = { databaseUrl: database.url, adminUrl: database.url, name: 'tidegate' }
  await migrate({ ...options, adoptRealtime: true }, silent)
  await database.query(asNobody)
  await expect(database.query(sent)).rejects.toMatchObject({
    code: '42501',
    message: expect.stringContaining('row-level security policy for table "messages"'),
  })
  await database.query('ROLLBACK')
  await database.query(`SELECT realtime.send('{}', 'last', 'room:1')`)
  await room.waitFor(() => room.messages.length > 0)
  expect(room.messages.map(({ event }) => event)).toEqual(['last'])
})

test('[P3] defect 9, a membership that is taken away stands until the next token: it ends with its commit, on a channel and on rows', async () => {
  using atBob = await ChannelClient.open(node, bobToken)
  using atAlice = await ChannelClient.open(node, aliceToken)
  const [bobs, alices] = [await atBob.join('room:1'), await atAlice.join('room:1')]
  using posts = await open(bobToken, 'posts')
  using all = await open(aliceToken, 'posts')
  using live = await LiveSse.open(node, '/v1/live/posts', bobToken)
  await live.exact()
  await database.query(`INSERT INTO posts VALUES (2, 'room:1', 'still there')`)
  await database.query(`BEGIN; DELETE FROM members WHERE user_id = '${bob}'; INSERT INTO posts VALUES (3, 'room:1', 'behind his back');
    SELECT realtime.send('{"n": 1}', 'said', 'room:1'); COMMIT`)
  await database.query(`UPDATE posts SET body = 'and later' WHERE id = 1`)
  await bobs.waitFor(() => bobs.ended !== null)
  expect(bobs.told).toEqual([{ kind: 'error', code: 'CHANNEL_CLOSED', retryAfterMs: undefined }])
  await alices.waitFor(() => alices.messages.length === 1)
  await all.waitFor(() => told(all).length === 3)
  await live.stream.waitFor(() => live.rows.list().length === 0)
  // Back in, he is told of what comes from then on.
  await database.query(`INSERT INTO members VALUES ('room:1', '${bob}')`)
  await database.query(`INSERT INTO posts VALUES (4, 'room:1', 'welcome back')`)
  await posts.waitFor(() => told(posts).length === 2)
  expect(told(posts).map(({ op, new: next }) => [op, next?.body])).toEqual([
    ['insert', 'still there'],
    ['insert', 'welcome back'],
  ])
  await live.stream.waitFor(() => live.rows.list().length === 4)
  expect(live.failure).toBeNull()
})
