import { expect, test } from 'vitest'
import { columnStarts, decodeMessage } from '../../../src/server/decode/pgoutput.ts'
import * as wire from './wire-bytes.ts'

const hex = (text: string): Buffer => Buffer.from(text.replaceAll(/[^0-9a-f]/g, ''), 'hex')

test.each([
  [
    'Begin: final LSN, commit time, xid',
    hex('42 0000000001 6b3748 0002a9e4 b6a12345 fffffffe'),
    { kind: 'begin', finalLsn: 0x016b3748n, committedAtMicros: 0x0002a9e4b6a12345n, xid: 4294967294 },
  ],
  [
    'Commit: flags, commit LSN, end LSN, commit time',
    hex('43 00 00000000016b3748 00000000016b3778 ffffffffffffffff'),
    { kind: 'commit', commitLsn: 0x016b3748n, endLsn: 0x016b3778n, committedAtMicros: -1n },
  ],
  ['Origin: LSN, name', hex('4f 0000000000000010 6d696e6500'), { kind: 'origin', lsn: 16n, name: 'mine' }],
  [
    'Relation: OID, namespace, name, replica identity, columns with flags, name, type, modifier',
    hex('52 f0000001 7075626c696300 726f6f6d7300 66 0002  01 696400 00000017 ffffffff  00 6e00 00000413 0000000e'),
    {
      kind: 'relation',
      oid: 0xf0000001,
      schema: 'public',
      name: 'rooms',
      replicaIdentity: 'full',
      columns: [
        { identity: true, name: 'id', typeOid: 23, typeModifier: -1 },
        { identity: false, name: 'n', typeOid: 1043, typeModifier: 14 },
      ],
    },
  ],
  [
    'Relation of pg_catalog: its namespace is sent empty',
    hex('52 00000001 00 7800 6e 0000'),
    { kind: 'relation', oid: 1, schema: 'pg_catalog', name: 'x', replicaIdentity: 'nothing', columns: [] },
  ],
  [
    'Type: OID, namespace, name',
    hex('59 80000001 7075626c696300 6d6f6f6400'),
    { kind: 'type', oid: 0x80000001, schema: 'public', name: 'mood' },
  ],
  ['Insert: OID, N, tuple', hex('49 00004001 4e 0001 6e'), { kind: 'insert', relationOid: 16385, newAt: 6 }],
  [
    'Update without an old tuple',
    hex('55 00004001 4e 0001 75'),
    { kind: 'update', relationOid: 16385, oldKind: null, oldAt: -1, newAt: 6 },
  ],
  [
    'Update with K: the old identity',
    hex('55 00004001 4b 0001 74 00000002 6869 4e 0001 6e'),
    { kind: 'update', relationOid: 16385, oldKind: 'K', oldAt: 6, newAt: 16 },
  ],
  [
    'Update with O: the old row',
    hex('55 00004001 4f 0000 4e 0000'),
    { kind: 'update', relationOid: 16385, oldKind: 'O', oldAt: 6, newAt: 9 },
  ],
  ['Delete with K', hex('44 00004001 4b 0000'), { kind: 'delete', relationOid: 16385, oldKind: 'K', oldAt: 6 }],
  ['Delete with O', hex('44 00004001 4f 0000'), { kind: 'delete', relationOid: 16385, oldKind: 'O', oldAt: 6 }],
  [
    'Truncate: count, options, OIDs',
    hex('54 00000002 03 f0000001 00000002'),
    { kind: 'truncate', relationOids: [0xf0000001, 2], cascade: true, restartIdentity: true },
  ],
  [
    'Message: flags, LSN, prefix, length, content',
    hex('4d 01 0000000000000007 7000 00000002 0102'),
    { kind: 'message', transactional: true, lsn: 7n, prefix: 'p', content: Buffer.from([1, 2]) },
  ],
  [
    'Message, not transactional, empty',
    hex('4d 00 ffffffffffffffff 00 00000000'),
    { kind: 'message', transactional: false, lsn: 0xffffffffffffffffn, prefix: '', content: Buffer.alloc(0) },
  ],
])('%s', (_, bytes, expected) => {
  expect(decodeMessage(bytes)).toEqual(expected)
})

test.each([
  ['an unknown letter', hex('5a 00')],
  ['a letter of streamed transactions, which are never asked for', hex('53 00000001 01')],
  ['no bytes', hex('')],
  ['a Begin that ends too early', hex('42 00000000')],
  ['a name without its end', hex('59 00000001 7075')],
  ['an unknown replica identity', hex('52 00000001 00 7800 71 0000')],
  ['an update with an unknown tuple', hex('55 00004001 58 0000')],
  ['a delete with a new tuple', hex('44 00004001 4e 0000')],
  ['an insert without a tuple', hex('49 00004001')],
  ['an update whose old tuple never ends', hex('55 00004001 4f 0001 74 00000009 68')],
  ['a message shorter than its length', hex('4d 01 0000000000000007 7000 00000003 0102')],
  ['a Truncate of more tables than it names', hex('54 00000002 00 00000001')],
])('%s is a loud error with its code', (_, bytes) => {
  expect(() => decodeMessage(bytes)).toThrow(expect.objectContaining({ code: 'WAL_UNREADABLE' }))
})

test.each([
  ['a value past the end', hex('0001 74 00000005 68')],
  ['a length of 4 GB', hex('0001 74 ffffffff 68')],
  ['fewer columns than it says', hex('0002 6e')],
  ['a binary column, which is never asked for', hex('0001 62 00000001 68')],
])('TupleData with %s is a loud error', (_, bytes) => {
  expect(() => columnStarts(bytes, 0, [])).toThrow(expect.objectContaining({ code: 'WAL_UNREADABLE' }))
})

test('TupleData: NULL, unchanged TOAST and text, each found at its kind byte', () => {
  const starts: number[] = []
  expect(columnStarts(wire.tuple([null, undefined, 'abc', '']), 0, starts)).toBe(17)
  expect(starts).toEqual([2, 3, 4, 12])
})

test('a decoded message shorter by any number of bytes never decodes as something else', () => {
  const messages = [
    wire.begin(),
    wire.commit(),
    wire.origin('mine'),
    wire.type(1, 'public', 'mood'),
    wire.relation(1, 'rooms', 'd', ['id*', 'name']),
    wire.truncate([1, 2]),
    wire.message('p', 'content'),
  ]
  for (const whole of messages)
    for (let length = 0; length < whole.length; length++)
      expect(() => decodeMessage(whole.subarray(0, length)), `${whole.toString('latin1')} ${length}`).toThrow(
        expect.objectContaining({ code: 'WAL_UNREADABLE' }),
      )
})
