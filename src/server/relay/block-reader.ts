// Reads the blocks of the journal (see block.ts) back into commits.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Commit, LogicalMessage, Relation } from '../decode/change.ts'
import { CommitBuilder, oidsOf, type SpoolOptions } from '../decode/commit-builder.ts'
import { type CommitFacts, HeldCommit, type Run, soleOf } from '../decode/held-commit.ts'
import { truncation } from '../decode/row-message.ts'
import { headerBytes as rowHeaderBytes } from '../decode/spool.ts'
import { formatLsn } from '../wal/lsn.ts'
import {
  announcedFlag,
  type BlockHead,
  blockHeaderBytes,
  blockVersion,
  listFlag,
  messagesFlag,
  partFlag,
} from './block.ts'
import { type KnownRelation, KnownRelations } from './relation-codec.ts'

/** An entry of the Stream: `<commit LSN>-<attempt * 2^32 + part>`. */
export interface BlockId {
  /** Of the block's last commit. */
  readonly lsn: bigint
  readonly attempt: number
  readonly part: number
}

export interface ReadBlock extends BlockHead {
  readonly commits: readonly Commit[]
}

export class BlockReader {
  readonly #options: SpoolOptions
  readonly #relations = new KnownRelations()
  #unfinished: Unfinished | null = null

  constructor(options: SpoolOptions = {}) {
    this.#options = options
  }

  /** Takes one entry and keeps the Buffer, because the commits' rows lie in it: its memory must not be written again.
   *  @returns what is complete with this block; null while parts are missing, also when it began in the middle of a commit
   *  @throws JOURNAL_UNREADABLE, SPOOL_FAILED; the unfinished commit is dropped */
  push(id: BlockId, bytes: Buffer): ReadBlock | null {
    try {
      return this.#push(id, bytes)
    } catch (cause) {
      this.reset()
      if (cause instanceof TidegateError) throw cause
      if (cause instanceof RangeError) throw damaged(id, bytes, cause)
      throw cause
    }
  }

  /** Drops an unfinished large commit. */
  reset(): void {
    this.#unfinished?.commit.abandon()
    this.#unfinished = null
  }

  #push(id: BlockId, bytes: Buffer): ReadBlock | null {
    const version = bytes.readUInt8(0)
    const flags = bytes.readUInt8(1)
    if (version > blockVersion || (flags & ~partFlag) !== 0) throw newer(id, version)
    if (version !== blockVersion) throw new RangeError(`version ${version}`)
    const header = {
      epoch: bytes.toString('latin1', 2, 10),
      prevLsn: bytes.readBigUInt64BE(10),
      part: bytes.readUInt32BE(18),
      count: bytes.readUInt32BE(22),
    }
    if (header.part !== id.part) throw new RangeError(`it is part ${header.part}`)
    if (flags === partFlag) return this.#pushPart(id, header, bytes)
    this.reset()
    const { epoch, prevLsn } = header
    const commits = readCommits(
      new Cursor(bytes, blockHeaderBytes, bytes.length, this.#relations),
      header.count,
      prevLsn,
    )
    if (commits.length > 0 && commits.at(-1)!.commitLsn !== id.lsn) throw new RangeError('it ends with another commit')
    return { epoch, prevLsn, commits }
  }

  #pushPart(id: BlockId, header: Header, bytes: Buffer): ReadBlock | null {
    if (header.part >= header.count) throw new RangeError(`it is one of ${header.count} parts`)
    if (header.part === 0) {
      this.reset()
      this.#unfinished = { id, header, next: 0, commit: new PartialCommit(this.#relations, this.#options) }
    }
    const unfinished = this.#unfinished
    if (unfinished === null) return null
    if (!continues(unfinished, id, header)) {
      this.reset()
      return null
    }
    unfinished.commit.take(bytes, blockHeaderBytes)
    unfinished.next++
    if (unfinished.next < header.count) return null
    const commit = unfinished.commit.finish()
    this.#unfinished = null
    if (commit.commitLsn === id.lsn && commit.commitLsn > header.prevLsn)
      return { epoch: header.epoch, prevLsn: header.prevLsn, commits: [commit] }
    commit.release()
    throw new RangeError('it is of another commit')
  }
}

interface Header extends BlockHead {
  readonly part: number
  readonly count: number
}

/** A large commit whose parts have come up to `next`. */
interface Unfinished {
  readonly id: BlockId
  readonly header: Header
  next: number
  readonly commit: PartialCommit
}

/** Two leaders may have cut the same commit differently. */
const continues = (unfinished: Unfinished, id: BlockId, header: Header): boolean =>
  header.part === unfinished.next &&
  id.lsn === unfinished.id.lsn &&
  id.attempt === unfinished.id.attempt &&
  header.count === unfinished.header.count &&
  header.epoch === unfinished.header.epoch &&
  header.prevLsn === unfinished.header.prevLsn

