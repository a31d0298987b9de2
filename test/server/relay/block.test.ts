import v8 from 'node:v8'
import vm from 'node:vm'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Commit } from '../../../src/server/decode/change.ts'
import { TransactionAssembler } from '../../../src/server/decode/transaction.ts'
import type { WireTuple } from '../../../src/server/decode/tuple.ts'
import { blockBytesOf, encodeBlock, encodeParts } from '../../../src/server/relay/block.ts'
import { BlockReader } from '../../../src/server/relay/block-reader.ts'
import * as wire from '../decode/wire-bytes.ts'
import { commitsOf, factsOf, firstLsn, identitiesOf, randomMessages } from './commit-facts.ts'

const head = { epoch: '0a1b2c3d', prevLsn: firstLsn - 1n }
const rooms = wire.relation(1, 'rooms', 'd', ['id*', 'name'])
const notes = wire.relation(2, 'notes', 'f', ['id', 'body', 'räume'])

const idOf = (commits: readonly Commit[], part = 0) => ({ lsn: commits.at(-1)!.commitLsn, attempt: 0, part })

/** What a reader makes of these commits in one block. */
const throughBlock = (commits: readonly Commit[], reader = new BlockReader()): readonly Commit[] =>
  reader.push(idOf(commits), encodeBlock(head, commits))!.commits

function throughParts(commit: Commit, partBytes: number, reader = new BlockReader()): readonly Commit[] {
  const results = [...encodeParts(head, commit, partBytes)].map((part, number) =>
    reader.push(idOf([commit], number), part),
  )
  expect(results.slice(0, -1).every(result => result === null)).toBe(true)
  expect(results.at(-1)).toMatchObject(head)
  return results.at(-1)!.commits
}

const everything = [
  wire.begin(0xffff_fff0, 500n, 123_456n),
  rooms,
  wire.insert(1, ['7', 'lobby']),
  notes,
  wire.update(2, ['1', undefined, '8'], ['O', ['1', 'long', null]]),
  wire.truncate([2, 1]),
  wire.remove(1, ['K', ['7', null]]),
  wire.commit(500n, 548n, 123_456n),
  wire.begin(2, 600n, -5n),
  wire.insert(1, ['8', 'ü']),
  wire.commit(600n),
  wire.begin(3, 2n ** 64n - 9n),
  wire.message('tidegate', '{"a":1}'),
  wire.message('größer', Buffer.alloc((1 << 20) + 1)),
  wire.commit(2n ** 64n - 9n, 2n ** 64n - 1n),
]

test('a block tells its epoch, what precedes it, and each commit as it was', () => {
  const commits = commitsOf(everything)
  const block = new BlockReader().push(idOf(commits), encodeBlock(head, commits))!
  expect(block).toMatchObject(head)
  expect(block.commits.map(factsOf)).toEqual(commits.map(factsOf))
  expect(block.commits[2]!.messages).toEqual([
    { prefix: 'tidegate', content: Buffer.from('{"a":1}') },
    { prefix: 'größer', content: Buffer.alloc(0), omittedBytes: (1 << 20) + 1 },
  ])
})

test('a block without commits tells its epoch and what precedes it', () => {
  const block = new BlockReader().push({ lsn: 9n, attempt: 3, part: 0 }, encodeBlock(head, []))
  expect(block).toEqual({ ...head, commits: [] })
})

test('random commits come out of blocks and parts of any size as they went in, held or spooled on either side', () => {
  const property = fc.property(
    randomMessages,
    fc.integer({ min: 1, max: 500 }),
    fc.nat(2000),
    fc.nat(2000),
    (messages, partBytes, writerSpool, readerSpool) => {
      const commits = commitsOf(messages)
      const expected = commits.map(factsOf)
      const whole = throughBlock(commits)
      expect(whole.map(factsOf)).toEqual(expected)
      expect(identitiesOf(whole)).toEqual(identitiesOf(commits))
      expect(throughBlock(whole).map(factsOf), 'what was read, written again').toEqual(expected)
      const reader = new BlockReader({ spoolBytes: readerSpool })
      for (const [index, commit] of commitsOf(messages, { spoolBytes: writerSpool }).entries()) {
        const found = throughParts(commit, partBytes, reader)
        expect(found.map(factsOf)).toEqual([expected[index]])
        expect(identitiesOf(found)).toEqual(identitiesOf([commit]))
        const again = throughParts(found[0]!, partBytes + 1, reader)
        expect(again.map(factsOf)).toEqual([expected[index]])
        for (const done of [commit, ...found, ...again]) done.release()
      }
    },
  )
  fc.assert(property, { numRuns: 150 })
})

