// Where a block of the journal has been read to, and what its commits' heads say.
import type { LogicalMessage, Relation } from '../decode/change.ts'
import { oidsOf } from '../decode/commit-builder.ts'
import type { CommitFacts } from '../decode/commit-facts.ts'
import { truncation } from '../decode/row-message.ts'
import {
  announcedFlag,
  commitLsnAt,
  committedAt,
  countsAt,
  endLsnAt,
  knownCommitFlags,
  listFlag,
  messagesFlag,
  xidAt,
} from './block-format.ts'
import type { KnownRelation, KnownRelations } from './relation-codec.ts'

/** A block in memory, for all its commits. */
export interface BlockBytes {
  readonly bytes: Buffer
  readonly view: DataView
}

/** Whatever does not end within the block, or is not as `block.ts` writes it, is a RangeError. */
export class BlockCursor {
  readonly block: BlockBytes
  at: number
  readonly #end: number
  readonly #known: KnownRelations
  /** Those that the block has defined, by number. */
  readonly #relations: KnownRelation[] = []

  constructor(bytes: Buffer, at: number, end: number, known: KnownRelations) {
    this.block = { bytes, view: new DataView(bytes.buffer, bytes.byteOffset, end) }
    this.at = at
    this.#end = end
    this.#known = known
    known.beginBlock()
  }

  get left(): number {
    return this.#end - this.at
  }

  uint8(): number {
    return this.block.view.getUint8(this.at++)
  }

  uint32(): number {
    this.at += 4
    return this.block.view.getUint32(this.at - 4)
  }

  varint(): number {
    let value = 0
    for (let factor = 1, more = true; more; factor *= 0x80) {
      const byte = this.uint8()
      value += (byte & 0x7f) * factor
      more = byte > 0x7f
    }
    if (!Number.isSafeInteger(value)) throw new RangeError('a number is too large')
    return value
  }

  skip(length: number): void {
    this.at += length
    if (this.at > this.#end) throw new RangeError('it ends too early')
  }

  /** A view. */
  slice(length: number): Buffer {
    this.skip(length)
    return this.block.bytes.subarray(this.at - length, this.at)
  }

  relation(): KnownRelation {
    const number = this.varint()
    const mentioned = this.#relations[number]
    if (mentioned !== undefined) return mentioned
    if (number !== this.#relations.length) throw new RangeError(`relation ${number} has not been defined`)
    const defined = this.#known.resolve(this.slice(this.varint()))
    this.#relations.push(defined)
    return defined
  }

  relations(): Relation[] {
    const relations: Relation[] = []
    for (let count = this.varint(); count > 0; count--) relations.push(this.relation().relation)
    return relations
  }
}

export interface CommitHead extends CommitFacts {
  readonly changeCount: number
}

export function readHead(cursor: BlockCursor): CommitHead {
  const { at } = cursor
  const { view } = cursor.block
  const flags = view.getUint8(at)
  if (flags > knownCommitFlags) throw new RangeError(`a commit has the flags ${flags}`)
  cursor.at = at + countsAt
  const bytes = cursor.varint()
  const changeCount = cursor.varint()
  const sole = (flags & listFlag) === 0 ? cursor.relation() : null
  const layouts = sole?.layouts ?? cursor.relations()
  return {
    xid: view.getUint32(at + xidAt),
    commitLsn: view.getBigUint64(at + commitLsnAt),
    endLsn: view.getBigUint64(at + endLsnAt),
    committedAtMicros: view.getBigInt64(at + committedAt),
    bytes,
    changeCount,
    relations: sole?.oids ?? oidsOf(layouts),
    layouts,
    announced: (flags & announcedFlag) === 0 ? noRelations : cursor.relations(),
    messages: (flags & messagesFlag) === 0 ? noMessages : readMessages(cursor),
  }
}

const noRelations: readonly Relation[] = []
const noMessages: readonly LogicalMessage[] = []

export function layoutOf(layouts: readonly Relation[], place: number): Relation {
  const relation = layouts[place]
  if (relation === undefined) throw new RangeError(`a row is of layout ${place} of ${layouts.length}`)
  return relation
}

function readMessages(cursor: BlockCursor): LogicalMessage[] {
  const messages: LogicalMessage[] = []
  for (let count = cursor.varint(); count > 0; count--) {
    const prefix = cursor.slice(cursor.varint()).toString()
    const isOmitted = cursor.uint8() === 1
    const length = cursor.varint()
    if (isOmitted) messages.push({ prefix, content: truncation, omittedBytes: length })
    else messages.push({ prefix, content: cursor.slice(length) })
  }
  return messages
}
