import type pg from 'pg'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { createCatalog } from '../../../src/server/authorize/policy-catalog.ts'
import type { PostgresCatalog } from '../../../src/server/catalog/catalog.ts'
import { createLog } from '../../../src/server/log/log.ts'
import { createPool } from '../../../src/server/postgres/database.ts'
import { TestDatabase } from '../../support/postgres.ts'

let database: TestDatabase
let pool: pg.Pool
let catalog: PostgresCatalog
const suffix = Math.random().toString(36).slice(2, 8)
const login = `login_${suffix}`
const reader = `reader_${suffix}`
const stranger = `stranger_${suffix}`
const owner = `owner_${suffix}`

beforeAll(async () => {
  database = await TestDatabase.create()
  await database.query(`
    CREATE ROLE ${login} LOGIN PASSWORD 'x'; CREATE ROLE ${reader}; CREATE ROLE ${owner}; GRANT ${reader} TO ${login};
    CREATE PUBLICATION tidegate WITH (publish_via_partition_root = true);
    CREATE SCHEMA tidegate;
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    ALTER TYPE mood ADD VALUE 'glad' AFTER 'ok';
    ALTER TYPE mood ADD VALUE 'gloomy' BEFORE 'sad';
    CREATE DOMAIN email AS text CHECK (VALUE LIKE '%@%');
    CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
    CREATE TABLE kinds (
      id bigint PRIMARY KEY, gone int, mood mood, mail email, moods mood[], body text, code text COLLATE "C",
      nocase text COLLATE nocase, price numeric(10, 2) NOT NULL, doc jsonb, twice int GENERATED ALWAYS AS (2) STORED, last int
    );
    ALTER TABLE kinds DROP COLUMN gone;
    CREATE TABLE pair (b int, a int, note text, PRIMARY KEY (a, b));
    CREATE TABLE by_index (id int PRIMARY KEY, room int NOT NULL, body text);
    CREATE UNIQUE INDEX by_index_key ON by_index (id, room);
    ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_key;
    CREATE TABLE by_nothing (id int PRIMARY KEY); ALTER TABLE by_nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE keyless (id int);
    CREATE TABLE root (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
    CREATE TABLE leaf_1 PARTITION OF root FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
    CREATE TABLE leaf_2 (note text, day date NOT NULL, id int NOT NULL, PRIMARY KEY (id, day));
    ALTER TABLE leaf_2 DROP COLUMN note;
    ALTER TABLE root ATTACH PARTITION leaf_2 FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    ALTER TABLE root REPLICA IDENTITY FULL; ALTER TABLE leaf_1 REPLICA IDENTITY FULL;
    CREATE TABLE plain (id int PRIMARY KEY);
    CREATE VIEW a_view AS SELECT 1 AS id;
    CREATE MATERIALIZED VIEW a_matview AS SELECT 1 AS id;
    CREATE UNLOGGED TABLE an_unlogged (id int PRIMARY KEY);
    CREATE TABLE a_parent (id int PRIMARY KEY); CREATE TABLE a_child () INHERITS (a_parent);
    CREATE EXTENSION IF NOT EXISTS file_fdw; CREATE SERVER files FOREIGN DATA WRAPPER file_fdw;
    CREATE FOREIGN TABLE a_foreign (id int) SERVER files OPTIONS (filename '/dev/null');
    ALTER PUBLICATION tidegate ADD TABLE kinds, pair, by_index, by_nothing, keyless, root, a_parent;
    GRANT USAGE ON SCHEMA tidegate TO ${login};
  `)
  pool = createPool(database.url, { maxConnections: 2 })
  catalog = createCatalog({ pool, publication: 'tidegate', roles: [reader], log: createLog('silent') })
})

afterAll(async () => {
  await pool.end()
  await database.query(
    `DROP OWNED BY ${login}, ${reader}, ${owner}; DROP ROLE ${login}, ${reader}, ${owner}; DROP ROLE IF EXISTS ${stranger}`,
  )
  await database[Symbol.asyncDispose]()
})

const refusal = async (promise: Promise<unknown>): Promise<string> => {
  const error: unknown = await promise.then(
    () => 'accepted',
    (reason: unknown) => reason,
  )
  return error instanceof Error && 'code' in error ? `${error.code}: ${error.message}` : String(error)
}

