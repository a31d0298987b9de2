// A window beside a model that holds every row: after each commit, what readers hold by what they were told are the first rows.
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { alwaysTrue, type Row } from '../../../src/predicate/algebra.ts'
import { sqlTypes } from '../../../src/predicate/sql-types.ts'
import type { JsonRow, RowChange } from '../../../src/protocol/messages.ts'
import type { Table } from '../../../src/server/catalog/table.ts'
import type { Ordering } from '../../../src/server/route/ordering.ts'
import type { Outcome } from '../../../src/server/route/outcome.ts'
import type { Query } from '../../../src/server/route/query.ts'
import { setOf } from '../../../src/server/route/row-json.ts'
import { stayingAmong } from '../../../src/server/route/staying.ts'
import { Window, type WindowRow } from '../../../src/server/route/window.ts'
import { QueryRow } from '../../../src/server/snapshot/query-row.ts'

const table: Table = {
  oid: 1,
  schema: 'public',
  name: 'notes',
  columns: [
    { name: 'id', type: sqlTypes.int4, notNull: true },
    { name: 'rank', type: sqlTypes.int4, notNull: false },
    { name: 'word', type: { ...sqlTypes.text, collation: 'deterministic' }, notNull: false },
  ],
  primaryKey: [0],
  identity: new Set([0, 1, 2]),
  replicaIdentity: 'full',
  partitioned: false,
  rowSecurity: false,
  forceRowSecurity: false,
  published: true,
  readThrough: 'table',
}

const queryOf = (ordering: Ordering): Query => ({
  number: 1,
  text: '',
  kind: 'live',
  table,
  filter: alwaysTrue,
  columns: [0, 1, 2],
  events: null,
  ordering,
})

const byRank = (direction: 'asc' | 'desc', nulls: 'first' | 'last', limit: number): Ordering => ({
  limit,
  columns: [
    { column: 1, direction, nulls, compare: 'number', byCodePoints: false },
    { column: 0, direction: 'asc', nulls: 'last', compare: 'number', byCodePoints: false },
  ],
})

type Values = readonly [id: string, rank: string | null, word: string | null]

const rowOf = (values: Values): Row => new QueryRow(values)

/** One commit: what becomes of rows, by id; null: it goes. */
interface Step {
  readonly truncated: boolean
  readonly rows: ReadonlyMap<string, Values | null>
}

const idText = fc.integer({ min: 1, max: 40 }).map(String)
const step: fc.Arbitrary<Step> = fc.record({
  truncated: fc.integer({ min: 0, max: 40 }).map(dice => dice === 0),
  rows: fc
    .array(
      fc.tuple(
        idText,
        fc.option(
          fc.tuple(fc.option(fc.integer({ min: 0, max: 9 }).map(String), { freq: 6 }), fc.constantFrom('a', 'b', null)),
          { freq: 1 },
        ),
      ),
      { minLength: 1, maxLength: 6 },
    )
    .map(
      changes => new Map(changes.map(([id, rest]) => [id, rest === null ? null : ([id, ...rest] as const)] as const)),
    ),
})

/** All rows, and what a commit is for who sees all. */
class Model {
  readonly rows = new Map<string, Values>()
  readonly #order: Window['order']

  constructor(order: Window['order']) {
    this.#order = order
  }

  commit({ truncated, rows }: Step): Outcome[] {
    const before = new Map(truncated ? [] : this.rows)
    if (truncated) this.rows.clear()
    const outcomes: Outcome[] = []
    for (const [id, values] of rows) {
      const old = before.get(id)
      if (values === null) this.rows.delete(id)
      else this.rows.set(id, values)
      if (old === undefined && values === null) continue
      const op = old === undefined ? 'insert' : values === null ? 'delete' : 'update'
      const ends = { old: old === undefined ? null : rowOf(old), new: values === null ? null : rowOf(values) }
      outcomes.push({ op, row: { key: id, ...ends, lastIndex: 0, carried: false } })
    }
    return outcomes
  }

