// Puts commits into blocks of the journal, in the format of block-format.ts.
import type { Commit, Relation } from '../decode/change.ts'
import { HeldCommit, type Run } from '../decode/held-commit.ts'
import { headerBytes as rowHeaderBytes } from '../decode/spool.ts'
import { SpooledCommit } from '../decode/spooled-commit.ts'
import { BlockCommit } from './block-commit.ts'
import {
  announcedFlag,
  type BlockHead,
  blockHeaderBytes,
  blockVersion,
  commitLsnAt,
  committedAt,
  countsAt,
  endLsnAt,
  listFlag,
  messagesFlag,
  partFlag,
  xidAt,
} from './block-format.ts'
import { definitionOf } from './relation-codec.ts'

/** One block of whole commits that are held in memory. A commit of one row of 100 bytes takes 45 ns. */
export function encodeBlock(head: BlockHead, commits: readonly Commit[]): Buffer {
  scratch.begin()
  scratch.reserve(blockHeaderBytes)
  scratch.at = writeHeader(scratch.bytes, head, 0, 0, commits.length)
  for (const commit of commits) {
    scratch.head(commit)
    scratch.rows(heldRows(commit))
  }
  return scratch.take()
}

/** A large commit, spooled or not, in parts of at most about `partBytes`, each made when it is asked for. The commit must not
 *  be released before the last. For each row of 88 bytes 10 ns, from a file, or 70 ns. @throws SPOOL_FAILED */
export function* encodeParts(head: BlockHead, commit: Commit, partBytes: number): Generator<Buffer, void> {
  const first = headRecord(commit)
  if (commit instanceof SpooledCommit) {
    const parts = new Parts(head, first.length + commit.spool.bytes, partBytes)
    yield* parts.put(first)
    for (let position = 0; position < commit.spool.bytes; ) {
      if (parts.room === 0) yield parts.next()
      const bytes = parts.take(Math.min(parts.room, commit.spool.bytes - position))
      commit.spool.fill(bytes, position)
      position += bytes.length
    }
    yield parts.last()
    return
  }
  const { rows, layouts, runs } = heldRows(commit)
  const list = Buffer.isBuffer(rows) ? [rows] : rows
  const parts = new Parts(head, first.length + recordBytesOf(list), partBytes)
  yield* parts.put(first)
  const header = Buffer.alloc(rowHeaderBytes)
  let run = 0
  let layout = 0
  for (let index = 0; index < list.length; index++) {
    const row = list[index]!
    if (runs?.[run]?.from === index) layout = layouts.indexOf(runs[run++]!.relation)
    header.writeUInt32BE(row.length, 0)
    header.writeUInt32BE(layout, 4)
    if (rowHeaderBytes + row.length <= parts.room) parts.add(header, row)
    else {
      yield* parts.put(header)
      yield* parts.put(row)
    }
  }
  yield parts.last()
}

/** Bytes that a commit takes in a block, about: its own, with a head of some 33 instead of Begin and Commit (47). What the
 *  block says once for all, its relations, is not counted, and a logical message that was left out is. */
export const blockBytesOf = ({ bytes, changeCount, layouts }: Commit): number =>
  bytes - 14 + changeCount * (layouts.length === 1 ? 4 : rowHeaderBytes)

function writeHeader(bytes: Buffer, head: BlockHead, flags: number, part: number, count: number): number {
  if (head.epoch.length !== 8) throw new TypeError(`the epoch ${head.epoch} is not of 8 hex digits`)
  bytes[0] = blockVersion
  bytes[1] = flags
  bytes.write(head.epoch, 2, 'latin1')
  bytes.writeBigUInt64BE(head.prevLsn, 10)
  bytes.writeUInt32BE(part, 18)
  bytes.writeUInt32BE(count, 22)
  return blockHeaderBytes
}

function headRecord(commit: Commit): Buffer {
  scratch.begin()
  scratch.reserve(rowHeaderBytes)
  scratch.at = rowHeaderBytes
  scratch.head(commit)
  scratch.bytes.writeUInt32BE(scratch.at - rowHeaderBytes, 0)
  scratch.bytes.writeUInt32BE(0, 4)
  return scratch.take()
}

interface HeldRows {
  readonly rows: Buffer | readonly Buffer[]
  readonly layouts: readonly Relation[]
  readonly runs: readonly Run[] | null
}

function heldRows(commit: Commit): HeldRows {
  if (commit instanceof HeldCommit || commit instanceof BlockCommit) return commit
  throw new TypeError(`commit ${commit.commitLsn} is not held in memory`)
}

function recordBytesOf(rows: readonly Buffer[]): number {
  let bytes = 0
  for (const row of rows) bytes += rowHeaderBytes + row.length
  return bytes
}

/** The parts of one commit, filled one after the other. */
class Parts {
  readonly #head: BlockHead
  readonly #size: number
  readonly #count: number
  #left: number
  #number = -1
  #part: Buffer = Buffer.alloc(0)
  #at = 0

  constructor(head: BlockHead, contentBytes: number, partBytes: number) {
    this.#head = head
    this.#size = Math.max(1, partBytes - blockHeaderBytes)
    this.#count = Math.ceil(contentBytes / this.#size)
    this.#left = contentBytes
    this.#begin()
  }

  get room(): number {
    return this.#part.length - this.#at
  }

  /** Copies the bytes, over as many parts as it takes. */
  *put(bytes: Buffer): Generator<Buffer, void> {
    for (let from = 0; from < bytes.length; ) {
      if (this.room === 0) yield this.next()
      from += bytes.copy(this.take(Math.min(this.room, bytes.length - from)), 0, from)
    }
  }

