import { randomBytes } from 'node:crypto'
import v8 from 'node:v8'
import vm from 'node:vm'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Commit } from '../../../src/server/decode/change.ts'
import { foldRows } from '../../../src/server/decode/fold.ts'
import { TransactionAssembler } from '../../../src/server/decode/transaction.ts'
import { TestDatabase } from '../../support/postgres.ts'
import { Capture, shownChange, textsOf } from './capture.ts'

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

/** Runs the statements, each call one transaction, and gives the commits they made. */
async function commitsOf(...transactions: string[]): Promise<Commit[]> {
  for (const statements of transactions) await database.query(`BEGIN; ${statements}; COMMIT`)
  return await capture.commits()
}

async function changesOf(...transactions: string[]): Promise<unknown[][]> {
  return (await commitsOf(...transactions)).flatMap(commit => [...commit.changes()].map(shownChange))
}

test('REPLICA IDENTITY DEFAULT: the key where it changed, else nothing', async () => {
  await database.query('CREATE TABLE plain (id int PRIMARY KEY, name text)')
  const changes = await changesOf(
    "INSERT INTO plain VALUES (1, 'a'), (2, NULL)",
    "UPDATE plain SET name = 'b' WHERE id = 1",
    'UPDATE plain SET id = 3 WHERE id = 1',
    'DELETE FROM plain WHERE id = 3',
  )
  expect(changes).toEqual([
    ['insert', 'plain', ['1', 'a']],
    ['insert', 'plain', ['2', null]],
    ['update', 'plain', ['1', undefined], ['1', 'b']],
    ['update', 'plain', ['1', undefined], ['3', 'b']],
    ['delete', 'plain', ['3', undefined]],
  ])
})

test('[P2] REPLICA IDENTITY FULL: the whole old row', async () => {
  await database.query('CREATE TABLE whole (id int PRIMARY KEY, name text); ALTER TABLE whole REPLICA IDENTITY FULL')
  const changes = await changesOf(
    "INSERT INTO whole VALUES (1, NULL); UPDATE whole SET name = 'ü' WHERE id = 1; UPDATE whole SET id = 2; DELETE FROM whole",
  )
  expect(changes).toEqual([
    ['insert', 'whole', ['1', null]],
    ['update', 'whole', ['1', null], ['1', 'ü']],
    ['update', 'whole', ['1', 'ü'], ['2', 'ü']],
    ['delete', 'whole', ['2', 'ü']],
  ])
})

test('[P2] REPLICA IDENTITY USING INDEX: the columns of the index', async () => {
  await database.query(`CREATE TABLE indexed (id int PRIMARY KEY, room int NOT NULL, name text);
    CREATE UNIQUE INDEX indexed_identity ON indexed (id, room);
    ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_identity`)
  const changes = await changesOf(
    "INSERT INTO indexed VALUES (1, 42, 'a'); UPDATE indexed SET name = 'b'; UPDATE indexed SET room = 7; DELETE FROM indexed",
  )
  expect(changes).toEqual([
    ['insert', 'indexed', ['1', '42', 'a']],
    ['update', 'indexed', ['1', '42', undefined], ['1', '42', 'b']],
    ['update', 'indexed', ['1', '42', undefined], ['1', '7', 'b']],
    ['delete', 'indexed', ['1', '7', undefined]],
  ])
})

test('REPLICA IDENTITY NOTHING: inserts come, and the Relation says so', async () => {
  await database.query('CREATE TABLE blind (id int PRIMARY KEY); ALTER TABLE blind REPLICA IDENTITY NOTHING')
  const [commit] = await commitsOf('INSERT INTO blind VALUES (1)')
  expect([...commit!.changes()].map(shownChange)).toEqual([['insert', 'blind', ['1']]])
  expect(commit!.announced.map(({ replicaIdentity }) => replicaIdentity)).toEqual(['nothing'])
})

