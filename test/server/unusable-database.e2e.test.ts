// A database that the server cannot use at start, said with the statement to type; and one that goes away while it runs.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { freePort, LocalPostgres } from '../../src/cli/local-postgres.ts'
import { asSet, jwtSecret, LiveSse, person, prepareDatabase, roomsSchema, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { transports } from '../support/readers.ts'
import { ask, misfitOf, openSocket } from '../support/refused.ts'
import { runCli, startCli } from '../support/run-cli.ts'

let server: LocalPostgres
let database: TestDatabase
const [ada, plain] = [person(), `plain_${process.pid}`]

beforeAll(async () => {
  server = await LocalPostgres.create()
  await server.start()
  database = await TestDatabase.create(server.url)
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`CREATE ROLE ${plain} LOGIN PASSWORD 'p'`)
})

afterAll(async () => {
  await server?.stop()
})

/** @returns what `start` printed when it stopped by itself */
async function startStops(env: Record<string, string>): Promise<{ code: number | null; err: string }> {
  return runCli(['start'], { DATABASE_URL: database.url, JWT_SECRET: jwtSecret, PORT: '0', LOG_LEVEL: 'warn', ...env })
}

const starts: readonly (readonly [name: string, env: () => Record<string, string>, code: string, remedy: RegExp])[] = [
  [
    'a login without REPLICATION',
    () => ({ DATABASE_URL: database.urlFor(plain, 'p') }),
    'NOT_REPLICATION',
    /ALTER ROLE "?plain_\d+"? REPLICATION;/,
  ],
  [
    'a database without the publication',
    () => ({ DATABASE_URL: server.url }),
    'PUBLICATION_MISSING',
    /tidegate migrate/,
  ],
  ['another publication', () => ({ TIDEGATE_NAME: 'elsewhere' }), 'PUBLICATION_MISSING', /publication elsewhere/],
  [
    'a wrong password',
    () => ({ DATABASE_URL: database.urlFor(plain, 'wrong') }),
    'DATABASE_UNREACHABLE',
    /psql "\$DATABASE_URL"/,
  ],
  [
    'a role that does not exist',
    () => ({ DATABASE_URL: database.urlFor('nobody', 'p') }),
    'DATABASE_UNREACHABLE',
    /nobody/,
  ],
  ['a database that does not exist', () => ({ DATABASE_URL: `${server.url}_not` }), 'DATABASE_UNREACHABLE', /psql/],
  [
    'a port where nobody listens',
    () => ({ DATABASE_URL: 'postgres://u:hushhush@127.0.0.1:9/x' }),
    'DATABASE_UNREACHABLE',
    /127\.0\.0\.1:9/,
  ],
  ['no secret', () => ({ JWT_SECRET: '' }), 'CONFIG_INVALID', /JWT_SECRET is not set.*openssl rand -hex 32/],
  ['a short secret', () => ({ JWT_SECRET: 'hushhush' }), 'CONFIG_INVALID', /at least 32/],
  ['a secret and a JWKS', () => ({ JWT_JWKS_URL: 'https://id.example.com/jwks' }), 'CONFIG_INVALID', /both set/],
  ['an algorithm of the other kind', () => ({ JWT_ALGORITHMS: 'RS256' }), 'CONFIG_INVALID', /RS256/],
  ['the algorithm none', () => ({ JWT_ALGORITHMS: 'none' }), 'CONFIG_INVALID', /none/],
  [
    'a JWKS that is no URL',
    () => ({ JWT_SECRET: '', JWT_JWKS_URL: 'file:///etc/passwd' }),
    'CONFIG_INVALID',
    /JWT_JWKS_URL/,
  ],
  ['a table to track that does not exist', () => ({ TRACK: 'nothing' }), 'TABLE_UNKNOWN', /nothing/],
  ['no database', () => ({ DATABASE_URL: '' }), 'CONFIG_INVALID', /DATABASE_URL is not set/],
]

test.concurrent.each(starts)('[P8] start stops for %s', async (_, env, code, remedy) => {
  const { code: exit, err } = await startStops(env())
  expect(exit, err).toBe(1)
  expect(err).toContain(`tidegate: ${code}`)
  expect(err).toMatch(remedy)
  expect(err).not.toMatch(/hushhush|\n\s+at /)
})

test('[P8] start stops for wal_level, and says what to run', async () => {
  const replica = await LocalPostgres.create({ settings: { wal_level: 'replica' } })
  try {
    await replica.start()
    const { code, err } = await startStops({ DATABASE_URL: replica.url })
    expect(code, err).toBe(1)
    expect(err).toContain('tidegate: WAL_LEVEL')
    expect(err).toContain('ALTER SYSTEM SET wal_level = logical')
  } finally {
    await replica.stop()
  }
})

async function statusOf(url: string): Promise<number> {
  const response = await fetch(url)
  await response.arrayBuffer()
  return response.status
}

async function untilStatus(url: string, status: number): Promise<void> {
  const deadline = Date.now() + 20_000
  while ((await statusOf(url)) !== status) {
    if (Date.now() > deadline) throw new Error(`${url} is not ${status}`)
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

test('[P4] [P8] Postgres goes away and comes back: clients stay, are told, and lose nothing', {
  timeout: 90_000,
}, async () => {
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'a', 'before')`)
  const port = await freePort()
  const env = {
    DATABASE_URL: database.url,
    JWT_SECRET: jwtSecret,
    PORT: String(port),
    LOG_LEVEL: 'error',
    BEACON_MS: '500',
    HEARTBEAT_MS: '500',
  }
  await using running = startCli(['start'], env)
  await running.until(({ out }) => out.includes('ready'))
  const url = `http://127.0.0.1:${port}`
  const token = await tokenFor(ada)
  using live = await (await LiveSse.open({ url }, '/v1/live/messages', token)).exact()
  const socket = await openSocket(url)
  socket.send(JSON.stringify({ type: 'auth', token }))
  expect(await Promise.all([statusOf(`${url}/health`), statusOf(`${url}/ready`)])).toEqual([200, 200])

  await server.halt('fast')
  const isStale = ({ event, data }: { event: string; data: unknown }): boolean =>
    event === 'heartbeat' && (data as { stale: boolean }).stale
  await live.stream.until(isStale, 20_000)
  for (let told = false; !told; ) {
    const frame = await socket.next()
    if (frame === null) throw new Error(`closed with ${socket.closeCode}`)
    told = frame.type === 'heartbeat' && frame.stale === true
  }
  const states = ['health', 'ready', 'ready?scope=node'].map(path => statusOf(`${url}/${path}`))
  expect(await Promise.all(states)).toEqual([200, 503, 200])
  for (const transport of transports) {
    const answer = await ask(transport, url, token, { table: 'rooms' })
    expect(misfitOf(answer, 'UNAVAILABLE'), transport).toBe(null)
  }

  await server.start()
  await using again = await TestDatabase.connect(database)
  await again.query(
    `INSERT INTO messages VALUES (2, 1, 'a', 'after'); UPDATE messages SET body = 'changed' WHERE id = 1`,
  )
  const expected = asSet(await selectAs(again, ada, 'SELECT * FROM messages')).join()
  await live.stream.waitFor(() => asSet(live.rows.list()).join() === expected || live.failure !== null, 30_000)
  expect([live.failure, live.rows.resyncs, live.stream.ended]).toEqual([null, [], false])
  await untilStatus(`${url}/ready`, 200)
  for (const transport of transports)
    expect((await ask(transport, url, token, { table: 'rooms' })).code, transport).toBe(null)
  expect(socket.closeCode).toBe(null)
  socket.terminate()
})