test('columns come in WAL order, without dropped and generated ones, with their types', async () => {
  const { columns, primaryKey } = await catalog.table('public', 'kinds')
  expect(columns.map(({ name, notNull, type }) => [name, type.name, type.family, notNull])).toEqual([
    ['id', 'bigint', 'int', true],
    ['mood', 'public.mood', 'enum', false],
    ['mail', 'public.email', 'text', false],
    ['moods', 'public.mood[]', 'array', false],
    ['body', 'text', 'text', false],
    ['code', 'text', 'text', false],
    ['nocase', 'text', 'text', false],
    ['price', 'numeric', 'numeric', true],
    ['doc', 'jsonb', 'jsonb', false],
    ['last', 'integer', 'int', false],
  ])
  expect(primaryKey).toEqual([0])
  const labels = ['gloomy', 'sad', 'ok', 'glad']
  expect(columns[1]!.type.labels).toEqual(labels)
  expect(columns[3]!.type.element?.labels).toEqual(labels)
  expect(columns[2]!.type).toMatchObject({ domain: true, base: { oid: 25, name: 'text', family: 'text' } })
})

test('a collation is by bytes, deterministic or nondeterministic; the default is the database’s', async () => {
  const { columns } = await catalog.table('public', 'kinds')
  const of = (name: string) => columns.find(column => column.name === name)!.type.collation
  const [{ datcollate }] = (await database.query<{ datcollate: string }>(
    'SELECT datcollate FROM pg_database WHERE datname = current_database()',
  )) as [{ datcollate: string }]
  expect(of('body')).toBe(datcollate === 'C' || datcollate === 'POSIX' ? 'c' : 'deterministic')
  expect([of('code'), of('nocase'), of('doc')]).toEqual(['c', 'nondeterministic', undefined])
})

test('lower() of a collation is Postgres’s own, and absent where only Postgres knows it', async () => {
  const collations = await database.query<{ oid: number; collname: string }>(
    `SELECT oid, collname FROM pg_collation WHERE collname IN ('C', 'ucs_basic', 'nocase', 'pg_c_utf8', 'pg_unicode_fast', 'C.utf8')`,
  )
  for (const { oid, collname } of collations) {
    const map = await catalog.caseMap(oid)
    if (collname === 'pg_c_utf8' || collname === 'C.utf8') {
      expect(map?.get('Ä')).toBe('ä')
      const upper = [...map!.keys()].join('')
      const [row] = await database.query<{ lower: string }>(`SELECT lower($1 COLLATE "${collname}")`, [upper])
      expect(row!.lower).toBe([...upper].map(char => map!.get(char)).join(''))
    } else expect(map).toBe(null)
  }
  expect(collations.length).toBeGreaterThan(2)
})

test('replica identity: default, index, nothing, no key at all', async () => {
  const of = async (name: string) => {
    const { replicaIdentity, identity, primaryKey } = await catalog.table('public', name)
    return [replicaIdentity, [...identity].sort(), primaryKey]
  }
  expect(await of('pair')).toEqual(['default', [0, 1], [1, 0]])
  expect(await of('by_index')).toEqual(['index', [0, 1], [0]])
  expect(await of('by_nothing')).toEqual(['nothing', [], [0]])
  expect(await of('keyless')).toEqual(['default', [], []])
})

test('a partitioned table has the weakest identity of its leaves', async () => {
  const table = await catalog.table('public', 'root')
  expect([table.partitioned, table.replicaIdentity, [...table.identity].sort()]).toEqual([true, 'default', [0, 1]])
  await database.query('ALTER TABLE leaf_2 REPLICA IDENTITY FULL')
  catalog.invalidate(table.oid)
  expect((await catalog.table('public', 'root')).replicaIdentity).toBe('full')
  await database.query('ALTER TABLE leaf_1 REPLICA IDENTITY NOTHING')
  catalog.invalidate()
  const weakest = await catalog.tableByOid(table.oid)
  expect([weakest.replicaIdentity, weakest.identity.size]).toEqual(['nothing', 0])
})

