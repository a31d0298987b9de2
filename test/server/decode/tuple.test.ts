import { expect, test } from 'vitest'
import type { Relation } from '../../../src/server/decode/change.ts'
import {
  identityView,
  overlay,
  PartialTuple,
  RowTuple,
  sameValue,
  WireTuple,
} from '../../../src/server/decode/tuple.ts'
import { tuple as tupleBytes, type Value } from './wire-bytes.ts'

const relation = (...names: string[]): Relation => ({
  oid: 1,
  schema: 'public',
  name: 'notes',
  replicaIdentity: 'default',
  columns: names.map(name => ({
    name: name.replace('*', ''),
    typeOid: 25,
    typeModifier: -1,
    identity: name.endsWith('*'),
  })),
})
const notes = relation('id*', 'room', 'body')

const wire = (values: Value[], identityOnly = false, of = notes) =>
  new WireTuple(of, tupleBytes(values), 0, identityOnly)
const texts = (row: { text(column: number): Value }): Value[] => [0, 1, 2].map(column => row.text(column))

test('text and bytes: a value, NULL, unknown; a column that is not there is unknown', () => {
  const row = wire(['grün', null, undefined])
  expect(texts(row)).toEqual(['grün', null, undefined])
  expect([0, 1, 2].map(column => row.bytes(column))).toEqual([Buffer.from('grün'), null, undefined])
  expect([row.text(3), row.bytes(3), row.partial]).toEqual([undefined, undefined, true])
  expect(wire(['a', null, 'c']).partial).toBe(false)
})

test.each(['', 'a', '123456', '1234567', 'é', 'aé', '😀', 'ein längerer Text', 'x'.repeat(5000)])(
  'short and long values, ASCII or not, decode alike: %s',
  value => {
    expect(wire([value, value, value]).text(1)).toBe(value)
  },
)

test('bytes are views into the message, not copies', () => {
  const message = tupleBytes(['abc', 'd', 'e'])
  const row = new WireTuple(notes, message, 0)
  expect(row.bytes(0)!.buffer).toBe(message.buffer)
})

test('[P2] in a key tuple only the identity is known', () => {
  const row = wire(['1', null, null], true)
  expect([texts(row), row.bytes(1), row.partial]).toEqual([['1', undefined, undefined], undefined, true])
})

test('[P2] a view of the identity, or of any columns, knows nothing else', () => {
  expect(texts(identityView(wire(['1', 'a', 'b'])))).toEqual(['1', undefined, undefined])
  expect(texts(new PartialTuple(wire(['1', 'a', null]), column => column === 2))).toEqual([undefined, undefined, null])
})

test('overlay fills what is unknown, and only that: NULL stays NULL', () => {
  expect(texts(overlay(wire(['1', null, undefined]), wire(['0', 'x', 'long'])))).toEqual(['1', null, 'long'])
  const whole = wire(['1', null, 'b'])
  expect(overlay(whole, wire(['0', 'x', 'long']))).toBe(whole)
  expect(texts(overlay(new RowTuple(notes, ['1', undefined, undefined]), wire(['0', null, undefined])))).toEqual([
    '1',
    null,
    undefined,
  ])
})

test('[P2] overlay takes nothing from a version whose column there was another one', () => {
  const before = wire(['1', 'secret', 'x'], false, relation('id*', 'secret', 'body'))
  expect(texts(overlay(wire(['1', undefined, undefined]), before))).toEqual(['1', undefined, 'x'])
})

test('sameValue compares by bytes, NULL to NULL, and says nothing of what is unknown', () => {
  const a = wire(['1', null, 'long'])
  expect([0, 1, 2].map(column => sameValue(a, wire(['1', null, 'long']), column))).toEqual([true, true, true])
  expect([0, 1, 2].map(column => sameValue(a, wire(['2', 'x', 'lonG']), column))).toEqual([false, false, false])
  expect([0, 1, 2].map(column => sameValue(a, wire(['1', undefined, 'longer']), column))).toEqual([
    true,
    undefined,
    false,
  ])
  expect([0, 1, 2].map(column => sameValue(wire(['1', null, null], true), a, column))).toEqual([
    true,
    undefined,
    undefined,
  ])
  expect(sameValue(overlay(wire(['1', null, undefined]), a), a, 2)).toBe(true)
  expect(sameValue(new RowTuple(notes, ['1', null, 'long']), a, 2)).toBe(true)
})