function readCommits(cursor: Cursor, count: number, prevLsn: bigint): Commit[] {
  const commits: Commit[] = []
  let last = prevLsn
  for (let index = 0; index < count; index++) {
    const head = readHead(cursor)
    if (head.commitLsn <= last) throw new RangeError('its commits are not in order')
    last = head.commitLsn
    commits.push(readRows(cursor, head))
  }
  if (cursor.at !== cursor.end) throw new RangeError('it does not end with its last commit')
  return commits
}

interface CommitHead extends CommitFacts {
  readonly changeCount: number
  /** By the numbers that the rows name; null when there is exactly one, and they name none. */
  readonly rowLayouts: readonly Relation[] | null
}

function readHead(cursor: Cursor): CommitHead {
  const flags = cursor.uint8()
  if (flags > 7) throw new RangeError(`a commit has the flags ${flags}`)
  const xid = cursor.uint32()
  const commitLsn = cursor.uint64()
  const endLsn = cursor.uint64()
  const committedAtMicros = cursor.int64()
  const bytes = cursor.varint()
  const changeCount = cursor.varint()
  const rowLayouts = (flags & listFlag) === 0 ? null : cursor.relations()
  // Two that the leader told apart may be one here: equal Relation messages, before and after a change to the catalog.
  const layouts = rowLayouts === null ? null : [...new Set(rowLayouts)]
  const sole = layouts === null ? cursor.relation() : layouts.length === 1 ? soleOf(layouts[0]!) : null
  return {
    xid,
    commitLsn,
    endLsn,
    committedAtMicros,
    bytes,
    relations: sole?.oids ?? oidsOf(layouts!),
    layouts: sole?.layouts ?? layouts!,
    announced: (flags & announcedFlag) === 0 ? noRelations : cursor.relations(),
    messages: (flags & messagesFlag) === 0 ? noMessages : readMessages(cursor),
    changeCount,
    rowLayouts,
  }
}

const noRelations: readonly Relation[] = []
const noMessages: readonly LogicalMessage[] = []

function readMessages(cursor: Cursor): LogicalMessage[] {
  const messages: LogicalMessage[] = []
  for (let count = cursor.varint(); count > 0; count--) {
    const prefix = cursor.slice().toString()
    const isOmitted = cursor.uint8() === 1
    if (isOmitted) messages.push({ prefix, content: truncation, omittedBytes: cursor.varint() })
    else messages.push({ prefix, content: cursor.slice() })
  }
  return messages
}

function readRows(cursor: Cursor, head: CommitHead): HeldCommit {
  const { changeCount, rowLayouts } = head
  if (rowLayouts === null && changeCount === 1) return new HeldCommit(head, cursor.slice(), noRuns)
  const rows: Buffer[] = []
  const runs: Run[] = []
  let current: Relation | null = null
  for (let index = 0; index < changeCount; index++) {
    if (rowLayouts !== null) {
      const relation = layoutOf(rowLayouts, cursor.varint())
      if (relation !== current) runs.push({ from: index, relation })
      current = relation
    }
    rows.push(cursor.slice())
  }
  return new HeldCommit(head, rows.length === 1 ? rows[0]! : rows, runs)
}

const noRuns: readonly Run[] = []

function layoutOf(layouts: readonly Relation[], number: number): Relation {
  const relation = layouts[number]
  if (relation === undefined) throw new RangeError(`a row is of layout ${number}`)
  return relation
}

/** A row message of Postgres is smaller than 1 GiB, and so is what else a record may be. */
const maxRecordBytes = 2 ** 30

/** A large commit, as its parts come. A part ends anywhere: what is left of it waits for the next. */
class PartialCommit {
  readonly #relations: KnownRelations
  readonly #options: SpoolOptions
  #head: CommitHead | null = null
  #builder: CommitBuilder | null = null
  /** The beginning of a record whose end has not come. */
  #tail: Buffer[] = []
  #tailBytes = 0

  constructor(relations: KnownRelations, options: SpoolOptions) {
    this.#relations = relations
    this.#options = options
  }

