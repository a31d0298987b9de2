import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Change, Commit } from '../../../src/server/decode/change.ts'
import { TransactionAssembler, type TransactionOptions } from '../../../src/server/decode/transaction.ts'
import * as wire from './wire-bytes.ts'

function commitsOf(messages: readonly Buffer[], options?: TransactionOptions): Commit[] {
  const assembler = new TransactionAssembler(options)
  return messages.map(message => assembler.push(message)).filter(commit => commit !== null)
}

const texts = (tuple: { text(column: number): unknown; relation: { columns: readonly unknown[] } }): unknown[] =>
  tuple.relation.columns.map((_, column) => tuple.text(column))

/** `['update', 1, old values, new values]` */
const shown = (change: Change): unknown[] => [
  change.kind,
  change.index,
  ...('old' in change ? [texts(change.old)] : []),
  ...('new' in change ? [texts(change.new)] : []),
]
const changesOf = (commit: Commit): unknown[][] => [...commit.changes()].map(shown)

const rooms = wire.relation(1, 'rooms', 'd', ['id*', 'name'])
const notes = wire.relation(2, 'notes', 'f', ['id', 'body', 'room'])

test('a commit has its xid, LSNs, time, tables and changes', () => {
  const messages = [
    wire.begin(0xffff_fff0, 500n, 123_456n),
    rooms,
    wire.insert(1, ['7', 'lobby']),
    notes,
    wire.insert(2, ['1', null, '7']),
    wire.remove(1, ['K', ['7', null]]),
    wire.commit(500n, 548n, 123_456n),
  ]
  const [commit] = commitsOf(messages)
  expect(commit).toMatchObject({ xid: 4294967280, commitLsn: 500n, endLsn: 548n, committedAtMicros: 123_456n })
  expect(commit).toMatchObject({ changeCount: 3, spooled: false, bytes: Buffer.concat(messages).length })
  expect([...commit!.relations]).toEqual([1, 2])
  const expected = [
    ['insert', 0, ['7', 'lobby']],
    ['insert', 1, ['1', null, '7']],
    ['delete', 2, ['7', undefined]],
  ]
  expect(changesOf(commit!)).toEqual(expected)
  expect(changesOf(commit!), 'a second walk').toEqual(expected)
})

test('an xid above 2^31 stays unsigned', () => {
  expect(commitsOf([wire.begin(0x8000_0001), wire.commit()])[0]!.xid).toBe(2_147_483_649)
})

test('an empty transaction is a commit without changes', () => {
  const [commit] = commitsOf([wire.begin(), wire.origin('mine'), wire.commit()])
  expect(commit).toMatchObject({ changeCount: 0, messages: [], announced: [] })
  expect([...commit!.changes()]).toEqual([])
})

test('[P2] null in a key tuple, outside the identity, is unknown, not NULL', () => {
  const [commit] = commitsOf([
    wire.begin(),
    rooms,
    wire.update(1, ['8', 'lobby'], ['K', ['7', null]]),
    wire.remove(1, ['K', ['8', null]]),
    wire.commit(),
  ])
  expect(changesOf(commit!)).toEqual([
    ['update', 0, ['7', undefined], ['8', 'lobby']],
    ['delete', 1, ['8', undefined]],
  ])
})

test('[P2] an update without an old tuple keeps its identity; the rest of the old row is unknown', () => {
  const index = wire.relation(3, 'tasks', 'i', ['id', 'room*', 'title'])
  const [commit] = commitsOf([
    wire.begin(),
    rooms,
    wire.update(1, ['7', 'hall']),
    index,
    wire.update(3, ['1', '42', 'new']),
    wire.commit(),
  ])
  expect(changesOf(commit!)).toEqual([
    ['update', 0, ['7', undefined], ['7', 'hall']],
    ['update', 1, [undefined, '42', undefined], ['1', '42', 'new']],
  ])
})

test('[P2] an update without an old tuple under FULL, which Postgres never sends, says nothing of the old row', () => {
  const [commit] = commitsOf([wire.begin(), notes, wire.update(2, ['1', 'b', '7']), wire.commit()])
  expect(changesOf(commit!)[0]![2]).toEqual([undefined, undefined, undefined])
})

