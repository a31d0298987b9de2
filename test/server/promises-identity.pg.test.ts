// The same promises under every replica identity that is accepted, over ordinary and partitioned tables: what an old row
// says differs between them, what readers are told must not.
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import type { DeltaEvent, JsonRow, RowChange } from '../../src/protocol/messages.ts'
import { asSet, LiveSse, person, prepareDatabase, selectAs, TestNode, tokenFor } from '../support/node.ts'
import { TestDatabase } from '../support/postgres.ts'

interface Variant {
  readonly name: string
  readonly key: readonly string[]
  /** Set after `track`, on the table and each of its partitions; %n is the relation. */
  readonly identity: string
  readonly partitions?: { readonly by: string; readonly each: readonly string[] }
}

const byRoom = { by: 'LIST (room)', each: ['IN (1)', 'IN (2)', 'IN (3, 4)', 'DEFAULT'] }
const byId = { by: 'RANGE (id)', each: ['FROM (0) TO (50)', 'FROM (50) TO (100)', 'DEFAULT'] }
const full = 'ALTER TABLE %n REPLICA IDENTITY FULL'
const byDefault = 'ALTER TABLE %n REPLICA IDENTITY DEFAULT'
const byIndex =
  'CREATE UNIQUE INDEX "%n_identity" ON %n (room, id); ALTER TABLE %n REPLICA IDENTITY USING INDEX "%n_identity"'

const variants: readonly Variant[] = [
  { name: 'whole', key: ['id'], identity: full },
  { name: 'indexed', key: ['id'], identity: byIndex },
  { name: 'keyed', key: ['room', 'id'], identity: byDefault },
  { name: 'parted_whole_by_room', key: ['room', 'id'], identity: full, partitions: byRoom },
  { name: 'parted_whole_by_id', key: ['id'], identity: full, partitions: byId },
  { name: 'parted_indexed_by_id', key: ['id'], identity: byIndex, partitions: byId },
  { name: 'parted_keyed_by_room', key: ['room', 'id'], identity: byDefault, partitions: byRoom },
]

const leaves = ({ name, partitions }: Variant): string[] => partitions?.each.map((_, i) => `${name}_p${i}`) ?? []

function schemaOf(variant: Variant): string {
  const { name, key, partitions } = variant
  const parts = partitions?.each.map(
    (bound, i) =>
      `CREATE TABLE ${name}_p${i} PARTITION OF ${name} ${bound === 'DEFAULT' ? bound : `FOR VALUES ${bound}`};`,
  )
  return `
    CREATE TABLE ${name} (id int NOT NULL, room int NOT NULL, title text, body text, PRIMARY KEY (${key.join(', ')}))
      ${partitions === undefined ? '' : `PARTITION BY ${partitions.by}`};
    ALTER TABLE ${name} ALTER body SET STORAGE EXTERNAL;
    ${parts?.join('\n') ?? ''}
    ALTER TABLE ${name} ENABLE ROW LEVEL SECURITY;
    CREATE POLICY readers ON ${name} FOR SELECT TO authenticated USING (
      EXISTS (SELECT 1 FROM members m WHERE m.room = ${name}.room AND m.user_id = auth.uid()));
    GRANT SELECT ON ${name} TO authenticated;`
}

const members = `
  CREATE TABLE members (room int NOT NULL, user_id uuid NOT NULL, PRIMARY KEY (room, user_id));
  ALTER TABLE members ENABLE ROW LEVEL SECURITY;
  CREATE POLICY own ON members FOR SELECT TO authenticated USING (user_id = auth.uid());
  GRANT SELECT ON members TO authenticated;
  GRANT USAGE ON SCHEMA public TO authenticated;`

/** Too large for the page, and left out of the WAL by an update that does not touch it. */
const large = (letter: string): string => letter.repeat(9000)

let database: TestDatabase
let node: TestNode
const [ada, ben] = [person(), person()]
let adaToken: string
let benToken: string

beforeAll(async () => {
  database = await TestDatabase.create()
  const schema = members + variants.map(schemaOf).join('\n')
  await prepareDatabase(database, schema, ['members', ...variants.map(({ name }) => name)])
  // It would give every partition FULL: here stands what a database has whose owner may not make event triggers.
  const [trigger] = await database.query<{ evtname: string }>('SELECT evtname FROM pg_event_trigger')
  await database.query(`DROP EVENT TRIGGER ${trigger!.evtname}`)
  for (const variant of variants)
    for (const relation of [variant.name, ...leaves(variant)])
      if (leaves(variant).length === 0 || relation !== variant.name || !variant.identity.includes('INDEX'))
        await database.query(variant.identity.replaceAll('%n', relation))
  node = await TestNode.start(database.url)
  adaToken = await tokenFor(ada)
  benToken = await tokenFor(ben)
})

