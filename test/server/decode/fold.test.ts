import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Change, Relation, Tuple } from '../../../src/server/decode/change.ts'
import { foldRows, RowFold, rowKey } from '../../../src/server/decode/fold.ts'
import { RowTuple } from '../../../src/server/decode/tuple.ts'

const column = (name: string, identity: boolean) => ({ name, typeOid: 25, typeModifier: -1, identity })
const full: Relation = {
  oid: 1,
  schema: 'public',
  name: 'notes',
  replicaIdentity: 'full',
  columns: [column('id', true), column('room', true), column('body', true)],
}

type Values = (string | null | undefined)[]
const tuple = (values: Values): RowTuple => new RowTuple(full, values)

const insert = (index: number, row: Values): Change => ({ kind: 'insert', index, relation: full, new: tuple(row) })
const update = (index: number, old: Values, row: Values): Change => ({
  kind: 'update',
  index,
  relation: full,
  old: tuple(old),
  new: tuple(row),
})
const remove = (index: number, old: Values): Change => ({ kind: 'delete', index, relation: full, old: tuple(old) })
const truncate = (index: number): Change => ({ kind: 'truncate', index, relation: full })

const texts = (row: Tuple | null): Values | null => row && [0, 1, 2].map(position => row.text(position))

/** `{ '1': [old, new] }`, with 'truncated' third where it is so. */
function folded(changes: Change[], keyColumns = [0]): Record<string, unknown[]> {
  const { rows } = foldRows(changes, keyColumns, full.oid)
  return Object.fromEntries(
    [...rows].map(([key, row]) => [key, [texts(row.old), texts(row.new), ...(row.truncated ? ['truncated'] : [])]]),
  )
}

test.each<[string, Change[], Record<string, unknown[]>]>([
  ['insert', [insert(0, ['1', 'a', 'x'])], { 1: [null, ['1', 'a', 'x']] }],
  [
    '[P2] insert into one room, then update to another: the first version was never readable',
    [insert(0, ['1', '42', 'x']), update(1, ['1', '42', 'x'], ['1', '7', 'x'])],
    { 1: [null, ['1', '7', 'x']] },
  ],
  ['insert, delete: nothing', [insert(0, ['1', 'a', 'x']), remove(1, ['1', 'a', 'x'])], {}],
  [
    'update, update: first old, last new',
    [update(0, ['1', 'a', 'x'], ['1', 'b', 'x']), update(1, ['1', 'b', 'x'], ['1', 'c', 'y'])],
    {
      1: [
        ['1', 'a', 'x'],
        ['1', 'c', 'y'],
      ],
    },
  ],
  [
    'update, delete: delete of the first version',
    [update(0, ['1', 'a', 'x'], ['1', 'b', 'x']), remove(1, ['1', 'b', 'x'])],
    { 1: [['1', 'a', 'x'], null] },
  ],
  [
    'delete, insert: both',
    [remove(0, ['1', 'a', 'x']), insert(1, ['1', 'b', 'y'])],
    {
      1: [
        ['1', 'a', 'x'],
        ['1', 'b', 'y'],
      ],
    },
  ],
  [
    'a key change: the old key ends, the new begins',
    [update(0, ['1', 'a', 'x'], ['2', 'a', 'x'])],
    { 1: [['1', 'a', 'x'], null], 2: [null, ['2', 'a', 'x']] },
  ],
  [
    'a key that goes to another and comes back is an update',
    [update(0, ['1', 'a', 'x'], ['2', 'a', 'x']), update(1, ['2', 'a', 'x'], ['1', 'b', 'x'])],
    {
      1: [
        ['1', 'a', 'x'],
        ['1', 'b', 'x'],
      ],
    },
  ],
  [
    'two rows swap their keys',
    [
      update(0, ['1', 'a', 'x'], ['9', 'a', 'x']),
      update(1, ['2', 'b', 'y'], ['1', 'b', 'y']),
      update(2, ['9', 'a', 'x'], ['2', 'a', 'x']),
    ],
    {
      1: [
        ['1', 'a', 'x'],
        ['1', 'b', 'y'],
      ],
      2: [
        ['2', 'b', 'y'],
        ['2', 'a', 'x'],
      ],
    },
  ],
  [
    'insert, key change, delete: nothing',
    [insert(0, ['1', 'a', 'x']), update(1, ['1', 'a', 'x'], ['2', 'a', 'x']), remove(2, ['2', 'a', 'x'])],
    {},
  ],
  [
    'unchanged TOAST is filled from the old row',
    [update(0, ['1', 'a', 'long'], ['1', 'b', undefined])],
    {
      1: [
        ['1', 'a', 'long'],
        ['1', 'b', 'long'],
      ],
    },
  ],
  [
    'unchanged TOAST is filled from the version folded before, where the old tuple has the identity only',
    [
      insert(0, ['1', 'a', 'long']),
      update(1, ['1', undefined, undefined], ['1', 'b', undefined]),
      update(2, ['1', undefined, undefined], ['1', 'c', undefined]),
    ],
    { 1: [null, ['1', 'c', 'long']] },
  ],
  [
    'unchanged TOAST that nothing fills stays unknown',
    [update(0, ['1', undefined, undefined], ['1', 'b', undefined])],
    {
      1: [
        ['1', undefined, undefined],
        ['1', 'b', undefined],
      ],
    },
  ],
  [
    'a key change with unchanged TOAST carries it along',
    [update(0, ['1', 'a', 'long'], ['2', 'a', undefined]), update(1, ['2', 'a', 'long'], ['3', 'a', undefined])],
    { 1: [['1', 'a', 'long'], null], 3: [null, ['3', 'a', 'long']] },
  ],
  [
    'a key change with unchanged TOAST after an insert, with key tuples only',
    [insert(0, ['1', 'a', 'long']), update(1, ['1', undefined, undefined], ['2', 'b', undefined])],
    { 2: [null, ['2', 'b', 'long']] },
  ],
  [
    'TRUNCATE ends the rows before it; what is inserted later begins',
    [
      update(0, ['1', 'a', 'x'], ['1', 'b', 'x']),
      update(1, ['2', 'a', 'x'], ['2', 'b', 'x']),
      insert(2, ['3', 'a', 'x']),
      truncate(3),
      insert(4, ['2', 'c', 'x']),
      insert(5, ['4', 'a', 'x']),
    ],
    {
      1: [['1', 'a', 'x'], null, 'truncated'],
      2: [null, ['2', 'c', 'x'], 'truncated'],
      4: [null, ['4', 'a', 'x']],
    },
  ],
  [
    'after a TRUNCATE, insert then delete is nothing',
    [update(0, ['1', 'a', 'x'], ['1', 'b', 'x']), truncate(1), insert(2, ['1', 'c', 'x']), remove(3, ['1', 'c', 'x'])],
    {},
  ],
])('%s', (_, changes, expected) => {
  expect(folded(changes)).toEqual(expected)
})

