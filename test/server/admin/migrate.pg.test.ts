import { expect, test } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { Lines, print, runPrinted, Site } from './site.ts'

const uid = '00000000-0000-0000-0000-0000000000aa'
const claims = JSON.stringify({ sub: uid, role: 'authenticated', tenant: 7 })

/** Under settings that live for one transaction, as the server sets them. */
async function ask(site: Site, settings: Record<string, string>, role = 'authenticated'): Promise<unknown> {
  await site.database.query('BEGIN')
  try {
    for (const [name, value] of Object.entries(settings))
      await site.database.query('SELECT set_config($1, $2, true)', [name, value])
    await site.database.query(`SET LOCAL ROLE ${role}`)
    const [row] = await site.database.query('SELECT auth.uid() AS uid, auth.role() AS role, auth.jwt() AS jwt')
    return row
  } finally {
    await site.database.query('ROLLBACK')
  }
}

const nobody = { uid: null, role: null, jwt: null }

test('the functions of the conventions give what Supabase gives, for claims whole, single, reset and missing', async () => {
  await using site = await Site.create()
  await migrate(site.options, new Lines())
  expect(await ask(site, {})).toEqual(nobody)
  expect(await ask(site, { 'request.jwt.claims': claims })).toEqual({
    uid,
    role: 'authenticated',
    jwt: JSON.parse(claims),
  })
  expect(await ask(site, { 'request.jwt.claims': claims }, 'anon')).toMatchObject({ uid })
  // What is left of a setting after its transaction is an empty text.
  expect(await ask(site, {})).toEqual(nobody)
  expect(await ask(site, { 'request.jwt.claims': '' })).toEqual(nobody)
  expect(await ask(site, { 'request.jwt.claim.sub': uid, 'request.jwt.claim.role': 'anon' })).toMatchObject({
    uid,
    role: 'anon',
  })
  await expect(ask(site, { 'request.jwt.claims': '{"sub": "auth0|1"}' })).rejects.toThrow('uuid')
})

test('migrate installs schemas, a publication with the tables of its own, roles, functions and event triggers, and a second time nothing', async () => {
  await using site = await Site.create()
  expect(await print(out => migrate(site.options, out))).toContain('applied 0001_memory')
  const objects = () =>
    site.database.query(`SELECT 'schema' AS kind, nspname::text AS name, xmin::text FROM pg_namespace WHERE nspname !~ '^pg_'
      UNION ALL SELECT 'publication', pubname || pubviaroot, xmin::text FROM pg_publication
      UNION ALL SELECT 'trigger', evtname, xmin::text FROM pg_event_trigger
      UNION ALL SELECT 'function', oid::regprocedure::text, xmin::text FROM pg_proc WHERE pronamespace IN ('auth'::regnamespace, 'realtime'::regnamespace, 'tidegate'::regnamespace)
      UNION ALL SELECT 'published', prrelid::regclass::text, xmin::text FROM pg_publication_rel
      UNION ALL SELECT 'member', roleid::regrole::text, '' FROM pg_auth_members WHERE member = '${site.login}'::regrole ORDER BY 1, 2`)
  const first = await objects()
  expect(first.map(({ kind, name }) => `${kind} ${name}`)).toEqual([
    'function auth.jwt()',
    'function auth.role()',
    'function auth.uid()',
    'function realtime.broadcast_changes(text,text,text,text,text,record,record,text)',
    'function realtime.send(jsonb,text,text,boolean)',
    'function realtime.send_binary(bytea,text,text,boolean)',
    'function realtime.topic()',
    'function tidegate.announce_catalog()',
    'function tidegate.bound_orders()',
    'function tidegate.date_order()',
    'function tidegate.delete_messages(timestamp with time zone,uuid)',
    'function tidegate.keep_partitions()',
    'function tidegate.keep_writable()',
    'function tidegate.kick(text,text,text,text,interval,text)',
    'function tidegate.refresh(text,interval,timestamp with time zone,text)',
    'function tidegate.revoke(text,text,timestamp with time zone,text)',
    'member anon',
    'member authenticated',
    'publication tidegatetrue',
    'published realtime.messages',
    'published tidegate.orders',
    'schema app',
    'schema auth',
    'schema information_schema',
    'schema public',
    'schema realtime',
    'schema tidegate',
    'trigger tidegate_announce',
    'trigger tidegate_announce_drop',
    'trigger tidegate_keep_writable',
  ])
  expect(await print(out => migrate(site.options, out))).not.toContain('applied')
  expect(await objects()).toEqual(first)
  expect(await site.database.query(`SELECT rolcanlogin, rolinherit FROM pg_roles WHERE rolname = 'anon'`)).toEqual([
    { rolcanlogin: false, rolinherit: false },
  ])
  await site.asLogin(async client => {
    await client.query('SET ROLE authenticated')
    await expect(client.query('SELECT FROM tidegate.tracked')).rejects.toMatchObject({ code: '42501' })
  })
})

test('--no-conventions leaves roles, memberships and the schema auth as they are', async () => {
  await using site = await Site.create()
  await migrate({ ...site.options, conventions: false }, new Lines())
  expect(await site.database.query(`SELECT to_regnamespace('auth') AS auth`)).toEqual([{ auth: null }])
  expect(await site.database.query(`SELECT FROM pg_auth_members WHERE member = '${site.login}'::regrole`)).toEqual([])
  expect(await site.database.query('SELECT pubname FROM pg_publication')).toEqual([{ pubname: 'tidegate' }])
})

