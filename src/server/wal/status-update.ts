// The one message we send to a walsender: how far we have read, and, only when we acknowledge, what it may forget.
import type pg from 'pg'

export interface StatusUpdate {
  /** Last position received; bytes from the start of the WAL, 64-bit. */
  readonly writtenLsn: bigint
  /** Position up to which nothing need be sent again; 0 says nothing. */
  readonly flushedLsn: bigint
  /** Milliseconds since 1970-01-01 UTC. */
  readonly sentAtMs: number
  /** Asks the walsender to answer at once with a keepalive. */
  readonly replyRequested: boolean
}

/** 2000-01-01 UTC in milliseconds since 1970: the epoch of Postgres's clock. */
const postgresEpochMs = 946_684_800_000

/** Encodes a standby status update.
 *  @returns 34 bytes: 'r', written, flushed, applied (int64 BE), µs since 2000-01-01 UTC (int64 BE), reply (0|1).
 *    `applied` is sent as `flushed`. Source: PostgreSQL manual, Streaming Replication Protocol */
export function encodeStatusUpdate(update: StatusUpdate): Buffer {
  const bytes = Buffer.allocUnsafe(34)
  bytes[0] = 0x72
  bytes.writeBigUInt64BE(update.writtenLsn, 1)
  bytes.writeBigUInt64BE(update.flushedLsn, 9)
  bytes.writeBigUInt64BE(update.flushedLsn, 17)
  bytes.writeBigInt64BE(BigInt(Math.trunc((update.sentAtMs - postgresEpochMs) * 1000)), 25)
  bytes[33] = update.replyRequested ? 1 : 0
  return bytes
}

/** What we need of node-postgres's connection: it is not in its types, but it is what COPY and this replication use. */
export interface CopyConnection {
  sendCopyFromChunk(chunk: Buffer): void
  /** Sends Terminate and closes our side. */
  end(): void
  on(event: 'copyData', listener: (message: { chunk: Buffer }) => void): unknown
  removeAllListeners(event: 'copyData'): unknown
  readonly stream: CopyStream
}

/** The socket under a replication session: plain, or TLS. */
export interface CopyStream {
  pause(): unknown
  resume(): unknown
  cork(): void
  uncork(): void
  destroy(): unknown
  on(event: 'data', listener: (bytes: Buffer) => void): unknown
  once(event: 'close', listener: () => void): unknown
  readonly destroyed: boolean
}

/** The copy connection of a connected client. The library's own `acknowledge(lsn)` cannot be used: it sends lsn + 1 as
 *  written, flushed and applied alike, and a walsender that knows our flush position waits for it at shutdown.
 *  @throws when node-postgres has changed so that it is not there */
export function copyConnection(client: pg.Client): CopyConnection {
  const { connection } = client as unknown as { connection?: Partial<CopyConnection> }
  if (typeof connection?.sendCopyFromChunk !== 'function' || connection.stream === undefined)
    throw new Error('this version of pg has no connection.sendCopyFromChunk: status updates cannot be sent')
  return connection as CopyConnection
}

/** Sends updates together: one write, so that the walsender reads them in one go. */
export function sendStatusUpdates(client: pg.Client, updates: readonly StatusUpdate[]): void {
  const connection = copyConnection(client)
  if (connection.stream.destroyed) return
  connection.stream.cork()
  for (const update of updates) connection.sendCopyFromChunk(encodeStatusUpdate(update))
  connection.stream.uncork()
}
