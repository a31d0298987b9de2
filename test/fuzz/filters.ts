// Filters as a tree, written once in PostgREST's grammar and once, by a way of its own, in SQL: what Tidegate takes must
// select what Postgres selects, at once and after every write.
import type pg from 'pg'
import { escapeIdentifier, escapeLiteral } from 'pg'
import type { Random } from '../checker/random.ts'
import { asSet, StrictRows } from '../support/node.ts'
import { mutateText, nasty } from './mutate.ts'
import type { Actor } from './run.ts'
import { FuzzSocket } from './socket.ts'
import { comesTrue, connect, rooms, rowsAs, secret } from './world.ts'

type Filter =
  | { readonly kind: 'group'; readonly op: 'and' | 'or'; readonly negated: boolean; readonly items: readonly Filter[] }
  | {
      readonly kind: 'condition'
      readonly column: string
      readonly not: number
      readonly operator: string
      readonly value: string | readonly string[]
    }

/** Values of each column, as they may be written. */
const values: Readonly<Record<string, readonly string[]>> = {
  id: ['0', '1', '7', '15', '-1', '+3', ' 5 ', '2147483647', '2147483648'],
  room_id: ['1', '2', '3'],
  i2: ['0', '-1', '32767', '-32768', '32768', '7'],
  i4: ['0', '-1', '2147483647', '-2147483648', '42', '042', '1e1'],
  i8: ['0', '9007199254740993', '9007199254740992', '-9223372036854775808', '9223372036854775807'],
  n: [
    '0',
    '-0',
    '1.0',
    '1.00',
    '1e3',
    '0.1',
    'NaN',
    'Infinity',
    '-Infinity',
    '9007199254740993.5',
    '1e400',
    '.5',
    '5.',
  ],
  f4: ['0', '-0', '0.1', '1.5', 'NaN', 'Infinity', '16777217', '1e39', '3.4028235e38', '1e-45'],
  f8: ['0', '-0', '0.1', '1e308', 'NaN', '-Infinity', '1e309', '5e-324', '9007199254740993'],
  b: ['t', 'f', 'true', 'off', 'yes', '1', 'o', ''],
  u: [
    '00000000-0000-0000-0000-000000000001',
    '{00000000-0000-0000-0000-00000000000A}',
    '0000000000000000000000000000000a',
  ],
  t: ['', 'a', 'b', 'A', 'a b', ' a', 'é', '😀', '\uffff', 'a,b', 'a"b', 'a\\b', '(x)', '{x}', 'null', '%', '_', 'a*'],
  v: ['', 'a', 'a ', 'b', '😀', 'ninechars'],
  c: ['a', 'a  ', 'abc', '', ' a'],
  d: ['2020-01-01', '0001-01-01 BC', 'infinity', '-infinity', '10000-01-01', '2020-02-30', '2020-1-1'],
  ts: ['2020-01-01 00:00:00', '2020-01-01T00:00:00.5', 'infinity', '2020-01-01 00:00:00+05', '0044-03-15 12:00:00 BC'],
  tz: [
    '2020-01-01 00:00:00+00',
    '2020-01-01T01:00:00+01:00',
    '2020-01-01 00:00:00',
    'infinity',
    '2020-01-01 00:00:00-15:59',
  ],
  by: ['\\x', '\\x00ff', '\\x00', '\\xZZ', 'a'],
  m: ['glad', 'sad', 'so so', 'angry'],
  ia: ['{}', '{1}', '{1,2}', '{NULL}', '{ 1 , 2 }', '{1,}', '{{1}}'],
  ta: ['{}', '{a}', '{"a b",NULL}', '{"NULL"}', '{"a\\"b"}'],
  jb: ['{}'],
}

const patterns = ['*', 'a*', '*a', '_', '__', '%a_%', 'a\\', 'a\\%', '\\_*', '*_a*', 'A*', '*😀*', '_*_', 'é', '']
const columns = Object.keys(values)
const orders = ['eq', 'eq', 'neq', 'lt', 'lte', 'gt', 'gte', 'isdistinct']

