// What each binding is told of, on a real node: by commands and by what comes into view and goes.
import { afterAll, beforeAll, expect, test } from 'vitest'
import { askedSchema, askedTables } from '../../../support/asked.ts'
import { eventually } from '../../../support/eventually.ts'
import { prepareDatabase, TestNode, trackTables } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { Bound, bindingOf, principalOf } from './support/bound.ts'

const ana = principalOf('00000000-0000-4000-8000-00000000000a')
const ben = principalOf('00000000-0000-4000-8000-00000000000b')
const [anaId, benId] = [ana.claims.sub, ben.claims.sub]

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(
    database,
    `CREATE TABLE todos (id int PRIMARY KEY, owner uuid NOT NULL, state text NOT NULL DEFAULT 'open', secret text);
     ALTER TABLE todos ENABLE ROW LEVEL SECURITY;
     CREATE POLICY own ON todos FOR SELECT TO authenticated USING (owner = auth.uid());
     CREATE TABLE notes (id int PRIMARY KEY, body text);
     CREATE TABLE hidden (id int PRIMARY KEY);
     CREATE TABLE later (id int PRIMARY KEY);
     CREATE SCHEMA sales; CREATE TABLE sales.orders (id int PRIMARY KEY, parts text);
     CREATE TABLE sales.half (id int PRIMARY KEY, open text, secret text);
     CREATE TABLE days (day int PRIMARY KEY) PARTITION BY RANGE (day);
     CREATE TABLE days_1 PARTITION OF days FOR VALUES FROM (1) TO (10);
     GRANT USAGE ON SCHEMA public, sales TO authenticated;
     GRANT SELECT ON todos, notes, later, days, sales.orders TO authenticated;
     GRANT SELECT (id, open) ON sales.half TO authenticated`,
    ['public.todos', 'public.notes', 'public.hidden', 'public.days', 'sales.orders', 'sales.half'],
  )
  // A few hundred rows are too many to hold.
  node = await TestNode.start(database.url, { SPOOL_BYTES: '65536' })
})

afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

/** One for each event, of one filter. */
const boundToAll = async (principal: typeof ana, filter: string) => {
  const bind = (event: '*' | 'INSERT' | 'UPDATE' | 'DELETE') =>
    Bound.to(node, principal, bindingOf({ table: 'todos', event, filter }))
  return {
    all: await bind('*'),
    insert: await bind('INSERT'),
    update: await bind('UPDATE'),
    delete: await bind('DELETE'),
  }
}

/** Writes one row that everybody's filter takes, so that all before it has been told when it is. */
const words = async (bound: Awaited<ReturnType<typeof boundToAll>>, owner: unknown) => {
  await database.query(
    `INSERT INTO todos VALUES (999, '${owner}', 'end'); UPDATE todos SET secret = 'x' WHERE id = 999`,
  )
  await database.query('DELETE FROM todos WHERE id = 999')
  await eventually(() => expect(bound.all.words).toContain('DELETE 999'))
  await eventually(() => expect(bound.delete.words).toContain('DELETE 999'))
  await eventually(() => expect(bound.insert.words).toContain('INSERT 999'))
  const shown = (told: Bound) => told.words.filter(word => !word.endsWith(' 999'))
  return {
    all: shown(bound.all),
    insert: shown(bound.insert),
    update: shown(bound.update),
    delete: shown(bound.delete),
  }
}

test('[P1] each command within the view is told as it is, to whom it may concern', async () => {
  const bound = await boundToAll(ana, 'id=gte.10,id=lt.1000')
  await database.query(`INSERT INTO todos VALUES (10, '${anaId}')`)
  await database.query(`UPDATE todos SET state = 'done' WHERE id = 10`)
  await database.query('DELETE FROM todos WHERE id = 10')
  expect(await words(bound, anaId)).toEqual({
    all: ['INSERT 10', 'UPDATE 10', 'DELETE 10'],
    insert: ['INSERT 10'],
    update: ['UPDATE 10'],
    delete: ['DELETE 10'],
  })
})

test('an UPDATE into the filter is INSERT to "*", and is not lost to who is bound to UPDATE; one out of it is DELETE', async () => {
  const bound = await boundToAll(ana, 'id=gte.20,state=in.(done,end)')
  await database.query(`INSERT INTO todos VALUES (20, '${anaId}')`)
  await database.query(`UPDATE todos SET state = 'done' WHERE id = 20`)
  await database.query(`UPDATE todos SET state = 'open' WHERE id = 20`)
  expect(await words(bound, anaId)).toEqual({
    all: ['INSERT 20', 'DELETE 20'],
    insert: ['INSERT 20'],
    update: ['UPDATE 20'],
    delete: ['DELETE 20'],
  })
  const [update] = bound.update.changes
  expect(update).toMatchObject({ type: 'UPDATE', record: { id: 20, state: 'done' }, old_record: { id: 20 } })
})