afterAll(async () => {
  await node?.[Symbol.asyncDispose]()
  await database?.[Symbol.asyncDispose]()
})

beforeEach(async () => {
  await database.query(
    `DELETE FROM members; INSERT INTO members VALUES (1, '${ada}'), (2, '${ben}');
     ${variants.map(({ name }) => `DELETE FROM ${name};`).join('')}`,
  )
})

const deltas = (live: LiveSse): RowChange[] =>
  live.stream.events.filter(({ event }) => event === 'delta').flatMap(({ data }) => (data as DeltaEvent).changes)

async function equals(live: LiveSse, sub: string, table: string): Promise<void> {
  const expected = asSet(await selectAs(database, sub, `SELECT * FROM ${table}`))
  const same = (): boolean => live.rows.exact && asSet(live.rows.list()).join() === expected.join()
  await live.stream.waitFor(() => same() || live.failure !== null).catch(() => {})
  expect(live.failure).toBe(null)
  expect(asSet(live.rows.list()).map(shown)).toEqual(expected.map(shown))
}

const shown = (row: string): string => row.replace(/(\w)\1{20,}/g, (run, letter) => `${letter}*${run.length}`)

const keyOf = ({ key }: Variant, row: JsonRow): JsonRow => Object.fromEntries(key.map(name => [name, row[name]!]))

async function both(table: string): Promise<{ hers: LiveSse; his: LiveSse } & Disposable> {
  const hers = await (await LiveSse.open(node, `/v1/live/${table}`, adaToken)).exact()
  const his = await (await LiveSse.open(node, `/v1/live/${table}`, benToken)).exact()
  const close = (): void => {
    hers.stream.close()
    his.stream.close()
  }
  return { hers, his, [Symbol.dispose]: close }
}

const count = (live: LiveSse): number => live.stream.events.length

test.each(variants)(
  '[P2] $name: an update between readers is a delete without new values and an insert without old ones',
  async variant => {
    const { name } = variant
    await database.query(`INSERT INTO ${name} VALUES (1, 1, 'first', 'hers')`)
    using readers = await both(name)
    const { hers, his } = readers
    await database.query(`UPDATE ${name} SET room = 2, title = 'second' WHERE id = 1`)
    await equals(hers, ada, name)
    await equals(his, ben, name)
    expect(deltas(hers)).toEqual([{ op: 'delete', key: keyOf(variant, { id: 1, room: 1 }) }])
    const row = { id: 1, room: 2, title: 'second', body: 'hers' }
    expect(deltas(his)).toEqual([{ op: 'insert', key: keyOf(variant, row), row }])
  },
)

test.each(variants)('[P2] $name: a delete and an update reach only those who can see the row', async ({ name }) => {
  await database.query(`INSERT INTO ${name} VALUES (1, 1, 'a', 'a'), (2, 2, 'b', 'b'), (3, 3, 'c', 'c')`)
  using readers = await both(name)
  const { hers, his } = readers
  const before = count(hers)
  await database.query(`UPDATE ${name} SET title = 'd' WHERE id IN (2, 3)`)
  await database.query(`DELETE FROM ${name} WHERE id IN (2, 3)`)
  await equals(his, ben, name)
  expect(deltas(his).map(({ op }) => op)).toEqual(['update', 'delete'])
  await database.query(`INSERT INTO ${name} VALUES (4, 1, 'later', 'later')`)
  await equals(hers, ada, name)
  expect(count(hers)).toBe(before + 1)
})

test.each(variants)(
  '[P1] $name: an update carries what changed; without the old row, what came',
  async ({ name, identity }) => {
    await database.query(`INSERT INTO ${name} VALUES (1, 1, 'a', 'b')`)
    using readers = await both(name)
    const { hers } = readers
    await database.query(`UPDATE ${name} SET title = 'changed' WHERE id = 1`)
    await equals(hers, ada, name)
    const [change] = deltas(hers)
    expect(change).toMatchObject({ op: 'update', set: { title: 'changed' } })
    const set = (change as { set: JsonRow }).set
    expect(Object.keys(set)).toEqual(identity === full ? ['title'] : ['title', 'body'])
  },
)

