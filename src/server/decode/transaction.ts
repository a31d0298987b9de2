// Puts pgoutput messages together to commits. While a transaction comes in, only a change's letter and relation are read;
// its columns are found when `changes()` is walked and somebody asks. Of a row of five columns that is 40 ns to push and
// 35 to walk; finding the columns costs 30 more, and 200 where the bytes have left the processor's cache; decoding all
// five to strings 450 more.
import type { Change, Commit, LogicalMessage, Relation } from './change.ts'
import { HeldCommit, type Run } from './held-commit.ts'
import { decodeMessage, lengthAt, unreadable } from './pgoutput.ts'
import { RelationCache } from './relation-cache.ts'
import { changeOf, insert, remove, truncation, update } from './row-message.ts'
import { Spool } from './spool.ts'

export interface TransactionOptions {
  /** Bytes of memory a transaction may take before its messages go to a file. Default 32 MiB. */
  readonly spoolBytes?: number
  /** Folder of that file. Default: the system's temporary folder. */
  readonly spoolFolder?: string
  /** Which logical messages to keep, by prefix. Default: all. Any role can emit them. */
  readonly keepMessage?: (prefix: string) => boolean
}

/** Memory a message takes beside its bytes: its Buffer object (104, measured) and its place in a list (8). */
const messageOverhead = 112
/** Logical messages of one commit: content beyond these is left out, and messages beyond the count are dropped. Rows
 *  have a file to go to; a message, which any role can emit without writing a row, must not fill the memory. */
const maxContentBytes = 1 << 20
const maxContentBytesPerCommit = 16 << 20
const maxMessagesPerCommit = 10_000

/** One replication session's messages, in order. */
export class TransactionAssembler {
  /** Logical messages left out because their commit had too many, since the start. */
  droppedMessages = 0
  readonly #options: TransactionOptions
  #relations = new RelationCache()
  #open: OpenTransaction | null = null

  constructor(options: TransactionOptions = {}) {
    this.#options = options
  }

