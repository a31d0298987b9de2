// Random histories of a query's rows, held by LiveRows as they come over the wire and by a plain model side by side.
import fc from 'fast-check'
import { beforeAll, expect, test } from 'vitest'
import { LiveRows, ProtocolError } from '../../../src/client/queries/live-rows.ts'
import { loadOrdering } from '../../../src/client/queries/ordering.ts'
import type { JsonRow, OrderTerm, RowChange } from '../../../src/protocol/messages.ts'
import { compareRows } from '../../../src/protocol/order.ts'

beforeAll(loadOrdering)

const committedAt = '2026-01-01T00:00:00Z'
const order: OrderTerm[] = [
  { column: 'v', direction: 'desc', nulls: 'last', compare: 'number' },
  { column: 'id', direction: 'asc', nulls: 'last', compare: 'number' },
]
const inOrder = compareRows(order)

type Op =
  | { readonly do: 'put'; readonly id: number; readonly v: number | null }
  | { readonly do: 'drop'; readonly id: number }
  | { readonly do: 'replace'; readonly id: number }
  | { readonly do: 'truncate' }

const id = fc.nat(11)
const put = fc.record({ do: fc.constant('put' as const), id, v: fc.option(fc.nat(4)) })
const op: fc.Arbitrary<Op> = fc.oneof(
  { weight: 8, arbitrary: put },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('drop' as const), id }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant('replace' as const), id }) },
  { weight: 1, arbitrary: fc.constant({ do: 'truncate' as const }) },
)

/** Does it to the model. @returns the changes of the wire */
function act(model: Map<number, JsonRow>, { do: what, ...rest }: Op): RowChange[] {
  if (what === 'truncate') {
    model.clear()
    return [{ op: 'truncate' }]
  }
  const { id, v } = rest as { id: number; v: number | null }
  const held = model.get(id)
  const key = { id }
  if (what === 'put') {
    const row = { id, v, body: { text: `${id}` } }
    model.set(id, held === undefined ? row : { ...held, v })
    return held === undefined ? [{ op: 'insert', key, row }] : [{ op: 'update', key, set: { v } }]
  }
  if (held === undefined) return []
  model.delete(id)
  if (what === 'drop') return [{ op: 'delete', key }]
  const row = { ...held, v: 9 }
  model.set(id, row)
  return [
    { op: 'delete', key },
    { op: 'insert', key, row },
  ]
}

/** Hands a delta over in parts. */
function deliver(held: LiveRows, changes: RowChange[], size: number): void {
  for (let at = 0; at < changes.length; at += size) {
    const done = at + size >= changes.length
    const delta = held.collect({ changes: changes.slice(at, at + size), done, committedAt })
    expect(delta !== null).toBe(done)
    if (delta !== null) held.apply(delta)
  }
}

function holding(rows: JsonRow[], shape: { order?: OrderTerm[]; limit?: number }): LiveRows {
  const held = new LiveRows()
  held.setShape({ key: ['id'], ...shape })
  held.snapshot({ rows, done: true })
  return held
}

test.each([true, false])('[P1] rows are those of the model after every delta, in order: %s', isOrdered => {
  const deltas = fc.array(
    fc.record({ ops: fc.array(op, { minLength: 1, maxLength: 90 }), size: fc.integer({ min: 1, max: 9 }) }),
  )
  fc.assert(
    fc.property(deltas, history => {
      const model = new Map<number, JsonRow>()
      const held = holding([], isOrdered ? { order } : {})
      for (const { ops, size } of history) {
        const before = [...held.rows]
        const was = held.rows
        deliver(
          held,
          ops.flatMap(each => act(model, each)),
          size,
        )
        expect(was).toEqual(before)
        const rows = [...model.values()]
        if (isOrdered) expect(held.rows).toEqual(rows.sort(inOrder))
        else expect(new Set(held.rows)).toEqual(new Set(rows))
        expect(held.rows).toHaveLength(rows.length)
      }
    }),
  )
})

