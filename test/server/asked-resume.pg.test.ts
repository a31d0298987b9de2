// Coming back to an asked query, falling behind in it, and its changes as events: without gap or repeat where the node
// remembers, else told to start over.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { askedSchema, askedTables } from '../support/asked.ts'
import { asSet, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader, wires } from '../support/readers.ts'

let database: TestDatabase
let node: TestNode
const [ada, ben] = [person(), person()]
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, askedSchema, askedTables)
  node = await TestNode.start(database.url, { SEND_QUEUE_BYTES: '16384' })
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query('TRUNCATE public.crew, public.papers')
  await database.query(`INSERT INTO crew VALUES (1, '${ada}'), (2, '${ben}')`)
  await database.query(`INSERT INTO papers SELECT i, 1 + i % 2, 'w', 'row ' || i FROM generate_series(1, 12) i`)
})

async function equals(reader: Reader): Promise<void> {
  const expected = asSet(await selectAs(database, ada, 'SELECT * FROM papers'))
  await reader.until(() => asSet(reader.rows.list()).join() === expected.join())
}

const countOf = (reader: Reader, event: string): number =>
  reader.events.filter(text => text.startsWith(`${event} `)).length

test.each(wires)('[P4] a client that comes back over %s is told the difference, once', async transport => {
  const reader = new Reader(transport, 'live', 'papers', token)
  await reader.come(node)
  await equals(reader)
  await database.query(`INSERT INTO papers VALUES (20, 1, 'w', 'while there')`)
  await equals(reader)
  await reader.leave()
  await database.query(`INSERT INTO papers VALUES (21, 1, 'w', 'while away'), (22, 1, 'w', 'came and went')`)
  await database.query(`UPDATE papers SET body = 'changed' WHERE id = 2; DELETE FROM papers WHERE id IN (4, 22)`)
  await database.query(`UPDATE crew SET room_id = 1 WHERE user_id = '${ben}'`)
  await reader.come(node)
  await equals(reader)
  await database.query(`INSERT INTO papers VALUES (23, 1, 'w', 'back again')`)
  await equals(reader)
  await reader.leave()
  expect(reader.failure).toBe(null)
  expect(reader.resyncs).toEqual([])
  expect(countOf(reader, 'snapshot')).toBe(1)
})

test.each(wires)('[P4] over %s a position that nobody remembers is a resync, with its own code', async transport => {
  const reader = new Reader(transport, 'live', 'papers', token)
  await reader.come(node)
  await equals(reader)
  await reader.leave()
  await node[Symbol.asyncDispose]()
  node = await TestNode.start(database.url, { SEND_QUEUE_BYTES: '16384' })
  await database.query(`INSERT INTO papers VALUES (21, 1, 'w', 'while away')`)
  await reader.come(node)
  await equals(reader)
  await reader.leave()
  expect(reader.failure).toBe(null)
  expect(reader.resyncs).toEqual(['ASKED_FORGOTTEN'])
})

test('[P4] a poll with nothing new is a 304 that moves on, and asks for no rows', async () => {
  const poll = (after: string, wait = 0): Promise<Response> =>
    fetch(`${node.url}/v1/live/papers?after=${encodeURIComponent(after)}&wait=${wait}`, {
      headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
    })
  const first = await fetch(`${node.url}/v1/live/papers`, {
    headers: { authorization: `Bearer ${token}`, accept: 'application/json' },
  })
  const body = (await first.json()) as { position: string; queries: unknown[] }
  expect(body.queries).toMatchObject([{ exact: false, warnings: [{ code: 'POLICY_ASKED' }] }])
  let { position } = body
  for (let i = 0; i < 3; i++) {
    const answer = await poll(position)
    expect(answer.status).toBe(304)
    position = answer.headers.get('tidegate-position')!
  }
  await database.query(`INSERT INTO papers VALUES (31, 1, 'w', 'news')`)
  const answer = await poll(position, 10)
  expect(answer.status).toBe(200)
  const news = (await answer.json()) as { events: { event: string; data: { changes: unknown[] } }[]; position: string }
  expect(news.events.map(({ event }) => event)).toEqual(['delta'])
  expect(news.events[0]!.data.changes).toMatchObject([{ op: 'insert', key: { id: 31 } }])
  expect((await poll(news.position)).status).toBe(304)
})

