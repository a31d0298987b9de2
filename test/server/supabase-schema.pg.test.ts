// A node beside the schema of a Supabase, which is as their release made it: what their functions insert, and their table's policies.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import { createCatalog } from '../../src/server/authorize/policy-catalog.ts'
import { readChannelAccess } from '../../src/server/channels/guards/guards-access.ts'
import { createLog } from '../../src/server/log/log.ts'
import { createPool } from '../../src/server/postgres/database.ts'
import { ChannelClient, type JoinedChannel } from '../support/channel-client.ts'
import { person, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { makePartitions, makeSupabase } from '../support/supabase-schema.ts'

/** As their guides write them. */
const application = `
  CREATE TABLE public.rooms_users (user_id uuid NOT NULL, room_topic text NOT NULL, PRIMARY KEY (user_id, room_topic));
  ALTER TABLE public.rooms_users ENABLE ROW LEVEL SECURITY;
  GRANT SELECT ON public.rooms_users TO authenticated;
  CREATE POLICY "own" ON public.rooms_users FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY "authenticated can receive broadcast" ON realtime.messages FOR SELECT TO authenticated USING (
    EXISTS (SELECT user_id FROM public.rooms_users WHERE user_id = (SELECT auth.uid()) AND room_topic = (SELECT realtime.topic())
      AND realtime.messages.extension IN ('broadcast')));
  CREATE POLICY "authenticated can send broadcast" ON realtime.messages FOR INSERT TO authenticated WITH CHECK (
    EXISTS (SELECT user_id FROM public.rooms_users WHERE user_id = (SELECT auth.uid()) AND room_topic = (SELECT realtime.topic())
      AND realtime.messages.extension IN ('broadcast')));
  CREATE POLICY "authenticated can listen to presence" ON realtime.messages FOR SELECT TO authenticated USING (
    extension = 'presence' AND (SELECT realtime.topic()) LIKE 'lobby:%');
  CREATE POLICY "authenticated can track presence" ON realtime.messages FOR INSERT TO authenticated WITH CHECK (
    realtime.messages.extension = 'presence' AND (SELECT realtime.topic()) LIKE 'lobby:%');
  CREATE TABLE public.todos (id int PRIMARY KEY, room text NOT NULL, task text);
  CREATE FUNCTION public.tell_todos() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = '' AS $$ BEGIN
    PERFORM realtime.broadcast_changes('room:' || coalesce(NEW.room, OLD.room), TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD);
    RETURN NULL;
  END $$;
  CREATE TRIGGER tell_todos AFTER INSERT OR UPDATE OR DELETE ON public.todos FOR EACH ROW EXECUTE FUNCTION public.tell_todos();
`

let database: TestDatabase
let node: TestNode
const [ann, bob] = [person(), person()]

beforeAll(async () => {
  database = await TestDatabase.create()
  await makeSupabase(database)
  await database.query(application)
  const options = { databaseUrl: database.url, adminUrl: database.url, name: 'tidegate' }
  await migrate(options, { write: () => true })
  await track({ ...options, tables: ['public.rooms_users'] }, { write: () => true })
  await database.query(
    `INSERT INTO rooms_users VALUES ('${ann}', 'room:1'), ('${ann}', 'room:2'), ('${bob}', 'room:1')`,
  )
  node = await TestNode.start(database.url, { CHANNELS: JSON.stringify([{ pattern: 'news', public: true }]) })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const open = async (sub: string): Promise<ChannelClient> => ChannelClient.open(node, await tokenFor(sub))

/** Waits for so many messages more, and gives them. */
async function said(channel: JoinedChannel, count: number, act: () => Promise<unknown>) {
  const before = channel.messages.length
  await act()
  await channel.waitFor(() => channel.messages.length >= before + count)
  return channel.messages
    .slice(before)
    .map(({ event, payload, binary }) => (binary === undefined ? { event, payload } : { event, binary }))
}

describe('what their functions insert arrives as broadcasts', () => {
  test('sent, of bytes, and from a trigger; private and public apart; in the order of the transaction', async () => {
    using client = await open(ann)
    const room = await client.join('room:1')
    const news = await client.join('news', { private: false })
    expect(
      await said(room, 5, () =>
        database.query(`BEGIN; SELECT realtime.send('{"n": 1}', 'first', 'room:1'); SELECT realtime.send('{"n": 2}', 'public', 'news', false);
          INSERT INTO todos VALUES (1, '1', 'a'); UPDATE todos SET task = 'b'; DELETE FROM todos;
          SELECT realtime.send_binary('\\x6869', 'bytes', 'room:1'); COMMIT`),
      ),
    ).toEqual([
      { event: 'first', payload: { n: 1, id: expect.any(String) } },
      ...[
        { operation: 'INSERT', record: { id: 1, room: '1', task: 'a' }, old_record: null },
        { operation: 'UPDATE', record: { id: 1, room: '1', task: 'b' }, old_record: { id: 1, room: '1', task: 'a' } },
        { operation: 'DELETE', record: null, old_record: { id: 1, room: '1', task: 'b' } },
      ].map(row => ({
        event: row.operation,
        payload: { ...row, table: 'todos', schema: 'public', id: expect.any(String) },
      })),
      { event: 'bytes', binary: Buffer.from('hi').toString('base64') },
    ])
    await news.waitFor(() => news.messages.length > 0)
    expect(news.messages.map(({ event, payload }) => [event, payload])).toEqual([
      ['public', { n: 2, id: expect.any(String) }],
    ])
  })

  test('also into a partition that was made while the node ran', async () => {
    using client = await open(ann)
    const room = await client.join('room:1')
    await makePartitions(database, 9, 9)
    expect(
      await said(room, 1, () =>
        database.query(`INSERT INTO realtime.messages (topic, extension, event, payload, private, inserted_at)
          VALUES ('room:1', 'broadcast', 'later', '{"n": 3}', true, timezone('UTC', now()) + interval '9 days')`),
      ),
    ).toEqual([{ event: 'later', payload: { n: 3 } }])
  })

  test('without a partition theirs loses it with a warning, and what was sent before and after arrives', async () => {
    using client = await open(ann)
    const room = await client.join('room:1')
    const [today] = await database.query<{ name: string }>(
      `SELECT to_char(timezone('UTC', now()), '"realtime.messages_"YYYY_MM_DD') AS name`,
    )
    const heard = await said(room, 2, async () => {
      await database.query(`SELECT realtime.send('{}', 'before', 'room:1')`)
      await database.query(`DROP TABLE ${today!.name}`)
      await database.query(`SELECT realtime.send('{}', 'lost', 'room:1')`)
      await makePartitions(database, 0, 0)
      await database.query(`SELECT realtime.send('{}', 'after', 'room:1')`)
    })
    expect(heard.map(({ event }) => event)).toEqual(['before', 'after'])
  })
})

describe("their table's policies", () => {
  test('are compiled: nothing is asked of Postgres', async () => {
    const pool = createPool(database.url, { maxConnections: 1 })
    const log = createLog('silent')
    const catalog = createCatalog({ pool, publication: 'tidegate', log })
    const { deciding } = await readChannelAccess(catalog, 'authenticated', log)
    expect([deciding.receive.by, deciding.send.by]).toEqual(['memberships', 'memberships'])
    await pool.end()
  })

  test('[P2] decide who is in, by topic, who sends, and apart from it who is present', async () => {
    using a = await open(ann)
    using b = await open(bob)
    const [inA, inB] = [await a.join('room:1'), await b.join('room:1')]
    await expect(b.join('room:2')).rejects.toMatchObject({ code: 'CHANNEL_REFUSED' })
    await inA.send('typing', { on: true })
    await inB.waitFor(() => inB.messages.some(({ event }) => event === 'typing'))
    await expect(inA.track({ here: true })).rejects.toMatchObject({ code: 'SEND_REFUSED' })
    const lobby = await b.join('lobby:1')
    await lobby.track({ here: true })
    await expect(lobby.send('typing', {})).rejects.toMatchObject({ code: 'SEND_REFUSED' })
  })
})