test('what cannot be followed is refused by name', async () => {
  expect(await refusal(catalog.table('public', 'a_view'))).toBe(
    'TABLE_UNSUPPORTED: public.a_view is a view, which cannot be followed; subscribe to an ordinary or partitioned table',
  )
  for (const [name, kind] of [
    ['a_matview', 'a materialized view'],
    ['a_foreign', 'a foreign table'],
    ['an_unlogged', 'an unlogged table'],
    ['a_parent', 'an inheritance parent'],
  ])
    expect(await refusal(catalog.table('public', name!))).toContain(`TABLE_UNSUPPORTED: public.${name} is ${kind}`)
  const client = await pool.connect()
  await client.query('CREATE TEMPORARY TABLE a_temp (id int)')
  const [row] = (await client.query<{ schema: string }>('SELECT pg_my_temp_schema()::regnamespace::text AS schema'))
    .rows
  expect(await refusal(catalog.table(row!.schema, 'a_temp'))).toContain('is a temporary table')
  client.release(true)
})

test('unknown and untracked tables are refused with the remedy', async () => {
  expect(await refusal(catalog.table('public', 'nothing'))).toContain('TABLE_UNKNOWN: there is no table public.nothing')
  expect(await refusal(catalog.table('public', 'plain'))).toBe(
    'TABLE_UNKNOWN: public.plain is not tracked; run tidegate track public.plain',
  )
  expect(await refusal(catalog.table('public', 'leaf_1'))).toContain(
    'is a partition of public.root; subscribe to public.root',
  )
  expect(await refusal(catalog.tableByOid(1))).toContain('TABLE_UNKNOWN')
  expect((await catalog.inspect('public', 'plain')).published).toBe(false)
})

test('a table that is tracked later is found without being told', async () => {
  await database.query('CREATE TABLE later (id int PRIMARY KEY)')
  expect(await refusal(catalog.table('public', 'later2'))).toContain('TABLE_UNKNOWN')
  await database.query('CREATE TABLE later2 (id int PRIMARY KEY); ALTER PUBLICATION tidegate ADD TABLE later2')
  expect((await catalog.table('public', 'later2')).published).toBe(true)
})

test('publications of all tables or a schema count, column lists narrow, row filters are refused', async () => {
  const all = createCatalog({ pool, publication: 'everything', log: createLog('silent') })
  await database.query(`CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)`)
  expect((await all.table('public', 'plain')).published).toBe(true)
  await database.query('DROP PUBLICATION everything; CREATE PUBLICATION everything FOR TABLES IN SCHEMA public')
  all.invalidate()
  expect((await all.table('public', 'plain')).published).toBe(true)
  await database.query(
    `DROP PUBLICATION everything; CREATE PUBLICATION everything FOR TABLE pair (a, b), plain WHERE (id > 1)`,
  )
  all.invalidate()
  const { columns, primaryKey } = await all.table('public', 'pair')
  expect([columns.map(column => column.name), primaryKey]).toEqual([
    ['b', 'a'],
    [1, 0],
  ])
  expect(await refusal(all.table('public', 'plain'))).toContain('published with a row filter')
})

test('how the login may read a table whole: plainly, through the function of track, or not at all', async () => {
  const loginPool = createPool(database.urlFor(login, 'x'), { maxConnections: 2 })
  const own = createCatalog({ pool: loginPool, publication: 'tidegate', log: createLog('silent') })
  const through = async () => {
    own.invalidate()
    return (await own.table('public', 'pair')).readThrough
  }
  expect((await catalog.table('public', 'pair')).readThrough).toBe('table')
  expect(await through()).toBe(null)
  await database.query(`GRANT SELECT ON pair TO ${login}`)
  expect(await through()).toBe('table')
  await database.query('ALTER TABLE pair ENABLE ROW LEVEL SECURITY')
  expect(await through()).toBe(null)
  await database.query(`CREATE FUNCTION tidegate."public.pair"(text[]) RETURNS SETOF text[] LANGUAGE sql SECURITY DEFINER AS 'SELECT $1';
    REVOKE ALL ON FUNCTION tidegate."public.pair" FROM PUBLIC`)
  expect(await through()).toBe(null)
  await database.query(`GRANT EXECUTE ON FUNCTION tidegate."public.pair" TO ${login}`)
  expect(await through()).toBe('function')
  await database.query(`DROP FUNCTION tidegate."public.pair"; ALTER TABLE pair OWNER TO ${login}`)
  expect(await through()).toBe('table')
  await database.query('ALTER TABLE pair FORCE ROW LEVEL SECURITY')
  expect(await through()).toBe(null)
  await database.query('ALTER TABLE pair NO FORCE ROW LEVEL SECURITY, DISABLE ROW LEVEL SECURITY, OWNER TO postgres')
  await loginPool.end()
})

