// The promises, one by one, against a real node over a real database.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { DeltaEvent } from '../../src/protocol/messages.ts'
import { asSet, LiveSse, person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

let database: TestDatabase
let node: TestNode
const [ada, ben] = [person(), person()]
let adaToken: string
let benToken: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  node = await TestNode.start(database.url)
  adaToken = await tokenFor(ada)
  benToken = await tokenFor(ben)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query('TRUNCATE public.rooms, public.members, public.messages')
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (1, '${ada}'), (2, '${ben}')`)
  await database.query(`INSERT INTO messages VALUES (1, 1, 'ada', 'hello'), (2, 2, 'ben', 'hi')`)
})

/** Waits until the live query equals the reader's SELECT. */
async function equals(live: LiveSse, sub: string, where = 'true'): Promise<void> {
  const expected = await selectAs(database, sub, `SELECT * FROM messages WHERE ${where} ORDER BY id`)
  const wanted = asSet(expected).join()
  try {
    await live.stream.waitFor(() => asSet(live.rows.list()).join() === wanted || live.failure !== null)
  } catch {
    // The comparison below shows what is missing.
  }
  expect(live.failure).toBe(null)
  expect(asSet(live.rows.list())).toEqual(asSet(expected))
}

const deltas = (live: LiveSse): DeltaEvent[] =>
  live.stream.events.filter(event => event.event === 'delta').map(event => event.data as DeltaEvent)

const messages = (token: string, query = ''): Promise<LiveSse> => LiveSse.open(node, `/v1/live/messages${query}`, token)

test("[P1] a live query begins with the rows of the reader's SELECT and follows an insert", async () => {
  using live = await (await messages(adaToken)).exact()
  expect(live.rows.list()).toEqual([{ id: 1, room_id: 1, author: 'ada', body: 'hello' }])
  await database.query(`INSERT INTO messages VALUES (3, 1, 'ada', 'again'), (4, 2, 'ben', 'not for ada')`)
  await equals(live, ada)
  expect(deltas(live).flatMap(delta => delta.changes)).toEqual([
    { op: 'insert', key: { id: 3 }, row: { id: 3, room_id: 1, author: 'ada', body: 'again' } },
  ])
})

test('[P1] an update carries the key and the changed columns only', async () => {
  using live = await (await messages(adaToken)).exact()
  await database.query(`UPDATE messages SET body = 'changed' WHERE id = 1`)
  await equals(live, ada)
  expect(deltas(live).at(-1)!.changes).toEqual([{ op: 'update', key: { id: 1 }, set: { body: 'changed' } }])
})

test('[P2] an update that moves a row between readers is a delete without new values and an insert without old ones', async () => {
  using hers = await (await messages(adaToken)).exact()
  using his = await (await messages(benToken)).exact()
  await database.query(`UPDATE messages SET room_id = 2, body = 'moved' WHERE id = 1`)
  await equals(hers, ada)
  await equals(his, ben)
  expect(deltas(hers).at(-1)!.changes).toEqual([{ op: 'delete', key: { id: 1 } }])
  expect(deltas(his).at(-1)!.changes).toEqual([
    { op: 'insert', key: { id: 1 }, row: { id: 1, room_id: 2, author: 'ada', body: 'moved' } },
  ])
})

test('[P2] a delete reaches only those who could see the row', async () => {
  using hers = await (await messages(adaToken)).exact()
  using his = await (await messages(benToken)).exact()
  await database.query('DELETE FROM messages WHERE id = 2')
  await equals(his, ben)
  await database.query(`INSERT INTO messages VALUES (5, 1, 'ada', 'after')`)
  await equals(hers, ada)
  expect(deltas(hers)).toHaveLength(1)
})

test('[P1] a grant adds rows that nobody touched', async () => {
  using live = await (await messages(adaToken)).exact()
  await database.query(`INSERT INTO members (room_id, user_id) VALUES (2, '${ada}')`)
  await equals(live, ada)
  expect(live.rows.rows.size).toBe(2)
})

test('[P3] a revocation takes rows away that nobody touched', async () => {
  using live = await (await messages(adaToken)).exact()
  await database.query(`DELETE FROM members WHERE user_id = '${ada}'`)
  await equals(live, ada)
  expect(live.rows.rows.size).toBe(0)
})

const onlyRevocation = () => `DELETE FROM members WHERE user_id = '${ada}' AND room_id = 1`
const onlyGrant = () => `INSERT INTO members (room_id, user_id) VALUES (2, '${ada}')`

test.each([
  ['revoke, then insert', () => [onlyRevocation(), `INSERT INTO messages VALUES (9, 1, 'x', 'secret')`]],
  ['insert, then revoke', () => [`INSERT INTO messages VALUES (9, 1, 'x', 'secret')`, onlyRevocation()]],
  ['update, then revoke', () => [`UPDATE messages SET body = 'secret' WHERE id = 1`, onlyRevocation()]],
])('[P3] %s in one transaction hides the change', async (_, statements) => {
  using live = await (await messages(adaToken)).exact()
  await database.query(['BEGIN', ...statements(), 'COMMIT'].join(';'))
  await equals(live, ada)
  expect(JSON.stringify(live.stream.events)).not.toContain('secret')
})

test.each([
  ['grant, then insert', () => [onlyGrant(), `INSERT INTO messages VALUES (9, 2, 'x', 'new')`]],
  ['insert, then grant', () => [`INSERT INTO messages VALUES (9, 2, 'x', 'new')`, onlyGrant()]],
  ['grant, move in, key change', () => [onlyGrant(), 'UPDATE messages SET id = 77 WHERE id = 2']],
  ['grant and delete', () => [onlyGrant(), 'DELETE FROM messages WHERE id = 2']],
  ['grant and revoke', () => [onlyGrant(), `DELETE FROM members WHERE user_id = '${ada}' AND room_id = 2`]],
  ['revoke and grant', () => [onlyRevocation(), `INSERT INTO members (room_id, user_id) VALUES (1, '${ada}')`]],
  ['swap rooms', () => [onlyRevocation(), onlyGrant(), `UPDATE messages SET room_id = 3 - room_id`]],
  ['truncate and insert', () => ['TRUNCATE messages', `INSERT INTO messages VALUES (1, 1, 'ada', 'new')`]],
  ['truncate the memberships', () => ['TRUNCATE members']],
  [
    'several changes of one row',
    () => [
      `INSERT INTO messages VALUES (8, 2, 'x', 'a')`,
      'UPDATE messages SET room_id = 1 WHERE id = 8',
      `UPDATE messages SET body = 'b' WHERE id = 8`,
    ],
  ],
  [
    'move out and back',
    () => ['UPDATE messages SET room_id = 2 WHERE id = 1', 'UPDATE messages SET room_id = 1 WHERE id = 1'],
  ],
])('[P1] %s in one transaction', async (_, statements) => {
  using live = await (await messages(adaToken)).exact()
  await database.query(['BEGIN', ...statements(), 'COMMIT'].join(';'))
  await equals(live, ada)
  await database.query(`INSERT INTO messages VALUES (100, 1, 'later', 'later'), (101, 2, 'later', 'later')`)
  await equals(live, ada)
  expect(live.rows.resyncs).toEqual([])
})

test('[P2] a version overwritten in its own transaction is sent to nobody', async () => {
  using live = await (await messages(adaToken)).exact()
  await database.query(
    `BEGIN; INSERT INTO messages VALUES (8, 1, 'x', 'never readable'); UPDATE messages SET room_id = 2 WHERE id = 8; COMMIT`,
  )
  await database.query(`INSERT INTO messages VALUES (100, 1, 'later', 'later')`)
  await equals(live, ada)
  expect(JSON.stringify(live.stream.events)).not.toContain('never readable')
})

test('[P1] a changed key is a delete and an insert in one delta', async () => {
  using live = await (await messages(adaToken)).exact()
  await database.query('UPDATE messages SET id = 50 WHERE id = 1')
  await equals(live, ada)
  expect(deltas(live).at(-1)!.changes).toEqual([
    { op: 'delete', key: { id: 1 } },
    { op: 'insert', key: { id: 50 }, row: { id: 50, room_id: 1, author: 'ada', body: 'hello' } },
  ])
})

test('[P1] TRUNCATE empties the query without a resync', async () => {
  using live = await (await messages(adaToken)).exact()
  await database.query('TRUNCATE messages')
  await equals(live, ada)
  expect(live.rows.resyncs).toEqual([])
})

test('[P1] an unchanged TOAST value is whole for whoever sees the row for the first time, and absent from an update', async () => {
  const body =
    Array.from({ length: 3000 }, (_, i) => String.fromCharCode(97 + ((i * 7919) % 26))).join('') + Math.random()
  await database.query(`ALTER TABLE messages ALTER body SET STORAGE EXTERNAL`)
  await database.query('INSERT INTO messages VALUES (10, 1, $1, $2)', ['x', body])
  using hers = await (await messages(adaToken)).exact()
  using his = await (await messages(benToken)).exact()
  await database.query(`UPDATE messages SET author = 'y' WHERE id = 10`)
  await equals(hers, ada)
  expect(deltas(hers).at(-1)!.changes).toEqual([{ op: 'update', key: { id: 10 }, set: { author: 'y' } }])
  await database.query('UPDATE messages SET room_id = 2 WHERE id = 10')
  await equals(his, ben)
  expect(his.rows.rows.get('[10]')).toMatchObject({ body })
})

test('[P1] a filter is part of what is equal', async () => {
  using live = await (await messages(adaToken, '?body=like.h*&id=lt.50')).exact()
  await database.query(
    `INSERT INTO messages VALUES (3, 1, 'ada', 'hey'), (4, 1, 'ada', 'other'), (60, 1, 'ada', 'hey')`,
  )
  await equals(live, ada, `body LIKE 'h%' AND id < 50`)
  await database.query(`UPDATE messages SET body = 'bye' WHERE id = 1; UPDATE messages SET body = 'hm' WHERE id = 4`)
  await equals(live, ada, `body LIKE 'h%' AND id < 50`)
})

test('[P4] a client that comes back continues without gap or repeat', async () => {
  let live = await (await messages(adaToken)).exact()
  await database.query(`INSERT INTO messages VALUES (3, 1, 'ada', 'three')`)
  await equals(live, ada)
  live.stream.close()
  await database.query(
    `INSERT INTO messages VALUES (4, 1, 'ada', 'four'); UPDATE messages SET body = '4' WHERE id = 4; DELETE FROM messages WHERE id = 1`,
  )
  live = await LiveSse.open(node, '/v1/live/messages', adaToken, live)
  await equals(live, ada)
  expect(live.rows.resyncs).toEqual([])
  expect(live.stream.events.some(event => event.event === 'snapshot')).toBe(false)
  live.stream.close()
})

test('[P4] a client that comes back after a grant and a revocation gets exactly the difference', async () => {
  let live = await (await messages(adaToken)).exact()
  live.stream.close()
  await database.query(`${onlyGrant()}; ${onlyRevocation()}; INSERT INTO messages VALUES (5, 2, 'x', 'five')`)
  live = await LiveSse.open(node, '/v1/live/messages', adaToken, live)
  await equals(live, ada)
  expect(live.rows.resyncs).toEqual([])
  live.stream.close()
})

test('[P1] a snapshot of many chunks joins the stream while a writer never stops', { timeout: 60_000 }, async () => {
  await database.query(`INSERT INTO messages SELECT 1000 + i, 1, 'bulk', 'row ' || i FROM generate_series(1, 9000) i`)
  let stop = false
  const writer = (async () => {
    for (let i = 0; !stop; i++) {
      const id = 1000 + ((i * 7919) % 9000)
      await database.query(
        `UPDATE messages SET body = 'v${i}', room_id = CASE WHEN ${i} % 5 = 0 THEN 2 ELSE 1 END WHERE id = ${id}`,
      )
      if (i % 10 === 0)
        await database.query(
          `INSERT INTO messages VALUES (${20_000 + i}, 1, 'w', 'w'); DELETE FROM messages WHERE id = ${1000 + ((i * 104729) % 9000)}`,
        )
    }
  })()
  const lives = await Promise.all(Array.from({ length: 8 }, async () => (await messages(adaToken)).exact()))
  stop = true
  await writer
  for (const live of lives) {
    await equals(live, ada)
    expect(live.rows.resyncs).toEqual([])
    live.stream.close()
  }
})
