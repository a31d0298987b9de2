// Random histories where the WAL says least: keys and policy columns only of old rows, large values left out, keys that
// change hands. Readers come, go and come back meanwhile; at each quiet point their rows are those of their SELECT.
import { randomInt } from 'node:crypto'
import pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

const tables = [
  {
    name: 'indexed',
    key: 'id',
    identity:
      'CREATE UNIQUE INDEX indexed_identity ON indexed (room, id); ALTER TABLE indexed REPLICA IDENTITY USING INDEX indexed_identity',
  },
  { name: 'keyed', key: 'room, id', identity: 'ALTER TABLE keyed REPLICA IDENTITY DEFAULT' },
  { name: 'whole', key: 'id', identity: 'ALTER TABLE whole REPLICA IDENTITY FULL' },
] as const

const schema = `
  CREATE TABLE members (room int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room, user_id));
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = auth.uid());
  GRANT SELECT ON members TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
  ${tables
    .map(
      ({ name, key }) => `
        CREATE TABLE ${name} (id int NOT NULL, room int NOT NULL, title text, body text, PRIMARY KEY (${key}));
        ALTER TABLE ${name} ALTER body SET STORAGE EXTERNAL;
        ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY;
        CREATE POLICY readers ON ${name} FOR SELECT TO authenticated USING (
          EXISTS (SELECT 1 FROM members m WHERE m.room = ${name}.room AND m.user_id = auth.uid()));
        GRANT SELECT ON ${name} TO authenticated;`,
    )
    .join('\n')}`

const users = Array.from({ length: 4 }, person)
const rooms = 4
const ids = 40

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['members', ...tables.map(({ name }) => name)])
  for (const { identity } of tables) await database.query(identity)
  node = await TestNode.start(database.url, { SNAPSHOT_CHUNK_ROWS: '5', AUDIENCE_GRACE_MS: '50' })
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

const below = (n: number): number => randomInt(n)
const pick = <T>(items: readonly T[]): T => items[below(items.length)]!
let version = 0

/** Small, or too large for the page. */
function body(): string {
  version += 1
  return below(2) === 0 ? `'small ${version}'` : `repeat('large ${version} ', 700)`
}

function statement(): string {
  const { name } = pick(tables)
  const [id, other, room, user] = [below(ids), below(ids), below(rooms), pick(users)]
  return pick([
    () => `INSERT INTO ${name} VALUES (${id}, ${room}, 'new', ${body()}) ON CONFLICT DO NOTHING`,
    () => `INSERT INTO ${name} VALUES (${id}, ${room}, 'new', ${body()}) ON CONFLICT DO NOTHING`,
    () => `UPDATE ${name} SET title = 'title ${version}' WHERE id = ${id}`,
    () => `UPDATE ${name} SET body = ${body()} WHERE id = ${id}`,
    () => `UPDATE ${name} SET room = ${room} WHERE id = ${id}`,
    // Two rows change keys.
    () =>
      `UPDATE ${name} SET id = -${id + 1} WHERE id = ${id}; UPDATE ${name} SET id = ${id} WHERE id = ${other}; UPDATE ${name} SET id = ${other} WHERE id = -${id + 1}`,
    () => `DELETE FROM ${name} WHERE id = ${id}; UPDATE ${name} SET id = ${id}, title = 'moved' WHERE id = ${other}`,
    () => `DELETE FROM ${name} WHERE id = ${id}`,
    () => `INSERT INTO members VALUES (${room}, '${user}') ON CONFLICT DO NOTHING`,
    () => `DELETE FROM members WHERE room = ${room} AND user_id = '${user}'`,
    () => `DELETE FROM members WHERE user_id = '${user}'; INSERT INTO members VALUES (${room}, '${user}')`,
  ])()
}

async function write(signal: { stop: boolean }): Promise<number> {
  const client = new pg.Client({ connectionString: database.url })
  await client.connect()
  let commits = 0
  while (!signal.stop) {
    const statements = Array.from({ length: pick([1, 1, 2, 4]) }, statement).join('; ')
    try {
      await client.query(`BEGIN; ${statements}; COMMIT`)
      commits += 1
    } catch (error) {
      await client.query('ROLLBACK')
      const { code } = error as { code?: string }
      if (code !== '23505' && code !== '40P01') throw error
    }
  }
  await client.end()
  return commits
}

const shown = (row: string): string => row.replace(/(large \d+ )\1+/g, '$1...')

test('[P1] [P4] random histories with large values and keys that change hands, under each identity', {
  timeout: 120_000,
}, async () => {
  const rounds = Number(process.env.HISTORY_ROUNDS ?? 6)
  const readers: { user: string; table: string; live: LiveSse; token: string }[] = []
  let commits = 0
  for (let round = 0; round < rounds; round++) {
    const signal = { stop: false }
    const writers = Array.from({ length: 3 }, () => write(signal))
    for (let step = 0; step < 25; step++) {
      const reader = pick(readers.length === 0 ? [null] : readers)
      if (reader === null || readers.length < 12 || below(4) === 0) {
        const user = pick(users)
        const table = pick(tables).name
        const token = await tokenFor(user)
        readers.push({ user, table, token, live: await LiveSse.open(node, `/v1/live/${table}`, token) })
        if (readers.length > 15) readers.shift()!.live.stream.close()
      } else if (reader.live.rows.exact && reader.live.stream.lastEventId !== '') {
        reader.live.stream.close()
        await new Promise(resolve => setTimeout(resolve, below(30)))
        reader.live = await LiveSse.open(node, `/v1/live/${reader.table}`, reader.token, reader.live)
      }
      await new Promise(resolve => setTimeout(resolve, below(30)))
    }
    signal.stop = true
    for (const count of await Promise.all(writers)) commits += count
    for (const { user, table, live } of readers) {
      const expected = asSet(await selectAs(database, user, `SELECT * FROM ${table}`))
      const same = (): boolean => live.rows.exact && asSet(live.rows.list()).join() === expected.join()
      await live.stream.waitFor(() => same() || live.failure !== null).catch(() => {})
      expect(live.failure, table).toBe(null)
      expect(asSet(live.rows.list()).map(shown), table).toEqual(expected.map(shown))
    }
  }
  expect(commits).toBeGreaterThan(200)
  const codes = new Set(readers.flatMap(({ live }) => live.rows.resyncs))
  expect([...codes].filter(code => code !== 'INPUTS_CHANGED')).toEqual([])
  for (const { live } of readers) live.stream.close()
})