test.each(variants)(
  '[P1] $name: a large value that did not change is left out of an update, and whole where the row comes into view',
  async variant => {
    const { name } = variant
    await database.query(`INSERT INTO ${name} VALUES (1, 1, 'a', '${large('x')}'), (2, 3, 'b', '${large('y')}')`)
    using readers = await both(name)
    const { hers, his } = readers
    await database.query(`UPDATE ${name} SET title = 'b' WHERE id = 1`)
    await equals(hers, ada, name)
    expect(deltas(hers)).toEqual([{ op: 'update', key: keyOf(variant, { id: 1, room: 1 }), set: { title: 'b' } }])
    await database.query(`UPDATE ${name} SET id = 60 WHERE id = 1`)
    await equals(hers, ada, name)
    await database.query(`UPDATE ${name} SET room = 2 WHERE id = 60`)
    await equals(hers, ada, name)
    await equals(his, ben, name)
    // A grant, of a row whose last update left the value out.
    await database.query(
      `BEGIN; UPDATE ${name} SET title = 'c' WHERE id = 2; INSERT INTO members VALUES (3, '${ada}'); COMMIT`,
    )
    await equals(hers, ada, name)
    await database.query(
      `BEGIN; UPDATE ${name} SET room = 3, title = 'd' WHERE id = 60; UPDATE ${name} SET id = 61 WHERE id = 60; COMMIT`,
    )
    await equals(hers, ada, name)
    await equals(his, ben, name)
    expect([hers.rows.resyncs, his.rows.resyncs]).toEqual([[], []])
  },
)

test.each(variants)('[P1] $name: keys that change hands with their large values', async ({ name }) => {
  await database.query(
    `INSERT INTO ${name} VALUES (1, 1, 'one', '${large('x')}'), (2, 1, 'two', '${large('y')}'), (3, 2, 'three', '${large('z')}')`,
  )
  using readers = await both(name)
  const { hers, his } = readers
  await database.query(
    `BEGIN; UPDATE ${name} SET id = 99 WHERE id = 1; UPDATE ${name} SET id = 1 WHERE id = 2; UPDATE ${name} SET id = 2 WHERE id = 99; COMMIT`,
  )
  await equals(hers, ada, name)
  // Onto the key of a row that is deleted, by another reader's row.
  await database.query(
    `BEGIN; DELETE FROM ${name} WHERE id = 1; UPDATE ${name} SET id = 1, room = 1 WHERE id = 3; COMMIT`,
  )
  await equals(hers, ada, name)
  await equals(his, ben, name)
  expect([hers.rows.resyncs, his.rows.resyncs]).toEqual([[], []])
})

test.each(variants)('[P1] $name: TRUNCATE, alone and among others', async ({ name }) => {
  await database.query(`INSERT INTO ${name} VALUES (1, 1, 'a', 'a'), (2, 2, 'b', 'b'), (3, 1, 'c', 'c')`)
  using readers = await both(name)
  const { hers, his } = readers
  await database.query(
    `BEGIN; UPDATE ${name} SET title = 'never' WHERE id = 1; TRUNCATE ${name}; INSERT INTO ${name} VALUES (1, 2, 'new', 'n'), (9, 1, 'new', 'n'); COMMIT`,
  )
  await equals(hers, ada, name)
  await equals(his, ben, name)
  await database.query(`TRUNCATE ${name}`)
  await equals(hers, ada, name)
  await equals(his, ben, name)
  expect(JSON.stringify(hers.stream.events)).not.toContain('never')
  expect([hers.rows.resyncs, his.rows.resyncs]).toEqual([[], []])
})

test.each(variants)(
  '[P1] [P3] $name: several at once: insert, update, key change, move, delete, grant and revocation',
  async ({ name }) => {
    await database.query(
      `INSERT INTO ${name} SELECT i, 1 + i % 4, 'row ' || i, repeat(chr(97 + i % 26), CASE WHEN i % 3 = 0 THEN 9000 ELSE 3 END) FROM generate_series(1, 40) i`,
    )
    using readers = await both(name)
    const { hers, his } = readers
    for (let i = 0; i < 12; i++) {
      const room = 1 + (i % 4)
      await database.query(`BEGIN;
      UPDATE ${name} SET room = 1 + room % 4 WHERE id % 5 = ${i % 5};
      UPDATE ${name} SET title = 'round ${i}' WHERE id % 3 = ${i % 3};
      UPDATE ${name} SET id = id + 200 WHERE id = ${1 + i};
      DELETE FROM ${name} WHERE id = ${20 + i};
      INSERT INTO ${name} VALUES (${20 + i}, ${room}, 'again', 'again');
      DELETE FROM members WHERE room = ${room};
      INSERT INTO members VALUES (${1 + ((i + 1) % 4)}, '${ada}'), (${1 + ((i + 2) % 4)}, '${ben}') ON CONFLICT DO NOTHING;
      UPDATE ${name} SET room = ${room} WHERE id = ${100 + i} OR id = ${30 + (i % 5)};
      COMMIT`)
      if (i % 4 === 3) {
        await equals(hers, ada, name)
        await equals(his, ben, name)
      }
    }
    await equals(hers, ada, name)
    await equals(his, ben, name)
  },
)