test('the fingerprint changes with everything that decides who may see a row, and with nothing else', async () => {
  await database.query(`CREATE FUNCTION helper() RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
    CREATE FUNCTION parsed() RETURNS bool LANGUAGE sql RETURN true; CREATE FUNCTION idle() RETURNS bool LANGUAGE sql AS $$ SELECT true $$;
    CREATE FUNCTION calls() RETURNS bool LANGUAGE sql AS $$ SELECT public."helper"() $$; CREATE FUNCTION calls_parsed() RETURNS bool LANGUAGE sql RETURN parsed();
    CREATE POLICY q ON pair USING (calls() AND calls_parsed())`)
  let before = await catalog.fingerprint()
  for (const unrelated of [
    'INSERT INTO pair VALUES (1, 1)',
    'ANALYZE pair',
    'TRUNCATE pair',
    'VACUUM pair',
    'CREATE OR REPLACE FUNCTION helper() RETURNS bool LANGUAGE sql AS $$ SELECT true $$',
    'CREATE TABLE unrelated (id int)',
    'CREATE OR REPLACE FUNCTION idle() RETURNS bool LANGUAGE sql AS $$ SELECT false $$',
    'CREATE FUNCTION idler() RETURNS bool LANGUAGE sql AS $$ SELECT idle() $$',
    `CREATE ROLE ${stranger} BYPASSRLS`,
    `GRANT pg_read_all_data TO ${stranger}`,
    `GRANT ${reader} TO ${stranger}`,
  ]) {
    await database.query(unrelated)
    const after = await catalog.fingerprint()
    // A new table brings a row type, but no enum, domain or policy.
    expect([unrelated, after]).toEqual([unrelated, before])
  }
  for (const change of [
    'ALTER TABLE pair ADD COLUMN extra text',
    'ALTER TABLE pair ENABLE ROW LEVEL SECURITY',
    'ALTER TABLE pair FORCE ROW LEVEL SECURITY',
    'CREATE POLICY p ON pair USING (a = 1)',
    'ALTER POLICY p ON pair USING (a = 2)',
    `ALTER POLICY p ON pair TO ${reader}`,
    `GRANT SELECT ON pair TO ${reader}`,
    `GRANT SELECT (note) ON by_index TO ${reader}`,
    `REVOKE SELECT ON pair FROM ${reader}`,
    'ALTER TABLE pair REPLICA IDENTITY FULL',
    'ALTER TABLE leaf_1 REPLICA IDENTITY FULL',
    `ALTER ROLE ${reader} BYPASSRLS`,
    `GRANT pg_read_all_data TO ${reader}`,
    `REVOKE pg_read_all_data FROM ${reader}`,
    'CREATE OR REPLACE FUNCTION helper() RETURNS bool LANGUAGE sql AS $$ SELECT false $$',
    'CREATE OR REPLACE FUNCTION parsed() RETURNS bool LANGUAGE sql RETURN false',
    'CREATE FUNCTION helper(int) RETURNS bool LANGUAGE sql AS $$ SELECT false $$',
    'ALTER FUNCTION helper() SECURITY DEFINER',
    `ALTER FUNCTION helper() OWNER TO ${owner}`,
    `GRANT pg_read_all_data TO ${owner}`,
    `ALTER ROLE ${owner} BYPASSRLS`,
    'ALTER FUNCTION helper() SET search_path = public',
    'ALTER PUBLICATION tidegate ADD TABLE plain',
    "ALTER TYPE mood ADD VALUE 'new'",
    'DROP POLICY p ON pair',
  ]) {
    await database.query(change.replace('(note) ON by_index', '(body) ON by_index'))
    const after = await catalog.fingerprint()
    expect([change, after === before]).toEqual([change, false])
    before = after
  }
})
