import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Draft } from '../../../../src/server/channels/message.ts'
import { WalMessages } from '../../../../src/server/channels/sql/wal-messages.ts'
import { ChannelDatabase, payloadOf } from './sql.ts'

let channels: ChannelDatabase

beforeAll(async () => {
  channels = await ChannelDatabase.create()
  await channels.commits(['CREATE TABLE public.notes (id int PRIMARY KEY, body text)'])
})

afterAll(async () => {
  await channels[Symbol.asyncDispose]()
})

const send = (payload: string, event = 'e', topic = 'room:1'): string =>
  `SELECT realtime.send('${payload}', '${event}', '${topic}')`

test('a message has what was sent, its row as id, the time and the place of its commit, and no sender', async () => {
  const beforeMs = Date.now()
  const [commit] = await channels.commits([
    `BEGIN; INSERT INTO notes VALUES (1, 'a'); SELECT realtime.send('{"a": 1}', 'typing', 'room:42'); SELECT realtime.send('{}', 'x', 'all', false); COMMIT`,
  ])
  const [guarded, open] = channels.draftsOf([commit!])
  const [row] = await channels.database.query<{ id: string }>(
    `SELECT id FROM realtime.messages WHERE topic = 'room:42'`,
  )
  expect(guarded).toEqual({
    channel: { topic: 'room:42', isPrivate: true },
    id: row!.id,
    event: 'typing',
    payload: guarded!.payload,
    isBinary: false,
    sender: { user: null, connection: null },
    sentAtMs: guarded!.sentAtMs,
    to: null,
    stamp: { epoch: 'epoch', lsn: commit!.commitLsn },
    walIndex: 1,
  })
  // As Supabase adds it.
  expect(payloadOf(guarded!)).toEqual({ a: 1, id: row!.id })
  expect(guarded!.sentAtMs).toBeGreaterThanOrEqual(beforeMs - 1)
  expect(guarded!.sentAtMs).toBeLessThanOrEqual(Date.now() + 1)
  expect(open).toMatchObject({ channel: { topic: 'all', isPrivate: false }, event: 'x', walIndex: 2 })
})

test('[P4] what was sent in a transaction that rolled back, or after a savepoint that did, is not there', async () => {
  expect(await channels.sent(`BEGIN; ${send('{"n": 1}')}; ROLLBACK`)).toEqual([])
  const drafts = await channels.sent(
    `BEGIN; ${send('{"n": 2}')}; SAVEPOINT s; ${send('{"n": 3}')}; ROLLBACK TO s; ${send('{"n": 4}')}; COMMIT`,
  )
  expect(drafts.map(draft => (payloadOf(draft) as { n: number }).n)).toEqual([2, 4])
  const caught = await channels.sent(`DO $$ BEGIN
      PERFORM realtime.send('{"n": 5}', 'e', 'room:1');
      BEGIN
        PERFORM realtime.send('{"n": 6}', 'e', 'room:1');
        PERFORM 1 / 0;
      EXCEPTION WHEN division_by_zero THEN NULL;
      END;
    END $$`)
  expect(caught.map(draft => (payloadOf(draft) as { n: number }).n)).toEqual([5])
})

const thousand = `DO $$ BEGIN FOR n IN 1..1000 LOOP
    INSERT INTO public.notes VALUES (1000 + n, repeat('x', 200));
    PERFORM realtime.send(jsonb_build_object('n', n), 'e', 'room:' || n % 7);
    UPDATE public.notes SET body = 'y' WHERE id = 1000 + n;
  END LOOP;
  DELETE FROM public.notes WHERE id > 1000; END $$`

