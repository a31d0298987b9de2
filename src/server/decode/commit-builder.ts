// A transaction that is still coming in: its row messages in memory, and past a bound in a file.
import type { LogicalMessage, Relation } from './change.ts'
import { HeldCommit, type Run, soleOf } from './held-commit.ts'
import { truncation } from './row-message.ts'
import { Spool } from './spool.ts'
import { SpooledCommit } from './spooled-commit.ts'

export interface SpoolOptions {
  /** Bytes of memory a transaction may take before its messages go to a file. Default 32 MiB. */
  readonly spoolBytes?: number
  /** Folder of that file. Default: the system's temporary folder. */
  readonly spoolFolder?: string
}

/** Memory a message takes beside its bytes: its Buffer object (104, measured) and its place in a list (8). */
export const messageOverhead = 112
export const defaultSpoolBytes = 32 << 20
/** Logical messages of one commit: content beyond these is left out, and messages beyond the count are dropped. Rows
 *  have a file to go to; a message, which any role can emit without writing a row, must not fill the memory. */
const maxContentBytes = 1 << 20
const maxContentBytesPerCommit = 16 << 20
const maxMessagesPerCommit = 10_000

export class CommitBuilder {
  readonly begin: { readonly finalLsn: bigint; readonly committedAtMicros: bigint; readonly xid: number }
  bytes: number
  /** OID of the relation that the last change named; -1 when the next one must look it up. */
  currentOid = -1
  readonly #options: SpoolOptions
  readonly #spoolBytes: number
  readonly #layouts: Relation[] = []
  readonly #runs: Run[] = []
  #messages: Buffer[] = []
  #count = 0
  /** Memory held: bytes and overhead of `#messages`. */
  #held = 0
  #spool: Spool | null = null
  #current: Relation | null = null
  /** Where the current relation stands in `#layouts`, which are bounded by the Relation messages of the transaction. */
  #layout = 0
  #logical: LogicalMessage[] | null = null
  #contentBytes = 0

  constructor(begin: CommitBuilder['begin'], bytes: number, options: SpoolOptions) {
    this.begin = begin
    this.bytes = bytes
    this.#options = options
    this.#spoolBytes = options.spoolBytes ?? defaultSpoolBytes
  }

  forgetCurrent(): void {
    this.currentOid = -1
  }

  /** The following changes are of this relation. */
  turnTo(relation: Relation): void {
    this.currentOid = relation.oid
    if (relation === this.#current) return
    this.#current = relation
    this.#layout = this.#layouts.indexOf(relation)
    if (this.#layout < 0) this.#layout = this.#layouts.push(relation) - 1
    if (this.#spool === null) this.#runs.push({ from: this.#count, relation })
  }

  add(message: Buffer): void {
    this.#count++
    this.bytes += message.length
    if (this.#spool !== null) {
      this.#spool.append(this.#layout, message)
      return
    }
    this.#messages.push(message)
    this.#held += message.length + messageOverhead
    if (this.#held > this.#spoolBytes) this.#startSpool()
  }

  /** @returns false when the commit has too many */
  addMessage(prefix: string, content: Buffer): boolean {
    this.#logical ??= []
    if (this.#logical.length === maxMessagesPerCommit) return false
    const keep = content.length <= maxContentBytes && this.#contentBytes + content.length <= maxContentBytesPerCommit
    if (keep) this.#contentBytes += content.length
    this.#logical.push(keep ? { prefix, content } : { prefix, content: truncation, omittedBytes: content.length })
    return true
  }

  commit(endLsn: bigint, announced: readonly Relation[]): HeldCommit | SpooledCommit {
    const { begin, bytes } = this
    const sole = this.#layouts.length === 1 ? soleOf(this.#layouts[0]!) : null
    const parts = {
      xid: begin.xid,
      commitLsn: begin.finalLsn,
      endLsn,
      committedAtMicros: begin.committedAtMicros,
      bytes,
      relations: sole?.oids ?? oidsOf(this.#layouts),
      layouts: sole?.layouts ?? this.#layouts,
      announced,
      messages: this.#logical ?? noMessages,
    }
    if (this.#spool === null)
      return new HeldCommit(parts, this.#messages.length === 1 ? this.#messages[0]! : this.#messages, this.#runs)
    this.#spool.finish()
    return new SpooledCommit(parts, this.#spool, this.#count)
  }

  abandon(): void {
    this.#spool?.close()
  }

  #startSpool(): void {
    const spool = new Spool(this.#options.spoolFolder)
    this.#spool = spool
    let run = -1
    let layout = 0
    for (const [index, message] of this.#messages.entries()) {
      if (this.#runs[run + 1]?.from === index) layout = this.#layouts.indexOf(this.#runs[++run]!.relation)
      spool.append(layout, message)
    }
    this.#messages = []
    this.#runs.length = 0
  }
}

const noMessages: readonly LogicalMessage[] = []

export const oidsOf = (layouts: readonly Relation[]): ReadonlySet<number> =>
  layouts.length === 0 ? noOids : new Set(layouts.map(({ oid }) => oid))

const noOids: ReadonlySet<number> = new Set()
