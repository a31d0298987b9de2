import { randomBytes } from 'node:crypto'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Commit } from '../../../src/server/decode/change.ts'
import { encodeBlock, encodeParts } from '../../../src/server/relay/block.ts'
import { BlockReader } from '../../../src/server/relay/block-reader.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { Capture } from '../decode/capture.ts'
import { commitsOf, factsOf, identitiesOf } from './commit-facts.ts'

let database: TestDatabase
let capture: Capture

beforeAll(async () => {
  database = await TestDatabase.create()
  capture = await Capture.create(database.url)
})

afterAll(async () => {
  await capture[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

/** The commits as a node that follows has them: small ones in blocks of `perBlock`, large ones in parts. */
function journaled(commits: readonly Commit[], perBlock: number, largeBytes: number): Commit[] {
  const reader = new BlockReader({ spoolBytes: largeBytes })
  const read: Commit[] = []
  let prevLsn = 0n
  let block: Commit[] = []
  const push = (some: readonly Commit[], blocks: Iterable<Buffer>): void => {
    const { commitLsn: lsn } = some.at(-1)!
    let part = 0
    for (const bytes of blocks) read.push(...(reader.push({ lsn, attempt: 0, part: part++ }, bytes)?.commits ?? []))
    prevLsn = lsn
  }
  const flush = (): void => {
    if (block.length > 0) push(block, [encodeBlock({ epoch, prevLsn }, block)])
    block = []
  }
  for (const commit of commits) {
    const isLarge = commit.bytes > largeBytes
    if (isLarge || block.length === perBlock) flush()
    if (isLarge) push([commit], encodeParts({ epoch, prevLsn }, commit, 3000))
    else block.push(commit)
  }
  flush()
  return read
}

const epoch = '0a1b2c3d'

const tables = `
  CREATE TABLE plain (id int PRIMARY KEY, name text);
  CREATE TABLE whole (id int PRIMARY KEY, name text); ALTER TABLE whole REPLICA IDENTITY FULL;
  CREATE TABLE indexed (id int PRIMARY KEY, room int NOT NULL, name text);
  CREATE UNIQUE INDEX indexed_identity ON indexed (id, room); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_identity;
  CREATE TABLE blind (id int PRIMARY KEY); ALTER TABLE blind REPLICA IDENTITY NOTHING;
  CREATE TABLE toasted (id int PRIMARY KEY, room int, body text); ALTER TABLE toasted ALTER body SET STORAGE EXTERNAL;
  CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
  CREATE TABLE "größe" (id int PRIMARY KEY, "ä ö" numeric(9, 2), twice int GENERATED ALWAYS AS (id * 2) STORED, at timestamptz(3));
  CREATE TABLE events (id int, day int, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
  CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
  ALTER TABLE events REPLICA IDENTITY FULL; ALTER TABLE events_1 REPLICA IDENTITY FULL;
  CREATE TABLE events_2 (note text, day int NOT NULL, id int NOT NULL, PRIMARY KEY (id, day))`

const transactions = [
  "INSERT INTO plain VALUES (1, 'a'), (2, NULL)",
  "UPDATE plain SET name = 'b' WHERE id = 1; UPDATE plain SET id = 3 WHERE id = 1; DELETE FROM plain WHERE id = 3",
  "INSERT INTO whole VALUES (1, NULL); UPDATE whole SET name = 'ü' WHERE id = 1; UPDATE whole SET id = 2; DELETE FROM whole",
  "INSERT INTO indexed VALUES (1, 42, 'a'); UPDATE indexed SET name = 'b'; UPDATE indexed SET room = 7; DELETE FROM indexed",
  'INSERT INTO blind VALUES (1)',
  "INSERT INTO toasted VALUES (1, 42, repeat('x', 10000))",
  'UPDATE toasted SET room = 7; UPDATE toasted SET id = 2',
  'INSERT INTO parent VALUES (1); INSERT INTO child VALUES (1, 1); TRUNCATE plain, parent CASCADE; INSERT INTO plain VALUES (9)',
  `INSERT INTO "größe" (id, "ä ö", at) VALUES (1, 1.5, '2024-02-29')`,
  "INSERT INTO plain VALUES (10, 'a'); ALTER TABLE plain ADD c int; INSERT INTO plain VALUES (11, 'a', 3); ALTER TABLE plain DROP name; INSERT INTO plain VALUES (12, 3)",
  'ALTER TABLE plain RENAME c TO d',
  'INSERT INTO plain VALUES (13, 4)',
  "INSERT INTO events VALUES (1, 1, 'a'), (2, 2, 'kept'); UPDATE events SET note = NULL WHERE id = 1; DELETE FROM events WHERE id = 1",
  'ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (10) TO (20)',
  "INSERT INTO events VALUES (1, 11, 'secret'); UPDATE events SET note = 'other' WHERE id = 1; DELETE FROM events WHERE id = 1",
  'DELETE FROM events WHERE id = 2',
  "SELECT pg_logical_emit_message(false, 'loose', 'x'); SELECT pg_logical_emit_message(true, 'tidegate', 'ü')",
  "SELECT pg_logical_emit_message(true, 'large', repeat('x', 1048577)); INSERT INTO plain VALUES (14, 5)",
  "INSERT INTO whole SELECT i, repeat(md5(i::text), i % 40) FROM generate_series(100, 2000) i; INSERT INTO whole VALUES (1, repeat('y', 100000)); TRUNCATE blind",
]

test('[P1] what Postgres sends is, through the journal, field by field and value by value what it is without', async () => {
  await database.query(tables)
  for (const statements of transactions) await database.query(`BEGIN; ${statements}; COMMIT`)
  const bodies = Array.from({ length: 30 }, (_, i) => randomBytes(i * 20).toString('base64'))
  for (const [id, body] of bodies.entries())
    await database.query('INSERT INTO toasted VALUES ($1, 1, $2)', [id + 10, body])

  const messages = await capture.messages()
  const direct = commitsOf(messages)
  const expected = direct.map(factsOf)
  expect(direct.length).toBeGreaterThan(45)
  expect(direct.flatMap(({ messages }) => messages.map(({ prefix }) => prefix))).toEqual(['tidegate', 'large'])
  for (const [perBlock, largeBytes] of [
    [1, 1 << 30],
    [7, 50_000],
    [1000, 2000],
  ] as const) {
    for (const commits of [direct, commitsOf(messages, { spoolBytes: largeBytes })]) {
      const read = journaled(commits, perBlock, largeBytes)
      expect(read.map(factsOf)).toEqual(expected)
      expect(read.map(commit => identitiesOf([commit]))).toEqual(direct.map(commit => identitiesOf([commit])))
      expect(read.filter(({ spooled }) => spooled).length > 0).toBe(largeBytes < 1 << 30)
      for (const commit of [...read, ...commits]) commit.release()
    }
  }
})
