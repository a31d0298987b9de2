// Tables, rows and predicates to hold Tidegate's answers against Postgres's own.
import fc from 'fast-check'
import { DummyDriver, Kysely, PostgresAdapter, PostgresIntrospector, PostgresQueryCompiler } from 'kysely'
import type { CompareOp, Expr, Predicate, Row, SqlType } from '../../src/predicate/algebra.ts'
import { renderPredicate } from '../../src/predicate/render.ts'
import { sqlTypes } from '../../src/predicate/sql-types.ts'
import { pinnedSettings, type TextRow } from '../../src/server/postgres/database.ts'
import { rowOf } from '../support/plain-memberships.ts'
import type { TestDatabase } from '../support/postgres.ts'
import { callPredicates } from './call-samples.ts'

export type Column = Extract<Expr, { kind: 'column' }>

/** A kysely that compiles and never connects. */
export const compiler = new Kysely<unknown>({
  dialect: {
    createAdapter: () => new PostgresAdapter(),
    createDriver: () => new DummyDriver(),
    createIntrospector: db => new PostgresIntrospector(db),
    createQueryCompiler: () => new PostgresQueryCompiler(),
  },
})

const texts = [
  '',
  'a',
  'A',
  'ab',
  'aB',
  'a b',
  'a ',
  ' a',
  'abc',
  'a%',
  'a_b',
  'a\\b',
  '%',
  '_',
  '\\',
  'ä',
  'Ä',
  'é',
  'e\u0301',
]
const oddTexts = [
  ...texts,
  '😀',
  '😀a',
  'a😀b',
  '\uffee',
  '\u{10ffff}',
  'İ',
  'ß',
  'NULL',
  '"q"',
  '{x,y}',
  "it's",
  'z\tz',
]

/** Values worth meeting, by column of the sample table. */
const pools: Readonly<Record<string, readonly string[]>> = {
  int2: ['0', '1', '-1', '5', '32767', '-32768'],
  int4: ['0', '1', '-1', '5', '42', '16777217', '2147483647', '-2147483648'],
  int8: ['0', '1', '-1', '5', '42', '16777217', '9007199254740993', '9007199254740992', '9223372036854775807'],
  numeric: [
    '0',
    '0.00',
    '1',
    '1.0',
    '1.00',
    '-1.50',
    '5',
    '42',
    '42.000',
    '0.1',
    '1e20',
    '9007199254740993',
    'NaN',
    'Infinity',
    '-Infinity',
    '123456789012345678901234567890.5',
  ],
  float4: ['0', '-0', '1', '0.1', '1.5', '5', '42', '16777216', 'NaN', 'Infinity', '-Infinity', '3.4e38', '1e-40'],
  float8: [
    '0',
    '-0',
    '1',
    '0.1',
    '0.10000000149011612',
    '1.5',
    '5',
    '42',
    '9007199254740992',
    '1e20',
    'NaN',
    'Infinity',
    '-Infinity',
    '1e300',
  ],
  text: oddTexts,
  varchar: oddTexts,
  bpchar: ['', 'a', 'A', 'ab', 'abc', 'a b', 'ä', '😀', 'a%', '\\'],
  name: ['', 'a', 'A', 'ab', 'ä', '😀'],
  uuid: [
    '00000000-0000-0000-0000-000000000000',
    'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
    'ffffffff-ffff-ffff-ffff-ffffffffffff',
  ],
  bool: ['t', 'f'],
  date: ['2020-01-01', '1999-12-31', '0044-03-15 BC', '10000-01-01', 'infinity', '-infinity', '2020-02-29'],
  time: ['00:00:00', '23:59:59.999999', '12:00:00', '12:00:00.5', '12:00:00.45'],
  timestamp: [
    '2020-01-01 00:00:00',
    '2020-01-01 00:00:00.5',
    '2020-01-01 00:00:00.55',
    '0044-03-15 12:00:00 BC',
    '0045-03-15 12:00:00 BC',
    '12345-06-07 08:09:10.1',
    'infinity',
    '-infinity',
  ],
  timestamptz: [
    '2020-01-01 00:00:00+00',
    '2020-01-01 01:00:00.5+01',
    '2020-01-01 00:00:00.000001+00',
    '0044-03-15 12:00:00+00 BC',
    '12345-06-07 08:09:10+00',
    'infinity',
    '-infinity',
  ],
  mood: ['sad', 'ok', 'Happy', 'very "odd"'],
  bytea: ['\\x', '\\x00', '\\x00ff', '\\xff', '\\x0a'],
  texts: [
    '{}',
    '{a}',
    '{a,b}',
    '{a,NULL}',
    '{NULL}',
    '{"a b","c,d",""}',
    '{"\\\\","\\""}',
    '{{a,b},{c,d}}',
    '[0:1]={a,b}',
    '{😀,ä}',
  ],
  ints: ['{}', '{1}', '{1,2}', '{NULL,5}', '{42,1,1}'],
}

