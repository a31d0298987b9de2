// Windows through what is not a small commit: one too large to hold, policies, privileges and types that change, partitions, time.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { person, prepareDatabase, selectAs, TestNode, tokenFor, trackTables } from '../support/node.ts'
import { OrderedSse } from '../support/ordered-rows.ts'
import { TestDatabase } from '../support/postgres.ts'

const schema = `
  CREATE TYPE mood AS ENUM ('sad', 'happy');
  CREATE TABLE members (room_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TABLE notes (id int PRIMARY KEY, room_id int NOT NULL DEFAULT 1, rank int, mood mood, secret int,
    until timestamptz NOT NULL DEFAULT 'infinity');
  CREATE TABLE parts (id int, area int, rank int, PRIMARY KEY (id, area)) PARTITION BY LIST (area);
  CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1);
  CREATE TABLE parts_2 PARTITION OF parts FOR VALUES IN (2);
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE notes ENABLE ROW LEVEL SECURITY;
  ALTER TABLE parts ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY readers ON notes FOR SELECT TO authenticated USING (until > now() AND
    EXISTS (SELECT 1 FROM members m WHERE m.room_id = notes.room_id AND m.user_id = (SELECT auth.uid())));
  CREATE POLICY everybody ON parts FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON members, notes, parts TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`

let database: TestDatabase
let node: TestNode
const ada = person()
let token: string

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['members', 'notes', 'parts'])
  node = await TestNode.start(database.url, { SPOOL_BYTES: '65536' })
  token = await tokenFor(ada)
  await database.query(`INSERT INTO members VALUES (1, '${ada}')`)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const idOf = (row: Record<string, unknown>): string => String(row.id)

class Followed implements Disposable {
  readonly live: OrderedSse
  readonly #sql: string

  private constructor(live: OrderedSse, sql: string) {
    this.live = live
    this.#sql = sql
  }

  static async open(table: string, order: string, limit: number, sql: string): Promise<Followed> {
    const live = await OrderedSse.open(node, `/v1/live/${table}?order=${order}&limit=${limit}`, token)
    const followed = new Followed(live, `SELECT id FROM ${table} ORDER BY ${sql} LIMIT ${limit}`)
    await followed.settle()
    return followed
  }

