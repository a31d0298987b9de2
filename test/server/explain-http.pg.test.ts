// GET /v1/explain of a running node, for its operators.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Explanation } from '../../src/server/explain/explanation.ts'
import { jwtSecret, prepareDatabase, roomsSchema, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { runCli, startCli } from '../support/run-cli.ts'

const operatorToken = 'sixteen-letters!'
const ada = '00000000-0000-4000-8000-00000000000a'
const tables = ['rooms', 'members', 'messages']

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, tables)
  await database.query(`INSERT INTO members VALUES (1, '${ada}'); INSERT INTO messages VALUES (42, 1, 'ada', 'hello')`)
  node = await TestNode.start(database.url, { OPERATOR_TOKEN: operatorToken })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const parametersOf = (parameters: Record<string, string>): string => new URLSearchParams(parameters).toString()

const get = (at: { url: string }, parameters: Record<string, string>, token: string | null = operatorToken) =>
  fetch(`${at.url}/v1/explain?${parametersOf(parameters)}`, {
    headers: token === null ? {} : { authorization: `Bearer ${token}` },
  })

const question = { table: 'messages', role: 'authenticated', claims: JSON.stringify({ sub: ada }), key: 'id=42' }

describe('with OPERATOR_TOKEN', () => {
  test('[P8] says who may see a row, and why', async () => {
    const response = await get(node, question)
    expect([response.status, response.headers.get('cache-control')]).toEqual([200, 'no-store'])
    const explanation = (await response.json()) as Explanation
    expect(explanation).toMatchObject({ table: 'public.messages', exact: true, problems: [] })
    expect(explanation.row).toMatchObject({ key: { id: '42' }, visible: true, agrees: true })
    expect(explanation.row!.because).toBe(
      `visible by policy "by_membership": public.members (room_id=1, user_id=${ada}) has 1 row`,
    )
  })

  test('[P8] says the same as the command', async () => {
    const args = [
      'explain',
      'messages',
      '--role',
      'authenticated',
      '--claims',
      question.claims,
      '--key',
      'id=42',
      '--json',
    ]
    const { code, out, err } = await runCli(args, { DATABASE_URL: database.url })
    expect([code, err]).toEqual([0, ''])
    expect(JSON.parse(out)).toEqual(await (await get(node, question)).json())
  })

  test('[P8] a changed policy is explained as it is now', async () => {
    await database.query(`CREATE POLICY everybody ON messages TO authenticated USING (true)`)
    try {
      const { policies, row } = (await (await get(node, question)).json()) as Explanation
      expect(policies.map(({ name }) => name)).toEqual(['by_membership', 'everybody'])
      expect(row!.because).toContain('policy "everybody"')
    } finally {
      await database.query('DROP POLICY everybody ON messages')
    }
  })

  test.each([
    ['none', null, 'TOKEN_MISSING'],
    ['another', 'sixteen-letters?', 'TOKEN_INVALID'],
    ['a prefix', 'sixteen-letters', 'TOKEN_INVALID'],
  ])('[P2] is closed to whoever sends %s', async (_, token, code) => {
    const response = await get(node, question, token)
    expect(response.status).toBe(401)
    expect(await response.json()).toMatchObject({ code })
  })

  test('[P2] is closed to the reader’s own token', async () => {
    expect((await get(node, question, await tokenFor(ada))).status).toBe(401)
  })

  test.each([
    [{ role: 'authenticated' }, 400, 'FILTER_INVALID', 'no table'],
    [{ table: 'messages' }, 400, 'FILTER_INVALID', 'no role'],
    [{ table: 'messages', role: 'anon', claims: '[1]' }, 400, 'FILTER_INVALID', 'no JSON object'],
    [{ table: 'messages', role: 'anon', claims: '{"role":"staff"}' }, 400, 'FILTER_INVALID', '"staff"'],
    [{ table: 'messages', role: 'anon', claims: '{"sub":"\\u0000"}' }, 400, 'FILTER_INVALID', 'NUL'],
    [{ table: 'messages', role: 'anon', key: '42' }, 400, 'FILTER_INVALID', 'column=value'],
    [{ table: 'messages', role: 'anon', token: 'x' }, 400, 'FILTER_INVALID', 'no parameter'],
    [{ table: 'a\0', role: 'anon' }, 400, 'FILTER_INVALID', 'no name'],
    [{ table: 'messages', role: '\0' }, 400, 'FILTER_INVALID', 'no name'],
    [{ table: 'messages', role: 'anon', key: 'id=\0' }, 400, 'FILTER_INVALID', 'key id'],
    [{ table: 'nowhere', role: 'anon' }, 404, 'TABLE_UNKNOWN', 'nowhere'],
  ])('[P8] %j is refused', async (parameters, status, code, message) => {
    const response = await get(node, parameters as Record<string, string>)
    expect(response.status).toBe(status)
    expect(await response.json()).toMatchObject({ code, message: expect.stringContaining(message) })
  })

  test('[P8] takes GET alone', async () => {
    const response = await fetch(`${node.url}/v1/explain`, { method: 'POST' })
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([405, 'METHOD_NOT_ALLOWED'])
  })
})

