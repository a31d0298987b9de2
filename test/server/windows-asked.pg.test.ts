// Order and limit where Postgres is asked: what it returns, in its order, a moment later.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { askedSchema, askedTables } from '../support/asked.ts'
import { person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { OrderedSse } from '../support/ordered-rows.ts'
import { TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let node: TestNode
const ada = person()
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, askedSchema, askedTables)
  node = await TestNode.start(database.url, { RECHECK_MS: '200' })
  token = await tokenFor(ada)
  await database.query(`INSERT INTO crew VALUES (1, '${ada}'), (3, '${ada}')`)
  await database.query(`INSERT INTO papers SELECT i, 1 + i % 4, 'w', 'row ' || i % 7 FROM generate_series(1, 60) i`)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const textOf = (row: Record<string, unknown>): string => `${row.id} ${row.body}`

test('[P1] the first rows are those of the SELECT, in its order, whatever enters, leaves or moves', async () => {
  using live = await OrderedSse.open(node, '/v1/live/papers?order=body.desc,id.desc&limit=5', token)
  const follows = async (): Promise<void> => {
    const rows = await selectAs(database, ada, 'SELECT * FROM papers ORDER BY body DESC, id DESC LIMIT 5')
    await live.settle(rows.map(textOf), textOf)
  }
  await follows()
  const [subscribed] = live.stream.events.filter(({ event }) => event === 'subscribed')
  expect(subscribed!.data).toMatchObject({ exact: false, limit: 5, order: [{ column: 'body' }, { column: 'id' }] })
  for (const statement of [
    `INSERT INTO papers VALUES (100, 1, 'w', 'zz'), (101, 2, 'w', 'zzz'), (102, 3, 'w', 'row 6')`,
    `UPDATE papers SET body = 'zzzz' WHERE id = 4`,
    `UPDATE papers SET body = 'a' WHERE id = 100`,
    `UPDATE papers SET body = 'row 6' WHERE id = 4`,
    `UPDATE papers SET id = 1000 - id`,
    `DELETE FROM papers WHERE body = 'row 6'`,
    `DELETE FROM crew WHERE room_id = 1`,
    `INSERT INTO crew VALUES (1, '${ada}')`,
    `TRUNCATE papers`,
    `INSERT INTO papers SELECT i, 1, 'w', 'row ' || i FROM generate_series(1, 20) i`,
  ]) {
    await database.query(statement)
    await follows()
  }
  expect(live.rows.resyncs).toEqual([])
  live.stream.close()
  // Some come back before Postgres was asked about what has changed, some after.
  let last = live
  for (let turn = 0; turn < 30; turn++) {
    const writing = database.query(`UPDATE papers SET body = 'row ${turn}x' WHERE id = ${1 + (turn % 20)}`)
    if (turn % 2 === 0) await writing
    last = await OrderedSse.open(node, '/v1/live/papers?order=body.desc,id.desc&limit=5', token, last)
    await writing
    const now = await selectAs(database, ada, 'SELECT * FROM papers ORDER BY body DESC, id DESC LIMIT 5')
    await last.settle(now.map(textOf), textOf)
    last.stream.close()
  }
  await database.query(`UPDATE papers SET body = 'zzz' WHERE id = 3`)
  const again = await OrderedSse.open(node, '/v1/live/papers?order=body.desc,id.desc&limit=5', token, last)
  const rows = await selectAs(database, ada, 'SELECT * FROM papers ORDER BY body DESC, id DESC LIMIT 5')
  await again.settle(rows.map(textOf), textOf)
  expect(again.rows.resyncs).toEqual([])
  again.stream.close()
})
