// What users' own tests stand on: a Tidegate that is whole, knows when it is idle, and leaves nothing.
import { execFile, spawn } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import { decodeJwt } from 'jose'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { type ConfigByName, startTidegate, type TestTidegate } from '../../src/testing/start-tidegate.ts'
import { whyNoDocker } from '../support/docker.ts'
import { person, roomsSchema } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { findRedis, type TestRedis } from '../support/redis.ts'

const databaseUrl = inject('databaseUrl')
const ada = '00000000-0000-4000-8000-000000000ada'
const ben = '00000000-0000-4000-8000-000000000b0b'

interface Database {
  messages: { id: number; room_id: number; author: string | null; body: string | null }
}

let server: TestDatabase
let redis: TestRedis
/** Of several tests, each with a user and a room of its own. */
let shared: TestTidegate

beforeAll(async () => {
  server = await TestDatabase.create()
  redis = await findRedis()
  shared = await startTidegate({ databaseUrl, setup: roomsSchema })
})
afterAll(async () => {
  await shared?.[Symbol.asyncDispose]()
  await redis?.[Symbol.asyncDispose]()
  await server?.[Symbol.asyncDispose]()
})

/** The rows that a user's live query shows at the moment. */
function bodiesOf(tide: TestTidegate, sub: string): () => (string | null)[] {
  let bodies: (string | null)[] = []
  const query = tide.client<Database>(sub).from('messages').select(['id', 'body']).live()
  query.subscribe(({ rows }) => {
    bodies = rows.map(({ body }) => body).toSorted()
  })
  return () => bodies
}

/** What a server of Postgres has of the Tidegates of tests, but for the roles that policies name. */
const traces = async (): Promise<unknown[]> =>
  await server.query(`
    SELECT 'database' AS what, datname AS name FROM pg_database WHERE datname LIKE 'tidegate_test_%' AND datname <> '${server.name}'
    UNION ALL SELECT 'role', rolname FROM pg_roles WHERE rolname LIKE 'tidegate_test_%'
    UNION ALL SELECT 'slot', slot_name FROM pg_replication_slots WHERE slot_name LIKE 'tidegate_test_%'
    ORDER BY 1, 2`)

const nameOf = ({ databaseUrl: url }: TestTidegate): string => new URL(url).pathname.slice(1)

test('[P1] each user sees what a SELECT gives, at once after waitForIdle', async () => {
  const tide = shared
  const [adas, bens] = [bodiesOf(tide, ada), bodiesOf(tide, ben)]
  for (let n = 0; n < 50; n++) await tide.sql`INSERT INTO messages VALUES (${n}, ${n % 2}, ${ada}, ${`text ${n}`})`
  await tide.waitForIdle()
  expect([adas(), bens()]).toEqual([[], []])
  await tide.sql`INSERT INTO members VALUES (0, ${ada}), (1, ${ben})`
  await tide.waitForIdle()
  expect([adas().length, bens().length]).toEqual([25, 25])
  await tide.query(`DELETE FROM members WHERE room_id = 1; UPDATE messages SET body = 'changed' WHERE room_id = 0`)
  await tide.waitForIdle()
  expect([new Set(adas()), bens()]).toEqual([new Set(['changed']), []])
})

const transports = ['websocket', 'sse', 'long-poll'] as const

test.each(transports)('waitForIdle over %s', async transport => {
  const tide = shared
  const sub = person()
  const room = 10 + transports.indexOf(transport)
  let bodies: (string | null)[] = []
  const client = tide.client<Database>(sub, { transports: [transport] })
  client
    .from('messages')
    .live()
    .subscribe(({ rows }) => {
      bodies = rows.map(({ body }) => body)
    })
  await tide.sql`INSERT INTO members VALUES (${room}, ${sub})`
  for (let n = 1; n <= 10; n++) {
    await tide.sql`INSERT INTO messages VALUES (${room * 100 + n}, ${room}, ${sub}, ${`text ${n}`})`
    await tide.waitForIdle({ timeoutMs: 20_000 })
    expect(bodies).toContain(`text ${n}`)
  }
})

