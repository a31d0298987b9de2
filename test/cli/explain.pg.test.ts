import { readFileSync } from 'node:fs'
import { SignJWT } from 'jose'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { explain as command, type ExplainWishes } from '../../src/cli/commands/explain.ts'
import { loadOptions } from '../../src/server/config/config.ts'
import type { Explanation } from '../../src/server/explain/explanation.ts'
import { jwtSecret, prepareDatabase, roomsSchema, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { runCli } from '../support/run-cli.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const bob = '00000000-0000-4000-8000-00000000000b'

const page = readFileSync(new URL('../../docs/explain.md', import.meta.url), 'utf8')

let database: TestDatabase

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (42, 1, 'ada', 'the secret');
    ALTER TABLE messages REPLICA IDENTITY DEFAULT`)
})

afterAll(() => database[Symbol.asyncDispose]())

const explain = (args: string[], env: Record<string, string> = {}) =>
  runCli(['explain', ...args], { DATABASE_URL: database.url, ...env })

const as = (sub: string): string[] => ['--role', 'authenticated', '--claims', JSON.stringify({ sub })]

test('[P8] reads well in a terminal', async () => {
  const { code, out, err } = await explain(['messages', ...as(ada), '--key', 'id=42'])
  expect([code, err]).toEqual([0, ''])
  expect(out).toBe(/^```text\n(.*?)^```$/ms.exec(page)![1])
})

test('[P8] docs/explain.md names every field of the JSON, and none that is not there', async () => {
  const claims = JSON.stringify({ sub: ada })
  const { agrees, explanation } = await explainHere({ role: 'authenticated', claims, keys: ['id=42'] })
  expect(agrees).toBe(true)
  const fields = new Set<string>()
  const collect = (value: unknown, path: string): void => {
    if (Array.isArray(value)) for (const item of value) collect(item, path)
    // What is looked up is named by the columns of somebody's table.
    else if (typeof value === 'object' && value !== null && path !== 'key')
      for (const [name, inner] of Object.entries(value)) {
        fields.add(name)
        collect(inner, name)
      }
  }
  collect(explanation, '')
  const rows = page.slice(page.indexOf('## The JSON')).match(/^\| `.*$/gm)!
  const words = new Set(rows.flatMap(row => [...row.matchAll(/`([\w.[\]]+)`/g)].map(match => match[1]!)))
  const named = [...words].flatMap(word => word.replaceAll('[]', '').split('.'))
  expect([...fields].filter(field => !named.includes(field))).toEqual([])
  const values = ['on', 'off', 'bypassed', 'compiled', 'asked', 'refused', 'tidegate', 'postgres', 'true', 'false']
  const others = [...values, 'unknown', 'invalid', 'failed']
  expect(named.filter(name => !fields.has(name) && !others.includes(name))).toEqual([])
})

test('[P8] a table and a role alone are explained without a row', async () => {
  const { code, out } = await explain(['public.messages', '--role', 'anon'])
  expect(code).toBe(0)
  expect(out).toContain('"by_membership"  permissive, to authenticated: not applied')
  expect(out).toContain('NO_POLICY')
  expect(out).not.toContain('Row\n')
})

test('[P8] --json is stable: its fields, one by one', async () => {
  const { out } = await explain(['messages', ...as(bob), '--key', 'id=42', '--json'])
  const explanation = JSON.parse(out) as Explanation
  const fields = [
    'table',
    'role',
    'rowSecurity',
    'exact',
    'problems',
    'warnings',
    'columns',
    'policies',
    'tables',
    'row',
  ]
  expect(Object.keys(explanation)).toEqual(fields)
  expect(explanation.row).toEqual({
    key: { id: '42' },
    found: true,
    visible: false,
    judgedBy: 'tidegate',
    code: null,
    because: `hidden: no permissive policy lets it through: policy "by_membership": public.members (room_id=1, user_id=${bob}) has none`,
    policies: [
      {
        name: 'by_membership',
        kind: 'permissive',
        answer: 'false',
        reason: null,
        memberships: [
          {
            table: 'public.members',
            key: { room_id: '1', user_id: bob },
            negated: false,
            rows: 0,
            candidates: 0,
            through: [],
          },
        ],
      },
    ],
    postgres: { visible: false, sqlState: null },
    agrees: true,
  })
  expect(out).not.toContain('the secret')
})