  sorted(): WindowRow[] {
    const rows = [...this.rows.values()].map(values => ({
      key: values[0],
      values: this.#order.valuesOf(rowOf(values))!,
      json: JSON.stringify({
        id: Number(values[0]),
        rank: values[1] === null ? null : Number(values[1]),
        word: values[2],
      }),
    }))
    return rows.sort((a, b) => this.#order.compare(a.values, b.values, new Map()))
  }

  first(count: number): JsonRow[] {
    return this.sorted()
      .slice(0, count)
      .map(({ json }) => JSON.parse(json) as JsonRow)
  }
}

/** As docs/protocol.md tells a client to do it. */
function applied(rows: readonly JsonRow[], texts: readonly string[]): JsonRow[] {
  const changes = texts.map(text => JSON.parse(text) as RowChange)
  let held = rows.map(row => ({ ...row }))
  const put: { row: JsonRow; after: JsonRow | null }[] = []
  for (const change of changes) {
    if (change.op === 'truncate') {
      held = []
      continue
    }
    const at = held.findIndex(({ id }) => id === change.key.id)
    expect(at >= 0, `${change.op} ${change.key.id}`).toBe(change.op !== 'insert')
    if (change.op === 'delete') held.splice(at, 1)
    else if (change.op === 'insert') put.push({ row: change.row, after: change.after! })
    else {
      const row = { ...held[at]!, ...change.set }
      expect(Object.keys(change.set).length > 0 || change.after !== undefined).toBe(true)
      if (change.after === undefined) held[at] = row
      else {
        held.splice(at, 1)
        put.push({ row, after: change.after })
      }
    }
  }
  for (const { row, after } of put) {
    const at = after === null ? 0 : held.findIndex(({ id }) => id === after.id) + 1
    expect(at > 0 || after === null).toBe(true)
    held.splice(at, 0, row)
  }
  return held
}

test.each([
  ['asc', 'last'],
  ['asc', 'first'],
  ['desc', 'first'],
  ['desc', 'last'],
] as const)(
  '[P1] %s, nulls %s: the rows told are the first rows after each commit, and from each position',
  (direction, nulls) => {
    let [dry, taken] = [0, 0]
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 8 }), fc.array(step, { minLength: 5, maxLength: 40 }), (limit, steps) => {
        const sizes = { chars: 0 }
        const window = new Window(queryOf(byRank(direction, nulls, limit)), limit, sizes)
        const model = new Model(window.order)
        let held: JsonRow[] = []
        const before: { lsn: bigint; rows: JsonRow[] }[] = []
        const load = (lsn: bigint): readonly string[] => {
          const rows = model.sorted()
          const read = rows.slice(0, limit)
          return window.load(
            { rows: read, bound: read.length < rows.length ? read.at(-1)!.values : null, ranks: new Map() },
            lsn,
          )
        }
        for (let id = 1; id <= 40; id += 2) model.rows.set(`${id}`, [`${id}`, `${id % 7}`, 'a'])
        load(1n)
        held = model.first(limit)
        steps.forEach((each, i) => {
          const lsn = BigInt(i + 2)
          let changes = window.apply(each.truncated, model.commit(each), lsn)
          if (changes === null) {
            dry += 1
            window.interrupt(lsn - 1n)
            changes = load(lsn)
          } else taken += 1
          held = applied(held, changes)
          expect(held).toEqual(model.first(limit))
          expect(window.rows.map(({ json }) => JSON.parse(json))).toEqual(held)
          for (const { lsn, rows } of before) expect(applied(rows, window.since(lsn))).toEqual(held)
          before.push({ lsn, rows: held })
        })
        window.close()
        expect(sizes.chars).toBe(0)
      }),
      { numRuns: 150 },
    )
    expect(dry).toBeGreaterThan(10)
    expect(taken).toBeGreaterThan(dry)
  },
)

test('a reader who stands farther back than is remembered is told all rows, in one delta', () => {
  const window = new Window(queryOf(byRank('asc', 'last', 2)), 2, { chars: 0 })
  const model = new Model(window.order)
  window.load({ rows: [], bound: null, ranks: new Map() }, 1n)
  for (let i = 0; i < 100; i++)
    window.apply(
      false,
      model.commit({ truncated: false, rows: new Map([['1', ['1', String(i), 'a']]]) }),
      BigInt(i + 2),
    )
  expect(window.remembers(1n)).toBe(false)
  expect(window.remembers(100n)).toBe(true)
  expect(applied([{ id: 7, rank: 1, word: null }], window.since(1n))).toEqual(model.first(2))
  expect(window.since(101n)).toEqual([])
})

test('[P7] a commit of very many rows is left to a reading', () => {
  const take = (count: number): readonly string[] | null => {
    const window = new Window(queryOf(byRank('asc', 'last', 3)), 3, { chars: 0 })
    window.load({ rows: [], bound: null, ranks: new Map() }, 1n)
    const ids = Array.from({ length: count }, (_, i) => `${i + 1}`)
    const rows = new Map(ids.map(id => [id, [id, id, 'a'] as const]))
    return window.apply(false, new Model(window.order).commit({ truncated: false, rows }), 2n)
  }
  expect(take(2000)).toHaveLength(3)
  expect(take(2001)).toBe(null)
})

