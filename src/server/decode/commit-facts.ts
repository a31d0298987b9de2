// What a committed transaction says beside its changes.
import type { Commit, LogicalMessage, Relation } from './change.ts'

export type CommitFacts = Omit<Commit, 'changes' | 'passing' | 'changeCount' | 'spooled' | 'release'>

/** Of a commit that the slot gave, wherever its changes are. */
export class KnownFacts implements CommitFacts {
  readonly xid: number
  readonly commitLsn: bigint
  readonly endLsn: bigint
  readonly committedAtMicros: bigint
  readonly bytes: number
  readonly relations: ReadonlySet<number>
  readonly layouts: readonly Relation[]
  readonly announced: readonly Relation[]
  readonly messages: readonly LogicalMessage[]

  constructor(facts: CommitFacts) {
    this.xid = facts.xid
    this.commitLsn = facts.commitLsn
    this.endLsn = facts.endLsn
    this.committedAtMicros = facts.committedAtMicros
    this.bytes = facts.bytes
    this.relations = facts.relations
    this.layouts = facts.layouts
    this.announced = facts.announced
    this.messages = facts.messages
  }
}