test('[P2] a row that comes from somebody else is told without anything of what it was, also to who is bound to UPDATE', async () => {
  const [anas, bens] = [await boundToAll(ana, 'id=gte.30'), await boundToAll(ben, 'id=gte.30')]
  await database.query(`INSERT INTO todos VALUES (30, '${benId}', 'open', 'of ben')`)
  await database.query(`UPDATE todos SET owner = '${anaId}', secret = 'of ana' WHERE id = 30`)
  await database.query('DELETE FROM todos WHERE id = 30')
  expect(await words(anas, anaId)).toEqual({
    all: ['INSERT 30', 'DELETE 30'],
    insert: ['INSERT 30'],
    update: ['UPDATE 30'],
    delete: ['DELETE 30'],
  })
  expect(await words(bens, benId)).toEqual({
    all: ['INSERT 30', 'DELETE 30'],
    insert: ['INSERT 30'],
    update: [],
    delete: ['DELETE 30'],
  })
  for (const { told } of Object.values(anas)) expect(told.join()).not.toContain('of ben')
  for (const { told } of Object.values(bens)) expect(told.join()).not.toContain('of ana')
  expect(anas.update.changes[0]).toMatchObject({ old_record: { id: 30 } })
})

test('[P2] a DELETE is judged by the row that went, and no filter finds out what a hidden one held', async () => {
  const bind = (filter: string | null) => Bound.to(node, ana, bindingOf({ table: 'todos', event: 'DELETE', filter }))
  const [all, sought] = [await bind(null), await bind('secret=like.priv%')]
  await database.query(
    `INSERT INTO todos VALUES (50, '${benId}', 'open', 'priv of ben'), (51, '${anaId}', 'open', 'priv of ana')`,
  )
  await database.query('DELETE FROM todos WHERE id = 50')
  await database.query('DELETE FROM todos WHERE id = 51')
  expect((await all.until(1)).words).toEqual(['DELETE 51'])
  expect((await sought.until(1)).words).toEqual(['DELETE 51'])
  // Whole, for whoever could read it.
  expect(all.changes[0]!.old_record).toEqual({ id: 51, owner: anaId, state: 'open', secret: 'priv of ana' })
})

test('[P4] of a commit that is too large to hold each row is told as of any other, to each binding', async () => {
  const bind = (event: '*' | 'UPDATE') =>
    Bound.to(node, ana, bindingOf({ table: 'todos', event, filter: 'id=gte.100000,state=neq.no' }))
  const [all, update] = [await bind('*'), await bind('UPDATE')]
  const rows = 3000
  await database.query(
    `INSERT INTO todos SELECT i, '${anaId}', 'no', repeat('x', 400) FROM generate_series(100000, ${100_000 + rows - 1}) i`,
  )
  await database.query(`BEGIN; UPDATE todos SET state = 'yes' WHERE id >= 100000;
    INSERT INTO todos VALUES (${100_000 + rows}, '${anaId}'); COMMIT`)
  expect((await all.until(rows + 1)).words.every(word => word.startsWith('INSERT '))).toBe(true)
  expect((await update.until(rows)).words.at(-1)).toBe(`UPDATE ${100_000 + rows - 1}`)
  await database.query('DELETE FROM todos WHERE id >= 100000')
  await all.until(2 * rows + 2)
  expect(update.told).toHaveLength(rows)
})

test('a key that changes is a row that goes and one that comes; who is bound to UPDATE hears of the one that comes', async () => {
  const bound = await boundToAll(ana, 'id=gte.40')
  await database.query(`INSERT INTO todos VALUES (40, '${anaId}')`)
  await database.query('UPDATE todos SET id = 41 WHERE id = 40')
  expect(await words(bound, anaId)).toEqual({
    all: ['INSERT 40', 'DELETE 40', 'INSERT 41'],
    insert: ['INSERT 40', 'INSERT 41'],
    update: ['UPDATE 41'],
    delete: ['DELETE 40'],
  })
})

test('a TRUNCATE tells whoever hears of deletes to read again', async () => {
  const bind = (event: '*' | 'INSERT' | 'UPDATE' | 'DELETE') =>
    Bound.to(node, ana, bindingOf({ table: 'notes', event }))
  const bound = [await bind('*'), await bind('DELETE'), await bind('INSERT')] as const
  await database.query(`INSERT INTO notes VALUES (1, 'a')`)
  await database.query('TRUNCATE notes')
  await database.query(`INSERT INTO notes VALUES (2, 'b')`)
  expect((await bound[0].until(3)).words).toEqual(['INSERT 1', 'reread', 'INSERT 2'])
  expect((await bound[1].until(1)).words).toEqual(['reread'])
  expect((await bound[2].until(2)).words).toEqual(['INSERT 1', 'INSERT 2'])
})