/** A table with a column of every type, its rows as Postgres printed them, and a table of members to join. */
export interface Sample {
  readonly database: TestDatabase
  readonly columns: readonly Column[]
  readonly rows: readonly { readonly id: string; readonly row: Row }[]
  readonly members: { readonly columns: readonly Column[]; readonly rows: readonly Row[]; readonly oid: number }
  readonly ordersText: boolean
}

export async function createSample(
  database: TestDatabase,
  options: { seed: number; rows: number; collation: 'c' | 'deterministic' },
): Promise<Sample> {
  for (const [name, value] of Object.entries(pinnedSettings))
    await database.query('SELECT set_config($1, $2, false)', [name, value])
  await database.query(`CREATE TYPE mood AS ENUM ('sad', 'ok', 'Happy', 'very "odd"')`)
  const [mood] = await database.query<{ oid: number }>(`SELECT oid FROM pg_type WHERE typname = 'mood'`)
  const { collation } = options
  const text: SqlType = { ...sqlTypes.text, collation }
  const types: Record<string, SqlType> = {
    ...sqlTypes,
    text,
    varchar: { ...sqlTypes.varchar, collation },
    bpchar: { ...sqlTypes.bpchar, name: 'character(5)', collation },
    name: { ...sqlTypes.name, collation: 'c' },
    mood: { oid: Number(mood!.oid), name: 'public.mood', family: 'enum', labels: pools.mood! },
    texts: { oid: 1009, name: 'text[]', family: 'array', element: text },
    ints: { oid: 1007, name: 'integer[]', family: 'array', element: sqlTypes.int4 },
  }
  const names = Object.keys(pools)
  const columns = names.map(
    (name, column): Column => ({ kind: 'column', column, name: `c_${name}`, type: types[name]! }),
  )
  await database.query(
    `CREATE TABLE sample (${columns.map(({ name, type }) => `${name} ${type.name}`).join(', ')}, id serial PRIMARY KEY)`,
  )
  const someValue = (name: string): fc.Arbitrary<string | null> =>
    fc.option(fc.constantFrom(...pools[name]!), { freq: 6 })
  const insert = async (
    table: string,
    pool: readonly string[],
    types: readonly string[],
    count: number,
  ): Promise<void> => {
    const rows = fc.sample(fc.tuple(...pool.map(someValue)), { numRuns: count, seed: options.seed })
    for (const row of rows)
      await database.query(
        `INSERT INTO ${table} VALUES (${types.map((type, i) => `$${i + 1}::${type}`).join(', ')})`,
        row,
      )
  }
  await insert(
    'sample',
    names,
    columns.map(({ type }) => type.name),
    options.rows,
  )

  const memberNames = ['int8', 'numeric', 'uuid', 'bpchar', 'text', 'bool', 'float8']
  const memberColumns = memberNames.map(
    (name, column): Column => ({ kind: 'column', column, name: `m_${name}`, type: types[name]! }),
  )
  await database.query(
    `CREATE TABLE members (${memberColumns.map(({ name, type }) => `${name} ${type.name}`).join(', ')})`,
  )
  await insert(
    'members',
    memberNames,
    memberColumns.map(({ type }) => type.name),
    12,
  )
  const [members] = await database.query<{ oid: number }>(`SELECT 'members'::regclass::oid AS oid`)

  const rows = await selectText(database, 'SELECT * FROM sample ORDER BY id')
  const memberRows = await selectText(database, 'SELECT * FROM members')
  return {
    database,
    columns,
    rows: rows.map(values => ({ id: values.at(-1)!, row: rowOf(values) })),
    members: { columns: memberColumns, rows: memberRows.map(rowOf), oid: Number(members!.oid) },
    ordersText: collation === 'c',
  }
}

/** Rows with every value as text, as the WAL would carry it. */
export async function selectText(
  database: TestDatabase,
  text: string,
  values: readonly unknown[] = [],
): Promise<TextRow[]> {
  const types = { getTypeParser: () => (value: string) => value } as never
  const result = await database.client.query<TextRow>({ text, values: [...values], rowMode: 'array', types })
  return result.rows
}

