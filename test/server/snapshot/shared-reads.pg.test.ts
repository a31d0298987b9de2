// Reads by key made together: each gets its own rows and no others, and a thousand cost a handful of queries.
import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createCatalog } from '../../../src/server/authorize/policy-catalog.ts'
import type { Table } from '../../../src/server/catalog/table.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { Head } from '../../../src/server/relay/head.ts'
import { SnapshotReader } from '../../../src/server/snapshot/reader.ts'
import { SharedReads } from '../../../src/server/snapshot/shared-reads.ts'
import { prepareDatabase, roomsSchema } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let pool: pg.Pool
let reader: SnapshotReader
let members: Table
let queries = 0

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query(`INSERT INTO members SELECT r, format('00000000-0000-0000-0000-%s', lpad(u::text, 12, '0'))::uuid
    FROM generate_series(1, 5) r, generate_series(1, 1000) u WHERE (r + u) % 3 = 0`)
  pool = createPool(database.url, { maxConnections: 2 })
  const catalog = createCatalog({ pool, publication: 'tidegate', log: createLog('silent') })
  members = await catalog.table('public', 'members')
  const beacon = { emit: () => Promise.resolve({ id: '' }) }
  reader = new SnapshotReader({ snapshots: pool, reads: pool, head: new Head(), beacon, timeoutMs: 5000 })
  const asLogin = reader.asLogin.bind(reader)
  reader.asLogin = (...request) => {
    queries += 1
    return asLogin(...request)
  }
})

afterAll(async () => {
  await pool?.end()
  await database?.[Symbol.asyncDispose]()
})

const user = (number: number): string => `00000000-0000-0000-0000-${String(number).padStart(12, '0')}`
const byUser = { columns: [1] }
const roomsOf = (number: number): string[] =>
  [1, 2, 3, 4, 5].filter(room => (room + number) % 3 === 0 && number <= 1000).map(String)

test('a thousand who ask at once are answered by a few queries, each with its own rows', async () => {
  const shared = new SharedReads(reader)
  queries = 0
  const asked = Array.from({ length: 1000 }, (_, i) => i + 1)
  const reads = await Promise.all(
    asked.map(number => shared.asLogin(members, { ...byUser, keys: [[user(number)]] }, 100)),
  )
  for (const [i, { rows }] of reads.entries()) expect(rows.map(row => row[0]).sort()).toEqual(roomsOf(asked[i]!))
  expect(queries).toBeLessThan(10)
})

test('keys that several ask for come to each; one that is not there, and NULL, come to nobody', async () => {
  const shared = new SharedReads(reader)
  const keys = [[[user(1)], [user(2)]], [[user(2)], [user(2)]], [[user(5000)]], [[null]], []]
  const reads = await Promise.all(keys.map(each => shared.asLogin(members, { ...byUser, keys: each }, 10_000)))
  const lengths = reads.map(({ rows }) => rows.length)
  expect(lengths).toEqual([roomsOf(1).length + roomsOf(2).length, roomsOf(2).length, 0, 0, 0])
})

test('[P7] who has more rows than it may take is told so; together they are cut short for nobody', async () => {
  const shared = new SharedReads(reader)
  const keys = [1, 2, 3, 4].map(user)
  const reads = await Promise.all(keys.map(key => shared.asLogin(members, { ...byUser, keys: [[key]] }, 1)))
  // One more than it may take, or what there is: whoever asked sees that it is too much.
  for (const [i, { rows }] of reads.entries()) expect(rows.length).toBe(Math.min(1, roomsOf(i + 1).length))
})

test('what one asks wrongly fails for it, not for who asks at the same time', async () => {
  const shared = new SharedReads(reader)
  const [good, bad] = await Promise.allSettled([
    shared.asLogin(members, { ...byUser, keys: [[user(1)]] }, 10_000),
    shared.asLogin(members, { ...byUser, keys: [['no uuid']] }, 10_000),
  ])
  expect(good).toMatchObject({
    status: 'fulfilled',
    value: { rows: roomsOf(1).map(room => [room, user(1), 'member']) },
  })
  expect(bad).toMatchObject({ status: 'rejected' })
})
