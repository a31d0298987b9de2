// What the replication session gives: gulps of messages, in order, and a way to acknowledge. Types only.

/** `data` is one pgoutput message; a keepalive has none. `walEnd`: everything that commits before it has been sent. */
export interface WalMessage {
  readonly data: Buffer | null
  readonly walEnd: bigint
}

/** One connected life of the replication session. */
export interface WalStream {
  /** Messages as they come, many at a time when there are many. Ends when the signal aborts, throws when the
   *  connection is lost. Not reading it is the backpressure. */
  gulps(): AsyncIterable<readonly WalMessage[]>
  /** Tells Postgres that everything up to `lsn` (a commit's end) need never be sent again.
   *  @throws LSN_WENT_BACKWARDS */
  acknowledge(lsn: bigint): void
  close(): Promise<void>
}

export interface SlotState {
  /** 8 hex digits: system identifier, timeline and the slot's random suffix, hashed when the epoch began. A promoted
   *  standby that has all that was told goes on in it. */
  readonly epoch: string
  readonly slotName: string
  /** The database cluster's own number, which its standbys share. */
  readonly systemId: string
  /** Counts the cluster's promotions: the line of its history that this life reads. */
  readonly timeline: string
  readonly confirmedFlushLsn: bigint
  /** True when this start created the slot: nothing before it can be replayed. */
  readonly created: boolean
}

/** What is held of a slot's epoch: by the journal, or in this process's memory. */
export interface Held {
  readonly epoch: string
  /** The timeline that was read last. */
  readonly timeline: string
  /** End of the newest commit that anybody may have been told of. */
  readonly headEndLsn: bigint
}
