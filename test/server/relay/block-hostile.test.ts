import fc from 'fast-check'
import { expect, test } from 'vitest'
import { TidegateError } from '../../../src/protocol/tidegate-error.ts'
import type { Commit } from '../../../src/server/decode/change.ts'
import { encodeBlock, encodeParts } from '../../../src/server/relay/block.ts'
import { blockHeaderBytes } from '../../../src/server/relay/block-format.ts'
import { type BlockId, BlockReader, type ReadBlock } from '../../../src/server/relay/block-reader.ts'
import * as wire from '../decode/wire-bytes.ts'
import { commitsOf, factsOf, firstLsn } from './commit-facts.ts'

const head = { epoch: '0a1b2c3d', prevLsn: firstLsn - 1n }
const commits = commitsOf([
  wire.begin(1, 10n),
  wire.relation(1, 'rooms', 'd', ['id*', 'name']),
  wire.relation(2, 'notes', 'f', ['id', 'body']),
  wire.insert(1, ['1', 'a']),
  wire.update(2, ['1', 'b'], ['O', ['1', null]]),
  wire.truncate([1]),
  wire.message('tidegate', 'x'),
  wire.commit(10n),
  wire.begin(2, 20n),
  wire.insert(1, ['2', 'b']),
  wire.commit(20n),
])
const block = encodeBlock(head, commits)
const blockId: BlockId = { lsn: 20n, attempt: 0, part: 0 }
const parts = [...encodeParts(head, commits[0]!, 80)]

const unreadable = expect.objectContaining({ code: 'JOURNAL_UNREADABLE' })

/** Reads, and looks at every row: whatever is wrong is said as an error of ours. */
function attempt(read: () => ReadBlock | null): ReadBlock | null {
  try {
    const result = read()
    for (const commit of result?.commits ?? []) {
      factsOf(commit)
      commit.release()
    }
    return result
  } catch (error) {
    expect(error).toBeInstanceOf(TidegateError)
    return null
  }
}

const pushAll = (reader: BlockReader, all: readonly Buffer[]): ReadBlock | null =>
  all.map((bytes, part) => reader.push({ lsn: 10n, attempt: 0, part }, bytes)).at(-1)!

test('a block of a newer release is refused, with what to do', () => {
  const newer = Buffer.from(block)
  newer[0] = 2
  expect(() => new BlockReader().push(blockId, newer)).toThrow(unreadable)
  expect(() => new BlockReader().push(blockId, newer)).toThrow(/0\/14.*format 2.*upgrade this node/)
  const unknownFlag = Buffer.from(block)
  unknownFlag[1] = 0x80
  expect(() => new BlockReader().push(blockId, unknownFlag)).toThrow(/upgrade this node/)
})

test('a block that ends early, or late, is unreadable wherever it is cut', () => {
  for (let length = 0; length < block.length; length++)
    expect(() => new BlockReader().push(blockId, block.subarray(0, length)), `${length} bytes`).toThrow(unreadable)
  expect(() => new BlockReader().push(blockId, Buffer.concat([block, Buffer.alloc(1)]))).toThrow(unreadable)
})

test.each<[string, BlockId]>([
  ['of another commit', { ...blockId, lsn: 21n }],
  ['as another part', { ...blockId, part: 1 }],
])('an entry %s than its ID says is unreadable', (_, id) => {
  expect(() => new BlockReader().push(id, block)).toThrow(unreadable)
})

test('commits that are not after the predecessor, or not in order, are unreadable', () => {
  const late = encodeBlock({ ...head, prevLsn: 10n }, commits)
  expect(() => new BlockReader().push(blockId, late)).toThrow(unreadable)
  const reversed = encodeBlock(head, commits.toReversed())
  expect(() => new BlockReader().push({ ...blockId, lsn: 10n }, reversed)).toThrow(unreadable)
})

test('parts of another commit than their ID says, or of one that is not after the predecessor, are unreadable', () => {
  const other = parts.map((_, part) => ({ lsn: 11n, attempt: 0, part }))
  const reader = new BlockReader()
  expect(() => other.map((id, part) => reader.push(id, parts[part]!))).toThrow(unreadable)
  const late = [...encodeParts({ ...head, prevLsn: 10n }, commits[0]!, 80)]
  expect(() => pushAll(reader, late)).toThrow(unreadable)
})

test('parts that end early, or late, are unreadable', () => {
  expect(pushAll(new BlockReader(), parts)).not.toBeNull()
  const last = parts.at(-1)!
  for (const spoolBytes of [0, 1 << 20]) {
    for (let length = 0; length < last.length; length++) {
      const cut = [...parts.slice(0, -1), last.subarray(0, length)]
      expect(() => pushAll(new BlockReader({ spoolBytes }), cut), `${length} bytes`).toThrow(unreadable)
    }
    const long = [...parts.slice(0, -1), Buffer.concat([last, Buffer.alloc(8)])]
    expect(() => pushAll(new BlockReader({ spoolBytes }), long)).toThrow(unreadable)
  }
})

