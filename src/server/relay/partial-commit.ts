// A large commit of the journal, as its parts come. A part ends anywhere: what is left of it waits for the next.
import { defaultSpoolBytes, messageOverhead, type SpoolOptions } from '../decode/commit-builder.ts'
import type { HeldCommit } from '../decode/held-commit.ts'
import { lengthAt } from '../decode/pgoutput.ts'
import { chunkBytes, headerBytes, Spool } from '../decode/spool.ts'
import { SpooledCommit } from '../decode/spooled-commit.ts'
import { BlockCursor, type CommitHead, layoutOf, readHead } from './block-cursor.ts'
import type { KnownRelations } from './relation-codec.ts'
import { Rows } from './rows.ts'

/** Relations and logical messages of a commit are less, and a row message of Postgres is. */
const maxHeadBytes = 2 ** 30

export class PartialCommit {
  readonly #known: KnownRelations
  readonly #options: SpoolOptions
  #head: CommitHead | null = null
  /** Where the rows go, if not to `#rows`: decided by what the head says of their number and bytes. */
  #spool: Spool | null = null
  readonly #rows = new Rows()
  #count = 0
  /** Of rows, without their headers. */
  #bytes = 0
  /** The beginning of a head or row whose end has not come. */
  #tail: Buffer[] = []
  #tailBytes = 0

  constructor(known: KnownRelations, options: SpoolOptions) {
    this.#known = known
    this.#options = options
  }

  /** The content of the next part; its memory is kept, unless the commit goes to a file. */
  take(content: Buffer): void {
    let at = 0
    while (this.#tailBytes > 0 && at < content.length) at += this.#completeTail(content.subarray(at))
    if (this.#head === null && content.length - at >= headerBytes) {
      const end = at + headerBytes + this.#lengthAt(content, at)
      if (end <= content.length) {
        this.#readHead(content.subarray(at, end))
        at = end
      }
    }
    if (this.#head !== null) at = this.#takeRows(content, at)
    if (at === content.length) return
    this.#tail.push(content.subarray(at))
    this.#tailBytes = content.length - at
  }

  /** All parts have come. */
  finish(): HeldCommit | SpooledCommit {
    const head = this.#head
    if (head === null || this.#tailBytes > 0) throw new RangeError('it is cut off')
    if (this.#count !== head.changeCount)
      throw new RangeError(`it has ${this.#count} rows instead of ${head.changeCount}`)
    if (this.#spool === null) return this.#rows.commit(head)
    this.#spool.finish()
    return new SpooledCommit(head, this.#spool, this.#count)
  }

  abandon(): void {
    this.#spool?.close()
  }

  /** Takes what lies whole in the content. @returns where it ends */
  #takeRows(content: Buffer, start: number): number {
    const { layouts } = this.#head!
    let at = start
    let taken = start
    let count = 0
    while (content.length - at >= headerBytes) {
      const length = this.#lengthAt(content, at)
      const end = at + headerBytes + length
      if (end > content.length) break
      const relation = layoutOf(layouts, lengthAt(content, at + 4))
      this.#bytes += length
      this.#count++
      count++
      if (this.#spool === null) this.#rows.add(relation, content.subarray(at + headerBytes, end))
      else if (end - taken >= chunkBytes) {
        this.#spool.appendEntries(content.subarray(taken, end), count)
        taken = end
        count = 0
      }
      at = end
    }
    if (this.#spool !== null && count > 0) this.#spool.appendEntries(content.subarray(taken, at), count)
    return at
  }

  /** First the header of a head or row, then the rest. @returns how much of the content went into it */
  #completeTail(content: Buffer): number {
    let wanted = headerBytes
    if (this.#tailBytes >= headerBytes) {
      if (this.#tail[0]!.length < headerBytes) this.#tail = [Buffer.concat(this.#tail)]
      wanted += this.#lengthAt(this.#tail[0]!, 0)
    }
    const bytes = content.subarray(0, wanted - this.#tailBytes)
    this.#tail.push(bytes)
    this.#tailBytes += bytes.length
    if (this.#tailBytes < wanted) return bytes.length
    const whole = Buffer.concat(this.#tail)
    this.#tail = [whole]
    if (wanted === headerBytes && this.#lengthAt(whole, 0) > 0) return bytes.length
    this.#tail = []
    this.#tailBytes = 0
    if (this.#head === null) this.#readHead(whole)
    else this.#takeRows(whole, 0)
    return bytes.length
  }

  #readHead(bytes: Buffer): void {
    const cursor = new BlockCursor(bytes, headerBytes, bytes.length, this.#known)
    const head = readHead(cursor)
    if (cursor.left > 0) throw new RangeError('the head of its commit ends too late')
    this.#head = head
    const { spoolBytes = defaultSpoolBytes, spoolFolder } = this.#options
    if (head.bytes + head.changeCount * messageOverhead > spoolBytes) this.#spool = new Spool(spoolFolder)
  }

  /** Of the head, or of a row: never more than the head says, or a damaged block would fill the memory. */
  #lengthAt(bytes: Buffer, at: number): number {
    const length = lengthAt(bytes, at)
    const head = this.#head
    if (head === null ? length > maxHeadBytes : this.#bytes + length > head.bytes || this.#count === head.changeCount)
      throw new RangeError('its rows are more than its head says')
    return length
  }
}
