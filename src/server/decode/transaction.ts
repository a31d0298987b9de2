// Puts pgoutput messages together to commits. While a transaction comes in, only a change's letter and relation are read;
// its columns are found when `changes()` is walked and somebody asks. Of a row of five columns that is 40 ns to push and
// 35 to walk; finding the columns costs 30 more, and 200 where the bytes have left the processor's cache; decoding all
// five to strings 450 more.
import type { Commit, Relation } from './change.ts'
import { CommitBuilder, type SpoolOptions } from './commit-builder.ts'
import { decodeMessage, lengthAt, unreadable } from './pgoutput.ts'
import { RelationCache } from './relation-cache.ts'
import { insert, remove, truncation, update } from './row-message.ts'

export interface TransactionOptions extends SpoolOptions {
  /** Which logical messages to keep, by prefix. Default: all. Any role can emit them. */
  readonly keepMessage?: (prefix: string) => boolean
}

/** One replication session's messages, in order. */
export class TransactionAssembler {
  /** Logical messages left out because their commit had too many, since the start. */
  droppedMessages = 0
  readonly #options: TransactionOptions
  #relations = new RelationCache()
  #open: CommitBuilder | null = null

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
        this.#open = new CommitBuilder(message, bytes.length, this.#options)
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

  #transaction(bytes: Buffer): CommitBuilder {
    if (this.#open === null) throw unreadable('it stands outside a transaction', bytes)
    return this.#open
  }

  #known(relation: Relation | undefined, oid: number, bytes: Buffer): Relation {
    if (relation === undefined) throw unreadable(`no Relation message described the table with OID ${oid}`, bytes)
    return relation
  }
}
