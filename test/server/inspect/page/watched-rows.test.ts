import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type Row, WatchedRows } from '../../../../src/server/inspect/page/watched-rows.js'

const subscribed = { event: 'subscribed', data: { key: ['id'] } }
const snapshot = (rows: readonly Row[], done = true) => ({ event: 'snapshot', data: { rows, done } })
const delta = (changes: readonly object[], done = true) => ({ event: 'delta', data: { changes, done } })
const insert = (id: number, more: object = {}) => ({ op: 'insert', key: { id }, row: { id, body: 'new' }, ...more })
const update = (id: number, more: object = {}) => ({ op: 'update', key: { id }, set: { body: 'other' }, ...more })
const remove = (id: number) => ({ op: 'delete', key: { id } })

function watching(ids: readonly number[]): WatchedRows {
  const rows = new WatchedRows()
  rows.take(subscribed)
  rows.take(snapshot(ids.map(id => ({ id, body: 'old' }))))
  return rows
}

const idsOf = (rows: WatchedRows): unknown[] => rows.names.map(name => rows.rows.get(name)!.id)

test('rows come in the order of the snapshot, its parts together', () => {
  const rows = new WatchedRows()
  rows.take(subscribed)
  rows.take(snapshot([{ id: 2 }, { id: 1 }], false))
  expect(rows.isWhole).toBe(false)
  rows.take({ event: 'snapshot', data: { rows: [{ id: 3 }], gone: [{ id: 2 }], done: true } })
  expect([rows.isWhole, idsOf(rows)]).toEqual([true, [1, 3]])
})

test('what a delta did is told: what appeared, changed and left', () => {
  const rows = watching([1, 2, 3])
  const step = rows.take(delta([insert(4), update(1), remove(2)]))
  expect(step).toEqual({
    isAnew: false,
    appeared: ['[4]'],
    changed: ['[1]'],
    left: [{ name: '[2]', key: { id: 2 } }],
  })
  expect(rows.rows.get('[1]')).toEqual({ id: 1, body: 'other' })
})

test('without an order the newest stands first', () => {
  const rows = watching([1, 2])
  rows.take(delta([insert(3), insert(4)]))
  expect(idsOf(rows)).toEqual([4, 3, 1, 2])
})

test('a delta in parts is applied with its last', () => {
  const rows = watching([1])
  expect(rows.take(delta([insert(2)], false)).appeared).toEqual([])
  expect(idsOf(rows)).toEqual([1])
  expect(rows.take(delta([remove(1)])).appeared).toEqual(['[2]'])
  expect(idsOf(rows)).toEqual([2])
})

test('deleted and inserted by one delta, a row stays and has changed', () => {
  const rows = watching([1])
  expect(rows.take(delta([remove(1), insert(1)]))).toMatchObject({ appeared: [], changed: ['[1]'], left: [] })
})

test('a truncate takes all, and what follows it in the delta appears', () => {
  const rows = watching([1, 2])
  const step = rows.take(delta([{ op: 'truncate' }, insert(9)]))
  expect(step.left.map(({ name }) => name)).toEqual(['[1]', '[2]'])
  expect([step.appeared, idsOf(rows)]).toEqual([['[9]'], [9]])
})

test('a resync begins anew', () => {
  const rows = watching([1, 2])
  rows.take(delta([insert(3)], false))
  expect(rows.take({ event: 'resync', data: { code: 'WINDOW_PASSED' } }).isAnew).toBe(true)
  rows.take(snapshot([{ id: 7 }]))
  expect(idsOf(rows)).toEqual([7])
})

test('[P7] more rows than a page should hold are too many', () => {
  const rows = watching([])
  rows.take(snapshot(Array.from({ length: WatchedRows.maxRows }, (_, id) => ({ id }))))
  expect(rows.isFull).toBe(false)
  rows.take(delta([insert(-1)]))
  expect(rows.isFull).toBe(true)
})

describe('with an order', () => {
  test('a row stands after the one that is named, or first', () => {
    const rows = watching([5, 4, 3])
    rows.take(delta([remove(3), insert(6, { after: null }), update(4, { after: { id: 6 } })]))
    expect(idsOf(rows)).toEqual([6, 4, 5])
  })

  test('any change of a window, told by `after`, gives the window', () => {
    const ids = fc.uniqueArray(fc.integer({ min: 0, max: 12 }), { maxLength: 8 })
    fc.assert(
      fc.property(ids, ids, (before, after) => {
        const rows = watching(before)
        const changes = [
          ...before.filter(id => !after.includes(id)).map(remove),
          ...after.map((id, place) => {
            const behind = { after: place === 0 ? null : { id: after[place - 1] } }
            return before.includes(id) ? update(id, behind) : insert(id, behind)
          }),
        ]
        rows.take(delta(changes))
        expect(idsOf(rows)).toEqual(after)
        expect(rows.rows.size).toBe(after.length)
      }),
    )
  })
})
