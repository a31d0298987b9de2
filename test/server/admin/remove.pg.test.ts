// Removing touches roles, which belong to the whole cluster: so each test has a server of its own.
import { LogicalReplicationService, PgoutputPlugin } from 'pg-logical-replication'
import { expect, test } from 'vitest'
import { migrate } from '../../../src/cli/commands/migrate.ts'
import { remove } from '../../../src/cli/commands/remove.ts'
import { track } from '../../../src/cli/commands/track.ts'
import { untrack } from '../../../src/cli/commands/untrack.ts'
import { dump, startServer } from './dump.ts'
import { Lines, print, runPrinted, Site } from './site.ts'

async function identities(site: Site): Promise<string[]> {
  const found: string[] = []
  for (const name of ['app.messages', 'app.members', 'app.rooms', 'app.events_1']) found.push(await site.identity(name))
  return found
}

async function prepare(site: Site): Promise<void> {
  await site.app.query(`ALTER TABLE members REPLICA IDENTITY NOTHING; ALTER TABLE rooms REPLICA IDENTITY FULL;
    CREATE UNIQUE INDEX messages_identity ON messages (id, room_id); ALTER TABLE messages REPLICA IDENTITY USING INDEX messages_identity`)
}

const tables = ['app.messages', 'app.members', 'app.rooms', 'app.events']

test('[P6] after remove the schema is dumped as before migrate, roles are as before, and no slot is left', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  await prepare(site)
  const before = await dump(site)
  for (const extra of [{}, { index: true, columns: ['room_id'] }]) {
    await site.track(extra.index === true ? ['app.members', 'app.messages'] : tables, extra)
    await site.app.query('CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)')
    await site.database.query(`SELECT pg_create_logical_replication_slot('tidegate_0123abcd', 'pgoutput')`)
    await site.app.query('UPDATE messages SET body = body; DELETE FROM events')
    expect(await dump(site)).not.toBe(before)
    await remove(site.options, new Lines())
    // Its replica identity went back, or this would be refused by nobody: the publication is gone.
    expect(await site.identity('app.events_3')).toBe('d')
    await site.app.query('DROP TABLE events_3; UPDATE messages SET body = body')
    expect(await dump(site)).toBe(before)
  }
  expect(await print(out => remove(site.options, out))).toContain('there is nothing of Tidegate')
})

test('[P6] untrack gives every replica identity back as it was, drops index and function, and the application writes on', async () => {
  await using site = await Site.create()
  await prepare(site)
  const before = await identities(site)
  expect(before).toEqual(['i app.messages_identity', 'n', 'f', 'd'])
  await site.track(tables)
  await site.app.query('ALTER TABLE rooms RENAME TO places')
  await untrack({ ...site.options, tables: ['app.messages', 'app.members', 'app.places', 'app.events'] }, new Lines())
  await site.app.query('ALTER TABLE places RENAME TO rooms')
  expect(await identities(site)).toEqual(before)
  expect(await site.published()).toEqual([])
  expect(await site.readFunctions()).toEqual([])
  // NOTHING is an identity only while nobody publishes the table.
  await site.app.query('UPDATE members SET room_id = 2; UPDATE messages SET body = body')
  expect(await site.database.query('SELECT FROM tidegate.tracked')).toEqual([])
  expect(await site.database.query('SELECT FROM tidegate.identity_before')).toEqual([])
})

test('untrack says what it cannot give back: an identity changed since, and an index that is gone', async () => {
  await using site = await Site.create()
  await prepare(site)
  await site.track(['app.messages', 'app.members'])
  await site.app.query('DROP INDEX messages_identity; ALTER TABLE members REPLICA IDENTITY DEFAULT')
  const said = await print(out => untrack({ ...site.options, tables: ['app.messages', 'app.members'] }, out))
  expect(said).toContain('app.messages gets REPLICA IDENTITY DEFAULT: the index that it had was dropped')
  expect(said).toContain('app.members keeps its replica identity, which was changed')
  expect([await site.identity('app.messages'), await site.identity('app.members')]).toEqual(['d', 'd'])
})

test('[P8] untrack refuses a table that is not tracked, takes a dropped one by the name it had, and --dry-run only shows', async () => {
  await using site = await Site.create()
  await site.track(['app.messages', 'app.rooms'])
  await expect(
    untrack({ ...site.options, tables: ['app.messages', 'app.members'] }, new Lines()),
  ).rejects.toMatchObject({
    code: 'TABLE_UNKNOWN',
    message: 'app.members is not tracked; tracked are: app.messages, app.rooms',
  })
  const shown = await print(out => untrack({ ...site.options, tables: ['app.messages'], dryRun: true }, out))
  expect(shown).toContain('ALTER PUBLICATION "tidegate" DROP TABLE ONLY app.messages;')
  expect(await site.published()).toEqual(['app.messages', 'app.rooms'])
  await site.app.query('DROP TABLE rooms')
  await untrack({ ...site.options, tables: ['app.rooms'] }, new Lines())
  expect(await site.readFunctions()).toEqual(['app.messages'])
  await runPrinted(site.database.url, shown)
  expect(await site.published()).toEqual([])
  expect(await site.identity('app.messages')).toBe('d')
})

