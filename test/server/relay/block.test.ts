import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Commit } from '../../../src/server/decode/change.ts'
import { TransactionAssembler, type TransactionOptions } from '../../../src/server/decode/transaction.ts'
import { blockBytesOf, encodeBlock, encodeParts } from '../../../src/server/relay/block.ts'
import { BlockReader } from '../../../src/server/relay/block-reader.ts'
import * as wire from '../decode/wire-bytes.ts'
import { facts, random } from './commit-facts.ts'

const head = { epoch: '0a1b2c3d', prevLsn: 7n }
const rooms = wire.relation(1, 'rooms', 'd', ['id*', 'name'])
const notes = wire.relation(2, 'notes', 'f', ['id', 'body', 'räume'])

function commitsOf(messages: readonly Buffer[], options?: TransactionOptions): Commit[] {
  const assembler = new TransactionAssembler(options)
  return messages.map(message => assembler.push(message)).filter(commit => commit !== null)
}

const idOf = (commits: readonly Commit[], part = 0, attempt = 0) => ({ lsn: commits.at(-1)!.commitLsn, attempt, part })

/** What a reader makes of these commits in one block. */
const throughBlock = (commits: readonly Commit[], reader = new BlockReader()): readonly Commit[] =>
  reader.push(idOf(commits), encodeBlock(head, commits))!.commits

function throughParts(commit: Commit, partBytes: number, reader = new BlockReader()): readonly Commit[] {
  const parts = [...encodeParts(head, commit, partBytes)]
  const results = parts.map((part, number) => reader.push(idOf([commit], number), part))
  expect(results.slice(0, -1).every(result => result === null)).toBe(true)
  expect(results.at(-1)).toMatchObject(head)
  return results.at(-1)!.commits
}

test('a block tells its epoch, what precedes it, and each commit as it was', () => {
  const commits = commitsOf([
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
  ])
  const block = new BlockReader().push(idOf(commits), encodeBlock(head, commits))!
  expect(block).toMatchObject(head)
  expect(block.commits.map(facts)).toEqual(commits.map(facts))
})

test('random commits come out of blocks and parts as they went in, held or spooled on either side', () => {
  const property = fc.property(
    random.commits,
    fc.integer({ min: 1, max: 3000 }),
    fc.nat(2000),
    fc.nat(2000),
    (messages, partBytes, writerSpool, readerSpool) => {
      const commits = commitsOf(messages)
      const expected = commits.map(facts)
      expect(throughBlock(commits).map(facts)).toEqual(expected)
      const reader = new BlockReader({ spoolBytes: readerSpool })
      const large = commitsOf(messages, { spoolBytes: writerSpool })
      for (const [index, commit] of large.entries()) {
        const found = throughParts(commit, partBytes, reader)
        expect(found.map(facts)).toEqual([expected[index]])
        expect(throughParts(found[0]!, partBytes + 1, reader).map(facts)).toEqual([expected[index]])
        for (const done of [commit, ...found]) done.release()
      }
      for (const commit of commits) expect(blockBytesOf(commit)).toBeGreaterThan(0)
    },
  )
  fc.assert(property, { numRuns: 300 })
})