test('[P8] a token says role and claims; one that a server would refuse is explained with a note', async () => {
  const token = await tokenFor(ada)
  const good = await explain(['messages', '--key', 'id=42', '--json'], { JWT_SECRET: jwtSecret, TIDEGATE_TOKEN: token })
  expect(JSON.parse(good.out)).toMatchObject({ role: 'authenticated', row: { visible: true } })
  expect(good.err).toBe('')
  const keys = ['id=42']
  expect((await explainHere({ token, keys })).err).toContain('taken as it is')
  const old = await new SignJWT({ role: 'authenticated', sub: ada })
    .setProtectedHeader({ alg: 'HS256' })
    .setExpirationTime(1000)
    .sign(new TextEncoder().encode(jwtSecret))
  const expired = await explainHere({ token: old, keys }, { JWT_SECRET: jwtSecret })
  expect(expired.err).toContain('a server would refuse this token: TOKEN_EXPIRED')
  expect(expired.explanation).toMatchObject({ row: { visible: true } })
})

test.each([
  [{}, 'CONFIG_INVALID', 'no role is named'],
  [{ role: 'anon', claims: '{' }, 'CONFIG_INVALID', 'claims is not JSON'],
  [{ role: 'anon', keys: ['id'] }, 'CONFIG_INVALID', 'column=value'],
  [{ token: 'x' }, 'CONFIG_INVALID', '--token is no JWT'],
  [{ token: 'x', role: 'anon' }, 'CONFIG_INVALID', 'leave out --role'],
  [{ table: 'nowhere', role: 'anon' }, 'TABLE_UNKNOWN', 'public.nowhere'],
  [{ role: 'nobody_at_all' }, 'ROLE_REFUSED', 'there is no database role'],
])('[P8] %j is refused', async (wishes, code, message) => {
  await expect(explainHere(wishes)).rejects.toMatchObject({ code, message: expect.stringContaining(message) })
})

test('[P8] a refusal ends the command with its code and its remedy', async () => {
  const { code, out, err } = await explain(['messages', '--role', 'anon', '--key', 'id'])
  expect([code, out]).toEqual([1, ''])
  expect(err).toContain('tidegate: CONFIG_INVALID\n  key is "id"; it takes column=value')
})

test('[P8] a database that is away is told as such', async () => {
  const asked = explainHere({ role: 'anon' }, { DATABASE_URL: 'postgres://a:b@127.0.0.1:1/app' })
  await expect(asked).rejects.toMatchObject({ code: 'DATABASE_UNREACHABLE', message: expect.stringContaining(':1') })
})

const names = [
  ...(['DATABASE_URL', 'TIDEGATE_NAME', 'JWT_SECRET', 'JWT_JWKS_URL', 'JWT_ALGORITHMS', 'JWT_ISSUER'] as const),
  'DATABASE_REPLICATION_URL' as const,
  ...([
    'JWT_AUDIENCE',
    'JWT_ROLE_CLAIM',
    'DEFAULT_ROLE',
    'JWT_ROLES',
    'CLAIM_SETTINGS',
    'MEMBERSHIP_MAX_ROWS',
  ] as const),
]

/** As the command, without a process of its own. */
async function explainHere(wishes: Partial<ExplainWishes>, env: Record<string, string> = {}) {
  const out: string[] = []
  const err: string[] = []
  const nothing = { table: 'messages', role: undefined, claims: undefined, token: undefined, keys: [], json: true }
  const agrees = await command(
    loadOptions(names, { DATABASE_URL: database.url, ...env }),
    { ...nothing, ...wishes },
    { print: line => void out.push(line), note: line => void err.push(line) },
  )
  return { agrees, explanation: JSON.parse(out.join('\n')) as Explanation, err: err.join('\n') }
}
