// A query with order and limit, taken up on one node after the other: every node has a window of its own, and none shows an older
// one than the reader has seen.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { OrderedRows } from '../support/ordered-rows.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader, transports } from '../support/readers.ts'
import { type RedisProcess, startRedis } from '../support/redis-process.ts'

let database: TestDatabase
let redis: RedisProcess
let nodes: TestNode[] = []
const ada = person()
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  redis = await startRedis()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  for (let i = 0; i < 2; i++) nodes.push(await TestNode.start(database.url, { REDIS_URL: redis.url }))
  token = await tokenFor(ada)
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
  await database.query(`INSERT INTO messages SELECT i, 1 + i % 2, 'w', 'row ' || i FROM generate_series(1, 60) i`)
})

afterAll(async () => {
  for (const node of nodes) await node[Symbol.asyncDispose]()
  nodes = []
  await database?.[Symbol.asyncDispose]()
  await redis?.stop()
})

const idOf = (row: Record<string, unknown>): string => String(row.id)

test.each(transports)(
  '[P1] [P4] a reader over %s hops between nodes while rows, grants and revocations pass',
  async transport => {
    const rows = new OrderedRows()
    const reader = new Reader(transport, 'live', 'messages', token, ['id'], { order: 'id.desc', limit: 4, rows })
    let resumed = 0
    for (let turn = 0; turn < 14; turn++) {
      await reader.come(nodes[turn % 3 === 0 ? 0 : 1]!)
      const expected = async (): Promise<string> =>
        (await selectAs(database, ada, 'SELECT id FROM messages ORDER BY id DESC LIMIT 4')).map(idOf).join()
      const statements = [
        `INSERT INTO messages SELECT max(id) + 1, 1, 'w', 'new' FROM messages`,
        `DELETE FROM messages WHERE id = (SELECT max(id) FROM messages WHERE room_id = 1)`,
        `INSERT INTO members VALUES (2, '${ada}') ON CONFLICT DO NOTHING`,
        `UPDATE messages SET room_id = 3 - room_id WHERE id > (SELECT max(id) - 3 FROM messages)`,
        `DELETE FROM members WHERE room_id = 2`,
      ]
      await database.query(statements[turn % 5]!)
      const now = await expected()
      await reader.until(() => rows.exact && rows.rows.map(idOf).join() === now)
      if (rows.resumed === true) resumed += 1
      await reader.leave()
      rows.interrupt()
      await database.query(statements[(turn + 1) % 5]!)
    }
    expect(reader.failure).toBe(null)
    expect(reader.resyncs).toEqual([])
    expect(resumed).toBeGreaterThan(0)
  },
)
