// What a commit says, once decoded: relations, tuples and changes. Types only.
import type { Row } from '../../predicate/algebra.ts'

export interface RelationColumn {
  readonly name: string
  readonly typeOid: number
  readonly typeModifier: number
  /** Part of the replica identity; every column under FULL. */
  readonly identity: boolean
}

/** A Relation message. Under publish_via_partition_root it describes the root. From the slot a new object for each message
 *  received; from the journal the same one as long as the description is the same: whether the catalog may have changed,
 *  only `Commit.announced` tells. */
export interface Relation {
  readonly oid: number
  readonly schema: string
  readonly name: string
  readonly replicaIdentity: 'default' | 'nothing' | 'full' | 'index'
  readonly columns: readonly RelationColumn[]
}

/** A row version read lazily from the wire's bytes (or from a query's row). Column positions are the Relation's.
 *  `text` gives null for NULL and undefined for what the wire does not say: an unchanged TOAST value, or a column
 *  outside the replica identity in an old key tuple. */
export interface Tuple extends Row {
  readonly relation: Relation
}

export type Change =
  | { readonly kind: 'insert'; readonly index: number; readonly relation: Relation; readonly new: Tuple }
  /** `old` is whole under FULL; else it has the identity columns only, taken from `new` when no old tuple came,
   *  because then the identity is unchanged. */
  | {
      readonly kind: 'update'
      readonly index: number
      readonly relation: Relation
      readonly old: Tuple
      readonly new: Tuple
    }
  | { readonly kind: 'delete'; readonly index: number; readonly relation: Relation; readonly old: Tuple }
  | { readonly kind: 'truncate'; readonly index: number; readonly relation: Relation }

export interface LogicalMessage {
  readonly prefix: string
  readonly content: Buffer
  /** Length of a content that was too long to keep (over 1 MiB, or over 16 MiB in one commit); `content` is then empty. */
  readonly omittedBytes?: number
}

/** One committed transaction. */
export interface Commit {
  /** 32-bit, unsigned, as Begin carries it. */
  readonly xid: number
  readonly commitLsn: bigint
  readonly endLsn: bigint
  /** Microseconds since 2000-01-01 UTC, as the wire has it. */
  readonly committedAtMicros: bigint
  /** Bytes of its messages. */
  readonly bytes: number
  /** OIDs of the relations it changes, truncations included. */
  readonly relations: ReadonlySet<number>
  /** Every Relation that its changes name, each once: one for each layout of a table. */
  readonly layouts: readonly Relation[]
  /** Relations of the Relation messages that came since the commit before, the last of each OID: their tables' catalog
   *  entries may have changed, and a partition among them may be new. */
  readonly announced: readonly Relation[]
  /** In wire order, beginning with the raw change number `from` (0 when left out). Can be walked more than once; of a
   *  spooled commit each walk reads the file anew, from the chunk in which `from` lies. */
  changes(from?: number): Iterable<Change>
  /** The same, each to be looked at before the next is asked for and not to be kept: of a spooled commit the next may take
   *  its memory. */
  passing(from?: number): Iterable<Change>
  /** Number of raw changes. */
  readonly changeCount: number
  /** True when its bytes are in a file instead of in memory: walk it in slices, do not collect it. */
  readonly spooled: boolean
  readonly messages: readonly LogicalMessage[]
  /** Closes and deletes the spool file, if any. */
  release(): void
}
