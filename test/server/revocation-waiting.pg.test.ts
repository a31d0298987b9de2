// What waits for a slow reader when a revocation commits: it is not sent any more, and nothing else is lost or repeated.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { ChangeEvent } from '../../src/protocol/messages.ts'
import { asSet, LiveSse, person, prepareDatabase, roomsSchema, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Queues, SlowReader, slowWires } from '../support/slow-reader.ts'

let database: TestDatabase
let node: TestNode
let token: string
const ada = person()
const filler = 'x'.repeat(60_000)
let nextId = 1000

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, roomsSchema, ['rooms', 'members', 'messages'])
  node = await TestNode.start(database.url)
  token = await tokenFor(ada)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query('TRUNCATE rooms, members, messages')
  await database.query(`INSERT INTO members VALUES (1, '${ada}'), (2, '${ada}')`)
  await database.query(`INSERT INTO messages VALUES (1, 1, 'a', 'one'), (2, 2, 'a', 'two')`)
  // The TRUNCATE of memberships must lie behind whoever comes: it tells nobody what it took.
  await served()
})

const insert = (room: number, body: string): Promise<unknown> =>
  database.query('INSERT INTO messages VALUES ($1, $2, $3, $4)', [nextId++, room, 'w', body])
const fill = async (): Promise<void> => void (await insert(2, filler))
const revoke = (room = 1) => database.query(`DELETE FROM members WHERE room_id = ${room} AND user_id = '${ada}'`)

/** Commits something that another reader sees last: by then the revocation has been served. */
async function served(): Promise<void> {
  using witness = await LiveSse.open(node, '/v1/live/messages?room_id=eq.2&author=eq.witness', token)
  await witness.exact()
  const id = nextId++
  await database.query(`INSERT INTO messages VALUES (${id}, 2, 'witness', 'seen')`)
  await witness.stream.waitFor(() => witness.rows.rows.has(`[${id}]`))
}

async function equalsSelect(reader: SlowReader): Promise<void> {
  const expected = asSet(await selectAs(database, ada, 'SELECT * FROM messages')).join()
  await reader.until(() => asSet(reader.rows.list()).join() === expected)
  expect(reader.failure).toBe(null)
}

test.each(slowWires)('[P2] [P3] %s: a delta that waits when its row is revoked is never sent', async wire => {
  using queues = new Queues()
  const reader = await SlowReader.open(node, wire, 'live/messages', token)
  await reader.until(() => reader.rows.exact)
  reader.socket.pause()
  await queues.stall(fill)
  await insert(1, 'the secret')
  await fill()
  await insert(2, 'no secret')
  await revoke()
  await served()
  expect(queues.taken).toBe(1)
  reader.socket.resume()
  await equalsSelect(reader)
  expect(reader.heard('the secret')).toBe(false)
  expect(reader.heard('no secret')).toBe(true)
  expect(reader.rows.resyncs).toEqual([])
  // It stands at the head again, as everybody.
  await insert(2, 'afterwards')
  await equalsSelect(reader)
  reader.close()
})

test.each(slowWires)(
  '[P2] [P4] %s: of waiting changes those revoked are left out, all others come once, in order',
  async wire => {
    using queues = new Queues()
    const reader = await SlowReader.open(node, wire, 'changes/messages', token)
    reader.socket.pause()
    const from = nextId
    await queues.stall(fill)
    const secret = nextId
    await insert(1, 'the secret')
    for (let i = 0; i < 5; i++) await insert(2, `no secret ${i}`)
    await database.query(
      `BEGIN; INSERT INTO messages VALUES (${nextId++}, 2, 'w', 'with it'); DELETE FROM members WHERE room_id = 1; COMMIT`,
    )
    for (let i = 0; i < 5; i++) await insert(2, `after ${i}`)
    await served()
    expect(queues.taken).toBe(1)
    const upTo = nextId
    reader.socket.resume()
    const ids = (): unknown[] => reader.of('change').map(({ data }) => (data as ChangeEvent).key?.id)
    await reader.until(() => ids().at(-1) === upTo - 1)
    const wanted = Array.from({ length: upTo - from }, (_, i) => from + i).filter(id => id !== secret)
    expect(ids()).toEqual(wanted)
    expect(reader.of('resync')).toEqual([])
    reader.close()
  },
)

test.each(slowWires)(
  '[P2] %s: one who has fallen behind with a full queue is not sent what waits in it',
  async wire => {
    using queues = new Queues()
    const reader = await SlowReader.open(node, wire, 'live/messages', token)
    await reader.until(() => reader.rows.exact)
    reader.socket.pause()
    const queue = await queues.stall(fill)
    await insert(1, 'the secret')
    while (!queue.isFull) await fill()
    await revoke()
    await served()
    reader.socket.resume()
    await equalsSelect(reader)
    expect(reader.heard('the secret')).toBe(false)
    expect(reader.rows.resyncs).toEqual([])
    reader.close()
  },
)

