// The functions that Supabase's applications call from SQL, in our installation and in theirs: one table says how both are called.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { TestDatabase } from '../../support/postgres.ts'
import { makeSupabase } from '../../support/supabase-schema.ts'
import { ChannelDatabase, payloadOf } from '../channels/sql/sql.ts'

interface Signature {
  readonly name: string
  /** Names, types and defaults, as \df prints them. */
  readonly takes: string
  readonly gives: string
  readonly volatility: 'volatile' | 'stable'
}

const signatures: readonly Signature[] = [
  {
    name: 'broadcast_changes',
    takes:
      "topic_name text, event_name text, operation text, table_name text, table_schema text, new record, old record, level text DEFAULT 'ROW'::text",
    gives: 'void',
    volatility: 'volatile',
  },
  {
    name: 'send',
    takes: 'payload jsonb, event text, topic text, private boolean DEFAULT true',
    gives: 'void',
    volatility: 'volatile',
  },
  {
    name: 'send_binary',
    takes: 'payload bytea, event text, topic text, private boolean DEFAULT true',
    gives: 'void',
    volatility: 'volatile',
  },
  { name: 'topic', takes: '', gives: 'text', volatility: 'stable' },
]

let ours: ChannelDatabase
let theirs: TestDatabase

beforeAll(async () => {
  ours = await ChannelDatabase.create()
  theirs = await TestDatabase.create()
  await makeSupabase(theirs)
  await ours.database.query(`CREATE TABLE public.rooms (id int PRIMARY KEY, topic text NOT NULL, name text);
    CREATE TABLE public.audit (what text)`)
})

afterAll(async () => {
  await theirs?.[Symbol.asyncDispose]()
  await ours?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await ours.capture.commits()
})

test.each(['ours', 'theirs'])(
  '%s have the names, arguments, defaults, results and volatility of the table, and run with the rights of who calls',
  async whose => {
    const database = whose === 'ours' ? ours.database : theirs
    expect(
      await database.query(
        `SELECT proname AS name, pg_get_function_arguments(oid) AS takes, pg_get_function_result(oid) AS gives,
         CASE provolatile WHEN 'v' THEN 'volatile' WHEN 's' THEN 'stable' END AS volatility, prosecdef, proisstrict, proretset, proparallel, proconfig
       FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace AND proname = ANY ($1) ORDER BY proname`,
        [signatures.map(({ name }) => name)],
      ),
    ).toEqual(
      signatures.map(each => ({
        ...each,
        prosecdef: false,
        proisstrict: false,
        proretset: false,
        proparallel: 'u',
        proconfig: null,
      })),
    )
  },
)

const toRoom = (isPrivate: boolean) => ({ event: 'said', channel: { topic: 'room:1', isPrivate } })

describe.each([
  ['by position', `realtime.send('{"a": 1}'::jsonb, 'said', 'room:1')`, true],
  ['by position, with all', `realtime.send(jsonb_build_object('a', 1), 'said', 'room:1', false)`, false],
  [
    'by name, in another order',
    `realtime.send(topic => 'room:1', private => false, event => 'said', payload => '{"a": 1}')`,
    false,
  ],
  ['by name, with its default', `realtime.send(event => 'said', topic => 'room:1', payload => '{"a": 1}')`, true],
  ['half by position', `realtime.send('{"a": 1}', 'said', private => false, topic => 'room:1')`, false],
  ['with untyped literals', `realtime.send('{"a": 1}', 'said', 'room:1', 'true')`, true],
])('send %s', (_, call, isPrivate) => {
  test.each(['SELECT', 'PERFORM', 'an assignment'])('with %s', async way => {
    const statements: Readonly<Record<string, string>> = {
      SELECT: `SELECT ${call}`,
      PERFORM: `DO $$ BEGIN PERFORM ${call}; END $$`,
      'an assignment': `DO $$ DECLARE nothing text; BEGIN nothing := ${call}; END $$`,
    }
    const drafts = await ours.sent(statements[way]!)
    expect(drafts).toMatchObject([toRoom(isPrivate)])
    expect(drafts.map(payloadOf)).toEqual([{ a: 1, id: drafts[0]!.id }])
    // And theirs takes the same call.
    await theirs.query(statements[way]!)
    expect(
      await theirs.query('DELETE FROM realtime.messages RETURNING event, topic, private, payload - $1 AS payload', [
        'id',
      ]),
    ).toEqual([{ event: 'said', topic: 'room:1', private: isPrivate, payload: { a: 1 } }])
  })
})

test.each([
  [`realtime.send_binary('\\x00ff'::bytea, 'said', 'room:1')`, true],
  [`realtime.send_binary(payload => '\\x00ff', event => 'said', topic => 'room:1', private => false)`, false],
])('%s', async (call, isPrivate) => {
  const drafts = await ours.sent(`SELECT ${call}`)
  expect(drafts).toMatchObject([{ ...toRoom(isPrivate), isBinary: true }])
  expect(drafts.map(payloadOf)).toEqual([Buffer.from([0, 255]).toString('base64')])
})

test('an id of the payload stays, as there', async () => {
  const call = `SELECT realtime.send('{"id": "mine"}', 'said', 'room:1')`
  expect((await ours.sent(call)).map(payloadOf)).toEqual([{ id: 'mine' }])
  await theirs.query(call)
  expect(await theirs.query('DELETE FROM realtime.messages RETURNING payload')).toEqual([{ payload: { id: 'mine' } }])
})