test('unchanged TOAST is unknown in the wire and filled by the fold, also over a key change', async () => {
  await database.query(`CREATE TABLE toasted (id int PRIMARY KEY, room int, body text);
    ALTER TABLE toasted ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE toasted_full (LIKE toasted INCLUDING ALL);
    ALTER TABLE toasted_full REPLICA IDENTITY FULL`)
  const body = 'x'.repeat(10_000)
  for (const table of ['toasted', 'toasted_full']) {
    const [commit] = await commitsOf(
      `INSERT INTO ${table} VALUES (1, 42, repeat('x', 10000)); UPDATE ${table} SET room = 7; UPDATE ${table} SET id = 2`,
    )
    const changes = [...commit!.changes()]
    const [, room, key] = changes
    expect(room!.kind === 'update' && textsOf(room!.new)).toEqual(['1', '7', undefined])
    expect(key!.kind === 'update' && textsOf(key!.new)).toEqual(['2', '7', undefined])
    const { rows } = foldRows(changes, [0], key!.relation.oid)
    expect([...rows.values()].map(row => [row.old, textsOf(row.new!)])).toEqual([[null, ['2', '7', body]]])
  }
  const [commit] = await commitsOf('UPDATE toasted_full SET id = 3')
  const { rows } = foldRows(commit!.changes(), [0], [...commit!.relations][0]!)
  expect([...rows.values()].map(row => [row.old && textsOf(row.old), row.new && textsOf(row.new)])).toEqual([
    [['2', '7', body], null],
    [null, ['3', '7', body]],
  ])
})

test('a key that is itself unchanged TOAST is filled from the old tuple', async () => {
  await database.query('CREATE TABLE toasted_key (id text PRIMARY KEY, n int)')
  await database.query('ALTER TABLE toasted_key ALTER id SET STORAGE EXTERNAL')
  await database.query('ALTER TABLE toasted_key SET (toast_tuple_target = 128)')
  const [, commit] = await commitsOf(
    "INSERT INTO toasted_key VALUES (repeat('k', 2500), 1)",
    'UPDATE toasted_key SET n = 2',
  )
  const [change] = [...commit!.changes()]
  expect(change!.kind === 'update' && textsOf(change!.new)).toEqual([undefined, '2'])
  const { rows, unkeyed } = foldRows(commit!.changes(), [0], change!.relation.oid)
  expect(unkeyed).toBe(0)
  expect([...rows.values()].map(row => textsOf(row.new!))).toEqual([['k'.repeat(2500), '2']])
})

test('TRUNCATE of several tables, and what cascades', async () => {
  await database.query(`CREATE TABLE parent (id int PRIMARY KEY); CREATE TABLE child (id int PRIMARY KEY, parent int REFERENCES parent);
    CREATE TABLE lone (id int PRIMARY KEY)`)
  const [commit] = await commitsOf(
    'INSERT INTO lone VALUES (1); TRUNCATE lone, parent CASCADE; INSERT INTO lone VALUES (2)',
  )
  expect([...commit!.changes()].map(change => [change.kind, change.index, change.relation.name])).toEqual([
    ['insert', 0, 'lone'],
    ['truncate', 1, 'lone'],
    ['truncate', 2, 'parent'],
    ['truncate', 3, 'child'],
    ['insert', 4, 'lone'],
  ])
  const oid = [...commit!.changes()][0]!.relation.oid
  const { rows, truncated } = foldRows(commit!.changes(), [0], oid)
  expect([truncated, [...rows.keys()]]).toEqual([true, ['2']])
})

test('ALTER TABLE between changes of one transaction, and between transactions', async () => {
  await database.query('CREATE TABLE altered (id int PRIMARY KEY, a text, b text)')
  const changes = await changesOf(
    `INSERT INTO altered VALUES (1, 'a', 'b');
     ALTER TABLE altered ADD c int;
     INSERT INTO altered VALUES (2, 'a', 'b', 3);
     ALTER TABLE altered DROP a;
     INSERT INTO altered VALUES (3, 'b', 3)`,
    'ALTER TABLE altered RENAME b TO d',
    "INSERT INTO altered VALUES (4, 'd', 4)",
  )
  expect(changes).toEqual([
    ['insert', 'altered', ['1', 'a', 'b']],
    ['insert', 'altered', ['2', 'a', 'b', '3']],
    ['insert', 'altered', ['3', 'b', '3']],
    ['insert', 'altered', ['4', 'd', '4']],
  ])
})

test('each change to the catalog entry makes a new Relation, a plain change none', async () => {
  await database.query('CREATE TABLE watched (id int PRIMARY KEY)')
  const commits = await commitsOf(
    'INSERT INTO watched VALUES (1)',
    'INSERT INTO watched VALUES (2)',
    'ALTER TABLE watched ENABLE ROW LEVEL SECURITY',
    'INSERT INTO watched VALUES (3)',
  )
  const relations = commits.map(commit => [...commit.changes()][0]!.relation)
  expect(relations[1]).toBe(relations[0])
  expect(relations[2]).not.toBe(relations[1])
  expect(relations[2]).toEqual(relations[1])
  expect(commits.map(commit => commit.announced.length)).toEqual([1, 0, 1])
})