test('truncated says whether the range truncates; changes of other tables are passed over', () => {
  expect(foldRows([insert(0, ['1', 'a', 'x'])], [0], 1).truncated).toBe(false)
  expect(foldRows([truncate(0)], [0], 1).truncated).toBe(true)
  const other = foldRows([truncate(0), insert(1, ['1', 'a', 'x'])], [0], 2)
  expect([other.truncated, other.rows.size]).toEqual([false, 0])
})

test('lastIndex is the last change that touched the row', () => {
  const fold = foldRows(
    [
      insert(4, ['1', 'a', 'x']),
      update(5, ['2', 'a', 'x'], ['3', 'a', 'x']),
      update(9, ['1', 'a', 'x'], ['1', 'b', 'x']),
    ],
    [0],
    1,
  )
  expect([...fold.rows.values()].map(row => [row.key, row.lastIndex])).toEqual([
    ['1', 9],
    ['2', 5],
    ['3', 5],
  ])
})

test('[P4] a change whose key the wire does not say is counted, so that the caller can start over', () => {
  const fold = foldRows(
    [remove(0, [undefined, 'a', null]), update(1, [undefined, 'a', 'x'], ['1', 'a', 'x']), insert(2, ['2', 'a', 'x'])],
    [0],
    1,
  )
  expect([fold.unkeyed, [...fold.rows.keys()]]).toEqual([2, ['2']])
})

test('rowKey: different keys have different texts, and a row without its key is refused with the statement to run', () => {
  const key = fc.tuple(fc.string(), fc.string())
  fc.assert(
    fc.property(key, key, (a, b) => {
      const same = a[0] === b[0] && a[1] === b[1]
      expect(rowKey(tuple([...a]), [0, 1]) === rowKey(tuple([...b]), [0, 1])).toBe(same)
    }),
  )
  expect(rowKey(tuple(['1', '23', '']), [0, 1])).not.toBe(rowKey(tuple(['12', '3', '']), [0, 1]))
  expect(() => rowKey(tuple(['1', undefined, 'x']), [0, 1])).toThrow(
    expect.objectContaining({
      code: 'IDENTITY_INSUFFICIENT',
      message: expect.stringContaining('REPLICA IDENTITY FULL'),
    }),
  )
})

