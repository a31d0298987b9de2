// Readers that read now and then, while memberships and rows move at random: what waits for them is taken back again and
// again, and none of them loses or repeats anything.
import { expect, test } from 'vitest'
import type { ChangeEvent } from '../../src/protocol/messages.ts'
import { asSet, person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Queues, SlowReader } from '../support/slow-reader.ts'

const steps = 1200
const rooms = 4

/** @returns numbers below `below`, always the same for a seed */
function draws(seed: number): (below: number) => number {
  let state = seed
  return below => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

test('[P1] [P2] [P4] slow readers under random grants and revocations', { timeout: 90_000 }, async () => {
  const seed = Number(process.env.SEED ?? Date.now() % 1e9)
  console.log(`slow readers: seed ${seed}`)
  const draw = draws(seed)
  await using database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  await database.query('ALTER TABLE messages ALTER body SET STORAGE EXTERNAL')
  await using node = await TestNode.start(database.url, {
    WINDOW_MAX_BYTES: String(2 ** 29),
    SLOT_MAX_BYTES: String(2 ** 33),
  })
  using queues = new Queues()
  const ada = person()
  const token = await tokenFor(ada)
  // Room 0 is always theirs.
  await database.query(`INSERT INTO members SELECT i, '${ada}' FROM generate_series(0, ${rooms - 1}) i`)
  const path = `live?q=messages&q=${encodeURIComponent('messages?room_id=in.(0,1)')}`
  const open = [
    SlowReader.open(node, 'websocket', 'live/messages', token),
    SlowReader.open(node, 'sse', 'live/messages', token),
    SlowReader.stream(node, path, token),
    SlowReader.open(node, 'websocket', 'changes/messages', token),
  ]
  const readers = await Promise.all(open)
  const [first, second, both, changes] = readers as [SlowReader, SlowReader, SlowReader, SlowReader]
  for (const reader of [first, second]) await reader.until(() => reader.rows.exact)
  await both.until(() => both.rowsOf(0).exact && both.rowsOf(1).exact)
  const body = 'x'.repeat(60_000)
  for (let step = 0; step < steps; step++) {
    const id = draw(40)
    const room = draw(rooms)
    const kind = draw(20)
    if (kind < 11)
      await database.query(
        `INSERT INTO messages VALUES ($1, $2, 'w', $3) ON CONFLICT (id) DO UPDATE SET room_id = $2, body = $3`,
        [id, room, `${step} ${body}`],
      )
    else if (kind < 12) await database.query('DELETE FROM messages WHERE id = $1', [id])
    else if (kind < 15 && room > 0)
      await database.query(
        `DELETE FROM members WHERE room_id = ${room}; UPDATE messages SET author = '${step}' WHERE id = ${id}`,
      )
    else if (kind < 18) await database.query(`INSERT INTO members VALUES (${room}, '${ada}') ON CONFLICT DO NOTHING`)
    else {
      const reader = readers[draw(readers.length)]!
      if (draw(6) === 0) reader.socket.resume()
      else reader.socket.pause()
    }
  }
  for (const reader of readers) reader.socket.resume()
  await database.query(`INSERT INTO messages VALUES (1000, 0, 'w', 'the end')`)
  const of = async (where: string): Promise<string> =>
    asSet(await selectAs(database, ada, `SELECT * FROM messages WHERE ${where}`)).join()
  const [all, some] = [await of('true'), await of('room_id IN (0, 1)')]
  for (const reader of [first, second, both]) await reader.until(() => asSet(reader.rows.list()).join() === all)
  await both.until(() => asSet(both.rowsOf(1).list()).join() === some)
  await changes.until(() => changes.of('change').some(({ data }) => (data as ChangeEvent).key?.id === 1000))
  for (const reader of readers) expect(reader.failure).toBe(null)
  // Whoever had the beginning of a delta of several parts begins anew.
  const resyncs = readers.flatMap(reader => reader.queries.flatMap(each => each.resyncs))
  expect(new Set([...resyncs, 'INPUTS_CHANGED'])).toEqual(new Set(['INPUTS_CHANGED']))
  const ids = changes.of('change').map(({ id }) => id)
  expect(new Set(ids).size).toBe(ids.length)
  console.log(`slow readers: ${queues.taken} events taken back, ${resyncs.length} resyncs`)
  expect(queues.taken).toBeGreaterThan(0)
  for (const reader of readers) reader.close()
})
