// Changes: every event exactly once, in order, as far as its reader may see it, wherever the reader was cut.
import { connect, type Socket } from 'node:net'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { ChangeEvent } from '../../src/protocol/messages.ts'
import { person, prepareDatabase, roomsSchema, SseStream, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader, wires } from '../support/readers.ts'

let database: TestDatabase
let node: TestNode
const [ada, ben] = [person(), person()]
let token: string

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
  await database.query(
    `TRUNCATE rooms, members, messages; INSERT INTO members VALUES (1, '${ada}'), (2, '${ben}');
     INSERT INTO messages VALUES (1, 1, 'a', 'one'), (2, 1, 'a', 'two'), (3, 2, 'b', 'hidden'), (4, 1, 'a', 'four')`,
  )
  // Events begin where the stream stands, which may be before a commit that SELECT shows already.
  await passed()
})

/** Waits until the stream has passed everything committed so far. */
async function passed(): Promise<void> {
  const [row] = await database.query<{ txid: string }>(
    `UPDATE members SET role = 'reader' WHERE user_id = '${ben}' RETURNING pg_current_xact_id()::text AS txid`,
  )
  const response = await fetch(`${node.url}/v1/wait`, {
    method: 'POST',
    headers: { authorization: `Bearer ${token}` },
    body: JSON.stringify(row),
  })
  expect(response.status).toBe(200)
}

const open = async (query = '', lastEventId?: string): Promise<SseStream> => {
  const stream = await SseStream.open(node, `/v1/changes/messages${query}`, token, lastEventId)
  expect(stream.errorBody).toEqual({})
  await stream.until(({ event }) => event === 'subscribed')
  return stream
}

const told = (stream: SseStream): ChangeEvent[] =>
  stream.events.filter(({ event }) => event === 'change').map(({ data }) => data as ChangeEvent)

/** In short: `update 1 one>uno`. */
const short = ({ op, key, old, new: next }: ChangeEvent): string =>
  [op, key?.id, op === 'truncate' ? undefined : `${old?.body ?? ''}>${next?.body ?? ''}`]
    .filter(part => part !== undefined)
    .join(' ')

let sentinel = 1000

/** Writes a row that everybody reads, and waits for it: all before it has come. */
async function settled(stream: SseStream): Promise<string[]> {
  sentinel += 1
  const body = `end ${sentinel}`
  await database.query(`INSERT INTO messages VALUES (${sentinel}, 1, 'end', '${body}')`)
  await stream.waitFor(() => told(stream).at(-1)?.new?.body === body)
  return told(stream).slice(0, -1).map(short)
}

test('[P2] [P4] each event once, with old and new; into view is an insert without old, out of view a delete without new', async () => {
  using stream = await open()
  await database.query(`INSERT INTO messages VALUES (5, 1, 'a', 'five'), (6, 2, 'b', 'six')`)
  await database.query(`UPDATE messages SET body = 'uno' WHERE id = 1`)
  await database.query(`UPDATE messages SET room_id = 1, body = 'seen' WHERE id = 3`)
  await database.query(`UPDATE messages SET room_id = 2, body = 'unseen' WHERE id = 2`)
  await database.query('DELETE FROM messages WHERE id IN (4, 6)')
  await database.query('UPDATE messages SET id = 50 WHERE id = 5')
  expect(await settled(stream)).toEqual([
    'insert 5 >five',
    'update 1 one>uno',
    'insert 3 >seen',
    'delete 2 two>',
    'delete 4 four>',
    'delete 5 five>',
    'insert 50 >five',
  ])
  const update = told(stream)[1]!
  expect(update).toEqual({
    op: 'update',
    schema: 'public',
    table: 'messages',
    key: { id: 1 },
    new: { id: 1, room_id: 1, author: 'a', body: 'uno' },
    old: { id: 1, room_id: 1, author: 'a', body: 'one' },
    committedAt: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/),
  })
  expect(JSON.stringify(stream.events)).not.toMatch(/unseen|six|hidden/)
})