  /** Copies what there is room for. */
  add(header: Buffer, row: Buffer): void {
    const part = this.#part
    part.set(header, this.#at)
    part.set(row, this.#at + rowHeaderBytes)
    this.#at += rowHeaderBytes + row.length
  }

  /** To be filled by the caller. */
  take(length: number): Buffer {
    this.#at += length
    return this.#part.subarray(this.#at - length, this.#at)
  }

  /** The part that is full, and begins another. */
  next(): Buffer {
    const part = this.#part
    this.#begin()
    return part
  }

  last(): Buffer {
    if (this.#left > 0 || this.room > 0) throw new RangeError(`${this.#left + this.room} bytes of a commit are missing`)
    return this.#part
  }

  #begin(): void {
    const length = Math.min(this.#size, this.#left)
    this.#left -= length
    this.#number++
    this.#part = Buffer.allocUnsafeSlow(blockHeaderBytes + length)
    this.#at = writeHeader(this.#part, this.#head, partFlag, this.#number, this.#count)
  }
}

/** What a scratch buffer keeps at most, when a block was larger. */
const scratchBytes = 1 << 20

/** Where blocks are put together. */
class Scratch {
  bytes = Buffer.allocUnsafeSlow(scratchBytes)
  at = 0
  #view = new DataView(this.bytes.buffer)
  readonly #numbers = new Map<Relation, number>()
  #last: Relation | null = null
  #lastNumber = 0

  begin(): void {
    this.at = 0
    this.#numbers.clear()
    this.#last = null
  }

  /** A copy of what was written. */
  take(): Buffer {
    const bytes = Buffer.allocUnsafe(this.at)
    this.bytes.copy(bytes, 0, 0, this.at)
    if (this.bytes.length > scratchBytes) this.#resize(scratchBytes)
    return bytes
  }

  reserve(count: number): void {
    if (this.at + count > this.bytes.length) this.#resize(Math.max(this.bytes.length * 2, this.at + count))
  }

  head(commit: Commit): void {
    const { layouts, announced, messages } = commit
    this.reserve(64)
    const { bytes, at } = this
    const view = this.#view
    const isList = layouts.length !== 1
    bytes[at] =
      (isList ? listFlag : 0) | (announced.length > 0 ? announcedFlag : 0) | (messages.length > 0 ? messagesFlag : 0)
    view.setUint32(at + xidAt, commit.xid)
    view.setBigUint64(at + commitLsnAt, commit.commitLsn)
    view.setBigUint64(at + endLsnAt, commit.endLsn)
    view.setBigInt64(at + committedAt, commit.committedAtMicros)
    this.at = at + countsAt
    this.#varint(commit.bytes)
    this.#varint(commit.changeCount)
    if (isList) this.#relations(layouts)
    else this.#relation(layouts[0]!)
    if (announced.length > 0) this.#relations(announced)
    if (messages.length > 0) this.#messages(messages)
  }

  rows({ rows, layouts, runs }: HeldRows): void {
    if (Buffer.isBuffer(rows)) {
      this.#row(rows)
      return
    }
    if (layouts.length === 1) {
      for (const row of rows) this.#row(row)
      return
    }
    let run = 0
    let layout = 0
    for (let index = 0; index < rows.length; index++) {
      const row = rows[index]!
      if (runs?.[run]?.from === index) layout = layouts.indexOf(runs[run++]!.relation)
      this.reserve(rowHeaderBytes + row.length)
      this.#view.setUint32(this.at, row.length)
      this.#view.setUint32(this.at + 4, layout)
      this.bytes.set(row, this.at + rowHeaderBytes)
      this.at += rowHeaderBytes + row.length
    }
  }

  #row(row: Buffer): void {
    this.reserve(4 + row.length)
    this.#view.setUint32(this.at, row.length)
    this.bytes.set(row, this.at + 4)
    this.at += 4 + row.length
  }

  #relations(relations: readonly Relation[]): void {
    this.reserve(16)
    this.#varint(relations.length)
    for (const relation of relations) this.#relation(relation)
  }

  #relation(relation: Relation): void {
    this.reserve(16)
    if (relation === this.#last) {
      this.#varint(this.#lastNumber)
      return
    }
    const number = this.#numbers.get(relation) ?? this.#numbers.size
    this.#last = relation
    this.#lastNumber = number
    this.#varint(number)
    if (number < this.#numbers.size) return
    this.#numbers.set(relation, number)
    const definition = definitionOf(relation)
    this.reserve(16 + definition.length)
    this.#bytes(definition)
  }

  #messages(messages: Commit['messages']): void {
    this.#varint(messages.length)
    for (const { prefix, content, omittedBytes } of messages) {
      const prefixBytes = Buffer.from(prefix)
      this.reserve(48 + prefixBytes.length + content.length)
      this.#bytes(prefixBytes)
      this.bytes[this.at++] = omittedBytes === undefined ? 0 : 1
      if (omittedBytes === undefined) this.#bytes(content)
      else this.#varint(omittedBytes)
    }
  }

  /** Length and bytes. */
  #bytes(bytes: Buffer): void {
    this.#varint(bytes.length)
    this.bytes.set(bytes, this.at)
    this.at += bytes.length
  }

  #varint(value: number): void {
    let rest = value
    while (rest > 0x7f) {
      this.bytes[this.at++] = (rest % 0x80) | 0x80
      rest = Math.floor(rest / 0x80)
    }
    this.bytes[this.at++] = rest
  }

  #resize(length: number): void {
    const bytes = Buffer.allocUnsafeSlow(length)
    this.bytes.copy(bytes, 0, 0, Math.min(this.at, length))
    this.bytes = bytes
    this.#view = new DataView(bytes.buffer)
  }
}

/** One for the process: a block is encoded in one turn. */
const scratch = new Scratch()