describe('broadcast_changes from triggers', () => {
  const trigger = (call: string, level: 'ROW' | 'STATEMENT' = 'ROW'): string => `
    DROP TRIGGER IF EXISTS tell ON public.rooms;
    CREATE OR REPLACE FUNCTION public.tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
      ${call}
      RETURN NULL;
    END $$;
    CREATE TRIGGER tell AFTER INSERT OR UPDATE OR DELETE ON public.rooms FOR EACH ${level} EXECUTE FUNCTION public.tell()`

  beforeEach(async () => {
    await ours.database.query('DROP TRIGGER IF EXISTS tell ON public.rooms; TRUNCATE public.rooms')
  })

  test.each([
    [
      'by position',
      `PERFORM realtime.broadcast_changes('topic:' || coalesce(NEW.topic, OLD.topic)::text, TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD);`,
    ],
    [
      'by position, with TG_LEVEL',
      `PERFORM realtime.broadcast_changes('topic:' || coalesce(NEW.topic, OLD.topic), TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD, TG_LEVEL);`,
    ],
    [
      'by name',
      `PERFORM realtime.broadcast_changes(topic_name => 'topic:' || coalesce(NEW.topic, OLD.topic), event_name => TG_OP, operation => TG_OP,
        table_name => TG_TABLE_NAME, table_schema => TG_TABLE_SCHEMA, new => NEW, old => OLD, level => 'ROW');`,
    ],
  ])('FOR EACH ROW, %s', async (_, call) => {
    await ours.database.query(trigger(call))
    const drafts = await ours.sent(
      `INSERT INTO public.rooms VALUES (1, 'a', 'one')`,
      `UPDATE public.rooms SET name = 'uno'`,
      `DELETE FROM public.rooms`,
    )
    const [one, uno] = [
      { id: 1, topic: 'a', name: 'one' },
      { id: 1, topic: 'a', name: 'uno' },
    ]
    const common = { schema: 'public', table: 'rooms', id: expect.any(String) }
    expect(drafts.map(payloadOf)).toEqual([
      { ...common, operation: 'INSERT', record: one, old_record: null },
      { ...common, operation: 'UPDATE', record: uno, old_record: one },
      { ...common, operation: 'DELETE', record: null, old_record: uno },
    ])
    for (const draft of drafts) expect(draft.channel).toEqual({ topic: 'topic:a', isPrivate: true })
  })

  test('FOR EACH STATEMENT it raises, as there, and says what to do; the statement is undone', async () => {
    const call = `PERFORM realtime.broadcast_changes('t', TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD, TG_LEVEL);`
    await ours.database.query(trigger(call, 'STATEMENT'))
    await expect(ours.database.query(`INSERT INTO public.rooms VALUES (1, 'a', 'one')`)).rejects.toMatchObject({
      code: '22023',
      message: expect.stringContaining('FOR EACH STATEMENT has no rows to send; make it FOR EACH ROW'),
    })
    expect(await ours.database.query('SELECT FROM public.rooms')).toEqual([])
    await theirs.query(
      `CREATE TABLE public.rooms (id int PRIMARY KEY, topic text NOT NULL, name text); ${trigger(call, 'STATEMENT')}`,
    )
    await expect(theirs.query(`INSERT INTO public.rooms VALUES (1, 'a', 'one')`)).rejects.toMatchObject({
      code: 'P0001',
    })
  })
})

describe('[P4] a send that fails', () => {
  const failing: readonly (readonly [why: string, call: string, code: string, says: string])[] = [
    ['without a topic', `realtime.send('{}', 'said', NULL)`, '22023', 'the topic NULL is null'],
    ['without an event', `realtime.send('{}', NULL, 'room:1')`, '22004', 'the event is null'],
    ['that the table refuses', `realtime.send('{"secret": 1}', 'said', 'room:1')`, '23514', 'no_secrets'],
    [
      'of bytes that are none',
      `realtime.send_binary(NULL, 'said', 'room:1')`,
      '22004',
      'the payload or the event is null',
    ],
  ]

  beforeAll(async () => {
    await ours.database.query(`ALTER TABLE realtime.messages ADD CONSTRAINT no_secrets CHECK (NOT payload ? 'secret')`)
  })

  afterAll(async () => {
    await ours.database.query('ALTER TABLE realtime.messages DROP CONSTRAINT no_secrets')
  })

  test.each(failing)('%s fails the transaction', async (_, call, code, says) => {
    await ours.database.query('BEGIN')
    await ours.database.query(`INSERT INTO public.audit VALUES ('kept')`)
    await expect(ours.database.query(`SELECT ${call}`)).rejects.toMatchObject({
      code,
      message: expect.stringContaining(says),
    })
    // Postgres commits nothing of it.
    await ours.database.query('COMMIT')
    expect(await ours.database.query('SELECT FROM public.audit')).toEqual([])
    expect(await ours.sent(`SELECT realtime.send('{}', 'after', 'room:1')`)).toMatchObject([{ event: 'after' }])
  })

  test('theirs commits without the message', async () => {
    const warnings: string[] = []
    theirs.client.on('notice', ({ message }) => warnings.push(message ?? ''))
    await theirs.query(`BEGIN; CREATE TABLE public.audit (what text); INSERT INTO public.audit VALUES ('kept');
      SELECT realtime.send('{}', 'said', NULL); COMMIT`)
    expect(await theirs.query('SELECT what FROM public.audit')).toEqual([{ what: 'kept' }])
    expect(await theirs.query('SELECT FROM realtime.messages')).toEqual([])
    expect(warnings).toEqual([expect.stringContaining('WarnSendingBroadcastMessage')])
  })
})