test('[P4] events chooses operations; a truncation is told whatever it says', async () => {
  using inserts = await open('?events=insert')
  using others = await open('?events=update,delete&id=lt.100')
  await database.query(
    `INSERT INTO messages VALUES (5, 1, 'a', 'five'); UPDATE messages SET room_id = 1 WHERE id = 3; UPDATE messages SET room_id = 2 WHERE id = 2; DELETE FROM messages WHERE id = 1`,
  )
  await database.query('TRUNCATE messages')
  expect(await settled(inserts)).toEqual(['insert 5 >five', 'insert 3 >hidden', 'truncate'])
  await database.query(`INSERT INTO messages VALUES (7, 1, 'a', 'seven')`)
  await database.query('DELETE FROM messages WHERE id = 7')
  await others.waitFor(() => told(others).at(-1)?.key?.id === 7)
  expect(told(others).map(short)).toEqual(['delete 2 two>', 'delete 1 one>', 'truncate', 'delete 7 seven>'])
})

/** One commit whose rows are touched in another order than they were first touched, with key changes both ways. */
const tangled = `BEGIN;
  UPDATE messages SET body = 'first' WHERE id = 1;
  INSERT INTO messages VALUES (10, 1, 'a', 'ten');
  UPDATE messages SET body = 'second' WHERE id = 2;
  UPDATE messages SET id = 20 WHERE id = 4;
  UPDATE messages SET room_id = 1 WHERE id = 3;
  UPDATE messages SET body = 'last' WHERE id = 1;
  UPDATE messages SET body = 'ten again' WHERE id = 10;
  INSERT INTO messages VALUES (11, 1, 'a', 'never'); DELETE FROM messages WHERE id = 11;
  COMMIT`

const tangledEvents = [
  'update 2 two>second',
  'delete 4 four>',
  'insert 20 >four',
  'insert 3 >hidden',
  'update 1 one>last',
  'insert 10 >ten again',
]

test('[P5] events of one commit come in the order of their last change, live and replayed alike', async () => {
  const first = await open()
  await settled(first)
  const start = first.lastEventId
  await database.query(tangled)
  expect((await settled(first)).slice(1)).toEqual(tangledEvents)
  first.close()
  using again = await open('', start)
  expect((await settled(again)).slice(0, -1)).toEqual(tangledEvents)
})

test.each(wires)('[P4] cut after each event of several commits, over %s: the rest follows, once', async transport => {
  using reference = await open()
  await settled(reference)
  const before = told(reference).length
  const live = new Reader(transport, 'changes', 'messages', token)
  live.position = reference.lastEventId
  await live.come(node)
  await database.query(tangled)
  await database.query(`TRUNCATE messages; INSERT INTO messages VALUES (30, 1, 'a', 'thirty'), (31, 2, 'b', 'x')`)
  await database.query(
    `BEGIN; DELETE FROM messages WHERE id = 30; TRUNCATE messages; INSERT INTO messages VALUES (30, 1, 'a', 'anew'), (32, 1, 'a', 'b'); COMMIT`,
  )
  await database.query('UPDATE messages SET id = id + 100; UPDATE messages SET body = upper(body)')
  const all = (await settled(reference)).slice(before)
  expect(all.slice(0, tangledEvents.length)).toEqual(tangledEvents)
  const ids = reference.events
    .filter(({ event }) => event === 'change')
    .map(({ id }) => id)
    .slice(before)
  expect(new Set(ids).size).toBe(ids.length)
  await live.until(() => live.changes.length > all.length)
  expect(live.changes.slice(0, -1).map(short)).toEqual(all)
  await live.leave()
  for (let i = 0; i < all.length; i++) {
    const reader = new Reader(transport, 'changes', 'messages', token)
    reader.position = ids[i]!
    await reader.come(node)
    await reader.until(() => reader.changes.at(-1)?.new?.author === 'end')
    await reader.leave()
    expect(reader.changes.slice(0, -1).map(short), `after event ${i}`).toEqual(all.slice(i + 1))
    expect(reader.resyncs).toEqual([])
  }
})