test('waitForIdle ends as soon as a query that was held for a grant has nothing of it', async () => {
  await using tide = await startTidegate({ databaseUrl, setup: roomsSchema })
  bodiesOf(tide, ada)
  await tide.waitForIdle()
  for (let room = 1; room <= 20; room++) {
    await tide.sql`INSERT INTO members VALUES (${room}, ${ada})`
    await tide.waitForIdle({ timeoutMs: 20_000 })
  }
})

test('[P4] restart: clients come back by themselves, and have what was written meanwhile', async () => {
  await using tide = await startTidegate({ databaseUrl, setup: roomsSchema })
  await tide.sql`INSERT INTO members VALUES (1, ${ada})`
  const bodies = bodiesOf(tide, ada)
  await tide.waitForIdle()
  const { url } = tide
  const restarted = tide.restart()
  await tide.sql`INSERT INTO messages VALUES (1, 1, ${ada}, 'meanwhile')`
  await restarted
  await tide.waitForIdle()
  expect([tide.url, bodies()]).toEqual([url, ['meanwhile']])
})

test('[P6] afterwards nothing is left of it: no database, login, slot or key', async () => {
  const keys = new Redis(redis.url)
  let name = ''
  {
    await using tide = await startTidegate({ databaseUrl, redisUrl: redis.url, setup: roomsSchema })
    name = nameOf(tide)
    await tide.sql`INSERT INTO members VALUES (1, ${ada})`
    const bodies = bodiesOf(tide, ada)
    await tide.sql`INSERT INTO messages VALUES (1, 1, ${ada}, 'over Redis')`
    await tide.waitForIdle()
    expect(bodies()).toEqual(['over Redis'])
    expect((await keys.keys(`{${name}*`)).length).toBeGreaterThan(0)
    expect(await traces()).toContainEqual({ what: 'database', name })
  }
  expect(await keys.keys(`{${name}*`)).toEqual([])
  expect(JSON.stringify(await traces())).not.toContain(name)
  keys.disconnect()
})

test('[P6] a database that was given is left as it was', async () => {
  await using given = await TestDatabase.create()
  await given.query('CREATE TABLE notes (id int PRIMARY KEY, body text); INSERT INTO notes VALUES (1, $$mine$$)')
  const left = () =>
    given.query(`
      SELECT 'publication' AS what, pubname AS name FROM pg_publication
      UNION ALL SELECT 'trigger', evtname FROM pg_event_trigger
      UNION ALL SELECT 'slot', slot_name FROM pg_replication_slots WHERE database = current_database()
      UNION ALL SELECT 'schema', nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname NOT IN ('public', 'information_schema')
      UNION ALL SELECT 'identity', relreplident::text FROM pg_class WHERE oid = 'notes'::regclass`)
  const before = await left()
  {
    await using tide = await startTidegate({
      databaseUrl: given.url,
      database: 'given',
      setup: 'GRANT SELECT ON notes TO authenticated; GRANT USAGE ON SCHEMA public TO authenticated',
    })
    const rows: unknown[] = []
    tide
      .client('anybody')
      .from('notes')
      .live()
      .subscribe(update => rows.splice(0, rows.length, ...update.rows))
    await tide.waitForIdle()
    expect(rows).toEqual([{ id: 1, body: 'mine' }])
    expect((await left()).length).toBeGreaterThan(before.length)
    await tide.query('REVOKE ALL ON notes FROM authenticated; REVOKE USAGE ON SCHEMA public FROM authenticated')
  }
  expect(await left()).toEqual(before)
  expect(await given.query('SELECT * FROM notes')).toEqual([{ id: 1, body: 'mine' }])
})

test('setup takes SQL, files, and a function; what fails in it leaves nothing', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'tidegate-setup-'))
  const file = pathToFileURL(join(folder, 'schema.sql'))
  await writeFile(file, 'CREATE TABLE a (id int PRIMARY KEY); GRANT SELECT ON a TO authenticated;')
  {
    await using tide = await startTidegate({
      databaseUrl,
      setup: ['GRANT USAGE ON SCHEMA public TO anon', file],
      tables: ['a'],
    })
    expect(await tide.query('SELECT tablename FROM pg_publication_tables')).toContainEqual({ tablename: 'a' })
  }
  await rm(folder, { recursive: true })
  let name = ''
  const failing = startTidegate({
    databaseUrl,
    setup: async database => {
      name = new URL(database.databaseUrl).pathname.slice(1)
      await database.query('CREATE TABLE b (id int PRIMARY KEY)')
      await database.query('SELECT $1::int', ['no number'])
    },
  })
  await expect(failing).rejects.toMatchObject({ code: '22P02' })
  expect(JSON.stringify(await traces())).not.toContain(name)
})