test('[P8] remove is refused while a server streams, and with --force ends its session', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  await site.track(['app.messages'])
  await site.database.query(`SELECT pg_create_logical_replication_slot('tidegate_0123abcd', 'pgoutput'),
    pg_create_logical_replication_slot('tidegate_two_0123abcd', 'pgoutput')`)
  const service = new LogicalReplicationService(
    { connectionString: site.loginUrl },
    { acknowledge: { auto: false, timeoutSeconds: 0 } },
  )
  const ended = new Promise<unknown>(resolve => service.on('error', resolve))
  service
    .subscribe(new PgoutputPlugin({ protoVersion: 1, publicationNames: ['tidegate'] }), 'tidegate_0123abcd')
    .catch(() => {})
  const isActive = async () =>
    (await site.database.query(`SELECT FROM pg_replication_slots WHERE slot_name = 'tidegate_0123abcd' AND active`))
      .length
  await expect.poll(isActive).toBe(1)
  await expect(remove(site.options, new Lines())).rejects.toMatchObject({
    code: 'SLOT_BUSY',
    message: expect.stringContaining('tidegate_0123abcd'),
  })
  expect(await site.published()).toEqual(['app.messages'])
  await remove({ ...site.options, force: true }, new Lines())
  await ended
  await service.stop()
  expect(await site.database.query('SELECT slot_name FROM pg_replication_slots')).toEqual([
    { slot_name: 'tidegate_two_0123abcd' },
  ])
})

test('an administrator who may not replicate removes the slot through the login of the server', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  const options = { ...site.options, adminUrl: site.ownerUrl }
  await migrate({ ...options, conventions: false }, new Lines())
  await track({ ...options, tables }, new Lines())
  await site.asLogin(client =>
    client.query(`SELECT pg_create_logical_replication_slot('tidegate_0123abcd', 'pgoutput')`),
  )
  expect(await print(out => remove(options, out))).toContain('dropped the slot tidegate_0123abcd')
  expect(await site.database.query(`SELECT to_regnamespace('tidegate') AS found FROM pg_publication`)).toEqual([])
})

test('what others depend on stays, and remove says so: a function in a policy, a role with grants or members', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  await site.track(['app.messages'])
  await site.database.query(`CREATE POLICY own ON app.members USING (user_id = auth.uid());
    GRANT SELECT ON app.messages TO anon; CREATE ROLE gate LOGIN; GRANT authenticated TO gate`)
  const said = await print(out => remove(site.options, out))
  expect(said).toContain('kept: FUNCTION auth.uid(): policy own on table app.members depends on function auth.uid()')
  expect(said).toContain('kept: SCHEMA "auth"')
  expect(said).toContain('kept: ROLE "anon": privileges for')
  expect(said).toContain('kept: ROLE "authenticated": granted to gate')
  expect(
    await site.database.query(`SELECT to_regprocedure('auth.jwt()') AS jwt, to_regnamespace('tidegate') AS tidegate`),
  ).toEqual([{ jwt: null, tidegate: null }])
  expect(await site.database.query(`SELECT has_schema_privilege('anon', 'auth', 'USAGE') AS may`)).toEqual([
    { may: true },
  ])
})

test('what was there before migrate stays: roles, the schema auth, its functions and grants', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  await site.database.query(`CREATE ROLE anon; CREATE SCHEMA auth; GRANT USAGE ON SCHEMA auth TO anon; GRANT anon TO ${site.login};
    CREATE FUNCTION auth.uid() RETURNS uuid LANGUAGE sql STABLE AS 'SELECT null::uuid'`)
  const before = await dump(site)
  await site.track(['app.messages'])
  await remove(site.options, new Lines())
  expect(await dump(site)).toBe(before)
})

test('of two deployments in one database the first to go leaves the other whole', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  const before = await dump(site)
  const second = { ...site.options, name: 'second' }
  await site.track(['app.messages', 'app.rooms'])
  await migrate(second, new Lines())
  await track({ ...second, tables: ['app.messages'] }, new Lines())
  const said = await print(out => remove(site.options, out))
  expect(said).toContain('app.messages keeps its replica identity: another deployment tracks it')
  expect([await site.identity('app.messages'), await site.identity('app.rooms')]).toEqual(['f', 'd'])
  expect(await site.readFunctions()).toEqual(['app.messages'])
  await remove(second, new Lines())
  expect(await dump(site)).toBe(before)
})

test('of two deployments that share a table the last to go drops the index of its identity, whoever made it', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  const before = await dump(site)
  const second = { ...site.options, name: 'second' }
  await site.track(['app.messages'])
  await migrate(second, new Lines())
  for (const columns of [['id'], ['room_id']]) {
    await track({ ...second, tables: ['app.messages'], index: true, columns }, new Lines())
    expect(await site.identity('app.messages')).toMatch(/^i app\.tidegate_identity_/)
  }
  await remove(second, new Lines())
  expect(await site.identity('app.messages')).toMatch(/^i app\.tidegate_identity_/)
  await remove(site.options, new Lines())
  expect(await dump(site)).toBe(before)
})

test('remove --dry-run changes nothing, and what it shows does the same with psql', async () => {
  await using server = await startServer()
  await using site = await Site.create(server.url)
  await prepare(site)
  const before = await dump(site)
  await site.track(tables)
  await site.database.query(`SELECT pg_create_logical_replication_slot('tidegate_0123abcd', 'pgoutput')`)
  const tracked = await dump(site)
  const shown = await print(out => remove({ ...site.options, dryRun: true }, out))
  expect(await dump(site)).toBe(tracked)
  await runPrinted(site.database.url, shown)
  expect(await dump(site)).toBe(before)
})
