// A table as its users see it, watched by an operator.
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { loadConfig } from '../../../src/server/config/config.ts'
import type { Explanation } from '../../../src/server/explain/explanation.ts'
import type { Log } from '../../../src/server/log/log.ts'
import { startServer } from '../../../src/server/server.ts'
import {
  asSet,
  jwtSecret,
  prepareDatabase,
  roomsSchema,
  type SseStream,
  StrictRows,
  selectAs,
  TestNode,
} from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { admitted, inspecting, operatorHeaders, operatorToken } from './support.ts'

const ada = '00000000-0000-4000-8000-00000000000a'
const ben = '00000000-0000-4000-8000-00000000000b'

let database: TestDatabase
let node: TestNode
/** Everything that went into the log. */
const lines: string[] = []

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  const write = (...parts: unknown[]): void => {
    lines.push(JSON.stringify(parts))
  }
  const log = { debug: write, info: write, warn: write, error: write } as unknown as Log
  const settings = { DATABASE_URL: database.url, JWT_SECRET: jwtSecret, PORT: '0', BEACON_MS: '1000' }
  node = new TestNode(await startServer(loadConfig({ ...settings, OPERATOR_TOKEN: operatorToken }), { log }))
  await node.server.ready()
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query(`TRUNCATE messages, members; INSERT INTO members VALUES (1, '${ada}'), (2, '${ben}');
    INSERT INTO messages VALUES (1, 1, 'ada', 'hello'), (2, 2, 'ben', 'for ben alone'), (3, 1, 'ada', 'hidden words')`)
  lines.length = 0
})

const as = (sub: string, more: Record<string, string> = {}) => ({
  table: 'messages',
  role: 'authenticated',
  claims: JSON.stringify({ sub }),
  ...more,
})

/** A watched table whose rows are kept strictly. */
async function watching(parameters: Record<string, string>): Promise<{ stream: SseStream; rows: StrictRows }> {
  const stream = await inspecting(node, 'watch', parameters)
  expect([stream.status, stream.errorBody]).toEqual([200, {}])
  const rows = new StrictRows()
  for (const event of stream.events) rows.take(event)
  stream.onEvent = event => rows.take(event)
  await stream.waitFor(() => rows.exact)
  return { stream, rows }
}

const idsOf = (rows: StrictRows): unknown[] => rows.list().map(({ id }) => id)

test('[P1] what is shown is what that user’s SELECT returns, before and after each commit', async () => {
  const { stream, rows } = await watching(as(ada))
  expect(asSet(rows.list())).toEqual(asSet(await selectAs(database, ada, 'SELECT * FROM messages')))
  await database.query(`INSERT INTO messages VALUES (4, 1, 'ben', 'more'), (5, 2, 'ben', 'not for ada');
    UPDATE messages SET body = 'changed' WHERE id = 1; DELETE FROM messages WHERE id = 3`)
  await stream.waitFor(() => rows.rows.has('[4]') && !rows.rows.has('[3]'))
  expect(asSet(rows.list())).toEqual(asSet(await selectAs(database, ada, 'SELECT * FROM messages')))
  stream.close()
})

test('[P3] a revocation takes the rows from the watched table, and a grant gives them', async () => {
  const { stream, rows } = await watching(as(ada))
  expect(idsOf(rows)).toEqual([1, 3])
  await database.query(`DELETE FROM members WHERE user_id = '${ada}'`)
  await stream.waitFor(() => rows.rows.size === 0)
  await database.query(`INSERT INTO members VALUES (2, '${ada}')`)
  await stream.waitFor(() => rows.rows.size > 0)
  expect(idsOf(rows)).toEqual([2])
  stream.close()
})

test('[P2] two users are watched side by side, each with their own rows', async () => {
  const [ofAda, ofBen] = await Promise.all([watching(as(ada)), watching(as(ben))])
  expect([idsOf(ofAda.rows), idsOf(ofBen.rows)]).toEqual([[1, 3], [2]])
  expect(JSON.stringify(ofAda.stream.events)).not.toContain('for ben alone')
  ofAda.stream.close()
  ofBen.stream.close()
})

test('a filter, an order and a limit hold as for the user', async () => {
  const { stream, rows } = await watching(as(ada, { filter: 'body=eq.hello' }))
  expect(idsOf(rows)).toEqual([1])
  stream.close()
  const limited = await watching(as(ada, { order: 'id.desc', limit: '1' }))
  expect(idsOf(limited.rows)).toEqual([3])
  limited.stream.close()
})

test('a row that is missing is explained beside it', async () => {
  const { stream, rows } = await watching(as(ada))
  expect(rows.rows.has('[2]')).toBe(false)
  const explanationOf = async (id: number): Promise<Explanation> => {
    const parameters = new URLSearchParams(as(ada, { key: `id=${id}` }))
    const response = await fetch(`${node.url}/v1/explain?${parameters}`, { headers: operatorHeaders })
    expect(response.status).toBe(200)
    return (await response.json()) as Explanation
  }
  expect((await explanationOf(2)).row).toMatchObject({ visible: false, agrees: true })
  expect((await explanationOf(1)).row).toMatchObject({ visible: true, agrees: true })
  stream.close()
})

describe('[P8] refused by code, before anything is shown', () => {
  test.each([
    ['a role that JWT_ROLES does not list', { role: 'postgres' }, 403, 'ROLE_REFUSED'],
    ['a table that is not tracked', { table: 'pg_catalog.pg_authid' }, 404, 'TABLE_UNKNOWN'],
    ['a table that the role may not read', { role: 'anon' }, 403, 'TABLE_REFUSED'],
    ['a filter on a column that is none', { filter: 'secret=eq.1' }, 400, 'COLUMN_UNKNOWN'],
    ['claims that are no JSON', { claims: '{' }, 400, 'FILTER_INVALID'],
  ])('%s', async (_, parameters, status, code) => {
    const stream = await inspecting(node, 'watch', as(ada, parameters as Record<string, string>))
    expect([stream.status, stream.errorBody.code]).toEqual([status, code])
  })
})

test('[P7] eight tables are watched at once; the ninth is told BUSY', async () => {
  const streams: SseStream[] = []
  for (let place = 0; place < 8; place += 1) streams.push(await admitted(node, 'watch', as(ada)))
  const ninth = await inspecting(node, 'watch', as(ada))
  expect([ninth.status, ninth.errorBody.code]).toEqual([503, 'BUSY'])
  for (const stream of streams) stream.close()
})

test('the log says who was looked at by role and table, and holds no claim, row or token', async () => {
  const { stream } = await watching(as(ada, { filter: 'body=neq.sought' }))
  await inspecting(node, 'watch', as(ada, { role: 'postgres' }))
  await inspecting(node, 'watch', as(ada, { claims: `{"sub": "${ada}"` }))
  stream.close()
  const told = lines.filter(line => line.includes('an operator watches a table'))
  expect(told).toHaveLength(1)
  expect(told[0]).toContain('"role":"authenticated","table":"public.messages"')
  for (const secret of [ada, 'hello', 'hidden', 'sought', operatorToken]) expect(lines.join('\n')).not.toContain(secret)
})

test('nothing of a watched table is held once its watcher has gone', async () => {
  const { stream } = await watching(as(ada, { filter: 'id=gt.0' }))
  const { splices } = node.server.holdings()
  expect(splices).toBe(0)
  const listed = async (): Promise<string> =>
    (await fetch(`${node.url}/v1/inspect/queries`, { headers: operatorHeaders })).text()
  expect(await listed()).toContain('id=gt.0')
  stream.close()
  await expect.poll(listed).not.toContain('id=gt.0')
})