test('[P3] [P4] what is sent late was visible at its commit and is visible now', async () => {
  const first = await open()
  await settled(first)
  const start = first.lastEventId
  first.close()
  await database.query(
    `INSERT INTO messages VALUES (10, 1, 'a', 'visible then, revoked now'), (11, 2, 'b', 'never visible then')`,
  )
  await database.query(`INSERT INTO members VALUES (2, '${ada}'), (3, '${ada}')`)
  await database.query(`INSERT INTO messages VALUES (12, 2, 'b', 'granted'), (13, 3, 'c', 'granted and revoked')`)
  await database.query(`UPDATE messages SET body = 'updated' WHERE id = 3`)
  await database.query(
    `BEGIN; INSERT INTO messages VALUES (14, 1, 'a', 'with the revocation'); DELETE FROM members WHERE user_id = '${ada}' AND room_id IN (1, 3); COMMIT`,
  )
  await database.query(`INSERT INTO messages VALUES (15, 1, 'a', 'after the revocation'), (16, 2, 'b', 'after')`)
  await passed()
  using again = await open('', start)
  await again.waitFor(() => told(again).at(-1)?.key?.id === 16)
  expect(told(again).map(short)).toEqual(['insert 12 >granted', 'update 3 hidden>updated', 'insert 16 >after'])
  expect(again.events.some(({ event }) => event === 'resync')).toBe(false)
})

/** An SSE reader that reads only when it is told to. */
class SlowStream {
  readonly socket: Socket
  text = ''

  constructor(path: string) {
    const { hostname, port } = new URL(node.url)
    this.socket = connect({ host: hostname, port: Number(port) })
    this.socket.write(
      `GET ${path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nAccept: text/event-stream\r\n\r\n`,
    )
    this.socket.setEncoding('utf8').on('data', (chunk: string) => {
      this.text += chunk
    })
  }

  async until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise(resolve => setTimeout(resolve, 20))
  }

  events(): { event: string; data: ChangeEvent }[] {
    return this.text
      .split('\n\n')
      .slice(0, -1)
      .map(block => ({
        event: /event: ?(\w+)/.exec(block)?.[1] ?? '',
        data: JSON.parse(/data: ?(.*)/.exec(block)?.[1] ?? 'null'),
      }))
      .filter(({ data }) => data !== null)
  }
}

const isChange = ({ event }: { event: string }): boolean => event === 'change'
const total = 50 * 100

/** A reader that stops at once, behind as many events as no kernel buffers. */
async function leftBehind(): Promise<{ slow: SlowStream; ids: unknown[] }> {
  const slow = new SlowStream('/v1/changes/messages')
  await slow.until(() => slow.text.includes('event: subscribed'))
  slow.socket.pause()
  const body = 'x'.repeat(4000)
  using quick = await open()
  for (let i = 0; i < 50; i++)
    await database.query(
      `INSERT INTO messages SELECT ${100_000 + i * 200} + j, 1 + j % 2, 'bulk', '${body}' FROM generate_series(0, 199) j`,
    )
  await quick.waitFor(() => told(quick).length === total, 30_000)
  return { slow, ids: told(quick).map(({ key }) => key?.id) }
}

test('[P4] [P7] a reader that stops reading catches up from the relay: nothing lost, nothing twice', {
  timeout: 60_000,
}, async () => {
  const { slow, ids } = await leftBehind()
  slow.socket.resume()
  await slow.until(() => slow.events().filter(isChange).length === total)
  await database.query(`UPDATE messages SET body = 'last' WHERE id = 1`)
  await slow.until(() => slow.text.includes('"last"'))
  slow.socket.destroy()
  expect(
    slow
      .events()
      .filter(isChange)
      .map(({ data }) => data.key?.id),
  ).toEqual([...ids, 1])
  expect(slow.events().map(({ event }) => event)).not.toContain('resync')
})

test('[P3] [P7] what a reader left in the relay is not sent after a revocation', { timeout: 60_000 }, async () => {
  const { slow, ids } = await leftBehind()
  await database.query(`DELETE FROM members WHERE user_id = '${ada}'; INSERT INTO members VALUES (3, '${ada}')`)
  using other = await open()
  await database.query(`INSERT INTO messages VALUES (5, 3, 'c', 'last')`)
  await other.waitFor(() => told(other).at(-1)?.key?.id === 5)
  slow.socket.resume()
  await slow.until(() => slow.text.includes('"last"'))
  slow.socket.destroy()
  const seen = slow
    .events()
    .filter(isChange)
    .map(({ data }) => data.key?.id)
  expect(seen.length).toBeLessThan(total)
  expect(seen).toEqual([...ids.slice(0, seen.length - 1), 5])
})