test('under FULL the old row is whole, and its NULL is NULL', () => {
  const [commit] = commitsOf([
    wire.begin(),
    notes,
    wire.update(2, ['1', undefined, '8'], ['O', ['1', 'long', null]]),
    wire.commit(),
  ])
  expect(changesOf(commit!)).toEqual([['update', 0, ['1', 'long', null], ['1', undefined, '8']]])
})

test('TRUNCATE of several tables is one change each, in the order named', () => {
  const [commit] = commitsOf([
    wire.begin(),
    rooms,
    notes,
    wire.truncate([2, 1], 1),
    wire.insert(1, ['7', 'x']),
    wire.commit(),
  ])
  const changes = [...commit!.changes()]
  expect(changes.map(change => [change.kind, change.index, change.relation.name])).toEqual([
    ['truncate', 0, 'notes'],
    ['truncate', 1, 'rooms'],
    ['insert', 2, 'rooms'],
  ])
  expect([...commit!.relations]).toEqual([2, 1])
})

test('ALTER TABLE between changes: each change is read by the Relation before it', () => {
  const wider = wire.relation(1, 'rooms', 'd', ['id*', 'name', 'topic'])
  const [commit] = commitsOf([
    wire.begin(),
    rooms,
    wire.insert(1, ['1', 'a']),
    wider,
    wire.insert(1, ['2', 'b', 'c']),
    wire.commit(),
  ])
  expect(changesOf(commit!)).toEqual([
    ['insert', 0, ['1', 'a']],
    ['insert', 1, ['2', 'b', 'c']],
  ])
})

test('each Relation message makes a new Relation, also an equal one, inside and outside a transaction', () => {
  const commits = commitsOf([
    rooms,
    wire.begin(),
    wire.insert(1, ['1', 'a']),
    wire.insert(1, ['2', 'a']),
    rooms,
    wire.insert(1, ['3', 'a']),
    wire.commit(),
    wire.begin(),
    wire.insert(1, ['4', 'a']),
    wire.commit(),
    rooms,
    wire.begin(),
    wire.insert(1, ['5', 'a']),
    wire.commit(),
  ])
  const relations = commits.flatMap(commit => [...commit.changes()].map(change => change.relation))
  const distinct = [...new Set(relations)]
  expect(relations.map(relation => distinct.indexOf(relation))).toEqual([0, 0, 1, 1, 2])
  const announced = commits.map(commit => commit.announced.map(relation => distinct.indexOf(relation)))
  expect(announced, 'with the commit that follows, the last of each table').toEqual([[1], [], [2]])
})

test('walking twice gives the same Relation objects, from memory and from the file', () => {
  for (const spoolBytes of [1 << 20, 0]) {
    const [commit] = commitsOf([wire.begin(), rooms, wire.insert(1, ['1', 'a']), wire.commit()], { spoolBytes })
    expect([...commit!.changes()][0]!.relation).toBe([...commit!.changes()][0]!.relation)
    expect([...commit!.changes()][0]!.relation).toBe(commit!.announced[0])
    commit!.release()
  }
})

test('reset forgets the relations and the unfinished transaction', () => {
  const assembler = new TransactionAssembler()
  assembler.push(wire.begin())
  assembler.push(rooms)
  assembler.push(wire.insert(1, ['1', 'a']))
  assembler.reset()
  assembler.push(wire.begin())
  expect(() => assembler.push(wire.insert(1, ['1', 'a']))).toThrow(/no Relation message described the table with OID 1/)
})

test('logical messages keep prefix and content; those outside a transaction have no commit', () => {
  const [commit] = commitsOf([
    wire.message('loose', 'x', false),
    wire.begin(),
    wire.message('tidegate', '{"a":1}'),
    wire.message('other', ''),
    wire.commit(),
  ])
  expect(commit!.messages).toEqual([
    { prefix: 'tidegate', content: Buffer.from('{"a":1}') },
    { prefix: 'other', content: Buffer.alloc(0) },
  ])
})

test('[P7] a message content over 1 MiB is left out, and its length kept', () => {
  const [commit] = commitsOf([
    wire.begin(),
    wire.message('big', Buffer.alloc((1 << 20) + 1)),
    wire.message('fits', Buffer.alloc(1 << 20)),
    wire.commit(),
  ])
  expect(commit!.messages.map(({ prefix, content, omittedBytes }) => [prefix, content.length, omittedBytes])).toEqual([
    ['big', 0, (1 << 20) + 1],
    ['fits', 1 << 20, undefined],
  ])
})