  /** The content of the next part. */
  take(part: Buffer, start: number): void {
    let at = start
    while (this.#tailBytes > 0 && at < part.length) at = this.#completeTail(part, at)
    while (part.length - at >= rowHeaderBytes) {
      const end = at + rowHeaderBytes + recordBytes(part, at)
      if (end > part.length) break
      this.#record(part, at, end)
      at = end
    }
    if (at === part.length) return
    this.#tail.push(part.subarray(at))
    this.#tailBytes = part.length - at
  }

  finish(): Commit {
    const [head, builder] = [this.#head, this.#builder]
    if (head === null || builder === null || this.#tailBytes > 0) throw new RangeError('its last row is cut off')
    if (builder.count !== head.changeCount)
      throw new RangeError(`it has ${builder.count} rows instead of ${head.changeCount}`)
    builder.bytes = head.bytes
    return builder.commit(head.endLsn, head.announced, head.messages)
  }

  abandon(): void {
    this.#builder?.abandon()
  }

  /** First the header of the record, then the rest. @returns where the part goes on */
  #completeTail(part: Buffer, at: number): number {
    let wanted = rowHeaderBytes
    if (this.#tailBytes >= rowHeaderBytes) {
      if (this.#tail[0]!.length < rowHeaderBytes) this.#tail = [Buffer.concat(this.#tail)]
      wanted += recordBytes(this.#tail[0]!, 0)
    }
    const end = Math.min(part.length, at + wanted - this.#tailBytes)
    this.#tail.push(part.subarray(at, end))
    this.#tailBytes += end - at
    if (this.#tailBytes < wanted) return end
    if (wanted === rowHeaderBytes) {
      this.#tail = [Buffer.concat(this.#tail)]
      if (recordBytes(this.#tail[0]!, 0) > 0) return end
    }
    const record = Buffer.concat(this.#tail)
    this.#tail = []
    this.#tailBytes = 0
    this.#record(record, 0, record.length)
    return end
  }

  #record(bytes: Buffer, at: number, end: number): void {
    const start = at + rowHeaderBytes
    const head = this.#head
    if (head === null) {
      const cursor = new Cursor(bytes, start, end, this.#relations)
      this.#head = readHead(cursor)
      if (cursor.at !== end) throw new RangeError('the head of a commit ends too late')
      const { xid, commitLsn, committedAtMicros } = this.#head
      this.#builder = new CommitBuilder({ xid, finalLsn: commitLsn, committedAtMicros }, 0, this.#options)
      return
    }
    const number = bytes.readUInt32BE(at + 4)
    const builder = this.#builder!
    builder.turnTo(layoutOf(head.rowLayouts ?? head.layouts, number))
    builder.add(bytes.subarray(start, end))
  }
}

function recordBytes(bytes: Buffer, at: number): number {
  const length = bytes.readUInt32BE(at)
  if (length > maxRecordBytes) throw new RangeError(`a row of ${length} bytes`)
  return length
}

/** Where a block has been read to. Reading past the end throws a RangeError. */
class Cursor {
  readonly bytes: Buffer
  readonly end: number
  at: number
  readonly #view: DataView
  readonly #known: KnownRelations
  /** Those that the block has defined, by number. */
  readonly #relations: KnownRelation[] = []

  constructor(bytes: Buffer, at: number, end: number, known: KnownRelations) {
    this.bytes = bytes
    this.at = at
    this.end = end
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, end)
    this.#known = known
  }

  uint8(): number {
    return this.#view.getUint8(this.at++)
  }

  uint32(): number {
    this.at += 4
    return this.#view.getUint32(this.at - 4)
  }

  uint64(): bigint {
    this.at += 8
    return this.#view.getBigUint64(this.at - 8)
  }

  int64(): bigint {
    this.at += 8
    return this.#view.getBigInt64(this.at - 8)
  }

  varint(): number {
    let value = 0
    let factor = 1
    for (;;) {
      const byte = this.uint8()
      value += (byte & 0x7f) * factor
      if (byte < 0x80) break
      factor *= 0x80
    }
    if (!Number.isSafeInteger(value)) throw new RangeError('a number is too large')
    return value
  }

  /** The bytes that a length precedes, as a view. */
  slice(): Buffer {
    const start = this.#skip()
    return this.bytes.subarray(start, this.at)
  }

  relation(): KnownRelation {
    const number = this.varint()
    const known = this.#relations[number]
    if (known !== undefined) return known
    if (number !== this.#relations.length) throw new RangeError(`relation ${number} has not been defined`)
    const start = this.#skip()
    const defined = this.#known.resolve(this.bytes, start, this.at)
    this.#relations.push(defined)
    return defined
  }

  relations(): Relation[] {
    const relations: Relation[] = []
    for (let count = this.varint(); count > 0; count--) relations.push(this.relation().relation)
    return relations
  }

  /** Passes over a length and as many bytes. @returns where they begin */
  #skip(): number {
    const length = this.varint()
    const start = this.at
    this.at += length
    if (this.at > this.end) throw new RangeError('it ends too early')
    return start
  }
}

const nameOf = ({ lsn, attempt, part }: BlockId): string => `${formatLsn(lsn)}, attempt ${attempt}, part ${part}`

function newer(id: BlockId, version: number): TidegateError {
  const message = `the journal's block ${nameOf(id)} is of format ${version}, and this node reads ${blockVersion}: a newer release wrote it: upgrade this node`
  return new TidegateError('JOURNAL_UNREADABLE', message)
}

function damaged(id: BlockId, bytes: Buffer, cause: RangeError): TidegateError {
  const message = `the journal's block ${nameOf(id)}, of ${bytes.length} bytes, cannot be read: ${cause.message}`
  return new TidegateError('JOURNAL_UNREADABLE', message, { cause })
}
