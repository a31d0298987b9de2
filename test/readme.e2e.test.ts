import { type ChildProcess, spawn } from 'node:child_process'
import { readFile } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import pg from 'pg'
import { expect, test } from 'vitest'
import { freePort, LocalPostgres } from '../src/cli/local-postgres.ts'

// The README's blocks are run as they stand, against a Postgres of their own: only the settings of the first block are
// replaced, as its reader would.
const root = fileURLToPath(new URL('../', import.meta.url))
const readme = await readFile(`${root}README.md`, 'utf8')
const section = /^## With the database you have\n(.*?)^## /ms.exec(readme)?.[1] ?? ''
const blocks = [...section.matchAll(/^```sh\n(.*?)^```$/gms)].map(match => match[1]!)
const [settings = '', login = '', policies = '', track = '', start = '', follow = '', write = '', revoke = ''] = blocks
const [channelPolicies = '', join = '', send = ''] = blocks.slice(8)

/** Runs a block in bash. */
class Block {
  stdout = ''
  // Apart: curl draws its progress between the lines of the stream.
  stderr = ''
  exitCode: number | null = null
  readonly #child: ChildProcess
  #wake = (): void => {}

  constructor(script: string, env: Record<string, string>) {
    const { PATH = '', HOME = '' } = process.env
    // A group of its own: npm does not hand on every signal.
    this.#child = spawn('bash', ['-euo', 'pipefail', '-c', script], {
      cwd: root,
      env: { PATH, HOME, ...env },
      detached: true,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#child.stdout!.setEncoding('utf8').on('data', (text: string) => {
      this.stdout += text
      this.#wake()
    })
    this.#child.stderr!.setEncoding('utf8').on('data', (text: string) => {
      this.stderr += text
    })
    this.#child.once('close', code => {
      this.exitCode = code ?? -1
      this.#wake()
    })
  }

  async until(isTrue: () => boolean): Promise<void> {
    while (!isTrue()) {
      if (this.exitCode !== null)
        throw new Error(`the block ended with ${this.exitCode}:\n${this.stdout}${this.stderr}`)
      await this.#news()
    }
  }

  /** @throws when it fails */
  async end(): Promise<void> {
    while (this.exitCode === null) await this.#news()
    if (this.exitCode !== 0) throw new Error(`the block ended with ${this.exitCode}:\n${this.stdout}${this.stderr}`)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.exitCode === null) process.kill(-this.#child.pid!, 'SIGTERM')
    while (this.exitCode === null) await this.#news()
  }

  #news(): Promise<void> {
    return new Promise(resolve => {
      this.#wake = resolve
    })
  }
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
  expect(blocks).toHaveLength(11)
  await using server = await LocalPostgres.create({ settings: { max_slot_wal_keep_size: '1GB' } })
  await server.start()
  await rows(server.url, `CREATE ROLE app LOGIN PASSWORD 'secret'`)
  await rows(server.url, 'CREATE DATABASE app OWNER app')
  const address = `127.0.0.1:${server.port}/app`
  const env = {
    ADMIN_DATABASE_URL: server.url.replace(/\/postgres$/, '/app'),
    APP_URL: `postgres://app:secret@${address}`,
    DATABASE_URL: `postgres://tidegate:choose-one@${address}`,
    JWT_SECRET: 'a secret of at least thirty-two bytes',
    PORT: String(await freePort()),
  }
  // Every setting of the first block is one that the others get, and no other is needed.
  const named = [...settings.matchAll(/^export (\w+)=/gm)].map(match => match[1])
  expect(named).toEqual(['ADMIN_DATABASE_URL', 'APP_URL', 'DATABASE_URL', 'JWT_SECRET'])

  await new Block(login, env).end()
  await new Block(policies, env).end()
  await new Block(track, env).end()

  expect(start).toContain('env -u ADMIN_DATABASE_URL')
  await using serving = new Block(start, env)
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

  await using following = new Block(follow, env)
  await following.until(() => events(following.stdout, 'snapshot').length > 0)
  expect(events(following.stdout, 'snapshot').join()).toContain('"rows":[]')
  await new Block(write, env).end()
  await following.until(() => events(following.stdout, 'delta').join().includes('Water the plants'))
  await new Block(revoke, env).end()
  await following.until(() => events(following.stdout, 'delta').join().includes('"op":"delete"'))
  expect(following.stdout).not.toContain('Somebody else')

  await new Block(channelPolicies, env).end()
  await using inChannel = new Block(join, env)
  await inChannel.until(() => events(inChannel.stdout, 'joined').length > 0)
  await new Block(send, env).end()
  await inChannel.until(() => events(inChannel.stdout, 'message').length === 2)
  expect(events(inChannel.stdout, 'message').map(data => JSON.parse(data) as unknown)).toMatchObject([
    { event: 'typing', payload: { on: true } },
    { event: 'said', payload: { text: 'Water them twice' } },
  ])
  await new Block(revoke, env).end()
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
