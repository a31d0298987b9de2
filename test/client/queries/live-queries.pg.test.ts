// Live queries against a real node: filters, orders and windows are those of the SELECT at every quiet point, also after a reload.
import fc from 'fast-check'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type ClientOptions, createClient, type LiveQuery } from '../../../src/client/client.ts'
import { memoryStore, type Store, storedRows } from '../../../src/client/store/stored-queries.ts'
import { eventually } from '../../support/eventually.ts'
import { person, prepareDatabase, selectAs, TestNode, tokenFor } from '../../support/node.ts'
import { TestDatabase } from '../../support/postgres.ts'

const schema = `
  CREATE TYPE mood AS ENUM ('sad', 'ok', 'Glad');
  CREATE TABLE public.members (room_id int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room_id, user_id));
  CREATE TABLE public.notes (id bigint PRIMARY KEY, room_id int NOT NULL, rank numeric, title text COLLATE "C",
    name text COLLATE "und-x-icu", mood mood, done boolean, at timestamptz);
  ALTER TABLE public.members ENABLE ROW LEVEL SECURITY;
  ALTER TABLE public.notes ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON public.members FOR SELECT TO authenticated USING (user_id = (SELECT auth.uid()));
  CREATE POLICY by_membership ON public.notes FOR SELECT TO authenticated USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room_id = notes.room_id AND m.user_id = (SELECT auth.uid())));
  GRANT SELECT ON public.members, public.notes TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;
`

interface Database {
  notes: {
    id: string
    room_id: number
    rank: number | null
    title: string | null
    name: string | null
    mood: 'sad' | 'ok' | 'Glad' | null
    done: boolean | null
    at: Date | null
  }
}

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(database, schema, ['members', 'notes'])
  node = await TestNode.start(database.url)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

async function begin(user: string): Promise<void> {
  await database.query(`ALTER POLICY by_membership ON notes USING (
    EXISTS (SELECT 1 FROM public.members m WHERE m.room_id = notes.room_id AND m.user_id = (SELECT auth.uid())))`)
  await database.query('TRUNCATE notes, members')
  await database.query(`INSERT INTO members SELECT i, '${user}' FROM generate_series(1, 2) i`)
  await database.query(
    `INSERT INTO notes SELECT i, 1 + i % 3, i % 4, chr(97 + i % 5), 'é', 'ok', i % 2 = 0, now() FROM generate_series(1, 9) i`,
  )
}

async function clientOf(user: string, options: Partial<ClientOptions> = {}) {
  const errors: Error[] = []
  const token = await tokenFor(user)
  const tide = createClient<Database>(node.url, {
    token,
    transports: ['websocket'],
    onError: error => errors.push(error),
    ...options,
  })
  return { tide, errors, [Symbol.dispose]: () => tide.close() }
}

type Tide = Awaited<ReturnType<typeof clientOf>>['tide']

/** A query, and its SELECT. */
const queries: [name: string, live: (tide: Tide) => LiveQuery<object>, sql: string][] = [
  [
    'nested conditions',
    tide =>
      tide
        .from('notes')
        .where(c => c.any([c('rank', 'in', [1, 3]), c.all([c('title', 'like', '%b%'), c.not(c('done', 'is', true))])]))
        .where('name', 'is distinct from', 'a,b)"')
        .live(),
    `SELECT * FROM notes WHERE (rank IN (1, 3) OR (title LIKE '%b%' AND done IS NOT TRUE)) AND name IS DISTINCT FROM 'a,b)"'`,
  ],
  [
    'an order by numbers, then texts',
    tide => tide.from('notes').orderBy('rank', 'desc').orderBy('title', 'asc', { nulls: 'first' }).live(),
    'SELECT * FROM notes ORDER BY rank DESC, title ASC NULLS FIRST, id',
  ],
  [
    'an order by labels and truths, with columns left out',
    tide => tide.from('notes').select(['name']).orderBy('mood', 'desc', { nulls: 'last' }).orderBy('done').live(),
    'SELECT id, name, mood, done FROM notes ORDER BY mood DESC NULLS LAST, done, id',
  ],
  [
    'a window by times',
    tide => tide.from('notes').where('room_id', '<', 3).orderBy('at', 'desc', { nulls: 'last' }).limit(4).live(),
    'SELECT * FROM notes WHERE room_id < 3 ORDER BY at DESC NULLS LAST, id LIMIT 4',
  ],
  [
    'a window by a collation that the database alone has',
    tide => tide.from('notes').select(['name', 'rank']).orderBy('name').limit(5).live(),
    'SELECT id, name, rank FROM notes ORDER BY name, id LIMIT 5',
  ],
]