export function filterOf(random: Random, depth: number): Filter {
  if (depth > 0 && random.once(3)) {
    const items = Array.from({ length: 1 + random.below(4) }, () => filterOf(random, depth - 1))
    return { kind: 'group', op: random.pick(['and', 'or']), negated: random.once(4), items }
  }
  const column = random.pick(columns)
  const value = (): string => {
    const own = random.pick(values[column]!)
    return random.once(12) ? mutateText(random, own) : random.once(25) ? random.pick(nasty) : own
  }
  const condition = { kind: 'condition', column, not: random.once(4) ? 1 + random.below(2) : 0 } as const
  switch (random.below(8)) {
    case 0:
      return { ...condition, operator: 'in', value: Array.from({ length: random.below(5) }, value) }
    case 1:
      return { ...condition, operator: 'is', value: random.pick(['null', 'not_null', 'true', 'false', 'unknown']) }
    case 2: {
      const text = random.pick(['t', 't', 'v', 'c', column])
      const pattern = random.once(6) ? mutateText(random, random.pick(patterns)) : random.pick(patterns)
      return { ...condition, column: text, operator: random.pick(['like', 'ilike']), value: pattern }
    }
    default:
      return { ...condition, operator: random.pick(orders), value: value() }
  }
}

/** In double quotes, as a value inside a group or list may stand. */
const quoted = (text: string): string => `"${text.replace(/["\\]/g, '\\$&')}"`

function writtenCondition(filter: Extract<Filter, { kind: 'condition' }>, whole: boolean): string {
  const { operator, value } = filter
  const not = 'not.'.repeat(filter.not)
  if (typeof value !== 'string') return `${not}${operator}.(${value.map(quoted).join(',')})`
  return `${not}${operator}.${whole || operator === 'is' ? value : quoted(value)}`
}

function writtenItem(filter: Filter): string {
  if (filter.kind === 'condition') return `${filter.column}.${writtenCondition(filter, false)}`
  return `${filter.negated ? 'not.' : ''}${filter.op}(${filter.items.map(writtenItem).join(',')})`
}

/** As in a URL's query. */
export function conditionText(filter: Filter): string {
  if (filter.kind === 'condition') return `${filter.column}=${encodeText(writtenCondition(filter, true))}`
  const items = filter.items.map(writtenItem).join(',')
  return `${filter.negated ? 'not.' : ''}${filter.op}=${encodeText(`(${items})`)}`
}

/** Half a character has no UTF-8 and goes as it is. */
const encodeText = (text: string): string => (text.isWellFormed() ? encodeURIComponent(text) : text)

const sqlOperators: Readonly<Record<string, string>> = {
  eq: '=',
  neq: '<>',
  lt: '<',
  lte: '<=',
  gt: '>',
  gte: '>=',
  isdistinct: 'IS DISTINCT FROM',
}

function sqlOf(filter: Filter): string {
  if (filter.kind === 'group') {
    const items = filter.items.map(item => `(${sqlOf(item)})`).join(filter.op === 'and' ? ' AND ' : ' OR ')
    return filter.negated ? `NOT (${items})` : items
  }
  const column = escapeIdentifier(filter.column)
  const { operator, value } = filter
  // A bare literal: Postgres itself gives it the column's type.
  let sql: string
  if (typeof value !== 'string')
    sql = value.length === 0 ? 'false' : `${column} IN (${value.map(escapeLiteral).join(', ')})`
  else if (operator === 'is') sql = `${column} IS ${value === 'not_null' ? 'NOT NULL' : value.toUpperCase()}`
  else if (operator === 'like' || operator === 'ilike')
    sql = `${column} ${operator} ${escapeLiteral(value.replaceAll('*', '%'))}`
  else sql = `${column} ${sqlOperators[operator]} ${escapeLiteral(value)}`
  return filter.not % 2 === 1 ? `NOT (${sql})` : sql
}

const written = columns.filter(column => column !== 'id' && column !== 'room_id')

/** A value that Postgres takes, or NULL. */
const sample = (random: Random, taken: ReadonlyMap<string, readonly string[]>, column: string): string =>
  random.once(5) ? 'NULL' : escapeLiteral(random.pick(taken.get(column)!))

/** Of the values of each column, those that Postgres takes. */
async function valuesTaken(client: pg.Client): Promise<ReadonlyMap<string, readonly string[]>> {
  await client.query(`CREATE FUNCTION pg_temp.fits(value text, type text) RETURNS bool LANGUAGE plpgsql AS $$
    BEGIN EXECUTE format('SELECT %L::%s', value, type); RETURN true; EXCEPTION WHEN OTHERS THEN RETURN false; END $$`)
  const asked = written.flatMap(column => values[column]!.map(value => ({ column, value })))
  const { rows } = await client.query<{ column: string; value: string }>(
    `SELECT a."column", a.value FROM json_to_recordset($1) a("column" text, value text)
     JOIN pg_attribute t ON t.attrelid = 'public.things'::regclass AND t.attname = a."column"
     WHERE pg_temp.fits(a.value, format_type(t.atttypid, t.atttypmod))`,
    [JSON.stringify(asked)],
  )
  const taken = Map.groupBy(rows, ({ column }) => column)
  return new Map([...taken].map(([column, fits]) => [column, fits.map(({ value }) => value)]))
}