test('between the position where it was interrupted and the one where it is true again, nothing is known', () => {
  const window = new Window(queryOf(byRank('asc', 'last', 2)), 2, { chars: 0 })
  window.load({ rows: [], bound: null, ranks: new Map() }, 10n)
  window.interrupt(20n)
  expect(window.isLoaded).toBe(false)
  window.load({ rows: [], bound: null, ranks: new Map() }, 30n)
  expect([9n, 10n, 20n, 21n, 29n, 30n, 99n].map(lsn => window.remembers(lsn))).toEqual([
    false,
    true,
    true,
    false,
    false,
    true,
    true,
  ])
})

test('[P1] a value that only the database can order, or one that the WAL left out, is left to a reading', () => {
  const ordering: Ordering = {
    limit: 2,
    columns: [
      { column: 2, direction: 'asc', nulls: 'last', compare: 'server', byCodePoints: false },
      { column: 0, direction: 'asc', nulls: 'last', compare: 'number', byCodePoints: false },
    ],
  }
  const begin = (): { window: Window; model: Model } => {
    const window = new Window(queryOf(ordering), 2, { chars: 0 })
    const row = (id: string, word: string): WindowRow => ({
      key: id,
      values: [word, id],
      json: `{"id":${id},"word":"${word}"}`,
    })
    const ranks = new Map([
      [
        0,
        new Map([
          ['ä', 1],
          ['b', 2],
        ]),
      ],
    ])
    window.load({ rows: [row('1', 'ä'), row('2', 'b')], bound: ['b', '2'], ranks }, 1n)
    const model = new Model(window.order)
    model.rows.set('1', ['1', null, 'ä']).set('2', ['2', null, 'b'])
    return { window, model }
  }
  const take = (values: Values): readonly string[] | null => {
    const { window, model } = begin()
    return window.apply(false, model.commit({ truncated: false, rows: new Map([[values[0], values]]) }), 2n)
  }
  expect(take(['3', null, 'c'])).toBe(null)
  expect(take(['3', null, 'ä'])).toHaveLength(2)
  expect(take(['3', null, 'b'])).toEqual([])
  expect(take(['3', null, null])).toEqual([])
  expect(take(['2', '7', 'b'])).toEqual(['{"op":"update","key":{"id":2},"set":{"rank":7,"word":"b"}}'])
  const { window } = begin()
  const partial: Row = { text: column => (column === 1 ? undefined : column === 0 ? '3' : 'ä') }
  const row = { key: '3', old: null, new: partial, lastIndex: 0, carried: false }
  expect(window.apply(false, [{ op: 'insert', row }], 2n)).toBe(null)
})

test.each([
  [[0, 1, 2], [], [true, true, true]],
  [
    [1, 0, 2],
    [1, 2],
    [false, true, true],
  ],
  [
    [2, 0, 1],
    [1, 2],
    [false, true, true],
  ],
  [
    [1, 2, 0],
    [0, 1],
    [true, true, false],
  ],
  [[-1, 0, -1, 1], [], [false, true, false, true]],
  [[2, 1, 0], [], [true, false, false]],
  [
    [3, 0, 2, 1],
    [1, 3],
    [false, true, false, true],
  ],
] as const)('%j with %j fixed', (places, fixed, stays) => {
  expect(stayingAmong(places, at => fixed.includes(at as never))).toEqual(stays)
})

test('what stays is always in the order in which it was held', () => {
  fc.assert(
    fc.property(fc.shuffledSubarray([0, 1, 2, 3, 4, 5, 6, 7]), fc.array(fc.boolean()), (places, fixed) => {
      const stays = stayingAmong(places, at => fixed[at] ?? false)
      const kept = places.filter((_, at) => stays[at])
      expect(kept).toEqual([...kept].sort((a, b) => a - b))
      expect(kept.length).toBeGreaterThan(places.length > 0 ? 0 : -1)
    }),
  )
})

test('what differs between two rows is told from their JSON', () => {
  const row = fc.record({ a: fc.jsonValue(), 'b,"': fc.jsonValue(), c: fc.string() })
  fc.assert(
    fc.property(row, row, (old, next) => {
      const set = JSON.parse(setOf(JSON.stringify(old), JSON.stringify(next))) as Record<string, unknown>
      expect(JSON.stringify({ ...old, ...set })).toBe(JSON.stringify(next))
      for (const [name, value] of Object.entries(set))
        expect(JSON.stringify(value)).not.toBe(JSON.stringify((old as Record<string, unknown>)[name]))
    }),
  )
})