test('a row that a delta leaves alone stays the same object, in order or not', () => {
  for (const shape of [{}, { order }]) {
    const held = holding(
      [
        { id: 1, v: 1 },
        { id: 2, v: 2 },
        { id: 3, v: 3 },
      ],
      shape,
    )
    const one = held.rows.find(row => row.id === 1)
    deliver(held, [{ op: 'update', key: { id: 3 }, set: { v: 0 } }], 1)
    expect(held.rows.find(row => row.id === 1)).toBe(one)
  }
})

test('[P1] snapshots in parts, with rows replaced and gone, hold what the model holds; the difference leads from the old to the new', () => {
  const part = fc.record({ rows: fc.array(fc.record({ id, v: fc.option(fc.nat(4)) })), gone: fc.array(id) })
  const history = fc.array(fc.array(part, { minLength: 1, maxLength: 4 }), { minLength: 1, maxLength: 4 })
  fc.assert(
    fc.property(history, fc.boolean(), (snapshots, isOrdered) => {
      const held = new LiveRows()
      held.setShape(isOrdered ? { key: ['id'], order } : { key: ['id'] })
      for (const [number, parts] of snapshots.entries()) {
        held.expectSnapshot(true)
        const before = held.rows
        const model = new Map<number, JsonRow>()
        for (const [at, { rows, gone }] of parts.entries()) {
          for (const one of gone) model.delete(one)
          for (const row of rows) model.set(row.id, row)
          expect(held.rows).toBe(before)
          const whole = held.snapshot({ rows, gone: gone.map(one => ({ id: one })), done: at === parts.length - 1 })
          if (whole === null) continue
          if (number === 0) expect(whole.delta).toBe(null)
          else {
            const changed = holding([...before], isOrdered ? { order } : {})
            changed.apply({ changes: whole.delta!.changes, committedAt })
            expect(new Set(changed.rows)).toEqual(new Set(held.rows))
          }
        }
        expect(new Set(held.rows)).toEqual(new Set(model.values()))
        if (isOrdered) expect(held.rows).toEqual([...model.values()].sort(inOrder))
        for (const row of held.rows) {
          const old = before.find(each => each.id === row.id)
          if (old !== undefined && old.v === row.v) expect(row).toBe(old)
        }
      }
    }),
  )
})

const top = (model: ReadonlyMap<number, JsonRow>, limit: number): JsonRow[] =>
  [...model.values()].sort(inOrder).slice(0, limit)

/** What a server tells that follows the window: rows that came or moved say which they follow at the end. */
function windowDelta(before: readonly JsonRow[], after: readonly JsonRow[]): RowChange[] {
  const old = new Map(before.map(row => [row.id, row]))
  const changes: RowChange[] = before
    .filter(row => !after.some(each => each.id === row.id))
    .map(row => ({ op: 'delete', key: { id: row.id! } }))
  for (const [at, row] of after.entries()) {
    const key = { id: row.id! }
    const forerunner = at === 0 ? null : { id: after[at - 1]!.id! }
    const held = old.get(row.id)
    if (held === undefined) changes.push({ op: 'insert', key, row, after: forerunner })
    else if (held.v !== row.v) changes.push({ op: 'update', key, set: { v: row.v! }, after: forerunner })
  }
  return changes
}

test('[P1] a window holds the first rows of the model, in order, however changes of a delta are arranged', () => {
  const history = fc.array(fc.record({ ops: fc.array(op, { minLength: 1, maxLength: 12 }), seed: fc.nat() }))
  fc.assert(
    fc.property(history, fc.integer({ min: 1, max: 8 }), (steps, limit) => {
      const model = new Map<number, JsonRow>()
      const held = holding([], { order, limit })
      for (const { ops, seed } of steps) {
        const before = top(model, limit)
        for (const each of ops) act(model, each)
        const after = top(model, limit)
        const changes = windowDelta(before, after)
        changes.sort((a, b) => ((JSON.stringify(a).length * seed) % 97) - ((JSON.stringify(b).length * seed) % 97))
        deliver(held, changes, 3)
        expect(held.rows).toEqual(after)
      }
    }),
  )
})

