// Random histories of queries with order and limit: columns of every type that has an order, all directions, NULLs at either
// end, ties, rows that come, go and move, grants and revocations, readers that come back. At every quiet point each reader holds
// the rows of its SELECT, in its order.
import { randomInt } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { Random } from '../checker/random.ts'
import { person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { OrderedSse } from '../support/ordered-rows.ts'
import { TestDatabase } from '../support/postgres.ts'

interface Column {
  readonly name: string
  readonly type: string
  readonly values: readonly string[]
}

const words = ['', 'a', 'B', 'ab', 'A', 'ä', 'Ä', 'z', 'Z', '_', '-a', 'a-', '1', '10', '😀', '\uff5e', 'null']

const columns: readonly Column[] = [
  { name: 'i2', type: 'int2', values: ['-32768', '0', '7', '32767'] },
  { name: 'i4', type: 'int4', values: ['-5', '0', '10', '9', '1', '2', '3'] },
  { name: 'i8', type: 'int8', values: ['9007199254740993', '9007199254740992', '-1', '12'] },
  {
    name: 'n',
    type: 'numeric',
    values: ['1', '1.0', '1.00000000000000000001', '-3', 'NaN', '1e3', 'Infinity', '-Infinity'],
  },
  { name: 'f4', type: 'float4', values: ['0.1', '1', '-2.5', 'NaN', '-Infinity'] },
  { name: 'f8', type: 'float8', values: ['0.1', '1e10', '-0', '0', 'Infinity', 'NaN', '1e-300'] },
  { name: 'b', type: 'bool', values: ['true', 'false'] },
  { name: 't', type: 'text COLLATE "C"', values: words },
  { name: 'icu', type: 'text COLLATE "und-x-icu"', values: words },
  { name: 'nocase', type: 'text COLLATE nocase', values: words },
  { name: 'v', type: 'varchar(8)', values: ['x', 'X', 'xy', 'z,(1)', 'q"t'] },
  { name: 'c', type: 'char(4) COLLATE "C"', values: ['a', 'ab', 'abcd', '\tb'] },
  { name: 'u', type: 'uuid', values: ['10000000-0000-4000-8000-000000000001', 'a0000000-0000-4000-8000-00000000000f'] },
  {
    name: 'd',
    type: 'date',
    values: ['2024-02-29', '2023-12-31', 'infinity', '0044-03-15 BC', '10000-01-01', '-infinity'],
  },
  { name: 'ts', type: 'timestamp', values: ['2024-01-01', '2024-01-01 00:00:00.000001', '-infinity', 'infinity'] },
  {
    name: 'tz',
    type: 'timestamptz',
    values: ['2024-01-01Z', '2024-01-01 01:00:00+01', '2024-06-01 12:00:00.5Z', 'infinity'],
  },
  { name: 'tm', type: 'time', values: ['00:00:00', '12:30:00.5', '12:30:00', '24:00:00'] },
  { name: 'e', type: 'mood', values: ['sad', 'ok', 'happy'] },
  { name: 'de', type: 'some_mood', values: ['sad', 'ok', 'happy'] },
  { name: 'dom', type: 'small', values: ['1', '2', '3'] },
  { name: 'y', type: 'bytea', values: ['\\x00', '\\xff', '\\x'] },
  { name: 'iv', type: 'interval', values: ['1 day', '24:00:00', '-1 mon', '30 days', '1 year 2 secs'] },
  { name: 'ip', type: 'inet', values: ['10.0.0.1', '10.0.0.0/8', '9.255.0.1', '::1', '2001:db8::/32'] },
  { name: 'ttz', type: 'timetz', values: ['12:00:00+00', '13:00:00+01', '00:00:00-05', '23:59:59.5+00'] },
  { name: '"o.dd"', type: 'int4', values: ['1', '2', '3'] },
]

const schema = `
  CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
  CREATE DOMAIN some_mood AS mood;
  CREATE DOMAIN small AS int CHECK (VALUE < 100);
  CREATE TABLE members (room_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TABLE things (id int PRIMARY KEY, room_id int, ${columns.map(({ name, type }) => `${name} ${type}`).join(', ')});
  CREATE TABLE hosts (ip inet PRIMARY KEY, size int);
  ALTER TABLE hosts ENABLE ROW LEVEL SECURITY;
  CREATE POLICY everybody ON hosts FOR SELECT TO authenticated USING (true);
  CREATE TABLE named (area int, name text COLLATE "und-x-icu", size int, big text, PRIMARY KEY (name, area));
  ALTER TABLE named ALTER COLUMN big SET STORAGE EXTERNAL;
  ALTER TABLE things ENABLE ROW LEVEL SECURITY;
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE named ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY readers ON things FOR SELECT TO authenticated USING (room_id IS NULL OR
    EXISTS (SELECT 1 FROM members m WHERE m.room_id = things.room_id AND m.user_id = (SELECT auth.uid())));
  CREATE POLICY everybody ON named FOR SELECT TO authenticated USING (true);
  GRANT SELECT ON things, members, named, hosts TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;`

const seed = Number(process.env.TEST_SEED ?? randomInt(2 ** 31))
const rounds = Number(process.env.HISTORY_ROUNDS ?? 6)
const users = Array.from({ length: 3 }, person)
const ids = 80
const rooms = 4
let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['things', 'members', 'named', 'hosts'])
  // As an index serves it: old rows are not whole, and large values that stay are left out.
  await database.query('ALTER TABLE named REPLICA IDENTITY DEFAULT')
  node = await TestNode.start(database.url, { AUDIENCE_GRACE_MS: '2000', MAX_HELD_MS: '20000' })
  console.log(`windows: seed ${seed}`)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