const perBatch = 10

/** Asks filters over one WebSocket, compares what they select with Postgres, writes, and compares again. */
export const filters: Actor = async (run, random) => {
  const client = await connect(run.database)
  try {
    const taken = await valuesTaken(client)
    const write = async (): Promise<void> => {
      const id = 1 + random.below(20)
      const room = random.pick([...rooms.own, ...rooms.own, rooms.foreign])
      const row = written.map(column => sample(random, taken, column))
      // What no reader here may see says so in its text.
      if (room === rooms.foreign) row[written.indexOf('t')] = `'${secret}'`
      const names = ['id', 'room_id', ...written.map(column => escapeIdentifier(column))]
      const cells = [String(id), String(room), ...row]
      const column = random.below(names.length - 1) + 1
      if (random.once(6)) await client.query(`DELETE FROM things WHERE id = ${id}`)
      else if (random.once(2) && names[column] !== 'room_id' && names[column] !== '"t"')
        await client.query(`UPDATE things SET ${names[column]} = ${cells[column]} WHERE id = ${id}`)
      else
        await client.query(
          `INSERT INTO things (${names.join(', ')}) VALUES (${cells.join(', ')})
           ON CONFLICT (id) DO UPDATE SET ${names
             .slice(1)
             .map(name => `${name} = EXCLUDED.${name}`)
             .join(', ')}`,
        )
    }
    for (let i = 0; i < 40; i++) await write()
    while (!run.isOver()) {
      const asked = Array.from({ length: perBatch }, () => ({ filter: filterOf(random, 3), rows: new StrictRows() }))
      const socket = await FuzzSocket.open(run, run.token)
      const byQuery = new Map<number, number[]>()
      const refused = new Set<number>()
      const failed = new Map<number, unknown>()
      socket.onFrame = frame => {
        if (frame.type === 'error') refused.add(frame.id as number)
        if (frame.type === 'subscribed')
          byQuery.set(frame.query as number, [...(byQuery.get(frame.query as number) ?? []), frame.id as number])
        const ids = frame.type === 'delta' ? (byQuery.get(frame.query as number) ?? []) : [frame.id as number]
        for (const id of ids) {
          try {
            asked[id]?.rows.take({ event: frame.type, data: frame })
          } catch (error) {
            failed.set(id, error)
          }
        }
      }
      for (const [id, { filter }] of asked.entries()) {
        run.oracle.count('filters')
        const text = conditionText(filter)
        socket.send(
          JSON.stringify({
            type: 'subscribe',
            id,
            kind: 'live',
            table: 'things',
            filter: text,
            select: ['id', 't', 'i4'],
          }),
        )
      }
      const isSettled = await comesTrue(
        () => socket.isClosed || asked.every(({ rows }, id) => rows.exact || refused.has(id)),
      )
      if (!isSettled || socket.isClosed) {
        run.oracle.fail(
          `filters were not answered; closed with ${socket.closeCode}`,
          asked.map(each => conditionText(each.filter)),
        )
        socket.terminate()
        continue
      }
      for (const moment of ['at once', 'after writes']) {
        for (const [id, { filter, rows }] of asked.entries()) {
          if (refused.has(id)) continue
          const sql = `SELECT id, t, i4 FROM things WHERE ${sqlOf(filter)}`
          const input = { filter: conditionText(filter), sql }
          const expected = await rowsAs(client, run.ada, sql).then(asSet, (error: Error) => {
            run.oracle.fail(`Postgres refuses what was accepted: ${error.message}`, input)
            return null
          })
          if (expected === null) continue
          run.oracle.count('filters compared')
          const isEqual = (): boolean => String(asSet(rows.list())) === String(expected)
          if (!(await comesTrue(() => isEqual() || refused.has(id) || failed.has(id), 5000)) || failed.has(id))
            run.oracle.fail(
              `${moment} a filter selects ${asSet(rows.list())} and Postgres ${expected}; ${String(failed.get(id) ?? '')}`,
              input,
            )
        }
        if (moment === 'at once') for (let i = 0; i < 12; i++) await write()
      }
      socket.terminate()
    }
  } finally {
    await client.end()
  }
}