const window = (): LiveRows => holding([{ id: 1 }, { id: 2 }, { id: 3 }], { order, limit: 4 })
const ids = (held: LiveRows): unknown[] => held.rows.map(row => row.id)

test('a row that follows one that the same delta deletes stands where that stood', () => {
  const held = window()
  const insert: RowChange = { op: 'insert', key: { id: 9 }, row: { id: 9 }, after: { id: 2 } }
  deliver(held, [insert, { op: 'delete', key: { id: 2 } }], 2)
  expect(ids(held)).toEqual([1, 9, 3])
})

test('an update that does not say what it follows stays where it is', () => {
  const held = window()
  deliver(
    held,
    [
      { op: 'update', key: { id: 2 }, set: { body: 'x' } },
      { op: 'delete', key: { id: 1 } },
    ],
    2,
  )
  expect(held.rows).toEqual([{ id: 2, body: 'x' }, { id: 3 }])
})

const insertAfter = (id: number, after: number | null): RowChange => ({
  op: 'insert',
  key: { id },
  row: { id },
  after: after === null ? null : { id: after },
})

test.each<[string, RowChange[]]>([
  ['follows a row that is not held', [insertAfter(9, 77)]],
  ['follows itself', [insertAfter(9, 9)]],
  ['is in a ring', [insertAfter(8, 9), insertAfter(9, 8)]],
  ['follows the same row as another', [insertAfter(8, 1), insertAfter(9, 1)]],
  ['does not say what it follows', [{ op: 'insert', key: { id: 9 }, row: { id: 9 } }]],
  ['is one too many', [insertAfter(8, null), insertAfter(9, 8)]],
])('[P4] in a window, a row that %s is an error, and the rows shown stay as they were', (_, changes) => {
  const held = window()
  const before = held.rows
  expect(() => deliver(held, changes, 9)).toThrow(ProtocolError)
  held.expectSnapshot(true)
  expect(held.rows).toBe(before)
  expect(held.snapshot({ rows: [{ id: 1 }, { id: 4 }], done: true })?.delta?.changes).toEqual([
    { op: 'delete', key: { id: 2 } },
    { op: 'delete', key: { id: 3 } },
    { op: 'insert', key: { id: 4 }, row: { id: 4 } },
  ])
  expect(held.rows[0]).toBe(before[0])
})

test('[P4] a snapshot of more rows than the limit is an error', () => {
  expect(() => holding([{ id: 1 }, { id: 2 }], { order, limit: 1 })).toThrow(ProtocolError)
})

test('[P1] in a window, a row that a later part brings again stands where it came last', () => {
  const held = new LiveRows()
  held.setShape({ key: ['id'], order, limit: 3 })
  held.snapshot({ rows: [{ id: 1 }, { id: 2 }], done: false })
  held.snapshot({ rows: [{ id: 3 }, { id: 1 }], done: true })
  expect(ids(held)).toEqual([2, 3, 1])
})

test('restored rows are held as if they had come, and stay the same objects when a snapshot brings them again', () => {
  const held = new LiveRows()
  held.setShape({ key: ['id'] })
  const rows = [
    { id: 1, tags: ['a', { b: null }] },
    { id: 2, tags: [] },
  ]
  held.restore(rows)
  expect(held.exact).toBe(true)
  held.expectSnapshot(true)
  const whole = held.snapshot({
    rows: [
      { id: 1, tags: ['a', { b: null }] },
      { id: 2, tags: ['c'] },
    ],
    done: true,
  })
  expect(whole?.delta).toEqual({ changes: [{ op: 'update', key: { id: 2 }, set: { tags: ['c'] } }], committedAt: null })
  expect(held.rows[0]).toBe(rows[0])
})