test('[P2] partitions come as their root, with the identity of the weakest partition', async () => {
  await database.query(`CREATE TABLE events (id int, day int, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE events_1 PARTITION OF events FOR VALUES FROM (0) TO (10);
    ALTER TABLE events REPLICA IDENTITY FULL; ALTER TABLE events_1 REPLICA IDENTITY FULL`)
  expect(
    await changesOf("INSERT INTO events VALUES (1, 1, 'a'); UPDATE events SET note = NULL; DELETE FROM events"),
  ).toEqual([
    ['insert', 'events', ['1', '1', 'a']],
    ['update', 'events', ['1', '1', 'a'], ['1', '1', null]],
    ['delete', 'events', ['1', '1', null]],
  ])

  await database.query('CREATE TABLE events_2 (note text, day int NOT NULL, id int NOT NULL, PRIMARY KEY (id, day))')
  await database.query('ALTER TABLE events ATTACH PARTITION events_2 FOR VALUES FROM (10) TO (20)')
  await database.query("INSERT INTO events VALUES (2, 2, 'kept')")
  const commits = await commitsOf(
    "INSERT INTO events VALUES (1, 11, 'secret'); UPDATE events SET note = 'other' WHERE id = 1; DELETE FROM events WHERE id = 1",
    'DELETE FROM events WHERE id = 2',
  )
  const changes = commits.at(-2)!
  expect([...changes.changes()].map(shownChange)).toEqual([
    ['insert', 'events', ['1', '11', 'secret']],
    ['update', 'events', ['1', '11', undefined], ['1', '11', 'other']],
    ['delete', 'events', ['1', '11', undefined]],
  ])
  expect(changes.announced.map(({ name, replicaIdentity }) => [name, replicaIdentity])).toContainEqual([
    'events_2',
    'default',
  ])
  expect([...commits.at(-1)!.changes()].map(shownChange)).toEqual([['delete', 'events', ['2', '2', undefined]]])

  await database.query('ALTER TABLE events_2 REPLICA IDENTITY FULL')
  expect(await changesOf("INSERT INTO events VALUES (3, 13, 'x')", 'DELETE FROM events WHERE id = 3')).toEqual([
    ['insert', 'events', ['3', '13', 'x']],
    ['delete', 'events', ['3', '13', 'x']],
  ])
})

test('[P2] a row that moves between partitions is a delete and an insert that fold to an update', async () => {
  await database.query(`CREATE TABLE moved (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE moved_1 PARTITION OF moved FOR VALUES FROM (0) TO (10);
    CREATE TABLE moved_2 PARTITION OF moved FOR VALUES FROM (10) TO (20)`)
  const [, commit] = await commitsOf('INSERT INTO moved VALUES (1, 1)', 'UPDATE moved SET day = 11')
  const changes = [...commit!.changes()]
  expect(changes.map(change => change.kind)).toEqual(['delete', 'insert'])
  const { rows } = foldRows(changes, [0], changes[0]!.relation.oid)
  expect([...rows.values()].map(row => [textsOf(row.old!), textsOf(row.new!)])).toEqual([
    [
      ['1', '1'],
      ['1', '11'],
    ],
  ])
})

test('generated columns are not in the wire, nor in the Relation', async () => {
  await database.query(
    'CREATE TABLE generated (a int PRIMARY KEY, twice int GENERATED ALWAYS AS (a * 2) STORED, b text)',
  )
  const changes = await changesOf("INSERT INTO generated (a, b) VALUES (1, 'b')")
  expect(changes).toEqual([['insert', 'generated', ['1', 'b']]])
})

test('types, origins and columns of every built-in kind of type pass', async () => {
  await database.query(`CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE DOMAIN positive AS int CHECK (VALUE > 0);
    CREATE TABLE typed (id positive PRIMARY KEY, mood mood, moods mood[])`)
  await database.query("SELECT pg_replication_origin_create('elsewhere_' || current_database())")
  await database.query("SELECT pg_replication_origin_session_setup('elsewhere_' || current_database())")
  try {
    expect(await changesOf("INSERT INTO typed VALUES (1, 'glad', '{sad,NULL}')")).toEqual([
      ['insert', 'typed', ['1', 'glad', '{sad,NULL}']],
    ])
  } finally {
    await database.query('SELECT pg_replication_origin_session_reset()')
    await database.query("SELECT pg_replication_origin_drop('elsewhere_' || current_database())")
  }
})

