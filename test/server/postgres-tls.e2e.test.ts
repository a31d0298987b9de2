// TLS to a Postgres with an authority of its own: each sslmode, and each way in which it fails, told as one can act on it.
import { chmod, chown, copyFile, readFile, stat, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { LocalPostgres } from '../../src/cli/local-postgres.ts'
import { createPool } from '../../src/server/postgres/database.ts'
import { connectionOf, PreferringClient } from '../../src/server/postgres/postgres-url.ts'
import { reach } from '../../src/server/wal/preflight.ts'
import { Authority, type Certificate } from '../support/authority.ts'
import { LiveSse, person, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

let server: LocalPostgres
let authority: Authority
let stranger: Authority
let database: TestDatabase
let expired: Certificate
let right: Certificate
let client: Certificate
let strangersClient: Certificate

beforeAll(async () => {
  const made = await Promise.all([
    Authority.create(),
    Authority.create(),
    LocalPostgres.create({ settings: { fsync: 'off' } }),
  ])
  ;[authority, stranger, server] = made
  ;[right, expired, client, strangersClient] = await Promise.all([
    authority.issue('localhost', 'DNS:localhost'),
    authority.issue('localhost', 'DNS:localhost', -1),
    authority.issue('postgres', ''),
    stranger.issue('postgres', ''),
  ])
  const hba = join(server.dataDir, 'pg_hba.conf')
  const rules = ['hostssl certified all all scram-sha-256 clientcert=verify-ca', 'hostnossl encrypted all all reject']
  await writeFile(hba, `${rules.join('\n')}\n${await readFile(hba, 'utf8')}`)
  await copyFile(authority.ca, join(server.dataDir, 'ca.crt'))
  await present(right)
  server.set('ssl_ca_file', 'ca.crt')
  server.set('ssl', 'on')
  await server.start()
  database = await TestDatabase.create(server.url)
  await database.query('CREATE DATABASE certified')
  await database.query('CREATE DATABASE encrypted')
})

afterAll(async () => {
  await database?.[Symbol.asyncDispose]()
  await server?.stop()
  await authority?.[Symbol.asyncDispose]()
  await stranger?.[Symbol.asyncDispose]()
})

/** Puts the server's certificate in place; a running server takes it at its next reload. */
async function present({ cert, key }: Certificate): Promise<void> {
  const { uid, gid } = await stat(server.dataDir)
  for (const [from, name] of [
    [cert, 'server.crt'],
    [key, 'server.key'],
  ] as const) {
    const to = join(server.dataDir, name)
    await copyFile(from, to)
    await chown(to, uid, gid)
    await chmod(to, 0o600)
  }
}

function urlOf(host: string, query: string, name = 'postgres'): string {
  const url = new URL(server.url)
  url.hostname = host
  url.pathname = `/${name}`
  url.search = query
  return url.href
}

/** Whether the session is encrypted. @throws as a start does */
async function connect(url: string): Promise<boolean> {
  const pool = createPool(url, { maxConnections: 1 })
  try {
    const sql = 'SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()'
    const { rows } = await reach(url, () => pool.query<{ ssl: boolean }>(sql))
    return rows[0]!.ssl
  } finally {
    await pool.end()
  }
}

test('each mode is what libpq means by it', async () => {
  const { ca } = authority
  expect(await connect(urlOf('127.0.0.1', ''))).toBe(false)
  expect(await connect(urlOf('127.0.0.1', 'sslmode=disable'))).toBe(false)
  for (const query of [
    'sslmode=prefer',
    'sslmode=require',
    `sslmode=require&sslrootcert=${ca}`,
    `sslmode=verify-ca&sslrootcert=${ca}`,
  ])
    expect([query, await connect(urlOf('127.0.0.1', query))]).toEqual([query, true])
  expect(await connect(urlOf('localhost', `sslmode=verify-full&sslrootcert=${ca}`))).toBe(true)
})

const failures: readonly [string, () => string, RegExp][] = [
  [
    'another name',
    () => urlOf('127.0.0.1', `sslmode=verify-full&sslrootcert=${authority.ca}`),
    /for another name: connect by a name/,
  ],
  [
    'another authority',
    () => urlOf('localhost', `sslmode=verify-full&sslrootcert=${stranger.ca}`),
    /no authority that is known here .* sslrootcert=<file>/,
  ],
  [
    'require with another authority',
    () => urlOf('localhost', `sslmode=require&sslrootcert=${stranger.ca}`),
    /sslrootcert=<file>/,
  ],
  ['the authorities of the system', () => urlOf('localhost', 'sslmode=verify-full'), /sslrootcert=<file>/],
  [
    'no certificate of the client',
    () => urlOf('localhost', 'sslmode=require', 'certified'),
    /sslcert=<file>&sslkey=<file>/,
  ],
  ['no TLS where the server wants it', () => urlOf('localhost', '', 'encrypted'), /add sslmode=require/],
]

test.each(failures)('[P8] %s is DATABASE_UNREACHABLE, with what to do', async (_, url, message) => {
  await expect(connect(url())).rejects.toMatchObject({
    code: 'DATABASE_UNREACHABLE',
    message: expect.stringMatching(message),
  })
})

test('a certificate of the client is shown, and one of a stranger is refused', async () => {
  const by = ({ cert, key }: Certificate): string =>
    urlOf('localhost', `sslmode=verify-full&sslrootcert=${authority.ca}&sslcert=${cert}&sslkey=${key}`, 'certified')
  expect(await connect(by(client))).toBe(true)
  await expect(connect(by(strangersClient))).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE' })
})

test('the password is bound to the certificate where TLS is verified', async () => {
  const mechanisms: unknown[] = []
  for (const binding of ['require', 'disable']) {
    const url = urlOf('localhost', `sslmode=verify-full&sslrootcert=${authority.ca}&channel_binding=${binding}`)
    const session = new PreferringClient({ ...connectionOf(url) })
    const inner = session as unknown as { connection: NodeJS.EventEmitter; saslSession: { mechanism: string } }
    inner.connection.once('authenticationSASLContinue', () => mechanisms.push(inner.saslSession.mechanism))
    await session.connect()
    await session.end()
  }
  expect(mechanisms).toEqual(['SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256'])
})

test('[P1] a node reads and streams over verified TLS only, commands likewise', async () => {
  const url = urlOf('localhost', `sslmode=verify-full&sslrootcert=${authority.ca}`, database.name)
  await prepareDatabase({ ...database, url, query: database.query.bind(database) } as TestDatabase, roomsSchema, [
    ...['rooms', 'members', 'messages'],
  ])
  await using node = await TestNode.start(url)
  const ada = person()
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  using live = await (await LiveSse.open(node, '/v1/live/messages', await tokenFor(ada))).exact()
  await database.query(`INSERT INTO messages VALUES (1, 1, 'a', 'one')`)
  await live.stream.waitFor(() => live.rows.rows.size === 1)
  const sessions = await database.query<{ name: string; ssl: boolean }>(
    `SELECT application_name AS name, ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name LIKE 'tidegate%'`,
  )
  expect(sessions.map(({ name }) => name)).toContain('tidegate wal')
  expect(sessions.filter(({ ssl }) => !ssl)).toEqual([])
})

test('[P8] a certificate that has expired is told', async () => {
  await present(expired)
  await database.query('SELECT pg_reload_conf()')
  await expect
    .poll(() =>
      connect(urlOf('localhost', `sslmode=verify-full&sslrootcert=${authority.ca}`)).catch(error => error.message),
    )
    .toMatch(/has expired: renew it/)
  await expect(
    TestNode.start(urlOf('localhost', `sslmode=verify-full&sslrootcert=${authority.ca}`)),
  ).rejects.toMatchObject({
    code: 'DATABASE_UNREACHABLE',
    message: expect.stringMatching(/has expired/),
  })
})

test('prefer does without TLS where the server has none, on the pool and for the WAL, and require does not', async () => {
  server.set('ssl', 'off')
  await server.halt('fast')
  await server.start()
  await using again = await TestDatabase.connect(database)
  expect(await connect(urlOf('127.0.0.1', 'sslmode=prefer'))).toBe(false)
  const node = await TestNode.start(urlOf('127.0.0.1', 'sslmode=prefer', again.name))
  await node[Symbol.asyncDispose]()
  await expect(connect(urlOf('127.0.0.1', 'sslmode=require'))).rejects.toMatchObject({
    code: 'DATABASE_UNREACHABLE',
    message: expect.stringMatching(/set ssl = on there/),
  })
})