  async settle(): Promise<void> {
    const rows = await selectAs(database, ada, this.#sql)
    await this.live.settle(rows.map(idOf), idOf)
  }

  async after(...statements: readonly string[]): Promise<void> {
    for (const statement of statements) {
      await database.query(statement)
      await this.settle()
    }
  }

  [Symbol.dispose](): void {
    this.live.stream.close()
  }
}

test('[P1] a commit too large to hold is read again once it was served', async () => {
  await database.query('INSERT INTO notes (id, rank) SELECT i, i FROM generate_series(1, 50) i')
  using notes = await Followed.open('notes', 'rank.desc', 5, 'rank DESC, id')
  await notes.after(
    'INSERT INTO notes (id, rank) SELECT i, i % 977 FROM generate_series(1000, 6000) i',
    'UPDATE notes SET rank = -rank',
    'DELETE FROM notes WHERE id > 40',
    `BEGIN; UPDATE notes SET rank = 7; INSERT INTO notes (id, rank) SELECT i, 8 FROM generate_series(1000, 6000) i; DELETE FROM notes WHERE id > 1003; COMMIT`,
    `BEGIN; INSERT INTO notes (id, rank) SELECT i, 9 FROM generate_series(2000, 6000) i; TRUNCATE notes; INSERT INTO notes (id, rank) VALUES (1, 1), (2, 2); COMMIT`,
    `BEGIN; INSERT INTO notes (id, rank, room_id) SELECT i, i, i % 3 FROM generate_series(2000, 6000) i; INSERT INTO members VALUES (2, '${ada}'); COMMIT`,
    `DELETE FROM members WHERE room_id = 2`,
  )
  expect(notes.live.rows.resyncs).toEqual([])
})

test('[P1] a commit of more rows than are placed one by one', async () => {
  await database.query('TRUNCATE notes')
  await database.query('INSERT INTO notes (id, rank) SELECT i, i FROM generate_series(1, 400) i')
  using notes = await Followed.open('notes', 'rank.desc', 300, 'rank DESC, id')
  await notes.after(
    'INSERT INTO notes (id, rank) SELECT i, i * 7 % 1009 FROM generate_series(1001, 1600) i',
    'UPDATE notes SET rank = rank + 1',
    'INSERT INTO notes (id, rank) SELECT i, i % 1000 FROM generate_series(2001, 4500) i',
    'UPDATE notes SET rank = 1000 - rank',
    'DELETE FROM notes WHERE id % 3 > 0',
  )
  expect(notes.live.rows.resyncs).toEqual([])
})

test('[P1] rows that the time takes away make room', async () => {
  await database.query('TRUNCATE notes')
  await database.query(`INSERT INTO notes (id, rank) SELECT i, i FROM generate_series(1, 30) i`)
  using notes = await Followed.open('notes', 'rank', 4, 'rank, id')
  await database.query(`UPDATE notes SET until = now() + interval '700 ms' WHERE id IN (1, 3)`)
  await notes.live.settle(['2', '4', '5', '6'], idOf)
  await notes.settle()
  expect(notes.live.rows.resyncs).toEqual([])
})

test('[P1] [P3] policies, privileges and labels that change', async () => {
  await database.query('TRUNCATE notes')
  await database.query(`INSERT INTO notes (id, rank, mood) SELECT i, i, 'sad' FROM generate_series(1, 30) i`)
  using notes = await Followed.open('notes', 'mood,rank', 4, 'mood, rank, id')
  await notes.after(`CREATE POLICY odd ON notes AS RESTRICTIVE FOR SELECT TO authenticated USING (id % 2 = 1)`)
  await notes.after(`UPDATE notes SET mood = 'happy' WHERE id = 1`, `DROP POLICY odd ON notes`)
  await notes.after(
    `ALTER TYPE mood ADD VALUE 'angry' BEFORE 'sad'`,
    `UPDATE notes SET mood = 'angry' WHERE id = 30`,
    `INSERT INTO notes (id, rank, mood) VALUES (31, 31, 'angry')`,
    `UPDATE notes SET mood = 'sad' WHERE id = 30`,
  )
  expect(new Set(notes.live.rows.resyncs)).toEqual(new Set(['POLICY_CHANGED']))
  expect(notes.live.rows.order[0]!.labels).toEqual(['angry', 'sad', 'happy'])
})

test('[P2] an order by a column that may not be read any more ends', async () => {
  const { live } = await Followed.open('notes', 'secret', 4, 'secret, id')
  await database.query('REVOKE SELECT ON notes FROM authenticated')
  await database.query('GRANT SELECT (id, room_id, rank, mood, until) ON notes TO authenticated')
  const { data } = await live.stream.until(({ event }) => event === 'error')
  expect(data).toMatchObject({ code: expect.stringMatching(/COLUMN_UNKNOWN|TABLE_REFUSED|UNSUBSCRIBED_TABLE_CHANGED/) })
  await expect(Followed.open('notes', 'secret', 4, 'rank')).rejects.toThrow('COLUMN_UNKNOWN')
  using _ = await Followed.open('notes', 'rank', 4, 'rank, id')
  await database.query('GRANT SELECT ON notes TO authenticated')
})

test('[P1] partitions: rows of all in one order, also when one is truncated, detached or attached', async () => {
  await database.query('INSERT INTO parts SELECT i, 1 + i % 2, i FROM generate_series(1, 40) i')
  using parts = await Followed.open('parts', 'rank.desc', 5, 'rank DESC, id, area')
  await parts.after('UPDATE parts SET area = 3 - area WHERE id > 36', 'DELETE FROM parts_1 WHERE id > 38')
  expect(parts.live.rows.resyncs).toEqual([])
  await parts.after('TRUNCATE parts_2')
  await parts.after('INSERT INTO parts VALUES (100, 2, 100)')
  await parts.after('ALTER TABLE parts DETACH PARTITION parts_1')
  await database.query(
    'CREATE TABLE parts_3 (id int, area int, rank int, PRIMARY KEY (id, area)); INSERT INTO parts_3 VALUES (1, 3, 500)',
  )
  await database.query('ALTER TABLE parts ATTACH PARTITION parts_3 FOR VALUES IN (3)')
  await trackTables(database, ['parts'])
  // Whoever comes while the catalog is read anew is told to come again.
  let again: Followed | null = null
  while (again === null) again = await Followed.open('parts', 'rank.desc', 5, 'rank DESC, id, area').catch(toComeAgain)
  await again.after('UPDATE parts SET rank = 1 WHERE id = 1')
  again.live.stream.close()
})

const toComeAgain = (error: Error): null => {
  if (error.message.includes('UNSUBSCRIBED_TABLE_CHANGED')) return null
  throw error
}
