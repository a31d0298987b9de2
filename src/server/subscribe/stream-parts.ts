// The stream's state on this node and the means to read beside it.
import type { IndexSize } from '../authorize/inner-set.ts'
import type { Figures } from '../figures/figures.ts'
import type { Log } from '../log/log.ts'
import type { Head } from '../relay/head.ts'
import type { MemoryRelay } from '../relay/memory-relay.ts'
import type { Router } from '../route/router.ts'
import type { FirstReads } from '../snapshot/first-reads.ts'
import type { SnapshotReader } from '../snapshot/reader.ts'
import type { SharedReads } from '../snapshot/shared-reads.ts'

export interface StreamLimits {
  /** Rows of a first snapshot, and of what one grant or revocation may move. */
  readonly snapshotMaxRows: number
  readonly snapshotChunkRows: number
  /** Inner rows that one semi-join may hold for one reader. */
  readonly membershipMaxRows: number
  /** Bytes of commits kept only because a snapshot being spliced may not see them. */
  readonly ringMaxBytes: number
  /** Of the rows that all windows hold, in characters; past it new queries with a limit are refused for a while. */
  readonly windowsMaxBytes: number
  /** How long an audience's frames wait for the rows that a grant or revocation names. */
  readonly maxHeldMs: number
  /** How long an audience without subscribers stays warm. */
  readonly audienceGraceMs: number
  /** How long a subscription waits for the stream to reach its position after a restart. */
  readonly resumeWaitMs: number
}

/** All but what is made of it. */
export interface StreamParts {
  readonly relay: MemoryRelay
  readonly head: Head
  readonly router: Router
  readonly reader: SnapshotReader
  /** Reads as whoever subscribes. */
  readonly firstReads: FirstReads
  /** Reads as Tidegate's login, together with those of others. */
  readonly sharedReads: SharedReads
  readonly limits: StreamLimits
  /** Of all membership sets and hops. */
  readonly indexSize: IndexSize
  readonly log: Log
  readonly figures: Figures
}