test('columns that are asked for come with the key; one that is hidden is refused, and so is a choice among unknown tables', async () => {
  const bound = await Bound.to(node, ana, bindingOf({ table: 'notes', select: ['body'] }))
  await database.query(`INSERT INTO notes VALUES (3, 'c')`)
  expect((await bound.until(1)).changes[0]).toMatchObject({
    columns: [
      { name: 'id', type: 'int4' },
      { name: 'body', type: 'text' },
    ],
    record: { id: 3, body: 'c' },
  })
  const half = await Bound.to(node, ana, bindingOf({ schema: 'sales', table: 'half' }))
  await database.query(`INSERT INTO sales.half VALUES (1, 'shown', 'hidden')`)
  expect((await half.until(1)).changes[0]!.record).toEqual({ id: 1, open: 'shown' })
  const refusals = [
    bindingOf({ schema: 'sales', table: 'half', select: ['secret'] }),
    bindingOf({ schema: 'sales', table: 'half', filter: 'secret=eq.x' }),
    bindingOf({ table: '*', select: ['id'] }),
    bindingOf({ table: 'later' }),
    bindingOf({ table: 'hidden' }),
    bindingOf({ table: 'todos', filter: 'id=eq.one' }),
  ].map(binding =>
    Bound.to(node, ana, binding).then(
      () => 'taken',
      error => error.code,
    ),
  )
  expect(await Promise.all(refusals)).toEqual([
    'COLUMN_UNKNOWN',
    'COLUMN_UNKNOWN',
    'FILTER_INVALID',
    'TABLE_UNKNOWN',
    'TABLE_REFUSED',
    'FILTER_INVALID',
  ])
})

test('the tables of a role are those tracked of which it may read the key, and change as the catalog does', async () => {
  const { subscriptions } = node.server
  const names = async (principal = ana) =>
    (await subscriptions.tables(principal)).map(({ schema, table }) => `${schema}.${table}`)
  const all = ['public.days', 'public.notes', 'public.todos', 'sales.half', 'sales.orders']
  expect(await names()).toEqual(all)
  expect(await names({ ...ana, role: 'anon' })).toEqual([])
  await expect(names({ ...ana, role: 'postgres' })).rejects.toMatchObject({ code: 'ROLE_REFUSED' })
  let told = 0
  const stop = subscriptions.onTables(() => {
    told += 1
  })
  await trackTables(database, ['public.later'])
  await eventually(async () => expect([told > 0, await names()]).toEqual([true, [...all, 'public.later'].toSorted()]))
  await database.query('GRANT SELECT ON hidden TO authenticated; REVOKE USAGE ON SCHEMA sales FROM authenticated')
  await eventually(async () =>
    expect(await names()).toEqual(['public.days', 'public.hidden', 'public.later', 'public.notes', 'public.todos']),
  )
  stop()
  const before = told
  await database.query('GRANT USAGE ON SCHEMA sales TO authenticated')
  await eventually(async () => expect(await names()).toContain('sales.orders'))
  expect(told).toBe(before)
})

test('where Postgres is asked, one that comes into view is told to who is bound to UPDATE too: whether it was there is not known', async () => {
  await prepareDatabase(
    database,
    askedSchema,
    askedTables.map(table => `public.${table}`),
  )
  await eventually(async () =>
    expect((await node.server.subscriptions.tables(ana)).map(({ table }) => table)).toContain('papers'),
  )
  await database.query(`INSERT INTO crew VALUES (1, '${anaId}')`)
  const bind = (event: '*' | 'UPDATE') => Bound.to(node, ana, bindingOf({ table: 'papers', event }))
  const [all, update] = [await bind('*'), await bind('UPDATE')]
  expect([all.subscription!.exact, all.subscription!.columns?.map(({ name }) => name)]).toEqual([
    false,
    ['id', 'room_id', 'author', 'body'],
  ])
  await database.query(`INSERT INTO papers VALUES (1, 1, 'ana', 'a')`)
  await all.until(1)
  await update.until(1)
  await database.query(`UPDATE papers SET body = 'b'`)
  await all.until(2)
  await update.until(2)
  await database.query('DELETE FROM papers')
  expect((await all.until(3)).words).toEqual(['INSERT 1', 'UPDATE 1', 'DELETE 1'])
  expect(update.words).toEqual(['UPDATE 1', 'UPDATE 1'])
  expect(all.changes[1]).toMatchObject({ record: { id: 1, body: 'b' }, old_record: { id: 1 } })
  expect(all.changes[2]!.old_record).toEqual({ id: 1 })
})
