import { expect, test } from 'vitest'
import { TestDatabase } from '../support/postgres.ts'
import { runCli } from '../support/run-cli.ts'
import { makeSupabase } from '../support/supabase-schema.ts'

test('migrate, track, untrack and remove do their work from the terminal', async () => {
  await using database = await TestDatabase.create()
  await database.query('CREATE TABLE messages (id int PRIMARY KEY, body text)')
  const env = { DATABASE_URL: database.url, TIDEGATE_NAME: database.name }
  const tidegate = async (...args: string[]): Promise<string> => {
    const { code, out, err } = await runCli(args, env)
    expect([args, code, err]).toEqual([args, 0, ''])
    return out
  }
  const published = (): Promise<Record<string, unknown>[]> =>
    database.query("SELECT pubname, tablename FROM pg_publication_tables WHERE schemaname = 'public'")
  const publications = (): Promise<Record<string, unknown>[]> => database.query('SELECT pubname FROM pg_publication')
  const identity = (): Promise<Record<string, unknown>[]> =>
    database.query(`SELECT relreplident FROM pg_class WHERE oid = 'messages'::regclass`)

  expect(await tidegate('migrate', '--print')).toContain('CREATE PUBLICATION')
  await tidegate('migrate', '--dry-run')
  expect(await publications()).toEqual([])

  await tidegate('migrate', '--no-conventions')
  expect(await publications()).toEqual([{ pubname: database.name }])
  await tidegate('track', 'messages', '--dry-run')
  expect(await published()).toEqual([])
  await tidegate('track', 'messages')
  expect(await published()).toEqual([{ pubname: database.name, tablename: 'messages' }])
  expect(await identity()).toEqual([{ relreplident: 'f' }])
  await database.query('CREATE TABLE notes (id int PRIMARY KEY); CREATE PUBLICATION theirs FOR TABLE messages, notes')
  expect(await tidegate('track', '--from-publication', 'theirs')).toContain('public.notes: tracked\n')
  await database.query('DROP PUBLICATION theirs')
  expect((await published()).map(({ tablename }) => tablename)).toEqual(['messages', 'notes'])
  await tidegate('untrack', 'messages', 'notes')
  expect(await published()).toEqual([])
  expect(await identity()).toEqual([{ relreplident: 'd' }])
  await tidegate('remove')
  expect(await publications()).toEqual([])
})

test('beside a Supabase, migrate says which commands are left, and those do it', async () => {
  await using database = await TestDatabase.create()
  await makeSupabase(database)
  await database.query(
    'CREATE TABLE todos (id int PRIMARY KEY); ALTER PUBLICATION supabase_realtime ADD TABLE public.todos',
  )
  const env = { DATABASE_URL: database.url, TIDEGATE_NAME: database.name }
  const { code, out } = await runCli(['migrate'], env)
  expect(code).toBe(0)
  const commands = [...out.matchAll(/tidegate (migrate --adopt-realtime|track --from-publication supabase_realtime)/g)]
  expect(commands.map(([, command]) => command)).toEqual([
    'migrate --adopt-realtime',
    'track --from-publication supabase_realtime',
  ])
  for (const [, command] of commands) expect((await runCli(command!.split(' '), env)).code).toBe(0)
  expect((await runCli(['migrate'], env)).out).not.toMatch(/tidegate (migrate|track --from)/)
  await expect(database.query(`SELECT realtime.send('{}', NULL, 't')`)).rejects.toMatchObject({ code: '22004' })
  expect((await runCli(['remove'], env)).code).toBe(0)
  await database.query(`SELECT realtime.send('{}', NULL, 't')`)
})

test('[P8] a table that is not there, a lock time that does not fit: code, message, remedy, exit code 1', async () => {
  await using database = await TestDatabase.create()
  const env = { DATABASE_URL: database.url, TIDEGATE_NAME: database.name }
  await runCli(['migrate', '--no-conventions'], env)
  const unknown = await runCli(['track', 'nowhere'], env)
  expect([unknown.code, unknown.err]).toEqual([
    1,
    expect.stringMatching(/^tidegate: TABLE_UNKNOWN\n.*nowhere.*\n {2}Remedy: /),
  ])
  const lock = await runCli(['track', 'nowhere', '--lock-timeout-ms', 'soon'], env)
  expect([lock.code, lock.err]).toEqual([1, expect.stringContaining('--lock-timeout-ms is "soon"')])
})

test('[P8] migrate before its login was made says how to make it, and changes nothing', async () => {
  await using database = await TestDatabase.create()
  const url = new URL(database.url)
  url.username = 'not_made_yet'
  const env = { DATABASE_URL: url.href, ADMIN_DATABASE_URL: database.url, TIDEGATE_NAME: database.name }
  const { code, err } = await runCli(['migrate'], env)
  expect([code, err]).toEqual([1, expect.stringContaining('CREATE ROLE "not_made_yet" LOGIN REPLICATION PASSWORD')])
  expect(await database.query(`SELECT FROM pg_namespace WHERE nspname = 'tidegate'`)).toEqual([])
})

test('[P8] a database nobody answers for is named without its password', async () => {
  const { code, err } = await runCli(['track', 'messages'], { DATABASE_URL: 'postgres://me:hunter2@127.0.0.1:9/app' })
  expect(code).toBe(1)
  expect(err).toContain('DATABASE_UNREACHABLE')
  expect(err).toContain('127.0.0.1:9')
  expect(err).not.toContain('hunter2')
})
