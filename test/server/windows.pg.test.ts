// Order and limit: at every quiet point the rows of a live query are those of SELECT ... ORDER BY ... LIMIT n under its reader's
// row-level security, in that order.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { OrderedRows, OrderedSse } from '../support/ordered-rows.ts'
import { TestDatabase } from '../support/postgres.ts'
import { Reader, wires } from '../support/readers.ts'

const schema = `
  CREATE TABLE public.members (room_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
  CREATE TABLE public.notes (id int PRIMARY KEY, room_id int NOT NULL DEFAULT 1, rank int, body text COLLATE "C",
    title text COLLATE "und-x-icu", mood mood, price numeric, at timestamptz);
  CREATE TABLE public.pairs (b text COLLATE "C", a int, n int, PRIMARY KEY (a, b));
  ALTER TABLE public.members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.pairs ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY by_membership ON public.notes FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room_id = notes.room_id AND m.user_id = (SELECT auth.uid())));
  CREATE POLICY everybody ON public.pairs FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON public.members, public.notes, public.pairs TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`

let database: TestDatabase
let node: TestNode
const user = person()
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['members', 'notes', 'pairs'])
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '60000' })
  token = await tokenFor(user)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

interface Case {
  readonly order: string
  readonly sql: string
  readonly limit: number
}

const open = (parameters: string, resume?: OrderedSse): Promise<OrderedSse> =>
  OrderedSse.open(node, `/v1/live/notes?${parameters}`, token, resume)

const begin = async (...statements: readonly string[]): Promise<void> => {
  await database.query('TRUNCATE notes')
  await database.query('DELETE FROM members')
  for (const statement of [`INSERT INTO members VALUES (1, '${user}')`, ...statements]) await database.query(statement)
}

const idOf = (row: Record<string, unknown>): string => String(row.id)

async function settle(live: OrderedSse, { sql, limit }: Pick<Case, 'sql' | 'limit'>): Promise<void> {
  const rows = await selectAs(database, user, `SELECT id FROM notes ORDER BY ${sql} LIMIT ${limit}`)
  await live.settle(rows.map(idOf), idOf)
}

const numbers = (from: number, to: number): string =>
  `INSERT INTO notes (id, rank, body) SELECT i, i * 10, 'b' || i FROM generate_series(${from}, ${to}) i`

test('[P1] the first rows and how they are ordered are told, and a row that leaves makes room for the next', async () => {
  await begin(numbers(1, 40))
  using live = await open('order=rank.desc&limit=3&select=id,rank')
  const order = { order: 'rank.desc', sql: 'rank DESC, id', limit: 3 }
  await settle(live, order)
  expect(live.rows.limit).toBe(3)
  expect(live.rows.order).toEqual([
    { column: 'rank', direction: 'desc', nulls: 'first', compare: 'number' },
    { column: 'id', direction: 'asc', nulls: 'last', compare: 'number' },
  ])
  expect(live.rows.rows[0]).toEqual({ id: 40, rank: 400 })
  const steps = [
    `DELETE FROM notes WHERE id = 40`,
    `INSERT INTO notes (id, rank) VALUES (100, 385)`,
    `UPDATE notes SET rank = 1000 WHERE id = 1`,
    `UPDATE notes SET rank = 1 WHERE id = 39`,
    `UPDATE notes SET body = 'another' WHERE id = 38`,
    `UPDATE notes SET rank = NULL WHERE id = 5`,
    `UPDATE notes SET rank = 385 WHERE id IN (7, 8, 9)`,
    `UPDATE notes SET id = 99 WHERE id = 7`,
    `UPDATE notes SET rank = 5000 - rank`,
    // More than are to spare.
    `DELETE FROM notes WHERE id > 12`,
    `DELETE FROM notes`,
    numbers(1, 2),
    numbers(3, 30),
    `BEGIN; TRUNCATE notes; ${numbers(4, 6)}; COMMIT`,
    `TRUNCATE notes`,
  ]
  for (const step of steps) {
    await database.query(step)
    await settle(live, order)
  }
  expect(live.rows.resyncs).toEqual([])
})

