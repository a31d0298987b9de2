// A transaction that begins in a session in which another client of the pooler left a timeout.
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { begin, beginSql } from '../../../src/server/postgres/database.ts'
import { TestDatabase } from '../../support/postgres.ts'

const pooled = { isPooled: true }
let database: TestDatabase
let client: pg.Client & { getTransactionStatus(): string | null }

beforeAll(async () => {
  database = await TestDatabase.create()
  client = new pg.Client({ connectionString: database.url }) as typeof client
  await client.connect()
})

afterAll(async () => {
  await client?.end()
  await database?.[Symbol.asyncDispose]()
})

/** A client whose first queries are cut by the session's timeout, as when the machine has other things to do. */
function cut(times: number, inside = ''): { sent: number; client: Parameters<typeof begin>[0] } {
  const counted = {
    sent: 0,
    client: {
      getTransactionStatus: () => client.getTransactionStatus(),
      query: (query: pg.QueryConfig) => {
        counted.sent += 1
        if (counted.sent > times) return client.query(query)
        return client.query(`${inside}SET statement_timeout = 1; SELECT pg_sleep(1)`)
      },
    } as Parameters<typeof begin>[0],
  }
  return counted
}

const query = (lane: { isPooled: boolean }): pg.QueryConfig => ({
  text: `${beginSql(lane)}; SELECT current_setting('statement_timeout') AS timeout`,
})

test('it is begun again when that timeout was too short for it', async () => {
  const counted = cut(5)
  const results = await begin<{ timeout: string }>(counted.client, pooled, query(pooled))
  expect(results.at(-1)!.rows).toEqual([{ timeout: '9500ms' }])
  expect([counted.sent, client.getTransactionStatus()]).toEqual([6, 'T'])
  await client.query('ROLLBACK')
})

test('not for ever', async () => {
  const counted = cut(1000)
  await expect(begin(counted.client, pooled, query(pooled))).rejects.toMatchObject({ code: '57014' })
  expect(counted.sent).toBe(6)
})

test('not where the session is our own, and not once the transaction stands', async () => {
  const own = { isPooled: false }
  const ofOwn = cut(1)
  await expect(begin(ofOwn.client, own, query(own))).rejects.toMatchObject({ code: '57014' })
  const standing = cut(1, 'BEGIN; ')
  await expect(begin(standing.client, pooled, query(pooled))).rejects.toMatchObject({ code: '57014' })
  expect([ofOwn.sent, standing.sent]).toEqual([1, 1])
  await client.query('ROLLBACK')
})

test('nothing else that goes wrong is tried again', async () => {
  let sent = 0
  const refusing = {
    getTransactionStatus: () => client.getTransactionStatus(),
    query: () => {
      sent += 1
      return client.query('SELECT nothing')
    },
  } as unknown as Parameters<typeof begin>[0]
  await expect(begin(refusing, pooled, query(pooled))).rejects.toMatchObject({ code: '42703' })
  expect(sent).toBe(1)
})
