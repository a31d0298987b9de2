// The statements of docs/security.md on a real database: a login with exactly these serves, and without one of them fails as the page says.
import { readFile } from 'node:fs/promises'
import { pino } from 'pino'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { migrate } from '../../src/cli/commands/migrate.ts'
import { track } from '../../src/cli/commands/track.ts'
import { loadConfig } from '../../src/server/config/config.ts'
import { startServer, type TidegateServer } from '../../src/server/server.ts'
import { jwtSecret, LiveSse, person, roomsSchema, selectAs, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const page = await readFile(new URL('../../docs/security.md', import.meta.url), 'utf8')
const statements = /```sql\n(CREATE ROLE tidegate LOGIN.*?)```/s.exec(page)![1]!
const suffix = Math.random().toString(36).slice(2, 8)
const [byHand, byCommand] = [`hand_${suffix}`, `command_${suffix}`]
const tables = ['members', 'messages']
const operatorToken = 'an-operator-of-the-tests'
const ada = person()

let database: TestDatabase

beforeAll(async () => {
  database = await TestDatabase.create()
  await database.query(`CREATE ROLE ${byCommand} LOGIN REPLICATION PASSWORD 'choose-one'`)
  const login = database.urlFor(byCommand, 'choose-one')
  const options = { databaseUrl: login, adminUrl: database.url, name: 'tidegate', dryRun: false, print: false }
  const silent = { write: () => true }
  await migrate({ ...options, conventions: true }, silent)
  await database.query(roomsSchema)
  await track({ ...options, tables }, silent)
  await database.query(statements.replace('ROLE tidegate', `ROLE ${byHand}`).replaceAll('TO tidegate', `TO ${byHand}`))
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (1, 1, 'ada', 'hello')`)
})

afterAll(async () => {
  for (const login of [byHand, byCommand]) await database?.query(`DROP OWNED BY ${login} CASCADE; DROP ROLE ${login}`)
  await database?.[Symbol.asyncDispose]()
})

/** All that a login was granted, or has as an attribute. */
async function rightsOf(login: string): Promise<string[]> {
  const rows = await database.query<{ right: string }>(
    `SELECT 'table ' || c.oid::regclass || ' ' || a.privilege_type AS right
       FROM pg_class c, aclexplode(c.relacl) a WHERE a.grantee = $1::regrole
     UNION ALL SELECT 'column ' || attrelid::regclass || '.' || attname || ' ' || a.privilege_type
       FROM pg_attribute, aclexplode(attacl) a WHERE a.grantee = $1::regrole
     UNION ALL SELECT 'schema ' || nspname || ' ' || a.privilege_type
       FROM pg_namespace, aclexplode(nspacl) a WHERE a.grantee = $1::regrole
     UNION ALL SELECT 'function ' || p.oid::regprocedure || ' ' || a.privilege_type
       FROM pg_proc p, aclexplode(p.proacl) a WHERE a.grantee = $1::regrole
     UNION ALL SELECT 'member of ' || roleid::regrole FROM pg_auth_members WHERE member = $1::regrole
     UNION ALL SELECT 'owns ' || c.oid::regclass FROM pg_class c WHERE relowner = $1::regrole
     UNION ALL SELECT concat('is ', rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin, rolreplication, rolbypassrls)
       FROM pg_roles WHERE oid = $1::regrole`,
    [login],
  )
  return rows.map(({ right }) => right).sort()
}

interface Running extends AsyncDisposable {
  readonly server: TidegateServer
  readonly url: string
  readonly logged: string[]
  get(path: string, token?: string): Promise<string>
  order(): Promise<string>
}

const codeOf = async (response: Response): Promise<string> =>
  response.ok ? 'ok' : ((await response.json()) as { code: string }).code

async function start(): Promise<Running> {
  const logged: string[] = []
  const log = pino({ level: 'warn' }, { write: (line: string) => void logged.push(line) })
  const config = loadConfig({
    DATABASE_URL: database.urlFor(byHand, 'choose-one'),
    ...{ JWT_SECRET: jwtSecret, OPERATOR_TOKEN: operatorToken, PORT: '0', BEACON_MS: '500', DRAIN_DELAY_MS: '0' },
  })
  const server = await startServer(config, { log })
  const url = `http://127.0.0.1:${server.port}`
  const headers = (token: string) => ({ authorization: `Bearer ${token}`, accept: 'application/json' })
  return {
    server,
    url,
    logged,
    get: async (path, token) =>
      codeOf(await fetch(`${url}${path}`, { headers: headers(token ?? (await tokenFor(ada))) })),
    order: async () =>
      codeOf(
        await fetch(`${url}/v1/orders`, {
          method: 'POST',
          headers: headers(operatorToken),
          body: '{"kick": {"sub": "nobody"}}',
        }),
      ),
    [Symbol.asyncDispose]: () => server.stop(),
  }
}

const refusalAtStart = ({ server }: Running): Promise<string> =>
  server.ready().then(
    () => 'it is ready',
    (error: { code?: string }) => String(error.code),
  )

test('the statements of the page grant what migrate and track grant, and nothing else', async () => {
  const rights = await rightsOf(byHand)
  expect(rights).toEqual(await rightsOf(byCommand))
  expect(rights.filter(right => right.startsWith('owns') || /table (?!tidegate\.)/.test(right))).toEqual([])
})

test('with these the whole path works, and the login reads no table of its own', async () => {
  await using node = await start()
  await node.server.ready()
  using live = await (await LiveSse.open(node, '/v1/live/messages', await tokenFor(ada))).exact()
  await database.query(`INSERT INTO messages VALUES (2, 1, 'ada', 'again')`)
  await live.stream.waitFor(() => live.rows.list().length === 2)
  expect(live.rows.list()).toEqual(await selectAs(database, ada, 'SELECT * FROM messages ORDER BY id'))
  await database.query(`DELETE FROM members WHERE user_id = '${ada}'`)
  await live.stream.waitFor(() => live.rows.list().length === 0)
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  await live.stream.waitFor(() => live.rows.list().length === 2)
  expect([await node.order(), live.failure]).toEqual(['ok', null])
  expect(node.logged.filter(line => !line.includes('max_slot_wal_keep_size'))).toEqual([])
  for (const table of ['public.messages', 'public.members'])
    expect(
      (
        await database.query<{ may: boolean }>(
          `SELECT has_table_privilege($1::name, oid, 'SELECT') AND EXISTS (
          SELECT FROM aclexplode(relacl) a WHERE a.grantee = $1::regrole) AS may FROM pg_class WHERE oid = $2::regclass`,
          [byHand, table],
        )
      )[0],
    ).toEqual({ may: false })
})

test('[P2] without a token no address of clients answers', async () => {
  await using node = await start()
  for (const path of ['live/messages', 'changes/messages', 'channels/room', 'channels/room/presence'])
    expect(await fetch(`${node.url}/v1/${path}?token=${await tokenFor(ada)}`).then(codeOf), path).toBe('TOKEN_MISSING')
  for (const path of ['stream', 'poll', 'tickets', 'wait', 'channels/room'])
    expect(await fetch(`${node.url}/v1/${path}`, { method: 'POST', body: '{}' }).then(codeOf), path).toMatch(
      /^(TOKEN_MISSING|BAD_FRAME)$/,
    )
})

interface Case {
  readonly left: string
  readonly take: string
  readonly give: string
  readonly said: string
  readonly found: (node: Running) => Promise<string>
}

const grant = (right: string, said: string, found: Case['found']): [string, Case] => [
  right,
  { left: right, take: `REVOKE ${right} FROM ${byHand}`, give: `GRANT ${right} TO ${byHand}`, said, found },
]
const live = async (node: Running): Promise<string> => {
  await node.server.ready()
  return node.get('/v1/live/messages?wait=0')
}

const servesNobody = async (node: Running): Promise<string> => {
  await expect.poll(() => node.logged.join('')).toContain('PRIVILEGE_MISSING')
  expect(await node.get('/v1/live/messages?wait=0')).toBe('UNAVAILABLE')
  return 'PRIVILEGE_MISSING'
}

test.each<[string, Case]>([
  [
    'REPLICATION',
    {
      left: 'REPLICATION',
      take: `ALTER ROLE ${byHand} NOREPLICATION`,
      give: `ALTER ROLE ${byHand} REPLICATION`,
      said: 'NOT_REPLICATION',
      found: refusalAtStart,
    },
  ],
  grant('authenticated', 'ROLE_REFUSED', live),
  grant('USAGE ON SCHEMA tidegate', 'PRIVILEGE_MISSING', servesNobody),
  grant('SELECT ON tidegate.orders', 'PRIVILEGE_MISSING', servesNobody),
  grant('EXECUTE ON FUNCTION tidegate.kick', 'UNAVAILABLE', async node => {
    await node.server.ready()
    return node.order()
  }),
  grant('EXECUTE ON FUNCTION tidegate."public.members"', 'INDEX_NOT_READABLE', live),
  grant('EXECUTE ON FUNCTION tidegate.delete_messages', 'could not delete old messages', async node => {
    await expect.poll(() => node.logged.join('')).toContain('could not delete old messages')
    return 'could not delete old messages'
  }),
])('without it: %s', async (_, { left, take, give, said, found }) => {
  const row = page.split('\n').find(line => line.startsWith(`| \`${left}\` |`))
  expect(row).toContain(`\`${said}\``)
  await database.query(take)
  try {
    await using node = await start()
    expect(await found(node)).toBe(said)
  } finally {
    await database.query(give)
  }
})