test('[P1] a grant brings rows into the window and a revocation takes them out, each in one delta', async () => {
  await begin(
    numbers(1, 20),
    `INSERT INTO notes (id, room_id, rank) SELECT 100 + i, 2, i * 10 + 5 FROM generate_series(1, 20) i`,
  )
  using live = await open('order=rank&limit=6')
  const order = { sql: 'rank, id', limit: 6 }
  await settle(live, order)
  for (const step of [
    `INSERT INTO members VALUES (2, '${user}')`,
    `DELETE FROM members WHERE room_id = 1`,
    `BEGIN; INSERT INTO members VALUES (1, '${user}'); DELETE FROM members WHERE room_id = 2; UPDATE notes SET rank = 0 WHERE id = 20; COMMIT`,
    `DELETE FROM members`,
    `INSERT INTO members VALUES (1, '${user}'), (2, '${user}')`,
  ]) {
    const before = live.rows.history.length
    await database.query(step)
    await settle(live, order)
    expect(live.rows.history.slice(before).filter(line => line.startsWith('delta'))).toHaveLength(1)
  }
  expect(live.rows.resyncs).toEqual([])
})

test('[P1] text under a collation that only Postgres has is ordered as Postgres does', async () => {
  const words = ['Zebra', 'apple', 'Äpfel', 'äther', 'Apple', 'zoo', 'eclair', 'éclair', '_x', '10', '9']
  await begin(
    `INSERT INTO notes (id, title) SELECT i, w FROM unnest(ARRAY[${words.map(word => `'${word}'`).join()}]) WITH ORDINALITY u(w, i)`,
  )
  using live = await open('order=title&limit=5')
  const order = { sql: 'title, id', limit: 5 }
  await settle(live, order)
  expect(live.rows.order[0]).toMatchObject({ column: 'title', compare: 'server' })
  for (const step of [
    `INSERT INTO notes (id, title) VALUES (50, 'äpple'), (51, 'APPLE'), (52, 'aardvark')`,
    `UPDATE notes SET title = 'Aaa' WHERE id = 1`,
    `UPDATE notes SET title = 'zzz' WHERE id = 52`,
    `UPDATE notes SET body = 'x'`,
    `DELETE FROM notes WHERE title < 'b'`,
    `INSERT INTO notes (id, title) SELECT 100 + i, chr(97 + (i * 7) % 26) || i FROM generate_series(1, 60) i`,
  ]) {
    await database.query(step)
    await settle(live, order)
  }
  expect(live.rows.resyncs).toEqual([])
})

test('[P8] what cannot be ordered exactly is refused with what to do', async () => {
  const refusals: [string, string, string][] = [
    ['order=title', 'ORDER_UNSUPPORTED', 'add a limit'],
    ['order=rank&select=id', 'ORDER_UNSUPPORTED', 'add it to select'],
    ['order=nope', 'COLUMN_UNKNOWN', 'no column'],
    ['limit=1001', 'FILTER_INVALID', 'between 1 and 1000'],
  ]
  for (const [parameters, code, message] of refusals)
    await expect(open(parameters)).rejects.toThrow(new RegExp(`${code}.*${message}|${message}.*${code}`))
  await expect(OrderedSse.open(node, '/v1/changes/notes?limit=1', token)).rejects.toThrow('ORDER_UNSUPPORTED')
})

test('[P4] who comes back goes on where the window was, with one delta and no resync', async () => {
  await begin(numbers(1, 30))
  const order = { sql: 'rank, id', limit: 4 }
  let live = await open('order=rank&limit=4')
  await settle(live, order)
  for (let turn = 1; turn <= 5; turn++) {
    live.stream.close()
    await database.query(
      `UPDATE notes SET rank = -${turn} WHERE id = ${20 + turn}; DELETE FROM notes WHERE id = ${turn}`,
    )
    live = await open('order=rank&limit=4', live)
    await settle(live, order)
    expect(live.rows.resumed).toBe(true)
  }
  live.stream.close()
  // Of a window that nobody remembers any more, the rows of now.
  using witness = await open('order=rank&limit=4')
  for (let i = 0; i < 70; i++) await database.query(`UPDATE notes SET rank = -${100 + i} WHERE id = 10`)
  await database.query('UPDATE notes SET rank = -1000 WHERE id = 15')
  await settle(witness, order)
  live = await open('order=rank&limit=4', live)
  await settle(live, order)
  expect(live.rows.resumed).toBe(false)
  expect(live.rows.resyncs).toEqual([])
  live.stream.close()
})

