import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { SqlType } from '../../../../src/predicate/algebra.ts'
import { sqlTypes } from '../../../../src/predicate/sql-types.ts'
import { subscribeFrameOf } from '../../../../src/server/deliver/phoenix/bindings.ts'
import { changeDataOf, reactionTo } from '../../../../src/server/deliver/phoenix/change-data.ts'
import { tablesOf } from '../../../../src/server/deliver/phoenix/tables.ts'
import { Outgoing } from '../../../../src/server/route/outgoing.ts'
import { bindingOf } from './support/bound.ts'

const events = ['*', 'INSERT', 'UPDATE', 'DELETE'] as const
const insertOf = (existed: boolean | null) => new Outgoing('change', '{"op":"insert"}', null, null, existed)

describe('what becomes of an event', () => {
  test.each([
    ['an insert of a new row', insertOf(false), ['send', 'send', 'pass', 'send']],
    ['an insert of a row that was there', insertOf(true), ['send', 'send', 'send', 'send']],
    ['an insert of which that is not known', insertOf(null), ['send', 'send', 'send', 'send']],
    ['an update', new Outgoing('change', '{"op":"update"}', null), ['send', 'send', 'send', 'send']],
    ['a truncate', new Outgoing('change', '{"op":"truncate"}', null), ['reread', 'pass', 'pass', 'reread']],
  ] as const)('%s', (_, outgoing, reactions) => {
    expect(events.map(event => reactionTo(outgoing, event))).toEqual(reactions)
  })
})

const name = fc.oneof(
  fc.string({ unit: 'binary', minLength: 1, maxLength: 6 }),
  fc.constantFrom('id', 'new', 'old', ',"old":', '"', '\\', '__proto__', ',"committedAt":"', 'a\u2028b'),
)
const value = fc.oneof(fc.jsonValue({ maxDepth: 2 }), fc.constantFrom('"}', '\\"', '{"a":[', ',"new":{', ']'))
const types: readonly SqlType[] = [
  sqlTypes.int4,
  sqlTypes.int8,
  sqlTypes.text,
  { oid: 17, name: 'bytea', family: 'bytea' },
  { oid: 1016, name: 'bigint[]', family: 'array', element: sqlTypes.int8 },
]

/** As Postgres's text, and as our JSON has it. */
const cellOf = (type: SqlType): fc.Arbitrary<{ ours: string; theirs: string }> => {
  if (type === sqlTypes.int8)
    return fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n }).map(n => ({
      ours: BigInt(Number(n)) === n ? String(n) : `"${n}"`,
      theirs: String(n),
    }))
  if (type.oid === 1016)
    return fc.array(fc.constantFrom('"9007199254740993"', '5', 'null')).map(items => ({
      ours: `[${items.join(',')}]`,
      theirs: `[${items.join(',').replaceAll('"', '')}]`,
    }))
  if (type.oid === 17) return fc.constantFrom('', '00ff').map(hex => ({ ours: `"\\\\x${hex}"`, theirs: `"${hex}"` }))
  if (type === sqlTypes.int4) return fc.integer().map(n => ({ ours: String(n), theirs: String(n) }))
  return value.map(json => ({ ours: JSON.stringify(json), theirs: JSON.stringify(json) }))
}

test('the texts of a change are cut where its members end, and only what differs is written anew', () => {
  const column = fc
    .tuple(name, fc.constantFrom(...types))
    .chain(([name, type]) =>
      fc.tuple(cellOf(type), cellOf(type)).map(([after, before]) => ({ name, type, after, before })),
    )
  const change = fc.record({
    op: fc.constantFrom('insert', 'update', 'delete'),
    schema: name,
    table: name,
    columns: fc.uniqueArray(column, { minLength: 1, maxLength: 4, selector: ({ name }) => name }),
  })
  fc.assert(
    fc.property(change, ({ op, schema, table, columns }) => {
      const objectOf = (side: 'after' | 'before', which: 'ours' | 'theirs', of = columns): string =>
        `{${of.map(each => `${JSON.stringify(each.name)}:${each[side][which]}`).join(',')}}`
      const side = op === 'delete' ? 'before' : 'after'
      const key = columns.slice(0, 1)
      let json = `{"op":"${op}","schema":${JSON.stringify(schema)},"table":${JSON.stringify(table)}`
      json += `,"key":${objectOf(side, 'ours', key)}`
      if (op !== 'delete') json += `,"new":${objectOf('after', 'ours')}`
      if (op !== 'insert') json += `,"old":${objectOf('before', 'ours')}`
      json += ',"committedAt":"2026-01-31T12:00:00.123456Z"}'
      const shown = columns.map(({ name, type }) => ({ name, type: type.name, sqlType: type }))
      const told = (event: (typeof events)[number]) => changeDataOf(new Outgoing('change', json, null), shown, event)
      let expected = `{"schema":${JSON.stringify(schema)},"table":${JSON.stringify(table)}`
      expected += `,"commit_timestamp":"2026-01-31T12:00:00.123Z","type":"${op.toUpperCase()}"`
      expected += `,"columns":${JSON.stringify(shown.map(({ name, type }) => ({ name, type })))}`
      if (op !== 'delete') expected += `,"record":${objectOf('after', 'theirs')}`
      if (op !== 'insert') expected += `,"old_record":${objectOf('before', 'theirs')}`
      expect(told('*')).toBe(`${expected},"errors":null}`)
      // Into view by an UPDATE: nothing of what it was.
      if (op === 'insert')
        expect(told('UPDATE')).toBe(
          `${expected.replace('"type":"INSERT","columns"', '"type":"UPDATE","columns"')},"old_record":${objectOf('after', 'theirs', key)},"errors":null}`,
        )
    }),
    { numRuns: 2000 },
  )
})

test('a binding means the table it names, or those there are', () => {
  const all = [
    { schema: 'sales', table: 'orders' },
    { schema: 'public', table: 'b' },
    { schema: 'public', table: 'a' },
    { schema: 'other', table: 'a' },
  ]
  const names = (schema: string, table: string) =>
    tablesOf({ schema, table }, all).map(each => `${each.schema}.${each.table}`)
  expect(names('*', '*')).toEqual(['other.a', 'public.a', 'public.b', 'sales.orders'])
  expect(names('public', '*')).toEqual(['public.a', 'public.b'])
  expect(names('*', 'a')).toEqual(['other.a', 'public.a'])
  expect(names('public', 'gone')).toEqual(['public.gone'])
})

test('a binding becomes a frame of ours, its names in quotes', () => {
  const table = { schema: 'odd "one"', table: 'a.b' }
  expect(
    subscribeFrameOf(bindingOf({ ...table, event: 'UPDATE', filter: 'id=eq.1', select: ['x'] }), table, 7),
  ).toEqual({
    type: 'subscribe',
    id: 7,
    kind: 'changes',
    table: '"odd ""one"""."a.b"',
    filter: 'c.id=eq.1',
    select: ['x'],
    events: ['insert', 'update'],
  })
  expect(
    subscribeFrameOf(bindingOf({ table: 'a', filter: ' ', select: [] }), { schema: 'public', table: 'a' }, 2),
  ).toEqual({
    type: 'subscribe',
    id: 2,
    kind: 'changes',
    table: '"public"."a"',
  })
})