test('a block carries the relations that its commits name, and none is announced by that', () => {
  const [first, second] = commitsOf([
    wire.begin(1, 10n),
    rooms,
    wire.insert(1, ['1', 'a']),
    wire.commit(10n),
    wire.begin(2, 20n),
    wire.insert(1, ['2', 'b']),
    wire.commit(20n),
  ])
  const [late] = throughBlock([second!])
  expect(late!.announced).toEqual([])
  expect(factsOf(late!)).toEqual(factsOf(second!))
  const both = throughBlock([first!, second!])
  expect(both.map(({ announced }) => announced.length)).toEqual([1, 0])
})

test('a relation stays the same object from block to block, until it is described otherwise', () => {
  const wider = wire.relation(1, 'rooms', 'd', ['id*', 'name', 'topic'])
  const commits = commitsOf([
    ...[wire.begin(1, 10n), rooms, wire.insert(1, ['1', 'a']), wire.commit(10n)],
    ...[wire.begin(2, 20n), wire.insert(1, ['2', 'b']), wire.commit(20n)],
    ...[wire.begin(3, 30n), rooms, wire.insert(1, ['3', 'c']), wire.commit(30n)],
    ...[wire.begin(4, 40n), wider, wire.insert(1, ['4', 'd', 'e']), wire.commit(40n)],
  ])
  const reader = new BlockReader()
  const read = commits.flatMap(commit => throughBlock([commit], reader))
  expect(read.map(({ layouts }) => layouts.indexOf(read[0]!.layouts[0]!))).toEqual([0, 0, 0, -1])
  expect(read.map(({ announced }) => announced.length)).toEqual([1, 0, 1, 1])
  expect(read.map(factsOf)).toEqual(commits.map(factsOf))
})

test('rows stay where the block has them: reading copies nothing', () => {
  const commits = commitsOf(everything)
  const bytes = encodeBlock(head, commits)
  const block = new BlockReader().push(idOf(commits), bytes)!
  for (const commit of block.commits)
    for (const change of commit.changes())
      if ('new' in change) expect((change.new as WireTuple).bytes(0)!.buffer).toBe(bytes.buffer)
})

test('parts are made one at a time and are no larger than asked for, also of a row that is larger', () => {
  const large = 'x'.repeat(100_000)
  const [commit] = commitsOf([
    wire.begin(),
    rooms,
    wire.insert(1, ['1', large]),
    wire.insert(1, ['2', 'b']),
    wire.commit(),
  ])
  const parts = [...encodeParts({ ...head, prevLsn: 0n }, commit!, 4096)]
  expect(parts.length).toBe(25)
  expect(parts.every(({ length }) => length <= 4096)).toBe(true)
  expect(new Set(parts.map(({ buffer }) => buffer)).size).toBe(25)
})

test('how full a block becomes is known ahead, within a tenth', () => {
  const lsns = Array.from({ length: 500 }, (_, index) => firstLsn + BigInt(index))
  const commits = commitsOf([
    rooms,
    ...lsns.flatMap(lsn => [
      wire.begin(1, lsn),
      wire.insert(1, ['1', 'x'.repeat(Number(lsn % 90n))]),
      wire.commit(lsn),
    ]),
  ])
  const expected = commits.reduce((sum, commit) => sum + blockBytesOf(commit), 0)
  const { length } = encodeBlock(head, commits)
  expect(Math.abs(length - expected)).toBeLessThan(length / 10)
})

test('[P7] a commit of 60 MB passes from file to file through bounded memory', () => {
  const row = wire.insert(1, ['1', 'x'.repeat(600)])
  const assembler = new TransactionAssembler({ spoolBytes: 1 << 20 })
  for (const message of [wire.begin(1, 10n), rooms]) assembler.push(message)
  for (let count = 0; count < 100_000; count++) assembler.push(row)
  const commit = assembler.push(wire.commit(10n))!
  const start = memory()
  let peak = 0
  let part = 0
  const reader = new BlockReader({ spoolBytes: 1 << 20 })
  let read: Commit | null = null
  for (const bytes of encodeParts(head, commit, 1 << 18)) {
    read = reader.push({ lsn: 10n, attempt: 0, part }, bytes)?.commits[0] ?? null
    if (++part % 25 === 0) peak = Math.max(peak, memory() - start)
  }
  expect(part).toBeGreaterThan(200)
  // What 25 parts have left for the collector: it frees some of them a moment later.
  expect(peak).toBeLessThan(16 << 20)
  expect(read).toMatchObject({ spooled: true, changeCount: 100_000, bytes: commit.bytes })
  let rows = 0
  for (const change of read!.passing()) if (change.kind === 'insert' && change.new.text(1)!.length === 600) rows++
  expect(rows).toBe(100_000)
  expect([...read!.changes(99_998)].map(({ index }) => index)).toEqual([99_998, 99_999])
  for (const done of [commit, read!]) done.release()
})

/** Bytes alive: heap and buffers, after a collection. */
function memory(): number {
  collect()
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

v8.setFlagsFromString('--expose-gc')
const collect = vm.runInNewContext('gc') as () => void