test('[P1] without a limit all rows come, and the client is told how to order them', async () => {
  await begin(numbers(1, 5))
  using live = await open('order=mood.desc.nullslast,at')
  await live.stream.until(event => event.event === 'snapshot')
  expect(live.rows.order).toEqual([
    { column: 'mood', direction: 'desc', nulls: 'last', compare: 'labels', labels: ['sad', 'ok', 'happy'] },
    { column: 'at', direction: 'asc', nulls: 'last', compare: 'time' },
    { column: 'id', direction: 'asc', nulls: 'last', compare: 'number' },
  ])
  expect(live.rows.rows).toHaveLength(5)
})

test.each(wires)('[P1] [P4] over %s, cut and taken up again', async transport => {
  await begin(numbers(1, 50))
  const rows = new OrderedRows()
  const reader = new Reader(transport, 'live', 'notes', token, ['id'], { order: 'rank.desc', limit: 6, rows })
  let resumed = 0
  for (let turn = 0; turn < 12; turn++) {
    await reader.come(node)
    for (let step = 0; step < 4; step++) {
      const id = 1 + ((turn * 7 + step * 11) % 50)
      await database.query(
        [
          `UPDATE notes SET rank = ${1000 + turn * 10 + step} WHERE id = ${id}`,
          `UPDATE notes SET rank = rank - 500 WHERE rank > 900`,
          `DELETE FROM notes WHERE id = ${id}`,
          `INSERT INTO notes (id, rank) VALUES (${100 + turn * 10 + step}, ${turn * 40})`,
        ][(turn + step) % 4]!,
      )
      if (step % 2 === 1) continue
      const expected = await selectAs(database, user, `SELECT id FROM notes ORDER BY rank DESC, id LIMIT 6`)
      await reader.until(() => rows.exact && rows.rows.map(idOf).join() === expected.map(idOf).join())
    }
    if (rows.resumed === true) resumed += 1
    await reader.leave()
    rows.interrupt()
  }
  expect(reader.failure).toBe(null)
  expect(rows).toMatchObject({ limit: 6, order: [{ column: 'rank', direction: 'desc' }, { column: 'id' }] })
  expect(reader.resyncs).toEqual([])
  // All but the first time.
  expect(resumed).toBeGreaterThanOrEqual(11)
})

test('[P5] [P7] a reader that takes nothing for a while is told the difference, and not each step', async () => {
  await begin(numbers(1, 50))
  const rows = new OrderedRows()
  const reader = new Reader('websocket', 'live', 'notes', token, ['id'], { order: 'rank.desc', limit: 5, rows })
  await reader.come(node)
  await reader.until(() => rows.exact)
  reader.pause()
  const body = 'x'.repeat(200_000)
  for (let i = 0; i < 120; i++)
    await database.query(`UPDATE notes SET rank = 2000 + ${i}, body = '${body}${i}' WHERE id = ${1 + (i % 50)}`)
  reader.go()
  const expected = await selectAs(database, user, `SELECT id FROM notes ORDER BY rank DESC, id LIMIT 5`)
  await reader.until(() => rows.rows.map(idOf).join() === expected.map(idOf).join())
  expect(rows.history.filter(line => line.startsWith('delta')).length).toBeLessThan(120)
  expect(rows.resyncs).toEqual([])
  await reader.leave()
})

test('[P1] [P7] one who starts over beside others takes nothing from them', async () => {
  await begin(numbers(1, 50))
  const order = { sql: 'rank DESC, id', limit: 5 }
  using first = await open('order=rank.desc&limit=5')
  await settle(first, order)
  using other = await open('order=rank&limit=5')
  await other.stream.waitFor(() => other.rows.exact)
  for (let turn = 0; turn < 20; turn++) {
    const writing = database.query(`UPDATE notes SET rank = ${1000 + turn} WHERE id = ${1 + turn}`)
    // A position of another query.
    using stray = await open('order=rank.desc&limit=5', other)
    await writing
    await settle(stray, order)
    await settle(first, order)
    expect(stray.rows.resyncs.at(-1)).toBe('QUERY_CHANGED')
  }
  expect(first.rows.resyncs).toEqual([])
})