/** A node that need not have the slot. */
async function listening(env: Record<string, string>) {
  const running = startCli(['start'], { DATABASE_URL: database.url, JWT_SECRET: jwtSecret, PORT: '0', ...env })
  await running.until(({ out }) => out.includes('listens on'))
  return { running, url: /http:\/\/\S+/.exec(running.out)![0] }
}

test('[P2] without OPERATOR_TOKEN there is no such address', async () => {
  const { running, url } = await listening({})
  await using _ = running
  for (const token of [operatorToken, null]) {
    const response = await get({ url }, question, token)
    expect([response.status, ((await response.json()) as { code: string }).code]).toEqual([404, 'NOT_FOUND'])
  }
})

test('[P2] with ADMIN_PORT operators are answered there, and nowhere else', async () => {
  const { running, url } = await listening({ OPERATOR_TOKEN: operatorToken, ADMIN_PORT: '0' })
  await using _ = running
  await running.until(({ out }) => out.includes('operators on'))
  const own = /operators on (\S+)/.exec(running.out)![1]!
  const statusOf = async (response: Promise<Response>): Promise<number> => (await response).status
  expect(await statusOf(get({ url: own }, question))).toBe(200)
  expect(await statusOf(get({ url: own }, question, null))).toBe(401)
  expect(await statusOf(get({ url }, question))).toBe(404)
  for (const at of [own, url]) expect(await statusOf(fetch(`${at}/health`))).toBe(200)
  expect(await statusOf(fetch(`${own}/v1/live/messages`))).toBe(404)
})

test.each([
  [
    'a default role that sees everything',
    { DEFAULT_ROLE: 'postgres', JWT_ROLES: 'postgres' },
    'does not bind the role',
  ],
  [
    'an address of another machine',
    { ADMIN_PORT: '4100', ADMIN_HOST: '192.0.2.1' },
    'ADMIN_PORT is 4100, where this process may not',
  ],
])('[P8] %s stops the start', async (_, env, why) => {
  const settings = { DATABASE_URL: database.url, JWT_SECRET: jwtSecret, PORT: '0', OPERATOR_TOKEN: operatorToken }
  const { code, err } = await runCli(['start'], { ...settings, ...env })
  expect(code).not.toBe(0)
  expect(err).toContain('CONFIG_INVALID')
  expect(err).toContain(why)
})

test('[P2] claims, keys and the token are in no log', async () => {
  const { running, url } = await listening({ OPERATOR_TOKEN: operatorToken, LOG_LEVEL: 'debug' })
  await using _ = running
  const claims = JSON.stringify({ sub: 'not-a-uuid-at-all', secret: 'nobody-may-log-this' })
  expect((await get({ url }, { ...question, claims, key: 'id=987654321000' })).status).toBe(200)
  expect((await get({ url }, { ...question, claims: '{"nobody-may-log-this"' })).status).toBe(400)
  running.child.kill('SIGTERM')
  const { out, err } = await running.end()
  for (const secret of ['not-a-uuid-at-all', 'nobody-may-log-this', '987654321000', operatorToken])
    expect(out + err).not.toContain(secret)
})
