// The application is older than Tidegate and goes on as before: its writes, its migrations, its mistakes.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { Site } from './site.ts'

/** Every table the application may still write to takes an INSERT, an UPDATE and a DELETE from its owner. */
async function write(site: Site, table: string, insert: string, where: string): Promise<void> {
  await site.app.query(`INSERT INTO ${table} ${insert}`)
  const updated = await site.app.query(`UPDATE ${table} SET note = 'changed' WHERE ${where}`)
  const deleted = await site.app.query(`DELETE FROM ${table} WHERE ${where}`)
  expect([updated.rowCount, deleted.rowCount]).toEqual([1, 1])
}

const plain = (site: Site, table = 'plain') =>
  write(site, table, "(id, room_id, note) VALUES ('5', 1, 'new')", "id = '5'")

describe.each([
  ['with the event trigger', true],
  ['without an event trigger', false],
])('%s', (_name, hasEventTrigger) => {
  // One database: each migration is of a table of its own.
  let site: Site
  let made = 0
  beforeAll(async () => {
    site = await Site.create()
    if (!hasEventTrigger) await site.withoutEventTrigger()
  })
  afterAll(() => site?.[Symbol.asyncDispose]())

  test.each([
    ['nothing', ''],
    ['an index dropped', 'DROP INDEX plain_room'],
    ['a unique index dropped', 'DROP INDEX plain_unique'],
    ['the primary key dropped', 'ALTER TABLE plain DROP CONSTRAINT plain_pkey'],
    [
      'the primary key dropped and its column nullable',
      'ALTER TABLE plain DROP CONSTRAINT plain_pkey, ALTER COLUMN id DROP NOT NULL',
    ],
    [
      'the primary key dropped and added',
      'ALTER TABLE plain DROP CONSTRAINT plain_pkey; ALTER TABLE plain ADD PRIMARY KEY (room_id, id)',
    ],
    [
      'a deferrable primary key',
      'ALTER TABLE plain DROP CONSTRAINT plain_pkey; ALTER TABLE plain ADD PRIMARY KEY (id) DEFERRABLE',
    ],
    ['a column altered in type', 'ALTER TABLE plain ALTER COLUMN id TYPE text, ALTER COLUMN room_id TYPE bigint'],
    ['a column dropped', 'ALTER TABLE plain DROP COLUMN room_id CASCADE; ALTER TABLE plain ADD COLUMN room_id integer'],
    ['a column of a type without equality', "ALTER TABLE plain ADD COLUMN extra json DEFAULT '{}', ADD COLUMN p point"],
    ['a column renamed', 'ALTER TABLE plain RENAME COLUMN room_id TO r; ALTER TABLE plain RENAME COLUMN r TO room_id'],
    ['a generated column', 'ALTER TABLE plain ADD COLUMN twice integer GENERATED ALWAYS AS (room_id * 2) STORED'],
    ['renamed', 'ALTER TABLE plain RENAME TO other; ALTER TABLE other RENAME TO plain'],
    [
      'moved to another schema and back',
      'CREATE SCHEMA away; ALTER TABLE plain SET SCHEMA away; ALTER TABLE away.plain SET SCHEMA app',
    ],
    [
      'dropped and made again without a key',
      'DROP TABLE plain; CREATE TABLE plain (id integer, room_id integer, note text)',
    ],
    [
      'made again from a copy',
      'CREATE TABLE copy (LIKE plain INCLUDING ALL); DROP TABLE plain; ALTER TABLE copy RENAME TO plain',
    ],
    ['a child that inherits', 'CREATE TABLE child () INHERITS (plain)'],
    [
      'the row-level security switched',
      'ALTER TABLE plain ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON plain USING (true)',
    ],
  ])('[P6] the application writes to its tracked table as before after: %s', async (_, migration) => {
    made += 1
    const table = `plain${made}`
    const ofTable = (sql: string): string => sql.replaceAll('plain', table)
    await site.app.query(
      ofTable(`CREATE TABLE plain (id integer PRIMARY KEY, room_id integer NOT NULL, note text);
        CREATE INDEX plain_room ON plain (room_id); CREATE UNIQUE INDEX plain_unique ON plain (id, room_id)`),
    )
    await site.track([`app.${table}`])
    await plain(site, table)
    await site.app.query(ofTable(migration))
    await plain(site, table)
  })
})