const literal = (value: string | number | boolean | null): string =>
  value === null ? 'NULL' : typeof value === 'string' ? `'${value.replaceAll("'", "''")}'` : String(value)
const maybe = <T>(values: fc.Arbitrary<T>) => fc.option(values, { freq: 4 })
const columns = {
  room_id: fc.integer({ min: 1, max: 3 }),
  rank: maybe(
    fc.constantFrom('0', '-1.5', '1', '1.0', '3', 'NaN', 'Infinity', '9007199254740993', '9007199254740992.5'),
  ),
  title: maybe(fc.constantFrom('a', 'B', 'b', 'ab', '\uff5e', '😀', 'a,b)"')),
  name: maybe(fc.constantFrom('a', 'B', 'é', 'e', 'Z', 'a,b)"')),
  mood: maybe(fc.constantFrom('sad', 'ok', 'Glad')),
  done: maybe(fc.boolean()),
  at: maybe(fc.constantFrom('2026-01-01', '12026-01-01', '0044-03-15 BC', 'infinity', '2026-01-01 00:00:00.5+05:30')),
}
const id = fc.integer({ min: 1, max: 14 })
const statement = (user: string): fc.Arbitrary<string> =>
  fc.oneof(
    {
      weight: 6,
      arbitrary: fc.tuple(id, fc.record(columns)).map(([key, row]) => {
        const values = [key, ...Object.values(row).map(literal)].join(', ')
        const sets = Object.keys(row).map(column => `${column} = EXCLUDED.${column}`)
        return `INSERT INTO notes (id, ${Object.keys(row).join(', ')}) VALUES (${values}) ON CONFLICT (id) DO UPDATE SET ${sets.join(', ')}`
      }),
    },
    {
      weight: 4,
      arbitrary: fc
        .tuple(id, fc.record(columns, { requiredKeys: [] }))
        .filter(([, row]) => Object.keys(row).length > 0)
        .map(
          ([key, row]) =>
            `UPDATE notes SET ${Object.entries(row)
              .map(([column, value]) => `${column} = ${literal(value)}`)
              .join(', ')} WHERE id = ${key}`,
        ),
    },
    { weight: 3, arbitrary: id.map(key => `DELETE FROM notes WHERE id = ${key}`) },
    { weight: 1, arbitrary: id.map(key => `UPDATE notes SET rank = 7 WHERE id > ${key}`) },
    { weight: 1, arbitrary: fc.constantFrom(1, 2).map(room => `DELETE FROM members WHERE room_id = ${room}`) },
    {
      weight: 1,
      arbitrary: fc
        .constantFrom(1, 2, 3)
        .map(room => `INSERT INTO members VALUES (${room}, '${user}') ON CONFLICT DO NOTHING`),
    },
  )

/** @returns the transaction that did it all */
async function commit(statements: readonly string[]): Promise<string> {
  await database.query('BEGIN')
  for (const each of statements) await database.query(each)
  const [row] = await database.query<{ txid: string }>('SELECT pg_current_xact_id()::text AS txid')
  await database.query('COMMIT')
  return row!.txid
}

/** As the wire writes them: what no double holds is text. */
const asWire = async (user: string, sql: string): Promise<unknown[]> => {
  const isWide = `SELECT q.*, to_jsonb(q)->>'rank' AS wire_rank FROM (${sql}) q`
  return (await selectAs(database, user, isWide)).map(({ wire_rank, ...row }) => {
    const isNumber = wire_rank === null || wire_rank === undefined || typeof row.rank === 'string'
    return isNumber || !['9007199254740993', '9007199254740992.5'].includes(wire_rank as string)
      ? row
      : { ...row, rank: wire_rank }
  })
}

async function expectEqual(live: LiveQuery<object>, sql: string, user: string): Promise<void> {
  const rows = await asWire(user, sql)
  if (sql.includes('ORDER BY')) expect(live.current.rows).toEqual(rows)
  else expect(new Set(live.current.rows.map(sorted))).toEqual(new Set(rows.map(row => sorted(row as object))))
  expect(live.current.rows).toHaveLength(rows.length)
}

const sorted = (row: object): string => JSON.stringify(Object.entries(row).sort(([a], [b]) => (a < b ? -1 : 1)))