test.each(wires)('[P4] changes over %s are one event for each row and check, also after a pause', async transport => {
  const reader = new Reader(transport, 'changes', 'papers', token)
  await reader.come(node)
  await reader.until(() => reader.position !== null || reader.events.some(text => text.startsWith('subscribed')))
  const base = reader.changes.length
  expect(base).toBe(0)
  if (transport === 'long-poll') await reader.until(() => reader.position !== null)
  await database.query(`INSERT INTO papers VALUES (40, 1, 'w', 'new'), (41, 2, 'w', 'not mine')`)
  await reader.until(() => reader.changes.length === 1)
  expect(reader.changes[0]).toMatchObject({
    op: 'insert',
    schema: 'public',
    table: 'papers',
    key: { id: 40 },
    new: { id: 40, room_id: 1, author: 'w', body: 'new' },
  })
  expect(reader.changes[0]).not.toHaveProperty('old')
  await database.query(`UPDATE papers SET body = 'other' WHERE id = 40`)
  await reader.until(() => reader.changes.length === 2)
  expect(reader.changes[1]).toMatchObject({ op: 'update', key: { id: 40 }, new: { body: 'other' }, old: { id: 40 } })
  await reader.leave()
  await database.query(
    `DELETE FROM papers WHERE id = 40; INSERT INTO papers VALUES (42, 1, 'w', 'x'), (43, 1, 'w', 'y')`,
  )
  await reader.come(node)
  await reader.until(() => reader.changes.length === 5)
  await database.query(`INSERT INTO papers VALUES (44, 1, 'w', 'last')`)
  await reader.until(() => reader.changes.length === 6)
  await reader.leave()
  const after = reader.changes.slice(2).map(({ op, key }) => `${op} ${(key as { id: number }).id}`)
  expect(after).toEqual(['delete 40', 'insert 42', 'insert 43', 'insert 44'])
  expect(reader.changes[2]).not.toHaveProperty('new')
  expect(reader.resyncs).toEqual([])
})

test('[P4] changes of the operations asked for only', async () => {
  const reader = new Reader('sse', 'changes', 'papers?events=delete', token)
  await reader.come(node)
  await reader.until(() => reader.events.some(text => text.startsWith('subscribed')))
  await database.query(`INSERT INTO papers VALUES (50, 1, 'w', 'x')`)
  await database.query(`DELETE FROM papers WHERE id IN (2, 4)`)
  await reader.until(() => reader.changes.length === 2)
  await reader.leave()
  expect(reader.changes.map(({ op }) => op)).toEqual(['delete', 'delete'])
})

test('[P4] [P7] a reader that takes nothing for a while skips steps and ends where SELECT does, without a resync', async () => {
  const reader = new Reader('websocket', 'live', 'papers', token)
  await reader.come(node)
  await equals(reader)
  const other = new Reader('sse', 'live', 'papers', token)
  await other.come(node)
  await equals(other)
  reader.pause()
  for (let round = 0; round < 12; round++) {
    await database.query(`UPDATE papers SET body = repeat('${round}', 100000) || random() WHERE room_id = 2`)
    await database.query(
      `INSERT INTO papers VALUES (${100 + round}, 2, 'w', repeat('x', 200000)) ON CONFLICT DO NOTHING`,
    )
    await database.query(`UPDATE crew SET room_id = ${1 + (round % 2)} WHERE user_id = '${ada}'`)
    await equals(other)
  }
  await database.query(`UPDATE crew SET room_id = 1 WHERE user_id = '${ada}'; UPDATE papers SET body = 'end'`)
  await equals(other)
  reader.go()
  await equals(reader)
  await reader.leave()
  await other.leave()
  expect(reader.resyncs).toEqual([])
  expect(reader.failure).toBe(null)
  expect(countOf(reader, 'delta')).toBeLessThan(countOf(other, 'delta'))
})