test('[P7] a commit keeps 10,000 messages and 16 MiB of content; foreign ones can be refused by prefix', () => {
  const assembler = new TransactionAssembler({ keepMessage: prefix => prefix !== 'foreign' })
  assembler.push(wire.begin())
  const large = wire.message('large', Buffer.alloc(1 << 20))
  for (let count = 0; count < 20; count++) assembler.push(large)
  const small = wire.message('small', '')
  for (let count = 0; count < 10_000; count++) assembler.push(small)
  assembler.push(wire.message('foreign', 'x'))
  const commit = assembler.push(wire.commit())!
  expect(commit.messages).toHaveLength(10_000)
  expect(assembler.droppedMessages).toBe(20)
  expect(commit.messages.reduce((sum, message) => sum + message.content.length, 0)).toBe(16 << 20)
})

test.each([
  ['a change outside a transaction', [rooms, wire.insert(1, ['1', 'a'])]],
  ['a Commit outside a transaction', [wire.commit()]],
  ['a Begin inside a transaction', [wire.begin(), wire.begin()]],
  ['a Commit of another LSN', [wire.begin(1, 5n), wire.commit(6n)]],
  ['a change of an unknown table', [wire.begin(), wire.insert(9, ['1'])]],
  ['a TRUNCATE of an unknown table', [wire.begin(), wire.truncate([9])]],
  ['an unknown letter', [Buffer.from('Zzz')]],
])('%s is a loud error with its code', (_, messages) => {
  expect(() => commitsOf(messages)).toThrow(expect.objectContaining({ code: 'WAL_UNREADABLE' }))
})

test('a tuple with another number of columns than its Relation is a loud error when it is read', () => {
  const [commit] = commitsOf([wire.begin(), rooms, wire.insert(1, ['1']), wire.commit()])
  const [change] = [...commit!.changes()]
  expect(() => change!.kind === 'insert' && change!.new.text(0)).toThrow(/1 columns for public.rooms, which has 2/)
})

test('[P2] a root takes the weakest identity of the partitions that the stream announces', () => {
  const root = wire.relation(1, 'events', 'f', ['id', 'room', 'deleted_at'])
  const full = wire.relation(2, 'events_1', 'f', ['room', 'id', 'deleted_at'])
  const weak = wire.relation(3, 'events_2', 'd', ['id*', 'room', 'deleted_at'])
  const commits = commitsOf([
    wire.begin(),
    root,
    full,
    wire.remove(1, ['O', ['1', '42', null]]),
    root,
    weak,
    wire.update(1, ['2', '42', 'x']),
    wire.remove(1, ['O', ['2', null, null]]),
    wire.commit(),
    root,
    wire.begin(),
    wire.remove(1, ['O', ['3', null, null]]),
    wire.commit(),
    wire.begin(),
    root,
    wire.relation(3, 'events_2', 'f', ['id', 'room', 'deleted_at']),
    wire.remove(1, ['O', ['4', '42', null]]),
    wire.commit(),
  ])
  expect(commits.map(changesOf)).toEqual([
    [
      ['delete', 0, ['1', '42', null]],
      ['update', 1, ['2', undefined, undefined], ['2', '42', 'x']],
      ['delete', 2, ['2', undefined, undefined]],
    ],
    [['delete', 0, ['3', undefined, undefined]]],
    [['delete', 0, ['4', '42', null]]],
  ])
  expect(commits[0]!.announced.map(({ oid, replicaIdentity }) => [oid, replicaIdentity])).toEqual([
    [1, 'default'],
    [2, 'full'],
    [3, 'default'],
  ])
})

test('a table whose Relation only stood after another one, with the same columns, is not taken for its partition', () => {
  const one = wire.relation(1, 'one', 'f', ['id', 'name'])
  const two = wire.relation(2, 'two', 'd', ['id*', 'name'])
  const [commit] = commitsOf([
    wire.begin(),
    one,
    two,
    wire.remove(1, ['O', ['1', 'a']]),
    wire.remove(2, ['K', ['1', null]]),
    wire.remove(1, ['O', ['2', null]]),
    wire.commit(),
  ])
  expect(changesOf(commit!).at(-1)).toEqual(['delete', 2, ['2', null]])
})