test('a function that was there before, or that someone has replaced, is theirs; ours follow their file', async () => {
  await using site = await Site.create()
  const theirs = `CREATE OR REPLACE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT null::uuid'`
  await site.database.query(`CREATE SCHEMA auth; ${theirs}`)
  await migrate(site.options, new Lines())
  const body = async (name: string) =>
    (
      await site.database.query<{ prosrc: string }>(
        `SELECT prosrc FROM pg_proc WHERE oid = 'auth.${name}()'::regprocedure`,
      )
    )[0]?.prosrc
  expect(await body('uid')).toBe('SELECT null::uuid')
  // As if the files had changed since: one function is still the one installed, the other was replaced.
  const ours = await body('jwt')
  await site.database.query(`CREATE OR REPLACE FUNCTION auth.jwt() RETURNS jsonb LANGUAGE sql STABLE AS 'SELECT ''{}''::jsonb';
    CREATE OR REPLACE FUNCTION auth.role() RETURNS text LANGUAGE sql STABLE AS 'SELECT ''old''';
    UPDATE tidegate.installed_function SET source_hash = 'old';
    UPDATE tidegate.installed_function SET body_hash = md5('SELECT ''{}''::jsonb') WHERE signature = 'auth.jwt()'`)
  await migrate(site.options, new Lines())
  expect(await body('jwt')).toBe(ours)
  expect(await body('role')).toBe("SELECT 'old'")
  await site.database.query('DROP FUNCTION auth.jwt()')
  await migrate(site.options, new Lines())
  expect(await body('jwt')).toBe(ours)
})

test('what is printed needs no connection, does with psql what migrate does, and each finds the work of the other done', async () => {
  await using site = await Site.create()
  const printed = await print(out =>
    migrate({ ...site.options, adminUrl: 'postgres://x@127.0.0.1:1/x', print: true }, out),
  )
  expect(await print(out => migrate({ ...site.options, dryRun: true }, out))).toBe(
    `-- Nothing was run (--dry-run).\n${printed}`,
  )
  await runPrinted(site.database.url, printed)
  const state = () =>
    site.database.query(`SELECT (SELECT json_agg(i ORDER BY kind, name, detail) FROM tidegate.installed i) AS installed,
      (SELECT json_agg(f ORDER BY signature) FROM tidegate.installed_function f) AS functions,
      (SELECT json_agg(m.name) FROM tidegate.kysely_migration m) AS migrations,
      (SELECT json_agg(concat_ws(' ', table_name, column_name, data_type, is_nullable, column_default) ORDER BY table_name, ordinal_position)
        FROM information_schema.columns WHERE table_schema = 'tidegate') AS columns`)
  const before = await state()
  expect(await print(out => migrate(site.options, out))).not.toContain('applied')
  expect(await state()).toEqual(before)
  await using other = await Site.create()
  await migrate(other.options, new Lines())
  await runPrinted(other.database.url, await print(out => migrate({ ...other.options, print: true }, out)))
  const columns = async (of: Site) =>
    of.database.query(`SELECT table_name, column_name, data_type, character_maximum_length, is_nullable, column_default
      FROM information_schema.columns WHERE table_schema = 'tidegate' ORDER BY table_name, ordinal_position`)
  expect(await columns(other)).toEqual(await columns(site))
})

test('[P8] a login without rights is told PRIVILEGE_MISSING and what to do; nothing has changed', async () => {
  await using site = await Site.create()
  await expect(migrate({ ...site.options, adminUrl: null }, new Lines())).rejects.toMatchObject({
    code: 'PRIVILEGE_MISSING',
    message: expect.stringMatching(new RegExp(`^${site.login} may not do this.*ADMIN_DATABASE_URL.*--print`)),
  })
  expect(await site.database.query(`SELECT to_regnamespace('tidegate') AS found`)).toEqual([{ found: null }])
})

test('an administrator who is no superuser is warned that there is no event trigger', async () => {
  await using site = await Site.create()
  const options = { ...site.options, adminUrl: site.ownerUrl, conventions: false }
  expect(await print(out => migrate(options, out))).toContain('warning: no event trigger could be made')
  expect(await site.database.query('SELECT FROM pg_event_trigger')).toEqual([])
})

test('[P8] a publication of that name which is not ours is refused, and so is a database that does not answer', async () => {
  await using site = await Site.create()
  await site.database.query('CREATE PUBLICATION tidegate FOR ALL TABLES')
  await expect(migrate(site.options, new Lines())).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
    message: expect.stringContaining('set TIDEGATE_NAME to another name'),
  })
  await migrate({ ...site.options, name: 'second' }, new Lines())
  const nowhere = { ...site.options, adminUrl: 'postgres://me:geheim@127.0.0.1:1/db' }
  const refused = await migrate(nowhere, new Lines()).catch(error => error)
  expect(refused).toMatchObject({
    code: 'DATABASE_UNREACHABLE',
    message: expect.stringContaining('127.0.0.1:1/db as me'),
  })
  expect(refused.message).not.toContain('geheim')
  await expect(migrate({ ...site.options, databaseUrl: 'postgres://localhost/x' }, new Lines())).rejects.toMatchObject({
    code: 'CONFIG_INVALID',
  })
})

test('two databases of one cluster are migrated at the same moment, and each gets what it needs', async () => {
  await using one = await Site.create()
  await using two = await Site.create()
  await Promise.all([migrate(one.options, new Lines()), migrate(two.options, new Lines())])
  for (const site of [one, two]) await site.asLogin(client => client.query('SET ROLE anon'))
})