test('logical messages come with their transaction; those outside have no commit', async () => {
  const [commit, ...rest] = await commitsOf(
    "SELECT pg_logical_emit_message(false, 'loose', 'x'); SELECT pg_logical_emit_message(true, 'tidegate', 'ü')",
  )
  expect(rest).toEqual([])
  expect(commit!.messages.map(({ prefix, content }) => [prefix, content.toString()])).toEqual([['tidegate', 'ü']])
})

test('xid, LSNs and commit time are those of Postgres', async () => {
  await database.query('CREATE TABLE timed (id int PRIMARY KEY)')
  const [row] = await database.query<{ xid: string }>(
    'BEGIN; INSERT INTO timed VALUES (1); SELECT pg_current_xact_id()::xid::text AS xid',
  )
  const before = BigInt(Date.now() - 60_000)
  await database.query('COMMIT')
  const [end] = await database.query<{ bytes: string }>("SELECT pg_current_wal_insert_lsn() - '0/0' AS bytes")
  const [commit] = await capture.commits()
  expect(commit!.xid).toBe(Number(row!.xid))
  expect(commit!.commitLsn < commit!.endLsn && commit!.endLsn <= BigInt(end!.bytes)).toBe(true)
  const sinceUnix = commit!.committedAtMicros / 1000n + 946_684_800_000n
  expect(sinceUnix > before && sinceUnix < before + 120_000n).toBe(true)
})

test('[P7] a commit of 200,000 rows passes through the spool with bounded memory, and can be walked twice', async () => {
  await database.query('CREATE TABLE large (id int PRIMARY KEY, body text)')
  await database.query('INSERT INTO large SELECT i, repeat(md5(i::text), 10) FROM generate_series(1, 200000) i')
  const assembler = new TransactionAssembler({ spoolBytes: 4 << 20 })
  const start = memory()
  let commit: Commit | null = null
  let peak = 0
  let count = 0
  await capture.stream(message => {
    commit = assembler.push(message) ?? commit
    if (++count % 50_000 === 0) peak = Math.max(peak, memory() - start)
  })
  const large = commit as Commit | null
  expect(large).toMatchObject({ spooled: true, changeCount: 200_000 })
  expect(large!.bytes).toBeGreaterThan(60 << 20)
  for (const walk of [1, 2]) {
    let index = 0
    let ids = 0
    for (const change of large!.changes()) {
      if (change.index !== index || change.kind !== 'insert') throw new Error(`change ${index} of walk ${walk}`)
      ids += Number(change.new.text(0))
      if (++index % 50_000 === 0) peak = Math.max(peak, memory() - start)
    }
    expect([index, ids]).toEqual([200_000, (200_000 * 200_001) / 2])
  }
  large!.release()
  // 4 MiB held before the spool, a chunk to write, a chunk to read, and what the connection reads ahead.
  expect(peak).toBeLessThan(24 << 20)
})

/** Bytes alive: heap and buffers, after a collection. */
function memory(): number {
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

v8.setFlagsFromString('--expose-gc')
const collect = vm.runInNewContext('gc') as () => void

test('held and spooled, a random mix of changes reads alike', async () => {
  await database.query('CREATE TABLE mixed (id int PRIMARY KEY, body text); ALTER TABLE mixed REPLICA IDENTITY FULL')
  const bodies = Array.from({ length: 40 }, (_, i) => randomBytes(i * 20).toString('base64'))
  for (const [id, body] of bodies.entries()) await database.query('INSERT INTO mixed VALUES ($1, $2)', [id, body])
  await database.query('BEGIN; UPDATE mixed SET body = body || 1; DELETE FROM mixed WHERE id % 3 = 0; COMMIT')
  const messages = await capture.messages()
  const [held, spooled] = [1 << 30, 0].map(spoolBytes => {
    const assembler = new TransactionAssembler({ spoolBytes })
    const commits = messages.map(message => assembler.push(message)).filter(commit => commit !== null)
    const changes = commits.map(commit => [...commit.changes()].map(shownChange))
    for (const commit of commits) commit.release()
    return changes
  })
  expect(held!.flat().length).toBe(40 + 40 + 14)
  expect(spooled).toEqual(held)
})
