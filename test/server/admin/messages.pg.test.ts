// What `migrate` makes for channels, and what `remove` leaves of it. Roles belong to the whole cluster: tests that look at the
// whole database have a server of their own.
import { expect, test } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { remove } from '../../../src/cli/commands/remove.ts'
import { track } from '../../../src/cli/commands/track.ts'
import { untrack } from '../../../src/cli/commands/untrack.ts'
import { dump, startServer } from './dump.ts'
import { Lines, print, Site } from './site.ts'

const publishedIn = async (site: Site, publication = 'tidegate'): Promise<string[]> =>
  (
    await site.database.query<{ name: string }>(
      `SELECT r.prrelid::regclass::text AS name FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
       WHERE pubname = '${publication}' AND r.prrelid = 'realtime.messages'::regclass`,
    )
  ).map(({ name }) => name)

/** As Supabase has it, but for its janitor: sending swallows every error. */
const supabase = `
  CREATE SCHEMA realtime;
  CREATE TABLE realtime.messages (topic text NOT NULL, extension text NOT NULL, payload jsonb, event text,
    private boolean DEFAULT false, updated_at timestamp DEFAULT now() NOT NULL, inserted_at timestamp DEFAULT now() NOT NULL,
    id uuid DEFAULT gen_random_uuid() NOT NULL, PRIMARY KEY (id, inserted_at)) PARTITION BY RANGE (inserted_at);
  ALTER TABLE realtime.messages ENABLE ROW LEVEL SECURITY;
  CREATE TABLE realtime.messages_2020 PARTITION OF realtime.messages FOR VALUES FROM ('2020-01-01') TO ('2120-01-01');
  CREATE FUNCTION realtime.topic() RETURNS text LANGUAGE sql STABLE AS $$ SELECT nullif(current_setting('realtime.topic', true), '')::text $$;
  CREATE FUNCTION realtime.send(payload jsonb, event text, topic text, private boolean DEFAULT true) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
      INSERT INTO realtime.messages (payload, event, topic, private, extension) VALUES (payload, event, topic, private, 'broadcast');
    EXCEPTION WHEN OTHERS THEN RAISE WARNING 'WarnSendingBroadcastMessage: %', SQLERRM;
    END $$;`

const functions = async (site: Site): Promise<string[]> =>
  (
    await site.database.query<{ name: string }>(
      `SELECT oid::regprocedure::text AS name FROM pg_proc WHERE pronamespace = to_regnamespace('realtime') ORDER BY 1`,
    )
  ).map(({ name }) => name)

test('[P2] the table is private by default: row-level security without a policy, and SELECT and INSERT for the roles of tokens', async () => {
  await using site = await Site.create()
  await site.database.query(`CREATE ROLE ${site.database.name}_crew`)
  try {
    const memberRoles = ['authenticated', `${site.database.name}_crew`, 'nobody_of_that_name']
    await migrate({ ...site.options, memberRoles }, new Lines())
    expect(
      await site.database.query(
        `SELECT relrowsecurity, (SELECT count(*)::int FROM pg_policy WHERE polrelid = c.oid) AS policies,
           (SELECT json_agg(concat_ws(' ', attname, format_type(atttypid, NULL)) ORDER BY attname) FROM pg_attribute
            WHERE attrelid = c.oid AND attnum > 0) AS columns FROM pg_class c WHERE oid = 'realtime.messages'::regclass`,
      ),
    ).toEqual([
      {
        relrowsecurity: true,
        policies: 0,
        columns: [
          'binary_payload bytea',
          'event text',
          'extension text',
          'id uuid',
          'inserted_at timestamp with time zone',
          'payload jsonb',
          'private boolean',
          'topic text',
          'updated_at timestamp with time zone',
        ],
      },
    ])
    const granted = await site.database.query(
      `SELECT g.grantee::regrole::text AS role, string_agg(g.privilege_type, ' ' ORDER BY 1) AS may
       FROM pg_class c, aclexplode(c.relacl) g WHERE c.oid = 'realtime.messages'::regclass AND g.grantee <> c.relowner GROUP BY 1 ORDER BY 1`,
    )
    expect(granted).toEqual([
      { role: 'authenticated', may: 'INSERT SELECT' },
      { role: `${site.database.name}_crew`, may: 'INSERT SELECT' },
    ])
    await site.database.query('BEGIN; SET LOCAL ROLE authenticated')
    await expect(site.database.query(`SELECT realtime.send('{}', 'e', 't')`)).rejects.toMatchObject({ code: '42501' })
    await site.database.query('ROLLBACK')
  } finally {
    await remove(site.options, new Lines())
    await site.database.query(`DROP ROLE ${site.database.name}_crew`)
  }
})

