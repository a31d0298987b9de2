// Values and rows as `postgres_changes` has them, compared with what Postgres itself says of them.
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { eventually } from '../../../support/eventually.ts'
import { prepareDatabase, TestNode } from '../../../support/node.ts'
import { TestDatabase } from '../../../support/postgres.ts'
import { Bound, bindingOf, principalOf } from './support/bound.ts'

/** Of each type what it may hold; null is tried with all. */
const samples: readonly (readonly [type: string, ...values: string[]])[] = [
  ['bool', 'true', 'false'],
  ['int2', '-32768'],
  ['int4', '2147483647'],
  ['int8', '9007199254740993', '-9223372036854775808', '42'],
  ['public.big', '9007199254740993', '1'],
  ['numeric', '12345678901234567890.123456789012345678901', '1.50', 'NaN', '0', '-0.000000000000000000000001'],
  ['public.price', '99999999999999999999.1234', '1'],
  ['float4', '1.5', '1e20', 'NaN', 'Infinity'],
  ['float8', '0.1', '1e-7', '1.7976931348623157e308', '-Infinity', '-0'],
  ['money', '1234.5'],
  ['text', 'plain', '', '"quoted" \\ {a,b} \n\t\u2028 \u{1f600}', '12345678901234567890', ',"new":{},"old":{"a":1}}'],
  ['varchar(5)', 'abc'],
  ['bpchar(5)', 'abc'],
  ['name', 'someone'],
  ['"char"', 'x'],
  ['uuid', '00000000-0000-4000-8000-00000000abcd'],
  ['date', '2026-01-31', '0044-03-15 BC', 'infinity'],
  ['time', '12:00:00.5'],
  ['timetz', '12:00:00+02'],
  ['timestamp', '2026-01-31 12:00:00.123456', '-infinity'],
  ['timestamptz', '2026-01-31 12:00:00.5+02'],
  ['interval', '1 year 2 mons 3 days 04:05:06.7', '-00:00:01'],
  ['json', '{"b": 1.50, "a": [true, null, "x\\n"]}', '"123"', '12345678901234567890'],
  ['jsonb', '{"b": 1.50, "a": {"c": [1, 2]}}', '[]', 'null', '9007199254740993'],
  ['public.mood', 'sad', 'so, so'],
  ['int4range', '[1,5)', 'empty'],
  ['tstzrange', '[2026-01-01 00:00+00,)'],
  ['inet', '192.168.0.1/24'],
  ['cidr', '10.0.0.0/8'],
  ['macaddr', '08:00:2b:01:02:03'],
  ['bit(4)', '1010'],
  ['varbit', '101'],
  ['point', '(1,2)'],
  ['box', '((1,2),(3,4))'],
  ['xml', '<a b="c">d</a>'],
  ['tsvector', "'a':1 'b':2"],
  ['oid', '42'],
  ['pg_lsn', '16/B374D848'],
  ['public.hstore', '"a"=>"1", "b"=>NULL, "c \\"d\\""=>"e\\\\,f=>g"', ''],
  [
    'public.place',
    '(1,"a, ""b""\\\\ c","{9007199254740993,NULL}",sad,"(9007199254740993,)",t,"2026-01-31 12:00:00")',
    '(,,,,,,)',
  ],
  ['public.spot', '(9007199254740993,"")'],
  ['_bool', '{t,f,NULL}'],
  ['_int4', '{1,2}', '{}', '[2:3]={1,2}'],
  ['_int8', '{9007199254740993,1,NULL}', '{{1,9007199254740993},{3,4}}'],
  ['_numeric', '{1.50,12345678901234567890,NaN,NULL}'],
  ['_text', '{a,"b,c","d\\"e",NULL,"NULL",9007199254740993}'],
  ['_timestamptz', '{"2026-01-31 12:00:00+00"}'],
  ['_jsonb', '{"{\\"a\\": [1]}","1"}'],
  ['_bytea', '{"\\\\x6869"}'],
  ['public._mood', '{sad,"so, so"}'],
  ['public._spot', '{"(1,a)","(9007199254740993,\\"b, c\\")",NULL}'],
  ['public._hstore', '{"\\"a\\"=>\\"1\\"",NULL}'],
  ['public._big', '{9007199254740993}'],
  ['public.bytes', '\\x6869'],
]

const columnOf = (index: number): string => `c${index} ${samples[index]![0]}`

let database: TestDatabase
let node: TestNode

beforeAll(async () => {
  database = await TestDatabase.create()
  await prepareDatabase(
    database,
    `CREATE EXTENSION hstore SCHEMA public;
     CREATE TYPE mood AS ENUM ('sad', 'so, so'); CREATE DOMAIN big AS int8; CREATE DOMAIN price AS numeric(30, 4);
     CREATE DOMAIN bytes AS bytea; CREATE TYPE spot AS (far int8, word text);
     CREATE TYPE place AS (n int4, words text, numbers int8[], m mood, s spot, sure bool, at timestamp);
     CREATE TABLE types (${samples.map((_, i) => columnOf(i)).join(', ')}, blob bytea, "odd ""name""" int8, id int8 PRIMARY KEY);
     GRANT USAGE ON SCHEMA public TO authenticated; GRANT SELECT ON types TO authenticated`,
    ['public.types'],
  )
  node = await TestNode.start(database.url)
})

