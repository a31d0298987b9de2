// What stands on a node now, asked of its owners when somebody looks: /metrics, the inspector. Types only.

export interface LaneUse {
  /** As connections.ts names it: a fixed list. */
  readonly lane: string
  readonly inUse: number
  readonly waiting: number
}

export interface SlotStand {
  /** From its confirmed_flush_lsn to the end of the WAL. A part of it is held back on purpose: the window. */
  readonly lagBytes: number
  /** How old the oldest WAL is that is not acknowledged; to the second. */
  readonly lagSeconds: number
  /** From its restart_lsn to the end of the WAL; null where the slot is invalid. */
  readonly retainedBytes: number | null
  /** As Postgres has it: `reserved`, `extended`, `unreserved`, `lost`. */
  readonly walStatus: string
}

export interface Gauges {
  readonly leads: boolean
  /** As `/ready?scope=node`. */
  readonly isReady: boolean
  /** No heartbeat comes back. */
  readonly isStale: boolean
  readonly isDraining: boolean
  /** Something keeps changes from coming. */
  readonly isInTrouble: boolean
  /** As Postgres told within the last second; null before, and where there is no slot. */
  readonly slot: SlotStand | null
  /** SLOT_MAX_BYTES. */
  readonly slotMaxBytes: number
  /** WAL that was written and has not come to this node. Null until Postgres was asked. */
  readonly relayLagBytes: number | null
  readonly relayLagSeconds: number | null
  /** WAL that was written and has not been served here. */
  readonly lagBytes: number | null
  /** How long the newest heartbeat was on its way, or how long one has been awaited. */
  readonly lagMs: number
  /** Of the window that clients resume from. */
  readonly windowBytes: number
  readonly windowCommits: number
  readonly connections: number
  readonly maxConnections: number
  /** Of queries. */
  readonly subscriptions: number
  readonly audiences: number
  readonly queries: number
  /** Snapshots being read and joined to the stream. */
  readonly splices: number
  /** What waits for sockets, in bytes. */
  readonly queuedBytes: number
  readonly channels: number
  readonly members: number
  /** Channels in which connections of this node are present. */
  readonly presenceRooms: number
  readonly lanes: readonly LaneUse[]
  /** DATABASE_POOL. */
  readonly maxDatabaseConnections: number
}
