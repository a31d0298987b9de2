// Reads the blocks of the journal (see block-format.ts) back into commits.
import { TidegateError } from '../../protocol/tidegate-error.ts'
import type { Commit } from '../decode/change.ts'
import type { SpoolOptions } from '../decode/commit-builder.ts'
import { formatLsn } from '../wal/lsn.ts'
import { BlockCommit } from './block-commit.ts'
import { BlockCursor, layoutOf, readHead } from './block-cursor.ts'
import {
  type BlockHead,
  blockHeaderBytes,
  blockVersion,
  commitLsnAt,
  countsAt,
  listFlag,
  partFlag,
} from './block-format.ts'
import { PartialCommit } from './partial-commit.ts'
import { KnownRelations } from './relation-codec.ts'
import { Rows } from './rows.ts'

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
    if (version > blockVersion || (flags & ~partFlag) !== 0) throw newer(id, version, flags)
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
    const commits = readCommits(bytes, header.count, prevLsn, this.#relations)
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
    unfinished.commit.take(bytes.subarray(blockHeaderBytes))
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

function readCommits(bytes: Buffer, count: number, prevLsn: bigint, known: KnownRelations): Commit[] {
  const cursor = new BlockCursor(bytes, blockHeaderBytes, bytes.length, known)
  const commits: Commit[] = []
  let last = prevLsn
  for (let index = 0; index < count; index++) {
    const commit = readCommit(cursor)
    if (commit.commitLsn <= last) throw new RangeError('its commits are not in order')
    last = commit.commitLsn
    commits.push(commit)
  }
  if (cursor.left > 0) throw new RangeError('it does not end with its last commit')
  return commits
}

function readCommit(cursor: BlockCursor): Commit {
  const { block, at } = cursor
  const flags = block.bytes[at]
  if (flags !== 0) {
    const head = readHead(cursor)
    const rows = new Rows()
    for (let index = 0; index < head.changeCount; index++) {
      const length = cursor.uint32()
      const layout = (flags! & listFlag) === 0 ? 0 : cursor.uint32()
      rows.add(layoutOf(head.layouts, layout), cursor.slice(length))
    }
    return rows.commit(head)
  }
  const commitLsn = block.view.getBigUint64(at + commitLsnAt)
  cursor.at = at + countsAt
  const bytes = cursor.varint()
  const changeCount = cursor.varint()
  const sole = cursor.relation()
  const rowsAt = cursor.at
  for (let index = 0; index < changeCount; index++) cursor.skip(cursor.uint32())
  return new BlockCommit({ block, at, rowsAt, commitLsn, bytes, changeCount, sole })
}

const nameOf = ({ lsn, attempt, part }: BlockId): string => `${formatLsn(lsn)}, attempt ${attempt}, part ${part}`

function newer(id: BlockId, version: number, flags: number): TidegateError {
  const format = `of format ${version} with flags ${flags}, and this node reads format ${blockVersion}`
  const message = `the journal's block ${nameOf(id)} is ${format}: a newer release wrote it: upgrade this node`
  return new TidegateError('JOURNAL_UNREADABLE', message)
}

function damaged(id: BlockId, bytes: Buffer, cause: RangeError): TidegateError {
  const message = `the journal's block ${nameOf(id)}, of ${bytes.length} bytes, cannot be read: ${cause.message}`
  return new TidegateError('JOURNAL_UNREADABLE', message, { cause })
}
