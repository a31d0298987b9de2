// The functions that send from SQL.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { ChannelDatabase, payloadOf } from './sql.ts'

let channels: ChannelDatabase

beforeAll(async () => {
  channels = await ChannelDatabase.create()
  await channels.database.query(`
    CREATE TABLE public.members (room text, name text, PRIMARY KEY (room, name));
    CREATE TABLE public.audit (topic text, n int);
    GRANT SELECT ON public.members TO authenticated; GRANT INSERT, SELECT ON public.audit TO authenticated;
    INSERT INTO public.members VALUES ('room:1', 'ada');
    CREATE FUNCTION public.is_member() RETURNS boolean LANGUAGE plpgsql STABLE AS $$ BEGIN
      RETURN EXISTS (SELECT FROM members WHERE room = realtime.topic() AND name = current_setting('test.name', true)); END $$;
    CREATE POLICY members_send ON realtime.messages FOR INSERT TO authenticated
      WITH CHECK (extension = 'broadcast' AND private AND is_member());`)
})

afterAll(async () => {
  await channels[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await channels.capture.commits()
})

const asAda = `SET LOCAL ROLE authenticated; SET LOCAL test.name = 'ada'`

async function refusal(...statements: string[]): Promise<{ code?: string; message?: string }> {
  try {
    await channels.database.query('BEGIN')
    for (const statement of statements) await channels.database.query(statement)
    await channels.database.query('COMMIT')
    return {}
  } catch (error) {
    await channels.database.query('ROLLBACK')
    return error as { code: string; message: string }
  }
}

test('[P2] an INSERT policy decides for SQL too: a refused send raises, and takes its transaction with it', async () => {
  expect(await refusal(asAda, `SELECT realtime.send('{"n": 1}', 'e', 'room:1')`)).toEqual({})
  const ways = [
    `SELECT realtime.send('{}', 'e', 'room:2')`,
    `SELECT realtime.send('{}', 'e', 'room:1', false)`,
    `SELECT realtime.send_binary('x', 'e', 'room:2')`,
    `SELECT realtime.broadcast_changes('room:2', 'e', 'INSERT', 't', 's', ROW(1), NULL)`,
  ]
  for (const way of ways)
    expect(await refusal(asAda, `INSERT INTO public.audit VALUES ('room', 1)`, way)).toMatchObject({
      code: '42501',
      message: expect.stringContaining('row-level security policy for table "messages"'),
    })
  expect(await refusal('SET LOCAL ROLE anon', `SELECT realtime.send('{}', 'e', 'room:1')`)).toMatchObject({
    code: '42501',
  })
  const drafts = channels.draftsOf(await channels.capture.commits())
  expect(drafts.map(payloadOf)).toEqual([expect.objectContaining({ n: 1 })])
  expect(await channels.database.query('SELECT FROM public.audit')).toEqual([])
})

test('a topic of one message is not the topic of what follows: it is put back, also after a refusal that was caught', async () => {
  await channels.database.query(`CREATE FUNCTION public.seen() RETURNS text LANGUAGE plpgsql AS $$
    DECLARE seen text := coalesce(realtime.topic(), 'none'); BEGIN
      PERFORM realtime.send('{}', 'e', 'room:1');
      seen := seen || ' ' || coalesce(realtime.topic(), 'none');
      PERFORM set_config('realtime.topic', 'mine', true);
      PERFORM realtime.send_binary('x', 'e', 'room:1');
      seen := seen || ' ' || coalesce(realtime.topic(), 'none');
      BEGIN
        PERFORM realtime.send('{}', 'e', 'room:2');
      EXCEPTION WHEN insufficient_privilege THEN
        seen := seen || ' refused ' || coalesce(realtime.topic(), 'none');
      END;
      RETURN seen;
    END $$`)
  await channels.database.query(`BEGIN; ${asAda}`)
  const [row] = await channels.database.query('SELECT seen()')
  await channels.database.query('COMMIT')
  expect(row).toEqual({ seen: 'none none mine refused mine' })
  expect(await channels.database.query('SELECT realtime.topic()')).toEqual([{ topic: null }])
})

test('[P8] what cannot be a message is refused by raising', async () => {
  const refused = [
    ['22004', `realtime.send('{}', NULL, 't')`],
    ['22023', `realtime.send('{}', 'e', NULL)`],
    ['22023', `realtime.send('{}', 'e', '')`],
    ['22023', `realtime.send('{}', 'e', E'a\\nb')`],
    ['22023', `realtime.send('{}', 'e', E'\\u007f')`],
    ['22023', `realtime.send('{}', 'e', repeat('x', 256))`],
    ['22004', `realtime.send_binary(NULL, 'e', 't')`],
    ['22004', `realtime.send_binary('x', NULL, 't')`],
    ['22023', `realtime.send_binary('x', 'e', '')`],
    ['22023', `realtime.broadcast_changes('t', 'e', 'TRUNCATE', 't', 's', NULL, NULL)`],
    ['22023', `realtime.broadcast_changes('t', 'e', NULL, 't', 's', NULL, NULL)`],
    ['22023', `realtime.broadcast_changes('t', 'e', 'INSERT', 't', 's', NULL, NULL, 'STATEMENT')`],
  ] as const
  for (const [code, call] of refused) expect([call, (await refusal(`SELECT ${call}`)).code]).toEqual([call, code])
  expect(channels.draftsOf(await channels.capture.commits())).toEqual([])
  expect(await channels.sent(`SELECT realtime.send(NULL, 'e', repeat('é', 255), NULL)`)).toMatchObject([
    { payload: 'null', channel: { topic: 'é'.repeat(255), isPrivate: true } },
  ])
})

test('broadcast_changes tells from a trigger what was inserted, updated and deleted, before and after', async () => {
  await channels.database.query(`CREATE TABLE public.tasks (id int PRIMARY KEY, title text, done boolean);
    CREATE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
      PERFORM realtime.broadcast_changes('task:' || coalesce(NEW.id, OLD.id), TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD);
      RETURN NULL;
    END $$;
    CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON public.tasks FOR EACH ROW EXECUTE FUNCTION public.tell()`)
  const drafts = await channels.sent(
    `BEGIN; INSERT INTO tasks VALUES (1, 'ü', false); UPDATE tasks SET done = true; DELETE FROM tasks; COMMIT`,
  )
  const [before, after] = [
    { id: 1, title: 'ü', done: false },
    { id: 1, title: 'ü', done: true },
  ]
  const of = (operation: string, record: unknown, old: unknown) => ({
    id: expect.any(String),
    operation,
    schema: 'public',
    table: 'tasks',
    record,
    old_record: old,
  })
  expect(drafts.map(payloadOf)).toEqual([
    of('INSERT', before, null),
    of('UPDATE', after, before),
    of('DELETE', null, after),
  ])
  expect(drafts.map(({ event, channel, walIndex }) => [event, channel, walIndex])).toEqual(
    ['INSERT', 'UPDATE', 'DELETE'].map((event, n) => [event, { topic: 'task:1', isPrivate: true }, 2 * n + 1]),
  )
  // The id in the payload is the message's own.
  expect(drafts.map(draft => (payloadOf(draft) as { id: string }).id)).toEqual(drafts.map(({ id }) => id))
})

test('a backend of its own sends where a policy lets it, and its trigger does for whoever writes', async () => {
  const { name } = channels.database
  await channels.database.query(`CREATE ROLE ${name}_app;
    GRANT USAGE ON SCHEMA realtime TO ${name}_app; GRANT INSERT ON realtime.messages TO ${name}_app;
    CREATE POLICY app_sends ON realtime.messages FOR INSERT TO ${name}_app WITH CHECK (true)`)
  try {
    expect(await refusal(`SET LOCAL ROLE ${name}_app`, `SELECT realtime.send('{}', 'e', 'anything')`)).toEqual({})
    expect(channels.draftsOf(await channels.capture.commits())).toHaveLength(1)
  } finally {
    await channels.database.query(`DROP OWNED BY ${name}_app; DROP ROLE ${name}_app`)
  }
})