test('a row updated a million times with unchanged TOAST keeps no chain of its versions', () => {
  const fold = new RowFold([0], 1)
  fold.add(insert(0, ['1', 'a', 'long']))
  for (let index = 1; index <= 1_000_000; index++)
    fold.add(update(index, ['1', undefined, undefined], ['1', String(index), undefined]))
  expect(texts(fold.rows.get('1')!.new)).toEqual(['1', '1000000', 'long'])
})

/** Steps on a small table, as Postgres would log them: each only if the table's state allows it. */
const step = fc.record({
  kind: fc.constantFrom('insert', 'update', 'move', 'delete', 'truncate'),
  id: fc.integer({ min: 1, max: 4 }),
  to: fc.integer({ min: 1, max: 4 }),
  toast: fc.boolean(),
})

test('[P1] the rows before, changed by the fold, are the rows after, in one piece or in several', () => {
  const property = fc.property(
    fc.array(step, { maxLength: 40 }),
    fc.array(fc.nat(40), { maxLength: 3 }),
    (steps, cuts) => {
      const before = new Map([1, 2].map(id => [String(id), [String(id), 'before', `body ${id}`]]))
      const table = new Map(before)
      const changes: Change[] = []
      for (const [version, { kind, id, to, toast }] of steps.entries()) {
        const [key, target] = [String(id), String(kind === 'move' ? to : id)]
        const row = table.get(key)
        const index = changes.length
        if (kind === 'truncate' && to === 1) {
          changes.push(truncate(index))
          table.clear()
        } else if (kind === 'insert' && row === undefined) {
          const inserted = [key, `v${version}`, `body ${version}`]
          changes.push(insert(index, inserted))
          table.set(key, inserted)
        } else if (kind === 'delete' && row !== undefined) {
          changes.push(remove(index, row))
          table.delete(key)
        } else if ((kind === 'update' || kind === 'move') && row !== undefined) {
          if (target !== key && table.has(target)) continue
          const next = [target, `v${version}`, toast ? row[2]! : `body ${version}`]
          changes.push(update(index, row, toast ? [target, next[1], undefined] : next))
          table.delete(key)
          table.set(target, next)
        }
      }
      // One commit, or several commits applied one after the other.
      const ends = [...cuts.filter(cut => cut < changes.length).sort((a, b) => a - b), changes.length]
      const piecewise = new Map(before)
      let from = 0
      for (const end of ends) {
        apply(piecewise, changes.slice(from, end))
        from = end
      }
      const whole = new Map(before)
      apply(whole, changes)
      expect(Object.fromEntries(whole)).toEqual(Object.fromEntries(table))
      expect(Object.fromEntries(piecewise)).toEqual(Object.fromEntries(table))
    },
  )
  fc.assert(property, { numRuns: 2000 })
})

function apply(state: Map<string, string[]>, changes: Change[]): void {
  const { rows, truncated } = foldRows(changes, [0], full.oid)
  for (const [key, row] of rows) {
    if (row.old !== null) expect(texts(row.old)).toEqual(state.get(key))
    else if (!row.truncated) expect(state.has(key) && !truncated).toBe(false)
    expect([row.old, row.new]).not.toEqual([null, null])
  }
  if (truncated) state.clear()
  for (const [key, row] of rows) {
    if (row.new === null) state.delete(key)
    else state.set(key, texts(row.new) as string[])
  }
}

test('a row that came and went is no row, but who looked in between has seen its key', () => {
  const vanished = new Set<string>()
  const fold = new RowFold([0], full.oid, vanished)
  const changes = [
    insert(0, ['1', 'a', 'x']),
    update(1, ['1', 'a', 'x'], ['2', 'a', 'x']),
    remove(2, ['2', 'a', 'x']),
    insert(3, ['3', 'a', 'x']),
    truncate(4),
  ]
  for (const change of changes) fold.add(change)
  expect([...fold.rows.keys()]).toEqual([])
  expect([...vanished]).toEqual(['1', '2', '3'])
})

test('a row that took another key over says so: what it leaves out never stood there', () => {
  const fold = new RowFold([0], full.oid)
  const changes = [
    update(0, ['1', 'a', 'x'], ['9', 'a', undefined]),
    update(1, ['2', 'a', undefined], ['1', 'a', undefined]),
    update(2, ['3', 'a', undefined], ['3', 'b', undefined]),
  ]
  for (const change of changes) fold.add(change)
  expect([...fold.rows.values()].map(({ key, carried }) => [key, carried])).toEqual([
    ['1', true],
    ['9', true],
    ['2', false],
    ['3', false],
  ])
})