test.each([
  ['in memory', undefined],
  ['in a file', { spoolBytes: 4096 }],
])('[P5] 1,000 messages of one transaction come in order, with the rows between them: %s', async (_, options) => {
  const [commit] = await channels.commits([thousand], options)
  expect([commit!.spooled, commit!.changeCount]).toEqual([options !== undefined, 4000])
  const drafts = channels.draftsOf([commit!])
  expect(drafts.map(draft => (payloadOf(draft) as { n: number }).n)).toEqual(
    Array.from({ length: 1000 }, (_, n) => n + 1),
  )
  expect(drafts.map(draft => draft.walIndex)).toEqual(Array.from({ length: 1000 }, (_, n) => 3 * n + 1))
  expect(new Set(drafts.map(draft => draft.id)).size).toBe(1000)
  const later = [...new WalMessages().of(commit!, 'epoch', 2998)]
  expect(later).toEqual(drafts.slice(-1))
  commit!.release()
})

test('of commits without messages nothing is walked', async () => {
  const [notes, deleted] = await channels.commits([
    "INSERT INTO notes VALUES (7, 'a')",
    'DELETE FROM realtime.messages',
  ])
  const messages = new WalMessages()
  expect([notes, deleted].map(commit => messages.concerns(commit!))).toEqual([false, true])
  const untouchable = { ...notes!, layouts: notes!.layouts, passing: () => expect.fail('walked') }
  expect([...messages.of(untouchable, 'epoch')]).toEqual([])
})

test('[P2] rows that are no broadcast, updates, deletes and truncation are no messages', async () => {
  const drafts = await channels.sent(
    `INSERT INTO realtime.messages (topic, extension, event, payload) VALUES ('t', 'presence', 'e', '{}'), ('t', 'postgres_changes', 'e', '{}')`,
    `INSERT INTO realtime.messages (topic, extension, payload) VALUES ('t', 'broadcast', '{}')`,
    `UPDATE realtime.messages SET extension = 'broadcast', event = 'changed'`,
    'DELETE FROM realtime.messages',
    'TRUNCATE realtime.messages',
  )
  expect(drafts).toEqual([])
})

test('[P2] a row inserted as it is, without saying whether it is private, is', async () => {
  const [draft] = await channels.sent(
    `INSERT INTO realtime.messages (topic, extension, event) VALUES ('t', 'broadcast', 'e')`,
  )
  expect(draft).toMatchObject({ channel: { topic: 't', isPrivate: true }, payload: 'null', isBinary: false })
})

test('bytes are base64 in a JSON string: none, all 256, and a megabyte', async () => {
  const all = Buffer.from(Array.from({ length: 256 }, (_, n) => n))
  const drafts = await channels.sent(
    `SELECT realtime.send_binary('', 'empty', 't')`,
    `SELECT realtime.send_binary('\\x${all.toString('hex')}', 'all', 't', false)`,
    `SELECT realtime.send_binary(convert_to(repeat('x', 1048576), 'UTF8'), 'large', 't')`,
  )
  expect(drafts.map(({ event, isBinary, channel }) => [event, isBinary, channel.isPrivate])).toEqual([
    ['empty', true, true],
    ['all', true, false],
    ['large', true, true],
  ])
  const bytes = drafts.map(draft => Buffer.from(payloadOf(draft) as string, 'base64'))
  expect(bytes[0]).toEqual(Buffer.alloc(0))
  expect(bytes[1]).toEqual(all)
  expect(bytes[2]!.equals(Buffer.alloc(1 << 20, 'x'))).toBe(true)
})

