// A block of the journal: whole commits in Postgres's own row messages, or one part of one large commit.
//
//   version uint8 · flags uint8 · epoch, 8 hex digits · prevLsn uint64 · part uint32 · count uint32 · content
//
// Numbers are big-endian; a `varint` is 7 bits a byte, the least first. A whole block's content is `count` commits one after
// the other, each a head and its rows:
//
//   head  flags uint8 · xid uint32 · commitLsn, endLsn uint64 · committedAtMicros int64 · bytes, changeCount varint
//         · layouts: one relation or, by flag, their count and each · announced, by flag: the same · messages, by flag: their
//         count, and of each its prefix's length and bytes, then 0 and its content's length and bytes, or 1 and the length of
//         what was left out
//   row   length uint32 · its place among the layouts uint32, if those are a list · bytes, of a truncation none
//
// A relation is its number in the block, a varint. The first mention defines it: the length of its definition, a varint, and
// that, as relation-codec.ts has it. So a reader may begin at any block.
//
// A large commit is cut into `count` parts at any byte, wherever its rows begin: one may be larger than a part. It is its
// head, after that one's length and four zero bytes, and its rows, each with its place, as a spool file has them: the parts of
// a spooled commit are read from the file as they are, and written to a reader's, and nothing is done for each row.
//
// Nodes of this release and of the next run side by side: one that changes the format must write this one until all read the
// other.

export interface BlockHead {
  /** 8 hex digits. */
  readonly epoch: string
  /** Every commit after it, up to the block's last, is in this block. */
  readonly prevLsn: bigint
}

export const blockVersion = 1
export const blockHeaderBytes = 26
/** The block is a part of a large commit. */
export const partFlag = 1

/** A commit's layouts are a list; else it has exactly one. */
export const listFlag = 1
export const announcedFlag = 2
export const messagesFlag = 4
export const knownCommitFlags = 7

/** Where the fields of a commit's head begin, after its flags; the last is where the varints begin. */
export const [xidAt, commitLsnAt, endLsnAt, committedAt, countsAt] = [1, 5, 13, 21, 29] as const
