import { expect, test } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { track } from '../../../src/cli/commands/track.ts'
import { trackAtStart } from '../../../src/server/admin/track.ts'
import { Lines, print, runPrinted, Site } from './site.ts'

test('track sets FULL, publishes, installs the read function, and says so; a second time it changes nothing', async () => {
  await using site = await Site.create()
  const said = await site.track(['app.messages'])
  expect(await site.identity('app.messages')).toBe('f')
  expect(await site.published()).toEqual(['app.messages'])
  expect(await site.readFunctions()).toEqual(['app.messages'])
  expect(said).toContain('replica identity FULL (was DEFAULT)')
  expect(said).toContain('in the publication "tidegate"')
  const state = () => site.database.query(`SELECT xmin::text, * FROM tidegate.tracked`)
  const before = await state()
  expect(await site.track(['app.messages'])).toContain('app.messages: tracked already')
  expect(await state()).toEqual(before)
})

test('every partition of every level gets FULL, and track again repairs one that came later', async () => {
  await using site = await Site.create()
  await site.withoutEventTrigger()
  await site.track(['app.events'])
  for (const name of ['events', 'events_1', 'events_2', 'events_2_1'])
    expect(await site.identity(`app.${name}`)).toBe('f')
  await site.app.query('CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)')
  expect(await site.identity('app.events_3')).toBe('d')
  expect(await site.track([])).toContain('replica identity FULL of its partition app.events_3 (was DEFAULT)')
  expect(await site.identity('app.events_3')).toBe('f')
})

test('track repairs a renamed table, a changed owner, and forgets a dropped one', async () => {
  await using site = await Site.create()
  await site.track(['app.messages', 'app.rooms'])
  await site.app.query(
    'ALTER TABLE messages RENAME TO posts; DROP TABLE rooms; CREATE TABLE rooms (id integer PRIMARY KEY)',
  )
  await site.track(['app.posts', 'app.rooms'])
  expect(await site.readFunctions()).toEqual(['app.posts', 'app.rooms'])
  expect(await site.database.query('SELECT name FROM tidegate.tracked ORDER BY 1')).toEqual([
    { name: 'app.posts' },
    { name: 'app.rooms' },
  ])
  await site.database.query(`ALTER TABLE app.posts OWNER TO ${site.login}`)
  expect(await site.track(['app.posts'])).toContain(`read function of its owner ${site.login}`)
})

test.each([
  ['CREATE VIEW odd AS SELECT * FROM rooms', 'app.odd is a view'],
  ['CREATE MATERIALIZED VIEW odd AS SELECT * FROM rooms', 'app.odd is a materialized view'],
  ['CREATE UNLOGGED TABLE odd (id integer PRIMARY KEY)', 'app.odd is unlogged'],
  ['CREATE SEQUENCE odd', 'app.odd is a sequence'],
  [
    'CREATE TABLE odd (id integer PRIMARY KEY); CREATE TABLE child () INHERITS (odd)',
    'app.odd is an inheritance parent',
  ],
])('[P8] %s is refused by name', async (setup, message) => {
  await using site = await Site.create()
  await site.app.query(setup)
  await expect(site.track(['app.odd'])).rejects.toMatchObject({
    code: 'TABLE_UNSUPPORTED',
    message: expect.stringContaining(message),
  })
  expect(await site.published()).toEqual([])
})

test('[P8] a foreign table, a partition, a table of the system, and one that is not there are refused by name', async () => {
  await using site = await Site.create()
  await site.database.query(`CREATE FOREIGN DATA WRAPPER none; CREATE SERVER far FOREIGN DATA WRAPPER none;
    CREATE FOREIGN TABLE app.far (id integer) SERVER far`)
  const refused = (table: string) =>
    site.track([table]).then(
      () => 'tracked',
      error => `${error.code}: ${error.message}`,
    )
  expect(await refused('app.far')).toContain('TABLE_UNSUPPORTED: app.far is a foreign table')
  expect(await refused('app.events_1')).toContain('TABLE_UNSUPPORTED: app.events_1 is a partition; track app.events')
  expect(await refused('pg_catalog.pg_class')).toContain(
    'TABLE_UNSUPPORTED: pg_catalog.pg_class is a table of the system',
  )
  expect(await refused('app.Messages')).toContain('TABLE_UNKNOWN: there is no table app.Messages')
  expect(await refused(`app.x"; DROP TABLE app.rooms; --`)).toContain('TABLE_UNKNOWN')
  expect(await refused('.')).toContain('TABLE_UNKNOWN')
})

test('[P8] a table without a primary key is refused with the statement, as a membership table too', async () => {
  await using site = await Site.create()
  await site.app.query('ALTER TABLE members DROP CONSTRAINT members_pkey')
  await expect(site.track(['app.members'])).rejects.toMatchObject({
    code: 'NO_PRIMARY_KEY',
    message: expect.stringContaining('ALTER TABLE "app"."members" ADD PRIMARY KEY'),
  })
})

