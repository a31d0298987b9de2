import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { expect, test } from 'vitest'
import { freePort, LocalPostgres } from '../src/cli/local-postgres.ts'
import { Shell } from './docs/shell.ts'

// The README's blocks are run as they stand, against a Postgres of their own: only the settings of the first block are
// replaced, as its reader would. What is installed is this tree; scripts/quickstart.ts installs the package.
const root = fileURLToPath(new URL('../', import.meta.url))
const readme = await readFile(`${root}README.md`, 'utf8')
const section = /^## With the database you have\n(.*?)^## /ms.exec(readme)?.[1] ?? ''
const blocks = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(match => match[1]!)
const [settings = '', install = '', login = '', policies = '', track = '', start = '', , follow = ''] = blocks
const [write = '', revoke = '', channelPolicies = '', enter = '', send = ''] = blocks.slice(8)

/** A folder in which `npx tidegate` runs this tree's sources. */
async function installedFolder(): Promise<AsyncDisposable & { readonly path: string }> {
  const path = await mkdtemp(join(tmpdir(), 'readme-'))
  const bin = join(path, 'node_modules/.bin')
  await mkdir(bin, { recursive: true })
  const script = `#!/bin/sh\nexec '${process.execPath}' '${root}src/cli/main.ts' "$@"\n`
  await writeFile(join(bin, 'tidegate'), script, { mode: 0o755 })
  return { path, [Symbol.asyncDispose]: () => rm(path, { recursive: true, force: true }) }
}

async function rows(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows
  } finally {
    await client.end()
  }
}

/** The data of every event of one name in the text of an event stream. */
const events = (text: string, name: string): string[] =>
  [...text.matchAll(new RegExp(`^event: ${name}\\ndata: (.*)$`, 'gm'))].map(match => match[1]!)

test('the README, word for word, on a database someone already has', { timeout: 180_000 }, async () => {
  expect(blocks).toHaveLength(13)
  expect(install).toBe('npm install tidegate\n')
  await using server = await LocalPostgres.create({ settings: { max_slot_wal_keep_size: '1GB' } })
  await server.start()
  await rows(server.url, `CREATE ROLE app LOGIN PASSWORD 'secret'`)
  await rows(server.url, 'CREATE DATABASE app OWNER app')
  const address = `127.0.0.1:${server.port}/app`
  await using folder = await installedFolder()
  const env = {
    ADMIN_DATABASE_URL: server.url.replace(/\/postgres$/, '/app'),
    APP_URL: `postgres://app:secret@${address}`,
    DATABASE_URL: `postgres://tidegate:choose-one@${address}`,
    JWT_SECRET: 'a secret of at least thirty-two bytes',
    PORT: String(await freePort()),
  }
  const run = (script: string) => new Shell(script, { cwd: folder.path, env })
  // Every setting of the first block is one that the others get, and no other is needed.
  const named = [...settings.matchAll(/^export (\w+)=/gm)].map(match => match[1])
  expect(named).toEqual(['ADMIN_DATABASE_URL', 'APP_URL', 'DATABASE_URL', 'JWT_SECRET'])

  await run(login).end()
  await run(policies).end()
  await run(track).end()

  expect(start).toContain('env -u ADMIN_DATABASE_URL')
  await using serving = run(start)
  await serving.until(() => serving.stdout.includes('tidegate is ready'))
  const [role] = await rows(
    env.ADMIN_DATABASE_URL,
    `SELECT rolsuper, rolbypassrls, rolcreaterole, rolcreatedb,
       (SELECT count(*)::int FROM pg_class WHERE relowner = r.oid) AS owned,
       pg_has_role('tidegate', 'app', 'MEMBER') AS owner
     FROM pg_roles r WHERE rolname = 'tidegate'`,
  )
  expect(role).toEqual({
    rolsuper: false,
    rolbypassrls: false,
    rolcreaterole: false,
    rolcreatedb: false,
    owned: 0,
    owner: false,
  })

  await using following = run(follow)
  await following.until(() => events(following.stdout, 'snapshot').length > 0)
  expect(events(following.stdout, 'snapshot').join()).toContain('"rows":[]')
  await run(write).end()
  await following.until(() => events(following.stdout, 'delta').join().includes('Water the plants'))
  await run(revoke).end()
  await following.until(() => events(following.stdout, 'delta').join().includes('"op":"delete"'))
  expect(following.stdout).not.toContain('Somebody else')

  await run(channelPolicies).end()
  await using inChannel = run(enter)
  await inChannel.until(() => events(inChannel.stdout, 'joined').length > 0)
  await run(send).end()
  await inChannel.until(() => events(inChannel.stdout, 'message').length === 2)
  expect(events(inChannel.stdout, 'message').map(data => JSON.parse(data) as unknown)).toMatchObject([
    { event: 'typing', payload: { on: true } },
    { event: 'said', payload: { text: 'Water them twice' } },
  ])
  await run(revoke).end()
  await inChannel.until(() => events(inChannel.stdout, 'error').join().includes('CHANNEL_CLOSED'))

  // The application, as the tables' owner, reads and writes as before.
  expect(await rows(env.APP_URL, 'SELECT team_id::int, title FROM tasks ORDER BY id')).toEqual([
    { team_id: 7, title: 'Water the plants' },
    { team_id: 8, title: "Somebody else's task" },
  ])
  await rows(env.APP_URL, `UPDATE tasks SET title = upper(title) WHERE team_id = 8`)
  await rows(env.APP_URL, 'DELETE FROM tasks WHERE team_id = 7')
  await rows(env.APP_URL, 'TRUNCATE team_members')
  expect(await rows(env.APP_URL, 'SELECT title FROM tasks')).toEqual([{ title: "SOMEBODY ELSE'S TASK" }])
})