interface Question {
  readonly user: string
  readonly path: string
  readonly sql: string
}

const hosts = ['10.0.0.1', '10.0.0.1/24', '10.0.0.1/8', '10.0.0.10', '9.0.0.1', '::1', '10.0.0.0/8', '2001:db8::/32']
const idOf = ({ id, ip }: Record<string, unknown>): string => String(id ?? ip)
const nameOf = ({ area, name, size, big }: Record<string, unknown>): string =>
  `${area} ${name} ${size} ${big === null ? '-' : String(big).slice(0, 3)}`

function question(random: Random): Question {
  const user = random.pick(users)
  const limit = random.pick([1, 2, 5, 10, 30])
  if (random.once(12)) {
    const [order, sql] = random.pick([
      ['', 'ip'],
      ['&order=size', 'size, ip'],
      ['&order=size.desc,ip.desc', 'size DESC, ip DESC'],
    ])
    return {
      user,
      path: `/v1/live/hosts?limit=${limit}${order}`,
      sql: `SELECT ip FROM hosts ORDER BY ${sql} LIMIT ${limit}`,
    }
  }
  if (random.once(6)) {
    const [order, sql] = random.pick([
      ['', 'name, area'],
      ['&order=name.desc', 'name DESC, area'],
      ['&order=size', 'size, name COLLATE "C", area'],
      ['&order=size.desc,area.desc', 'size DESC, area DESC, name COLLATE "C"'],
    ])
    return {
      user,
      path: `/v1/live/named?limit=${limit}${order}`,
      sql: `SELECT * FROM named ORDER BY ${sql} LIMIT ${limit}`,
    }
  }
  const terms = Array.from({ length: 1 + random.below(3) }, () => {
    const { name } = random.pick(columns)
    const direction = random.pick(['', '.asc', '.desc'])
    const nulls = random.pick(['', '.nullsfirst', '.nullslast'])
    const sqlNulls = nulls === '' ? '' : nulls === '.nullsfirst' ? 'NULLS FIRST' : 'NULLS LAST'
    return { url: `${name}${direction}${nulls}`, sql: `${name} ${direction.slice(1)} ${sqlNulls}` }
  })
  const [filter, where] = random.pick([
    ['', 'true'],
    ['&room_id=eq.1', 'room_id = 1'],
    ['&i4=gt.0', 'i4 > 0'],
  ])
  const select = random.pick(['', '&select=id', '&select=id,t'])
  const order = encodeURIComponent(terms.map(({ url }) => url).join(','))
  return {
    user,
    path: `/v1/live/things?limit=${limit}&order=${order}${filter}${select}`,
    sql: `SELECT id FROM things WHERE ${where} ORDER BY ${terms.map(({ sql }) => sql).join(', ')}, id LIMIT ${limit}`,
  }
}

const literalOf = (random: Random, { values }: Column): string =>
  random.once(5) ? 'NULL' : pg.escapeLiteral(random.pick(values))

const rowSql = (random: Random, id: number): string =>
  `(${id}, ${random.once(4) ? 'NULL' : random.below(rooms)}, ${columns.map(column => literalOf(random, column)).join(', ')})`