  /** Takes in one pgoutput message and keeps the buffer: its memory must not be written again.
   *  @returns the commit, when this message completes it
   *  @throws WAL_UNREADABLE, SPOOL_FAILED; after either, `reset` and read the slot anew */
  push(message: Buffer): Commit | null {
    const letter = message[0]
    if (letter === insert || letter === update || letter === remove) {
      const open = this.#transaction(message)
      const oid = lengthAt(message, 1)
      if (oid !== open.currentOid) open.turnTo(this.#known(this.#relations.changed(oid), oid, message))
      open.add(message)
      return null
    }
    return this.#pushOther(message)
  }

  /** The session ended: forgets its relations and an unfinished transaction. */
  reset(): void {
    this.#open?.abandon()
    this.#open = null
    this.#relations = new RelationCache()
  }

  #pushOther(bytes: Buffer): Commit | null {
    const message = decodeMessage(bytes)
    if (this.#open !== null) this.#open.bytes += bytes.length
    switch (message.kind) {
      case 'begin':
        if (this.#open !== null) throw unreadable('a Begin stands inside a transaction', bytes)
        this.#open = new OpenTransaction(message, bytes.length, this.#options)
        return null
      case 'commit': {
        const open = this.#transaction(bytes)
        if (message.commitLsn !== open.begin.finalLsn)
          throw unreadable(`Commit ${message.commitLsn} follows Begin ${open.begin.finalLsn}`, bytes)
        this.#open = null
        return open.commit(message.endLsn, this.#relations.takeAnnounced())
      }
      case 'relation':
        this.#relations.receive(message)
        this.#open?.forgetCurrent()
        return null
      case 'truncate': {
        const open = this.#transaction(bytes)
        for (const oid of message.relationOids) {
          open.turnTo(this.#known(this.#relations.truncated(oid), oid, bytes))
          open.add(truncation)
        }
        open.forgetCurrent()
        return null
      }
      case 'message':
        // One that is not transactional comes outside of any commit and has no place in their order.
        if (message.transactional && (this.#options.keepMessage?.(message.prefix) ?? true))
          if (!this.#transaction(bytes).addMessage(message.prefix, message.content)) this.droppedMessages++
        return null
      case 'origin':
      case 'type':
        return null
      default:
        throw unreadable(`a ${message.kind} came by the wrong way`, bytes)
    }
  }

  #transaction(bytes: Buffer): OpenTransaction {
    if (this.#open === null) throw unreadable('it stands outside a transaction', bytes)
    return this.#open
  }

  #known(relation: Relation | undefined, oid: number, bytes: Buffer): Relation {
    if (relation === undefined) throw unreadable(`no Relation message described the table with OID ${oid}`, bytes)
    return relation
  }
}

/** A transaction that is still coming in. */
class OpenTransaction {
  readonly begin: { readonly finalLsn: bigint; readonly committedAtMicros: bigint; readonly xid: number }
  bytes: number
  /** OID of the relation that the last change named; -1 when the next one must look it up. */
  currentOid = -1
  readonly #options: TransactionOptions
  readonly #spoolBytes: number
  /** Nearly every commit changes one table, and all of those share their set. */
  #oids: ReadonlySet<number> = noOids
  readonly #layouts: Relation[] = []
  readonly #runs: Run[] = []
  #messages: Buffer[] = []
  #count = 0
  /** Memory held: bytes and overhead of `#messages`. */
  #held = 0
  #spool: Spool | null = null
  #current: Relation | null = null
  /** Relations that the spooled messages name, by number: bounded by the Relation messages of the transaction. */
  #numbers: Map<Relation, number> | null = null
  #number = 0
  #logical: LogicalMessage[] | null = null
  #contentBytes = 0

  constructor(begin: OpenTransaction['begin'], bytes: number, options: TransactionOptions) {
    this.begin = begin
    this.bytes = bytes
    this.#options = options
    this.#spoolBytes = options.spoolBytes ?? 32 << 20
  }

  forgetCurrent(): void {
    this.currentOid = -1
  }

  /** The following changes are of this relation. */
  turnTo(relation: Relation): void {
    this.currentOid = relation.oid
    if (relation === this.#current) return
    this.#current = relation
    if (!this.#layouts.includes(relation)) this.#layouts.push(relation)
    if (!this.#oids.has(relation.oid))
      this.#oids = this.#oids.size === 0 ? onlyOid(relation) : new Set([...this.#oids, relation.oid])
    if (this.#spool === null) this.#runs.push({ from: this.#count, relation })
    else this.#number = this.#numberOf(relation)
  }

  add(message: Buffer): void {
    this.#count++
    this.bytes += message.length
    if (this.#spool !== null) {
      this.#spool.append(this.#number, message)
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

  commit(endLsn: bigint, announced: readonly Relation[]): Commit {
    this.#spool?.finish()
    const { begin, bytes } = this
    const parts = {
      xid: begin.xid,
      commitLsn: begin.finalLsn,
      endLsn,
      committedAtMicros: begin.committedAtMicros,
      bytes,
      relations: this.#oids,
      layouts: this.#layouts,
      announced,
      messages: this.#logical ?? noMessages,
    }
    const spool = this.#spool
    if (spool === null) return new HeldCommit({ ...parts, rows: this.#messages, runs: this.#runs })
    const relations = [...this.#numbers!.keys()]
    return {
      ...parts,
      changeCount: this.#count,
      spooled: true,
      changes: from => spooledChanges(relations, spool.entries(from), spool.startBefore(from ?? 0).entry, from),
      passing: from => spooledChanges(relations, spool.passing(from), spool.startBefore(from ?? 0).entry, from),
      release: () => spool.close(),
    }
  }

  abandon(): void {
    this.#spool?.close()
  }

  #startSpool(): void {
    const spool = new Spool(this.#options.spoolFolder)
    this.#spool = spool
    let run = -1
    for (const [index, message] of this.#messages.entries()) {
      if (this.#runs[run + 1]?.from === index) this.#number = this.#numberOf(this.#runs[++run]!.relation)
      spool.append(this.#number, message)
    }
    this.#messages = []
    this.#runs.length = 0
  }

  #numberOf(relation: Relation): number {
    this.#numbers ??= new Map()
    const number = this.#numbers.get(relation) ?? this.#numbers.size
    this.#numbers.set(relation, number)
    return number
  }
}

const noMessages: readonly LogicalMessage[] = []
const noOids: ReadonlySet<number> = new Set()
const oidSets = new WeakMap<Relation, ReadonlySet<number>>()

function onlyOid(relation: Relation): ReadonlySet<number> {
  let oids = oidSets.get(relation)
  if (oids === undefined) {
    oids = new Set([relation.oid])
    oidSets.set(relation, oids)
  }
  return oids
}

function* spooledChanges(
  relations: readonly Relation[],
  entries: Iterable<readonly [relation: number, message: Buffer]>,
  start: number,
  first = 0,
): Generator<Change> {
  let index = start
  for (const [number, message] of entries) {
    if (index >= first) yield changeOf(message, relations[number]!, index)
    index++
  }
}