test.each(slowWires)('[P1] [P2] %s: a finished first snapshot that waits is made anew', async wire => {
  await database.query(
    `INSERT INTO messages SELECT 10000 + i, 1 + i % 2, 's', repeat('y', 20000) FROM generate_series(1, 1500) i`,
  )
  using queues = new Queues()
  const reader = await SlowReader.open(node, wire, 'live/messages', token)
  reader.socket.pause()
  await queues.stall(() => new Promise(resolve => setTimeout(resolve, 5)))
  await revoke()
  await served()
  expect(queues.taken).toBe(1)
  reader.socket.resume()
  await equalsSelect(reader)
  expect(reader.rows.resyncs).toEqual(['INPUTS_CHANGED'])
  const rows = reader.of('snapshot').flatMap(({ data }) => (data as { rows: { room_id: number }[] }).rows)
  expect(rows.filter(row => row.room_id === 1).length).toBeLessThan(750)
  reader.close()
})

test.each(['live', 'changes'])(
  '[P2] [P3] %s: what waits when a policy changes is not sent by the old one',
  async kind => {
    using queues = new Queues()
    const reader = await SlowReader.open(node, 'websocket', `${kind}/messages`, token)
    if (kind === 'live') await reader.until(() => reader.rows.exact)
    reader.socket.pause()
    await queues.stall(fill)
    await insert(1, 'the secret')
    const policy = 'CREATE POLICY only_two ON messages AS RESTRICTIVE FOR SELECT USING (room_id = 2)'
    await database.query(policy)
    try {
      await served()
      expect(queues.taken).toBeGreaterThan(0)
      reader.socket.resume()
      await reader.until(() => reader.rows.resyncs.length > 0)
      await insert(2, 'no secret')
      if (kind === 'live') await equalsSelect(reader)
      else await reader.until(() => reader.heard('no secret'))
      expect(reader.heard('the secret')).toBe(false)
    } finally {
      await database.query('DROP POLICY only_two ON messages')
    }
    reader.close()
  },
)

test('[P2] a row that leaves the view while its versions wait: they do not come before it goes', async () => {
  using queues = new Queues()
  const reader = await SlowReader.open(node, 'sse', 'live/messages?author=eq.w', token)
  await reader.until(() => reader.rows.exact)
  reader.socket.pause()
  await queues.stall(fill)
  const id = nextId
  await insert(2, 'the secret')
  await insert(2, 'no secret')
  await database.query(`UPDATE messages SET author = 'nobody' WHERE id = ${id}`)
  await served()
  expect(queues.taken).toBe(1)
  reader.socket.resume()
  const expected = asSet(await selectAs(database, ada, `SELECT * FROM messages WHERE author = 'w'`)).join()
  await reader.until(() => asSet(reader.rows.list()).join() === expected)
  expect(reader.heard('the secret')).toBe(false)
  expect(reader.rows.resyncs).toEqual([])
  reader.close()
})

test('[P2] [P4] a stream of several queries: every id it is given is true, whatever was taken back', async () => {
  using queues = new Queues()
  const path = `live?q=${encodeURIComponent('messages?id=gt.0')}&q=${encodeURIComponent('messages?room_id=eq.2')}`
  const reader = await SlowReader.open(node, 'sse', path, token)
  await reader.until(() => reader.of('snapshot').length === 2)
  reader.socket.pause()
  await queues.stall(fill)
  await insert(1, 'the secret')
  await insert(2, 'no secret')
  await insert(1, 'the secret')
  await insert(2, 'no secret')
  await revoke()
  await insert(2, 'after')
  await served()
  reader.socket.resume()
  // The revocation left rows of room 2 alone, and both queries have those.
  const expected = asSet(await selectAs(database, ada, 'SELECT * FROM messages')).join()
  const isEqual = (of: SlowReader): boolean => [0, 1].every(q => asSet(of.rowsOf(q).list()).join() === expected)
  await reader.until(() => isEqual(reader))
  expect(reader.heard('the secret')).toBe(false)
  expect(reader.queries.flatMap(({ resyncs }) => resyncs)).toEqual([])
  reader.close()
  // Whoever was cut off after any of them comes back to the same rows.
  const places = reader.events.flatMap(({ id }, place) =>
    id !== '' && id !== reader.events[place + 1]?.id ? [place] : [],
  )
  for (const place of places.slice(-8)) {
    const back = await SlowReader.stream(node, path, token, reader.events.slice(0, place + 1))
    await back.until(() => isEqual(back))
    back.close()
  }
})