function statement(random: Random): string {
  const id = random.below(ids)
  const column = random.pick(columns)
  const value = literalOf(random, column)
  const user = random.pick(users)
  const room = random.below(rooms)
  const named = `name = ${pg.escapeLiteral(random.pick(words))}`
  return random.pick([
    () => `INSERT INTO things VALUES ${rowSql(random, id)} ON CONFLICT DO NOTHING`,
    () => `INSERT INTO things VALUES ${rowSql(random, id)} ON CONFLICT DO NOTHING`,
    () => `DELETE FROM things WHERE id = ${id}`,
    () => `UPDATE things SET ${column.name} = ${value} WHERE id = ${id}`,
    () => `UPDATE things SET ${column.name} = ${value} WHERE id % 7 = ${random.below(7)}`,
    () => `UPDATE things SET room_id = ${random.once(3) ? 'NULL' : room} WHERE id = ${id}`,
    () => `UPDATE things SET id = ${ids} + ${random.below(ids)} WHERE id = ${id}`,
    () => `DELETE FROM things WHERE id % 9 = ${random.below(9)}`,
    () => (random.once(20) ? 'TRUNCATE things' : `UPDATE things SET t = 'same' WHERE id = ${id}`),
    () => `INSERT INTO members VALUES (${room}, '${user}') ON CONFLICT DO NOTHING`,
    () => `DELETE FROM members WHERE room_id = ${room} AND user_id = '${user}'`,
    () =>
      `INSERT INTO named VALUES (${room}, ${pg.escapeLiteral(random.pick(words))}, ${id}, repeat('${random.pick(['x', 'y'])}', ${random.pick([5, 9000])})) ON CONFLICT DO NOTHING`,
    () => `UPDATE named SET size = ${random.below(9)} WHERE ${named}`,
    () => `UPDATE named SET name = ${pg.escapeLiteral(random.pick(words))} WHERE ${named} AND area = ${room}`,
    () => `INSERT INTO hosts VALUES ('${random.pick(hosts)}', ${random.below(3)}) ON CONFLICT DO NOTHING`,
    () => `UPDATE hosts SET size = ${random.below(3)} WHERE ip = '${random.pick(hosts)}'`,
    () => `DELETE FROM hosts WHERE ip = '${random.pick(hosts)}'`,
    () => `DELETE FROM named WHERE ${named} AND area = ${room}`,
  ])()
}

async function write(random: Random, signal: { readonly stop: boolean }): Promise<number> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  let commits = 0
  try {
    while (!signal.stop) {
      const statements = Array.from({ length: random.pick([1, 1, 2, 5]) }, () => statement(random)).join('; ')
      try {
        await client.query(`BEGIN; SET LOCAL synchronous_commit = ${random.pick(['on', 'off'])}; ${statements}; COMMIT`)
        commits += 1
      } catch (error) {
        await client.query('ROLLBACK')
        const { code } = error as { code?: string }
        if (code !== '23505' && code !== '40P01') throw error
      }
    }
  } finally {
    await client.end()
  }
  return commits
}

test('[P1] [P4] the first rows of every order equal the ordered SELECT at every quiet point', {
  timeout: 60_000 + rounds * 30_000,
}, async () => {
  const random = Random.of(seed, 'readers')
  const tokens = new Map(await Promise.all(users.map(async user => [user, await tokenFor(user)] as const)))
  const readers: { asked: Question; live: OrderedSse }[] = []
  let [commits, returns, resumed] = [0, 0, 0]
  for (let round = 0; round < rounds; round++) {
    const signal = { stop: false }
    const writers = [0, 1, 2].map(i => write(Random.of(seed, 'writer', round, i), signal))
    for (let step = 0; step < 16; step++) {
      const at = random.below(Math.max(readers.length, 1))
      const reader = readers[at]
      if (reader === undefined || readers.length < 24 || random.below(5) === 0) {
        const asked = question(random)
        readers.push({ asked, live: await OrderedSse.open(node, asked.path, tokens.get(asked.user)!) })
      } else if (random.below(5) < 2) {
        reader.live.stream.close()
        readers.splice(at, 1)
      } else if (reader.live.stream.lastEventId !== '' && reader.live.rows.exact) {
        reader.live.stream.close()
        reader.live = await OrderedSse.open(node, reader.asked.path, tokens.get(reader.asked.user)!, reader.live)
        returns += 1
        if (reader.live.rows.resumed) resumed += 1
      }
      await new Promise(resolve => setTimeout(resolve, random.below(60)))
    }
    signal.stop = true
    for (const count of await Promise.all(writers)) commits += count
    for (const { asked, live } of readers) {
      const of = asked.path.includes('/named') ? nameOf : idOf
      const expected = await selectAs(database, asked.user, asked.sql)
      await live.settle(expected.map(of), of).catch((error: Error) => {
        throw new Error(`seed ${seed}, ${asked.sql}\n${error.message}`)
      })
      expect(live.rows.resyncs, asked.path).toEqual([])
    }
  }
  for (const { live } of readers) live.stream.close()
  console.log(
    `windows: ${commits} commits, ${readers.length} readers, ${returns} came back, ${resumed} of them resumed`,
  )
  expect(commits).toBeGreaterThan(100)
})