test('[P1] filters, orders and windows are those of the SELECT at every quiet point, and after a reload', async () => {
  const user = person()
  await begin(user)
  const store = memoryStore()
  // The same in every run, so that a failure comes again.
  const transactions = fc.sample(fc.array(statement(user), { minLength: 1, maxLength: 4 }), { numRuns: 60, seed: 11 })
  let before = queries.map(() => 0)
  for (let page = 0; page < 4; page++) {
    using run = await clientOf(user, { store: storedRows(store) })
    const lives = queries.map(([, live]) => live(run.tide))
    const connecting = lives.map(() => 0)
    for (const [at, live] of lives.entries())
      live.subscribe(({ status, rows }) => {
        if (status === 'connecting') connecting[at] = rows.length
      })
    await eventually(() => expect(lives.map(({ current }) => current.status)).toEqual(lives.map(() => 'live')))
    expect(connecting).toEqual(before)
    for (const statements of transactions.splice(0, 12)) {
      const txid = await commit(statements)
      await run.tide.waitFor(txid)
      for (const [at, [, , sql]] of queries.entries()) await expectEqual(lives[at]!, sql, user)
    }
    expect(run.errors).toEqual([])
    before = lives.map(({ current }) => current.rows.length)
    run.tide.close()
    await eventually(async () => expect(await store.keys('')).toHaveLength(queries.length))
    // While nobody is there.
    for (const statements of transactions.splice(0, 3)) await commit(statements)
  }
})

/** A page that has stored its rows. */
async function storedPage(user: string): Promise<Store> {
  const store = memoryStore()
  using run = await clientOf(user, { store: storedRows(store) })
  expect((await run.tide.from('notes').live().once()).length).toBeGreaterThan(0)
  run.tide.close()
  await eventually(async () => expect(await store.keys('')).toHaveLength(1))
  return store
}

test('[P4] stored rows under another policy are shown until the server has said so, and no longer', async () => {
  const user = person()
  await begin(user)
  const store = await storedPage(user)
  await database.query('ALTER POLICY by_membership ON notes USING (room_id = 3)')
  using run = await clientOf(user, { store: storedRows(store) })
  const query = run.tide.from('notes').live()
  const errors: [code: string, rows: number][] = []
  query.subscribe(({ error, rows }) => {
    if (error !== null) errors.push([error.code, rows.length])
  })
  // The node hears of the policy a moment after it changed.
  await eventually(() => {
    expect(query.current.status).toBe('live')
    expect(new Set(query.current.rows.map(({ room_id }) => room_id))).toEqual(new Set([3]))
  })
  expect(errors.every(([, count]) => count === 0)).toBe(true)
})

test('[P3] a revocation while the page was closed: its rows go as soon as the server has answered', async () => {
  const user = person()
  await begin(user)
  const store = await storedPage(user)
  await database.query(`DELETE FROM members WHERE user_id = '${user}'`)
  using run = await clientOf(user, { store: storedRows(store) })
  const query = run.tide.from('notes').live()
  query.subscribe(() => {})
  await eventually(() => expect(query.current).toMatchObject({ status: 'live', rows: [] }))
})

test('queries that the server takes for one share its subscription, and each lives as long as somebody listens to it', async () => {
  const user = person()
  await begin(user)
  using run = await clientOf(user)
  const notes = run.tide.from('notes')
  const named = notes.select(['id', 'room_id', 'rank', 'title', 'name', 'mood', 'done', 'at']).live()
  const [one, two] = [notes.live(), named]
  const endOne = one.subscribe(() => {})
  const endTwo = two.subscribe(() => {})
  const seen: [unknown[], unknown[]] = [[], []]
  notes.changes({}, change => seen[0].push(change.key?.id))
  notes
    .select(['id', 'room_id', 'rank', 'title', 'name', 'mood', 'done', 'at'])
    .changes({}, change => seen[1].push(change.key?.id))
  await eventually(() => expect([one.current.status, two.current.status]).toEqual(['live', 'live']))
  expect(two.current.rows).toEqual(one.current.rows)
  endOne()
  const txid = await commit([`INSERT INTO notes (id, room_id) VALUES (50, 1)`])
  await run.tide.waitFor(txid)
  // One of the two was entered, the other has what it has. The first would be gone by now, if nobody needed it.
  await new Promise(resolve => setTimeout(resolve, 1500))
  const next = await commit([`INSERT INTO notes (id, room_id) VALUES (51, 1)`])
  await run.tide.waitFor(next)
  await eventually(() => expect(two.current.rows.map(({ id }) => Number(id))).toEqual(expect.arrayContaining([50, 51])))
  await eventually(() =>
    expect(seen).toEqual([
      [50, 51],
      [50, 51],
    ]),
  )
  endTwo()
  await eventually(() => expect([one.current.rows, two.current.rows]).toEqual([[], []]))
  expect(run.errors).toEqual([])
})