test.each([
  ['nothing', ''],
  ['a partition added', 'CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)'],
  [
    'a partition attached',
    `CREATE TABLE events_3 (id bigint NOT NULL, day integer NOT NULL, note text);
    ALTER TABLE events ATTACH PARTITION events_3 FOR VALUES FROM (20) TO (30)`,
  ],
  [
    'a partition detached',
    'ALTER TABLE events DETACH PARTITION events_1; ALTER TABLE events ATTACH PARTITION events_1 FOR VALUES FROM (1) TO (10)',
  ],
  ['the primary key dropped', 'ALTER TABLE events DROP CONSTRAINT events_pkey'],
  ['a default partition', 'CREATE TABLE events_rest PARTITION OF events DEFAULT'],
  [
    'a partition added and the primary key dropped',
    `CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30);
    ALTER TABLE events DROP CONSTRAINT events_pkey`,
  ],
  [
    'the primary key dropped and a partition added',
    `ALTER TABLE events DROP CONSTRAINT events_pkey;
    CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)`,
  ],
])('[P6] the application writes to every partition as before after: %s', async (_, migration) => {
  await using site = await Site.create()
  await site.track(['app.events'])
  await site.app.query(migration)
  const days = await site.app.query<{ day: number }>(
    `SELECT day FROM (VALUES (2, 'events_1'), (12, 'events_2_1'), (22, 'events_3'), (40, 'events_rest')) AS d (day, name)
     WHERE to_regclass(name) IS NOT NULL`,
  )
  for (const { day } of days.rows) await write(site, 'events', `VALUES (9, ${day}, 'new')`, `id = 9 AND day = ${day}`)
})

test('[P6] every table is dropped, and its owner too, as before', async () => {
  await using site = await Site.create()
  await site.track(['app.messages', 'app.members', 'app.events', 'app.rooms'])
  await site.app.query('DROP TABLE messages, members, events, rooms')
  expect(await site.published()).toEqual([])
  expect(await site.track(['app.rooms']).catch(error => error.code)).toBe('TABLE_UNKNOWN')
})

test('[P6] a partition of the application stays writable without the event trigger, and track makes its old rows whole', async () => {
  await using site = await Site.create()
  await site.withoutEventTrigger()
  await site.track(['app.events'])
  await site.app.query('CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)')
  await write(site, 'events', "VALUES (9, 22, 'new')", 'id = 9')
  await site.track([])
  await site.app.query('ALTER TABLE events DROP CONSTRAINT events_pkey')
  await write(site, 'events', "VALUES (9, 22, 'new')", 'id = 9')
})

test('[P6] under --index, too, dropping the index stops no write where there is the event trigger', async () => {
  await using site = await Site.create()
  await site.app.query('CREATE TABLE plain (id integer PRIMARY KEY, room_id integer NOT NULL, note text)')
  await site.track(['app.plain'], { index: true, columns: ['room_id'] })
  await site.app.query(`DROP INDEX ${(await site.identity('app.plain')).slice(2)}`)
  expect(await site.identity('app.plain')).toBe('f')
  await plain(site)
})

test('[P6] a virtual generated column takes the table out of the publication, with a warning, and the application writes on', async () => {
  await using site = await Site.create()
  const [server] = await site.database.query<{ version: number }>(
    `SELECT current_setting('server_version_num')::int AS version`,
  )
  const adding = 'ALTER TABLE plain ADD COLUMN twice integer GENERATED ALWAYS AS (room_id * 2) VIRTUAL'
  await site.app.query('CREATE TABLE plain (id integer PRIMARY KEY, room_id integer NOT NULL, note text)')
  await site.track(['app.plain', 'app.messages'])
  const warnings: (string | undefined)[] = []
  site.app.on('notice', notice => warnings.push(notice.message))
  if (server!.version < 180_000) return await expect(site.app.query(adding)).rejects.toThrow('syntax error')
  await site.app.query(adding)
  expect(warnings).toEqual([expect.stringContaining('tidegate does not follow app.plain any more')])
  expect(await site.published()).toEqual(['app.messages'])
  await plain(site)
  await expect(site.track(['app.plain'])).rejects.toMatchObject({
    code: 'IDENTITY_INSUFFICIENT',
    message: expect.stringContaining('virtual generated column'),
  })
  await site.track(['app.plain'], { index: true, columns: ['room_id'] })
  await plain(site)
})

test('what the event trigger cannot do fails no migration of the application', async () => {
  await using site = await Site.create()
  await site.track(['app.events'])
  await site.database.query('ALTER TABLE tidegate.identity_before RENAME TO gone')
  await site.app.query('CREATE TABLE events_3 PARTITION OF events FOR VALUES FROM (20) TO (30)')
  await write(site, 'events', "VALUES (9, 22, 'new')", 'id = 9')
})