test('after an unreadable block the reader takes the next', () => {
  const reader = new BlockReader()
  pushAll(reader, parts.slice(0, 2))
  expect(() => reader.push(blockId, block.subarray(0, 50))).toThrow(unreadable)
  expect(reader.push({ lsn: 10n, attempt: 0, part: 2 }, parts[2]!), 'the commit begun before is dropped').toBeNull()
  expect(reader.push(blockId, block)!.commits.map(factsOf)).toEqual(commits.map(factsOf))
})

test('random bytes, and blocks with some bytes changed, are unreadable or read, never anything else', () => {
  const changes = fc.array(fc.tuple(fc.nat(1000), fc.nat(255)), { minLength: 1, maxLength: 4 })
  const whole = fc.property(changes, fc.uint8Array({ maxLength: 60 }), (changed, random) => {
    const bytes = Buffer.from(block)
    for (const [at, value] of changed) bytes[blockHeaderBytes + (at % (bytes.length - blockHeaderBytes))] = value
    attempt(() => new BlockReader().push(blockId, bytes))
    attempt(() => new BlockReader().push(blockId, Buffer.from(random)))
    attempt(() => new BlockReader().push(blockId, Buffer.concat([block.subarray(0, blockHeaderBytes), random])))
  })
  fc.assert(whole, { numRuns: 2000 })
  const inParts = fc.property(changes, fc.nat(300), (changed, spoolBytes) => {
    const content = Buffer.concat(parts.map(part => part.subarray(blockHeaderBytes)))
    for (const [at, value] of changed) content[at % content.length] = value
    let at = 0
    const all = parts.map(part => {
      at += part.length - blockHeaderBytes
      return Buffer.concat([
        part.subarray(0, blockHeaderBytes),
        content.subarray(at - part.length + blockHeaderBytes, at),
      ])
    })
    const reader = new BlockReader({ spoolBytes })
    attempt(() => pushAll(reader, all))
    reader.reset()
  })
  fc.assert(inParts, { numRuns: 1000 })
})

const varint = (...bytes: number[]) => Buffer.from(bytes)
const most = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f] as const

/** A commit's head up to its counts. */
const fixed = (flags: number): Buffer => {
  const bytes = Buffer.alloc(29)
  bytes[0] = flags
  bytes.writeBigUInt64BE(10n, 5)
  return bytes
}
const defined = block.subarray(block.indexOf(Buffer.from('rooms')) - 30)

test.each<[string, Buffer[]]>([
  ['changes', [fixed(1), varint(1, ...most), varint(0)]],
  ['bytes', [fixed(1), varint(...most), varint(0, 0)]],
  ['endless digits', [fixed(1), Buffer.alloc(5000, 0xff)]],
  ['layouts', [fixed(1), varint(1, 0), varint(...most)]],
  ['announced relations', [fixed(3), varint(1, 0), varint(0), varint(...most)]],
  ['messages', [fixed(5), varint(1, 0), varint(0), varint(...most)]],
  ['bytes of a prefix', [fixed(5), varint(1, 0), varint(0), varint(1), varint(...most)]],
  ['bytes of a definition', [fixed(0), varint(1, 1), varint(0), varint(...most)]],
  [
    'columns',
    [fixed(0), varint(1, 1), varint(0, 17), Buffer.from('00000001000ffffffff0000000000000000', 'hex'), defined],
  ],
])('[P7] a block that promises very many %s takes no memory for them', (_, content) => {
  const bytes = Buffer.concat([encodeBlock(head, []), ...content, Buffer.alloc(200)])
  bytes.writeUInt32BE(0xffff_ffff, 22)
  const before = memory()
  expect(() => new BlockReader().push({ ...blockId, lsn: 10n }, bytes)).toThrow(unreadable)
  expect(memory() - before).toBeLessThan(4 << 20)
})

test.each([
  ['more bytes', 2, 1 << 16],
  ['more rows', 1, 1],
])('[P7] parts that bring %s than the head said are unreadable before they fill the memory', (_, rows, rowBytes) => {
  const [commit] = commitsOf([
    ...[wire.begin(1, 10n), wire.relation(1, 'rooms', 'd', ['id*'])],
    ...Array.from({ length: rows }, () => wire.insert(1, ['1'])),
    wire.commit(10n),
  ])
  const [part] = [...encodeParts(head, commit!, 1 << 20)]
  const headEnd = blockHeaderBytes + 8 + part!.readUInt32BE(blockHeaderBytes)
  const row = Buffer.alloc(8 + rowBytes)
  row.writeUInt32BE(rowBytes)
  const bytes = Buffer.concat([part!.subarray(0, headEnd), row, row])
  bytes.writeUInt32BE(1000, 22)
  expect(() => new BlockReader().push({ lsn: 10n, attempt: 0, part: 0 }, bytes)).toThrow(/more than its head says/)
})

const memory = (): number => {
  const { heapUsed, arrayBuffers } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

test('a commit that is not of ours is refused loudly, and so is an epoch that does not fit', () => {
  const foreign = { ...commits[0]! } as Commit
  expect(() => encodeBlock(head, [foreign])).toThrow(TypeError)
  expect(() => encodeBlock({ ...head, epoch: '1' }, commits)).toThrow(TypeError)
})