test('[P8] options of the server go by their names; what is none is refused', async () => {
  await using tide = await startTidegate({
    databaseUrl,
    setup: roomsSchema,
    config: {
      MAX_SUBSCRIPTIONS: 1,
      JWT_ROLES: ['anon', 'authenticated'],
      SUPABASE_PRIVATE_ONLY: true,
      CHANNELS: [{ pattern: 'news', public: true }],
    },
  })
  const client = tide.client(ada)
  const statuses: unknown[] = []
  for (const table of ['rooms', 'messages'])
    client
      .from(table)
      .live()
      .subscribe(({ status }) => statuses.push(status))
  await expect.poll(() => statuses).toContain('refused')
  const { sub, role, tenant, exp, iat } = decodeJwt(
    await tide.token({ sub: ada, role: 'anon', claims: { tenant: 7 }, expiresInSeconds: 60 }),
  )
  expect([sub, role, tenant, exp! - iat!]).toEqual([ada, 'anon', 7, 60])
  for (const config of [{ PORT: 1 }, { NO_OPTION: 'x' }, { HEARTBEAT_MS: 'soon' }])
    await expect(startTidegate({ databaseUrl, config: config as ConfigByName })).rejects.toMatchObject({
      code: 'CONFIG_INVALID',
    })
})

test('[P8] without an address and without Docker it says what to do', async () => {
  const program = `import { startTidegate } from '${new URL('../../src/testing/start-tidegate.ts', import.meta.url)}'
    await startTidegate().catch(error => console.log(error.code, error.message))`
  const env = { PATH: process.env.PATH, HOME: tmpdir(), DOCKER_HOST: 'unix:///nowhere/docker.sock' }
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { env })
  let output = ''
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding('utf8').on('data', text => (output += text))
  await new Promise(resolve => child.once('close', resolve))
  expect(output).toMatch(/^SERVICES_MISSING startTidegate has no Postgres: no Docker engine answers/)
  expect(output).toContain('Start Docker; or give the address of one: TEST_DATABASE_URL, or the option databaseUrl')
})

const docker = async (...args: readonly string[]): Promise<string> => (await promisify(execFile)('docker', args)).stdout

const noDocker = await whyNoDocker()
if (noDocker !== null) console.warn(`startTidegate over containers: NOT RUN, ${noDocker}`)

test.skipIf(noDocker !== null)(
  'over containers of its own, shared while any is open, stopped with the last unless they are to be reused',
  async () => {
    const images = {
      postgres: process.env.TEST_POSTGRES_IMAGE ?? 'postgres:15',
      redis: process.env.TEST_REDIS_IMAGE ?? 'redis:7',
    }
    const given = { ...process.env }
    for (const name of ['TEST_DATABASE_URL', 'TEST_REDIS_URL']) delete process.env[name]
    try {
      let url = ''
      {
        await using first = await startTidegate({ images, redis: true, setup: roomsSchema })
        await using second = await startTidegate({ images, setup: roomsSchema })
        expect(new URL(first.databaseUrl).host).toBe(new URL(second.databaseUrl).host)
        await first.sql`INSERT INTO members VALUES (1, ${ada})`
        const [here, there] = [bodiesOf(first, ada), bodiesOf(second, ada)]
        await first.sql`INSERT INTO messages VALUES (1, 1, ${ada}, 'in a container')`
        await Promise.all([first.waitForIdle(), second.waitForIdle()])
        expect([here(), there()]).toEqual([['in a container'], []])
        url = first.databaseUrl
      }
      await expect(TestDatabase.connect({ name: 'postgres', url })).rejects.toThrow()
      const ports: string[] = []
      for (let run = 1; run <= 2; run++) {
        await using reused = await startTidegate({ images, reuse: true })
        ports.push(new URL(reused.databaseUrl).port)
      }
      expect(ports[0]).toBe(ports[1])
      const ids = await docker('ps', '--quiet', '--filter', `publish=${ports[0]}`)
      await docker('rm', '--force', '--volumes', ids.trim())
    } finally {
      Object.assign(process.env, given)
    }
  },
  300_000,
)