test('its table is in the publication from migrate on, and no table of the user: not for track, untrack, or another deployment', async () => {
  await using site = await Site.create()
  const second = { ...site.options, name: 'second' }
  await migrate(site.options, new Lines())
  await migrate(second, new Lines())
  expect([await publishedIn(site), await publishedIn(site, 'second')]).toEqual([
    ['realtime.messages'],
    ['realtime.messages'],
  ])
  expect(await print(out => track({ ...site.options, tables: [] }, out))).toContain('no table is tracked yet')
  await expect(track({ ...site.options, tables: ['realtime.messages'] }, new Lines())).rejects.toMatchObject({
    code: 'TABLE_UNSUPPORTED',
    message: expect.stringContaining('join the channel'),
  })
  await track({ ...site.options, tables: ['app.messages'] }, new Lines())
  expect(await print(out => track({ ...site.options, tables: [] }, out))).toMatch(
    /^app\.messages: tracked already\npolicies read/,
  )
  await expect(untrack({ ...site.options, tables: ['realtime.messages'] }, new Lines())).rejects.toMatchObject({
    code: 'TABLE_UNKNOWN',
  })
  await untrack({ ...site.options, tables: ['app.messages'] }, new Lines())
  expect(await publishedIn(site)).toEqual(['realtime.messages'])
  expect(await site.identity('realtime.messages')).toBe('d')
  // One that the publication lost is put back.
  await site.database.query('ALTER PUBLICATION tidegate DROP TABLE realtime.messages')
  await migrate(site.options, new Lines())
  expect(await publishedIn(site)).toEqual(['realtime.messages'])
  await remove(site.options, new Lines())
  expect(await publishedIn(site, 'second')).toEqual(['realtime.messages'])
  await site.database.query(`SELECT realtime.send('{}', 'e', 't')`)
  await remove(second, new Lines())
  expect(await site.database.query(`SELECT to_regnamespace('realtime') AS found`)).toEqual([{ found: null }])
})

test('[P6] a schema realtime as Supabase has it stays as it is: only what is missing is made, and taken back', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  await site.database.query(supabase)
  const before = await dump(site)
  const theirs = ['realtime.send(jsonb,text,text,boolean)', 'realtime.topic()']
  const bodies = () =>
    site.database.query(
      `SELECT prosrc FROM pg_proc WHERE pronamespace = 'realtime'::regnamespace AND proname IN ('send', 'topic') ORDER BY proname`,
    )
  const bodiesBefore = await bodies()
  const warnings = (await print(out => migrate(site.options, out))).match(/^warning: .*$/gm)
  expect(warnings).toEqual([expect.stringContaining('realtime.send swallows its errors')])
  // Not send_binary: this table has no bytes.
  const more = 'realtime.broadcast_changes(text,text,text,text,text,record,record,text)'
  expect(await functions(site)).toEqual([more, ...theirs])
  expect(await bodies()).toEqual(bodiesBefore)
  expect(await publishedIn(site)).toEqual(['realtime.messages'])
  await site.database.query(`CREATE TABLE realtime.messages_2120 PARTITION OF realtime.messages FOR VALUES FROM ('2120-01-01') TO ('2121-01-01');
    SELECT realtime.send('{}', 'e', 't'); UPDATE realtime.messages SET event = 'f'; DELETE FROM realtime.messages; DROP TABLE realtime.messages_2120`)
  await migrate(site.options, new Lines())
  expect(await functions(site)).toEqual([more, ...theirs])
  await remove(site.options, new Lines())
  expect(await dump(site)).toBe(before)
})

test('[P6] of a table of that name which is no such table, or has no replica identity, migrate says why nothing will come', async () => {
  for (const [schema, reason] of [
    [
      'CREATE SCHEMA realtime; CREATE TABLE realtime.messages (id bigserial PRIMARY KEY, topic text)',
      'it has other columns',
    ],
    [`${supabase} ALTER TABLE realtime.messages DROP CONSTRAINT messages_pkey`, 'has no replica identity'],
  ] as const) {
    await using site = await Site.create()
    await site.database.query(schema)
    const said = await print(out => migrate(site.options, out))
    expect(said).toContain(
      `warning: messages sent from SQL will not arrive, because realtime.messages is not in the publication: it`,
    )
    expect(said).toContain(reason)
    expect(await publishedIn(site)).toEqual([])
    await site.database.query('DELETE FROM realtime.messages')
  }
})

