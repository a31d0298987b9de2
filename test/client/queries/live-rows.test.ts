import { expect, test } from 'vitest'
import { LiveRows, ProtocolError } from '../../../src/client/queries/live-rows.ts'
import type { JsonRow, RowChange } from '../../../src/protocol/messages.ts'

const committedAt = '2026-01-01T00:00:00.000001Z'

function holding(...rows: JsonRow[]): LiveRows {
  const held = new LiveRows()
  held.setShape({ key: ['id'] })
  held.snapshot({ rows, done: true })
  return held
}

function apply(held: LiveRows, ...changes: RowChange[]): void {
  const delta = held.collect({ changes, done: true, committedAt })
  if (delta === null) throw new Error('not done')
  held.apply(delta)
}

test('[P1] a row of a later part replaces one of the same key, and `gone` removes one', () => {
  const held = new LiveRows()
  held.setShape({ key: ['id'] })
  expect(held.snapshot({ rows: [{ id: 1, v: 'old' }, { id: 2 }], done: false })).toBe(null)
  expect(held.exact).toBe(false)
  expect(held.snapshot({ rows: [{ id: 1, v: 'new' }], gone: [{ id: 2 }, { id: 9 }], done: true })).toEqual({
    delta: null,
  })
  expect(held.exact).toBe(true)
  expect(held.rows).toEqual([{ id: 1, v: 'new' }])
})

test('[P1] insert, update and delete are applied; an update sets only what it carries', () => {
  const held = holding({ id: 1, a: 'x', b: 'y' }, { id: 2, a: 'z', b: null })
  apply(
    held,
    { op: 'delete', key: { id: 2 } },
    { op: 'insert', key: { id: 3 }, row: { id: 3, a: 'n', b: null } },
    { op: 'update', key: { id: 1 }, set: { b: null } },
  )
  expect(held.rows).toEqual([
    { id: 1, a: 'x', b: null },
    { id: 3, a: 'n', b: null },
  ])
})

test('a changed key is a delete and an insert in one delta', () => {
  const held = holding({ id: 1 })
  apply(held, { op: 'delete', key: { id: 1 } }, { op: 'insert', key: { id: 5 }, row: { id: 5 } })
  expect(held.rows).toEqual([{ id: 5 }])
})

test('truncate leaves nothing, and rows may come after it in the same delta', () => {
  const held = holding({ id: 1 }, { id: 2 })
  apply(held, { op: 'truncate' }, { op: 'insert', key: { id: 1 }, row: { id: 1 } })
  expect(held.rows).toEqual([{ id: 1 }])
})

test('[P5] parts of one delta show only once the last is here', () => {
  const held = holding()
  const part: RowChange[] = [{ op: 'insert', key: { id: 1 }, row: { id: 1 } }]
  expect(held.collect({ changes: part, done: false, committedAt })).toBe(null)
  expect(held.rows).toEqual([])
  const delta = held.collect({ changes: [{ op: 'delete', key: { id: 1 } }], done: true, committedAt })
  expect(delta?.changes).toHaveLength(2)
})

test('[P4] parts of a delta that a lost connection cut off are forgotten: they come again, whole', () => {
  const held = holding()
  const changes: RowChange[] = [{ op: 'insert', key: { id: 1 }, row: { id: 1 } }]
  held.collect({ changes, done: false, committedAt })
  held.setShape({ key: ['id'] })
  apply(held, ...changes)
  expect(held.rows).toEqual([{ id: 1 }])
})

test('keys of several columns, and of values that look alike, are told apart', () => {
  const held = new LiveRows()
  held.setShape({ key: ['a', 'b'] })
  held.snapshot({
    rows: [
      { a: 1, b: '2' },
      { a: '1', b: 2 },
      { a: 12, b: '' },
    ],
    done: true,
  })
  expect(held.rows).toHaveLength(3)
})

test('an update makes a new row and a new array: what a listener holds does not change under it', () => {
  const held = holding({ id: 1, v: 'a' })
  const before = held.rows
  apply(held, { op: 'update', key: { id: 1 }, set: { v: 'b' } })
  expect(before).toEqual([{ id: 1, v: 'a' }])
  expect(held.rows).not.toBe(before)
})

const misfits: [string, RowChange][] = [
  ['an insert of a known key', { op: 'insert', key: { id: 1 }, row: { id: 1 } }],
  ['an update of an unknown key', { op: 'update', key: { id: 2 }, set: {} }],
  ['a delete of an unknown key', { op: 'delete', key: { id: 2 } }],
  ['a change without its key column', { op: 'delete', key: { other: 1 } }],
]

test.each(misfits)('[P4] %s is an error, never shrugged off', (_, change) => {
  const held = holding({ id: 1 })
  expect(() => apply(held, change)).toThrow(ProtocolError)
})

test('a delta before the snapshot is whole is an error, and so is a second snapshot', () => {
  const held = new LiveRows()
  held.setShape({ key: ['id'] })
  expect(() => apply(held)).toThrow(ProtocolError)
  expect(() => holding().snapshot({ rows: [], done: true })).toThrow(ProtocolError)
})