test('track warns of what guards nothing, and names the tables that policies read, through functions too', async () => {
  await using site = await Site.create()
  expect(await site.track(['app.rooms'])).toContain('NO_ROW_SECURITY')
  const said = await site.track(['app.messages'])
  expect(said).not.toContain('NO_ROW_SECURITY')
  expect(said).toContain('run: tidegate track app.members\n')
  await site.app.query(`
    CREATE TABLE teams (id integer PRIMARY KEY);
    CREATE TABLE staff (id integer PRIMARY KEY);
    CREATE FUNCTION app.in_team() RETURNS boolean LANGUAGE sql STABLE SET search_path = app
      AS 'SELECT EXISTS (SELECT FROM teams)';
    CREATE FUNCTION app.is_staff() RETURNS boolean LANGUAGE sql STABLE
      AS 'SELECT EXISTS (SELECT FROM app.staff) OR app.in_team()'`)
  await site.app.query('CREATE POLICY staff ON messages FOR SELECT USING (app.is_staff())')
  expect(await site.track(['app.messages'])).toContain('run: tidegate track app.members app.staff app.teams\n')
  expect(await site.track(['app.members', 'app.staff', 'app.teams', 'app.messages'])).toMatch(
    /app.messages: tracked already\n$/,
  )
})

test('--index builds a unique index over the key and what policies read; a plain track later keeps it, or repairs its loss', async () => {
  await using site = await Site.create()
  await site.withoutEventTrigger()
  const said = await site.track(['app.messages'], { index: true })
  const identity = await site.identity('app.messages')
  expect(identity).toMatch(/^i app\.tidegate_identity_\d+_[0-9a-f]{8}$/)
  expect(said).toContain("Postgres refuses the application's own UPDATE")
  const [row] = await site.database.query<{ indexdef: string }>(
    `SELECT indexdef FROM pg_indexes WHERE schemaname = 'app' AND indexname LIKE 'tidegate%'`,
  )
  expect(row?.indexdef).toMatch(/^CREATE UNIQUE INDEX .* ON app.messages USING btree \(id, room_id\)$/)
  expect(await site.track(['app.messages'])).toContain('tracked already')
  expect(await site.identity('app.messages')).toBe(identity)
  await site.app.query(`DROP INDEX ${identity.slice(2)}`)
  await expect(site.app.query('UPDATE messages SET body = body')).rejects.toThrow('does not have a replica identity')
  expect(await site.track(['app.messages'])).toContain('replica identity FULL (was a dropped index)')
  await site.app.query('UPDATE messages SET body = body')
})

test('--columns names the columns of the index, and says which of the policies it leaves out', async () => {
  await using site = await Site.create()
  const said = await site.track(['app.members'], { index: true, columns: ['user_id'] })
  expect(said).toContain('over (room_id, user_id)')
  const other = await site.track(['app.messages'], { index: true, columns: ['id'] })
  expect(other).toContain('IDENTITY_INSUFFICIENT: policies also read room_id')
})

test('[P8] --index is refused for a column that may be null, one that is not there, and for partitions', async () => {
  await using site = await Site.create()
  const index = (table: string, columns: string[]) => site.track([table], { index: true, columns })
  await expect(index('app.messages', ['body'])).rejects.toMatchObject({
    code: 'IDENTITY_INSUFFICIENT',
    message: expect.stringContaining('ALTER TABLE "app"."messages" ALTER COLUMN "body" SET NOT NULL'),
  })
  await expect(index('app.messages', ['nobody'])).rejects.toMatchObject({ code: 'COLUMN_UNKNOWN' })
  await expect(index('app.events', [])).rejects.toMatchObject({ code: 'TABLE_UNSUPPORTED' })
  expect(await site.published()).toEqual([])
})

test('an index that an interrupted attempt left behind is built anew', async () => {
  await using site = await Site.create()
  const shown = await site.track(['app.messages'], { index: true, dryRun: true })
  const name = /tidegate_identity_\w+/.exec(shown)![0]
  await site.app.query(`CREATE UNIQUE INDEX ${name} ON messages (id)`)
  await site.database.query(`UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'app.${name}'::regclass`)
  await site.track(['app.messages'], { index: true })
  expect(await site.identity('app.messages')).toBe(`i app.${name}`)
})

test('--print and --dry-run change nothing; what is printed does with psql what track does', async () => {
  await using site = await Site.create()
  const options = { ...site.options, tables: ['app.messages', 'app.events'] }
  // As the server's login, before anything is installed: whoever may connect may print.
  const printed = await print(out => track({ ...options, adminUrl: site.loginUrl, print: true }, out))
  const migration = await print(out => migrate({ ...site.options, print: true }, out))
  expect(await site.database.query(`SELECT to_regnamespace('tidegate') AS found`)).toEqual([{ found: null }])
  await runPrinted(site.database.url, migration)
  await runPrinted(site.database.url, printed)
  expect(await site.published()).toEqual(['app.events', 'app.messages'])
  expect(printed).toContain('-- policies read tables that are not tracked; run: tidegate track app.members\n')
  const again = await site.track(options.tables)
  expect(again).toContain('app.messages: tracked already\napp.events: tracked already\n')
  const dry = await site.track(['app.rooms'], { dryRun: true })
  expect(dry).toMatch(/^-- Nothing was run \(--dry-run\)\.\n/)
  expect(await site.published()).toEqual(['app.events', 'app.messages'])
})