/** Postgres's answers to a predicate, row by row. */
export async function askPostgres(sample: Sample, predicate: Predicate): Promise<(boolean | null)[]> {
  const query = renderPredicate(predicate, { alias: 'r' }).compile(compiler)
  const sql = `SELECT (${query.sql}) FROM sample AS r ORDER BY id`
  const rows = await selectText(sample.database, sql, query.parameters)
  return rows.map(([answer]) => (answer === null ? null : answer === 't'))
}

/** Values of a column of the sample table. */
export const poolOf = (column: Column): readonly string[] => pools[column.name.replace(/^[cm]_/, '')]!

/** Nested arrays and bounds are read from rows, not from constants. */
const isFlat = (text: string): boolean => !/^(\{\{|\[)/.test(text)

const numbers = new Set(['int', 'numeric', 'float'])
const textual = new Set(['text', 'bpchar'])

const constOf = (column: Column): fc.Arbitrary<Expr> =>
  fc
    .option(fc.constantFrom(...poolOf(column).filter(isFlat)), { freq: 8 })
    .map(value => ({ kind: 'const', value, type: column.type }))

/** Operands that compare with a column as Postgres's operators allow: itself, columns and constants of its kin. */
function kinOf(columns: readonly Column[], column: Column): readonly Column[] {
  const { family, oid } = column.type
  if (numbers.has(family)) return columns.filter(({ type }) => numbers.has(type.family))
  if (textual.has(family)) {
    const hasName = oid === sqlTypes.name.oid
    return columns.filter(({ type }) => textual.has(type.family) && (type.oid === sqlTypes.name.oid) === hasName)
  }
  return [column]
}

/** The column, or something that has its type without being it. */
function wrapped(column: Column): fc.Arbitrary<Expr> {
  const { type } = column
  const plain = fc.constant<Expr>(column)
  if (type.family === 'array' || type.oid === sqlTypes.bpchar.oid) return plain
  return fc.oneof(
    { weight: 6, arbitrary: plain },
    { weight: 1, arbitrary: constOf(column).map((other): Expr => ({ kind: 'coalesce', args: [column, other], type })) },
    { weight: 1, arbitrary: constOf(column).map((right): Expr => ({ kind: 'nullif', left: column, right, type })) },
  )
}

/** Predicates over the sample table that can be judged exactly. */
export function predicates(sample: Sample, options: { maxDepth?: number } = {}): fc.Arbitrary<Predicate> {
  const { columns } = sample
  const anyColumn = fc.constantFrom(...columns)
  const ofFamily = (...families: string[]) =>
    fc.constantFrom(...columns.filter(({ type }) => families.includes(type.family)))

  const compare = anyColumn.chain(column => {
    const isTextual = textual.has(column.type.family)
    const ordered = column.type.family !== 'array' && (!isTextual || sample.ordersText)
    const ops: CompareOp[] = ordered ? ['=', '<>', '<', '<=', '>', '>='] : ['=', '<>']
    return fc
      .tuple(
        fc.constantFrom(...ops),
        wrapped(column),
        fc.constantFrom(...kinOf(columns, column)),
        fc.boolean(),
        fc.nat(3),
      )
      .chain(([op, left, other, swap, form]) => {
        const right = form === 0 ? wrapped(other) : constOf(other)
        return right.map(
          (right): Predicate => ({ kind: 'compare', op, left: swap ? right : left, right: swap ? left : right }),
        )
      })
  })
  const distinct = anyColumn.chain(column =>
    fc
      .constantFrom(...kinOf(columns, column))
      .chain(other =>
        fc
          .oneof(fc.constant<Expr>(other), constOf(other))
          .map((right): Predicate => ({ kind: 'isDistinct', left: column, right })),
      ),
  )
  const inList = anyColumn.chain(column =>
    fc
      .constantFrom(...kinOf(columns, column))
      .chain(other =>
        fc.array(constOf(other), { maxLength: 4 }).map((items): Predicate => ({ kind: 'in', left: column, items })),
      ),
  )
  const any = fc.constantFrom(...columns.filter(({ type }) => type.family === 'array')).chain(array => {
    const left = columns.find(({ type }) => type.oid === array.type.element!.oid)!
    return fc
      .tuple(fc.oneof(fc.constant<Expr>(left), constOf(left)), fc.oneof(fc.constant<Expr>(array), constOf(array)))
      .map(([left, array]): Predicate => ({ kind: 'any', left, array }))
  })
  const patterns = fc
    .array(fc.constantFrom('%', '_', 'a', 'A', 'b', 'ä', '😀', '\\\\', '\\%', '\\_', '\\a', ' '), { maxLength: 5 })
    .map(parts => parts.join(''))
  const like = fc.tuple(ofFamily('text', 'bpchar'), patterns, fc.boolean()).map(
    ([arg, value, insensitive]): Predicate => ({
      kind: 'like',
      arg,
      pattern: { kind: 'const', value, type: sqlTypes.text },
      insensitive: insensitive && arg.type.collation === 'c',
    }),
  )
  const isNull = anyColumn.chain(wrapped).map((arg): Predicate => ({ kind: 'isNull', arg }))
  const boolean = ofFamily('bool')
    .chain(wrapped)
    .map((arg): Predicate => ({ kind: 'boolean', arg }))
  const toText = ofFamily('int', 'numeric', 'uuid', 'bool', 'enum').chain(column =>
    fc.constantFrom(...poolOf(column), 'true', 'false').map(
      (value): Predicate => ({
        kind: 'compare',
        op: '=',
        left: { kind: 'cast', arg: column, type: sqlTypes.text },
        right: { kind: 'const', value, type: sqlTypes.text },
      }),
    ),
  )
  const constant = fc.constantFrom<Predicate>({ kind: 'true' }, { kind: 'false' }, { kind: 'unknown' })

  return fc.letrec<{ predicate: Predicate; semiJoin: Predicate }>(tie => ({
    semiJoin: semiJoins(sample),
    predicate: fc.oneof(
      { maxDepth: options.maxDepth ?? 3, depthIdentifier: 'predicate' },
      { weight: 8, arbitrary: compare },
      { weight: 2, arbitrary: distinct },
      { weight: 3, arbitrary: inList },
      { weight: 2, arbitrary: any },
      { weight: 4, arbitrary: like },
      { weight: 2, arbitrary: isNull },
      { weight: 1, arbitrary: boolean },
      { weight: 1, arbitrary: toText },
      { weight: 1, arbitrary: constant },
      { weight: 4, arbitrary: callPredicates(columns) },
      { weight: 3, arbitrary: tie('semiJoin') },
      {
        weight: 3,
        arbitrary: fc.array(tie('predicate'), { maxLength: 3 }).map((args): Predicate => ({ kind: 'and', args })),
      },
      {
        weight: 3,
        arbitrary: fc.array(tie('predicate'), { maxLength: 3 }).map((args): Predicate => ({ kind: 'or', args })),
      },
      { weight: 3, arbitrary: tie('predicate').map((arg): Predicate => ({ kind: 'not', arg })) },
      {
        weight: 1,
        arbitrary: tie('predicate').map(
          (predicate): Predicate => ({
            kind: 'isNull',
            arg: { kind: 'predicate', predicate, type: sqlTypes.bool },
          }),
        ),
      },
    ),
  })).predicate
}

function semiJoins(sample: Sample): fc.Arbitrary<Predicate> {
  const { members, columns } = sample
  const pair = fc.constantFrom(...members.columns).chain(inner => {
    const kin = kinOf([...columns], { ...inner, name: `c_${inner.name.slice(2)}` }).filter(
      ({ name }) => name !== 'c_name',
    )
    const outers = kin.map(column => columns.find(({ name }) => name === column.name)!)
    return fc.constantFrom(...outers).map(outer => ({ inner, outer: outer as Expr }))
  })
  const where = fc.oneof(
    fc.constant<Predicate>({ kind: 'true' }),
    fc.constant<Predicate>({ kind: 'false' }),
    fc.constant<Predicate>({ kind: 'boolean', arg: members.columns.find(({ name }) => name === 'm_bool')! }),
    fc.constantFrom(...members.columns).map((arg): Predicate => ({ kind: 'not', arg: { kind: 'isNull', arg } })),
    fc
      .constantFrom(...members.columns)
      .chain(left => constOf(left).map((right): Predicate => ({ kind: 'compare', op: '=', left, right }))),
  )
  const table = { oid: members.oid, schema: 'public', name: 'members' }
  const exists = fc
    .tuple(fc.array(pair, { maxLength: 2 }), where)
    .map(([keys, where]): Predicate => ({ kind: 'semiJoin', table, keys, where, nullAware: false }))
  const inSelect = fc
    .tuple(pair, where)
    .map(([key, where]): Predicate => ({ kind: 'semiJoin', table, keys: [key], where, nullAware: true }))
  return fc.oneof(exists, inSelect)
}
