import { mkdtempSync, readdirSync, readlinkSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import type { Commit } from '../../../src/server/decode/change.ts'
import { encodeBlock, encodeParts } from '../../../src/server/relay/block.ts'
import { type BlockId, BlockReader } from '../../../src/server/relay/block-reader.ts'
import * as wire from '../decode/wire-bytes.ts'
import { commitsOf, factsOf, firstLsn } from './commit-facts.ts'

const head = { epoch: '0a1b2c3d', prevLsn: firstLsn - 1n }
const rooms = wire.relation(1, 'rooms', 'd', ['id*', 'name'])

interface Entry {
  readonly id: BlockId
  readonly bytes: Buffer
  /** How many parts the attempt would have had; null for a whole block. */
  readonly count: number | null
}

function commitOf(lsn: bigint, rows: number): Commit {
  const inserts = Array.from({ length: rows }, (_, row) => wire.insert(1, [`${lsn}`, 'x'.repeat(row * 7)]))
  return commitsOf([wire.begin(5, lsn), rooms, ...inserts, wire.commit(lsn)])[0]!
}

/** The parts of one attempt, up to where its leader died. */
function attemptOf(attempt: number, commit: Commit, partBytes: number, until: number): Entry[] {
  const parts = [...encodeParts(head, commit, partBytes)]
  const entries = parts.map((bytes, part): Entry => {
    return { id: { lsn: commit.commitLsn, attempt, part }, bytes, count: parts.length }
  })
  return entries.slice(0, until)
}

const attempt = fc.record({
  lsn: fc.constantFrom(10n, 20n),
  partBytes: fc.constantFrom(60, 100, 101, 200),
  until: fc.oneof(fc.constant(Number.POSITIVE_INFINITY), fc.nat(6)),
})

test('[P4] of attempts cut short, repeated or read from the middle, exactly those come out that came whole', () => {
  const commits = new Map([10n, 20n].map(lsn => [lsn, commitOf(lsn, 6)]))
  const whole = [commitOf(15n, 1)]
  const wholeEntry: Entry = { id: { lsn: 15n, attempt: 0, part: 0 }, bytes: encodeBlock(head, whole), count: null }
  const log = fc.array(fc.oneof({ arbitrary: attempt, weight: 4 }, fc.constant(null)), { minLength: 1, maxLength: 8 })
  // Entries that a reader does not see: trimmed before it began, or lost with a rolled-back tail.
  const holes = fc.array(fc.nat(60), { maxLength: 3 })
  // It reads some of them again, after its connection broke.
  const back = fc.tuple(fc.nat(60), fc.nat(60))
  const property = fc.property(log, holes, back, fc.nat(400), (attempts, holes, [from, until], spoolBytes) => {
    const written = attempts.flatMap((item, number) => {
      if (item === null) return [wholeEntry]
      const before = attempts.slice(0, number).filter(other => other?.lsn === item.lsn).length
      return attemptOf(before, commits.get(item.lsn)!, item.partBytes, item.until)
    })
    const seen = written.filter((_, index) => !holes.includes(index))
    const entries = [...seen.slice(0, until), ...seen.slice(Math.min(from, until))]
    const reader = new BlockReader({ spoolBytes })
    for (const [index, { id, bytes, count }] of entries.entries()) {
      const parts = count === null ? [] : entries.slice(Math.max(0, index + 1 - count), index + 1)
      const isComplete =
        parts.length === (count ?? 0) &&
        parts.every(
          (entry, part) => entry.id.attempt === id.attempt && entry.id.lsn === id.lsn && entry.id.part === part,
        )
      const result = reader.push(id, bytes)
      expect(result !== null, `entry ${index}`).toBe(isComplete)
      if (result === null) continue
      expect(result.commits.map(factsOf)).toEqual((count === null ? whole : [commits.get(id.lsn)!]).map(factsOf))
      for (const commit of result.commits) commit.release()
    }
    reader.reset()
  })
  fc.assert(property, { numRuns: 300 })
})

test('[P4] a part of another epoch, or after another predecessor, does not continue the commit', () => {
  const commit = commitOf(10n, 6)
  for (const other of [
    { ...head, epoch: 'ffffffff' },
    { ...head, prevLsn: 3n },
  ]) {
    const [parts, others] = [head, other].map(head => [...encodeParts(head, commit, 100)])
    const reader = new BlockReader()
    reader.push({ lsn: 10n, attempt: 0, part: 0 }, parts![0]!)
    const rest = others!.slice(1).map((bytes, index) => reader.push({ lsn: 10n, attempt: 0, part: index + 1 }, bytes))
    expect(rest.every(result => result === null)).toBe(true)
  }
})

test.runIf(process.platform === 'linux')('[P7] the file of a commit that is never completed goes with it', () => {
  const spoolFolder = mkdtempSync(join(tmpdir(), 'tidegate-test-'))
  try {
    const parts = [...encodeParts(head, commitOf(10n, 20), 200)]
    const push = (reader: BlockReader, part: number) => reader.push({ lsn: 10n, attempt: 0, part }, parts[part]!)
    const endings: ((reader: BlockReader) => void)[] = [
      reader => reader.reset(),
      reader => push(reader, 3),
      reader => push(reader, 0),
      reader => reader.push({ lsn: 15n, attempt: 0, part: 0 }, encodeBlock(head, [commitOf(15n, 1)])),
      reader => expect(() => reader.push({ lsn: 10n, attempt: 0, part: 2 }, Buffer.alloc(9))).toThrow(),
    ]
    for (const end of endings) {
      const reader = new BlockReader({ spoolBytes: 0, spoolFolder })
      push(reader, 0)
      push(reader, 1)
      const open = filesIn(spoolFolder)
      expect(open).toHaveLength(1)
      end(reader)
      expect(filesIn(spoolFolder)).not.toContain(open[0])
      reader.reset()
      expect(filesIn(spoolFolder)).toEqual([])
    }
  } finally {
    rmSync(spoolFolder, { recursive: true })
  }
})

/** Open files, also those that have no name any more. */
const filesIn = (folder: string): string[] =>
  readdirSync('/proc/self/fd')
    .map(fd => {
      try {
        return readlinkSync(`/proc/self/fd/${fd}`)
      } catch {
        return ''
      }
    })
    .filter(path => path.startsWith(folder))
