// kick, revoke and refresh from the terminal.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { prepareDatabase, roomsSchema } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { runCli } from '../support/run-cli.ts'

let database: TestDatabase

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['messages'])
})

afterAll(() => database[Symbol.asyncDispose]())

const run = (...args: string[]) => runCli(args, { DATABASE_URL: database.url })

test('each gives its order, and says which', async () => {
  const kick = await run(
    'kick',
    '--sub',
    'ada',
    '--topic',
    'room:42',
    '--retry-after-ms',
    '60000',
    '--reason',
    'be kind',
  )
  expect([kick.code, kick.err]).toEqual([0, ''])
  expect(kick.out).toMatch(/^ordered: kick \d+\n$/)
  const revoke = await run('revoke', '--jti', 't1', '--until', '2100-01-01T00:00:00Z')
  expect(revoke.out).toMatch(/^ordered: revoke \d+, in force until 2100-01-01T00:00:00\+00:00\n$/)
  expect((await run('refresh', '--sub', 'ada', '--within-ms', '5000')).code).toBe(0)
  const orders = await database.query(
    'SELECT kind, sub, topic, jti, retry_after_ms, within_ms, reason FROM tidegate.orders ORDER BY id',
  )
  const nothing = { sub: null, topic: null, jti: null, retry_after_ms: null, within_ms: null, reason: null }
  expect(orders).toEqual([
    { ...nothing, kind: 'kick', sub: 'ada', topic: 'room:42', retry_after_ms: 60_000, reason: 'be kind' },
    { ...nothing, kind: 'revoke', jti: 't1' },
    { ...nothing, kind: 'refresh', sub: 'ada', within_ms: 5000 },
  ])
})

test.each([
  [['kick'], 'a kick names a user, a connection, a topic or a token'],
  [['revoke', '--sub', 'a', '--jti', 'b'], 'a revoke names a user or a token, one of them'],
  [['refresh', '--sub', 'a', '--within-ms', 'soon'], 'refresh.withinMs'],
  [['revoke', '--sub', 'a', '--until', 'tomorrow'], 'revoke.until'],
])('[P8] %j is refused, with what is wrong', async (args, told) => {
  const { code, err } = await run(...args)
  expect([code, err.split('\n')[0]]).toEqual([1, 'tidegate: CONFIG_INVALID'])
  expect(err).toContain(told)
})
