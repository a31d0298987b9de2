import { expect, test } from 'vitest'
import { runPrinted, Site } from './site.ts'

const refusalOf = (tracked: Promise<string>): Promise<string> =>
  tracked.then(
    () => 'tracked',
    error => `${error.code}: ${error.message}`,
  )

test('every table that a publication has is tracked, with a report for each, and the publication stays as it was', async () => {
  await using site = await Site.create()
  await site.database.query('CREATE PUBLICATION supabase_realtime FOR TABLE app.rooms, app.messages, app.events')
  const theirs = () => site.database.query(`SELECT * FROM pg_publication_tables WHERE pubname = 'supabase_realtime'`)
  const before = await theirs()
  const said = await site.track([], { fromPublication: 'supabase_realtime' })
  expect(await site.published()).toEqual(['app.events', 'app.messages', 'app.rooms'])
  for (const table of ['app.events', 'app.events_1', 'app.messages', 'app.rooms'])
    expect(await site.identity(table)).toBe('f')
  for (const table of ['app.events', 'app.messages', 'app.rooms']) expect(said).toContain(`${table}: tracked\n`)
  expect(await theirs()).toEqual(before)
  const again = await site.track([], { fromPublication: 'supabase_realtime' })
  expect(again).toContain('app.rooms: tracked already')
})

test('tables that are named come too, once', async () => {
  await using site = await Site.create()
  await site.database.query('CREATE PUBLICATION supabase_realtime FOR TABLE app.rooms')
  const said = await site.track(['app.members', 'app.rooms'], { fromPublication: 'supabase_realtime' })
  expect(await site.published()).toEqual(['app.members', 'app.rooms'])
  expect(said.match(/^app\.rooms: /gm)).toHaveLength(1)
})

test('[P8] one that cannot be tracked says why, keeps none of the others from it, and the command fails', async () => {
  await using site = await Site.create()
  await site.app.query('CREATE TABLE keyless (note text); CREATE TABLE "odd.one" (id int PRIMARY KEY)')
  await site.database.query(
    'CREATE PUBLICATION supabase_realtime FOR TABLE app.keyless, app."odd.one", app.events_1, app.rooms',
  )
  const lines: string[] = []
  const { track } = await import('../../../src/server/admin/track.ts')
  await site.track([])
  const refused = await refusalOf(
    track(
      { ...site.options, tables: [], fromPublication: 'supabase_realtime' },
      { write: text => lines.push(text) },
    ).then(() => ''),
  )
  expect(refused).toMatch(
    /^TABLE_UNSUPPORTED: 2 of 4 tables are not tracked, the first because app\.events_1 is a partition/,
  )
  const said = lines.join('')
  expect(said).toContain('app.events_1: not tracked: TABLE_UNSUPPORTED: app.events_1 is a partition; track app.events')
  expect(said).toContain('app.keyless: not tracked: NO_PRIMARY_KEY: app.keyless has no primary key')
  expect(await site.published()).toEqual(['app."odd.one"', 'app.rooms'])
})

test('[P8] a publication that is not there, one of all tables, and our own are refused; one without tables is said', async () => {
  await using site = await Site.create()
  await site.database.query('CREATE PUBLICATION everything FOR ALL TABLES; CREATE PUBLICATION nothing')
  await site.track([])
  const refused = (name: string) => refusalOf(site.track([], { fromPublication: name }))
  expect(await refused('supabase_realtime')).toBe(
    'CONFIG_INVALID: this database has no publication "supabase_realtime" to track from; it has "everything", "nothing", "tidegate"',
  )
  expect(await refused('everything')).toContain('CONFIG_INVALID: the publication "everything" is FOR ALL TABLES')
  expect(await refused('tidegate')).toContain(`CONFIG_INVALID: "tidegate" is Tidegate's own publication`)
  expect(await site.track([], { fromPublication: 'nothing' })).toBe('the publication "nothing" has no tables\n')
  expect(await site.published()).toEqual([])
})

test('what a publication leaves out is not taken over, and said: columns, rows, operations, tables to come', async () => {
  await using site = await Site.create()
  await site.database.query(`CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY);
    CREATE PUBLICATION parts FOR TABLE app.messages (id, body), app.rooms WHERE (id > 5) WITH (publish = 'insert');
    CREATE PUBLICATION whole FOR TABLES IN SCHEMA sales`)
  const parts = await site.track([], { fromPublication: 'parts' })
  expect(parts).toContain('warning: "parts" leaves out update and delete; here a client chooses')
  expect(parts).toContain(
    'the publication shows id, body alone; here a role sees the columns that it may SELECT: GRANT SELECT (id, body) ON app.messages',
  )
  expect(parts).toContain('the publication shows rows of (id > 5) alone; here policies')
  const whole = await site.track([], { fromPublication: 'whole' })
  expect(whole).toContain(
    'warning: "whole" has all tables of schema sales; those made later are tracked when this is run again',
  )
  expect(await site.published()).toEqual(['app.messages', 'app.rooms', 'sales.orders'])
})

test('[P6] --print and --dry-run change nothing, and what is printed does what track does', async () => {
  await using site = await Site.create()
  await site.app.query('CREATE TABLE keyless (note text)')
  await site.track([])
  await site.database.query('CREATE PUBLICATION supabase_realtime FOR TABLE app.rooms, app.messages')
  const dry = await site.track([], { fromPublication: 'supabase_realtime', dryRun: true })
  expect(dry).toContain('-- Nothing was run (--dry-run).')
  const script = await site.track([], { fromPublication: 'supabase_realtime', print: true })
  expect(await site.published()).toEqual([])
  await runPrinted(site.database.url, script)
  expect(await site.published()).toEqual(['app.messages', 'app.rooms'])
})