test('payloads of every kind come as they were sent, on one line: scalars, unicode, line breaks, a megabyte, 1,000 levels', async () => {
  const values: unknown[] = [
    null,
    true,
    0,
    -1.5e-7,
    '',
    [],
    [1, [2, { id: 3 }]],
    { id: 'mine' },
    'a "quoted" \\ line\nbreak\r\n\ttab \u2028 \u2029 \u0001 \u007f \u0085 \ufeff',
    { 'schlüssel ⛵ \u2028': '👩‍👩‍👧 \ud83d\ude00 é ÿ 漢', id: null },
    'x'.repeat(1 << 20),
    JSON.parse('['.repeat(1000) + ']'.repeat(1000)),
  ]
  const drafts: Draft[] = []
  for (const value of values) {
    await channels.database.query(`SELECT realtime.send($1::jsonb, 'ev"ent\n\u2028', 'tópic "1" ⛵')`, [
      JSON.stringify(value),
    ])
    drafts.push(...channels.draftsOf(await channels.capture.commits()))
  }
  expect(drafts.map(payloadOf)).toEqual(values)
  for (const { payload, event, channel } of drafts) {
    expect(payload).not.toMatch(/[\n\r\u2028\u2029]/)
    expect([event, channel.topic]).toEqual(['ev"ent\n\u2028', 'tópic "1" ⛵'])
  }
})

test('any JSON comes as Postgres has it', async () => {
  const json = fc.jsonValue({ maxDepth: 4 }).filter(value => !JSON.stringify(value).includes('\\u0000'))
  const values = fc.sample(json, { numRuns: 300, seed: 7 }).filter(value => JSON.stringify(value).isWellFormed())
  await channels.database.query(
    `INSERT INTO realtime.messages (topic, extension, event, payload)
     SELECT 't', 'broadcast', 'e', value FROM unnest($1::jsonb[]) WITH ORDINALITY AS t (value, n) ORDER BY n`,
    [values.map(value => JSON.stringify(value))],
  )
  const drafts = channels.draftsOf(await channels.capture.commits())
  expect(drafts.length).toBe(values.length)
  const stored = await channels.database.query<{ value: unknown }>(
    `SELECT value FROM unnest($1::jsonb[]) WITH ORDINALITY AS t (value, n) ORDER BY n`,
    [values.map(value => JSON.stringify(value))],
  )
  expect(drafts.map(payloadOf)).toEqual(stored.map(({ value }) => value))
})

test('the partitioned table that Supabase has tells the same, from each of its partitions', async () => {
  await using theirs = await ChannelDatabase.create(`CREATE SCHEMA realtime;
    CREATE TABLE realtime.messages (topic text NOT NULL, extension text NOT NULL, payload jsonb, event text,
      private boolean DEFAULT false, updated_at timestamp DEFAULT now() NOT NULL, inserted_at timestamp DEFAULT now() NOT NULL,
      id uuid DEFAULT gen_random_uuid() NOT NULL, PRIMARY KEY (id, inserted_at)) PARTITION BY RANGE (inserted_at);
    CREATE TABLE realtime.messages_old PARTITION OF realtime.messages FOR VALUES FROM ('2020-01-01') TO ('2020-01-02');
    CREATE TABLE realtime.messages_now PARTITION OF realtime.messages FOR VALUES FROM ('2020-01-02') TO ('2120-01-02')`)
  const drafts = await theirs.sent(
    `BEGIN; ${send('{"n": 1}')};
     INSERT INTO realtime.messages (topic, extension, event, payload, private, inserted_at) VALUES ('room:1', 'broadcast', 'e', '{"n": 2}', true, '2020-01-01 12:00');
     ${send('{"n": 3}')}; COMMIT`,
    'DELETE FROM realtime.messages',
  )
  expect(drafts.map(({ event, walIndex, payload }) => [event, walIndex, JSON.parse(payload).n])).toEqual([
    ['e', 0, 1],
    ['e', 1, 2],
    ['e', 2, 3],
  ])
})

test('a table of that name with other columns has no messages', async () => {
  await using other = await ChannelDatabase.create(
    'CREATE SCHEMA realtime; CREATE TABLE realtime.messages (id bigserial PRIMARY KEY, topic text, extension text, event text, payload jsonb, private boolean)',
  )
  expect(
    await other.sent(`INSERT INTO realtime.messages (topic, extension, event) VALUES ('t', 'broadcast', 'e')`),
  ).toEqual([])
})