test('[P8] a login without rights is told PRIVILEGE_MISSING, and nothing has changed', async () => {
  await using site = await Site.create()
  await site.track([])
  const attempt = track({ ...site.options, adminUrl: null, tables: ['app.messages'] }, new Lines())
  await expect(attempt).rejects.toMatchObject({
    code: 'PRIVILEGE_MISSING',
    message: expect.stringContaining(`${site.login} may not do this`),
  })
  expect(await site.identity('app.messages')).toBe('d')
})

test('the owner of tables and database needs no superuser to migrate and track', async () => {
  await using site = await Site.create()
  // Roles belong to the cluster: who may not create them leaves them to an administrator.
  const options = { ...site.options, adminUrl: site.ownerUrl }
  await migrate({ ...options, conventions: false }, new Lines())
  await track({ ...options, tables: ['app.messages', 'app.events'] }, new Lines())
  expect(await site.published()).toEqual(['app.events', 'app.messages'])
  await site.asLogin(client => client.query(`SELECT tidegate."app.messages"('{id}', '{}', null, null, null)`))
})

test('a member of the role that owns the tables tracks them, and leaves that role no right on the schema', async () => {
  await using site = await Site.create()
  const admin = `${site.database.name}_admin`
  await site.database.query(`CREATE ROLE ${admin} LOGIN PASSWORD 'secret' IN ROLE ${site.owner};
    GRANT CREATE ON DATABASE ${site.database.name} TO ${admin}`)
  try {
    const options = { ...site.options, adminUrl: site.database.urlFor(admin, 'secret') }
    await migrate({ ...options, conventions: false }, new Lines())
    await track({ ...options, tables: ['app.messages'] }, new Lines())
    expect(
      await site.database.query(
        `SELECT has_schema_privilege('${site.owner}', 'tidegate', 'CREATE') AS may, proowner::regrole::text AS owner FROM pg_proc WHERE proname = 'app.messages'`,
      ),
    ).toEqual([{ may: false, owner: site.owner }])
  } finally {
    await site.database.query(`DROP OWNED BY ${admin} CASCADE; DROP ROLE ${admin}`)
  }
})

test('[P6] a table that someone holds is not waited for past the lock timeout, and writers are not queued behind', async () => {
  await using site = await Site.create()
  await site.track([])
  await site.app.query("BEGIN; UPDATE messages SET body = 'held' WHERE id = 1")
  const attempt = track({ ...site.options, tables: ['app.messages'], lockTimeoutMs: 100 }, new Lines())
  await expect(attempt).rejects.toMatchObject({ code: 'LOCK_TIMEOUT', message: expect.stringContaining('100 ms') })
  await site.app.query('COMMIT')
  expect(await site.published()).toEqual([])
  await track({ ...site.options, tables: ['app.messages'] }, new Lines())
})

test('[P8] track before migrate names migrate', async () => {
  await using site = await Site.create()
  await expect(track({ ...site.options, tables: ['app.messages'] }, new Lines())).rejects.toMatchObject({
    code: 'PUBLICATION_MISSING',
    message: expect.stringContaining('tidegate migrate'),
  })
})

test('at start a tracked table asks for no rights; one that is not names the command; an owner just tracks it', async () => {
  await using site = await Site.create()
  await site.track(['app.messages'])
  const { databaseUrl, name } = site.options
  expect(await print(out => trackAtStart({ databaseUrl, name, tables: ['app.messages'] }, out))).toBe('')
  await expect(
    trackAtStart({ databaseUrl, name, tables: ['app.messages', 'app.rooms'] }, new Lines()),
  ).rejects.toMatchObject({
    code: 'PRIVILEGE_MISSING',
    message: expect.stringContaining('ADMIN_DATABASE_URL=... tidegate track app.rooms'),
  })
  const said = await print(out => trackAtStart({ databaseUrl: site.database.url, name, tables: ['app.rooms'] }, out))
  expect(said).toContain('app.rooms: tracked')
})

test('no transaction that was writing before the publication changed is left half published', async () => {
  await using site = await Site.create()
  await site.track([])
  // FULL already: of what is left to do only the lock waits for a writer.
  await site.app.query('ALTER TABLE messages REPLICA IDENTITY FULL')
  await site.app.query("BEGIN; INSERT INTO messages VALUES (10, 1, 'early')")
  const tracking = track({ ...site.options, tables: ['app.messages'], lockTimeoutMs: 20_000 }, new Lines())
  const waiting = async () =>
    (await site.database.query(`SELECT FROM pg_locks WHERE relation = 'app.messages'::regclass AND NOT granted`)).length
  await expect.poll(waiting).toBe(1)
  await site.app.query('COMMIT')
  await tracking
  expect(await site.published()).toEqual(['app.messages'])
})