test('tables that policies on channels read are to be tracked too, and track says so', async () => {
  await using site = await Site.create()
  await migrate(site.options, new Lines())
  await site.database.query(`CREATE POLICY crew ON realtime.messages FOR SELECT TO authenticated
    USING (EXISTS (SELECT FROM app.rooms WHERE name = realtime.topic()))`)
  const missing = 'policies read tables that are not tracked; run: tidegate track app.rooms'
  expect(await print(out => track({ ...site.options, tables: ['app.events'] }, out))).toContain(missing)
  expect(await print(out => track({ ...site.options, tables: ['app.rooms'] }, out))).not.toContain('not tracked')
})

test('an administrator who owns neither schema nor table is told who can do what is left', async () => {
  await using site = await Site.create()
  await site.database.query(`${supabase} ALTER TABLE realtime.messages ADD binary_payload bytea;
    GRANT USAGE ON SCHEMA realtime TO ${site.owner}`)
  const said = await print(out => migrate({ ...site.options, adminUrl: site.ownerUrl, conventions: false }, out))
  expect(said).toContain(
    'warning: realtime.send_binary(bytea, text, text, boolean) was not made: permission denied for schema realtime',
  )
  expect(said).toContain(
    'must be owner of table messages; once that is mended, a superuser, or who may act as the owners of both, runs: ALTER PUBLICATION "tidegate" ADD TABLE realtime.messages',
  )
  expect(await publishedIn(site)).toEqual([])
})

test("[P6] what the application's own functions call stays, so that its writes go on, and remove says which they are", async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  await migrate(site.options, new Lines())
  await site.database.query(`CREATE FUNCTION app.tell() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN
      PERFORM Realtime . "broadcast_changes"('t', TG_OP, TG_OP, TG_TABLE_NAME, TG_TABLE_SCHEMA, NEW, OLD); RETURN NULL; END $$;
    CREATE TRIGGER tell AFTER INSERT ON app.rooms FOR EACH ROW EXECUTE FUNCTION app.tell()`)
  const said = await print(out => remove(site.options, out))
  expect(said).toContain(
    'kept: SCHEMA "realtime": its functions are called by app.tell(), which would fail; nothing deletes its messages any more',
  )
  await site.app.query(`INSERT INTO rooms VALUES (9, 'nine')`)
  expect(await site.database.query('SELECT event FROM realtime.messages')).toEqual([{ event: 'INSERT' }])
  // Migrated again its rows are deleted again, and nothing of it is taken for new.
  await migrate(site.options, new Lines())
  expect(await publishedIn(site)).toEqual(['realtime.messages'])
  await site.database.query(`UPDATE realtime.messages SET inserted_at = now() - interval '1 hour';
    SELECT tidegate.delete_messages('-infinity', '00000000-0000-0000-0000-000000000000')`)
  expect(await site.database.query('SELECT FROM realtime.messages')).toEqual([])
})

test('what depends on it by the catalog stays too; policies on the table go with it, and are named', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  await migrate(site.options, new Lines())
  await site.database.query(`CREATE POLICY "mine too" ON realtime.messages FOR SELECT TO authenticated USING (realtime.topic() = 'x');
    CREATE VIEW app.recent AS SELECT topic FROM realtime.messages`)
  expect(await print(out => remove(site.options, out))).toContain(
    'kept: SCHEMA "realtime", whose messages nothing deletes any more: view app.recent depends on table realtime.messages',
  )
  expect(await functions(site)).toHaveLength(4)
  await site.database.query('DROP VIEW app.recent; DROP SCHEMA realtime CASCADE')
  await migrate(site.options, new Lines())
  await site.database.query(
    `CREATE POLICY "mine too" ON realtime.messages FOR SELECT TO authenticated USING (realtime.topic() = 'x')`,
  )
  expect(await print(out => remove(site.options, out))).toContain(
    'notice: the table realtime.messages goes with its policies: "mine too"',
  )
  expect(await site.database.query(`SELECT to_regnamespace('realtime') AS found`)).toEqual([{ found: null }])
})