const value = fc.option(fc.string({ unit: 'grapheme', maxLength: 20 }), { nil: null })
const row = fc.tuple(value, value, value).map(values => ['k', ...values] as (string | null)[])
const change = fc.oneof(
  row.map(values => ({ bytes: wire.insert(5, values), expected: ['insert', values] })),
  fc.tuple(row, row).map(([old, values]) => ({
    bytes: wire.update(5, values, ['O', old]),
    expected: ['update', old, values],
  })),
  row.map(old => ({ bytes: wire.remove(5, ['O', old]), expected: ['delete', old] })),
)

test('messages decode alike wherever they lie in memory, in whatever order columns are read, held or spooled', () => {
  const table = wire.relation(5, 'wide', 'f', ['id', 'a', 'b', 'c'])
  const property = fc.property(
    fc.array(change, { maxLength: 30 }),
    fc.nat(40),
    fc.array(fc.nat(3), { maxLength: 12 }),
    fc.nat(3000),
    (changes, padding, order, spoolBytes) => {
      const messages = [wire.begin(), table, ...changes.map(({ bytes }) => bytes), wire.commit()]
      const stream = Buffer.concat(messages.flatMap(bytes => [Buffer.alloc(padding, 'I'), bytes]))
      let at = 0
      const slices = messages.map(({ length }) => {
        at += padding + length
        return stream.subarray(at - length, at)
      })
      const [commit] = commitsOf(slices, { spoolBytes })
      for (const walk of [1, 2]) {
        const decoded = [...commit!.changes()]
        for (const [index, { expected }] of changes.entries()) {
          const found = decoded[index]!
          const tuples = [...('old' in found ? [found.old] : []), ...('new' in found ? [found.new] : [])]
          expect(found.index).toBe(index)
          for (const [which, tuple] of tuples.entries()) {
            const values = expected[which + 1] as (string | null)[]
            for (const column of order) expect(tuple.text(column), `walk ${walk}`).toBe(values[column])
          }
          expect(shown(found).toSpliced(1, 1)).toEqual(expected)
        }
      }
      commit!.release()
    },
  )
  fc.assert(property, { numRuns: 300 })
})

test('[P7] the spool lies in a file of its own that leaves no name behind, and cannot be walked after release', () => {
  const spoolFolder = mkdtempSync(join(tmpdir(), 'tidegate-test-'))
  try {
    const large = 'x'.repeat(3 << 20)
    const [commit] = commitsOf(
      [
        wire.begin(),
        rooms,
        wire.insert(1, ['1', 'a']),
        wire.insert(1, ['2', large]),
        notes,
        wire.truncate([2, 1]),
        wire.insert(1, ['3', 'c']),
        wire.commit(),
      ],
      { spoolBytes: 100, spoolFolder },
    )
    expect(commit).toMatchObject({ spooled: true, changeCount: 5 })
    expect(readdirSync(spoolFolder)).toEqual([])
    const expected = [
      ['insert', 0, ['1', 'a']],
      ['insert', 1, ['2', large]],
      ['truncate', 2],
      ['truncate', 3],
      ['insert', 4, ['3', 'c']],
    ]
    expect(changesOf(commit!)).toEqual(expected)
    const [first, second] = [commit!.changes()[Symbol.iterator](), commit!.changes()[Symbol.iterator]()]
    for (let step = 0; step < 5; step++) expect(shown(first.next().value!)).toEqual(shown(second.next().value!))
    commit!.release()
    commit!.release()
    expect(() => [...commit!.changes()]).toThrow(expect.objectContaining({ code: 'SPOOL_FAILED' }))
  } finally {
    rmSync(spoolFolder, { recursive: true })
  }
})

test('a folder that takes no file is SPOOL_FAILED, with the remedy', () => {
  const options = { spoolBytes: 0, spoolFolder: '/nowhere/at/all' }
  expect(() => commitsOf([wire.begin(), rooms, wire.insert(1, ['1', 'a'])], options)).toThrow(/TMPDIR/)
})