afterAll(async () => {
  await node[Symbol.asyncDispose]()
  await database[Symbol.asyncDispose]()
})

/** As Postgres has it: every digit, and nothing of JavaScript's in between. */
const sameAsPostgres = (data: string, member: 'record' | 'old_record', row: string) =>
  database.query<{ ours: string; theirs: string }>(
    `SELECT (($1::jsonb) -> $2)::text AS ours,
       (to_jsonb(r) || jsonb_build_object('blob', encode(r.blob, 'hex')))::text AS theirs
     FROM jsonb_populate_record(NULL::types, NULL) AS empty, LATERAL (SELECT (${row}).*) AS r`,
    [data, member],
  )

describe('values', () => {
  const most = Math.max(...samples.map(([, ...values]) => values.length))

  test.each(Array.from({ length: most + 1 }, (_, i) => i))('are as to_jsonb gives them, row %i', async round => {
    const id = String(9007199254740993n + BigInt(round))
    const bound = await Bound.to(node, principalOf('ana'), bindingOf({ table: 'types', filter: `id=eq.${id}` }))
    const values = samples.map(([, ...values]) => (round === most ? null : values[round % values.length]!))
    const names = samples.map((_, i) => `c${i}`)
    const places = samples.map((_, i) => `$${i + 1}`)
    const blob = round === 0 ? '\\x' : '\\x0102ff'
    await database.query(
      `INSERT INTO types (${names.join(', ')}, blob, "odd ""name""", id)
       VALUES (${places.join(', ')}, '${blob}', ${id}, ${id})`,
      values,
    )
    const [told] = (await bound.until(1)).told
    const [inserted] = await sameAsPostgres(told!, 'record', `SELECT t FROM types t WHERE id = ${id}`)
    expect(JSON.parse(inserted!.ours)).toEqual(JSON.parse(inserted!.theirs))
    expect(inserted!.ours).toBe(inserted!.theirs)
    await database.query(
      `CREATE TABLE before AS SELECT * FROM types WHERE id = ${id}; DELETE FROM types WHERE id = ${id}`,
    )
    const deleted = (await bound.until(2)).told[1]
    const [old] = await sameAsPostgres(deleted!, 'old_record', 'SELECT t::text::types FROM before t')
    expect(old!.ours).toBe(old!.theirs)
    await database.query('DROP TABLE before')
    expect(bound.changes.map(change => [change.type, 'record' in change, 'old_record' in change])).toEqual([
      ['INSERT', true, false],
      ['DELETE', false, true],
    ])
  })
})

test('columns are named by the catalog, in the order of the table, those shown alone, and the key among them', async () => {
  const bound = await Bound.to(node, principalOf('ana'), bindingOf({ table: 'types', select: ['blob', 'c3', 'c43'] }))
  await database.query(`INSERT INTO types (id, c3, blob) VALUES (1, 5, '\\x00')`)
  const [change] = (await bound.until(1)).changes
  const typnames = await database.query<{ name: string; type: string }>(
    `SELECT attname AS name, typname AS type FROM pg_attribute JOIN pg_type t ON t.oid = atttypid
     WHERE attrelid = 'types'::regclass AND attname IN ('blob', 'c3', 'c43', 'id') ORDER BY attnum`,
  )
  expect(change).toEqual({
    schema: 'public',
    table: 'types',
    commit_timestamp: expect.stringMatching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/),
    type: 'INSERT',
    columns: typnames,
    record: { c3: 5, c43: null, blob: '00', id: 1 },
    errors: null,
  })
  expect(typnames.map(({ type }) => type)).toContain('int8')
})

test('a composite type that gets another field is shown with it from then on', async () => {
  const place = `c${samples.findIndex(([type]) => type === 'public.spot')}`
  const bind = (id: number) =>
    Bound.to(node, principalOf('ana'), bindingOf({ table: 'types', filter: `id=eq.${id}`, select: [place] }))
  const fieldsOf = (bound: Bound) =>
    bound.subscription!.columns!.find(({ name }) => name === place)!.sqlType.fields?.map(({ name }) => name)
  expect(fieldsOf(await bind(2))).toEqual(['far', 'word'])
  await database.query('ALTER TYPE spot ADD ATTRIBUTE extra bool')
  const bound = await eventually(async () => {
    const bound = await bind(3)
    expect(fieldsOf(bound)).toEqual(['far', 'word', 'extra'])
    return bound
  })
  await database.query(`INSERT INTO types (id, ${place}) VALUES (3, '(9007199254740993,a,t)')`)
  const [told] = (await bound.until(1)).told
  expect(told).toContain(`"${place}":{"far":9007199254740993,"word":"a","extra":true}`)
})
