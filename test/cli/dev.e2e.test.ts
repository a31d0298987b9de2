import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { decodeJwt } from 'jose'
import pg from 'pg'
import { expect, test } from 'vitest'
import { Example } from '../../src/cli/dev/example.ts'
import { createClient } from '../../src/client/client.ts'
import { TestDatabase } from '../support/postgres.ts'
import { DevProcess } from './dev-process.ts'

// A first start makes a database cluster.
const timeout = 90_000

async function query(url: string, sql: string): Promise<Record<string, unknown>[]> {
  const client = new pg.Client({ connectionString: url })
  await client.connect()
  try {
    return (await client.query<Record<string, unknown>>(sql)).rows
  } finally {
    await client.end()
  }
}

test('without DATABASE_URL: one block, a page, two tokens that read what their owner may; Ctrl-C ends clean', {
  timeout,
}, async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-dev-'))
  // As root, Postgres runs as another user, who must be able to enter.
  await chmod(folder, 0o755)
  let database: string
  {
    await using dev = await DevProcess.start({ folder })
    database = dev.fact('Database')
    expect(dev.fact('Page')).toBe(dev.page)
    expect(decodeJwt(dev.fact('Token Ada'))).toMatchObject({ role: 'authenticated' })
    expect(dev.fact('Inspector')).toBe(`${dev.page}/inspect`)
    expect(await (await fetch(dev.fact('Inspector'))).text()).toContain('<title>Tidegate inspector</title>')
    const headers = { authorization: `Bearer ${dev.fact('Token operator')}` }
    expect((await fetch(`${dev.page}/v1/inspect/nodes`, { headers })).status).toBe(200)
    expect((await fetch(`${dev.page}/v1/inspect/nodes`)).status).toBe(401)
    expect(dev.stdout).toMatch(/psql '.+' -c "INSERT INTO messages/)
    expect(dev.stdout).toMatch(/psql '.+' -c "DELETE FROM members/)
    expect(dev.stdout.match(/Tidegate is ready/g)).toHaveLength(1)
    // What takes long is said while it does.
    expect(dev.stderr).toContain('tidegate: making a Postgres database')
    expect(dev.stderr).not.toMatch(/Warning/)

    const page = await fetch(dev.page)
    expect(page.headers.get('content-type')).toContain('text/html')
    const script = /src="(\/modules\/[^"]+)"/.exec(await page.text())?.[1]
    const module = await fetch(`${dev.page}${script}`)
    expect(module.headers.get('content-type')).toContain('text/javascript')

    // As printed: the superuser's connection writes, the two tokens read.
    const client = createClient<{ rooms: { id: number; name: string } }>(dev.page, { token: dev.fact('Token Ben') })
    for await (const { rows, status } of client.from('rooms').live()) {
      if (status !== 'live') continue
      expect(rows.map(row => row.name).sort()).toEqual(['Garden', 'Lobby'])
      break
    }
    client.close()
    await query(database, `INSERT INTO rooms VALUES (9, 'Attic')`)

    expect(await dev.interrupt()).toEqual({ code: 0, signal: null })
    await expect(fetch(dev.page)).rejects.toThrow()
    await expect(query(database, 'SELECT 1')).rejects.toThrow(/ECONNREFUSED/)
  }
  // Its rows are there the next time.
  await using again = await DevProcess.start({ folder })
  expect(await query(again.fact('Database'), 'SELECT name FROM rooms WHERE id = 9')).toEqual([{ name: 'Attic' }])
  expect(again.stderr).not.toContain('loading the example')
  await again.interrupt()
  await rm(folder, { recursive: true, force: true })
})

test("with DATABASE_URL it serves that database, and leaves someone's own tables alone", { timeout }, async () => {
  await using database = await TestDatabase.create()
  const env = { DATABASE_URL: database.url, TIDEGATE_NAME: database.name }
  const operatorToken = 'a-token-of-someone-s-own'
  const operators = { OPERATOR_TOKEN: operatorToken, ADMIN_PORT: '0' }
  await using dev = await DevProcess.start({ env: { ...env, ...operators } })
  // Known to who gave it, and perhaps good elsewhere.
  expect(dev.stdout + dev.stderr).not.toContain(operatorToken)
  expect(dev.fact('Inspector')).not.toContain(dev.page)
  expect((await fetch(dev.fact('Inspector'))).status).toBe(200)
  expect(await (await fetch(dev.page)).text()).toContain(`<a href="${dev.fact('Inspector')}">`)
  expect(dev.stdout).toContain(`Tidegate serves ${new URL(database.url).host}/${database.name}.`)
  expect(dev.stderr).toContain('preparing the database')
  expect(dev.stdout).toContain('tidegate track <table>')
  expect(await (await fetch(dev.page)).text()).toContain('The example is not loaded here')
  expect((await fetch(`${dev.page}/dev/example`)).status).toBe(404)
  expect(await database.query(`SELECT to_regclass('public.rooms') AS rooms`)).toEqual([{ rooms: null }])
})

test('--example loads the example into the database that was given', { timeout }, async () => {
  await using database = await TestDatabase.create()
  const env = { DATABASE_URL: database.url, TIDEGATE_NAME: database.name }
  await using dev = await DevProcess.start({ env, arguments: ['--example'] })
  expect(dev.fact('Database')).toBe(database.url)
  expect(await database.query('SELECT count(*)::int AS n FROM rooms')).toEqual([{ n: 3 }])
})

test('--example never mixes with tables of the same name', { timeout }, async () => {
  await using database = await TestDatabase.create()
  await database.query('CREATE TABLE members (name text)')
  const example = new Example(database.url)
  await expect(example.load()).rejects.toMatchObject({ code: 'CONFIG_INVALID' })
  await example.close()
})

test('a port in use is refused by name, and nothing is left running', { timeout }, async () => {
  const busy = createServer()
  await new Promise<void>(resolve => busy.listen(0, '127.0.0.1', resolve))
  const address = busy.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  await using database = await TestDatabase.create()
  const env = { DATABASE_URL: database.url, TIDEGATE_NAME: database.name, PORT: String(port) }
  await using dev = await DevProcess.spawn({ env })
  await expect(dev.until(() => false)).rejects.toThrow(`PORT is ${port}, where another process listens`)
  expect(dev.exit).toEqual({ code: 1, signal: null })
  busy.close()
})
